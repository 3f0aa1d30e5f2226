"""Losses: tensors in, tensors out; no model, no device, no reduction over a batch that could hide a weight.

Each gives a loss for every token, example or pair; the step sums them and divides once by a weight known
before its first backward. What a model says enters as log-probabilities from one function, token_logp."""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 2**26  # logits made at a time: 256 MB in float32


# ------------------------------------------------------------------------------------------------ imitation
def token_logp(head, hidden, target, vocab):
    """Log-probability (N,) in float32 of each target (N,) given hidden states (N, D). head(hidden) gives
    logits (N, vocab).

    Long inputs are cut into chunks, whose logits the backward pass computes again: with a vocabulary of
    256,000 the logits of one token take 1 MB, and as much for their gradient."""

    def logp(hidden, target):
        return -F.cross_entropy(head(hidden).float(), target, reduction="none")

    size = max(1, CHUNK // vocab)
    if len(target) <= size:
        return logp(hidden, target)
    chunks = zip(hidden.split(size), target.split(size))
    again = dict(use_reentrant=False, preserve_rng_state=False)
    return torch.cat([checkpoint(logp, *chunk, **again) for chunk in chunks])


def sft(logp):
    """Negative log-likelihood of each learned token, (N,), from its log-probability."""
    return -logp


def classify(logits, target):
    """Cross-entropy of each example, (B,). logits (B, C); target: class indices (B,) or distributions
    (B, C)."""
    return F.cross_entropy(logits.float(), target, reduction="none")


def davidson(first, second):
    """Logits (B, 3) that the first, the second and neither of two is better, Davidson's model of paired
    comparisons with ties (doi 10.1080/01621459.1970.10481082): softmax of (d / 2, -d / 2, c). first, second
    (B, 2): the worth of each, of which d is the difference, and what each adds to c."""
    half = (first[:, 0] - second[:, 0]) / 2
    tie = first[:, 1] + second[:, 1]
    return torch.stack([half, -half, tie], 1)


def contrastive(query, candidates, own, temperature, query_label, candidate_label):
    """InfoNCE (arXiv 1807.03748) of each query, (B,): its own candidate against all others.

    query (B, E), candidates (M, E), usually of unit length; own (B,): each query's index among the
    candidates. Other candidates with the same label as the query, (B,) and (M,), are right too and do not
    count against it."""
    scores = query.float() @ candidates.float().T / temperature  # (B, M)
    same_label = query_label[:, None] == candidate_label
    is_own = torch.arange(len(candidates), device=own.device) == own[:, None]
    scores = scores.masked_fill(same_label & ~is_own, -torch.inf)
    return F.cross_entropy(scores, own, reduction="none")


def distil(scores, teacher):
    """KL(teacher || scores) of the softmax over each query's own texts, (B,): both (B, G), a teacher's -inf
    where a query has fewer than G."""
    absent = teacher == -torch.inf
    target = teacher.float().masked_fill(absent, -torch.inf).log_softmax(-1)
    logp = scores.float().masked_fill(absent, -torch.inf).log_softmax(-1)
    return (target.exp() * (target - logp).masked_fill(absent, 0.0)).sum(-1)


# ------------------------------------------------------------------------------------------------ preference
def dpo(logp_chosen, logp_rejected, ref_chosen, ref_rejected, beta):
    """Preference loss of each pair, (B,): eq. 7 of arXiv 2305.18290. Inputs: summed log-probabilities,
    (B,)."""
    margin = (logp_chosen - logp_rejected) - (ref_chosen - ref_rejected)
    return -F.logsigmoid(beta * margin)


def kto(logp, ref, good, z, beta):
    """Loss of each judged reply, (B,): eq. 8 of arXiv 2402.01306. Inputs: summed log-probabilities (B,), good
    (B,) bool.

    z: the mean of logp - ref over replies put to other prompts, taken as a constant and at least zero."""
    gain = logp - ref
    z = torch.as_tensor(z).detach().clamp(min=0)
    value = torch.where(good, beta * (gain - z), beta * (z - gain))
    return 1 - torch.sigmoid(value)


# ------------------------------------------------------------------------------------------------ reward
def advantages(rewards, scale=True):
    """Advantages (P, G) of G replies to each of P prompts: reward minus the group's mean, with scale over its
    standard deviation (eq. 3 of arXiv 2402.03300; without, as arXiv 2503.20783 argues). An even group has
    none."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if not scale:
        return centred
    spread = rewards.std(dim=1, keepdim=True)
    return torch.where(spread > 1e-6, centred / (spread + 1e-4), 0.0)


def turn_advantages(credits, scale=True):
    """Advantages (G, J) of the J replies of each of G games of one example, from their credits, nan after a
    game's end: the credit minus its mean over the games that got so far, with scale over the standard
    deviation of all of these. Where one game alone got so far there is none."""
    centred = (credits - credits.nanmean(0)).nan_to_num()
    if not scale:
        return centred
    spread = centred[~credits.isnan()].std()
    return centred / (spread + 1e-4) if spread > 1e-6 else torch.zeros_like(centred)


def grpo(logp, old_logp, advantage, clip_low=0.2, clip_high=0.2):
    """Clipped policy loss of each token, (N,): the min of eq. 3 of arXiv 2402.03300, negated, with the two
    bounds of arXiv 2503.14476. Inputs (N,): log-probability now and when it was sampled, the advantage of its
    reply."""
    ratio = (logp - old_logp.detach()).exp()
    return -torch.min(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)


def kl(logp, ref):
    """Estimate of KL(model || reference) at each token, (N,), never negative: k3 of
    joschu.net/blog/kl-approx.html."""
    gap = ref - logp
    return gap.exp() - gap - 1
