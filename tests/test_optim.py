"""Muon against its definition and against torch's."""

import pytest
import torch

from optim import Muon, orthogonal

SHAPES = [(24, 16), (16, 24), (16, 16), (24, 16)]


def matrices(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


@pytest.mark.parametrize("shape", [(3, 24, 16), (2, 16, 24), (1, 16, 16)])
def test_orthogonal_keeps_the_singular_vectors_and_evens_out_the_values(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(x)
    assert torch.linalg.svdvals(found).amin() > 0.4 and torch.linalg.svdvals(found).amax() < 1.3
    U, _, V = torch.linalg.svd(x, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), (U @ V).flatten(1))
    assert cosine.min() > 0.95


def test_matrices_of_one_shape_do_not_touch_each_other():
    x = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0))
    together, alone = orthogonal(x), torch.cat([orthogonal(one[None]) for one in x])
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
