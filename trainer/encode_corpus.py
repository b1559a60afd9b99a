"""`voxmill encode`: encode the kept segments of a corpus once and store the latents beside it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.corpus.damage import check_writable
from catalogs.corpus.latents import StoredLatents, stored_codecs, write_latents
from catalogs.corpus.reader import Corpus
from trainer.codec.files import read_codec
from trainer.data.clip_encoder import ClipEncoder, latent_form, to_bits
from trainer.data.corpora import Corpora, SegmentError
from trainer.data.damage import refuse_many_damaged
from trainer.data.latent_cache import check_length
from trainer.runtime.device import pick_device
from voxcpm.config import VoxCPM2Config
from voxcpm.weights.checkpoint import find_checkpoint

log = logging.getLogger(__name__)

_COMMIT_S = 1800.0
"""Seconds of speech after which latents are written, even within a unit. A kill loses no more than this."""


@dataclass
class EncodeStats:
    """The result of one pass, in segments; a later pass continues with the remaining ones."""

    codec: str
    """Digest of the encoder: the folder under latents/."""
    encoded: int = 0
    already: int = 0
    speech_s: float = 0.0
    """Seconds of speech that this pass encoded."""
    bytes: int = 0
    seconds: float = 0.0
    unreadable: dict[str, str] = field(default_factory=dict)
    """Segments that were left out because they are damaged, with the reasons."""


Watch = Callable[[int, int, float], None]
"""Called with (segments done, segments in all, seconds of speech encoded)."""


def encode_corpus(
    corpus: str | Path,
    codec: str | Path,
    device: str = "auto",
    batch_s: float = 240.0,
    watch: Watch = lambda done, of, speech_s: None,
) -> EncodeStats:
    """Store the latents of every kept segment that has none of this codec yet.

    codec: a checkpoint folder, a hub id or the output of train-codec. batch_s: seconds of audio, padding included, that a GPU
    encodes at once. Segments that are kept only after thresholds change are encoded by the next pass. A killed pass resumes
    where it was. Damaged clips are left out and named. Memory holds some units, and 16 bytes per stored segment. Raises
    TrainError, CheckpointError and CorpusError with one line.
    """
    started = time.perf_counter()
    check_writable(corpus, "latents")
    corpora = Corpora([corpus])
    model, patch_size = _read(codec)
    chosen = pick_device(device)
    form = latent_form(model, patch_size)
    encoder = ClipEncoder(model.to(chosen), patch_size)
    others = [name for name in stored_codecs(corpus) if name != form.codec]
    if others:
        log.info(
            f"{corpus} also has latents of other codecs ({', '.join(others)}): they stay, and are not used with this one"
        )
    stored = StoredLatents(corpus, form)
    stats = EncodeStats(form.codec)
    total = sum(len(rows) for _, rows in _by_shard(corpora.parts[0]))
    for shard, rows in _by_shard(corpora.parts[0]):
        todo = [row for row in rows if row["segment_id"] not in stored]
        stats.already += len(rows) - len(todo)
        for part in _parts(todo, _COMMIT_S):
            made = []
            for group in _batches(part, encoder, batch_s if chosen.type != "cpu" else 0.0):
                clips, group = _readable(corpora, group, encoder, stats, total)
                if not clips:
                    continue
                latents = encoder.encode_all(clips, [patches for _, patches in group])
                made += [(row["segment_id"], to_bits(x)) for (row, _), x in zip(group, latents, strict=True)]
                stats.speech_s += sum(len(clip) for clip in clips) / encoder.sample_rate
                done = stats.already + stats.encoded + len(made) + len(stats.unreadable)
                watch(done, total, stats.speech_s)
            if not made:
                continue
            stats.bytes += write_latents(corpus, form, shard, sorted(made, key=lambda pair: pair[0]))[1]
            stats.encoded += len(made)
    for reason in stats.unreadable.values():
        log.info(f"left out: {reason}")
    stats.seconds = time.perf_counter() - started
    return stats


def _readable(
    corpora: Corpora, group: list[tuple[dict[str, Any], int]], encoder: ClipEncoder, stats: EncodeStats, total: int
) -> tuple[list[np.ndarray], list[tuple[dict[str, Any], int]]]:
    """Return (clips, rows with their patches) of a group without damaged clips, which are recorded in `stats`. Raises TrainError
    if too many are damaged."""
    clips, kept = [], []
    for row, patches in group:
        segment = row["segment_id"]
        try:
            clip = corpora.clip(segment, (corpora.parts[0], row["shard"], row["row"]), encoder.sample_rate)
            check_length(segment, len(clip), patches, encoder, corpora.title)
        except SegmentError as error:
            stats.unreadable[segment] = str(error)
            refuse_many_damaged(len(stats.unreadable), total, str(error))
            continue
        clips.append(clip)
        kept.append((row, patches))
    return clips, kept


def _read(path_or_id: str | Path) -> tuple[Any, int]:
    """Return (the codec, latent frames per patch)."""
    folder = find_checkpoint(path_or_id)
    codec = read_codec(folder)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # The output of train-codec has no model config: models that use the codec have the default patch size.
    return codec, VoxCPM2Config.load(folder).patch_size if "lm_config" in values else VoxCPM2Config.patch_size


def _by_shard(corpus: Corpus) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield (shard, its kept segments with audio: segment_id, duration_s, shard, row), in order of shard."""
    for table in corpus.kept_parts(("segment_id", "duration_s", "shard", "row")):
        rows = (row for row in table.to_pylist() if row["row"] is not None)
        for shard, own in groupby(rows, key=lambda row: row["shard"]):
            yield shard, list(own)


def _parts(rows: list[dict[str, Any]], seconds: float) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows in the order of the shard, in groups of about `seconds` of speech."""
    part: list[dict[str, Any]] = []
    held = 0.0
    for row in rows:
        part.append(row)
        held += row["duration_s"]
        if held >= seconds:
            yield part
            part, held = [], 0.0
    if part:
        yield part


def _batches(
    rows: list[dict[str, Any]], encoder: ClipEncoder, batch_s: float
) -> Iterator[list[tuple[dict[str, Any], int]]]:
    """Yield batches of (row, patches) of similar length. With padding a batch has at most `batch_s` seconds, or a single row."""
    rate, patch_samples = encoder.sample_rate, encoder.patch_samples
    sized = [(row, max(1, ceil(round(row["duration_s"] * rate) / patch_samples))) for row in rows]
    batch: list[tuple[dict[str, Any], int]] = []
    for row, patches in sorted(sized, key=lambda pair: pair[1]):
        if batch and (len(batch) + 1) * patches * patch_samples / rate > batch_s:
            yield batch
            batch = []
        batch.append((row, patches))
    if batch:
        yield batch
