"""Losses on hand-worked numbers, and their gradients."""

import math

import pytest
import torch
from torch.testing import assert_close

import losses
from losses import (
    advantages,
    bradley_terry,
    classify,
    contrastive,
    davidson,
    distil,
    dpo,
    grpo,
    kl,
    kto,
    sft,
    simpo,
    token_logp,
)

LN = math.log


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# ------------------------------------------------------------------------------------------------ imitation
def capped_head(weight):
    return lambda hidden: 3 * torch.tanh(hidden @ weight.T / 3)


@pytest.mark.parametrize("chunk", [1, 41 * 7])
def test_chunks_of_logits_change_neither_log_probabilities_nor_gradients(monkeypatch, chunk):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=generator) for n in (23, 40))
    target = torch.randint(40, (23,), generator=generator)
    results = []
    for size in (2**26, chunk):
        monkeypatch.setattr(losses, "CHUNK", size)
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        logp = token_logp(capped_head(w), h, target, 40)
        sft(logp).sum().backward()
        results.append((logp.detach(), h.grad, w.grad))
    assert_close(results[1], results[0], atol=1e-6, rtol=1e-5)
    expected = capped_head(weight)(hidden).log_softmax(-1)[torch.arange(23), target]
    assert_close(results[1][0], expected, atol=1e-6, rtol=1e-5)


