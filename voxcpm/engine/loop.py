"""The generation loop: rows join and leave between steps, and a step generates one patch of each chosen row.

The output of a row does not depend on the others. Its noise is keyed by (seed, patch index), guidance, lengths, solver and stop
decision are its own, and a row that is left out of a step continues later as if nothing had happened.

A step first takes the rows' last patches into the context, then draws the next ones. So a patch is out before its own step of the
language models is paid for, and a row that ends never pays for it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from voxcpm.engine.lanes import Lane
from voxcpm.engine.prefixes import PrefixCache
from voxcpm.engine.request import Ending, Patch, Row, patch_noise
from voxcpm.kernels.packed_linear import rounded_rows
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.flow import Solver

log = logging.getLogger(__name__)


_SHARED_ROWS = 8
"""Rows of LocDiT from which on two threads share them: fewer do not repay that each thread reads the weights."""


class GenerationLoop:
    """Rows in lanes. Not thread-safe."""

    def __init__(self, model: VoxCPM2, lanes: Sequence[Lane], prefixes: PrefixCache | None = None) -> None:
        self.model, self.lanes, self._prefixes = model, list(lanes), prefixes
        #: Of each lane in the present step: rows with a patch to hear, rows to run.
        self._counts: list[tuple[int, int]] = []

    @property
    def rows(self) -> list[Row]:
        """Rows that have joined and not left."""
        return [row for lane in self.lanes for row in lane.rows]

    def lane_for(self, row: Row) -> Lane | None:
        """Return the smallest lane with a free slot that holds a row, or the row's own lane; None if that has no slot."""
        return next(
            (
                lane
                for lane in self.lanes
                if lane.free and row.positions <= lane.capacity and row.lane in (None, lane.capacity)
            ),
            None,
        )

    def join(self, rows: Iterable[Row], most: int | None = None) -> list[Row]:
        """Process the layouts of rows into free slots, packed by lane; return those that found one, in order, at most `most`.

        A voice that is in the cache of prefixes is not processed again.
        """
        joined = self.reserve(rows, most)
        self.fill(joined)
        return joined

    def reserve(self, rows: Iterable[Row], most: int | None = None) -> list[Row]:
        """Give free slots to rows, at most `most`; return those that found one. `fill` must follow, before a step."""
        joined: list[Row] = []
        for row in rows:
            if most is not None and len(joined) >= most:
                break
            lane = self.lane_for(row)
            if lane is not None:
                lane.rows.append(row)
                joined.append(row)
        return joined

    def fill(self, joined: Sequence[Row]) -> None:
        """Process the layouts of rows that have just been given slots."""
        with torch.inference_mode(), rounded_rows():
            for lane in self.lanes:
                if new := [row for row in joined if row in lane.rows]:
                    try:
                        self._prefill(lane, new)
                    except BaseException:
                        # Rows and slots must agree whatever happens, e.g. if memory does not suffice: also in the lanes
                        # that were to follow.
                        for one in self.lanes:
                            del one.rows[one.state.active :]
                        raise

    def _prefill(self, lane: Lane, rows: Sequence[Row]) -> None:
        first = lane.state.active
        whole: list[Row] = []
        known: list[Row] = []
        for row in rows:
            (known if self._prefixes is not None and self._prefixes.knows(row.request.layout) else whole).append(row)
        # The slots are filled in the order of the rows of the lane. The known ones come first: a new voice may push theirs out.
        lane.rows[first:] = [*known, *whole]
        for row in known:
            assert self._prefixes is not None
            self.model.extend(row.request.layout, self._prefixes.restore(row.request.layout, lane.state), lane.state)
        if whole:
            self.model.prefill([row.request.layout for row in whole], lane.state)
            if self._prefixes is not None:
                for slot, row in enumerate(whole, first + len(known)):
                    self._prefixes.keep(row.request.layout, lane.state, slot)

    def leave(self, row: Row, clean: bool = False) -> None:
        """Free a row's slot. Raises ValueError if it has none. clean: see `Lane.release`."""
        for lane in self.lanes:
            if row in lane.rows:
                with torch.inference_mode():
                    lane.release(row, clean)
                return
        raise ValueError(f"request {row.number} has no slot")

    def step(self, chosen: Collection[int] | None = None, workers: ThreadPoolExecutor | None = None) -> list[Patch]:
        """Generate the next patch of the rows with the chosen numbers (None: all). Rows that end are released.

        workers: two threads that share the rows of LocDiT, see `row_workers`. Returns the patches by number.
        """
        with torch.inference_mode():
            running = self._arrange(chosen)
            if not running:
                return []
            self._hear()
            patches = self._draw(running, workers)
            for row, patch in zip(running, patches, strict=True):
                if patch.ending is not None:
                    self.leave(row, clean=patch.ending == "failed")
            return sorted(patches, key=lambda patch: patch.request)

    def _arrange(self, chosen: Collection[int] | None) -> list[Row]:
        """Order every lane: rows to run with a patch to hear, rows to run that have just joined, the others."""
        running: list[Row] = []
        self._counts = []
        for lane in self.lanes:
            groups = [
                2 if chosen is not None and row.number not in chosen else int(row.unheard is None) for row in lane.rows
            ]
            lane.bring_forward(groups)
            self._counts.append((groups.count(0), len(groups) - groups.count(2)))
            running += lane.rows[: self._counts[-1][1]]
        return running

    def _hear(self) -> None:
        """Take the last patches into the context. LocEnc processes those of all lanes together."""
        heard = [row for lane, (n, _) in zip(self.lanes, self._counts, strict=True) for row in lane.rows[:n]]
        if not heard:
            return
        patches = torch.stack([row.unheard for row in heard if row.unheard is not None]).to(self.model.device)
        embedded = self.model.embed_patches(patches)
        first = 0
        for lane, (n, _) in zip(self.lanes, self._counts, strict=True):
            if n:
                self.model.advance(lane.state, patches[first : first + n], embedded[first : first + n])
            first += n
        for row in heard:
            row.unheard = None

    def _draw(self, running: Sequence[Row], workers: ThreadPoolExecutor | None) -> list[Patch]:
        config = self.model.config
        states = [(lane.state, n) for lane, (_, n) in zip(self.lanes, self._counts, strict=True) if n]
        # Clones, because later steps overwrite the state.
        lm = torch.cat([state.lm_hidden[:n] for state, n in states])
        residual = torch.cat([state.residual_hidden[:n] for state, n in states])
        previous = torch.cat([state.previous[:n] for state, n in states])
        noise = torch.stack([_noise(row, config.patch_size, config.feat_dim) for row in running])
        cfg = torch.tensor([row.request.cfg for row in running], dtype=torch.float64)
        drawn = self._solve(running, (lm, residual, previous, noise, cfg), workers)
        logits = self.model.stop_logits(lm).float().cpu()
        stops = logits.argmax(dim=-1).tolist()
        latents = drawn.cpu()  # one copy to the host per step
        finite = latents.isfinite().flatten(1).all(dim=1).tolist()
        step = []
        for slot, row in enumerate(running):
            ending = self._ending(row, bool(stops[slot]), finite[slot])
            step.append(Patch(row.number, row.index, latents[slot], ending, logits[slot], lm[slot], residual[slot]))
            row.index += 1
            row.unheard = None if ending is not None else latents[slot]
        return step

    def _solve(self, running: Sequence[Row], inputs: tuple[Tensor, ...], workers: ThreadPoolExecutor | None) -> Tensor:
        """Draw patches [n, P, D] float32. Rows with the same solver are one batch of LocDiT.

        inputs: hidden states of TSLM and RALM, previous patches, noise and guidance weights of the rows.
        """
        groups: dict[Solver, list[int]] = {}
        for slot, row in enumerate(running):
            groups.setdefault(row.request.solver, []).append(slot)
        if len(groups) == 1:
            return self._drawn(inputs, running[0].request.solver, workers)
        drawn = torch.empty(inputs[3].shape, device=self.model.device)
        for solver, slots in groups.items():
            of = torch.tensor(slots)
            drawn[of.to(drawn.device)] = self._drawn(tuple(x[of.to(x.device)] for x in inputs), solver, workers)
        return drawn

    def _drawn(self, inputs: tuple[Tensor, ...], solver: Solver, workers: ThreadPoolExecutor | None) -> Tensor:
        def draw(share: slice) -> Tensor:
            with torch.inference_mode():
                lm, residual, previous, noise, cfg = (tensor[share] for tensor in inputs)
                return self.model.draw_patches(lm, residual, previous, noise, cfg, solver)

        rows = len(inputs[0])
        if workers is None or rows < _SHARED_ROWS:
            return draw(slice(rows))
        half = (rows + 1) // 2
        return torch.cat(list(workers.map(draw, (slice(half), slice(half, rows)))))

    def _ending(self, row: Row, stop: bool, finite: bool) -> Ending | None:
        if not finite:
            log.warning("request %d failed: its patch %d is not finite", row.number, row.index)
            return "failed"
        if row.index > row.request.min_len and stop:
            return "stop"
        if row.index + 1 < row.limit:
            return None
        if row.context_limited:
            most = self.model.config.max_length
            log.warning("request %d was cut: the context of %d positions is full", row.number, most)
            return "context"
        return "max_len"


def _noise(row: Row, patch_size: int, feat_dim: int) -> Tensor:
    if row.request.noise is not None:
        return row.request.noise(row.index)
    return patch_noise(row.request.seed, row.index, patch_size, feat_dim)
