"""`decouple`: clone described speech onto unrelated texts, verify the clips, and commit them to a corpus of synthetic speech."""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from catalogs.corpus.commit import (
    CorpusError,
    UnitContent,
    bind_fingerprint,
    committed_units,
    corpus_info,
    create_corpus,
    link_unit,
    write_in_corpus,
)
from catalogs.corpus.locks import only_run, own_scratch, sweep_scratch
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import load_thresholds, save_thresholds, thresholds_path
from catalogs.durations import duration_text
from catalogs.query.views import build_catalog, query
from catalogs.settings import dump_settings
from catalogs.words import counted
from pipeline.engine.api import ContentLost, Engine, Event, GroupDone, ItemStarted, SessionDone, UnitWritten
from pipeline.engine.progress import Progress
from pipeline.engine.strikes import Strikes
from pipeline.runs.engines import make_engine
from pipeline.runs.errors import stopping_in_one_line
from pipeline.runs.fresh import Fresh
from pipeline.runs.to_rows import quarantine_rows
from pipeline.runs.weights import check_weights
from pipeline.runtime.failures import LOST_WORKER, Breaker
from pipeline.synthesis.identity import decouple_fingerprint, find_model
from pipeline.synthesis.made import Made, decide, made_so_far, remove_uncommitted
from pipeline.synthesis.output import DecoupledOutput
from pipeline.synthesis.pairing import Pairing, find_pairs
from pipeline.synthesis.pairs import DecoupleSession, Pair, SessionSettings, read_pairs, sessions_of, write_pairs
from pipeline.synthesis.requests import SpeechRequest
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
    open: int = 0
    """Pairs that the next run tries again, because the machine or the code failed."""
    failed: dict[str, int] = field(default_factory=dict)
    """What failed there, `STAGE: ERROR`, and how often."""
    unpaired: dict[str, int] = field(default_factory=dict)
    """Kept segments that have no pair, by reason."""
    clips: int = 0
    """Clips that this run made."""
    clips_s: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)
    """Pairs that were not accepted, by the reasons against their last attempt; a pair may have several."""
    decided_again: int = 0
    """Decisions that changed: other bounds or thresholds, or a source that is gone."""
    generate_s: float = 0.0
    """Seconds that the model took, summed over the actors."""
    process_s: float = 0.0
    """Seconds from the first item to the last, without the loading of the models."""
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
    job = open_job(corpus, model, out, settings)
    source, root, settings = job.source, job.root, job.settings
    check_weights(settings.weights())
    started = time.perf_counter()
    fresh = Fresh(root)
    with stopping_in_one_line(root):
        create_corpus(root, name=root.name)
        with only_run(root), fresh.removed_on_failure():
            _bind(root, job.fingerprint)
            sweep_scratch(root / "tmp")
            remove_uncommitted(root)
            if not thresholds_path(root).is_file():
                # Made clips are kept by the rules that keep their sources.
                save_thresholds(root, load_thresholds(source))
            summary = DecoupleSummary(str(root))
            pairing = settle_pairs(source, root, settings, limit)
            summary.decided_again = decide(root, settings.bounds, pairing.pairs)
            write_in_corpus(root, root / SETTINGS_FILE, dump_settings(settings).encode())
            made = _make_all(job, pairing.pairs, summary, watch)
        _count(summary, pairing, made, settings)
        summary.wall_s = time.perf_counter() - started
        build_catalog(root)
        write_in_corpus(root, root / "decoupled.json", json.dumps(asdict(summary), indent=1).encode())
    for line in summary_lines(summary):
        log.info(line)
    return summary


@dataclass(frozen=True)
class DecoupleJob:
    """What a run works on: checked, and nothing is written yet."""

    source: Path
    root: Path
    settings: DecoupleSettings
    digest: str
    fingerprint: str


def open_job(
    corpus: str | Path, model: str | Path, out: str | Path | None, settings: DecoupleSettings | None
) -> DecoupleJob:
    """Return the job of a run. Raises CorpusError for a corpus without descriptions or an `out` that cannot be used,
    FileNotFoundError for a checkpoint or an adapter that is not there, ValueError for a model that takes no references."""
    from voxcpm.config import VoxCPM2Config

    settings = settings or load_decouple_settings()
    source = Path(corpus).absolute()
    root = Path(out).absolute() if out else default_out(source)
    lora = Path(settings.generate.lora).absolute() if settings.generate.lora else None
    folder, digest = find_model(model, lora)
    VoxCPM2Config.load(folder).check_reference()
    Corpus(source)
    settings = _with_model(settings, folder, lora)
    fingerprint = decouple_fingerprint(settings, digest)
    if root.resolve() == source.resolve() or (committed_units(root) and not (root / SETTINGS_FILE).is_file()):
        raise CorpusError(f"{root} holds recordings: give another --out; synthetic speech is a corpus of itself")
    bound = corpus_info(root).get("fingerprint") if (root / "corpus.json").is_file() else None
    if bound not in (None, fingerprint):
        raise CorpusError(_OTHER.format(root=root, file=root / SETTINGS_FILE))
    sql = "SELECT count(*) FROM descriptions WHERE style IS NOT NULL AND status = 'ok'"
    if not query(source, sql)[1][0][0]:
        raise CorpusError(f"{source} has no described styles; run: voxmill describe {shlex.quote(str(source))}")
    return DecoupleJob(source, root, settings, digest, fingerprint)


