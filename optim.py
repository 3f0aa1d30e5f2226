"""Muon: momentum made orthogonal, for the matrices of a model's blocks (kellerjordan.github.io/posts/muon).

torch.optim.Muon's rule, step for step, but matrices of one shape are made orthogonal together, and only on a
graphics card in bfloat16: a CPU that has to emulate it takes fifteen times as long."""

import torch

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic iteration, as in the reference code
ITERATIONS = 5


def orthogonal(x):
    """Roughly the nearest matrices with orthonormal rows or columns to x (N, A, B): U S V^T, by its singular
    vectors, with S around 1 (0.7 to 1.2 where they were not tiny)."""
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
    """Weights that are matrices; the learning rate is that of a square one, and grows with the root of how
    many times as many rows as columns there are."""

    def __init__(self, weights, lr, weight_decay=0.1, momentum=0.95):
        super().__init__(weights, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            shapes = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for (A, B), weights in shapes.items():
                updates = torch.stack([self.update(weight, group["momentum"]) for weight in weights])
                rate = group["lr"] * max(1, A / B) ** 0.5
                for weight, update in zip(weights, orthogonal(updates)):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update, alpha=-rate)

    def update(self, weight, momentum):
        """Nesterov's momentum of a weight's gradient."""
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad)
        average = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(average, momentum)
