"""The soft rules: limits of the recorded scores that decide whether a segment is kept. Changing one needs no model call.

The same rules run in Python (at the commit) and as SQL (in the catalog). A rule does not apply to a score that is null. Scores are
stored as float32, so both sides compare as float32: a score equal to its limit passes before and after storage.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from catalogs.settings import SettingsError, dump_yaml, load_settings, read_yaml, validate_settings

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Rule:
    """One soft rule: `reason` applies if `column` is below (or above) the value of `setting`, unless the row has the flag
    `unless`. `words` describe the reason in reports."""

    reason: str
    column: str
    side: Literal["below", "above"]
    setting: str
    words: str
    unless: str | None = None


RULES: tuple[Rule, ...] = (
    Rule("too_long", "duration_s", "above", "max_duration_s", "longer than the longest training clip"),
    Rule("low_dnsmos", "dnsmos_ovr", "below", "min_dnsmos_ovr", "poor overall quality (DNSMOS)"),
    Rule("noisy", "snr_db", "below", "min_snr_db", "noise too close to the voice"),
    Rule("clipped", "clipping", "above", "max_clipping", "clipped samples"),
    Rule("narrow_band", "bandwidth_hz", "below", "min_bandwidth_hz", "telephone bandwidth or less"),
    Rule("reverberant", "reverb_s", "above", "max_reverb_s", "too much reverberation"),
    Rule("quiet", "loudness_lufs", "below", "min_loudness_lufs", "too quiet"),
    Rule("asr_unsure", "asr_logprob", "below", "min_asr_logprob", "the recognizer is unsure of the text"),
    Rule("speech_unsure", "no_speech_p", "above", "max_no_speech_p", "the recognizer finds no speech"),
    Rule("repetitive_text", "compression_ratio", "above", "max_compression_ratio", "repeating (invented) text"),
    Rule("texts_disagree", "agreement_cer", "above", "max_agreement_cer", "two transcripts differ"),
    Rule("language_unsure", "language_p", "below", "min_language_p", "unsure which language it is"),
    Rule("slow_text", "chars_per_s", "below", "min_chars_per_s", "less text than the time needs (words missing)"),
    Rule("fast_text", "chars_per_s", "above", "max_chars_per_s", "more text than the time holds (words invented)"),
    Rule("head_silence", "head_silence_s", "above", "max_head_silence_s", "long silence before the voice"),
    Rule("tail_silence", "tail_silence_s", "above", "max_tail_silence_s", "long silence after the voice"),
    Rule("head_cut_off", "head_edge", "above", "max_head_edge", "a word is cut off at its start", "file_head"),
    Rule("tail_cut_off", "tail_edge", "above", "max_tail_edge", "a word is cut off at its end", "file_tail"),
    Rule("clicks", "clicks_per_s", "above", "max_clicks_per_s", "clicks"),
    Rule("mixed_speakers", "speaker_purity", "below", "min_speaker_purity", "more than one voice"),
)

#: Flags that stages may set on a segment (column `flags`), with their meanings. A flag is a reason if `drop_flags` names it.
FLAGS: dict[str, str] = {
    "looping_text": "the recognized text repeats itself",
    "stock_phrase": "a sentence that recognizers invent (credits of subtitles, farewells)",
    "unusual_rate": "nobody speaks the language this slowly or this fast",
    "foreign_language": "a language outside the 30 that VoxCPM2 was trained on",
    "given_rejected": "the transcript that came with it is not what is said",
    "given_trimmed": "words at an end of its transcript were not said and were taken away",
    "given_completed": "words that were said were missing in its transcript and were put in",
    "language_switch": "another language than most of its recording",
    "file_head": "begins where its file begins, and the voice rises there: cut closely, not within a word",
    "file_tail": "ends where its file ends, and the voice falls there: cut closely, not within a word",
    "upsampled": "nothing above some frequency that its sample rate promises (up-sampled, or a lossy codec)",
    "marked_synthetic": "its file or a watermark says that a program made the speech",
    "no_training": "its file says that nobody may train on it",
}

EMPTY_TEXT = "empty_text"
SOFT_REASONS: tuple[str, ...] = (EMPTY_TEXT, *(rule.reason for rule in RULES), *FLAGS)

#: Meanings of the reasons, for reports: the soft ones above and the hard ones that stages set.
REASON_WORDS: dict[str, str] = {
    EMPTY_TEXT: "no words were recognized",
    **{rule.reason: rule.words for rule in RULES},
    **FLAGS,
    "no_speech": "no speech in it",
    "too_short": "shorter than 0.5 s",
    "undecodable": "could not be decoded",
    "no_audio": "has no audio",
    "forgotten": "the same audio as a recording that was forgotten",
}

Limit = float | None


class Thresholds(BaseModel):
    """Limits of the soft rules; null switches a rule off. The docstrings name the sources of the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_duration_s: Limit = Field(default=300.0, gt=0)
    """Seconds. VoxCPM2's last stage trains on clips of up to five minutes."""
    min_dnsmos_ovr: Limit = Field(default=2.4, ge=1, le=5)
    """DNSMOS P.835 overall. Emilia keeps clips from 3.0. But of 147 studio prompts (16 kHz, three languages) a limit of 3.0 drops
    a third, and 2.6 still a tenth; their 5 % quantile is 2.3 to 2.5. Music scores 1.1."""
    min_snr_db: Limit = Field(default=15.0)
    """dB. The lowest bin of dataspeech's scale ("very noisy") starts at 17."""
    max_clipping: Limit = Field(default=0.001, ge=0, le=1)
    """Share of samples at full scale: one in a thousand is audible as a crackle."""
    min_bandwidth_hz: Limit = Field(default=3500.0, ge=0)
    """Hz. A telephone ends at 3,400; the codec needs more than that to learn consonants."""
    max_reverb_s: Limit = Field(default=0.8, gt=0)
    """Seconds for a decay by 60 dB; 0.8 is a lecture hall. Of 742 clips from sixty speech corpora, 99 % are below 0.49."""
    min_loudness_lufs: Limit = Field(default=-45.0)
    """LUFS. Over 20 dB below broadcast speech (-23): a gain that large also amplifies the recorder's noise."""
    min_asr_logprob: Limit = Field(default=-1.0)
    """Mean log probability per token: Whisper's limit for a failed decoding."""
    max_no_speech_p: Limit = Field(default=0.8, ge=0, le=1)
    """Whisper's limit is 0.6 together with a low log probability; used alone, it must be higher."""
    max_compression_ratio: Limit = Field(default=2.4, gt=0)
    """gzip ratio of the text: Whisper's limit for a repetition loop."""
    max_agreement_cer: Limit = Field(default=0.2, ge=0)
    """Character error rate between two transcripts. CosyVoice 3 keeps a pairwise word error rate below 0.15."""
    min_language_p: Limit = Field(default=0.7, ge=0, le=1)
    """Probability of the language. Granary uses 0.7, Emilia 0.8."""
    min_chars_per_s: Limit = Field(default=2.0, ge=0)
    """Characters per second. Chinese has 4 to 6, English 12 to 17."""
    max_chars_per_s: Limit = Field(default=30.0, gt=0)
    """Characters per second. NeMo Curator treats more than 40 as invented text; the fastest readers reach 25."""
    max_head_silence_s: Limit = Field(default=1.0, ge=0)
    """Seconds. The model imitates its training clips: silence at the head delays speech."""
    max_tail_silence_s: Limit = Field(default=1.0, ge=0)
    """Seconds. Long tails teach the stop predictor to stop late."""
    max_head_edge: Limit = Field(default=0.3)
    """Voice in the first 30 ms: 0 is the background, 1 the level of the speech. The limit detects 95 % of cuts within a word, and
    0.7 % of cuts in a pause (docs/benchmarks.md, cuts). Not applied if a file begins with a whole word (flag `file_head`)."""
    max_tail_edge: Limit = Field(default=0.3)
    """The same for the last 30 ms."""
    max_clicks_per_s: Limit = Field(default=2.0, ge=0)
    """Clicks per second. One or two in a clip are mouth clicks (one in every eighth clip of EmoDB); a damaged recording has
    several per second."""
    min_speaker_purity: Limit = Field(default=0.7, ge=-1, le=1)
    """Cosine between the part of a clip that differs most and the rest, on the scale of GE2E. If another encoder is used, `prepare`
    sets its limit. The limit detects 90 % of clips with two voices in turn, and 1 % of clips with one voice (docs/benchmarks.md,
    speakers)."""
    require_text: bool = True
    """A segment without words cannot be trained on."""
    drop_flags: tuple[str, ...] = (
        "looping_text",
        "stock_phrase",
        "unusual_rate",
        "foreign_language",
        "marked_synthetic",
        "no_training",
    )
    """Flags of the stages (column `flags`) that are a reason against a segment. What a file says of itself can be copied from
    another one or be lost, so that these flags prove nothing."""

    @field_validator("drop_flags", mode="before")
    @classmethod
    def _one_flag(cls, names: Any) -> Any:
        """Accept a single word as a list of one flag."""
        return (names,) if isinstance(names, str) else names

    @field_validator("drop_flags")
    @classmethod
    def _known_flags(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in FLAGS]:
            raise ValueError(
                f"no flag {', '.join(unknown)}; flags: {', '.join(FLAGS)}; write several as drop_flags=[looping_text,stock_phrase]"
            )
        return names

    def limits(self) -> list[tuple[Rule, float]]:
        """Return the rules that are switched on, with their limits."""
        pairs = ((rule, getattr(self, rule.setting)) for rule in RULES)
        return [(rule, float(limit)) for rule, limit in pairs if limit is not None]

    def reasons(self, row: Mapping[str, Any]) -> list[str]:
        """Return the soft reasons against a segment row, in the order of the rules; an empty list means that it is kept."""
        found = [EMPTY_TEXT] if self.require_text and not (row.get("text") or "").strip(" \t\r\n") else []
        noted = row.get("flags") or ()
        for rule, limit in self.limits():
            value = row.get(rule.column)
            if value is None or math.isnan(value) or rule.unless in noted:
                continue
            score, edge = np.float32(value), np.float32(limit)
            if (score < edge) if rule.side == "below" else (score > edge):
                found.append(rule.reason)
        return found + [flag for flag in FLAGS if flag in noted and flag in self.drop_flags]

    def _tests_sql(self) -> list[tuple[str, str]]:
        """Return (reason, boolean SQL that is true if it applies) for every rule that is switched on."""
        tests = [(EMPTY_TEXT, _EMPTY_SQL)] if self.require_text else []
        for rule, limit in self.limits():
            sign = "<" if rule.side == "below" else ">"
            edge = float(np.float32(limit))
            test = f"CAST({rule.column} AS FLOAT) {sign} CAST({edge!r} AS FLOAT)"
            if rule.unless is not None:
                test = f"({test} AND NOT coalesce(list_contains(flags, '{rule.unless}'), false))"
            tests.append((rule.reason, test))
        return tests + [(flag, f"list_contains(flags, '{flag}')") for flag in FLAGS if flag in self.drop_flags]

    def reasons_sql(self) -> str:
        """Return `reasons` as a DuckDB expression of type VARCHAR[] over the columns of a segments row."""
        cases = ", ".join(f"CASE WHEN {test} THEN '{reason}' END" for reason, test in self._tests_sql()) or "NULL"
        return f"list_filter(CAST([{cases}] AS VARCHAR[]), lambda reason: reason IS NOT NULL)"

    def all_reasons_sql(self, stored: str = "reasons") -> str:
        """Return the reasons of a stored row as SQL: its hard reasons if it has any, otherwise the soft ones by these limits."""
        hard = f"list_filter({stored}, lambda reason: reason NOT IN ({_SOFT_SQL}))"
        none = (
            f"WHEN {self.kept_sql(stored)} THEN CAST([] AS VARCHAR[])"  # Most rows: a list of cases would take longer.
        )
        return f"CASE {none} WHEN {_ONLY_SOFT_SQL.format(stored)} THEN {self.reasons_sql()} ELSE {hard} END"

    def kept_sql(self, stored: str = "reasons") -> str:
        """Return a DuckDB expression of type BOOLEAN that is true if a stored row is kept. It is fast because it builds no list."""
        tests = " OR ".join(test for _, test in self._tests_sql()) or "false"
        return f"({_ONLY_SOFT_SQL.format(stored)} AND ({tests}) IS NOT TRUE)"


