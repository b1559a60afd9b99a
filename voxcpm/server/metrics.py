"""Prometheus metrics: ours (`voxcpm_`), and the same figures under vLLM-Omni's names (`vllm_omni:`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from voxcpm.server.errors import ApiError
    from voxcpm.server.process.messages import Load
    from voxcpm.server.process.result import SpeechResult

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 5.0, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CONTINUITY_MS = 100
"""Longest sum of gaps, in milliseconds, of a stream that counts as continuous."""


class _Pair:
    """One figure under our name and under vLLM-Omni's."""

    def __init__(self, registry: CollectorRegistry, kind: type, ours: str, theirs: str, words: str, model: str,
                 labels: tuple[str, ...] = (), buckets: tuple[float, ...] | None = None) -> None:  # fmt: skip
        more = {} if buckets is None else {"buckets": buckets}
        self.ours = kind(f"voxcpm_{ours}", words, labels, registry=registry, **more)
        names = ("model_name", "stage", "replica", *labels)
        theirs_all = kind(f"vllm_omni:{theirs}", words, names, registry=registry, **more)
        self._theirs, self._fixed = theirs_all, (model, "0", "0")

    def add(self, value: float, *labels: str) -> None:
        """Count a value."""
        targets = (self.ours.labels(*labels) if labels else self.ours, self._theirs.labels(*self._fixed, *labels))
        for one in targets:
            if isinstance(one, Histogram):
                one.observe(value)
            else:
                one.inc(value)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self, model: str, load: Callable[[], Load], restarts: Callable[[], int]) -> None:
        """model: the label model_name. load, restarts: of the engine process, asked when metrics are read."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each that nothing reads
        self.registry = CollectorRegistry()

        def histogram(ours: str, theirs: str, words: str, buckets: tuple[float, ...] = SECONDS) -> _Pair:
            return _Pair(self.registry, Histogram, ours, theirs, words, model, (), buckets)

        def counter(ours: str, theirs: str, words: str, *labels: str) -> _Pair:
            return _Pair(self.registry, Counter, ours, theirs, words, model, labels)

        self._success = counter("requests_success", "requests_success", "Utterances that ended", "finished_reason")
        self._failed = counter("requests_failed", "requests_failed", "Utterances that failed or were refused", "reason")
        self._aborted = counter("streams_aborted", "speech_stream_aborted", "Streams cut before their end", "reason")
        self._completed = counter("streams_completed", "speech_stream_completed", "Streams sent to their end")
        self._prompt = counter("prompt_tokens", "prompt_tokens", "Text tokens and patches read")
        self._patches = counter("patches", "generation_tokens", "Patches generated")
        self._frames = counter("audio_patches", "audio_frames", "Patches whose audio was handed out")
        self._latency = histogram("request_seconds", "e2e_request_latency_s", "From the call to the end")
        self._queued = histogram("queue_seconds", "request_queue_wait_s", "Wait until the engine took the utterance")
        # Ours fail with an error instead: the figure stays 0.
        counter("audio_skipped", "audio_skipped_requests", "Utterances answered with empty audio in silence")
        self._first = histogram(
            "first_audio_seconds", "audio_ttfp_s", "From the engine's acceptance to the first audio"
        )
        self._duration = histogram("audio_seconds", "audio_duration_s", "Audio per utterance")
        self._factor = histogram("real_time_factor", "audio_rtf", "Request time / audio time", RATIOS)
        self._underrun = histogram("underrun_seconds", "audio_underrun_s", "Largest deficit of a player", SECONDS)
        self._continuity = _Pair(self.registry, Counter, "streams_continuous", "audio_continuity_ok",
                                 "Streams whose player never ran dry", model, ("threshold_ms",))  # fmt: skip
        Gauge("voxcpm_info", "The model", ["model_name"], registry=self.registry).labels(model).set(1)
        self.registry.register(_Engine(model, load, restarts))

    def ended(self, result: SpeechResult) -> None:
        """Count a call that has ended."""
        if result.ending == "cancelled":
            self._failed.add(1, "cancelled")
        elif result.ending == "failed":
            self._failed.add(1, "error")
        else:
            self._success.add(1, result.ending or "stop")
        self._prompt.add(result.text_tokens + result.audio_tokens)
        self._patches.add(result.patches)
        if result.total_s is not None:
            self._latency.add(result.queued_s + result.total_s)
            self._queued.add(result.queued_s)
        if result.first_audio_s is not None and result.seconds:
            self._frames.add(result.patches)
            self._first.add(result.first_audio_s)
            self._duration.add(result.seconds)
            self._factor.add((result.total_s or 0.0) / result.seconds)

    def refused(self, error: ApiError) -> None:
        """Count a call that was not admitted."""
        self._failed.add(1, error.code or "invalid")

    def stream_ended(self, reason: str | None, underrun_s: float) -> None:
        """Count a stream that was sent. reason: why it was cut, None if it was sent to its end."""
        if reason is not None:
            self._aborted.add(1, reason)
            return
        self._completed.add(1)
        self._underrun.add(underrun_s)
        if underrun_s <= CONTINUITY_MS / 1000:
            self._continuity.add(1, str(CONTINUITY_MS))

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry)


class _Engine(Collector):
    """What the engine does at the moment."""

    def __init__(self, model: str, load: Callable[[], Load], restarts: Callable[[], int]) -> None:
        self._model, self._load, self._restarts = model, load, restarts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        load = self._load()
        for name, words, value in (
            ("slots", "Utterances that can be generated at once", load.slots),
            ("requests_running", "Utterances being generated", load.running),
            ("requests_waiting", "Utterances waiting for a slot", load.waiting),
            ("engine_restarts", "Restarts of the engine process", self._restarts()),
        ):
            yield GaugeMetricFamily(f"voxcpm_{name}", words, value)
        for name, value in (("num_requests_running", load.running), ("num_requests_waiting", load.waiting)):
            family = GaugeMetricFamily(f"vllm_omni:{name}", name, labels=["model_name", "stage", "replica"])
            family.add_metric([self._model, "0", "0"], value)
            yield family
