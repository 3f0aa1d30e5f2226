"""Losses: tensors in, tensors out. No model, no device, and no mean over a batch that could hide a weight.

Each function returns a loss for every token, example or pair. The step sums them and divides once, by a
weight that is known before the first backward pass. The log-probabilities of a language model always come
from token_logp."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 2**26  # logits computed at a time: 256 MB in float32


# ------------------------------------------------------------------------------------------------ imitation
def token_logp(head, hidden, target, vocab) -> Tensor:
    """Log-probability (N,) in float32 of each target (N,), given hidden states (N, D). head(hidden) returns
    logits (N, vocab).

    Long inputs are cut into chunks, and the backward pass computes the logits of a chunk again: with a
    vocabulary of 256,000 the logits of one token take 1 MB, and their gradient takes as much."""

    def logp(hidden, target):
        return -F.cross_entropy(head(hidden).float(), target, reduction="none")

    return in_chunks(logp, vocab, hidden, target)


def in_chunks(measure, vocab, *inputs) -> Tensor:
    """measure(*inputs) (N,), where each of the N rows needs logits over `vocab` tokens."""
    size = max(1, CHUNK // vocab)
    if len(inputs[0]) <= size:
        return measure(*inputs)

    settings = dict(use_reentrant=False, preserve_rng_state=False)  # a head has no dropout
    chunks = zip(*(values.split(size) for values in inputs))
    return torch.cat([checkpoint(measure, *chunk, **settings) for chunk in chunks])


def sft(logp) -> Tensor:
    """Negative log-likelihood (N,) of each learned token, from its log-probability (N,)."""
    return -logp


def classify(logits, target) -> Tensor:
    """Cross-entropy (B,) of each example, from logits (B, C) and targets: class indices (B,) or distributions
    (B, C)."""
    return F.cross_entropy(logits.float(), target, reduction="none")


def davidson(first, second) -> Tensor:
    """Logits (B, 3) for "the first is better", "the second is better" and "neither": Davidson's model of
    paired comparisons with ties (doi 10.1080/01621459.1970.10481082).

    first, second (B, 2): the worth of each text, and its part of the tie. With d the difference of the worths
    and c the sum of the parts, the logits are (d / 2, -d / 2, c)."""
    half = (first[:, 0] - second[:, 0]) / 2
    tie = first[:, 1] + second[:, 1]
    return torch.stack([half, -half, tie], 1)


def bradley_terry(first, second) -> Tensor:
    """Loss (B,) of each pair whose first reply was preferred, from the scores (B,) of both: eq. 1 of arXiv
    2203.02155, by which reward models are trained."""
    return -F.logsigmoid(first - second)


def contrastive(query, candidates, positive, temperature, query_label, candidate_label) -> Tensor:
    """InfoNCE (arXiv 1807.03748) of each query, (B,): its positive against all other candidates.

    query (B, E) and candidates (M, E) usually have unit length. positive (B,) is the index of each query's
    positive among the candidates. query_label (B,) and candidate_label (M,): other candidates with the
    query's label are right too, so they are left out of its softmax."""
    scores = query.float() @ candidates.float().T / temperature  # (B, M)
    same_label = query_label[:, None] == candidate_label  # (B, M)
    is_positive = torch.arange(len(candidates), device=positive.device) == positive[:, None]  # (B, M)
    scores = scores.masked_fill(same_label & ~is_positive, -torch.inf)
    return F.cross_entropy(scores, positive, reduction="none")


# ------------------------------------------------------------------------------------------------ preference
def dpo(logp_chosen, logp_rejected, ref_chosen, ref_rejected, beta) -> Tensor:
    """Preference loss (B,) of each pair: eq. 7 of arXiv 2305.18290. Inputs (B,): log-probabilities of whole
    replies, under the model and under the reference."""
    margin = (logp_chosen - logp_rejected) - (ref_chosen - ref_rejected)
    return -F.logsigmoid(beta * margin)


