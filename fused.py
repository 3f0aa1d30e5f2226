"""A model laid out in memory for inference: fewer and larger matrices, in 8 bits if wanted.

Shapes as in model.py."""

import warnings
from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F

from quantized import pack_int8
from ranks import is_native

FEW = 4  # rows of input up to which Int8 multiplies by the weights as they are (by measurement)
ROWS_AT_ONCE = 8192  # rows of a matrix that are packed at a time


class Fused(nn.Module):
    """Linear layers on the same input joined into one, for inference: (..., I) -> (..., O), where O is the
    sum of their widths.

    In float32 on a CPU the matrix is cut into blocks of columns, (blocks, I, O / blocks), at least one for
    each thread. Then one row of input is multiplied at the speed of the memory, which F.linear lets only one
    thread read, and few rows are faster too. In bfloat16 it is laid out as the processor's kernel reads it
    (oneDNN), which F.linear would do again at every call."""

    def __init__(self, *layers: nn.Linear):
        super().__init__()
        check_plain(layers)
        weight = torch.cat([layer.weight.detach() for layer in layers])  # (O, I)
        on_cpu = weight.device.type == "cpu"
        self.packed = on_cpu and weight.dtype == torch.bfloat16 and packs_bfloat16()
        if self.packed:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        elif on_cpu and weight.dtype == torch.float32:
            weight = weight.unflatten(0, (count_blocks(len(weight)), -1)).transpose(1, 2).contiguous()
            weight = weight[0].t() if len(weight) == 1 else weight
        self.weight = nn.Parameter(weight, requires_grad=False)  # (O, I) or (blocks, I, O / blocks)
        self.bias = join_biases(layers)

    def forward(self, x):
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
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


def packs_bfloat16():
    """Whether oneDNN, where torch has it, has a kernel for bfloat16 on this processor."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def check_plain(layers):
    """Raise ValueError if one is no plain linear layer."""
    for layer in layers:
        if type(layer) is not nn.Linear:
            raise ValueError(f"cannot fuse a {type(layer).__name__}: merge the adapter first")


def join_biases(layers):
    """The biases of some layers as one parameter, or None if they have none."""
    if layers[0].bias is None:
        return None
    return nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]), requires_grad=False)


def count_blocks(width):
    """How many blocks of columns Fused cuts a matrix into: at least one a thread, and of at most about 2,048
    columns each (by measurement); one where no such number divides the width."""
    least = max(torch.get_num_threads(), width // 2048)
    return next((n for n in range(least, 4 * least) if width % n == 0), 1)


class Int8(nn.Module):
    """What Fused is, with the matrix in 8 bits and a scale for each of its rows: half the bytes of bfloat16.

    On a processor that multiplies 8-bit numbers the matrix is laid out as its kernel reads it (FBGEMM), and
    inputs are rounded to 8 bits too, each row x as x ~ step * high. `exact` adds the rest: x ~ step * (high +
    low / 254), two rows for each, which leaves errors of bfloat16's size. It is for inputs in which single
    channels are large, those of MLP.down_proj and of q, k and v; bench/RESULTS.md has the loss with and
    without. `out` is the dtype of the output, by default that of the input."""

    def __init__(self, *layers: nn.Linear, dtype, device, exact=False, out=None):
        super().__init__()
        check_plain(layers)
        parts = []
        for layer in layers:
            parts += layer.weight.detach().split(ROWS_AT_ONCE)
        self.packed = device.type == "cpu" and multiplies_int8()
        width = sum(map(len, parts))
        weight = torch.empty(width, layers[0].in_features, dtype=torch.int8, device=device)
        scale = torch.empty(width, dtype=torch.float32 if self.packed else dtype, device=device)
        start = 0
        for part in parts:  # so that no whole matrix is ever in memory in a second precision
            rows = slice(start, start + len(part))
            weight[rows], scale[rows] = pack_int8(part, scale.dtype)
            start += len(part)
        if self.packed:
            self.matrix = lay_out_int8(weight, scale)
        else:
            self.weight = nn.Parameter(weight, requires_grad=False)  # (O, I)
            self.scale = nn.Parameter(scale, requires_grad=False)  # (O,)
        self.bias = join_biases(layers)
        self.exact = exact
        self.out = out
        # this kernel reads beyond rows of other lengths
        self.takes_few = device.type == "cpu" and layers[0].in_features % 16 == 0
        self.plain = dtype if is_native(dtype, device) else torch.float32

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])  # (N, I)
        if self.packed:
            y = self.product(rows)
        elif self.takes_few and len(rows) <= FEW:
            y = torch._weight_int8pack_mm(rows, self.weight, self.scale)  # (N, O)
        else:
            y = F.linear(rows.to(self.plain), self.weight.to(self.plain)) * self.scale
        y = y.to(self.out or x.dtype)
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], -1)

    def product(self, rows):
        """(N, O) of rows (N, I), in float32, in the way that the class describes."""
        rows = rows.float()
        step = rows.abs().amax(-1, keepdim=True).div_(127)  # (N, 1)
        high = rows / step  # a row of zeros makes nan here, anything in of_integers, and zeros in the end
        if not self.exact:
            return self.of_integers(high).mul_(step)
        whole = high.round()
        low = high.sub_(whole).mul_(254)
        y, rest = self.of_integers(torch.cat([whole, low])).chunk(2)
        return y.add_(rest, alpha=1 / 254).mul_(step)

    def of_integers(self, x):
        """(N, O) of x (N, I), which is rounded to integers from -127 to 127."""
        return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(x, 1.0, 128, self.matrix)

    def embedding(self, ids):
        """Rows of the matrix, for an embedding that is tied to this layer: (..., I) of ids (...)."""
        return self.weight[ids] * self.scale[ids, None]


def multiplies_int8():
    """Whether FBGEMM, where torch has it, multiplies 8-bit numbers on this processor without overflow."""
    return "fbgemm" in torch.backends.quantized.supported_engines and torch.cpu._is_vnni_supported()


def lay_out_int8(weight, scale):
    """The matrix of weights (O, I) in int8 and scales (O,), as FBGEMM reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to drop this way to make a quantised tensor
        zeros = torch.zeros(len(scale), dtype=torch.long)
        matrix = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
    return torch.ops.quantized.linear_prepack(matrix, None)


