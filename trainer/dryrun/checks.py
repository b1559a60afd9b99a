"""Checks before a run: corpora, data, model, codec, tokenizer, output and disk.

Each check raises TrainError with one line that states what to do. Both `train` and `--dry-run` run all of them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from catalogs.corpus.damage import repair_command
from catalogs.settings import read_yaml
from catalogs.vocabulary.licenses import NOT_STATED
from trainer.checkpoint.restore import Saved, latest, refuse_other_data, saved_state, step_paths
from trainer.codec.files import read_codec
from trainer.config import TrainConfig, TrainError
from trainer.data.candidates import Candidate, Candidates
from trainer.data.corpora import Corpora
from trainer.data.mixture import Mixture, data_key, find_candidates, hold_out
from trainer.data.rows import Planner, RowStream
from trainer.dryrun.memory import checkpoint_bytes
from trainer.model.base import base_digests, refuse_other_base
from trainer.model.build import model_config
from trainer.model.start_checkpoint import fetch_start, local_start
from trainer.monitor.panel import check_judge
from trainer.sample_kinds import BY_LAYOUT
from voxcpm.audiovae import AudioVAEConfig
from voxcpm.config import VoxCPM2Config
from voxcpm.model.backbone import VoxCPM2
from voxcpm.presets import PUBLISHED, published_config
from voxcpm.sequence.prompt_layout import AUDIO_END, AUDIO_START, REFERENCE_END, REFERENCE_START
from voxcpm.sequence.text_tokenizer import TextTokenizer
from voxcpm.weights.checkpoint import parse_dtype
from voxcpm.weights.lora import LoRAConfig, apply_lora

_MARKS = {AUDIO_START, AUDIO_END, REFERENCE_START, REFERENCE_END}
_TEXTS = 200
"""Number of texts that the tokenizer is tested on."""


@dataclass(frozen=True)
class Data:
    """The data of a run: candidates by phase, held-out segments, and the key of the data's order."""

    corpora: Corpora
    candidates: dict[str, Candidates]
    held: Sequence[Candidate]
    key: str
    mixtures: dict[str, Mixture]
    """By phase: made once, for the checks and for the steps."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known about the model before its weights are read."""

    origin: str
    config: VoxCPM2Config
    tokenizer: TextTokenizer | None
    """None: it is trained, or fetched, when the run starts."""
    codec: Path | None
    """The folder that the codec is read from; None: it is trained, or fetched, when the run starts."""
    weights: int
    trained: int


def read_data(config: TrainConfig, spare: Path | None = None) -> Data:
    """The corpora and their candidates; every phase has a mixture, and every segment's shard is there.

    spare: the folder for the candidate table if no corpus folder can be written to (default: a temporary folder).
    """
    corpora = Corpora(config.corpora, spare, config.data.licenses)
    _check_licenses(corpora)
    found = {
        name: find_candidates(corpora, phase.where, phase.max_seconds, name, phase.languages)
        for name, phase in config.phases.items()
    }
    candidates, held = hold_out(found, config.validation)
    mixtures = {name: Mixture(candidates[name], phase, name, config.seed) for name, phase in config.phases.items()}
    _check_shards(corpora, {code for view in found.values() for code in view.places().tolist()})
    return Data(corpora, candidates, held, data_key(config.seed, config.phases, candidates), mixtures)


def _check_licenses(corpora: Corpora) -> None:
    """Raise TrainError if the allowed licenses leave out everything."""
    taken, left = corpora.license_hours()
    if left and not taken:
        raise TrainError(
            f"{corpora.title}: no kept segment has a license that data.licenses allows ({', '.join(corpora.licenses)}); there are"
            f" {license_words(left)}"
        )


def license_words(hours: Mapping[str, float]) -> str:
    """Return hours by license in words."""
    named = {name if name != NOT_STATED else "no license": amount for name, amount in hours.items()}
    return ", ".join(f"{name} {amount:.3f} h" for name, amount in named.items())


def check_output(config: TrainConfig, key: str) -> Saved | None:
    """Return the checkpoint that the run resumes from, None without one. Raises TrainError if the folder cannot be written, or
    holds a run on other data or with another model."""
    output = Path(config.output)
    there = _nearest(output)
    try:
        if not there.is_dir():
            raise NotADirectoryError(20, "Not a directory", str(there))
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise TrainError(
            f"output {output}: cannot write into {there} ({error.strerror}): give another with --set output=DIR"
        ) from None
    resumed = latest(output)
    if resumed is not None:
        refuse_other_data(output, resumed, saved_state(resumed), key)
        _refuse_other_model(config, output, resumed)
    return resumed