def simpo(mean_chosen, mean_rejected, beta, margin) -> Tensor:
    """Preference loss (B,) of each pair, without a reference: eq. 6 of arXiv 2405.14734. Inputs (B,): the
    mean log-probability of a token of each reply. beta times their gap shall exceed margin."""
    return -F.logsigmoid(beta * (mean_chosen - mean_rejected) - margin)


def kto(logp, ref, good, z, beta) -> Tensor:
    """Loss (B,) of each judged reply: eq. 8 of arXiv 2402.01306. Inputs: log-probabilities of whole replies
    (B,), good (B,) bool.

    z is the mean of logp - ref over replies combined with other prompts. It is a constant, at least zero."""
    gain = logp - ref
    z = torch.as_tensor(z).detach().clamp(min=0)  # an estimate of a KL divergence, which is never negative
    value = torch.where(good, beta * (gain - z), beta * (z - gain))
    return 1 - torch.sigmoid(value)


# ------------------------------------------------------------------------------------------------ an expert
def distil(head, expert_head, hidden, expert_hidden, vocab) -> Tensor:
    """KL(student || expert) (N,) of the next token at each place of replies that the student sampled: the
    reverse KL of arXiv 2306.13649, over the first `vocab` tokens, those that both have. hidden (N, D) and
    expert_hidden (N, D') are hidden states, and each head makes logits of its own."""

    def divergence(hidden, expert_hidden):
        logp = head(hidden)[:, :vocab].float().log_softmax(-1)  # (N, vocab)
        expert = expert_head(expert_hidden)[:, :vocab].float().log_softmax(-1)
        return (logp.exp() * (logp - expert)).sum(-1)

    return in_chunks(divergence, vocab, hidden, expert_hidden)


# ------------------------------------------------------------------------------------------------ reward
def advantages(rewards, scale=True) -> Tensor:
    """Advantages (P, G) of G replies to each of P prompts: the reward minus the group's mean, divided by the
    group's standard deviation if scale (eq. 3 of arXiv 2402.03300; arXiv 2503.20783 argues against scale).

    A group of equal rewards has advantages of zero. So has a reply whose reward is unknown (nan), and it
    counts neither in the mean nor in the deviation."""
    centred = (rewards - rewards.nanmean(1, keepdim=True)).nan_to_num()
    if not scale:
        return centred
    spread = spread_of(rewards)[:, None]  # (P, 1)
    return torch.where(spread > 1e-6, centred / (spread + 1e-4), 0.0)


def spread_of(rewards) -> Tensor:
    """Standard deviation (P,) of the known rewards of each group; 0 where fewer than two are known."""
    centred = (rewards - rewards.nanmean(1, keepdim=True)).nan_to_num()
    known = (~rewards.isnan()).sum(1)  # (P,)
    return (centred.square().sum(1) / (known - 1).clamp(min=1)).sqrt()


def turn_advantages(credits, scale=True) -> Tensor:
    """Advantages (G, J) of the J replies in each of G games about one example, from credits (G, J) that are
    nan after the end of a game.

    An advantage is the credit minus the mean over all games that reached this reply, divided by the standard
    deviation of all differences if scale. It is zero where only one game reached the reply."""
    centred = (credits - credits.nanmean(0)).nan_to_num()
    if not scale:
        return centred
    spread = centred[~credits.isnan()].std()
    return centred / (spread + 1e-4) if spread > 1e-6 else torch.zeros_like(centred)


def grpo(logp, old_logp, advantage, clip_low=0.2, clip_high=0.2) -> Tensor:
    """Clipped policy loss (N,) of each token: the min of eq. 3 of arXiv 2402.03300, negated, with the two
    bounds of arXiv 2503.14476. Inputs (N,): log-probability now, log-probability at sampling, and advantage
    of the reply."""
    ratio = (logp - old_logp.detach()).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.min(ratio * advantage, clipped * advantage)


def kl(logp, ref) -> Tensor:
    """Estimate (N,) of KL(model || reference) at each token: k3 of joschu.net/blog/kl-approx.html."""
    gap = ref - logp
    return gap.exp() - gap - 1  # never negative, unlike -gap, which has the same mean