def fuse(model: nn.Module, quantize="", dtype=None, device=None) -> nn.Module:
    """Make a model faster for inference, in place: q, k and v become one matrix, gate and up another, and all
    are laid out as Fused describes. With quantize "int8" all are Int8 on `device`, and everything else is
    moved there and computes in `dtype`, a half precision.

    Adapters must be merged before. The model can no longer be trained or saved."""
    join = exact = Fused
    if quantize:
        join = partial(Int8, dtype=dtype, device=device)
        exact = partial(join, exact=True)
    for block in model.layers:
        attn = block.attn
        if hasattr(attn, "q_proj"):  # recurrent layers stay as they are
            attn.qkv_proj = exact(attn.q_proj, attn.k_proj, attn.v_proj)
            attn.o_proj = join(attn.o_proj)
            del attn.q_proj, attn.k_proj, attn.v_proj

        mlp = block.mlp
        if mlp.gated:
            mlp.gate_up_proj = join(mlp.gate_proj, mlp.up_proj)
            del mlp.gate_proj, mlp.up_proj
        else:
            mlp.up_proj = join(mlp.up_proj)
        mlp.down_proj = exact(mlp.down_proj)

    config = model.config
    if hasattr(model, "head"):
        model.head = exact(model.head, out=torch.float32) if quantize else Fused(model.head)
        # so that the matrix is not in memory twice; a packed one has no rows to look up
        if config.tied and not model.head.packed:
            # of Int8 the scale: others ask model.embed.weight for the dtype and the device of activations
            model.embed.weight = model.head.scale if quantize else model.head.weight
            model.embed.forward = model.head.embedding
    if quantize:
        model.to(device, dtype)
    # the fast step knows plain blocks only
    special = config.sliding or config.qk_norm or config.unrotated
    model.use_fast_step(config.norms == "pre" and config.gated and not special)
    return model
