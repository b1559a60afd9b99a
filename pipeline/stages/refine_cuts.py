"""Measure the ends of segments, and join neighbors of one voice into longer clips if the mix of lengths asks for them."""

from __future__ import annotations

import itertools

from pydantic import Field, field_validator

from catalogs.corpus.ids import segment_id
from pipeline.quality.clicks import clicks_per_s
from pipeline.quality.edges import begins_softly, measure_edges
from pipeline.records import Recording, Segment, Session
from pipeline.speech.join import fit_together, is_sound, joined
from pipeline.speech.lengths import draw_runs, named_mix
from pipeline.stage import Resources, Stage, StageConfig, StageError

# An end within this many seconds of the recording's own end was cut by whoever made the recording.
_FILE_END_S = 0.05


class RefineCutsConfig(StageConfig):
    """Settings of `refine_cuts`."""

    lengths: dict[float, float] = Field(default_factory=lambda: {0.0: 1.0})
    """{longest clip in seconds: share of the time}. Each class begins where the next smaller one ends; 0 means segments as
    they were cut. A name selects a mix for one of the paper's stages: `stage1` (up to 60 s), `stage2` (up to 3 minutes),
    `stage3` (up to 5 minutes). `as_cut`, the default, joins nothing."""
    join_pause_s: float = Field(1.2, ge=0)
    """Longest silence between two segments that is restored when they are joined, in seconds."""
    join_logprob: float = Field(-0.8, le=0)
    """A segment with a lower mean log probability is not joined: one wrong sentence would spoil a long clip."""
    cut_off: float = Field(0.3, ge=0, le=1)
    """Segments with more voice than this at the ends that meet are not joined: a word may be cut in two there."""

    @field_validator("lengths", mode="before")
    @classmethod
    def _by_name(cls, lengths: object) -> object:
        return named_mix(lengths)

    @field_validator("lengths")
    @classmethod
    def _sensible(cls, lengths: dict[float, float]) -> dict[float, float]:
        if not lengths or min(lengths.values()) < 0 or sum(lengths.values()) <= 0:
            raise ValueError("lengths must give shares of 0 and more, one of them above 0")
        if min(lengths) < 0 or max(lengths) > 300:
            raise ValueError("lengths go from 0 (as they were cut) to 300 seconds")
        return lengths


class RefineCuts(Stage[RefineCutsConfig]):
    """Segments -> `head_edge`, `tail_edge`, `clicks_per_s`, and some neighbors joined into longer clips.

    The paper's curriculum trains on clips of up to 60 s, then 3 minutes, then 2 s to 5 minutes: far more than a recognizer
    processes at once. Neighbors with text become one clip if one voice speaks them in one language, the pause between them
    is short and neither has a fault. Their words keep their times. Edges: 0 is the background, 1 the level of the speech
    (`pipeline.quality.edges`); above 0.3 a word was cut off.

    The recordings of a corpus that is already cut begin close to the voice. An end within 50 ms of its recording's own end
    gets the flag `file_head` (`file_tail`) if the voice rises (or falls) there as at the edge of a word. Such an end
    rejects nothing. Segments are renumbered, and silence that becomes part of a clip is subtracted from the recording's
    `silence_s`.
    """

    name = "refine_cuts"
    version = "3"
    config_type = RefineCutsConfig
    inputs = (
        "windows",
        "segments",
        "segment.separated",
        "segment.language",
        "segment.text",
        "segment.text_source",
        "segment.words",
        "segment.asr_logprob",
        "segment.flags",
        "segment.speaker",
    )
    outputs = ("segments", "segment.head_edge", "segment.tail_edge", "segment.clicks_per_s", "segment.flags")
    resources = Resources(cpus=0.02)

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.alive(), lambda segment: self._measure(session, segment))
        self.for_each(session, session.usable(), lambda recording: self._join(session, recording))
        for seq, segment in enumerate(session.segments):
            rate = session.recording(segment.source_id).sample_rate
            segment.seq = seq
            first, last = round(segment.start_s * rate), round(segment.end_s * rate)
            segment.segment_id = segment_id(segment.source_id, first, last, session.fingerprint)
        return session

    def _measure(self, session: Session, segment: Segment) -> None:
        samples = session.audio(segment)
        segment.head_edge, segment.tail_edge = measure_edges(samples)
        segment.clicks_per_s = clicks_per_s(samples)
        after = session.recording(segment.source_id).duration_s - segment.end_s
        if segment.start_s <= _FILE_END_S and begins_softly(samples):
            segment.flags.append("file_head")
        if after <= _FILE_END_S and begins_softly(samples[::-1]):
            segment.flags.append("file_tail")

    def _join(self, session: Session, recording: Recording) -> None:
        source_id, config = recording.source.source_id, self.config
        if {limit for limit, share in config.lengths.items() if share > 0} == {0.0}:
            return
        own = [segment for segment in session.segments if segment.source_id == source_id]
        clips: list[Segment] = []
        for number, run in enumerate(self._runs(own)):
            pauses = [max(0.0, b.start_s - a.end_s) for a, b in itertools.pairwise(run)]
            sizes = draw_runs([s.duration_s for s in run], pauses, config.lengths, f"{source_id} {number}")
            ends = list(itertools.accumulate(sizes))
            for size, end in zip(sizes, ends, strict=True):
                parts = run[end - size : end]
                clips.append(parts[0] if size == 1 else joined(parts))
        put_back = sum(clip.duration_s for clip in clips) - sum(segment.duration_s for segment in own)
        if put_back < -1e-6 or put_back > recording.silence_s + 1e-6:
            raise StageError(f"joined clips hold {put_back:.2f} s more than their segments")
        recording.silence_s = max(0.0, recording.silence_s - put_back)
        place = next((i for i, s in enumerate(session.segments) if s.source_id == source_id), 0)
        others = [segment for segment in session.segments if segment.source_id != source_id]
        session.segments = [*others[:place], *clips, *others[place:]]

    def _runs(self, segments: list[Segment]) -> list[list[Segment]]:
        """Return the segments in order of time, grouped into runs of neighbors that may be one clip. A segment that may not
        be joined is a run by itself."""
        runs: list[list[Segment]] = []
        for segment in segments:
            last = runs[-1][-1] if runs else None
            if (
                last is not None
                and is_sound(last, self.config.join_logprob)
                and is_sound(segment, self.config.join_logprob)
                and fit_together(last, segment, self.config.join_pause_s, self.config.cut_off)
            ):
                runs[-1].append(segment)
            else:
                runs.append([segment])
        return runs
