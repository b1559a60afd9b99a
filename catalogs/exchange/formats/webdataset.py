"""Tars of a FLAC and a JSON file per clip, as WebDataset reads them (read: webdataset 1.0)."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

from catalogs.exchange.clips import Clip, file_stem
from catalogs.exchange.formats.base import Format, Job, Part, captions, own_fields
from catalogs.files import open_atomically


class WebDataset(Format):
    """Shards are numbered from 0 in each split: `train-{000000..000012}.tar`."""

    name = "webdataset"
    reader = "webdataset, NeMo, torchdata, `datasets` (streaming)"
    audio = ("flac", "wav")
    needs_text = False

    def write_part(self, job: Job, part: Part, clips: Iterator[Clip]) -> dict[str, list[str]]:
        """Write one tar. Times and owners are fixed, so that equal clips give equal bytes."""
        with (
            open_atomically(job.out / f"{part.split}-{part.number:06d}.tar") as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for clip in clips:
                rate, samples = clip.about
                about = {"text": job.text(clip) or None, "duration": samples / rate, "sample_rate": rate}
                about |= own_fields(job, clip) | {"captions": captions(clip) or None}
                told = json.dumps({k: v for k, v in about.items() if v is not None}, ensure_ascii=False, default=str)
                for suffix, data in ((clip.suffix, clip.data), ("json", told.encode())):
                    member = tarfile.TarInfo(f"{file_stem(clip.id)}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        return {}

    def data_files(self, split: str) -> str | None:
        """Return the pattern of a split's tars."""
        return f"{split}-*.tar"
