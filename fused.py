"""A model laid out in memory for inference: fewer and larger matrices.

Shapes as in model.py."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class Fused(nn.Module):
    """Linear layers of one input as one, for inference: (..., I) -> (..., O), O their widths together.

    In float32 on a CPU the matrix is cut into blocks of columns, (blocks, I, O / blocks), a multiple of the
    threads: one row of input is multiplied at the speed of the memory, which by F.linear only one thread
    reads, and few rows faster too."""

    def __init__(self, *layers):
        super().__init__()
        if wrong := [type(layer).__name__ for layer in layers if type(layer) is not nn.Linear]:
            raise ValueError(f"cannot fuse a {wrong[0]}: merge the adapter first")
        weight = torch.cat([layer.weight.detach() for layer in layers])  # (O, I)
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            weight = weight.unflatten(0, (blocks_of(len(weight)), -1)).transpose(1, 2).contiguous()
            weight = weight[0].t() if len(weight) == 1 else weight
        biases = [layer.bias for layer in layers]
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if biases[0] is None else nn.Parameter(torch.cat(biases), requires_grad=False)

    def forward(self, x):
        if self.weight.dim() == 2:
            return F.linear(x, self.weight, self.bias)
        n, I, width = self.weight.shape
        y = torch.bmm(x.reshape(1, -1, I).expand(n, -1, -1), self.weight)  # (blocks, N, O / blocks)
        y = y.transpose(0, 1).reshape(*x.shape[:-1], n * width)
        return y if self.bias is None else y + self.bias

    def embedding(self, ids):
        """Rows of the matrix, as an embedding that is tied to this layer has them: (..., I) of ids (...)."""
        if self.weight.dim() == 2:
            return F.embedding(ids, self.weight)
        width = self.weight.shape[2]
        return self.weight[ids // width, :, ids % width]


def blocks_of(width):
    """Into how many blocks of columns Fused cuts a matrix: at least one a thread, and of at most about 2,048
    columns each (by measurement), if that divides it."""
    least = max(torch.get_num_threads(), width // 2048)
    return next((n for n in range(least, 4 * least) if width % n == 0), 1)


def fuse(model):
    """Make a model, in place, faster for inference: q, k and v are one matrix, so are gate and up, and all
    lie in memory as Fused says. It can no longer be trained or saved. Adapters must be merged before."""
    for block in model.layers:
        attn, mlp = block.attn, block.mlp
        attn.qkv_proj = Fused(attn.q_proj, attn.k_proj, attn.v_proj)
        del attn.q_proj, attn.k_proj, attn.v_proj
        if mlp.gated:
            mlp.gate_up_proj = Fused(mlp.gate_proj, mlp.up_proj)
            del mlp.gate_proj, mlp.up_proj
        else:
            mlp.up_proj = Fused(mlp.up_proj)
        attn.o_proj, mlp.down_proj = Fused(attn.o_proj), Fused(mlp.down_proj)
    if hasattr(model, "head"):
        model.head = Fused(model.head)
        if model.config.tied:
            model.embed.weight, model.embed.forward = model.head.weight, model.head.embedding
    config = model.config
    model.use_fast_step(config.norms == "pre" and config.gated and not (config.sliding or config.qk_norm))
    return model