def default_out(corpus: Path) -> Path:
    """Return the folder of the synthetic speech of a corpus, if none is given."""
    return corpus.with_name(f"{corpus.name}-decoupled")


def _with_model(settings: DecoupleSettings, folder: Path, lora: Path | None) -> DecoupleSettings:
    """Return the settings with absolute folders: workers have other working directories."""
    own = {"model": str(folder.absolute()), "lora": None if lora is None else str(lora)}
    return settings.model_copy(update={"generate": settings.generate.model_copy(update=own)})


def settle_pairs(
    source: Path, root: Path, settings: DecoupleSettings, limit: int | None, write: bool = True
) -> Pairing:
    """Return the pairs of a corpus, those of earlier runs and new ones, and the segments that nothing was paired with.

    limit: the most pairs in all; earlier ones stay. write: store them.
    """
    stored = read_pairs(root)
    found = find_pairs(source, settings.pairing, settings.seed, [p for p in stored if p.text is not None], limit)
    pairs = sorted(found.pairs, key=lambda pair: (pair.described_id, pair.pair_id))
    if write and pairs != stored:
        write_pairs(root, pairs)
    return Pairing(pairs, found.left_out)


_OTHER = (
    "{root} was made with another model or other settings of the generation (see {file}): use these, or give another --out."
    " Bounds, pairing and attempts may change"
)


def _bind(root: Path, fingerprint: str) -> None:
    try:
        bind_fingerprint(root, fingerprint)
    except CorpusError:
        raise CorpusError(_OTHER.format(root=root, file=root / SETTINGS_FILE)) from None


def _make_all(job: DecoupleJob, pairs: list[Pair], summary: DecoupleSummary, watch: Watch) -> Made:
    """Make what is left, attempt by attempt, until every pair is accepted or has no attempt left."""
    made, settings = made_so_far(job.root), job.settings
    if not made.left(pairs, settings.attempts):
        return made
    with own_scratch(job.root / "tmp") as scratch:
        output = DecoupledOutput(job.root, load_thresholds(job.root))
        engine = make_engine(settings.engine, settings.groups(), job.root, scratch / "marks", output)
        run = _Run(job, engine, scratch, made, summary, Progress(0, 0.0), watch, Voices(job.source))
        try:
            while left := made.left([p for p in pairs if p.pair_id not in made.skipped], settings.attempts):
                attempt = min(left)
                log.info(f"attempt {attempt}: {counted(len(left[attempt]), 'pair')}")
                run.attempt(left[attempt], attempt)
        finally:
            engine.close()
    return made


