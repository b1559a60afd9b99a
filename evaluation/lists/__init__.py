"""Lists by kind: `seed:PATH`, `cv3:PATH`, `panel` and so on. A kind is one file; its entry is here."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from catalogs.nearest import nearest
from evaluation.errors import EvaluationError
from evaluation.items import Item, distinct
from evaluation.languages import language_code
from evaluation.lists.base import ListKind, Pick, sample

_LOG = logging.getLogger(__name__)

LISTS: dict[str, ListKind] = {
    "control": ListKind(
        "evaluation.lists.control:read",
        "instructions on pitch, rate, energy, range and gender with neutral partners, for the metric control; own wording",
        "en zh",
        "288, 144 per language",
        "direction right (metric control)",
        "CC0-1.0",
        "comes with voxmill",
        "control",
    ),
    "corpus": ListKind(
        "evaluation.lists.corpus:read",
        "held-out segments of a voxmill corpus, with the recordings themselves",
        "those of the corpus",
        "2 % of the segments",
        "WER or CER by language",
        "that of the corpus",
        "voxmill prepare",
        "corpus:CORPUS,recipe=clone,limit=200",
    ),
    "cv3": ListKind(
        "evaluation.lists.cv3:read",
        "CV3-Eval: cloning, cross-lingual, emotion, hard texts",
        "zh en ja ko de es fr it ru",
        "500 per language",
        "CER for zh ja ko, otherwise WER",
        "not stated; do not redistribute",
        "github.com/FunAudioLLM/CV3-Eval, folder data (772 MB with audio)",
        "cv3:CV3-Eval/data/zero_shot/ja",
    ),
    "hf": ListKind(
        "evaluation.lists.hub:read",
        "a test set on the model hub, or a folder with its files",
        "those of the set",
        "those of the set",
        "that of the set",
        "see the set's card",
        "huggingface.co/datasets, such as k2-fsa/TTS_eval_datasets",
        "hf:k2-fsa/TTS_eval_datasets:seedtts_test_en",
    ),
    "instruct": ListKind(
        "evaluation.lists.instruct:read",
        "InstructTTSEval: three instructions per text (APS, DSD, RP), with a recording as the ceiling",
        "en zh",
        "2 x 1,000 x 3",
        "share of answers that a judge accepts",
        "not stated",
        "huggingface.co/datasets/CaasiHUANG/InstructTTSEval (634 MB)",
        "instruct:InstructTTSEval/data:APS",
    ),
    "jsonl": ListKind(
        "evaluation.lists.own:read_jsonl",
        "a list of your own: id, text, language_id, ref_audio, ref_text, human_audio, instruction, other columns as groups",
        "any",
        "any",
        "WER or CER by language",
        "yours",
        "write it, a JSON object per line",
        "my.jsonl",
    ),
    "librispeech-pc": ListKind(
        "evaluation.lists.librispeech_pc:read",
        "F5-TTS's cross-sentence list over LibriSpeech-PC test-clean",
        "en",
        "1,127",
        "WER",
        "texts CC-BY-4.0, list MIT",
        "github.com/SWivid/F5-TTS, folder data; audio: LibriSpeech test-clean",
        "librispeech-pc:cross_sentence.lst,root=LibriSpeech",
    ),
    "minimax": ListKind(
        "evaluation.lists.minimax:read",
        "MiniMax multilingual test set, two voices per language",
        "ar cs de el en es fi fr hi id it ja ko nl pl pt ro ru th tr uk vi yue zh",
        "24 x 100",
        "CER for zh yue ja ko th ar vi hi el, otherwise WER",
        "CC-BY-SA-4.0 in one copy, elsewhere not stated",
        "huggingface.co/datasets/MiniMaxAI/TTS-Multilingual-Test-Set",
        "minimax:TTS-Multilingual-Test-Set:german",
    ),
    "panel": ListKind(
        "evaluation.lists.own:read_panel",
        "everyday sentences of our own wording; with a folder of clips, these are their references",
        "VoxCPM2's 30",
        "60",
        "WER or CER by language",
        "CC0-1.0",
        "comes with voxmill",
        "panel:CLIPS",
    ),
    "parquet": ListKind(
        "evaluation.lists.tables:read",
        "Parquet copies of Seed-TTS-Eval and CV3-Eval: text, prompt_text, prompt_audio",
        "those of the files",
        "those of the files",
        "that of the set",
        "see the set's card",
        "huggingface.co/datasets, such as yuekai/CV3-Eval",
        "parquet:CV3-Eval/data,language=ja",
    ),
    "seed": ListKind(
        "evaluation.lists.seed:read",
        "Seed-TTS-Eval: cloning, and hard Chinese texts",
        "en zh",
        "1,088 en, 2,020 zh, 400 hard",
        "WER for en, CER for zh",
        "English texts CC0 (Common Voice), Chinese DiDiSpeech-2; do not redistribute",
        "github.com/BytedanceSpeech/seed-tts-eval (a link to a drive)",
        "seed:seedtts_testset/en/meta.lst",
    ),
}
"""Kinds of lists."""

_OPTION = re.compile(r"(.*),([a-z_]+)=([^,]*)", re.DOTALL)
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def open_lists(
    specs: Sequence[str],
    limit: int | None = None,
    seed: int = 0,
    languages: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Item]:
    """Return the items of lists, in order, each content once.

    specs: `KIND:ARGUMENT`, with options of its reader after commas (`seed:en/meta.lst,language=en,limit=50`); a path that ends
    with .jsonl stands for itself. limit: items per specification, chosen by a hash with `seed`, equally many per language.
    languages: codes or English names. options: values for every reader that has an option of the name, such as `cache`.
    Raises EvaluationError for a specification, an option, a language or a file that cannot be used.
    """
    if not specs:
        raise EvaluationError("no list is given; see: voxmill evaluate lists")
    wanted = [language_code(name) for name in languages or ()]
    there: dict[str, None] = {}

    def picked(most: int | None) -> Pick:
        def pick(items: Sequence[Item]) -> list[Item]:
            there.update(dict.fromkeys(_code(item) for item in items))
            return sample([item for item in items if not wanted or _code(item) in wanted], most, seed)

        return pick

    found: list[Item] = []
    shared = {name: str(value) for name, value in (options or {}).items()}
    unused = set(shared)
    for spec in specs:
        reader, argument, own = _parsed(spec)
        most = _limit(own.pop("limit", limit), spec)
        known = _options_of(reader)
        for name in shared.keys() & known.keys():
            own.setdefault(name, shared[name])
            unused.discard(name)
        pick = picked(most)
        given = _typed(spec, own, known) | ({"pick": pick} if "pick" in inspect.signature(reader).parameters else {})
        items = pick(reader(argument, **given))
        found += _once(items, spec)
    if unused:
        raise EvaluationError(f"no list that is given has the option {', '.join(sorted(unused))}")
    if lacking := [code for code in wanted if code not in there]:
        raise EvaluationError(f"no item in {', '.join(lacking)}; the lists have {', '.join(sorted(there))}")
    return _once(found, ", ".join(specs))


def describe_lists() -> list[dict[str, str]]:
    """Return a row per kind: name, what, languages, items, unit, license, where, example, options."""
    rows = []
    for name, kind in LISTS.items():
        options = ", ".join(sorted(_options_of(_reader(name))))
        about = {key: value for key, value in vars(kind).items() if key != "reader"}
        rows.append({"name": name, **about, "options": options or "none"})
    return rows


def _code(item: Item) -> str:
    """Return the language of an item as `languages` names it; lists of users may have other spellings, such as `de-DE`."""
    try:
        return language_code(item.language)
    except EvaluationError:
        return item.language


def _once(items: list[Item], spec: str) -> list[Item]:
    """Return the items without those whose content an earlier one has; log their number."""
    once = list(distinct(items))
    if len(once) < len(items):
        _LOG.warning(
            "%s: %d of %d items repeat the content of another; each is spoken once",
            spec,
            len(items) - len(once),
            len(items),
        )
    return once


def _parsed(spec: str) -> tuple[Callable[..., list[Item]], str, dict[str, Any]]:
    """Return (reader, argument, options) of a specification."""
    options: dict[str, Any] = {}
    rest = spec
    while match := _OPTION.fullmatch(rest):
        rest, name, value = match.groups()
        options.setdefault(name, value)
    kind, colon, argument = rest.partition(":")
    if kind not in LISTS and rest.endswith(".jsonl"):
        kind, argument = "jsonl", rest
    if kind not in LISTS:
        near = nearest(kind, LISTS)
        hint = f"did you mean {near}? " if near else ""
        if Path(rest).expanduser().exists():
            hint = f"state its kind before the path, such as {'seed' if rest.endswith('.lst') else 'cv3'}:{rest}; "
        raise EvaluationError(f"no kind of list {kind!r}; {hint}known: {', '.join(LISTS)}")
    if not argument and kind not in ("control", "panel"):
        raise EvaluationError(f"{spec}: no path after {kind}{'' if colon else ':'}; example: {LISTS[kind].example}")
    return _reader(kind), argument, options


def _reader(kind: str) -> Callable[..., list[Item]]:
    module, _, name = LISTS[kind].reader.partition(":")
    reader: Callable[..., list[Item]] = getattr(importlib.import_module(module), name)
    return reader


def _options_of(reader: Callable[..., list[Item]]) -> dict[str, str]:
    """Return the types of a reader's options by name, as they are written."""
    found = inspect.signature(reader).parameters.values()
    return {one.name: str(one.annotation) for one in found if one.kind is one.KEYWORD_ONLY and one.name != "pick"}


def _typed(spec: str, given: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """Return options with the types that the reader declares."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = nearest(name, [*known, "limit"])
            hint = f"did you mean {near}? " if near else ""
            raise EvaluationError(f"{spec}: no option {name!r}; {hint}known: {', '.join(sorted([*known, 'limit']))}")
        if known[name] == "bool":
            if value.lower() not in _YES:
                raise EvaluationError(f"{spec}: {name}={value} is not yes or no")
            values[name] = _YES[value.lower()]
        elif known[name] == "float":
            try:
                values[name] = float(value)
            except ValueError:
                raise EvaluationError(f"{spec}: {name}={value} is not a number") from None
        else:
            values[name] = value
    return values


def _limit(value: Any, spec: str) -> int | None:
    if value is None or (str(value).isdigit() and int(value) > 0):
        return None if value is None else int(value)
    raise EvaluationError(f"{spec}: limit={value} is not a whole number above 0")
