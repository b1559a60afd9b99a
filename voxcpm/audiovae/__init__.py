"""AudioVAE V2: 16 kHz speech to 25 latent frames per second, and back to 48 kHz audio, causally."""

from __future__ import annotations

from voxcpm.audiovae.codec import AudioVAE
from voxcpm.audiovae.config import AudioVAEConfig
from voxcpm.audiovae.state import DecoderState, EncoderState

__all__ = ["AudioVAE", "AudioVAEConfig", "DecoderState", "EncoderState"]
