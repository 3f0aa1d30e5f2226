"""Prompts, settings and checks that the tests of generation share."""

import pytest
import torch
from conftest import RECURRENT, SHAPES
from torch.testing import assert_close

STOP = list(range(0, 300, 8))
PROMPTS = [[5, 9, 200, 31], [7], [5, 9, 200, 31, 4, 4, 18, 90, 2], [250, 3]]
SAMPLING = [dict(temperature=0.0), dict(temperature=1.3, seeds=[[3, row] for row in range(4)])]
families = pytest.mark.parametrize("family", SHAPES)
attentive = pytest.mark.parametrize("family", [family for family in SHAPES if family not in RECURRENT])
samplings = pytest.mark.parametrize("sampling", SAMPLING, ids=["greedy", "sampled"])


@torch.no_grad()
def teacher_forced(model, prompt, ids):
    """Log-probability of each of ids after prompt, without a cache: (len(ids),)."""
    logps = model.logits(model(torch.tensor([[*prompt, *ids]]))).log_softmax(-1)[0]
    return logps[len(prompt) - 1 : -1].gather(1, torch.tensor(ids)[:, None])[:, 0]


def agree(replies, expected):
    """Assert that replies are the same tokens, with log-probabilities equal to 1e-5."""
    assert [reply.ids for reply in replies] == [reply.ids for reply in expected]
    assert [reply.finished for reply in replies] == [reply.finished for reply in expected]
    for reply, other in zip(replies, expected):
        assert_close(reply.logps, other.logps, atol=1e-5, rtol=0)


def count(model):
    """A list that from now on takes the shape (B, T) of everything that model reads."""
    shapes, forward = [], model.forward

    def counted(ids, *rest, **named):
        shapes.append(tuple(ids.shape))
        return forward(ids, *rest, **named)

    model.forward = counted
    return shapes
