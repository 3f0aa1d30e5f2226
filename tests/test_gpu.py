"""The kernel that a GPU compiles for packed rows against a mask of all scores, generation by CUDA graphs, and
quantised matrices: pytest -m gpu."""

import copy
from functools import partial

import pytest
import torch
from conftest import ENCODERS, SHAPES

import attention
import lora
import model as models
import sampler
import train
from fused import fuse
from quantized import QuantizedLinear, hold
from tests.facts import SMALL, rows_in
from tests.packed import SLIDING, batch_for, long_documents, model_body

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.fixture(autouse=True)
def fresh_kernels():
    torch._dynamo.reset()


def run(model, inputs, monkeypatch, way):
    """Hidden states and gradients of weights, each of norm 1 unless it is small, as one vector."""
    with monkeypatch.context() as patch:
        patch.setattr(attention, "use_flex", lambda config, positions: way == "flexed")
        patch.setattr(attention, "band", attention.band if way == "banded" else lambda *args: None)
        hidden = model(*inputs).float() * (inputs[2] > 0)[:, :, None]
        weights = list(model_body(model).parameters())
        found = [hidden.detach(), *torch.autograd.grad(hidden.square().mean(), weights)]
    norms = [tensor.float().norm() for tensor in found]
    return torch.cat(
        [tensor.float().flatten() / norm.clamp(min=1e-2 * max(norms)) for tensor, norm in zip(found, norms)]
    )


