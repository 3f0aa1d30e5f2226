"""Matrices held in 8 or 4 bits under an adapter: their numbers, their gradients, and training on them."""

import gc
import math

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from conftest import ENCODERS, SHAPES
from safetensors.torch import load_file
from torch.testing import assert_close

import checkpoint
import lora
import model as models
import train
import weights
from quantized import BLOCK, GROUP, NF4, QuantizedLinear, hold, pack_nf4
from tests.facts import KINDS, SMALL, rows_in

kinds = pytest.mark.parametrize("kind", ["int8", "nf4"])
IDS = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0))
SHAPES_OF_MATRICES = [(7, 5), (64, 64), (3, 333), (40, 576)]


def matrix(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def quantised(weight, kind):
    """A layer without a bias that holds the matrix."""
    layer = nn.Linear(*weight.T.shape, bias=False)
    model = nn.ModuleDict({"layers": nn.ModuleDict({"x": layer})})
    hold(model, {"layers.x.weight": weight}, "layers.x.weight", kind)
    return layer


def outputs(model):
    with torch.no_grad():
        return model.logits(model(IDS))


# ------------------------------------------------------------------------------------------------ the numbers
@pytest.mark.parametrize("shape", SHAPES_OF_MATRICES)
def test_a_weight_in_int8_is_at_most_half_a_step_off(shape):
    weight = matrix(*shape)
    weight[0] = 0
    error = (quantised(weight, "int8").weight - weight).abs()
    assert (error <= weight.abs().amax(1, keepdim=True) / 127 * 0.501).all()


@pytest.mark.parametrize("shape", SHAPES_OF_MATRICES)
def test_a_weight_in_nf4_is_the_nearest_of_its_blocks_sixteen_numbers(shape):
    weight = matrix(*shape)
    weight[0] = 0
    found = quantised(weight, "nf4").weight.flatten()
    for begin in range(0, weight.numel(), BLOCK):
        block = weight.flatten()[begin : begin + BLOCK]
        numbers = found[begin : begin + BLOCK]
        length = numbers.abs().max() / (1 if block.abs().max() > 0 else 1)
        # the block's own scale: its largest weight, rounded up by at most one step of its group
        first = begin // BLOCK // GROUP * GROUP * BLOCK
        step = weight.flatten()[first : first + GROUP * BLOCK].abs().max() / 255
        assert block.abs().max() <= length * 1.0001 + step and length <= block.abs().max() + step * 1.001
        choices = torch.tensor(NF4) * length
        nearest = choices[(block[:, None] - choices).abs().argmin(1)]
        assert ((numbers - block).abs() <= (nearest - block).abs() + 1e-6).all()


def test_nf4_takes_four_bits_and_a_few_for_scales():
    packed = pack_nf4(matrix(512, 1024).bfloat16())
    assert sum(part.nbytes for part in packed) / (512 * 1024) == 1 / 2 + 1 / BLOCK + 4 / BLOCK / GROUP


@kinds
def test_rows_of_very_different_size_keep_their_relative_error(kind):
    weight = matrix(64, 256) * torch.logspace(-3, 3, 64)[:, None]
    errors = (quantised(weight, kind).weight - weight).norm(dim=1) / weight.norm(dim=1)
    # steps of a group's scales are shared, so in nf4 its smallest blocks are coarser
    assert errors.max() < 0.011 if kind == "int8" else errors[-16:].max() < 0.11


@kinds
@pytest.mark.parametrize("number", [torch.inf, torch.nan])
def test_a_matrix_that_is_not_finite_is_refused(kind, number):
    weight = matrix(8, 64)
    weight[3, 5] = number
    with pytest.raises(ValueError, match="layers.x.weight"):
        quantised(weight, kind)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_output_and_gradient_are_those_of_the_matrix_that_it_stands_for(kind, dtype):
    layer = quantised(matrix(24, 36).to(dtype), kind)
    layer.bias = nn.Parameter(matrix(24, seed=2).to(dtype), requires_grad=False)
    x = matrix(2, 5, 36, seed=1).to(dtype).requires_grad_()
    y = layer(x)
    plain = F.linear(x, layer.matrix(dtype), layer.bias)
    assert y.dtype == dtype and torch.equal(y, plain)
    gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in (y, plain)]
    assert torch.equal(*gradients)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@kinds
def test_no_matrix_is_kept_for_the_backward_pass(kind):
    layer = quantised(matrix(64, 64), kind)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda x: x):
        layer(matrix(3, 64).requires_grad_()).sum()
    assert sum(kept) == 0


# ------------------------------------------------------------------------------------------------ a model
@pytest.fixture
def folder(tiny, tmp_path):
    models.save(tiny(), tmp_path / "base")
    return tmp_path


@pytest.mark.parametrize(
    "family, kind", [("llama", "int8"), *((name, "nf4") for name in [*SHAPES, *ENCODERS])]
)
def test_every_linear_layer_of_a_block_is_quantised_and_nothing_else(tiny, tmp_path, family, kind):
    """The model that it stands for is the plain one with its matrices replaced."""
    models.save(tiny(family), tmp_path)
    model = models.load(tmp_path, quantize=kind)
    plain = models.load(tmp_path)
    layers = dict(lora.layers_of(model, QuantizedLinear))
    assert layers.keys() == {name for name in lora.linears(plain) if name.startswith("layers.")}
    with torch.no_grad():
        for name, layer in layers.items():
            plain.get_submodule(name).weight.copy_(layer.weight)
    assert_close(model(IDS), plain(IDS), atol=1e-5, rtol=1e-5)
    assert not any(weight.is_meta for weight in model.parameters())
    for name, weight in plain.state_dict().items():
        if name.removesuffix(".weight") not in layers:
            assert torch.equal(model.state_dict()[name], weight)