# Trimming every text would take longer than all other tests.
_EMPTY_SQL = "CASE WHEN ord(text) > 32 THEN false ELSE trim(coalesce(text, ''), ' \t\r\n') = '' END"
_SOFT_SQL = ", ".join(f"'{reason}'" for reason in SOFT_REASONS)
_ONLY_SOFT_SQL = f"coalesce(list_has_all([{_SOFT_SQL}], {{0}}), true)"


def apply_thresholds(index: pa.Table, thresholds: Thresholds) -> pa.Table:
    """Return the INDEX rows with `kept` and `reasons` decided again by `thresholds`; order and columns stay."""
    from catalogs.corpus.schema import INDEX

    columns = ", ".join(name for name in INDEX.names if name not in ("kept", "reasons"))
    sql = f"SELECT {columns}, {thresholds.kept_sql()} AS kept, {thresholds.all_reasons_sql()} AS reasons FROM rows"
    return _ask(index, sql).select(INDEX.names).cast(INDEX)


JUDGED = frozenset({"text", "flags", "reasons", *(rule.column for rule in RULES)})
"""Columns that decide whether a row is kept."""


def kept_rows(
    index: pa.Table,
    thresholds: Thresholds,
    columns: Sequence[str],
    keep: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> pa.Table:
    """Return the INDEX columns `columns` of the rows that `thresholds` keep, in order. `index` needs these columns and JUDGED.

    keep, drop: ids of segments that a person decided on; `index` needs `segment_id` and `shard`, too.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from catalogs.corpus.schema import INDEX

    decided = {"kept": "true AS kept", "reasons": "CAST([] AS VARCHAR[]) AS reasons"}
    chosen = ", ".join(decided.get(name, name) for name in columns)
    kept = thresholds.kept_sql()
    if keep or drop:
        decided_on = (pc.is_in(index["segment_id"], pa.array(ids, pa.string())) for ids in (keep, drop))
        index = index.append_column("_keep", next(decided_on)).append_column("_drop", next(decided_on))
        kept = f"({kept} OR (_keep AND shard IS NOT NULL)) AND NOT _drop"
    found = _ask(index, f"SELECT {chosen} FROM rows WHERE {kept}")
    return found.cast(pa.schema([INDEX.field(name) for name in columns]))


def _ask(rows: pa.Table, sql: str) -> pa.Table:
    """Return the result of a query over the table `rows`."""
    import duckdb

    connection = duckdb.connect()
    try:
        connection.register("rows", rows)
        return connection.sql(sql).to_arrow_table()
    finally:
        connection.close()


DEFAULT = "default"
"""Value that resets a threshold to the one that the corpus was prepared with: `--set min_snr_db=default`."""


def thresholds_path(root: str | Path) -> Path:
    """Return the path of the thresholds that were chosen for a corpus."""
    return Path(root) / "thresholds.yaml"


def save_thresholds(root: str | Path, thresholds: Thresholds) -> None:
    """Save `thresholds`: the catalog, the report and readers of this corpus apply them from now on."""
    base, chosen = prepared_thresholds(root).model_dump(mode="json"), thresholds.model_dump(mode="json")
    _save(root, {name: value for name, value in chosen.items() if value != base[name]})


def _save(root: str | Path, chosen: dict[str, Any]) -> None:
    """Write the thresholds that were chosen for the corpus; remove the file if there are none."""
    from catalogs.files import write_atomically

    if chosen:
        write_atomically(thresholds_path(root), dump_yaml(chosen).encode())
    else:
        thresholds_path(root).unlink(missing_ok=True)


def change_thresholds(
    root: str | Path, overrides: Iterable[str] = (), file: str | Path | None = None, reset: bool = False
) -> Thresholds:
    """Change the corpus' thresholds by a YAML `file` and then by `name=value` overrides; save and return them.

    The file holds `name: value` pairs, at the top level or under `thresholds:` as in a prepare config. Thresholds that it does not
    name stay, or with `reset` return to those that the corpus was prepared with. The value `default` resets a single one. The
    catalog applies them at its next build (`build_catalog`); no model is called. Raises SettingsError, with nothing saved, for an
    unreadable file, an unknown name (the message names the nearest) or a value out of range.
    """
    base = prepared_thresholds(root).model_dump(mode="json")
    saved = {} if reset else _saved(root)
    given = {} if file is None else _read_thresholds(Path(file))
    asked = load_settings(_AnyThresholds, None, overrides).model_dump()
    chosen = saved | given | asked
    returned = {name for name, value in chosen.items() if value == DEFAULT and name in base}
    chosen = {name: value for name, value in chosen.items() if name not in returned}
    changed = validate_settings(Thresholds, base | chosen)
    values = changed.model_dump(mode="json")
    _save(root, {name: values[name] for name in chosen})
    return changed


class _AnyThresholds(BaseModel):
    """Accept every name: overrides are first merged into the present thresholds and then checked."""

    model_config = ConfigDict(extra="allow")


def _read_thresholds(path: Path) -> dict[str, Any]:
    values = load_settings(_AnyThresholds, path).model_dump()
    inner = values.get("thresholds")
    if inner is None and "thresholds" not in values:
        inner = values
    if inner is not None and not isinstance(inner, dict):
        raise SettingsError(f"{path}: thresholds must hold name: value pairs, not a {type(inner).__name__}")
    try:
        # The file is checked separately, so that the message can name it.
        validate_settings(Thresholds, {name: value for name, value in (inner or {}).items() if value != DEFAULT})
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return inner or {}


def prepared_thresholds(root: str | Path) -> Thresholds:
    """Return the thresholds that a corpus was prepared with: the defaults, unless `prepare` was given others."""
    prepared = Path(root) / "prepare.yaml"
    values = read_yaml(prepared).get("thresholds") if prepared.is_file() else None
    return validate_settings(Thresholds, values) if isinstance(values, dict) else Thresholds()


def _saved(root: str | Path) -> dict[str, Any]:
    own = thresholds_path(root)
    return read_yaml(own) if own.is_file() else {}


def load_thresholds(root: str | Path) -> Thresholds:
    """Return the thresholds of a corpus: the saved value of each, otherwise the value that the corpus was prepared with.

    Raises SettingsError if the file holds something else.
    """
    return apply_saved(root, prepared_thresholds(root))


def apply_saved(root: str | Path, base: Thresholds) -> Thresholds:
    """Return `base` with the thresholds that `voxmill catalog` saved for the corpus on top."""
    return validate_settings(Thresholds, base.model_dump(mode="json") | _saved(root))


def saved_wins(root: str | Path, asked: Thresholds) -> str | None:
    """Return a message for a `prepare` whose thresholds differ from the saved ones (which apply, why, how to reset), or None."""
    applied = apply_saved(root, asked)
    differ = [f"{name} {now} (not {then})" for name, then, now in changes(asked, applied)]
    if not differ:
        return None
    folder = shlex.quote(str(root))
    return (
        f"thresholds: {', '.join(differ)}: what `voxmill catalog` saved in {thresholds_path(root)} wins over prepare's settings, "
        f"so that resuming does not undo it; go back with: voxmill catalog {folder} --reset"
    )


def changes(before: Thresholds, after: Thresholds) -> list[tuple[str, str, str]]:
    """Return (name, value before, value after) of the thresholds that differ, as text."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    return [(name, _words(old[name]), _words(new[name])) for name in old if old[name] != new[name]]


def _words(value: Any) -> str:
    if value is None:
        return "off"
    return (
        f"[{','.join(value)}]" if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)
    )
