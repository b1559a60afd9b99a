"""`voxmill demo`: all steps on real recordings, and a table of the results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxmill.terminal import Terminal, quoted

if TYPE_CHECKING:
    from pipeline.runs.summary import Summary
    from trainer import TrainResult
    from voxmill.demo_recordings import DemoSet
    from voxmill.score import LanguageScore

QUERIES = (
    (
        "hours and segments by language",
        "select language, count(*) as segments, round(sum(duration_s) / 60, 2) as minutes,"
        " round(avg(dnsmos_ovr), 2) as dnsmos from segments where kept group by 1 order by 1",
    ),
    ("where every second went", "select * from funnel"),
    (
        "a reference pair of each session",
        "select s.session_id, p.segment_id, p.reference_id, round(max(p.cosine), 3) as cosine, any_value(p.gap) as gap"
        " from reference_pairs p join segments s using (segment_id) group by all order by cosine desc limit 5",
    ),
    ("what the voices sound like", 'select segment_id, brief, "full" from descriptions order by segment_id limit 3'),
)

SENTENCE = "The quick brown fox jumps over the lazy dog."


def run_demo(out: Path, terminal: Terminal, minutes: float, steps: int | None, executor: str) -> dict[str, Any]:
    """Run all steps from recordings to a spoken WAV in the folder `out`; return the figures of the table."""
    from catalogs.weights import registry

    clock: dict[str, float] = {}
    started = time.perf_counter()
    with _step(terminal, clock, "weights", "1/7 weights of the profile small"):
        registry.pull(registry.profile("small"), progress=lambda name, line: terminal.say(f"  {name}: {line}"))
    with _step(terminal, clock, "recordings", "2/7 recordings: real prompts in five languages, joined into sessions"):
        recordings = _recordings(out, minutes, terminal)
    with _step(terminal, clock, "prepare", "3/7 voxmill prepare"):
        summary = _prepare(recordings.folder, out / "corpus", executor, terminal)
    with _step(terminal, clock, "catalog", "4/7 voxmill catalog, voxmill query"):
        _ask(out / "corpus", terminal)
    with _step(terminal, clock, "report", "5/7 voxmill report"):
        from catalogs.report.report import build_report

        page = build_report(out / "corpus", out / "report.html")
    with _step(terminal, clock, "train", "6/7 voxmill train: a toy VoxCPM2 with a toy codec"):
        trained = _train(out, steps, terminal)
    with _step(terminal, clock, "speak", "7/7 voxmill speak, in every layout"):
        spoken = _speak(out, Path(trained.checkpoint), recordings, terminal)
    with _step(terminal, clock, "score", "word error rates against the known transcripts"):
        scores = _scores(out / "corpus", recordings)
    clock["total"] = time.perf_counter() - started
    _table(terminal, out, page, summary, scores, trained, spoken, clock)
    return {
        "summary": vars(summary),
        "wer": [vars(score) for score in scores],
        "train": {"checkpoint": str(trained.checkpoint), "first": trained.first_loss, "last": trained.last_loss},
        "spoken": [str(path) for path in spoken],
        "seconds": clock,
    }


@contextmanager
def _step(terminal: Terminal, clock: dict[str, float], name: str, title: str) -> Iterator[None]:
    """Print the title of a step and store its duration in seconds in `clock`."""
    terminal.title(title)
    started = time.perf_counter()
    yield
    clock[name] = time.perf_counter() - started


def _recordings(out: Path, minutes: float, terminal: Terminal) -> DemoSet:
    from voxmill.demo_recordings import make_demo_recordings

    out.mkdir(parents=True, exist_ok=True)
    return make_demo_recordings(out / "recordings", minutes, say=terminal.say)


def _prepare(recordings: Path, corpus: Path, executor: str, terminal: Terminal) -> Summary:
    from pipeline.config import load_config
    from pipeline.prepare import prepare
    from voxmill.progress import PrepareProgress

    settings = load_config(None, [f"engine.executor={executor}", "name=demo", "unit_s=240"])
    with PrepareProgress(terminal) as progress:
        return prepare([str(recordings)], corpus, settings, watch=progress)


def _ask(corpus: Path, terminal: Terminal) -> None:
    from catalogs.query.views import build_catalog, query

    terminal.say(f"catalog: {build_catalog(corpus)}")
    for title, sql in QUERIES:
        terminal.say(f'$ voxmill query {quoted(corpus)} "{sql}"')
        terminal.table(title, *query(corpus, sql))


def _train(out: Path, steps: int | None, terminal: Terminal) -> TrainResult:
    from trainer import load_train_config, train

    overrides = [f"corpus={out / 'corpus'}", f"output={out / 'model'}"]
    if steps is not None:
        overrides.append(f"steps={steps}")
    with terminal.printing("trainer"):
        return train(load_train_config("toy", overrides))


def _speak(out: Path, checkpoint: Path, recordings: DemoSet, terminal: Terminal) -> list[Path]:
    """Write one WAV per layout; the reference and prompt clips come from the corpus."""
    import soundfile

    from catalogs.corpus.reader import Corpus
    from catalogs.vocabulary.speech_length import generous_seconds
    from voxcpm import VoxCPM
    from voxcpm.inference.write_audio import write_audio
    from voxcpm.kernels.threads import spare_threads
    from voxcpm.provenance.source import Source
    from voxcpm.provenance.watermark_hook import marked_samples

    folder = out / "spoken"
    folder.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(out / "corpus")
    clips = [row for row in corpus.kept().to_pylist() if 2.0 <= row["duration_s"] <= 6.0]
    if not clips:
        terminal.say("no kept clip of 2 to 6 s: only the plain layouts are spoken")
    spare_threads(str(checkpoint))
    voice = VoxCPM.from_pretrained(str(checkpoint), load_denoiser=False, device="cpu")
    # Descriptions as in training: of measured traits, since the corpus is described offline; beside a reference, of the delivery.
    layouts: dict[str, dict[str, Any]] = {
        "plain": {},
        "described": {"text": f"(A woman with a low voice speaks slowly){SENTENCE}"},
    }
    if clips:
        clip = folder / "a_clip_of_the_corpus.wav"
        samples, rate = corpus.read_audio(clips[0]["segment_id"])
        soundfile.write(clip, samples, rate)
        prompt = {"prompt_wav_path": str(clip), "prompt_text": clips[0]["text"]}
        reference = {"reference_wav_path": str(clip)}
        layouts |= {
            "reference": reference,
            "reference_described": {"text": f"(slightly faster){SENTENCE}", **reference},
            "continuation": prompt,
            "reference_and_continuation": {**reference, **prompt},
        }
    spoken = []
    source = Source(checkpoint)
    for name, options in layouts.items():
        longest = round(generous_seconds(SENTENCE) / 0.16)
        wav = voice.generate(**{"text": SENTENCE, "seed": 1, "max_len": longest, "retry_badcase": False, **options})
        path, rate = folder / f"{name}.wav", voice.tts_model.sample_rate
        write_audio(path, marked_samples(wav, rate, source.watermark(1, name)), rate, source.statement(seed=1))
        terminal.say(f"  {path}: {len(wav) / voice.tts_model.sample_rate:.2f} s at {voice.tts_model.sample_rate} Hz")
        spoken.append(path)
    return spoken


def _scores(corpus: Path, recordings: DemoSet) -> list[LanguageScore]:
    from voxmill.score import score_corpus

    return score_corpus(corpus, recordings.folder, recordings.gold) if recordings.gold else []


def _table(
    terminal: Terminal,
    out: Path,
    page: Path,
    summary: Summary,
    scores: list[LanguageScore],
    trained: TrainResult,
    spoken: list[Path],
    clock: dict[str, float],
) -> None:
    """Print the table of results and the paths of all outputs."""
    from catalogs.corpus.reader import Corpus

    corpus = Corpus(out / "corpus")
    recordings = corpus.table("recordings").to_pylist()
    segments = corpus.index.to_pylist()
    kept = {row["segment_id"] for row in corpus.kept().to_pylist()}
    reasons: dict[str, int] = {}
    for row in segments:
        for reason in row["reasons"]:
            reasons[reason] = reasons.get(reason, 0) + 1
    rows: list[tuple[str, str]] = [
        ("files in", str(len(recordings))),
        ("hours in", f"{sum(row['duration_s'] for row in recordings) / 3600:.3f}"),
        ("segments kept", f"{len(kept)} of {len(segments)}"),
        *((f"  rejected: {reason}", str(count)) for reason, count in sorted(reasons.items())),
        *(
            (f"WER {score.language}", f"{score.wer:.1%} of {score.words} words, {score.prompts} prompts")
            for score in scores
        ),
        *((f"seconds in {stage}", f"{busy:.1f}") for stage, busy in summary.stage_s.items()),
        *((f"quarantined {Path(row['path']).name}", f"{row['stage']}: {row['error']}") for row in summary.quarantined),
        ("training loss", f"{trained.first_loss:.3f} -> {trained.last_loss:.3f} in {trained.steps} steps"),
        *((f"seconds for {step}", f"{seconds:.0f}") for step, seconds in clock.items()),
    ]
    terminal.table("the demo", ["what", "figure"], rows)
    terminal.say(
        "WER: prompts over 2 s, whisper-normalizer and numbers spelled out; the transcripts are the packages' own."
    )
    terminal.say(f"recordings  {out / 'recordings'}   what is said in them: {out / 'gold.jsonl'}")
    terminal.say(
        f'corpus      {out / "corpus"}   ask it: voxmill query {quoted(out / "corpus")} "select * from funnel"'
    )
    terminal.say(f"report      {page}   open it in a browser")
    terminal.say(f"checkpoint  {trained.checkpoint}")
    terminal.say(
        f"spoken      {spoken[0].parent}   noise: after a few dozen steps a model cannot speak; the demo shows the steps"
    )