def test_no_more_logits_than_a_chunk_exist_at_once(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK", 10 * 40)
    seen = []

    def head(hidden):
        seen.append(len(hidden))
        return hidden @ torch.ones(8, 40)

    hidden = torch.randn(23, 8, requires_grad=True)
    token_logp(head, hidden, torch.zeros(23, dtype=torch.long), 40).sum().backward()
    assert sorted(seen) == [3, 3, 10, 10, 10, 10]  # once forward, once backward


def test_log_probability_of_a_token_by_hand():
    logits = torch.tensor([[0.0, LN(3)], [LN(4), 0.0]])
    logp = token_logp(lambda hidden: logits, torch.zeros(2, 1), torch.tensor([1, 1]), 2)
    assert_close(logp, torch.tensor([LN(3 / 4), LN(1 / 5)]))
    assert_close(sft(logp), torch.tensor([LN(4 / 3), LN(5)]))


def test_classify_by_hand_with_indices_and_distributions():
    logits = torch.tensor([[0.0, LN(3)], [LN(4), 0.0]])
    assert_close(classify(logits, torch.tensor([1, 1])), torch.tensor([LN(4 / 3), LN(5)]))
    assert_close(classify(logits, torch.tensor([[0.0, 1.0], [0.0, 1.0]])), torch.tensor([LN(4 / 3), LN(5)]))
    half = classify(logits, torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    assert_close(half, torch.tensor([(LN(4) + LN(4 / 3)) / 2, (LN(5 / 4) + LN(5)) / 2]))


def test_contrastive_of_orthonormal_vectors_is_known_and_pushes_no_candidate_of_the_same_label_away():
    vectors, four = torch.eye(4), torch.arange(4)
    loss = contrastive(vectors, vectors, four, 0.5, four, four)
    assert_close(loss, torch.full((4,), LN(1 + 3 * math.exp(-2))))
    query = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    candidates = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    own, labels = torch.tensor([0, 1]), torch.tensor([7, 8, 7, 9])  # the third is another positive of query 0
    loss = contrastive(query, candidates, own, 1.0, torch.tensor([7, 8]), labels)
    scores = query @ candidates.T
    expected = torch.stack(
        [scores[0, [0, 1, 3]].logsumexp(0) - scores[0, 0], scores[1].logsumexp(0) - scores[1, 1]]
    )
    assert_close(loss, expected)
    loss[0].backward()
    assert candidates.grad[2].abs().max() == 0 and candidates.grad[3].abs().max() > 0


# ------------------------------------------------------------------------------------------------ preference
def test_davidson_by_hand():
    first, second = torch.tensor([[2.0, 0.5], [0.0, 0.0]]), torch.tensor([[1.0, 0.25], [0.0, -math.inf]])
    logits = davidson(first, second)
    assert_close(logits[0], torch.tensor([0.5, -0.5, 0.75]))
    assert_close(logits[1].softmax(0), torch.tensor([0.5, 0.5, 0.0]))  # without ties Bradley and Terry's


def test_bradley_terry_by_hand():
    found = bradley_terry(tensor(1, 0, -3), tensor(1, LN(3), -5))
    assert_close(found, tensor(LN(2), LN(4), math.log1p(math.exp(-2))))


def test_dpo_starts_at_log_two_and_by_hand():
    same = tensor(-3, -7)
    assert_close(dpo(same, same - 2, same, same - 2, beta=0.3), tensor(LN(2), LN(2)))
    loss = dpo(tensor(-10), tensor(-20), tensor(-12), tensor(-19), beta=0.1)  # margin 10 - 7
    assert_close(loss, tensor(-LN(sigmoid(0.3))))


def test_simpo_by_hand():
    loss = simpo(tensor(-1.0, -2.0), tensor(-1.5, -1.0), beta=2.0, margin=0.5)
    assert_close(loss, tensor(-LN(sigmoid(0.5)), -LN(sigmoid(-2.5))))


def test_kto_by_hand():
    logp, ref, good = tensor(-10, -10), tensor(-12, -12), torch.tensor([True, False])
    assert_close(kto(logp, ref, good, z=0.5, beta=0.1), tensor(1 - sigmoid(0.15), 1 - sigmoid(-0.15)))
    assert_close(kto(logp, ref, good, z=-4.0, beta=0.1), tensor(1 - sigmoid(0.2), 1 - sigmoid(-0.2)))
    z = tensor(0.5)[0].requires_grad_()
    kto(logp.requires_grad_(), ref, good, z, 0.1).sum().backward()
    assert z.grad is None


@pytest.mark.parametrize("chunk", [2**26, 8])
def test_distil_is_the_reverse_divergence_over_the_tokens_that_both_have(chunk, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK", chunk)
    student = torch.tensor([[LN(3), 0.0, 50.0], [0.0, 0.0, 0.0], [1.0, 2.0, 0.0]], requires_grad=True)
    expert = torch.tensor([[0.0, LN(3)], [0.0, 0.0], [1.0, 2.0]])
    head = lambda hidden: hidden
    gap = distil(head, head, student, expert, 2)
    assert_close(gap, torch.tensor([0.5 * LN(3), 0.0, 0.0]))
    gap.sum().backward()
    # p (log p - log q - KL) of each token
    assert_close(student.grad[0], torch.tensor([0.75 * 0.5 * LN(3), -0.25 * 1.5 * LN(3), 0.0]))
    assert student.grad[1:].abs().max() < 1e-6


# ------------------------------------------------------------------------------------------------ reward
def test_advantages_by_hand():
    rewards = torch.tensor([[0.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    assert_close(advantages(rewards, scale=False), torch.tensor([[-0.5, 0.5, 0.5, -0.5], [0.0] * 4]))
    spread = 0.5 * (4 / 3) ** 0.5
    expected = 0.5 / (spread + 1e-4)
    scaled = torch.tensor([[-expected, expected, expected, -expected], [0.0] * 4])
    assert_close(advantages(rewards), scaled)
    assert advantages(torch.full((1, 3), 0.1)).abs().max() < 1e-6  # whatever rounding leaves of its spread


def test_an_unknown_reward_has_no_advantage_and_does_not_count():
    rewards = torch.tensor([[1.0, math.nan, 0.0], [math.nan, 2.0, math.nan], [math.nan] * 3])
    assert_close(advantages(rewards, scale=False), torch.tensor([[0.5, 0.0, -0.5], [0.0] * 3, [0.0] * 3]))
    scaled = advantages(rewards)
    assert_close(scaled[0], torch.tensor([0.5, 0.0, -0.5]) / (0.5**0.5 + 1e-4))
    assert scaled[1:].abs().max() == 0
    assert_close(losses.spread_of(rewards), torch.tensor([0.5**0.5, 0.0, 0.0]))


def test_grpo_on_policy_is_the_policy_gradient():
    logp = tensor(-1, -2).requires_grad_()
    loss = grpo(logp, logp, tensor(2, -3))
    assert_close(loss.detach(), tensor(-2, 3))
    loss.sum().backward()
    assert_close(logp.grad, tensor(-2, 3))


def test_grpo_stops_pushing_outside_its_bounds_and_only_outwards():
    old, advantage = tensor(0, 0, 0, 0), tensor(1, 1, -1, -1)
    logp = tensor(LN(1.5), LN(0.5), LN(1.5), LN(0.5)).requires_grad_()
    loss = grpo(logp, old, advantage, clip_low=0.2, clip_high=0.3)
    assert_close(loss.detach(), tensor(-1.3, -0.5, 1.5, 0.8))
    loss.sum().backward()
    assert_close(logp.grad, tensor(0, -0.5, 1.5, 0))


def test_kl_is_zero_at_the_reference_positive_elsewhere_and_pulls_towards_it():
    logp, ref = tensor(-1, -1, -1).requires_grad_(), tensor(-1, -3, -0.5)
    found = kl(logp, ref)
    assert_close(found.detach(), tensor(0, math.exp(-2) + 2 - 1, math.exp(0.5) - 0.5 - 1))
    found.sum().backward()
    assert logp.grad[0] == 0 and logp.grad[1] > 0 > logp.grad[2]


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: dpo(a, b, tensor(-1, -2, -3), tensor(-2, -1, -3), 0.3),
        lambda a, b: simpo(a, b, 2.0, 0.5),
        lambda a, b: kto(a, b, torch.tensor([True, False, True]), 0.2, 0.3),
        lambda a, b: grpo(a, tensor(-1.1, -2.45, -0.33), tensor(1, -2, 0.5)) + 0 * b,
        kl,
    ],
    ids=["dpo", "simpo", "kto", "grpo", "kl"],
)
def test_gradients_equal_finite_differences(loss):
    a, b = tensor(-1.0, -2.5, -0.3).requires_grad_(), tensor(-1.1, -2.45, -0.33).requires_grad_()
    assert torch.autograd.gradcheck(loss, (a, b))
