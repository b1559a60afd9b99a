"""The backbone of VoxCPM2, VoxCPM1.5 and VoxCPM 0.5B: TSLM, FSQ, RALM, LocEnc and LocDiT. The codec is in voxcpm.audiovae.

Attributes have the names of the official checkpoint's keys: base_lm is the TSLM, residual_lm the RALM, feat_encoder LocEnc,
feat_decoder the flow with LocDiT. Where the models differ, the config decides (`adds_states`): `fuse` and `condition`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxcpm.config import VoxCPM2Config
from voxcpm.model.attention import CAUSAL, Reach
from voxcpm.model.decode_state import DecodeState
from voxcpm.model.flow import FlowMatching, Solver
from voxcpm.model.fsq import FSQ
from voxcpm.model.locenc import LocEnc
from voxcpm.model.tower import Tower
from voxcpm.sequence.prompt_layout import Layout
from voxcpm.sequence.training_batch import BatchIndex, Losses, TrainingBatch, TrainingNoise


class VoxCPM2(nn.Module):
    """The model without codec and tokenizer.

    `training_losses` is for training; `prefill`, `draw_patches` and `advance` are for generation.
    """

    def __init__(self, config: VoxCPM2Config) -> None:
        super().__init__()
        self.config = config
        self._adds_states = config.adds_states
        hidden, local, dit = config.lm_config.hidden_size, config.encoder_config, config.dit_config
        self.base_lm = Tower(config.tslm)
        self.residual_lm = Tower(config.ralm)
        self.feat_encoder = LocEnc(config.locenc, config.feat_dim)
        self.feat_decoder = FlowMatching(config.locdit, dit, config.feat_dim, one_prefix=config.adds_states)
        self.fsq_layer = FSQ(hidden, hidden, config.scalar_quantization_latent_dim, config.scalar_quantization_scale)
        self.enc_to_lm_proj = nn.Linear(local.hidden_dim, hidden)
        self.lm_to_dit_proj = nn.Linear(hidden, dit.hidden_dim)
        self.res_to_dit_proj = nn.Linear(hidden, dit.hidden_dim)
        if not config.adds_states:
            self.fusion_concat_proj = nn.Linear(2 * hidden, hidden)
        self.stop_proj = nn.Linear(hidden, hidden)
        self.stop_head = nn.Linear(hidden, 2, bias=False)
        #: LocEnc and LocDiT get batches of patches that are padded to a multiple of this, so that few shapes are compiled.
        self.row_multiple = 1
        self.lora_config: object | None = None  #: of the adapters, set by voxcpm.weights.lora

    @classmethod
    def from_config(
        cls, config: VoxCPM2Config, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> VoxCPM2:
        """Build a model with new weights, to train from scratch; on the meta device it has shapes only."""
        from voxcpm.model.initialize import initialise

        with torch.device(device):
            model = cls(config)
        if torch.device(device).type != "meta":
            initialise(model, generator)
        return model

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return self.base_lm.norm.weight.dtype  # the norms' weights are the same in every form of the linears

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.base_lm.norm.weight.device

    def set_exact(self, exact: bool = True) -> None:
        """Use the official code's low-precision arithmetic.

        It rounds times, sinusoid, solver updates and rotary tables to the weights' dtype. Off by default, because float32 is
        more accurate for these and costs nothing. Without effect on float32 weights.
        """
        for module in self.modules():
            if isinstance(module, (Tower, FlowMatching)):
                module.exact = exact

    # -- the parts -----------------------------------------------------------------------------------------------------

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Embed tokens [...] int64 -> [..., H]."""
        lm = self.config.lm_config
        embedded = self.base_lm.embed_tokens(tokens)
        return embedded * lm.scale_emb if lm.use_mup else embedded

    def embed_patches(self, patches: Tensor) -> Tensor:
        """Embed patches [N, P, D] -> [N, H]."""
        return self.enc_to_lm_proj(self.feat_encoder(patches.to(self.dtype)))

    def condition(self, lm_hidden: Tensor, residual_hidden: Tensor) -> Tensor:
        """Project both hidden states, [N, H] each, to the condition mu [N, 2*Hd], semantic first, or [N, Hd], their sum."""
        semantic, residual = self.lm_to_dit_proj(lm_hidden), self.res_to_dit_proj(residual_hidden)
        return semantic + residual if self._adds_states else torch.cat((semantic, residual), dim=-1)

    def fuse(self, lm_hidden: Tensor, heard: Tensor) -> Tensor:
        """Return RALM's input [..., H] from h' and the embedded patches (zeros at text), [..., H] each."""
        if self._adds_states:
            return lm_hidden + heard
        return self.fusion_concat_proj(torch.cat((lm_hidden, heard), dim=-1))

    def stop_logits(self, lm_hidden: Tensor) -> Tensor:
        """Return stop logits [N, 2] for the states [N, H] that condition a patch; class 1: that patch is the last one."""
        return self.stop_head(F.silu(self.stop_proj(lm_hidden)))

    def hidden_states(
        self,
        text_tokens: Tensor,
        text_mask: Tensor,
        audio_mask: Tensor,
        patches: Tensor,
        reach: Reach,
        positions: Tensor | None = None,
        state: DecodeState | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run TSLM and RALM over whole rows.

        tokens, masks: [B, T] (masks bool); patches: [N, P, D], those of audio_mask in row-major order. Returns h' (quantized
        at audio positions) and r, both [B, T, H]. LocEnc processes audio positions only.
        """
        embedded = self._in_rows(patches, self.embed_patches)
        audio = audio_mask.unsqueeze(-1)
        # masked_scatter takes the values in row-major order, which is the order of the patches.
        blank = torch.zeros((*audio_mask.shape, embedded.shape[-1]), dtype=embedded.dtype, device=embedded.device)
        heard = blank.masked_scatter(audio, embedded)
        x = self.embed_text(text_tokens) * text_mask.unsqueeze(-1).to(self.dtype) + heard
        h = self.base_lm(x, reach, positions, cache=state.tslm if state else None)
        h = torch.where(audio, self.fsq_layer(h).to(h.dtype), h)
        fused = self.fuse(h, heard.to(h.dtype))
        return h, self.residual_lm(fused, reach, positions, cache=state.ralm if state else None)

    def _in_rows(self, rows: Tensor, function) -> Tensor:  # type: ignore[no-untyped-def]
        """Return function(rows), with the number of rows padded to a multiple of `row_multiple`.

        At least one row is computed, so that every parameter takes part in every step on every rank.
        """
        n = rows.shape[0]
        missing = max(-n % self.row_multiple, 0 if n else 1)
        if not missing:
            return function(rows)
        return function(torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:]))))[:n]

    # -- training ------------------------------------------------------------------------------------------------------

    def training_losses(
        self, batch: TrainingBatch, rng: TrainingNoise | torch.Generator | None = None, progress: float = 0.0
    ) -> Losses:
        """Return both losses of a batch (see `Losses` for the reductions). progress: fraction of training done, 0..1.

        rng: the random numbers, or a generator to draw them (None: the CPU's global one). The hidden state and the patch
        that condition a position are those of the previous position, zeros at the start of a row or a document.
        """
        return self(batch, rng, progress)

    def forward(
        self, batch: TrainingBatch, rng: TrainingNoise | torch.Generator | None = None, progress: float = 0.0
    ) -> Losses:
        """Compute `training_losses`, as the module's forward pass, so that hooks (FSDP, compile) run."""
        text, audio = batch.text_mask.bool(), batch.audio_mask.bool()
        patch_shape = (self.config.patch_size, self.config.feat_dim)
        if not isinstance(rng, TrainingNoise):
            log_norm = self.config.dit_config.cfm_config.t_scheduler == "log-norm"
            rng = TrainingNoise.draw(tuple(audio.shape), patch_shape, rng, log_norm)
        index = batch.index or BatchIndex.of(batch)
        reach = CAUSAL if index.offsets is None else Reach.packed(index.lengths or (), index.offsets)
        positions = batch.position_ids
        heard = batch.features if batch.heard is None else batch.heard
        h, r = self.hidden_states(batch.text_tokens, text, audio, heard[index.audio], reach, positions)
        rows, columns = index.loss
        before = (columns - 1).clamp(min=0)
        starts = columns == 0
        if batch.document_ids is not None:
            starts = starts | (batch.document_ids[rows, before] != batch.document_ids[rows, columns])
        inside = ~starts
        h, r = (x[rows, before] * inside.unsqueeze(-1).to(x.dtype) for x in (h, r))
        heard_before = inside & audio[rows, before]
        # `where`, not a product: features of positions that are not audio may have any value, NaN included.
        previous = torch.where(heard_before.view(-1, 1, 1), heard[rows, before], 0.0)
        return self._losses(h, r, previous, batch.features[rows, columns], batch.stop_labels[rows, columns],
                            rng.at(rows, columns, h.device), progress)  # fmt: skip

    def _losses(
        self,
        h: Tensor,
        r: Tensor,
        previous: Tensor,
        data: Tensor,
        labels: Tensor,
        noise: TrainingNoise,
        progress: float,
    ) -> Losses:
        """Return the losses of N positions. h, r: [N, H], previous, data: [N, P, D], labels: [N]."""
        n = h.shape[0]
        missing = max(-n % self.row_multiple, 0 if n else 1)
        if missing:
            h, r, previous, data, labels = (_pad_rows(x, missing) for x in (h, r, previous, data, labels))
            noise = noise.padded(missing)
        error, t = self.feat_decoder.training_error(data, self.condition(h, r), previous, noise, progress)
        logits = self.stop_logits(h).float()
        crossed = F.cross_entropy(logits, labels.long(), reduction="none")
        valid = torch.arange(n + missing, device=h.device) < n
        diffusion_sum = torch.where(valid.unsqueeze(1), error, 0.0).sum()
        stop_sum = torch.where(valid, crossed, 0.0).sum()
        frames = n * self.config.patch_size
        return Losses(
            diffusion=diffusion_sum / max(frames, 1),
            stop=stop_sum / max(n, 1),
            diffusion_sum=diffusion_sum,
            stop_sum=stop_sum,
            diffusion_count=frames,
            stop_count=n,
            diffusion_per_position=error.detach().mean(dim=1)[:n],
            t_per_position=t.detach()[:n],
            stop_logits=logits.detach()[:n],
        )

    # -- generation ----------------------------------------------------------------------------------------------------

    def prefill(self, layouts: Sequence[Layout], state: DecodeState) -> None:
        """Process whole layouts into the next free slots of `state`, packed without padding.

        Raises ValueError if they do not fit the state.
        """
        first = state.active
        lengths = [layout.length for layout in layouts]
        if max(lengths) > state.capacity or first + len(layouts) > state.slots:
            raise ValueError(f"{max(lengths)} positions in {len(layouts)} requests do not fit the decode state")
        device = self.device
        slots = range(first, first + len(layouts))
        state.tslm.prepare_fill(slots, lengths)
        state.ralm.prepare_fill(slots, lengths)
        tokens, audio = (
            torch.cat([getattr(x, name) for x in layouts])[None].to(device) for name in ("text_tokens", "audio_mask")
        )
        patches = torch.cat([x.patches for x in layouts]).to(device)
        positions = torch.cat([torch.arange(n) for n in lengths])[None].to(device)
        ends = torch.tensor(lengths).cumsum(0)
        reach = Reach.packed(lengths, F.pad(ends, (1, 0)).to(device))
        h, r = self.hidden_states(
            tokens, ~audio, audio, patches, reach if len(layouts) > 1 else CAUSAL, positions, state
        )
        last = (ends - 1).to(device)
        chosen = slice(first, first + len(layouts))
        state.lm_hidden[chosen] = h[0, last]
        state.residual_hidden[chosen] = r[0, last]
        for slot, layout in zip(slots, layouts, strict=True):
            state.previous[slot] = layout.last_patch(self.config).to(device)
        state.lengths.extend(lengths)

    def extend(self, layout: Layout, start: int, state: DecodeState) -> None:
        """Process a layout from position `start` into the next free slot, whose earlier positions are filled already.

        Raises ValueError if it does not fit the state, or if nothing is left to process.
        """
        slot, length = state.active, layout.length
        if not 0 < start < length or length > state.capacity or slot >= state.slots:
            raise ValueError(f"{length} positions from {start} on do not fit the decode state")
        device = self.device
        state.tslm.prepare_extend(slot, start, length - start)
        state.ralm.prepare_extend(slot, start, length - start)
        tokens, audio = (x[None, start:].to(device) for x in (layout.text_tokens, layout.audio_mask))
        patches = layout.patches[int(layout.audio_mask[:start].sum()) :].to(device)
        positions = torch.arange(start, length, device=device)[None]
        h, r = self.hidden_states(tokens, ~audio, audio, patches, CAUSAL, positions, state)
        state.lm_hidden[slot], state.residual_hidden[slot] = h[0, -1], r[0, -1]
        state.previous[slot] = layout.last_patch(self.config).to(device)
        state.lengths.append(length)

    def draw_patches(
        self,
        lm_hidden: Tensor,
        residual_hidden: Tensor,
        previous: Tensor,
        noise: Tensor,
        cfg: Tensor | float,
        solver: Solver,
    ) -> Tensor:
        """Generate the next patches [n, P, D] float32.

        lm_hidden, residual_hidden: [n, H] of a `DecodeState`; previous, noise: [n, P, D]; cfg: one or [n].
        """
        return self.feat_decoder.solve(self.condition(lm_hidden, residual_hidden), previous, noise, cfg, solver).float()

    def advance(self, state: DecodeState, patches: Tensor, embedded: Tensor | None = None) -> None:
        """Append patches [n, P, D] to the contexts of the first n slots: one TSLM and one RALM step.

        embedded: [n, H], `embed_patches` of them, if the caller has it. Raises ValueError if a slot's context is full.
        """
        n = patches.shape[0]
        lengths = state.lengths[:n]
        if max(lengths) >= state.capacity:
            raise ValueError(f"the context of {state.capacity} positions is full")
        positions = torch.tensor(lengths, device=patches.device)
        state.tslm.prepare_step(lengths, positions)
        state.ralm.prepare_step(lengths, positions)
        heard = self.embed_patches(patches) if embedded is None else embedded
        h = self.base_lm(heard.unsqueeze(1), CAUSAL, positions.unsqueeze(1), cache=state.tslm)
        h = self.fsq_layer(h)
        fused = self.fuse(h, heard.unsqueeze(1))
        r = self.residual_lm(fused, CAUSAL, positions.unsqueeze(1), cache=state.ralm)
        state.lm_hidden[:n], state.residual_hidden[:n] = h[:, 0], r[:, 0]
        state.previous[:n] = patches
        state.lengths[:n] = [length + 1 for length in lengths]


def _pad_rows(x: Tensor, missing: int) -> Tensor:
    return torch.cat((x, x.new_zeros(missing, *x.shape[1:])))
