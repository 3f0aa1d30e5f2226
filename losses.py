"""Losses: tensors in, tensors out; no model, no device, no reduction over a batch that could hide a
weight."""

import torch.nn.functional as F


def token_logp(logits, target):
    """Log-probability of each target (N,) under logits (N, V), in float32."""
    return -F.cross_entropy(logits.float(), target, reduction="none")


def sft(logp):
    """Summed negative log-likelihood of the learned tokens' log-probabilities (N,); the caller divides by the
    step's N."""
    return -logp.sum()
