"""The optimizers, the weights that each of them updates, and the schedule of the learning rate."""

import math

import torch

# Muon. The coefficients are those of its reference code: they push small singular values up fast, rather than
# all of them exactly to 1.
COEFFICIENTS = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
MOMENTUM = 0.95

# AdamW. --beta2 sets the other one.
BETA1 = 0.9


# ------------------------------------------------------------------------------------------------ Muon
def orthogonalise(x):
    """Roughly the nearest matrices to x (N, A, B) with orthonormal rows or columns.

    With the singular value decomposition x = U S V^T, the result is U S' V^T with S' around 1 (0.7 to 1.2
    unless the singular value in S is tiny)."""
    a, b, c = COEFFICIENTS
    tall = x.shape[1] > x.shape[2]
    x = x.bfloat16() if x.is_cuda else x.float()
    x = x.mT if tall else x  # the smaller side first: gram is then the smaller of the two products
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # the iteration needs singular values up to 1

    # Each iteration applies a s + b s^3 + c s^5 to every singular value s.
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        quintic = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, quintic, x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, for the matrices of a model's blocks (kellerjordan.github.io/posts/muon).

    The rule is that of torch.optim.Muon, step by step. But matrices of one shape are made orthogonal
    together, and bfloat16 is used only on a graphics card: a CPU emulates it and takes fifteen times as long.
    lr is the learning rate of a square matrix; with more rows than columns, it grows with the root of their
    ratio."""

    def __init__(self, weights, lr, weight_decay):
        super().__init__(weights, dict(lr=lr, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)

            for (A, B), weights in by_shape.items():
                momenta = torch.stack([self.momentum(weight) for weight in weights])
                rate = group["lr"] * max(1, A / B) ** 0.5
                for weight, update in zip(weights, orthogonalise(momenta)):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update, alpha=-rate)

    def momentum(self, weight):
        """Nesterov's momentum of a weight's gradient."""
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad)
        average = state["momentum_buffer"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(average, MOMENTUM)


# ------------------------------------------------------------------------------------------------ weights
def optimizers_of(model: torch.nn.Module, cfg) -> list[tuple]:
    """[(optimizer, peak learning rate)] for the trainable weights of a model.

    With --optimizer muon, Muon takes the matrices of the blocks and AdamW the rest. Otherwise AdamW takes
    everything. Vectors have no weight decay."""
    for_muon = []
    matrices = []
    vectors = []
    for key, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        if weight.dim() != 2:  # the taps of a convolution too
            vectors.append(weight)
        elif cfg.optimizer == "muon" and key.startswith("layers."):
            for_muon.append(weight)
        else:
            matrices.append(weight)

    pairs = []
    if for_muon:
        pairs.append((Muon(for_muon, cfg.muon_lr, cfg.weight_decay), cfg.muon_lr))
    groups = []
    for weights, decay in ((matrices, cfg.weight_decay), (vectors, 0.0)):
        if weights:  # --train-only can leave either list empty
            groups.append({"params": weights, "weight_decay": decay})
    if groups:
        pairs.append((torch.optim.AdamW(groups, lr=cfg.lr, betas=(BETA1, cfg.beta2)), cfg.lr))
    return pairs


# ------------------------------------------------------------------------------------------------ schedule
# Each shape maps the share of the steps that is left, from 1 to 0, to a share of the peak.
SCHEDULES = {
    "linear": lambda left: left,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
    "constant": lambda left: 1.0,
}


def schedule(step: float, cfg) -> float:
    """The learning rate of a step, counted from 0, as a share of the peak.

    Under --max-minutes the caller derives the step from the time spent, so it need not be an integer."""
    warmup = max(1, round(cfg.warmup * cfg.steps))
    if step < warmup:
        return min(1.0, (step + 1) / warmup)
    left = 1 - (step - warmup) / max(1, cfg.steps - warmup)
    return cfg.final_lr + (1 - cfg.final_lr) * SCHEDULES[cfg.schedule](left)