@kinds
def test_a_matrix_is_gone_before_the_next_one_is_read(folder, monkeypatch, kind):
    read = weights.read_tensor
    most = 0

    def alive():
        tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor and one.shape == (48, 32)]
        return sum(one.is_floating_point() and not one.is_meta for one in tensors)

    def watched(path, key, device):
        nonlocal most
        most = max(most, alive())
        return read(path, key, device)

    gc.collect()
    others = alive()  # of other tests
    monkeypatch.setattr(weights, "read_tensor", watched)
    models.load(folder / "base", quantize=kind)
    assert most <= others


@kinds
@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_on_a_quantised_base_is_that_on_its_matrices(folder, kind, dora):
    model = lora.add_lora(models.load(folder / "base", quantize=kind), 2, dora=dora)
    plain = models.load(folder / "base")
    with torch.no_grad():
        for name, layer in lora.layers_of(model, QuantizedLinear):
            plain.get_submodule(name.removesuffix(".base")).weight.copy_(layer.weight)
    lora.add_lora(plain, 2, dora=dora)
    with torch.no_grad():
        for (_, ours), (_, theirs) in zip(lora.adapters(model), lora.adapters(plain)):
            for name in ("lora_A", "lora_B"):
                fresh = torch.randn(getattr(ours, name).shape)
                getattr(ours, name).copy_(fresh)
                getattr(theirs, name).copy_(fresh)
    assert_close(outputs(model), outputs(plain), atol=1e-4, rtol=1e-4)
    with lora.without_lora(model), lora.without_lora(plain):
        assert_close(outputs(model), outputs(plain), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="quantize"):
        lora.merge_lora(model)
    lora.save_lora(model, folder / "adapter", folder / "base")
    lora.save_lora(plain, folder / "other", folder / "base")
    ours, theirs = (load_file(folder / name / "adapter_model.safetensors") for name in ("adapter", "other"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


# ------------------------------------------------------------------------------------------------ training
@pytest.fixture
def flags(world_file, base, expert, tmp_path):
    models = ["--model", str(base), "--expert", str(expert), "--lora-rank", "2"]
    return [*SMALL, "--world", str(world_file), *models, "--runs", str(tmp_path)]


@pytest.mark.parametrize("loss", KINDS)
def test_every_loss_trains_the_adapter_alone(flags, facts, base, tmp_path, loss):
    facts(loss)
    assert train.main([*flags, "--name", "run", "--steps", "2", "--quantize", "nf4", "--checkpointing"]) == 0
    rows = [row for row in rows_in(tmp_path / "run") if "loss" in row]
    assert len(rows) == 2 and all(row["grad"] > 0 for row in rows)
    opened = checkpoint.open(tmp_path / "run", tokenizer=False).model
    assert not lora.layers_of(opened, QuantizedLinear)  # it lies on the base's own weights
    merged = lora.merge_lora(opened).state_dict()
    plain = models.load(base).state_dict()
    assert torch.equal(merged["embed.weight"], plain["embed.weight"])
    assert not torch.equal(merged["layers.0.mlp.up_proj.weight"], plain["layers.0.mlp.up_proj.weight"])


@kinds
def test_a_run_that_was_stopped_ends_in_the_same_bits(flags, facts, tmp_path, kind):
    facts("sft")
    flags = [*flags, "--quantize", kind, "--schedule", "constant", "--lora-dropout", "0.1"]
    assert train.main([*flags, "--name", "whole", "--steps", "4"]) == 0
    assert train.main([*flags, "--name", "parts", "--steps", "2"]) == 0
    assert train.main(["--resume", str(tmp_path / "parts"), "--steps", "4"]) == 0
    whole, parts = (
        load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)

    assert train.main(["--resume", str(tmp_path / "parts"), "--quantize", ""]) == 2


@pytest.mark.parametrize("first", [[], ["--quantize", "nf4"]])
def test_the_reference_is_the_quantised_base_with_the_adapter_that_training_began_with(
    flags, facts, tmp_path, first
):
    """So at the first step of DPO neither reply is preferred."""
    facts("sft")
    assert train.main([*flags, *first, "--name", "sft", "--steps", "3"]) == 0
    facts("dpo")
    flags[flags.index("--model") : flags.index("--model") + 2] = ["--init", str(tmp_path / "sft")]
    assert train.main([*flags, "--name", "dpo", "--steps", "1", "--quantize", "nf4"]) == 0
    assert rows_in(tmp_path / "dpo")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_weights_themselves_are_not_trained_in_so_few_bits(flags, capsys):
    assert train.main([*flags, "--quantize", "nf4", "--lora-rank", "0"]) == 2
    assert "--lora-rank" in capsys.readouterr().err
    assert train.main([*flags, "--quantize", "int4"]) == 2
