"""Muon against its definition and against torch's, which weights each optimizer takes, and the schedule."""

import math
from types import SimpleNamespace

import pytest
import torch

from optim import SCHEDULES, Muon, optimizers_of, orthogonalise, schedule

SHAPES = [(24, 16), (16, 24), (16, 16), (24, 16)]


def matrices(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


@pytest.mark.parametrize("shape", [(3, 24, 16), (2, 16, 24), (1, 16, 16)])
def test_orthogonal_keeps_the_singular_vectors_and_evens_out_the_values(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalise(x)
    assert torch.linalg.svdvals(found).amin() > 0.4 and torch.linalg.svdvals(found).amax() < 1.3
    U, _, V = torch.linalg.svd(x, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), (U @ V).flatten(1))
    assert cosine.min() > 0.95


def test_matrices_of_one_shape_do_not_touch_each_other():
    x = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0))
    together, alone = orthogonalise(x), torch.cat([orthogonalise(one[None]) for one in x])
    assert torch.allclose(together, alone, atol=1e-5)


def test_steps_are_those_of_torchs_muon_up_to_its_rounding(monkeypatch):
    """It works in bfloat16; in float32 they are the same."""
    weights, theirs = ([w.clone().requires_grad_() for w in matrices(0)] for _ in range(2))
    ours = Muon(weights, lr=0.02, weight_decay=0.1)
    other = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    for seed in range(1, 5):
        for both in zip(weights, theirs, matrices(seed)):
            both[0].grad, both[1].grad = both[2].clone(), both[2].clone()
        if seed == 3:
            weights[0].grad = theirs[0].grad = None
        ours.step()
        other.step()
    for a, b, start in zip(weights, theirs, matrices(0)):
        assert torch.allclose(a, b, atol=1e-5) and (a - start).abs().max() > 0.01


# ------------------------------------------------------------------------------------------------ weights
def settings(**more):
    defaults = dict(optimizer="muon", lr=0.1, muon_lr=0.2, weight_decay=0.3, beta2=0.99)
    return SimpleNamespace(**(defaults | more))


@pytest.mark.parametrize(
    "optimizer, frozen",
    [("muon", ""), ("adamw", ""), ("muon", "layers."), ("muon", "norm"), ("muon", "embed")],
)
def test_each_trained_weight_has_one_optimizer_and_only_matrices_decay(tiny, optimizer, frozen):
    model = tiny()
    named = dict(model.named_parameters())
    for key, weight in named.items():
        weight.requires_grad_(not (frozen and frozen in key))
    taken = {}
    for one, peak in optimizers_of(model, settings(optimizer=optimizer)):
        assert peak == (0.2 if isinstance(one, Muon) else 0.1)
        for group in one.param_groups:
            assert group["params"] and group["lr"] == peak
            for weight in group["params"]:
                assert id(weight) not in taken and group["weight_decay"] == (0.3 if weight.dim() > 1 else 0.0)
                taken[id(weight)] = isinstance(one, Muon)
    for key, weight in named.items():
        by_muon = optimizer == "muon" and weight.dim() == 2 and key.startswith("layers.")
        assert taken.get(id(weight)) == (by_muon if weight.requires_grad else None), key


# ------------------------------------------------------------------------------------------------ schedule
def rates(steps=100, **more):
    cfg = SimpleNamespace(**dict(steps=steps, warmup=0.0, final_lr=0.0, schedule="linear") | more)
    return [schedule(step, cfg) for step in range(steps)]


def test_the_learning_rate_warms_up_in_equal_steps():
    shares = rates(warmup=0.1, schedule="constant")
    assert shares == pytest.approx([0.1 * (i + 1) for i in range(10)] + [1.0] * 90)


@pytest.mark.parametrize("shape", SCHEDULES)
def test_schedules_start_at_the_peak_and_fall_to_the_end(shape):
    expected = {
        "linear": lambda x: x,
        "cosine": lambda x: math.sin(math.pi * x / 2) ** 2,
        "constant": lambda x: 1,
    }
    by_hand = [expected[shape](1 - (step - 1) / 99) for step in range(1, 100)]
    assert rates(schedule=shape) == pytest.approx([1.0, *by_hand])


def test_the_schedule_ends_at_final_lr():
    shares = rates(schedule="cosine", final_lr=0.2)
    assert min(shares) == shares[-1] == pytest.approx(0.2, abs=0.001) and shares[-1] > 0.2


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
@pytest.mark.parametrize("warmup", [0, 0.01, 0.5, 1])
def test_no_step_has_a_rate_of_zero(steps, warmup):
    assert min(rates(steps, warmup=warmup)) > 0 and max(rates(steps, warmup=warmup)) == 1
