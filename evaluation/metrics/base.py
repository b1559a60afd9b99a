"""What a metric is. One file per metric, in one table (`evaluation.metrics.METRICS`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pyarrow as pa

from evaluation.items import Item

if TYPE_CHECKING:
    import numpy as np

Better = Literal["higher", "lower", "none"]
Need = Literal["audio", "reference", "human", "instruction"]


@dataclass(frozen=True)
class Value:
    """A figure of a metric that tables show.

    `column`: where the figure of a take is stored. `unit`: as in a table's cell, such as `%` or `cosine`. `better`: the direction.
    `failed`: the figure that a failed take counts as; None: failed takes are not part of the mean, but their number is shown.
    `ratio`: columns of a numerator and a denominator, for the corpus estimate beside the mean. `scale`: factor for tables.
    `relative`: the figure depends on the other items of the run, so that runs of other items are not compared by it.
    `smallest`: the largest difference, in the unit of the table, that does not matter; for gates.
    """

    column: str
    title: str
    unit: str
    better: Better
    failed: float | None = None
    ratio: tuple[str, str] | None = None
    scale: float = 1.0
    digits: int = 2
    smallest: float | None = None
    relative: bool = False


@dataclass
class Take:
    """One utterance to be scored. `status` is `ok` or a reason of failure (`evaluation.runs.rows.STATUSES`).

    `path` is None for a failed take. `given` holds this take's rows of the metrics named in `uses`, by metric name.
    """

    item: Item
    seed: int
    status: str
    path: Path | None
    seconds: float = 0.0
    row: Mapping[str, Any] = field(default_factory=dict)
    """The row of `rows/generate`: wall_s, first_audio_s, attempts and so on."""
    items: Sequence[Item] = ()
    """All items of the run, also those whose takes failed."""
    given: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def _read(self) -> tuple[np.ndarray, int]:
        import soundfile

        from evaluation.errors import EvaluationError

        assert self.path is not None
        try:
            samples, rate = soundfile.read(self.path, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError):
            raise EvaluationError(
                f"{self.path} is missing or damaged; delete it and run the command again that made it"
            ) from None
        return samples.mean(axis=1), int(rate)

    @property
    def rate(self) -> int:
        """Samples per second of `audio()`."""
        return self._read[1]

    def audio(self, rate: int | None = None) -> np.ndarray:
        """Return float32 [S], mono, at a sample rate (default: its own)."""
        samples, own = self._read
        return resampled(samples, own, rate or own)


def resampled(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """Return float32 [S] at another sample rate."""
    import soxr

    return samples if rate == to else soxr.resample(samples, rate, to).astype("float32")


def read_clip(path: Path, rate: int) -> np.ndarray:
    """Return a clip as float32 [S], mono, at a sample rate. Raises EvaluationError if it cannot be decoded."""
    import soundfile

    from catalogs.files import one_line
    from evaluation.errors import EvaluationError

    try:
        samples, own = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise EvaluationError(f"{path}: the audio cannot be read ({one_line(error)})") from None
    return resampled(samples.mean(axis=1), int(own), rate)


class Metric(Protocol):
    """Scores takes. A metric that needs weights says so in `weights` and loads them in `load`, never before."""

    @property
    def name(self) -> str:
        """Name in tables and of the folder of rows."""

    @property
    def version(self) -> int:
        """Raised when the figures change."""

    @property
    def values(self) -> tuple[Value, ...]:
        """The figures that tables show."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of a row besides item_id and seed: the figures, and what they were made of (hypothesis, counts, model)."""

    @property
    def needs(self) -> frozenset[Need]:
        """A take that lacks one of these (or whose item does) gets no row. `audio`: the take did not fail."""

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of models.toml."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Import names of packages that the metric needs besides those of voxmill itself."""

    @property
    def uses(self) -> tuple[str, ...]:
        """Metrics that are scored before, whose rows this one reads (`Take.given`) and whose fingerprints are part of this one."""

    def settings(self) -> dict[str, Any]:
        """Return what decides the figures besides the version: dialect, decode settings, thresholds. JSON values."""

    def load(self) -> None:
        """Load models. Raises WeightsMissing or ModuleNotFoundError: the metric is then `not measured` and the run continues."""

    def group(self, take: Take) -> str | None:
        """Return a key: takes with the same key are scored in one call. None: takes are independent."""

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """Return one row per take, in order; None: not measurable (the take is counted as not measured)."""


class Plain:
    """Defaults of a metric on independent takes that did not fail."""

    needs: frozenset[Need] = frozenset({"audio"})
    weights: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """See `Metric`."""
        return {}

    def load(self) -> None:
        """See `Metric`."""

    def group(self, take: Take) -> str | None:
        """See `Metric`."""
        return None


def fingerprint(metric: Metric, by_name: Mapping[str, Metric]) -> str:
    """Return 8 hex digits that change whenever a metric's figures may change."""
    from catalogs.weights.registry import registry

    parts = {
        "name": metric.name,
        "version": metric.version,
        "settings": metric.settings(),
        "weights": {name: [[f.path, f.sha256] for f in registry()[name].files] for name in metric.weights},
        "uses": {name: fingerprint(by_name[name], by_name) for name in metric.uses},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
