"""Options for generating an utterance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from voxcpm.engine.request import GenerationRequest
from voxcpm.inference.options import check_lengths, check_solver
from voxcpm.model.flow import Solver
from voxcpm.model.utils import materialize_generation_seed
from voxcpm.sequence.prompt_layout import Layout


@dataclass(frozen=True)
class SpeakOptions:
    """Options for generating an utterance: those of the official model-level API with its defaults, then ours.

    Raises ValueError if a value is out of range.
    """

    min_len: int = 2
    max_len: int = 2000
    inference_timesteps: int = 10
    cfg_value: float = 2.0
    retry_badcase: bool = False
    retry_badcase_max_times: int = 3
    retry_badcase_ratio_threshold: float = 6.0
    streaming_prefix_len: int = (
        4  #: the codec decodes this number minus one of the prompt's patches before the new ones
    )
    seed: int | None = None  #: None: a new one is drawn
    sway_sampling_coef: float = 1.0
    use_cfg_zero_star: bool = True
    temperature: float = 1.0
    retry_at_limit: bool = False  #: `retry_badcase` also retries an utterance that max_len or the context cut
    cold_start: bool = False  #: stream without the context, as the official code does (see PatchStream)

    def __post_init__(self) -> None:
        check_solver(self.cfg_value, self.inference_timesteps)
        check_lengths(self.min_len, self.max_len)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SpeakOptions:
        """Make options by name. Raises TypeError for an unknown name and ValueError for a value out of range."""
        if unknown := sorted(options.keys() - {f.name for f in fields(cls)}):
            raise TypeError(f"unknown option {unknown[0]!r}")
        return cls(**options)

    @property
    def solver(self) -> Solver:
        """Settings of the flow's solver."""
        return Solver(self.inference_timesteps, self.sway_sampling_coef, self.use_cfg_zero_star, self.temperature)

    def seeded(self) -> SpeakOptions:
        """Return the same options with a seed. If there is none, `torch.manual_seed` decides which is drawn."""
        return self if self.seed is not None else replace(self, seed=materialize_generation_seed(None))

    def request(self, layout: Layout, seed: int) -> GenerationRequest:
        """Return the request of a layout with these options."""
        ratio = self.retry_badcase_ratio_threshold
        return GenerationRequest(layout, seed, self.cfg_value, self.min_len, self.max_len, ratio, solver=self.solver)

    def context(self, layout: Layout) -> Tensor:
        """The end of the layout's prompt that the codec decodes before the new patches: [n, P, D]."""
        return layout.context(max(self.streaming_prefix_len - 1, 0))
