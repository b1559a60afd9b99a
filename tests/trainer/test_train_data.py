"""Samples of choices: the golden packer's rows, lengths that are known before the audio, and what continuation learns."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainer.config import LayoutWeights, Phase
from trainer.data.candidates import Candidates, Choice
from trainer.data.clip_encoder import ClipEncoder
from trainer.data.corpora import Corpora
from trainer.data.latent_cache import Latents
from trainer.data.mixture import Candidate, Mixture, find_candidates
from trainer.data.rows import Planned, Planner, RowStream
from trainer.data.samples import SampleMaker
from voxcpm.config import VoxCPM2Config
from voxcpm.sequence.text_tokenizer import TextTokenizer
from voxcpm.sequence.training_rows import pack_rows
from voxcpm.weights.checkpoint import load_codec

PATCH_S = 0.16


@pytest.fixture(scope="module")
def config(golden: Path) -> VoxCPM2Config:
    return VoxCPM2Config.load(golden / "checkpoint")


@pytest.fixture(scope="module")
def corpora_(speech: Path) -> Corpora:
    return Corpora([speech])


@pytest.fixture(scope="module")
def maker(corpora_: Corpora, config: VoxCPM2Config, golden: Path) -> SampleMaker:
    return SampleMaker(corpora_, Latents(corpora_, load_codec(golden / "checkpoint"), config), config)


@pytest.fixture(scope="module")
def planner(config: VoxCPM2Config, golden: Path) -> Planner:
    return Planner(TextTokenizer.load(golden / "checkpoint"), config)


@pytest.fixture(scope="module")
def candidates(corpora_: Corpora) -> Candidates:
    return find_candidates(corpora_, "true", 30.0, "all")


def test_rows_are_those_of_the_golden_packer(golden: Path, config: VoxCPM2Config) -> None:
    """A plain sample and one with a reference; the latents come through our codec from the same clips."""
    stored = load_file(golden / "training.safetensors")
    encode = ClipEncoder(load_codec(golden / "checkpoint"), config.patch_size)

    class Clips(Latents):
        def __init__(self) -> None:
            pass

        def get(self, segment_id: str, patches: int) -> torch.Tensor:
            return encode(stored[f"{segment_id}_wav_16k"].numpy(), patches)

    def planned(name: str, reference: str | None) -> Planned:
        choice = Choice(
            0, Candidate(name, "en", "", 1.0, None, ()), "reference" if reference else "basic", reference, 0
        )
        lengths = [
            -(-len(stored[f"{clip}_wav_16k"]) // config.patch_samples) if clip else 0 for clip in (name, reference)
        ]
        return Planned(choice, tuple(stored[f"{name}_text_ids"].tolist()), *lengths)

    maker = SampleMaker(None, Clips(), config)  # type: ignore[arg-type]
    plans = [planned("clip0", None), planned("clip1", "clip1_ref")]
    samples = [maker.make(plan) for plan in plans]
    batch = pack_rows([[sample] for sample in samples], length=stored["packed.text_tokens"].shape[1])
    for name, ours in {
        "text_tokens": batch.text_tokens, "text_mask": batch.text_mask, "audio_mask": batch.audio_mask,
        "loss_mask": batch.loss_mask, "labels": batch.stop_labels,
    }.items():  # fmt: skip
        assert torch.equal(ours.long(), stored[f"packed.{name}"][:2]), name
    assert (batch.features - stored["packed.audio_feats"][:2]).abs().max() < 2e-3
    for row, plan in enumerate(plans):
        assert plan.length == samples[row].length
        here = slice(0, plan.length)
        assert batch.position_ids is not None
        assert torch.equal(batch.position_ids[row, here], stored["packed.position_ids"][row, here])


def test_planned_lengths_are_the_samples_lengths(planner: Planner, maker: SampleMaker, candidates: Candidates) -> None:
    """Every segment in every layout it can serve, at 16, 24 and 48 kHz."""
    seen = set()
    for candidate in candidates:
        for layout in candidate.layouts():
            reference = candidate.references[0][0] if "reference" in layout or layout == "controllable" else None
            plan = planner.plan(Choice(0, candidate, layout, reference, 3))
            sample = maker.make(plan)
            assert plan.length == sample.length
            assert int(sample.audio_mask.sum()) == plan.patches + plan.reference_patches == len(sample.patches)
            assert torch.isfinite(sample.patches).all()
            seen.add(layout)
    assert len(seen) == 6


def test_descriptions_stand_in_brackets_before_the_text(planner: Planner, candidates: Candidates, golden: Path) -> None:
    tokenizer = TextTokenizer.load(golden / "checkpoint")
    described = next(candidate for candidate in candidates if candidate.description)
    plan = planner.plan(Choice(0, described, "design", None, 0))
    short = planner.plan(Choice(0, described, "design", None, 0, described.brief))
    assert list(short.tokens) == tokenizer.encode(f"({described.brief}){described.text}")
    assert list(plan.tokens) == tokenizer.encode(f"({described.description}){described.text}")
    assert list(planner.plan(Choice(0, described, "basic", None, 0)).tokens) == tokenizer.encode(described.text)


def test_continuation_learns_what_comes_after_a_word(
    planner: Planner, maker: SampleMaker, candidates: Candidates, corpora_: Corpora
) -> None:
    cuts = set()
    for candidate in (c for c in candidates if "continuation" in c.layouts()):
        ends = [word["end"] for word in corpora_.segment(candidate.segment_id)["words"][:-1]]
        for seed in range(6):
            basic = maker.make(planner.plan(Choice(0, candidate, "basic", None, seed)))
            sample = maker.make(planner.plan(Choice(0, candidate, "continuation", None, seed)))
            learnt, audio = sample.loss_mask, sample.audio_mask
            hidden = int((audio & ~learnt).sum())
            assert hidden >= 1 and int(learnt.sum()) >= 1
            assert torch.equal(sample.text_tokens, basic.text_tokens) and torch.equal(sample.patches, basic.patches)
            assert torch.equal(sample.stop_labels, basic.stop_labels)
            # All hidden patches come first, and the border is the nearest to the end of a word.
            assert learnt.nonzero()[0] == audio.nonzero()[hidden]
            assert min(abs(hidden * PATCH_S - end) for end in ends) <= PATCH_S / 2 + 0.06
            cuts.add((candidate.segment_id, hidden))
    assert len(cuts) > len({segment for segment, _ in cuts})


def test_a_reference_s_patches_are_never_learnt(planner: Planner, maker: SampleMaker, candidates: Candidates) -> None:
    candidate = next(c for c in candidates if c.references and c.seconds >= 2)
    for layout in ("reference", "reference_continuation"):
        plan = planner.plan(Choice(0, candidate, layout, candidate.references[0][0], 1))
        sample = maker.make(plan)
        assert not sample.loss_mask[: plan.reference_patches + 2].any()
        assert sample.loss_mask.any()


def test_the_shortest_continued_clip_keeps_a_patch_on_either_side(
    planner: Planner, maker: SampleMaker, candidates: Candidates
) -> None:
    """Whatever the words say, both sides have at least one patch."""
    for candidate in candidates:
        plan = planner.plan(Choice(0, candidate, "continuation", None, 0))
        sample = maker.make(plan)
        assert 1 <= int(sample.loss_mask.sum()) < plan.patches


@pytest.mark.parametrize("ramp", [False, True])
def test_a_stream_goes_on_where_its_state_says(planner: Planner, candidates: Candidates, ramp: bool) -> None:
    none = {"design": 0, "reference": 0, "controllable": 0, "reference_continuation": 0}
    start = LayoutWeights.model_validate(none) if ramp else None
    phase = Phase(steps=40, max_positions=160, layouts_from=start)

    def stream() -> RowStream:
        return RowStream(Mixture(candidates, phase, "a", 1), planner, phase, {})

    unbroken = stream()
    first = list(islice(unbroken, 17))
    state = unbroken.state()
    resumed = stream()
    resumed.seek(state)
    assert first and list(islice(resumed, 40)) == list(islice(unbroken, 40))


def test_what_fits_no_row_is_named_with_its_length(planner: Planner, candidates: Candidates) -> None:
    lengths = {c.segment_id: planner.plan(Choice(0, c, "basic", None, 0)).length for c in candidates}
    limit = sorted(lengths.values())[len(lengths) // 2]
    weights = {"design": 0, "reference": 0, "controllable": 0, "continuation": 0, "reference_continuation": 0}
    phase = Phase.model_validate({"steps": 1, "max_positions": limit, "layouts": weights})
    skipped: dict[str, int] = {}
    rows = list(islice(RowStream(Mixture(candidates, phase, "a", 1), planner, phase, skipped), 400))
    assert skipped == {segment: length for segment, length in lengths.items() if length > limit}
    used = {item.choice.candidate.segment_id for row in rows for item in row}
    assert used == lengths.keys() - skipped.keys()
