"""`decouple`: clone described speech onto unrelated texts, verify the clips, and commit them to a corpus of synthetic speech."""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import CorpusError, UnitContent, bind_fingerprint, create_corpus, link_unit, write_in_corpus
from catalogs.corpus.locks import only_run, own_scratch, sweep_scratch
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import load_thresholds
from catalogs.durations import duration_text
from catalogs.query.views import build_catalog, query
from catalogs.settings import dump_settings, read_yaml
from catalogs.words import counted
from pipeline.engine.api import Event, GroupDone, ItemStarted, SessionDone, UnitWritten
from pipeline.engine.progress import Progress
from pipeline.runs.engines import make_engine
from pipeline.runs.errors import stopping_in_one_line
from pipeline.runs.fresh import Fresh
from pipeline.runs.to_rows import quarantine_rows
from pipeline.runs.weights import check_weights
from pipeline.runtime.failures import Breaker
from pipeline.synthesis.bounds import Bounds
from pipeline.synthesis.identity import decouple_fingerprint, find_model
from pipeline.synthesis.made import Made, decide_again, made_so_far
from pipeline.synthesis.output import DecoupledOutput
from pipeline.synthesis.pairing import find_pairs
from pipeline.synthesis.pairs import DecoupleSession, Pair, SessionSettings, read_pairs, sessions_of, write_pairs
from pipeline.synthesis.settings import DecoupleSettings, load_decouple_settings
from pipeline.synthesis.voices import Voices

log = logging.getLogger(__name__)

Watch = Callable[[Event, Progress], None]
SETTINGS_FILE = "decouple.yaml"


@dataclass
class DecoupleSummary:
    """What a run did and what the corpus holds then. Pairs are counted once; `clips` counts all attempts."""

    corpus: str
    pairs: int = 0
    accepted: int = 0
    usable: int = 0
    """Accepted clips that the thresholds of the corpus keep: what the trainer takes."""
    open: int = 0
    """Pairs that still have attempts left: 0 when a run has ended."""
    unpaired: dict[str, int] = field(default_factory=dict)
    """Described segments that nothing was paired with, by reason."""
    clips: int = 0
    """Clips that this run made."""
    clips_s: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)
    """Pairs that were not accepted, by the reasons against their last attempt; a pair may have several."""
    decided_again: int = 0
    """Decisions that changed because the bounds did."""
    generate_s: float = 0.0
    wall_s: float = 0.0


def decouple(
    corpus: str | Path,
    model: str | Path,
    out: str | Path | None = None,
    settings: DecoupleSettings | None = None,
    limit: int | None = None,
    watch: Watch = lambda event, progress: None,
) -> DecoupleSummary:
    """Do what `voxmill decouple` does; return its summary. Run again, it resumes, and pairs segments that were added since.

    out: the corpus of synthetic speech, default: CORPUS-decoupled beside the corpus. limit: the most pairs. Other bounds decide
    again on what is there before anything is made. Raises CorpusError, PrepareError, FileNotFoundError, ValueError.
    """
    settings = settings or load_decouple_settings()
    source = Path(corpus).absolute()
    root = Path(out).absolute() if out else default_out(source)
    folder, digest = find_model(model, settings.generate.lora)
    Corpus(source)
    check_weights(settings.weights())
    settings = with_model(settings, folder)
    fingerprint = decouple_fingerprint(settings, digest)
    started = time.perf_counter()
    fresh = Fresh(root)
    with stopping_in_one_line(root):
        create_corpus(root, name=root.name)
        with only_run(root), fresh.removed_on_failure():
            _bind(root, fingerprint)
            sweep_scratch(root / "tmp")
            summary = DecoupleSummary(str(root))
            summary.decided_again = _settle(root, settings)
            pairs = settle_pairs(source, root, settings, limit)
            made = _make_all(source, root, pairs, settings, fingerprint, digest, summary, watch)
        _count(summary, pairs, made, settings)
        summary.wall_s = time.perf_counter() - started
        build_catalog(root)
        sql = "SELECT count(*) FROM decoupled JOIN segments USING (segment_id) WHERE accepted AND kept"
        ((summary.usable,),) = query(root, sql)[1]
        write_in_corpus(root, root / "decoupled.json", json.dumps(asdict(summary), indent=1).encode())
    for line in summary_lines(summary):
        log.info(line)
    return summary


