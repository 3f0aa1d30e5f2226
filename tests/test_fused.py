"""A model laid out for inference says the same."""

import copy

import pytest
import torch
from torch.testing import assert_close

import fused
from cache import KVCache
from fused import Int8, fuse, rounds_inputs
from lora import add_lora
from quantized import pack_int8
from sampler import generate, n_best, score
from tests.replies import PROMPTS, SAMPLING, STOP, agree, families


@pytest.mark.parametrize("threads", [1, 2])
@families
def test_a_fused_model_samples_the_same(tiny, family, threads):
    """One prompt and several, greedy, sampled, n-best and scores; for two threads matrices lie in blocks.
    One thread computes: two that wait for each other's tiny products take seconds."""
    model = tiny(family)
    torch.set_num_threads(threads)
    fused = fuse(copy.deepcopy(model))
    torch.set_num_threads(1)
    assert fused.layers[0].mlp.down_proj.weight.dim() == (2 if threads == 1 else 3)
    for sampling in SAMPLING:
        agree(*(generate(net, PROMPTS, 6, STOP, **sampling) for net in (fused, model)))
    agree(*(generate(net, PROMPTS[2:3], 6, STOP, temperature=0) for net in (fused, model)))
    agree(*(n_best(net, PROMPTS[:2], 3, 4, STOP)[1] for net in (fused, model)))
    samples = [(prompt, [0, *[1] * (len(prompt) - 1)]) for prompt in PROMPTS]
    assert_close(*(score(net, samples) for net in (fused, model)), atol=1e-5, rtol=0)


@families
def test_a_fused_model_in_bfloat16_computes_the_same(tiny, family):
    """Whatever layout the processor's kernel wants."""
    model = tiny(family).bfloat16()
    fused = fuse(copy.deepcopy(model))
    ids = torch.tensor([[5, 9, 200, 31, 4, 4, 18, 90, 2]])
    with torch.no_grad():
        assert_close(*(net.logits(net(ids)) for net in (fused, model)), atol=0.02, rtol=0.02)
    agree(*(generate(net, PROMPTS[:1], 1, STOP, temperature=0) for net in (fused, model)))


def test_numbers_that_are_not_finite_are_found_in_a_fused_model_too(tiny):
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny("llama").to(dtype)
        with torch.no_grad():
            model.layers[1].mlp.down_proj.weight[3, 5] = torch.nan
        with pytest.raises(ValueError, match="not finite: its weight .*down_proj.weight is not"):
            generate(fuse(model), PROMPTS, 4, STOP, temperature=0)


def test_only_a_merged_model_can_be_fused(tiny):
    with pytest.raises(ValueError, match="merge the adapter first"):
        fuse(add_lora(tiny("llama"), 2))


# ------------------------------------------------------------------------------------------------ int8
CPU = torch.device("cpu")


@pytest.fixture(params=[False, True])
def multiplied(request, monkeypatch):
    """With and without the instructions for 8 bits."""
    if request.param and not rounds_inputs(CPU):
        pytest.skip("this processor does not multiply 8-bit numbers")
    monkeypatch.setattr(fused, "rounds_inputs", lambda device: request.param)
    return request.param


def in_8_bits(model):
    return fuse(copy.deepcopy(model), "int8", torch.bfloat16, CPU)


def error(values, exact):
    return float((values.float() - exact).norm() / exact.norm())


@families
def test_a_model_in_8_bits_says_nearly_the_same(tiny, family, multiplied):
    """Token by token and in one pass, which are different kernels."""
    model = tiny(family)
    ids = torch.tensor([[5, 9, 200, 31, 4, 4, 18, 90, 2]])
    small = in_8_bits(model)
    with torch.no_grad():
        exact = model.logits(model(ids))
        half = copy.deepcopy(model).bfloat16()
        allowed = 2 * error(half.logits(half(ids)), exact) + 0.05
        assert error(small.logits(small(ids)), exact) < allowed
        cache = KVCache(model.config, 1, 16, dtype=torch.bfloat16)
        steps = [small(ids[:, t : t + 1], cache=cache) for t in range(ids.shape[1]) if cache.length == t]
        assert error(small.logits(torch.cat(steps, 1)), exact) < allowed
    assert generate(small, PROMPTS, 6, STOP, temperature=0)


def test_8_bits_are_a_quarter_of_float32(tiny, multiplied):
    """What a processor multiplies in 8 bits is laid out for that, and a tied embedding stays beside it."""
    model = tiny("qwen2", vocab_size=2000)
    assert model.config.tied
    small = in_8_bits(model)
    size = sum(weight.nbytes for weight in small.parameters())
    for layer in small.modules():
        if isinstance(layer, Int8) and multiplied:
            size += layer.matrix.unpack()[0].nbytes
    whole = sum(weight.nbytes for weight in model.parameters())
    assert size < 0.3 * whole + multiplied * model.embed.weight.nbytes / 2


def test_a_large_channel_does_not_drown_the_others(multiplied):
    """One that counts for nothing, a hundred times as large as those that do: rounded in its steps they would
    be off by 0.21."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(576, 64, bias=False)
    x = torch.randn(40, 576).bfloat16()
    x[:, 7] *= 100
    with torch.no_grad():
        plain.weight[:, 7] = 0
        layer = Int8(plain, dtype=torch.bfloat16, device=CPU, out=torch.float32)
        assert error(layer(x), plain(x.float())) < 0.05


def test_a_row_of_8_bits_does_not_depend_on_its_neighbours(multiplied):
    """One row, four and many, with channels a hundred times as large as others, and a row of zeros."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(96, 64)
    layer = Int8(plain, dtype=torch.bfloat16, device=CPU, out=torch.bfloat16).bfloat16()
    x = torch.randn(40, 96).bfloat16()
    x[:, 7] *= 100
    x[3] = 0
    with torch.no_grad():
        wanted = plain(x.float())
        together = layer(x)
        for rows in (1, 4, 5, 40):
            y = layer(x[:rows])
            assert torch.equal(y, (together if multiplied or rows > 4 else layer(x[:4]))[:rows])
            assert error(y, wanted[:rows]) < 0.01
        assert torch.equal(layer(x[3]), plain.bias.bfloat16())
        x[2, 5] = torch.nan
        assert layer(x)[2].isnan().all()
    weight, scale = pack_int8(plain.weight.detach(), torch.bfloat16)
    off = (weight * scale.float()[:, None] - plain.weight).abs() / scale.float()[:, None]
    assert off.max() <= 0.51 + 127 / 256  # half a step, and at the end of the range what the scale is rounded
