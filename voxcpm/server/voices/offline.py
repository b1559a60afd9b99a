"""Make stored voices without a server, with the model in this process: the same voices as the server makes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxcpm.errors import AudioError, first_line
from voxcpm.provenance.source import checkpoint_digest
from voxcpm.server.presets import DESIGN_PATCHES, Design
from voxcpm.server.references.decode import decode_clip
from voxcpm.server.voices.checks import read_checked
from voxcpm.server.voices.store import Voice, VoiceFolder, clean_name

if TYPE_CHECKING:
    from voxcpm.inference.patch_codec import Side
    from voxcpm.inference.speaker import VoxCPM2Model


@dataclass(frozen=True)
class VoiceMaker:
    """Adds voices to a folder."""

    model: VoxCPM2Model
    folder: VoiceFolder

    def add(self, name: str, clip: Path, consent: str, ref_text: str = "", description: str = "") -> Voice:
        """Store a clip as a voice. Raises ValueError, FileExistsError, FileNotFoundError, and AudioError for the clip."""
        name = clean_name(name)
        if not consent.strip():
            raise ValueError("a voice needs consent: give the speaker's statement, or the id of a consent")
        if not clip.is_file():
            raise FileNotFoundError(f"no clip at {clip}")
        try:
            data = clip.read_bytes()
            samples = decode_clip(data, self.model.config.sample_rate, str(clip))
        except OSError as error:
            raise AudioError(f"{clip} cannot be read ({first_line(error)})") from None
        tensors = {"ref_audio_feat": self._encode(samples, "right")}
        if ref_text:
            tensors["audio_feat"] = self._encode(samples, "left")
        about: dict[str, Any] = {"consent": consent.strip(), "ref_text": ref_text, "speaker_description": description}
        about["clip_sha256"] = digest = hashlib.sha256(data).hexdigest()
        checked = read_checked(self.folder.root / "consents", consent.strip())
        if checked is not None:
            if not checked.covers(digest):
                raise ValueError(f"consent {checked.id} is not an accepted one for {clip}: see voxmill consent list")
            about["consent_record"] = checked.id
        voice = self._voice(name, "uploaded", tensors["ref_audio_feat"], file_size=clip.stat().st_size, **about)
        self.folder.add(voice, tensors)
        return voice

    def design(self, name: str, design: Design) -> Voice:
        """Store a voice that is made from a description and a seed. Raises ValueError and FileExistsError."""
        from voxcpm.inference.speak_options import SpeakOptions

        name = clean_name(name)
        options = SpeakOptions(max_len=DESIGN_PATCHES, seed=design.seed)
        parts = [audio[0].numpy() for audio, _ in self.model.speak_patches(self.model.layout(design.prompt), options)]
        import soxr

        samples = soxr.resample(np.concatenate(parts), self.model.sample_rate, self.model.config.sample_rate)
        latents = self._encode(samples, "right")
        voice = self._voice(name, "designed", latents, description=design.description, seed=design.seed)
        self.folder.add(voice, {"ref_audio_feat": latents})
        return voice

    def _encode(self, samples: NDArray[np.float32], side: Side) -> NDArray[np.float32]:
        import torch

        from voxcpm.inference.patch_codec import encode_clip

        latents: NDArray[np.float32] = encode_clip(
            self.model.audio_vae, self.model.config, torch.from_numpy(samples.copy()), side
        ).numpy()
        return latents

    def _voice(self, name: str, kind: Any, latents: NDArray[np.float32], **about: Any) -> Voice:
        config = self.model.config
        seconds = round(len(latents) * config.out_patch_samples / self.model.sample_rate, 3)
        digest = checkpoint_digest(self.model.folder) if self.model.folder is not None else None
        return Voice(name, kind, seconds=seconds, checkpoint=digest or "", **about)
