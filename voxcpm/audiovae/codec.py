"""AudioVAE: the public class of the codec."""

from __future__ import annotations

from bisect import bisect_left
from itertools import chain
from math import ceil
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxcpm.audiovae.config import AudioVAEConfig
from voxcpm.audiovae.decoder import Decoder
from voxcpm.audiovae.encoder import Encoder
from voxcpm.audiovae.folded import FoldedDecoder, FoldedEncoder
from voxcpm.audiovae.state import (
    DecoderState,
    EncoderState,
    Histories,
    decoder_history_shapes,
    encoder_history_shapes,
    zero_histories,
)

PASS_FRAMES = 1500
"""Latent frames per pass over a long stream, so that memory does not grow with the length of the audio."""
PASS_FRAMES_CPU = 8
"""The same on a CPU, for all rows together: few enough to stay in the cache, enough to amortize reading the weights (decode RTF
0.24, 0.19, 0.19 for 4, 8, 48 frames of one row; 0.19, 0.21, 0.45 for 2, 8, 48 frames of four rows)."""


class AudioVAE(nn.Module):
    """AudioVAE V2. Trainable, with the published state-dict keys, until `fold_weight_norm` makes it inference-only.

    Everything is causal: encoding maps `hop_length` samples at `sample_rate` to a latent frame, decoding maps a frame
    to `decode_hop` samples at `out_sample_rate`, and both can run as streams.
    """

    encoder: Encoder | FoldedEncoder
    decoder: Decoder | FoldedDecoder

    def __init__(self, config: AudioVAEConfig | None = None) -> None:
        super().__init__()
        self.config = config or AudioVAEConfig()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    @property
    def sample_rate(self) -> int:
        """Input sample rate, Hz."""
        return self.config.sample_rate

    @property
    def out_sample_rate(self) -> int:
        """Output sample rate, Hz."""
        return self.config.out_sample_rate

    @property
    def latent_dim(self) -> int:
        """Width of a latent frame, D."""
        return self.config.latent_dim

    @property
    def chunk_size(self) -> int:
        """Input samples per latent frame."""
        return self.config.hop_length

    @property
    def decode_chunk_size(self) -> int:
        """Output samples per latent frame."""
        return self.config.decode_hop

    @property
    def device(self) -> torch.device:
        """Device of the weights. A folded codec has only buffers."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def folded(self) -> bool:
        """Return True if the codec is in its inference form."""
        return isinstance(self.decoder, FoldedDecoder)

    @property
    def decoder_context_frames(self) -> int:
        """Number of earlier latent frames that affect the current output (20 at the published sizes)."""
        samples = sum(shape.frames * shape.samples for shape in decoder_history_shapes(self.config))
        return ceil(samples / self.config.decode_hop)

    # Encoding

    def encode(self, wav: Tensor, sample_rate: int | None = None) -> Tensor:
        """Encode a waveform [B, 1, S] or [B, S] to latent means [B, D, ceil(S / hop_length)], zero-padded on the right.

        Raises ValueError if `sample_rate` (Hz; default: the codec's) is not the codec's input rate or the shape is wrong.
        """
        padded = self._padded(wav, sample_rate)
        self._fold_encoder()
        if isinstance(self.encoder, Encoder):
            mu: Tensor = self.encoder(padded, Histories())
            return mu
        return self.encode_stream(padded, self.init_encoder_state(padded.shape[0], padded.dtype, padded.device))[0]

    def encode_heads(self, wav: Tensor, sample_rate: int | None = None) -> tuple[Tensor, Tensor]:
        """Encode a waveform (as in `encode`) to (mean, log variance) of the posterior, both [B, D, F], unbounded."""
        self._fold_encoder()
        return self.encoder.heads(self._padded(wav, sample_rate))

    def init_encoder_state(
        self, batch: int = 1, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> EncoderState:
        """State of `batch` encoding streams before their first sample; dtype and device default to the weights'."""
        return EncoderState(self._zeros(encoder_history_shapes(self.config), batch, dtype, device), self.folded)

    def encode_stream(self, wav: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Encode the next [B, 1, n * hop_length] samples -> (means [B, D, n], new state); `state` is not changed."""
        if wav.dim() != 3 or wav.shape[1] != 1 or wav.shape[2] % self.config.hop_length:
            raise ValueError(
                f"encode_stream takes [batch, 1, n * {self.config.hop_length}] samples, got {list(wav.shape)}"
            )
        if wav.shape[2] == 0:
            return wav.new_zeros(wav.shape[0], self.config.latent_dim, 0), state
        self._check_state(state, wav.shape[0])
        self._fold_encoder()
        parts, past = [], state.histories
        for part in wav.split(self._pass_frames(wav) * self.config.hop_length, dim=2):
            histories = Histories(past)
            parts.append(self.encoder(part, histories))
            past = histories.state()
        return torch.cat(parts, dim=2), EncoderState(past, self.folded)

    # Decoding

    def decode(self, z: Tensor, sr_cond: int | Tensor | None = None) -> Tensor:
        """Decode latents [B, D, F] to a waveform [B, 1, F * decode_hop] in (-1, 1).

        `sr_cond` (Hz, one or [B]) sets the bandwidth of the output, `out_sample_rate` by default. It does not change
        the number of samples. A codec without rate buckets ignores it.
        """
        self._check_latents(z)
        if z.shape[2] == 0:
            return z.new_zeros(z.shape[0], 1, 0)
        if isinstance(self.decoder, Decoder):
            wav: Tensor = self.decoder(z, self._bucket(sr_cond, z), Histories())
            return wav
        return self.decode_stream(z, self.init_decoder_state(z.shape[0], z.dtype, z.device), sr_cond)[0]

    def init_decoder_state(
        self, batch: int = 1, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> DecoderState:
        """State of `batch` decoding streams before their first frame; dtype and device default to the weights'."""
        return DecoderState(self._zeros(decoder_history_shapes(self.config), batch, dtype, device), self.folded)

    def decode_stream(
        self, z: Tensor, state: DecoderState, sample_rate: int | Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        """Decode the next latents [B, D, n], any n -> (waveform [B, 1, n * decode_hop], new state).

        Concatenated, the pieces equal `decode` of all latents, unless there is a noise block, which draws new noise.
        `state` is not changed, so a stream can be forked or replayed. Raises ValueError if the state has another batch
        size or codec form.
        """
        self._check_latents(z)
        if z.shape[2] == 0:
            return z.new_zeros(z.shape[0], 1, 0), state
        self._check_state(state, z.shape[0])
        bucket, parts, past = self._bucket(sample_rate, z), [], state.histories
        for part in z.split(self._pass_frames(z), dim=2):
            histories = Histories(past)
            parts.append(self.decoder(part, bucket, histories))
            past = histories.state()
        return torch.cat(parts, dim=2), DecoderState(past, self.folded)

    def streaming_decode(self) -> StreamingVAEDecoder:
        """Return a decoder of one stream that holds its state, as in the official package."""
        return StreamingVAEDecoder(self)

    @torch.no_grad()
    def warm_state(self, z_context: Tensor, sample_rate: int | Tensor | None = None) -> DecoderState:
        """Return the state after decoding `z_context` [B, D, F] from silence, F >= 0: the start of a continuation.

        Frames older than `decoder_context_frames` have no effect on the state and are not decoded.
        """
        self._check_latents(z_context)
        state = self.init_decoder_state(z_context.shape[0], z_context.dtype, z_context.device)
        recent = z_context[:, :, -self.decoder_context_frames :]
        return self.decode_stream(recent, state, sample_rate)[1]

    def rate_bucket(self, sample_rate: int | Tensor) -> int | Tensor:
        """Index of the condition for an output rate in Hz: the number of boundaries strictly below it."""
        if self.config.sr_bin_boundaries is None:
            return 0
        boundaries = self.decoder.sr_bin_boundaries
        assert boundaries is not None
        if isinstance(sample_rate, Tensor):
            return torch.bucketize(sample_rate.to(boundaries.device), boundaries)
        host = self.decoder.boundaries if isinstance(self.decoder, FoldedDecoder) else boundaries.tolist()
        assert host is not None
        return bisect_left(host, sample_rate)

    # Forms

    @torch.no_grad()
    def fold_weight_norm(self) -> Self:
        """Convert to the inference form, in place: weights normalized once and laid out for speed. Outputs agree to 1e-5.

        This cannot be undone. It gives no gradients, and `state_dict` and `load_state_dict` raise RuntimeError. Stream
        states of the two forms cannot be mixed. A second call does nothing. Fold after loading the weights and moving to
        the device. The encoder is folded at its first use: plain speech does not need it, and it is half of the work.
        """
        if isinstance(self.decoder, Decoder):
            self.decoder = FoldedDecoder(self.decoder)
            self.register_state_dict_pre_hook(_refuse_to_save)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_pre_hook(_refuse_to_load)  # type: ignore[no-untyped-call]
        return self

    def _fold_encoder(self) -> None:
        if self.folded and isinstance(self.encoder, Encoder):
            with torch.inference_mode(False), torch.no_grad():
                self.encoder = FoldedEncoder(self.encoder)

    # Checks and shapes

    def _padded(self, wav: Tensor, sample_rate: int | None) -> Tensor:
        if sample_rate is not None and sample_rate != self.config.sample_rate:
            raise ValueError(
                f"AudioVAE encodes {self.config.sample_rate} Hz audio, got {sample_rate} Hz: resample it first"
            )
        wav = wav[:, None] if wav.dim() == 2 else wav
        if wav.dim() != 3 or wav.shape[1] != 1 or wav.shape[2] == 0:
            raise ValueError(
                f"AudioVAE encodes mono audio [batch, 1, samples] or [batch, samples], got {list(wav.shape)}"
            )
        return F.pad(wav, (0, -wav.shape[2] % self.config.hop_length))

    def _check_latents(self, z: Tensor) -> None:
        if z.dim() != 3 or z.shape[1] != self.config.latent_dim:
            raise ValueError(f"AudioVAE decodes latents [batch, {self.config.latent_dim}, frames], got {list(z.shape)}")

    def _pass_frames(self, x: Tensor) -> int:
        if self.folded and x.device.type == "cpu":
            return max(2, PASS_FRAMES_CPU // x.shape[0])
        return PASS_FRAMES

    def _check_state(self, state: EncoderState | DecoderState, batch: int) -> None:
        if state.folded != self.folded:
            raise ValueError(
                "this stream state was made before fold_weight_norm() changed the codec's form: make a new one"
            )
        if state.batch != batch:
            raise ValueError(f"a stream state of {state.batch} rows cannot take a batch of {batch}")

    def _bucket(self, sample_rate: int | Tensor | None, z: Tensor) -> int | Tensor:
        bucket = self.rate_bucket(self.config.out_sample_rate if sample_rate is None else sample_rate)
        if isinstance(bucket, Tensor):
            bucket = bucket.to(z.device).reshape(-1)
            if bucket.shape[0] not in (1, z.shape[0]):
                raise ValueError(f"sample_rate must be one value or one per row ({z.shape[0]}), got {bucket.shape[0]}")
        elif not self.folded:
            bucket = torch.tensor([bucket], device=z.device)
        return bucket

    def _zeros(
        self, shapes: list[Any], batch: int, dtype: torch.dtype | None, device: torch.device | str | None
    ) -> tuple[Tensor, ...]:
        like = next(tensor for tensor in chain(self.parameters(), self.buffers()) if tensor.is_floating_point())
        return zero_histories(shapes, batch, self.folded, dtype or like.dtype, torch.device(device or like.device))


class StreamingVAEDecoder:
    """`decode_stream` with the state inside. `with codec.streaming_decode() as decoder` starts a stream."""

    def __init__(self, vae: AudioVAE) -> None:
        self._vae = vae
        self._state: DecoderState | None = None

    def __enter__(self) -> Self:
        self._state = None
        return self

    def __exit__(self, *error: object) -> None:
        self._state = None

    def decode_chunk(self, z_chunk: Tensor) -> Tensor:
        """Decode the next latents [B, D, n] to a waveform [B, 1, n * decode_hop]."""
        if self._state is None:
            self._state = self._vae.init_decoder_state(z_chunk.shape[0], z_chunk.dtype, z_chunk.device)
        wav, self._state = self._vae.decode_stream(z_chunk, self._state)
        return wav


def _refuse_to_save(*_: Any) -> None:
    raise RuntimeError("a folded AudioVAE has no published weights left: take state_dict() before fold_weight_norm()")


def _refuse_to_load(*_: Any) -> None:
    raise RuntimeError("a folded AudioVAE cannot load weights: build AudioVAE(config), load, then fold")