def default_out(corpus: Path) -> Path:
    """Return the folder of the synthetic speech of a corpus, if none is given."""
    return corpus.with_name(f"{corpus.name}-decoupled")


def with_model(settings: DecoupleSettings, folder: Path) -> DecoupleSettings:
    """Return the settings with the checkpoint's folder."""
    return settings.model_copy(
        update={"generate": settings.generate.model_copy(update={"model": str(folder.absolute())})}
    )


def settle_pairs(source: Path, root: Path, settings: DecoupleSettings, limit: int | None) -> list[Pair]:
    """Return the pairs of a corpus, those of earlier runs and new ones, and the segments that nothing was paired with.

    limit: the most pairs in all.
    """
    stored = read_pairs(root)
    before = [pair for pair in stored if pair.reason is None]
    room = None if limit is None else max(limit - len(before), 0)
    pairs = list(before)
    for pair in find_pairs(source, settings.pairing, settings.seed, before):
        if pair.reason is None and room is not None:
            if not room:
                continue
            room -= 1
        pairs.append(pair)
    pairs.sort(key=lambda pair: (pair.described_id, pair.pair_id))
    if pairs != stored:
        write_pairs(root, pairs)
    return pairs


def _bind(root: Path, fingerprint: str) -> None:
    try:
        bind_fingerprint(root, fingerprint)
    except CorpusError:
        raise CorpusError(
            f"{root} was made with another model or other settings of the generation (see {root / SETTINGS_FILE}): use these, or"
            " give another --out. Bounds and the pairing may change"
        ) from None


def _settle(root: Path, settings: DecoupleSettings) -> int:
    """Write the settings, and decide again on what is there if the bounds have changed; return the changed decisions."""
    path = root / SETTINGS_FILE
    before = Bounds.model_validate(read_yaml(path).get("bounds", {})) if path.is_file() else None
    changed = decide_again(root, settings.bounds) if before not in (None, settings.bounds) else 0
    # After the decisions: a kill between them repeats the decisions, which then change nothing.
    write_in_corpus(root, path, dump_settings(settings).encode())
    return changed


def _make_all(
    source: Path,
    root: Path,
    pairs: list[Pair],
    settings: DecoupleSettings,
    fingerprint: str,
    digest: str,
    summary: DecoupleSummary,
    watch: Watch,
) -> Made:
    """Make what is left, attempt by attempt, until every pair is accepted or has no attempt left."""
    made = made_so_far(root)
    if not made.left(pairs, settings.attempts):
        return made
    with own_scratch(root / "tmp") as scratch:
        output = DecoupledOutput(root, load_thresholds(source))
        engine = make_engine(settings.engine, settings.groups(), root, scratch / "marks", output)
        breaker = Breaker()
        progress = Progress(0, 0.0)
        voices = Voices(source)
        try:
            while left := made.left(pairs, settings.attempts):
                attempt = min(left)
                for_sessions = SessionSettings(settings.unit, settings.seed, settings.style, str(scratch / "spool"))
                sessions = list(sessions_of(left[attempt], attempt, source, fingerprint, digest, for_sessions, voices))
                planned = {s.session_id: sum(r.duration_s for r in s.recordings) for s in sessions}
                progress.sessions += len(sessions)
                progress.audio_s += sum(planned.values())
                log.info(f"attempt {attempt}: {counted(len(left[attempt]), 'pair')}")
                for event in _until_linked(engine, sessions):
                    if isinstance(event, GroupDone):
                        progress.stage_done(event.outcome)
                        breaker.add(event.outcome.tallies)
                    elif isinstance(event, ItemStarted):
                        progress.item_started(event)
                    elif isinstance(event, SessionDone):
                        _count_session(event, summary, made, progress, planned)
                        engine.write(_content(event, fingerprint))
                    elif isinstance(event, UnitWritten):
                        link_unit(root, event.record, scratch)
                        continue
                    watch(event, progress)
        finally:
            engine.close()
    return made


