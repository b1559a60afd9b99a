"""The codec's own promises: causality, streams, options, folding, training; no golden numbers needed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from voxcpm.audiovae import AudioVAE, AudioVAEConfig, DecoderState

SMALL: dict[str, Any] = {
    "encoder_dim": 4,
    "encoder_rates": [2, 5],
    "latent_dim": 6,
    "decoder_dim": 32,
    "decoder_rates": [3, 2, 2],
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"depthwise": False},
    {"sr_bin_boundaries": None},
    {"cond_type": "scale_bias_init"},
    {"cond_type": "add"},
    {"cond_type": "scale_bias", "cond_out_layer": True},
    {"cond_type": "add", "cond_out_layer": True, "depthwise": False},
    {"cond_type": "concat", "cond_dim": 5, "cond_out_layer": True},
    {"use_noise_block": True},
    {"even_padding": True},
]


def build(seed: int = 0, **options: Any) -> AudioVAE:
    """A small codec whose every parameter matters: random gains, biases, alphas of both signs (one of them zero)."""
    codec = AudioVAE(AudioVAEConfig.from_dict(SMALL | options)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("alpha"):
                parameter.copy_(1 + 0.5 * noise)
                parameter.view(-1)[0], parameter.view(-1)[-1] = 0.0, -0.7
            elif name.endswith("weight_g"):
                parameter.copy_(0.7 + 0.1 * noise)
            else:
                parameter.copy_(0.3 * noise)
    return codec


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stream(codec: AudioVAE, z: Tensor, chunks: list[int], rate: int | Tensor | None = None) -> Tensor:
    state, parts = codec.init_decoder_state(z.shape[0]), []
    for part in z.split(chunks, dim=2):
        wav, state = codec.decode_stream(part, state, rate)
        parts.append(wav)
    return torch.cat(parts, dim=2)


@pytest.fixture(scope="module")
def forms() -> list[AudioVAE]:
    even = {"even_padding": True}
    return [build(), build().fold_weight_norm(), build(**even), build(**even).fold_weight_norm()]


@st.composite
def chunkings(draw: st.DrawFn) -> list[int]:
    return draw(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(lambda chunks: sum(chunks) > 0))


@settings(max_examples=30, deadline=None)
@given(chunks=chunkings(), batch=st.integers(1, 3), form=st.integers(0, 3), seed=st.integers(0, 99))
def test_any_chunking_equals_the_whole(
    forms: list[AudioVAE], chunks: list[int], batch: int, form: int, seed: int
) -> None:
    codec, z = forms[form], random(batch, 6, sum(chunks), seed=seed)
    rates = torch.tensor([8000, 24000, 48000])[:batch]
    with torch.inference_mode():
        torch.testing.assert_close(stream(codec, z, chunks, rates), codec.decode(z, rates), atol=1e-5, rtol=0)
        hop = codec.config.hop_length
        wav, state, parts = random(batch, 1, sum(chunks) * hop, seed=seed), codec.init_encoder_state(batch), []
        for part in wav.split([chunk * hop for chunk in chunks], dim=2):
            mu, state = codec.encode_stream(part, state)
            parts.append(mu)
        torch.testing.assert_close(torch.cat(parts, dim=2), codec.encode(wav), atol=1e-5, rtol=0)


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(1, 30), batch=st.integers(2, 4), form=st.integers(0, 1), seed=st.integers(0, 99))
def test_rows_of_a_batch_are_independent(forms: list[AudioVAE], frames: int, batch: int, form: int, seed: int) -> None:
    codec, z = forms[form], random(batch, 6, frames, seed=seed)
    wav = random(batch, 10 * frames, seed=seed)
    with torch.inference_mode():
        alone = torch.cat([codec.decode(row[None]) for row in z])
        torch.testing.assert_close(codec.decode(z), alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            codec.encode(wav), torch.cat([codec.encode(row[None]) for row in wav]), atol=1e-5, rtol=0
        )


@settings(max_examples=15, deadline=None)
@given(change=st.integers(0, 29), form=st.integers(0, 1))
def test_it_is_causal_and_its_memory_ends(forms: list[AudioVAE], change: int, form: int) -> None:
    codec, z = forms[form], random(1, 6, 90)
    other = z.clone()
    other[:, :, change] += 1.0
    hop, memory = codec.config.decode_hop, codec.decoder_context_frames
    assert change + memory < 89
    with torch.inference_mode():
        difference = (codec.decode(z) - codec.decode(other)).abs().view(90, hop).amax(dim=1)
    assert torch.all(difference[:change] < 1e-6)
    assert difference[change] > 1e-4
    assert torch.all(difference[change + memory + 1 :] < 1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_folding_keeps_the_numbers(options: dict[str, Any]) -> None:
    """In double precision, where rounding does not hide or excuse anything (the bound is snake's dropped 1e-9)."""
    plain, folded = build(**options).double(), build(**options).double().fold_weight_norm()
    z, wav = random(2, 6, 21).double(), random(2, 1, 205).double()
    close: dict[str, Any] = {"atol": 1e-7, "rtol": 0}
    with torch.inference_mode():
        for rate in (None, 8000, 20000, torch.tensor([30001, 16000])):
            torch.manual_seed(5)
            expected = plain.decode(z[..., :4], rate)
            torch.manual_seed(5)
            torch.testing.assert_close(folded.decode(z[..., :4], rate), expected, **close)
            assert expected.abs().max() > 0.05
        if not plain.config.use_noise_block:
            torch.testing.assert_close(folded.decode(z), plain.decode(z), **close)
            parts, state = [], folded.init_decoder_state(2)
            for part in z.split([1, 20], dim=2):
                piece, state = folded.decode_stream(part, state)
                parts.append(piece)
            torch.testing.assert_close(torch.cat(parts, dim=2), plain.decode(z), **close)
        for ours, theirs in zip(folded.encode_heads(wav), plain.encode_heads(wav), strict=True):
            torch.testing.assert_close(ours, theirs, **close)


def test_output_length_is_the_same_for_every_rate() -> None:
    codec = build()
    for rate in (1, 8000, 20000, 20001, 96000):
        assert codec.decode(random(1, 6, 3), rate).shape == (1, 1, 36)
    assert not torch.allclose(codec.decode(random(1, 6, 3), 20000), codec.decode(random(1, 6, 3), 20001))


def test_rates_are_ignored_without_buckets() -> None:
    codec = build(sr_bin_boundaries=None)
    assert not any("sr_" in key for key in codec.state_dict())
    z = random(1, 6, 3)
    assert torch.equal(codec.decode(z, 8000), codec.decode(z))


def test_noise_block_makes_each_decode_differ() -> None:
    z = random(1, 6, 4)
    for codec in (build(use_noise_block=True), build(use_noise_block=True).fold_weight_norm()):
        assert "decoder.model.2.block.2.linear.weight_g" in build(use_noise_block=True).state_dict()
        assert not torch.allclose(codec.decode(z), codec.decode(z))


def test_a_state_is_a_value(forms: list[AudioVAE]) -> None:
    z = random(1, 6, 9)
    for codec in forms:
        with torch.inference_mode():
            start = codec.warm_state(z[..., :5])
            before = [history.clone() for history in start.histories]
            first, _ = codec.decode_stream(z[..., 5:], start)
            again, _ = codec.decode_stream(z[..., 5:], start)
            assert torch.equal(first, again)
            assert all(torch.equal(a, b) for a, b in zip(start.histories, before, strict=True))
            torch.testing.assert_close(first, codec.decode(z)[..., 5 * 12 :], atol=1e-5, rtol=0)


def test_warm_state_needs_only_the_recent_past(forms: list[AudioVAE]) -> None:
    z = random(2, 6, 70)
    for codec in forms:
        assert codec.decoder_context_frames < 60
        with torch.inference_mode():
            wav, _ = codec.decode_stream(z[..., 60:], codec.warm_state(z[..., :60]))
            torch.testing.assert_close(wav, codec.decode(z)[..., 60 * 12 :], atol=1e-5, rtol=0)
            cold, _ = codec.decode_stream(z[..., 60:], codec.warm_state(z[..., :0]))
            torch.testing.assert_close(cold, codec.decode(z[..., 60:]), atol=1e-5, rtol=0)


def test_streams_can_be_joined_split_and_restarted(forms: list[AudioVAE]) -> None:
    z = random(3, 6, 10)
    for codec in forms:
        with torch.inference_mode():
            lone = [codec.warm_state(z[i : i + 1, :, :5]) for i in range(3)]
            joined = DecoderState.join(lone)
            assert joined.batch == 3
            wav, _ = codec.decode_stream(z[:, :, 5:], joined.reset([1]))
            torch.testing.assert_close(wav[[0, 2]], codec.decode(z)[[0, 2], :, 60:], atol=1e-5, rtol=0)
            torch.testing.assert_close(wav[1:2], codec.decode(z[1:2, :, 5:]), atol=1e-5, rtol=0)
            swapped, _ = codec.decode_stream(z[[2, 0], :, 5:], joined.select([2, 0]))
            torch.testing.assert_close(swapped, codec.decode(z)[[2, 0], :, 60:], atol=1e-5, rtol=0)


def test_folded_form_survives_copy_pickle_and_conversion() -> None:
    codec, z = build().fold_weight_norm(), random(1, 6, 5)
    with torch.inference_mode():
        expected = codec.decode(z)
        assert torch.equal(copy.deepcopy(codec).decode(z), expected)
        assert torch.equal(pickle.loads(pickle.dumps(codec)).decode(z), expected)
        assert torch.equal(codec.fold_weight_norm().decode(z), expected), "folding twice"
        wide = codec.double()
        assert wide.init_decoder_state().histories[0].dtype == torch.float64
        torch.testing.assert_close(wide.decode(z.double()).float(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(codec.float().decode(z), expected, atol=1e-6, rtol=0)


def test_more_threads_change_nothing() -> None:
    codec, z = build().fold_weight_norm(), random(1, 6, 5)
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            expected = codec.decode(z)
            torch.set_num_threads(4)  # torch's sine instead of numpy's
            torch.testing.assert_close(codec.decode(z), expected, atol=1e-5, rtol=0)
    finally:
        torch.set_num_threads(threads)


def test_gradients_reach_every_parameter() -> None:
    codec = build().train()
    mu, logvar = codec.encode_heads(random(2, 1, 100))
    (codec.decode(mu, torch.tensor([8000, 48000])).square().mean() + logvar.square().mean()).backward()
    for name, parameter in codec.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_gradients_through_weight_norm_are_right() -> None:
    codec = AudioVAE(
        AudioVAEConfig.from_dict(SMALL | {"encoder_rates": [2], "decoder_rates": [2], "decoder_dim": 4})
    ).double()
    names, values = zip(*codec.named_parameters(), strict=True)
    z = random(1, 6, 3).double()
    chosen = {
        "decoder.model.2.block.1.weight_g",
        "decoder.model.2.block.1.weight_v",
        "decoder.model.2.block.3.block.1.weight_v",
    }

    def decode(*new: Tensor) -> Tensor:
        values_by_name = dict(zip(names, values, strict=True)) | dict(zip(sorted(chosen), new, strict=True))
        output: Tensor = torch.func.functional_call(
            _Decoding(codec), {f"codec.{k}": v for k, v in values_by_name.items()}, z
        )
        return output

    inputs = [dict(zip(names, values, strict=True))[name].detach().requires_grad_() for name in sorted(chosen)]
    assert torch.autograd.gradcheck(decode, inputs)


class _Decoding(torch.nn.Module):
    def __init__(self, codec: AudioVAE) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, z: Tensor) -> Tensor:
        return self.codec.decode(z)


def test_it_can_learn() -> None:
    torch.manual_seed(0)
    codec = AudioVAE(AudioVAEConfig.from_dict(SMALL))
    wav = torch.sin(torch.arange(400) * 0.2)[None, None] * 0.5
    target = torch.nn.functional.interpolate(wav, 480, mode="linear")
    optimizer = torch.optim.AdamW(codec.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        loss = (codec.decode(codec.encode(wav)) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_published_sizes() -> None:
    with torch.device("meta"):
        codec = AudioVAE(AudioVAEConfig())
    shapes = {key: tuple(value.shape) for key, value in codec.state_dict().items()}
    assert len(shapes) == 312
    assert round(sum(p.numel() for p in codec.encoder.parameters()) / 1e6, 1) == 48.4
    assert round(sum(p.numel() for p in codec.decoder.parameters()) / 1e6, 1) == 45.8
    expected: dict[str, tuple[int, ...]] = {"decoder.sr_bin_boundaries": (3,)}

    def conv(name: str, *shape: int, bias: int | None = None) -> None:
        expected[f"{name}.weight_v"] = shape
        expected[f"{name}.weight_g"] = (shape[0], 1, 1)
        expected[f"{name}.bias"] = (shape[0] if bias is None else bias,)

    def unit(name: str, width: int) -> None:
        expected[f"{name}.block.0.alpha"] = expected[f"{name}.block.2.alpha"] = (1, width, 1)
        conv(f"{name}.block.1", width, 1, 7)
        conv(f"{name}.block.3", width, width, 1)

    conv("encoder.block.0", 128, 1, 7)
    for i, (width, rate) in enumerate([(128, 2), (256, 5), (512, 8), (1024, 8)], start=1):
        for j in range(3):
            unit(f"encoder.block.{i}.block.{j}", width)
        expected[f"encoder.block.{i}.block.3.alpha"] = (1, width, 1)
        conv(f"encoder.block.{i}.block.4", 2 * width, width, 2 * rate)
    conv("encoder.fc_mu", 64, 2048, 3)
    conv("encoder.fc_logvar", 64, 2048, 3)
    conv("decoder.model.0", 64, 1, 7)
    conv("decoder.model.1", 2048, 64, 1)
    for i, (width, rate) in enumerate([(2048, 8), (1024, 6), (512, 5), (256, 2), (128, 2), (64, 2)], start=2):
        expected[f"decoder.model.{i}.block.0.alpha"] = (1, width, 1)
        conv(f"decoder.model.{i}.block.1", width, width // 2, 2 * rate, bias=width // 2)
        for j in range(2, 5):
            unit(f"decoder.model.{i}.block.{j}", width // 2)
        for part in ("scale", "bias"):
            expected[f"decoder.sr_cond_model.{i}.{part}_embed.weight"] = (4, width)
    expected["decoder.model.8.alpha"] = (1, 32, 1)
    conv("decoder.model.9", 1, 32, 7)
    assert shapes == expected
    assert codec.config.hop_length == 640
    assert codec.config.decode_hop == 1920
    assert codec.decoder_context_frames == 20


def test_config_reads_what_it_knows_and_says_what_is_wrong() -> None:
    config = AudioVAEConfig.from_dict({"encoder_dim": 8, "nobody_knows": 1, "sr_bin_boundaries": None})
    assert (config.encoder_dim, config.decoder_dim, config.sr_bin_boundaries) == (8, 2048, None)
    assert AudioVAEConfig.from_dict(AudioVAEConfig().to_dict()) == AudioVAEConfig()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"cond_type": "film"}, "film"),
        ({"cond_type": "concat"}, "cond_out_layer"),
        ({"decoder_dim": 100}, "decoder_dim"),
        ({"sr_bin_boundaries": [3, 2]}, "rise"),
        ({"encoder_rates": []}, "encoder_rates"),
        ({"encoder_rates": [2, 1], "even_padding": True}, "even_padding"),
    ]
    for bad, word in refused:
        with pytest.raises(ValueError, match=word):
            AudioVAEConfig.from_dict(bad)


def test_misuse_is_refused() -> None:
    codec = build()
    old = codec.init_decoder_state()
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: codec.encode(random(1, 100), sample_rate=44100), "resample"),
        (lambda: codec.encode(random(1, 2, 100)), "mono"),
        (lambda: codec.encode(random(1, 0)), "mono"),
        (lambda: codec.decode(random(1, 5, 3)), "latents"),
        (lambda: codec.decode(random(3, 6, 3), torch.tensor([8000, 16000])), "one per row"),
        (lambda: codec.decode_stream(random(2, 6, 3), old), "batch"),
        (lambda: codec.encode_stream(random(1, 1, 11), codec.init_encoder_state()), "encode_stream"),
    ]
    for call, word in refused:
        with pytest.raises(ValueError, match=word):
            call()
    weights = codec.state_dict()
    codec.fold_weight_norm()
    with pytest.raises(ValueError, match="make a new one"):
        codec.decode_stream(random(1, 6, 3), old)
    with pytest.raises(ValueError, match="cannot be joined"):
        DecoderState.join([old, codec.init_decoder_state()])
    with pytest.raises(RuntimeError, match="before fold_weight_norm"):
        codec.state_dict()
    with pytest.raises(RuntimeError, match="then fold"):
        codec.load_state_dict(weights)


def test_empty_chunks_are_harmless(forms: list[AudioVAE]) -> None:
    for codec in forms:
        assert codec.decode(random(2, 6, 0)).shape == (2, 1, 0)
        wav, state = codec.decode_stream(random(1, 6, 0), codec.init_decoder_state())
        assert wav.shape == (1, 1, 0) and state.batch == 1
