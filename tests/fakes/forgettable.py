"""A small corpus with everything that may hold a clip: what `voxmill forget` has to find."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "catalogs"))

from corpus_builders import FINGERPRINT as FINGERPRINT
from corpus_builders import both, flac, make_unit, tone

from annotators.paid.ledger import Ledger
from annotators.providers.remote import Reply
from catalogs.corpus.commit import UnitContent, bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.duplicates import write_duplicates
from catalogs.corpus.latents import LatentForm, write_latents
from catalogs.corpus.marks import MarkFile
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import CHECKS, DECOUPLED, DESCRIPTIONS
from catalogs.corpus.shards import to_table
from pipeline.duplicates.audio_print import audio_print, sha256_of
from pipeline.synthesis.pairs import Pair, write_pairs

FORM = LatentForm("c" * 16, 2, 3)
SECRET = "xyzzy"
"""In every text and path of the recording `a`, and nowhere else."""


def voice(name: str, segments: int, **changes: Any) -> UnitContent:
    """A unit of one recording: its clips, texts and description belong to no other. The last but one has another speaker."""
    unit = make_unit(name, segments)
    secret = SECRET if name == "a" else name
    seed = sum(map(ord, name))
    for number, row in enumerate(unit.rows):
        noise = np.random.default_rng(1000 * seed + number).normal(0, 4000, 24_000)
        samples = (tone(1.5, 100.0 + 10 * number + seed) + noise).clip(-32768, 32767).astype(np.int16)
        row |= {"text": f"{secret} says {number}", "other_text": f"{secret} said {number}"}
        row |= {"words": [{"word": secret, "start": 0.1, "end": 0.4, "p": 0.9}], "audio_sha256": sha256_of(samples)}
        row |= {"audio_print": audio_print(samples.astype(np.float32) / 32768).tobytes()}
        if row["audio"] is not None:
            row["audio"] = flac(samples)
    if segments > 3:
        unit.rows[-2]["speaker"] = f"{unit.sessions[0]}-spk1"
    (recording,) = unit.recordings
    recording |= {"path": f"/data/{secret}/talk.wav", "content_sha256": content(name), "owner_speaker": f"owner-{name}"}
    return dataclasses.replace(unit, **changes)


def content(name: str) -> str:
    """The content hash of a recording."""
    return name * 64


def ids(unit: UnitContent) -> list[str]:
    """Segments of a unit."""
    return [row["segment_id"] for row in unit.rows]


def build(root: Path) -> dict[str, UnitContent]:
    """Make the corpus: a and b in one unit, c alone, an older attempt at a, and a unit of other settings with a."""
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    a, b, c = voice("a", 5), voice("b", 4), voice("c", 5)
    c.references[0]["reference_id"] = ids(a)[0]  # type: ignore[index]
    first = both(a, b, generation=1)
    commit_unit(root, first)
    commit_unit(root, c)
    commit_unit(root, dataclasses.replace(a, unit_id="0" * 16))
    others = [{**row, "segment_id": row["segment_id"][::-1]} for row in a.rows]
    commit_unit(root, dataclasses.replace(a, unit_id="1" * 16, fingerprint="f" * 16, rows=others, references=()))
    _annotate(root, first, a, b)
    _annotate(root, c, c)
    _note(root, a)
    return {"a": a, "b": b, "c": c, "first": first}


def _annotate(root: Path, unit: UnitContent, *voices: UnitContent) -> None:
    names = [(row["segment_id"], row["text"]) for own in voices for row in own.rows if row["audio"] is not None]
    described = [
        {"segment_id": n, "annotator": "acoustic", "full": f"like {t}", "brief": t, "status": "ok"} for n, t in names
    ]
    checks = [{"segment_id": n, "annotator": "acoustic", "attribute": "age", "claimed": t} for n, t in names]
    for folder, rows, schema in (("acoustic", described, DESCRIPTIONS), ("acoustic/checks", checks, CHECKS)):
        path = root / "annotations" / folder / unit.unit_id[:2] / f"{unit.unit_id}.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(to_table(rows, schema), path)
    shard = Corpus(root).place(names[0][0])[0]
    write_latents(root, FORM, shard, [(n, np.full((1, 2, 3), at, np.uint16)) for at, (n, _) in enumerate(names)])


def _note(root: Path, a: UnitContent) -> None:
    """Duplicates, marks, replies of a service, hashes, refusals, logs, and the caches that commands leave."""
    one, two = ids(a)[:2]
    other = Corpus(root).kept().column("segment_id").to_pylist()
    c = next(name for name in other if name not in ids(a))
    rows = [{"segment_id": one, "duplicate_group": one}]
    rows += [{"segment_id": c, "duplicate_of": one, "duplicate_kind": "reencode", "duplicate_group": one}]
    write_duplicates(root, rows, "state")
    (root / "annotations" / "duplicates" / "work").mkdir()
    (root / "annotations" / "duplicates" / "work" / "words.bin").write_text(SECRET)
    marks = MarkFile(root, "Ann")
    marks.add(two, verdict="keep", text=f"{SECRET} indeed")
    marks.add(c, verdict="keep")
    ledger = Ledger(root / "annotations" / "acoustic" / "ledger.sqlite", "pass")
    ledger.set_cap(1000)
    for name, key in ((one, "k1"), (c, "k2")):
        ledger.add_clips("unit", 1, "identity", {name: key})
        ledger.reserve(key, [key], 7)
        ledger.sent(key, 1)
        ledger.answer(key, 1, Reply("{}", "STOP", None, "m-1", None, f"{SECRET} replied" if name == one else "fine"), 7)
    ledger.close()
    lines = [[f"/data/{SECRET}/talk.wav", 1, 2, content("a")], ["/data/c/talk.wav", 1, 2, content("c")]]
    (root / "hashes.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    refused = {"path": f"/data/{SECRET}/talk.wav", "stage": "decode", "error": "", "cause": "data", "log": ""}
    (root / "run.json").write_text(json.dumps({"quarantined": [refused], "segments": 3}))
    (root / "logs").mkdir()
    (root / "logs" / "trace.txt").write_text(f"/data/{SECRET}/talk.wav: no")
    (root / "report.html").write_text(f"<p>{SECRET}</p>")
    (root / "damaged" / "annotations").mkdir(parents=True)
    (root / "damaged" / "annotations" / "half.parquet").write_text(f"PAR1 {SECRET}")


def decoupled(root: Path, source: dict[str, UnitContent]) -> UnitContent:
    """Make a corpus of synthetic speech: one clip in the voice of a, one of c that says what a said, one of c alone."""
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    a, c = ids(source["a"]), ids(source["c"])
    pairs, rows, units = [], [], []
    for number, (described, text_id) in enumerate([(a[0], c[0]), (c[0], a[1]), (c[1], c[0])]):
        unit = voice(f"{number}", 1)
        unit.recordings[0]["content_sha256"] = None  # type: ignore[index]
        text = f"{SECRET} again" if number < 2 else "plain"
        made: dict[str, Any] = unit.rows[0]  # type: ignore[assignment]
        made |= {"text": text, "words": None, "other_text": None, "synthetic": True}
        units.append(unit)
        pairs.append(Pair(f"p{number}", described, "en", timbre_id=described, text_id=text_id, text=text))
        row = {"segment_id": ids(unit)[0], "described_id": described, "timbre_id": described, "text_id": text_id}
        rows.append(row | {"text": text, "accepted": True, "pair_id": f"p{number}", "attempt": 1, "cer": 0.0})
    merged = both(both(units[0], units[1]), units[2])
    commit_unit(root, merged)
    path = root / "annotations" / "decoupled" / merged.unit_id[:2] / f"{merged.unit_id}.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(to_table(rows, DECOUPLED), path)
    write_pairs(root, pairs)
    return merged


def tree(root: Path) -> dict[str, Any]:
    """What a corpus holds, file by file, without what differs between runs: times, and compacted copies."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or name.startswith((".", "compact/", "tmp/", "catalog.duckdb")):
            continue
        if path.suffix == ".sqlite":
            found[name] = True
        elif path.suffix == ".json":
            told = json.loads(path.read_text())
            found[name] = {key: value for key, value in told.items() if key != "at" or "units/" in name}
        else:
            found[name] = path.read_bytes()
    return found


def left_of(root: Path, *needles: bytes) -> list[str]:
    """The files that hold one of these, as bytes, in a column of a table, or in compressed replies."""
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += repr(pq.ParquetFile(path).read().to_pylist()).encode()
        if path.suffix == ".arrow":
            data += repr(pa.ipc.open_file(path).read_all().to_pylist()).encode()
        found += [path.relative_to(root).as_posix() for needle in needles if needle in data]
    return found