def error(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def on_gpu(tiny, family):
    """Heads are 16 wide, below which there is no kernel."""
    return tiny(family, hidden_size=64).cuda()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", [*SHAPES, *ENCODERS])
def test_the_compiled_kernel_equals_a_mask(tiny, monkeypatch, family, recompute):
    """In float32 but for rounding; in bfloat16 it is about as far from that as the mask is."""
    model = on_gpu(tiny, family)
    model.recompute_activations(recompute)
    inputs = [tensor.cuda() for tensor in batch_for(model)]
    exact = run(model, inputs, monkeypatch, "dense")
    assert error(run(model, inputs, monkeypatch, "flexed"), exact) < 1e-4
    model.bfloat16()
    rounded = error(run(model, inputs, monkeypatch, "dense"), exact)
    assert error(run(model, inputs, monkeypatch, "flexed"), exact) < 1.5 * rounded + 1e-3


@pytest.mark.parametrize("family", SLIDING)
def test_the_band_equals_a_mask(tiny, monkeypatch, family):
    model, inputs = on_gpu(tiny, family), [tensor.cuda() for tensor in long_documents()]
    exact = run(model, inputs, monkeypatch, "dense")
    assert error(run(model, inputs, monkeypatch, "banded"), exact) < 1e-4


def test_long_packed_rows_take_the_kernel_by_themselves(tiny, monkeypatch):
    model, taken = on_gpu(tiny, "gemma2"), []
    monkeypatch.setattr(attention, "FLEX_FROM", 128)
    flexed = attention.flexed
    monkeypatch.setattr(attention, "flexed", lambda *args: taken.append(1) or flexed(*args))
    with torch.no_grad():
        model(*[tensor.cuda() for tensor in batch_for(model)])
    assert len(taken) == model.config.layers


def test_lengths_and_batches_that_vary_compile_few_kernels(tiny, monkeypatch):
    """As in training, where hardly two steps have the same shape."""
    model = on_gpu(tiny, "mistral")
    monkeypatch.setattr(attention, "use_flex", lambda config, positions: True)
    torch._dynamo.utils.counters.clear()
    for B, T in ((2, 300), (2, 301), (3, 512), (1, 640), (4, 1000), (2, 257), (3, 1024), (1, 777)):
        ids = torch.randint(1, 300, (B, T), device="cuda")
        model(ids, end=torch.full_like(ids, T)).sum().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 8  # 4 but for divisors


def test_no_mask_of_all_scores_is_made(tiny, monkeypatch):
    """By memory: (T, T) booleans alone would be 1 GB."""
    model, T = tiny("mistral", hidden_size=64, max_position_embeddings=1 << 20).cuda(), 1 << 15
    ids = torch.randint(1, 300, (1, T), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        model(ids, end=torch.full_like(ids, T))
    assert torch.cuda.max_memory_allocated() < 500e6


@pytest.mark.parametrize("family", SHAPES)
def test_generation_by_graphs_equals_the_processor(tiny, family):
    """Float32, greedy and sampled, rows that end early, a session that goes on; graphs are used again."""
    model = tiny(family)
    prompts = [[5, 9, 200, 31], [7], [5, 9, 200, 31, 4, 4, 18], [250, 3], list(range(3, 60))]
    gpu, stop = fuse(copy.deepcopy(model).cuda()), list(range(0, 300, 8))
    session = sampler.Session(gpu)
    for turn, temperature in enumerate((0.0, 1.0, 0.0)):
        settings = dict(temperature=temperature, seeds=list(range(5)))
        expected = sampler.generate(model, prompts, 20, stop, **settings)
        replies = sampler.generate(gpu, prompts, 20, stop, session=session, **settings)
        assert [reply.ids for reply in replies] == [reply.ids for reply in expected]
        for reply, other in zip(replies, expected):
            torch.testing.assert_close(reply.logps, other.logps, atol=1e-4, rtol=0)
        prompts = [prompt + reply.ids + [turn + 9] for prompt, reply in zip(prompts, expected)]
    assert 0 < len(session.graphs) <= 4


# ------------------------------------------------------------------------------------------------ quantised
quantised = pytest.mark.parametrize("kind", ["int8", "nf4"])


@quantised
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "phi3"])
def test_a_card_packs_and_unpacks_the_matrices_that_the_processor_does(tiny, tmp_path, family, kind):
    """Equal but where a weight lies between two numbers; with an adapter, the same gradients."""
    models.save(tiny(family, hidden_size=64), tmp_path)
    pair = [models.load(tmp_path, device=device, quantize=kind) for device in ("cpu", "cuda")]
    layers = [[layer for _, layer in lora.layers_of(model, QuantizedLinear)] for model in pair]
    for here, there in zip(*layers):
        assert there.codes.is_cuda and there.codes.dtype == here.codes.dtype
        assert (there.codes.cpu() != here.codes).float().mean() < 0.01
        there.load_state_dict(here.state_dict())
        torch.testing.assert_close(there.weight.cpu(), here.weight)
    ids = torch.randint(1, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    results = []
    for model in pair:
        lora.add_lora(model, 4)
        with torch.no_grad():
            for _, layer in lora.adapters(model):
                layer.lora_B.fill_(0.01)
        hidden = model(ids.to(model.device))
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        found = [hidden.detach(), *torch.autograd.grad(hidden.square().mean(), weights)]
        results.append(torch.cat([tensor.cpu().flatten() / tensor.norm().cpu() for tensor in found]))
    assert error(results[1], results[0]) < 1e-4


@quantised
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_a_card_is_near_float32(kind, dtype, tiny, tmp_path):
    models.save(tiny(hidden_size=64), tmp_path)
    exact = models.load(tmp_path, device="cuda", quantize=kind)
    rounded = models.load(tmp_path, dtype, "cuda", quantize=kind)
    ids = torch.randint(1, 300, (2, 20), device="cuda")
    with torch.no_grad():
        assert error(rounded(ids).float(), exact(ids)) < 0.15


@quantised
def test_quantised_matrices_take_the_memory_that_they_have(kind):
    """No full matrix stays, neither after loading nor between the passes."""
    width = 4096
    linear = partial(torch.nn.Linear, width, width, bias=False, device="meta")
    layers = torch.nn.ModuleDict({str(i): linear() for i in range(8)})
    model = torch.nn.ModuleDict({"layers": layers})
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for i in range(8):
        name = f"layers.{i}.weight"
        hold(model, {name: torch.randn(width, width, dtype=torch.bfloat16, device="cuda")}, name, kind)
    one = 2 * width * width
    size = 8 * one * (0.51 if kind == "int8" else 0.26)
    assert torch.cuda.memory_allocated() - before < size + 1e6
    assert torch.cuda.max_memory_allocated() - before < size + 4 * one
    x = torch.randn(256, width, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    torch.cuda.reset_peak_memory_stats()
    y = x
    for layer in layers.values():
        y = layer(y) * 0.01
    y.sum().backward()
    assert torch.cuda.max_memory_allocated() - before < size + 5 * one


@quantised
def test_a_training_on_a_card_learns_and_goes_on(kind, base, world_file, tmp_path, facts):
    facts("sft")
    flags = [*SMALL, "--world", str(world_file), "--model", str(base), "--lora-rank", "2"]
    flags += ["--runs", str(tmp_path), "--device", "cuda", "--dtype", "bfloat16", "--quantize", kind]
    flags += ["--schedule", "constant"]
    assert train.main([*flags, "--name", "run", "--steps", "30"]) == 0
    assert train.main(["--resume", str(tmp_path / "run"), "--steps", "32"]) == 0
    losses = [row["loss"] for row in rows_in(tmp_path / "run") if "loss" in row]
    assert len(losses) == 32 and sum(losses[-5:]) < sum(losses[:5])