def _refuse_other_model(config: TrainConfig, output: Path, resumed: Saved) -> None:
    """Raise TrainError if the model, codec or tokenizer settings differ from those at the run's start. Resuming would take them
    from the checkpoint and silently ignore the change."""
    written = output / "train.yaml"
    if not written.is_file():
        return
    try:
        before = TrainConfig.model_validate(read_yaml(written)).model
    except ValueError:
        return  # written by another version, or by hand: the shapes of the weights are compared when they are read
    # A resumed run reads `start` only if adapters are trained over it, or if only shards without a codec exist.
    # The base of adapters may have moved to another folder: its weights are compared (`refuse_other_base`).
    compared = config.model.lora is not None and saved_state(resumed).base
    left_out = {"start"} if start_of(config, resumed) is None or compared else set()
    mine, theirs = (settings.model_dump(exclude=left_out) for settings in (config.model, before))
    changed = [name for name in mine if mine[name] != theirs[name]]
    if changed:
        raise TrainError(
            f"{output} was trained with other model settings (model.{changed[0]}: {theirs[changed[0]]}, now"
            f" {mine[changed[0]]}): give another output, or the settings in {written}"
        )


def start_of(config: TrainConfig, resumed: Saved | None) -> str | None:
    """Return the checkpoint that weights or shape are read from besides the run's own; None if the run's own has everything."""
    own = resumed is not None and resumed.folder is not None and config.model.lora is None
    return None if own else config.model.start


def look_at_model(config: TrainConfig, corpora: Corpora, resumed: Saved | None) -> ModelFacts | None:
    """Read the model's shape and check codec and tokenizer against it; return None for a hub id that has yet to be fetched.

    The shapes of the released models are known without fetching it. Raises TrainError if something does not fit.
    """
    settings = config.model
    tokenizer: TextTokenizer | None = None
    codec_at: Path | None = None
    start = start_of(config, resumed)
    if start is not None:
        folder = local_start(start)
        if folder is not None:
            shape, tokenizer, origin = VoxCPM2Config.load(folder), TextTokenizer.load(folder), str(folder)
            codec_at = folder
            if resumed is not None and settings.lora is not None:
                refuse_other_base(Path(config.output), saved_state(resumed).base, base_digests(folder), start)
        elif start not in PUBLISHED:
            return None
        else:
            shape, origin = published_config(start), f"{start}, which has yet to be fetched"
    elif resumed is not None and resumed.folder is not None:
        shape, tokenizer = VoxCPM2Config.load(resumed.folder), TextTokenizer.load(resumed.folder)
        origin, codec_at = str(resumed.folder), resumed.folder
    else:
        if settings.tokenizer is not None:
            tokenizer = TextTokenizer.load(Path(settings.tokenizer).expanduser())
        codec = read_codec(settings.codec) if settings.codec is not None else None
        codec_at = Path(settings.codec) if settings.codec is not None else None
        shape = model_config(config, tokenizer.size if tokenizer else settings.vocabulary, codec)
        origin = f"from scratch, size {'of model.config' if settings.config else settings.size}"
    _check_codec(shape, origin)
    _check_layouts(config, shape, origin)
    if tokenizer is not None:
        _check_tokenizer(tokenizer, shape, origin, corpora)
    for name, phase in config.phases.items():
        if phase.max_positions > shape.tslm.max_positions:
            raise TrainError(
                f"phase {name}: max_positions is {phase.max_positions}, the model ({origin}) knows {shape.tslm.max_positions}:"
                f" set phases.{name}.max_positions={shape.tslm.max_positions}"
            )
    with torch.device("meta"):
        model = VoxCPM2(shape)
        weights = trained = sum(p.numel() for p in model.parameters())
        if settings.lora is not None:
            apply_lora(model, LoRAConfig(**settings.lora.model_dump()), train=True)
            trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return ModelFacts(origin, shape, tokenizer, codec_at, weights, trained)


def disk_needed(config: TrainConfig, facts: ModelFacts) -> tuple[float, float]:
    """Return (bytes of one checkpoint, maximum bytes: all checkpoints that are kept, the best one, and one that is being
    written)."""
    width = parse_dtype(facts.config.dtype).itemsize
    at_once = config.checkpoint.keep + (1 if config.validation.best is None else 2)
    if config.model.lora is not None:
        each = checkpoint_bytes(facts.trained, facts.trained, 4, config.optim.ema is not None)
        return each, each * at_once + facts.weights * width
    each = checkpoint_bytes(facts.weights, facts.trained, width, config.optim.ema is not None)
    return each, each * at_once


def free_bytes(config: TrainConfig) -> float:
    """Return the free bytes on the disk of the output folder."""
    return float(shutil.disk_usage(_nearest(Path(config.output))).free)


def size_text(count: float) -> str:
    """Format bytes in a readable unit: 812 kB, 3.1 MB, 24.0 GB."""
    return (
        f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e6:.1f} MB"
        if count >= 1e6
        else f"{count / 1e3:.0f} kB"
    )


