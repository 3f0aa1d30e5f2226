"""A model laid out in memory for inference: fewer and larger matrices.

Shapes as in model.py."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class Fused(nn.Module):
    """Linear layers on the same input joined into one, for inference: (..., I) -> (..., O), where O is the
    sum of their widths.

    In float32 on a CPU the matrix is cut into blocks of columns, (blocks, I, O / blocks), at least one for
    each thread. Then one row of input is multiplied at the speed of the memory, which F.linear lets only one
    thread read, and few rows are faster too."""

    def __init__(self, *layers: nn.Linear):
        super().__init__()
        for layer in layers:
            if type(layer) is not nn.Linear:
                raise ValueError(f"cannot fuse a {type(layer).__name__}: merge the adapter first")
        weight = torch.cat([layer.weight.detach() for layer in layers])  # (O, I)
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            weight = weight.unflatten(0, (count_blocks(len(weight)), -1)).transpose(1, 2).contiguous()
            weight = weight[0].t() if len(weight) == 1 else weight
        self.weight = nn.Parameter(weight, requires_grad=False)  # (O, I) or (blocks, I, O / blocks)
        self.bias = None
        if layers[0].bias is not None:
            self.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)

    def forward(self, x):
        if self.weight.dim() == 2:
            return F.linear(x, self.weight, self.bias)
        n, I, width = self.weight.shape
        y = torch.bmm(x.reshape(1, -1, I).expand(n, -1, -1), self.weight)  # (blocks, N, O / blocks)
        y = y.transpose(0, 1).reshape(*x.shape[:-1], n * width)
        return y if self.bias is None else y + self.bias

    def embedding(self, ids):
        """Rows of the matrix, for an embedding that is tied to this layer: (..., I) of ids (...)."""
        if self.weight.dim() == 2:
            return F.embedding(ids, self.weight)
        width = self.weight.shape[2]
        return self.weight[ids // width, :, ids % width]


def count_blocks(width):
    """How many blocks of columns Fused cuts a matrix into: at least one a thread, and of at most about 2,048
    columns each (by measurement); one where no such number divides the width."""
    least = max(torch.get_num_threads(), width // 2048)
    return next((n for n in range(least, 4 * least) if width % n == 0), 1)


def fuse(model: nn.Module) -> nn.Module:
    """Make a model faster for inference, in place: q, k and v become one matrix, gate and up another, and all
    are laid out as Fused describes.

    Adapters must be merged before. The model can no longer be trained or saved."""
    for block in model.layers:
        attn = block.attn
        if hasattr(attn, "q_proj"):  # recurrent layers stay as they are
            attn.qkv_proj = Fused(attn.q_proj, attn.k_proj, attn.v_proj)
            attn.o_proj = Fused(attn.o_proj)
            del attn.q_proj, attn.k_proj, attn.v_proj

        mlp = block.mlp
        if mlp.gated:
            mlp.gate_up_proj = Fused(mlp.gate_proj, mlp.up_proj)
            del mlp.gate_proj, mlp.up_proj
        else:
            mlp.up_proj = Fused(mlp.up_proj)
        mlp.down_proj = Fused(mlp.down_proj)

    config = model.config
    if hasattr(model, "head"):
        model.head = Fused(model.head)
        if config.tied:  # so that the matrix is not in memory twice
            model.embed.weight = model.head.weight
            model.embed.forward = model.head.embedding
    # the fast step knows plain blocks only
    special = config.sliding or config.qk_norm or config.unrotated
    model.use_fast_step(config.norms == "pre" and config.gated and not special)
    return model