@dataclass
class _Run:
    """One run: takes the engine's events, commits the sessions and counts what they made."""

    job: DecoupleJob
    engine: Engine
    scratch: Path
    made: Made
    summary: DecoupleSummary
    progress: Progress
    watch: Watch
    voices: Voices
    breaker: Breaker = field(default_factory=Breaker)
    waiting: dict[str, tuple[SessionDone, dict[str, float]]] = field(default_factory=dict)
    """Sessions that are done and not written yet."""
    began: float | None = None

    def attempt(self, pairs: list[Pair], attempt: int) -> None:
        """Make one attempt at each of the pairs. Raises what stops a run."""
        job, settings = self.job, self.job.settings
        of_sessions = SessionSettings(settings.unit, settings.seed, settings.style, str(self.scratch / "spool"))
        sessions = sessions_of(pairs, attempt, job.source, job.fingerprint, job.digest, of_sessions, self.voices)
        self.progress.sessions += -(-len(pairs) // settings.unit)
        self.progress.audio_s += sum(expected_s(pair) for pair in pairs)
        for event in _until_written(self.engine, sessions):
            match event:
                case GroupDone(outcome=outcome):
                    self.progress.stage_done(outcome)
                    self.breaker.add(outcome.tallies)
                case ItemStarted():
                    self.began = self.began or time.perf_counter()
                    self.progress.item_started(event)
                case SessionDone():
                    self._done(event)
                case ContentLost():
                    for name in event.session_ids:
                        lost, seconds = self.waiting.pop(name)
                        self.progress.session_lost(**seconds, planned_s=_planned_s(lost))
                case UnitWritten():
                    self._commit(event)
            self.watch(event, self.progress)
            self.summary.process_s = time.perf_counter() - (self.began or time.perf_counter())

    def _done(self, event: SessionDone) -> None:
        session = event.session
        assert isinstance(session, DecoupleSession)
        for row in session.quarantine:
            if row.cause != "data":
                error = f"{row.stage}: {row.error}"
                self.summary.failed[error] = self.summary.failed.get(error, 0) + 1
            if row.kind == LOST_WORKER:
                self.breaker.lost(row.stage, row.kind, row.error)
        rows = list(session.found.values())
        audio_s = sum(recording.duration_s for recording in session.usable())
        share = sum(row["accepted"] for row in rows) / max(len(rows), 1)
        seconds = {"audio_s": audio_s, "speech_s": event.counts.speech_s, "kept_s": audio_s * share}
        self.progress.session_done(**seconds, planned_s=_planned_s(event))
        # Pairs without a row failed because of the machine or the code: the next run tries them again.
        self.made.skipped |= {pair.pair_id for pair in session.pairs.values()} - {row["pair_id"] for row in rows}
        if rows:
            self.waiting[session.session_id] = event, seconds
            self.engine.write(_content(event, self.job.fingerprint))

    def _commit(self, event: UnitWritten) -> None:
        link_unit(self.job.root, event.record, self.scratch)
        done, seconds = self.waiting.pop(event.record["unit_id"])
        session = done.session
        assert isinstance(session, DecoupleSession)
        Strikes(self.job.root / "strikes").clear(session.session_id)
        self.made.add(session.found.values())
        self.summary.clips += len(session.found)
        self.summary.clips_s += seconds["audio_s"]
        self.summary.generate_s += session.generate_s


def expected_s(pair: Pair) -> float:
    """Return the usual speaking time of a pair's text in seconds."""
    return SpeechRequest(str(pair.text), 0).expected_s


def _planned_s(done: SessionDone) -> float:
    assert isinstance(done.session, DecoupleSession)
    return sum(request.expected_s for request in done.session.requests.values())


def _until_written(engine: Engine, sessions: Iterable[DecoupleSession]) -> Iterator[Event]:
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
        quarantine=[row for row in quarantine_rows(session) if row["cause"] == "data"],
        stats={"busy_s": dict(session.busy_s)},
    )


def _count(summary: DecoupleSummary, pairing: Pairing, made: Made, settings: DecoupleSettings) -> None:
    paired = [pair for pair in pairing.pairs if pair.reason is None]
    summary.pairs = len(paired)
    summary.accepted = sum(pair.pair_id in made.accepted for pair in paired)
    summary.open = sum(map(len, made.left(paired, settings.attempts).values()))
    unpaired = Counter(pair.reason for pair in pairing.pairs if pair.reason is not None) + Counter(pairing.left_out)
    summary.unpaired = dict(unpaired.most_common())
    lost = [made.reasons.get(pair.pair_id, []) for pair in paired if pair.pair_id not in made.accepted]
    summary.rejected = dict(Counter(reason for reasons in lost for reason in reasons).most_common())


def summary_lines(summary: DecoupleSummary) -> list[str]:
    """Return a few lines on what the run did and what the corpus holds."""
    lines = []
    if summary.decided_again:
        lines.append(f"decided again: {counted(summary.decided_again, 'decision')} changed, nothing was made for it")
    if summary.clips:
        rate = summary.clips_s / summary.wall_s if summary.wall_s else 0.0
        lines.append(
            f"{counted(summary.clips, 'clip')} made ({duration_text(summary.clips_s)}) in {duration_text(summary.wall_s)}"
            f" ({rate:.2f}x real time)"
        )
    yielded = f" ({summary.accepted / summary.pairs:.0%})" if summary.pairs else ""
    lines.append(f"{summary.accepted} of {counted(summary.pairs, 'pair')} accepted{yielded}")
    if summary.open:
        errors = "; ".join(f"{error} ({count})" for error, count in summary.failed.items())
        lines.append(f"{counted(summary.open, 'pair')} left, the same command tries them again; what failed: {errors}")
    if summary.rejected:
        reasons = ", ".join(f"{reason} {count}" for reason, count in summary.rejected.items())
        lines.append(f"not accepted, by the reasons against the last attempt: {reasons}")
    if summary.unpaired:
        lines.append("no pair: " + ", ".join(f"{reason} {count}" for reason, count in summary.unpaired.items()))
    where = shlex.quote(summary.corpus)
    if not summary.pairs:
        return [*lines, "nothing can be cloned: see the reasons above; settings of `pairing` change what is wanted"]
    lines.append(
        f"{where}: train on it beside the corpus, and set `decoupled` of a phase; see why clips were rejected with: voxmill query"
        f' {where} "select unnest(reasons) as reason, count(*) from decoupled where not accepted group by 1 order by 2 desc"'
    )
    return lines
