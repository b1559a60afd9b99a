"""What content-decoupled samples are for, on toy scale: does the style follow the description, or the words?

    python benchmarks/quality/decoupling_effect.py WORK [--shared ../shared] [--steps 800] [--codec DIR]

EmoDB's ten sentences are said by five people, angrily and neutrally. In the base corpus the words tell the style: five sentences
are only heard angry, the other five only neutral. Two models are trained alike, but one of them also gets decoupled samples: six of
the sentences in the other style, with the description of that style. They are recordings of the same actors, which is what a
perfect clone would be: a model small enough for a CPU cannot clone.

Both models then say the other four sentences in both styles, in the voices of all five: words and description contradict each
other in half of the cases, and this combination was heard by neither model. The measure: median pitch (semitones) and level of the
speech (dB) with the description `angry` minus those with `neutral`, of the same sentence, voice and seed. 0: the description is
ignored. The actors themselves differ by the figures of the first line. Intervals are bootstrapped over sentences and voices.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "quality")]

from decoupled_checks import Take, labeled_takes, prepared  # noqa: E402

from catalogs.corpus.commit import UnitContent, bind_fingerprint, commit_unit, create_corpus  # noqa: E402
from catalogs.corpus.ids import short_hash  # noqa: E402
from catalogs.corpus.reader import Corpus  # noqa: E402
from catalogs.corpus.schema import DECOUPLED, DESCRIPTIONS, SEGMENTS  # noqa: E402
from catalogs.corpus.shards import to_table  # noqa: E402
from pipeline.records import PCM_RATE  # noqa: E402
from pipeline.speech.faults import find_sounds  # noqa: E402
from pipeline.synthesis.output import decoupled_bytes, decoupled_path  # noqa: E402
from pipeline.voice.prosody import measure_prosody  # noqa: E402

STYLES = {"angry": "Loud and angry, with a high voice.", "neutral": "Calm and even, with a low voice."}
HELD = 2
"""Sentences of each half that are in no decoupled sample."""
FINGERPRINT = short_hash("decoupling effect", 1)
SEEDS = (0, 1)


@dataclass(frozen=True)
class Split:
    """Sentences: those heard angry, those heard neutral, and of both those without a decoupled sample."""

    angry: tuple[str, ...]
    neutral: tuple[str, ...]
    held: tuple[str, ...]

    def base_style(self, text: str) -> str:
        """Return the style that a sentence has in the base corpus."""
        return "angry" if text in self.angry else "neutral"


def main() -> None:
    """Make the corpora, train both models, let them speak, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--codec", type=Path, help="a codec of train-codec; made if not given (ten minutes)")
    arguments = parser.parse_args()
    work: Path = arguments.work.absolute()
    acted = prepared(work, arguments.shared)
    takes = [t for t in labeled_takes(acted, arguments.shared) if t.language == "de" and t.emotion in STYLES]
    split = sentences(takes)
    base, made = corpora(work, acted, takes, split)
    codec = arguments.codec or make_codec(work, base)
    references = neutral_references(work, acted, takes, split)
    rows = []
    for name, paths, share in (("without", [base], 0.0), ("with", [base, made], 0.5)):
        checkpoint = trained(work, name, paths, codec.absolute(), share, arguments.steps)
        rows += [{"model": name} | row for row in spoken(checkpoint, split.held, references)]
    (work / "effect.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    report(rows, takes, acted, split)


def sentences(takes: Sequence[Take]) -> Split:
    """Split the sentences in their order by name: every other one is heard angry."""
    texts = sorted({take.text for take in takes})
    angry, neutral = tuple(texts[::2]), tuple(texts[1::2])
    return Split(angry, neutral, (*angry[:HELD], *neutral[:HELD]))


def corpora(work: Path, acted: Path, takes: Sequence[Take], split: Split) -> tuple[Path, Path]:
    """Make the base corpus and the corpus of decoupled samples, if they are not there."""
    base, made = work / "base", work / "made"
    opened = Corpus(acted)
    neutral = {v: [t for t in takes if t.voice == v and t.emotion == "neutral"] for v in {t.voice for t in takes}}
    heard = [t for t in takes if t.emotion == split.base_style(t.text)]
    extra = [t for t in takes if t.emotion != split.base_style(t.text) and t.text not in split.held]
    if not (base / "corpus.json").is_file():
        rows = [_row(opened, take) for take in heard]
        # Any neutral clip of the voice may be the reference: it tells nothing of the style that is asked for.
        timbres = {v: [t.segment_id for t in found if t in heard] for v, found in neutral.items()}
        pairs = [
            {"segment_id": take.segment_id, "reference_id": timbre, "cosine": 0.9, "gap": 2}
            for take in heard
            for timbre in timbres[take.voice]
            if timbre != take.segment_id
        ]
        _commit(base, rows, pairs)
        table = to_table([_description(take) for take in heard], DESCRIPTIONS)
        path = base / "annotations" / "labels" / "aa" / f"{short_hash('unit', base.name)}.parquet"
        path.parent.mkdir(parents=True)
        import pyarrow.parquet as pq

        pq.write_table(table, path)
    if not (made / "corpus.json").is_file():
        unit = _commit(made, [_row(opened, take) | {"synthetic": True} for take in extra], [])
        described = {(t.voice, t.emotion): t.segment_id for t in heard}
        found = []
        for take in extra:
            timbre = next(t.segment_id for t in neutral[take.voice] if t in heard)
            source = described.get((take.voice, take.emotion)) or next(
                t.segment_id for t in heard if t.emotion == take.emotion
            )
            found.append(
                {
                    "segment_id": take.segment_id,
                    "described_id": source,
                    "timbre_id": timbre,
                    "text": take.text,
                    "accepted": True,
                }
            )
        path = decoupled_path(made, unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(decoupled_bytes(found))
        assert set(DECOUPLED.names) >= found[0].keys()
    print(f"base: {len(heard)} clips; decoupled: {len(extra)} clips; held-out sentences: {len(split.held)}", flush=True)
    return base, made


def _row(opened: Corpus, take: Take) -> dict[str, Any]:
    row = {key: value for key, value in take.row.items() if key in SEGMENTS.names}
    # The label's text; and no gain, because the level is a part of the style.
    row |= {"text": take.text, "gain_db": None, "kept": True, "reasons": [], "words": [], "extra": None}
    row |= {"speaker": take.voice, "flags": []}
    row["audio"] = bytes(opened.audio_buffer(take.segment_id).to_pybytes())
    return row


def _description(take: Take) -> dict[str, Any]:
    words = STYLES[take.emotion]
    return {
        "segment_id": take.segment_id,
        "annotator": "labels",
        "status": "ok",
        "verdict": "agree",
        "style": words,
        "full": words,
    }


def _commit(root: Path, rows: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> str:
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    (root / "thresholds.yaml").write_text("max_duration_s: 300\n", encoding="utf-8")
    recordings = [
        {
            "source_id": row["source_id"], "path": row["source_id"], "session_id": row["session_id"],
            "duration_s": row["duration_s"], "sample_rate": row["sample_rate"], "channels": 1, "codec": "flac",
            "bytes": len(row["audio"]), "status": "ok",
            "silence_s": 0.0, "content_sha256": row["source_id"],
        }
        for row in rows
    ]  # fmt: skip
    unit = short_hash("unit", root.name)
    commit_unit(root, UnitContent(unit, FINGERPRINT, [root.name], rows, recordings, pairs, stats={"busy_s": {}}))
    return unit


def make_codec(work: Path, base: Path) -> Path:
    """Train the codec of the overfitting experiment on the base corpus."""
    from trainer.codec import load_codec_config, train_codec

    if not (work / "codec" / "audiovae.safetensors").is_file():
        settings = ROOT / "benchmarks" / "overfit" / "codec.yaml"
        train_codec(load_codec_config(settings, [f"corpus={base}", f"output={work / 'codec'}", "steps=1200"]))
    return work / "codec"


def neutral_references(work: Path, acted: Path, takes: Sequence[Take], split: Split) -> dict[str, str]:
    """Write a neutral clip of each voice, of a sentence that is in the base corpus; return the paths."""
    folder = work / "references"
    folder.mkdir(exist_ok=True)
    opened, found = Corpus(acted), {}
    for take in takes:
        if take.emotion == "neutral" and take.text in split.neutral and take.voice not in found:
            path = folder / f"{take.voice}.flac"
            path.write_bytes(bytes(opened.audio_buffer(take.segment_id).to_pybytes()))
            found[take.voice] = str(path)
    return found


def trained(work: Path, name: str, paths: Sequence[Path], codec: Path, share: float, steps: int) -> Path:
    """Train a model; return its checkpoint. A killed run resumes."""
    from trainer import load_train_config, train

    output = work / f"model-{name}"
    settings = ROOT / "benchmarks" / "overfit" / "model.yaml"
    overrides = [
        f"corpus=[{','.join(map(str, paths))}]", f"output={output}", f"model.codec={codec}",
        f"phases.all.steps={steps}", f"phases.all.decoupled={share}", "phases.all.lr=0.0005",
        "phases.all.layouts={basic: 0, design: 0, reference: 0, controllable: 1, continuation: 0, reference_continuation: 0}",
        "model.config.lm_config.num_hidden_layers=2", "model.config.residual_lm_num_layers=1",
        "data.warn_epochs=null", f"checkpoint.every={steps}", "validation.every=null",
    ]  # fmt: skip
    result = train(load_train_config(settings, overrides))
    print(f"{name}: loss {result.first_loss:.3f} -> {result.last_loss:.3f}, {result.seconds:.0f} s", flush=True)
    return Path(result.checkpoint)


def spoken(checkpoint: Path, texts: Sequence[str], references: Mapping[str, str]) -> list[dict[str, Any]]:
    """Say the texts in both styles and all voices; return the measures."""
    from voxcpm import VoxCPM
    from voxcpm.inference.utterance import Utterance

    model = VoxCPM.from_pretrained(checkpoint, load_denoiser=False, device="cpu")
    rate = model.tts_model.sample_rate
    asked = [(t, v, s, seed) for t in texts for v in sorted(references) for s in STYLES for seed in SEEDS]
    items = [
        Utterance(text, description=STYLES[style], reference_wav_path=references[voice], seed=seed, max_len=40)
        for text, voice, style, seed in asked
    ]
    clips = model.speak_batch(items, max_batch=20, retry_badcase=False)
    keys = ("text", "voice", "style", "seed")
    return [
        dict(zip(keys, key, strict=True)) | measures(clip.wav, rate) for key, clip in zip(asked, clips, strict=True)
    ]


def measures(wav: np.ndarray, rate: int) -> dict[str, float | None]:
    """Return the median pitch in semitones (of 1 Hz) and the level of the speech in dB."""
    import soxr

    samples = wav if rate == PCM_RATE else soxr.resample(wav, rate, PCM_RATE)
    prosody = measure_prosody(samples.astype(np.float32))
    return {
        "pitch_st": None if prosody is None else float(12 * np.log2(prosody.pitch_hz)),
        "level_db": float(find_sounds(samples.astype(np.float32)).speech_db),
        "seconds": len(wav) / rate,
    }


def effects(rows: Sequence[Mapping[str, Any]], measure: str) -> dict[tuple[str, str], list[float]]:
    """Return, by (sentence, voice), the differences of a measure between the styles, one per seed that has both."""
    cells: dict[tuple[str, str, int], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row[measure] is not None:
            cells[row["text"], row["voice"], row.get("seed", 0)][row["style"]] = row[measure]
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (text, voice, _), values in cells.items():
        if len(values) == len(STYLES):
            found[text, voice].append(values["angry"] - values["neutral"])
    return found


def interval(
    one: Mapping[tuple[str, str], list[float]], other: Mapping[tuple[str, str], list[float]] | None = None
) -> str:
    """Return the mean (of the paired difference, if there are two) with a 95 % interval over sentences and voices."""
    keys = sorted(one.keys() & other.keys() if other is not None else one.keys())
    if not keys:
        return "not measured"
    values = np.array([np.mean(one[k]) - (np.mean(other[k]) if other is not None else 0.0) for k in keys])
    random = np.random.default_rng(0)
    axes = [sorted({key[axis] for key in keys}) for axis in (0, 1)]
    places = np.array([[axes[axis].index(key[axis]) for axis in (0, 1)] for key in keys])
    means = []
    for _ in range(2000):
        weights = [np.bincount(random.integers(0, len(axis), len(axis)), minlength=len(axis)) for axis in axes]
        weight = weights[0][places[:, 0]] * weights[1][places[:, 1]]
        if weight.sum():
            means.append(float((values * weight).sum() / weight.sum()))
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{values.mean():+6.2f} ({low:+.2f} to {high:+.2f}), {len(keys)} pairs"


def report(rows: Sequence[Mapping[str, Any]], takes: Sequence[Take], acted: Path, split: Split) -> None:
    """Print how much the style follows the description, of the actors and of both models."""
    opened = Corpus(acted)
    people = []
    for take in takes:
        if take.text in split.held:
            samples, rate = opened.read_audio(take.segment_id)
            people.append({"text": take.text, "voice": take.voice, "style": take.emotion} | measures(samples, rate))
    print("\nasked angry minus asked neutral; held-out combinations of sentence and style")
    for measure, unit in (("pitch_st", "semitones"), ("level_db", "dB")):
        found = {name: effects([row for row in rows if row["model"] == name], measure) for name in ("without", "with")}
        print(f"{measure} ({unit})")
        print(f"  actors               {interval(effects(people, measure))}")
        for name, values in found.items():
            print(f"  {name:8} decoupled   {interval(values)}")
        print(f"  difference           {interval(found['with'], found['without'])}")


if __name__ == "__main__":
    main()