def check_disk(config: TrainConfig, facts: ModelFacts, resumed: Saved | None) -> None:
    """Raise TrainError if the checkpoints do not fit on the disk. The run's own checkpoints count as free: they will be removed."""
    output, free = Path(config.output), free_bytes(config)
    freed = 0
    if resumed is not None:
        freed = sum(
            _bytes(path) for path in _checkpoints(output) if path.name.removesuffix(".pt") <= resumed.resume.stem
        )
    needed = disk_needed(config, facts)[1]
    if needed > free + freed:
        raise TrainError(
            f"output {output}: {config.checkpoint.keep} checkpoints and one being written need {size_text(needed - freed)} more,"
            f" {size_text(free)} are free: give another output, or keep fewer with --set checkpoint.keep=1"
        )


def _checkpoints(output: Path) -> list[Path]:
    return [*step_paths(output / "checkpoints"), *step_paths(output / "resume")]


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())


def check_all(config: TrainConfig) -> tuple[Data, Saved | None]:
    """Run every check; return the data and the checkpoint to resume from. Fetches what the run starts from. Nothing is written
    to the output, unless the corpora cannot be written to: the candidate table is then built there."""
    check_judge(config)
    data = read_data(config, Path(config.output).expanduser() / "candidates")
    resumed = check_output(config, data.key)
    start = start_of(config, resumed)
    if start is not None:
        fetch_start(start)
    facts = look_at_model(config, data.corpora, resumed)
    if facts is not None:
        check_disk(config, facts, resumed)
        if facts.tokenizer is not None:
            for name, phase in config.phases.items():
                # Raises TrainError if no sample fits into a row.
                next(RowStream(data.mixtures[name], Planner(facts.tokenizer, facts.config), phase, {}))
    return data, resumed


def _nearest(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    path = path.expanduser().absolute()
    while not os.path.lexists(path):
        path = path.parent
    return path


def _check_shards(corpora: Corpora, wanted: Iterable[int]) -> None:
    missing = corpora.missing_shards(wanted)
    if missing:
        path, shard = missing[0]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise TrainError(
            f"corpus {path}: the shard {shard}{more} is not there; run: {repair_command(path)} (it says what is lost and how"
            " it comes back)"
        )
    damaged = corpora.damaged_shards(wanted)
    if damaged:
        path, shard, reason = damaged[0]
        more = f" (and {len(damaged) - 1} more are damaged)" if len(damaged) > 1 else ""
        raise TrainError(
            f"corpus {path}: the shard {shard} {reason}{more}; run: {repair_command(path)} (it says what is lost and how it comes"
            " back)"
        )


def _check_codec(shape: VoxCPM2Config, origin: str) -> None:
    codec = AudioVAEConfig.from_dict(shape.audio_vae_config)
    if codec.latent_dim != shape.feat_dim:
        raise TrainError(
            f"model ({origin}): the codec has {codec.latent_dim} latent channels, feat_dim is {shape.feat_dim}: give the"
            " codec it was trained with"
        )


def _check_layouts(config: TrainConfig, shape: VoxCPM2Config, origin: str) -> None:
    """Raise TrainError if a phase trains with reference clips and the model takes none."""
    if shape.takes_references:
        return
    needing = [kind.layout for kind in BY_LAYOUT.values() if kind.reference]
    for name, phase in config.phases.items():
        for field, weights in (("layouts", phase.layouts), ("layouts_from", phase.layouts_from)):
            asked = [layout for layout in needing if weights is not None and getattr(weights, layout) > 0]
            if asked:
                without = " ".join(f"--set phases.{name}.{field}.{layout}=0" for layout in asked)
                raise TrainError(
                    f"phase {name}: {field} has {', '.join(asked)}, but the model ({origin}) is VoxCPM 0.5B or VoxCPM1.5, which"
                    f" takes no reference clip: {without}"
                )


def _check_tokenizer(tokenizer: TextTokenizer, shape: VoxCPM2Config, origin: str, corpora: Corpora) -> None:
    entries = shape.lm_config.vocab_size
    if tokenizer.size > entries:
        raise TrainError(
            f"model ({origin}): the tokenizer has {tokenizer.size} entries, the model {entries}: give the tokenizer it was"
            " trained with"
        )
    texts = [text for text in corpora.table.texts.stretch(0, _TEXTS) if text]
    ids = [number for text in texts for number in tokenizer.encode(text)]
    marks = sorted(_MARKS & set(ids))
    if marks:
        raise TrainError(
            f"model ({origin}): the tokenizer gives text the ids {marks}, which mark where audio begins and ends: it is not"
            " one of VoxCPM2"
        )
    unknown = sum(number == tokenizer.unknown for number in ids)
    if ids and unknown > len(ids) / 2:
        raise TrainError(
            f"model ({origin}): the tokenizer does not know {unknown / len(ids):.0%} of the corpus' text: give one that was"
            " made for these languages"
        )
