"""`voxmill card`: the card of a corpus or a model, from what all packages know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.exchange.cards.corpus_card import corpus_card
from catalogs.exchange.cards.model_card import ModelOptions, model_card
from catalogs.exchange.cards.model_facts import is_model
from catalogs.exchange.cards.write import Card, CardError, write_card
from catalogs.weights.checkpoint_files import file_digests

if TYPE_CHECKING:
    from evaluation.runs.folder import Run

_SIGNATURE = "model.sig"


@dataclass(frozen=True)
class CardSummary:
    """What was written. kind: `corpus` or `model`. notices: what the reader of the terminal should know."""

    kind: str
    files: tuple[Path, ...]
    notices: tuple[str, ...]


def card(
    path: str | Path,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    contact: str | None = None,
    url: str | None = None,
    license: str | None = None,
    languages: Sequence[str] = (),
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    corpora: Sequence[str | Path] = (),
    evaluation: str | Path | None = None,
    watermark: str = "public",
    force: bool = False,
) -> CardSummary:
    """Write README.md and ATTRIBUTION.md, and croissant.json of a corpus, into `out` (default: the folder itself).

    See `ModelOptions` for what is said of models only. Raises ValueError in one line for options that do not fit, for damaged
    files, and for files that a person wrote (`force` writes over them).
    """
    folder, target = Path(path), Path(path if out is None else out)
    notices: list[str] = []
    if target.exists() and not target.is_dir():
        raise CardError(f"{target} is a file: give a folder for the card")
    if (folder / "corpus.json").is_file():
        own = (
            license,
            languages,
            base_model,
            datasets,
            corpora,
            evaluation,
            None if watermark == "public" else watermark,
        )
        if any(own):
            raise CardError("a corpus has its licenses and languages from its recordings: these options are for models")
        made, kind = _corpus(folder, contact, url, name), "corpus"
    elif is_model(folder):
        if url:
            raise CardError("--url is for corpora: it is in their croissant.json")
        results = evaluation_section(Path(evaluation), folder) if evaluation else ""
        options = ModelOptions(
            *(name, license, contact, tuple(languages), base_model, tuple(datasets), watermark, results),
            corpora=tuple(map(Path, corpora)),
        )
        (made, notices), kind = model_card(folder, options), "model"
        if (folder / _SIGNATURE).is_file() and target.resolve() == folder.resolve():
            notices.append(f"{folder / _SIGNATURE} does not cover the new card: run voxmill sign again")
    else:
        raise CardError(
            f"{path} is neither a corpus (corpus.json) nor a model (config.json): give one of these folders"
        )
    files, more = write_card(target, made, force)
    return CardSummary(kind, tuple(files), (*notices, *more))


def _corpus(folder: Path, contact: str | None, url: str | None, name: str | None) -> Card:
    from catalogs.exchange.cards.rai import StageUse
    from pipeline.runs.fingerprint import made_with

    used = made_with(folder)
    stages = None if used is None else [StageUse(*one) for one in used]
    return corpus_card(folder, stages, contact, url, name)


def evaluation_section(folder: Path, model: Path) -> str:
    """Return the results of an evaluation run as Markdown. Raises CardError if it judged other weights than those of `model`."""
    from evaluation.results.comparison import markdown_table
    from evaluation.results.figures import FAILED, read_figures
    from evaluation.results.headlines import HEADLINES
    from evaluation.results.summary import summarize
    from evaluation.runs.folder import open_run
    from evaluation.tables import cell_text

    run = open_run(folder)
    _check_weights(run, folder, model)
    found = summarize(read_figures(run), groups=False)
    shown = (*HEADLINES, FAILED)
    cells = [one for one in found.cells if one.name in shown and one.headline and one.estimate]
    rows = [["list", "language", "figure", "items", "estimate"]]
    rows += [[one.list, one.language, one.title, str(one.items), cell_text(one)] for one in cells]
    failed = sum(found.failed.values())
    lines = f"{found.items:,} items, {found.takes:,} takes, {failed:,} failed. In brackets: 95 % confidence intervals."
    return f"{lines}\n\n{markdown_table(rows)}" if cells else lines


def _check_weights(run: Run, folder: Path, model: Path) -> None:
    """Compare the digests of the weights that a run spoke with."""
    system: dict[str, Any] = run.settings["system"]
    names = {name: digest for name, digest in file_digests(model).items() if name.endswith((".safetensors", ".bin"))}
    if any(name in system and system[name] != digest for name, digest in names.items()):
        raise CardError(f"{folder} judged other weights than those in {model}: give the evaluation of this model")
    if not any(name in system for name in names):
        raise CardError(f"{folder} does not say which weights it judged: give the evaluation of a checkpoint")
