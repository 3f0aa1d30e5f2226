"""The optimizers, which weights each of them updates, and the schedule of the learning rate."""

import math

import torch

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # quintic iteration, from Muon's reference code
ITERATIONS = 5
MOMENTUM = 0.95  # Muon's
BETA1 = 0.9  # AdamW's


# ------------------------------------------------------------------------------------------------ Muon
def orthogonal(x):
    """Roughly the nearest matrices to x (N, A, B) with orthonormal rows or columns: U S V^T of its singular
    vectors, with S around 1 (0.7 to 1.2 where x's singular values were not tiny)."""
    a, b, c = COEFFICIENTS
    tall = x.shape[1] > x.shape[2]
    x = x.bfloat16() if x.is_cuda else x.float()
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, for the matrices of a model's blocks (kellerjordan.github.io/posts/muon).

    It follows torch.optim.Muon's rule step by step, but makes matrices of one shape orthogonal together, and
    uses bfloat16 only on a graphics card: a CPU, which emulates it, takes fifteen times as long. lr is the
    learning rate of a square matrix; for one with more rows than columns it grows with the root of their
    ratio."""

    def __init__(self, weights, lr, weight_decay):
        super().__init__(weights, dict(lr=lr, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            shapes = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for (A, B), weights in shapes.items():
                updates = torch.stack([self.update(weight) for weight in weights])
                rate = group["lr"] * max(1, A / B) ** 0.5
                for weight, update in zip(weights, orthogonal(updates)):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update, alpha=-rate)

    def update(self, weight):
        """Nesterov's momentum of a weight's gradient."""
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad)
        average = state["momentum_buffer"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(average, MOMENTUM)


# ------------------------------------------------------------------------------------------------ weights
def optimizers_of(model, cfg):
    """[(optimizer, peak learning rate)]. With --optimizer muon, Muon takes the matrices of the blocks and
    AdamW the rest; else AdamW takes everything. Vectors have no weight decay."""
    for_muon, decayed, vectors = [], [], []
    for key, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        if weight.dim() < 2:
            vectors.append(weight)
        elif cfg.optimizer == "muon" and key.startswith("layers."):
            for_muon.append(weight)
        else:
            decayed.append(weight)
    pairs = []
    if for_muon:
        pairs.append((Muon(for_muon, cfg.muon_lr, cfg.weight_decay), cfg.muon_lr))
    groups = [
        {"params": decayed, "weight_decay": cfg.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if groups:
        pairs.append((torch.optim.AdamW(groups, lr=cfg.lr, betas=(BETA1, cfg.beta2)), cfg.lr))
    return pairs


# ------------------------------------------------------------------------------------------------ schedule
SCHEDULES = {  # shape by the share of the steps that is left, from 1 to 0
    "linear": lambda left: left,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
    "constant": lambda left: 1.0,
}


def schedule(step, cfg):
    """The learning rate of a step, counted from 0, as a share of the peak. Under --max-minutes the step
    follows from the time gone, and need not be a whole number."""
    warmup = max(1, round(cfg.warmup * cfg.steps))
    if step < warmup:
        return min(1.0, (step + 1) / warmup)
    left = 1 - (step - warmup) / max(1, cfg.steps - warmup)
    return cfg.final_lr + (1 - cfg.final_lr) * SCHEDULES[cfg.schedule](left)
