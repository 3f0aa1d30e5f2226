"""A model laid out for inference says the same."""

import copy

import pytest
import torch
from torch.testing import assert_close

from fused import fuse
from lora import add_lora
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


def test_only_a_merged_model_can_be_fused(tiny):
    with pytest.raises(ValueError, match="merge the adapter first"):
        fuse(add_lora(tiny("llama"), 2))
