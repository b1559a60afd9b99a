"""Latents of clips: read from beside the corpus (`voxmill encode`), or encoded once and then kept in memory or in a folder."""

from __future__ import annotations

import shlex
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from catalogs.corpus.damage import finding, repair_command
from catalogs.corpus.latents import StoredLatents, stored_codecs
from catalogs.files import open_atomically
from trainer.config import TrainError
from trainer.data.clip_encoder import ClipEncoder, codec_digest, from_bits, latent_form
from trainer.data.corpora import Corpora, SegmentError

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE
    from voxcpm.config import VoxCPM2Config

__all__ = ["Latents", "Recent", "check_length", "codec_digest"]

T = TypeVar("T")

_SLACK_S = 0.005
"""Seconds by which a clip may differ from its index row, since times are rounded to samples of the native rate."""


class Recent(Generic[T]):
    """An LRU cache of values by key: at most `room` in total, but at least one value."""

    def __init__(self, room: float, size: Callable[[T], float]) -> None:
        """size: returns the size of a value, in the unit of `room`."""
        self._room, self._size = room, size
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self.held = 0.0
        """Total size of the values in memory."""

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key; call `make` if it is not in memory. Raises what `make` raises, and then stores nothing."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make()
        self.held += self._size(value)
        while self.held > self._room and len(self._values) > 1:
            self.held -= self._size(self._values.popitem(last=False)[1])
        return value


class Latents:
    """Latents of segments, float32 [A, P, D]: those stored beside a corpus (bfloat16) if they are of this codec, otherwise
    encoded. The most recently used latents, up to `memory_s` seconds of audio, stay in memory.

    Clips are encoded one by one: in a batch, other clips could change the last bits of a clip's latents, and a resumed run would
    not repeat an uninterrupted one.

    folder: also store latents on the disk, by codec and atomically, so that a later run need not encode again.
    notes: lines for the user, e.g. that stored latents are of another codec.
    """

    def __init__(
        self,
        corpora: Corpora,
        codec: AudioVAE,
        config: VoxCPM2Config,
        folder: str | Path | None = None,
        memory_s: float = 3600.0,
    ) -> None:
        """Raises TrainError if stored latents of this codec cannot be read."""
        self._corpora, self._config = corpora, config
        self._memory: Recent[Tensor] = Recent(round(memory_s * config.sample_rate / config.patch_samples), len)
        self._encode = ClipEncoder(codec, config.patch_size)
        self._one_at_a_time = Lock()
        self._stored: dict[Path, StoredLatents] = {}
        self.notes: list[str] = []
        self.encoded_s = 0.0
        """Seconds of audio that were encoded so far."""
        self._look_beside(corpora, codec)
        self._folder = Path(folder) / codec_digest(codec) if folder is not None else None

    def _look_beside(self, corpora: Corpora, codec: AudioVAE) -> None:
        """Find the latents that `voxmill encode` has stored."""
        homes = [part.path for part in corpora.parts]
        there = {home: found for home in homes if (found := stored_codecs(home))}
        if not there:
            return
        form = latent_form(codec, self._config.patch_size)
        for home, codecs in there.items():
            if form.codec in codecs:
                try:
                    self._stored[home] = StoredLatents(home, form)
                except ValueError as error:
                    raise TrainError(str(error)) from None
            else:
                self.notes.append(
                    f"{home} has latents of another codec ({', '.join(codecs)}), not of the model's ({form.codec}): clips are"
                    f" encoded as they come; to store them: voxmill encode {shlex.quote(str(home))} --codec MODEL"
                )

    def get(self, segment_id: str, patches: int) -> Tensor:
        """Return float32 [patches, P, D] of one segment. It may be called from several threads.

        Raises SegmentError if the audio or the stored latents are damaged, or do not have the length in the index.
        """
        with self._one_at_a_time:
            return self._get(segment_id, patches)

    def _get(self, segment_id: str, patches: int) -> Tensor:
        if self._stored:
            # Another corpus may have latents of other audio under this id.
            stored = self._stored.get(self._corpora.place(segment_id)[0].path)
            found = None if stored is None else _from_stored(stored, segment_id, patches)
            if found is not None:
                return found
        return self._memory.get(segment_id, lambda: self._made(segment_id, patches))

    def _made(self, segment_id: str, patches: int) -> Tensor:
        """Read latents from the run's folder, or encode them and write them there."""
        latents = self._read(segment_id, patches)
        if latents is None:
            samples = self._corpora.clip(segment_id, rate=self._encode.sample_rate)
            check_length(segment_id, len(samples), patches, self._encode, self._corpora.parts[0].path)
            latents = self._encode(samples, patches)
            self.encoded_s += len(samples) / self._encode.sample_rate
            self._write(segment_id, latents)
        return latents

    def _file(self, segment_id: str) -> Path | None:
        """Return the file of a clip's latents. Its name has the shard's hash, since a segment that is processed again may keep its
        id."""
        if self._folder is None:
            return None
        shard = Path(self._corpora.place(segment_id)[1])
        return self._folder / segment_id[:2] / f"{segment_id}.{shard.name.split('.')[-2]}.npy"

    def _read(self, segment_id: str, patches: int) -> Tensor | None:
        path = self._file(segment_id)
        if path is None or not path.is_file():
            return None
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError):
            return None
        wanted = (patches, self._config.patch_size, self._config.feat_dim)
        return torch.from_numpy(values) if values.shape == wanted and values.dtype == np.float32 else None

    def _write(self, segment_id: str, latents: Tensor) -> None:
        path = self._file(segment_id)
        if path is None:
            return
        with open_atomically(path) as file:
            np.save(file, latents.numpy(), allow_pickle=False)


def _from_stored(stored: StoredLatents, segment_id: str, patches: int) -> Tensor | None:
    """Read latents stored beside a corpus; None if there are none. Raises SegmentError if they are damaged or of another length."""
    try:
        bits = stored.get(segment_id)
    except (OSError, ValueError, IndexError) as error:
        raise SegmentError(
            segment_id,
            f"the stored latents of segment {segment_id} cannot be read ({finding(error)}); run:"
            f" {repair_command(stored.root)}",
        ) from None
    if bits is None:
        return None
    if len(bits) != patches:
        raise SegmentError(
            segment_id,
            f"segment {segment_id} has stored latents of {len(bits)} patches, its index row speaks of {patches}; run:"
            f" {repair_command(stored.root)}",
        )
    return from_bits(bits)


def check_length(segment_id: str, samples: int, patches: int, encoder: ClipEncoder, corpus: str | Path) -> None:
    """Raise SegmentError if a clip does not have the number of samples that its patches need. Otherwise it would be cut silently,
    or padded with seconds of silence."""
    rate, patch_samples = encoder.sample_rate, encoder.patch_samples
    slack = round(_SLACK_S * rate)
    if not (patches - 1) * patch_samples - slack <= samples <= patches * patch_samples + slack:
        raise SegmentError(
            segment_id,
            f"segment {segment_id} has {samples / rate:.2f} s of audio, its index row speaks of"
            f" {(patches - 1) * patch_samples / rate:.2f} to {patches * patch_samples / rate:.2f} s; run:"
            f" {repair_command(corpus)}",
        )
