"""The smaller layers of a model: norms, the MLP, the classifier. Shapes as in model.py."""

from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

tanh_gelu = partial(F.gelu, approximate="tanh")
FUNCTIONS = {  # the names are families.ACTIVATIONS
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "relu": F.relu,
    "tanh": torch.tanh,
}


class RMSNorm(nn.Module):
    """x / rms(x), computed in float32 and scaled by a learned weight.

    The weight multiplies after the cast back to x's dtype; with an `offset`, offset + weight multiplies
    before it. Families differ in this, and in bfloat16 the two round differently."""

    def __init__(self, dim, eps, offset=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps
        self.offset = offset

    def forward(self, x):
        shape = self.weight.shape
        if self.offset is not None:
            return F.rms_norm(x.float(), shape, self.offset + self.weight.float(), self.eps).to(x.dtype)
        if x.dtype == torch.float32:  # one kernel can do it all; in fused.py the weight may be narrower
            return F.rms_norm(x, shape, self.weight.float(), self.eps)
        return F.rms_norm(x.float(), shape, None, self.eps).to(x.dtype) * self.weight


def make_norm(config, wanted=True, dim=None):
    """A norm of the family's kind, or an Identity if none is wanted. dim defaults to the model width."""
    dim = dim or config.dim
    if not wanted:
        return nn.Identity()
    if config.norm == "layer":
        return nn.LayerNorm(dim, config.eps, bias=config.norm_bias)
    return RMSNorm(dim, config.eps, {"rms0": 0, "rms1": 1}.get(config.norm))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        linear = partial(nn.Linear, bias=config.mlp_bias)
        if config.gated:
            self.gate_proj = linear(config.dim, config.mlp_dim)
        self.up_proj = linear(config.dim, config.mlp_dim)
        self.down_proj = linear(config.mlp_dim, config.dim)
        self.activation = FUNCTIONS[config.activation]
        self.gated = config.gated

    def forward(self, x):
        if not self.gated:
            return self.down_proj(self.activation(self.up_proj(x)))
        if hasattr(self, "gate_up_proj"):  # see fused.py
            gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        else:
            gate = self.gate_proj(x)
            up = self.up_proj(x)
        return self.down_proj(self.activation(gate) * up)


class Classifier(nn.Module):
    """Class scores (B, labels) of pooled hidden states (B, D): a linear layer, which some families put behind
    another one with an activation and a norm."""

    def __init__(self, config):
        super().__init__()
        dim = config.dim
        if config.dense:
            self.dense = nn.Linear(dim, dim, bias=config.dense_bias)
            self.activation = FUNCTIONS[config.dense]
        else:
            self.dense = nn.Identity()
            self.activation = nn.Identity()
        self.dense_norm = make_norm(config, config.dense_norm)
        self.out = nn.Linear(dim, config.labels, bias=config.classes_bias)

    def forward(self, x):
        x = self.activation(self.dense(x))
        return self.out(self.dense_norm(x))


def pool(hidden: Tensor, end: Tensor | None, how: str) -> Tensor:
    """Pool hidden states (B, T, D) to one vector per row, (B, D): the first token ("cls"), the last ("last")
    or the mean.

    Only tokens with an `end` (B, T) above 0 count, so padding may be on either side; None counts them all."""
    device = hidden.device
    B, T, _ = hidden.shape
    if end is None:
        valid = torch.ones(B, T, device=device)
    else:
        valid = (end > 0).float()  # (B, T)

    if how == "mean":
        total = (hidden.float() * valid[:, :, None]).sum(1)  # (B, D)
        length = valid.sum(1).clamp(min=1)  # at least 1, so a row of padding gives zeros
        return (total / length[:, None]).to(hidden.dtype)

    # padding scores 0; among valid slots, 1 / slot is greatest at the first and slot at the last
    slots = torch.arange(1, T + 1, device=device)
    if how == "cls":
        scores = valid / slots
    else:
        scores = valid * slots
    rows = torch.arange(B, device=device)
    return hidden[rows, scores.argmax(1)]