def _until_linked(engine: Any, sessions: list[DecoupleSession]) -> Iterator[Event]:
    """Yield the engine's events until every session is done and every unit is written."""
    yield from engine.run(sessions)
    yield from engine.run(())


def _content(event: SessionDone, fingerprint: str) -> UnitContent:
    session = event.session
    return UnitContent(
        unit_id=session.session_id,
        fingerprint=fingerprint,
        sessions=[session.session_id],
        rows=(),
        recordings=(),
        quarantine=quarantine_rows(session),
        stats={"busy_s": dict(session.busy_s)},
    )


def _count_session(
    event: SessionDone, summary: DecoupleSummary, made: Made, progress: Progress, planned: dict[str, float]
) -> None:
    session = event.session
    assert isinstance(session, DecoupleSession)
    rows = list(session.found.values())
    made.add(rows)
    seconds = sum(recording.duration_s for recording in session.usable())
    summary.clips += len(rows)
    summary.clips_s += seconds
    summary.generate_s += session.generate_s
    share = sum(row["accepted"] for row in rows) / max(len(rows), 1)
    progress.session_done(seconds, event.counts.speech_s, seconds * share, planned[session.session_id])


def _count(summary: DecoupleSummary, pairs: list[Pair], made: Made, settings: DecoupleSettings) -> None:
    paired = [pair for pair in pairs if pair.reason is None]
    summary.pairs = len(paired)
    summary.accepted = sum(pair.pair_id in made.accepted for pair in paired)
    summary.open = sum(map(len, made.left(pairs, settings.attempts).values()))
    summary.unpaired = dict(Counter(pair.reason for pair in pairs if pair.reason is not None).most_common())
    lost = [made.reasons.get(pair.pair_id, []) for pair in paired if pair.pair_id not in made.accepted]
    summary.rejected = dict(Counter(reason for reasons in lost for reason in reasons).most_common())


def summary_lines(summary: DecoupleSummary) -> list[str]:
    """Return a few lines on what the run did and what the corpus holds."""
    lines = []
    if summary.decided_again:
        lines.append(f"other bounds: {counted(summary.decided_again, 'decision')} changed, nothing made for it")
    if summary.clips:
        rate = summary.clips_s / summary.wall_s if summary.wall_s else 0.0
        lines.append(
            f"{counted(summary.clips, 'clip')} made ({duration_text(summary.clips_s)}) in {duration_text(summary.wall_s)}"
            f" ({rate:.2f}x real time)"
        )
    yielded = f" ({summary.accepted / summary.pairs:.0%})" if summary.pairs else ""
    lines.append(f"{summary.accepted} of {counted(summary.pairs, 'pair')} accepted{yielded}")
    if summary.usable < summary.accepted:
        lines.append(f"{summary.usable} of them are kept by the thresholds of the corpus (voxmill report says why not)")
    if summary.rejected:
        reasons = ", ".join(f"{reason} {count}" for reason, count in summary.rejected.items())
        lines.append(f"not accepted, by the reasons against the last attempt: {reasons}")
    if summary.unpaired:
        lines.append("no pair: " + ", ".join(f"{reason} {count}" for reason, count in summary.unpaired.items()))
    where = shlex.quote(summary.corpus)
    lines.append(
        f"{where}: train on it beside the corpus, and set `decoupled` of a phase; see why clips were rejected with: voxmill query"
        f' {where} "select unnest(reasons) as reason, count(*) from decoupled where not accepted group by 1 order by 2 desc"'
    )
    return lines
