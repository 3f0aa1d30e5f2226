"""A model laid out in memory for inference: fewer and larger matrices, in 8 bits if wanted.

Shapes as in model.py."""

import math
import warnings
from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F

from quantized import pack_int8
from ranks import is_native

FEW = 4  # rows of input up to which Int8 multiplies by the weights as they are (by measurement)
ROWS_AT_ONCE = 256  # rows of a matrix that are packed at a time; more need more memory and no less time


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
    inputs are rounded to 8 bits too, with a step for each row. A few channels of an input are so large that
    the others would vanish in such steps. So inputs and weights are first rotated by the same matrix, which
    leaves their product as it is and spreads each channel over many (QuaRot, arXiv 2404.00456).

    dtype: where inputs are not rounded, that of the scales and of the products. out: that of the output."""

    def __init__(self, *layers: nn.Linear, dtype, device, out):
        super().__init__()
        check_plain(layers)
        I = layers[0].in_features
        parts = []
        for layer in layers:
            parts += layer.weight.detach().split(ROWS_AT_ONCE)
        self.packed = rounds_inputs(device)
        if self.packed:
            self.rotation = hadamard(math.gcd(I, 64))
        width = sum(map(len, parts))
        weight = torch.empty(width, I, dtype=torch.int8, device=device)
        scale = torch.empty(width, dtype=torch.float32 if self.packed else dtype, device=device)
        start = 0
        for part in parts:  # so that no whole matrix is ever in memory in a second precision
            rows = slice(start, start + len(part))
            if self.packed:
                part = rotated(part.float(), self.rotation)
            weight[rows], scale[rows] = pack_int8(part, scale.dtype)
            start += len(part)
        if self.packed:
            weight = with_scales(weight, scale)  # in place of the other, before there is a third
            self.matrix = torch.ops.quantized.linear_prepack(weight, None)
        else:
            self.weight = nn.Parameter(weight, requires_grad=False)  # (O, I)
            self.scale = nn.Parameter(scale, requires_grad=False)  # (O,)
        self.bias = join_biases(layers)
        self.out = out
        # this kernel reads beyond rows of other lengths
        self.takes_few = device.type == "cpu" and I % 16 == 0
        self.plain = dtype if is_native(dtype, device) else torch.float32

    def forward(self, x):
        if x.ndim != 2:  # not for single tokens, where every operation shows
            return self(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
        if self.packed:
            x = rotated(x.float(), self.rotation)  # (N, I)
            largest = x.abs().amax(-1, keepdim=True)  # (N, 1)
            # this rounds to integers from -127 to 127; a row of zeros is nan before it and zeros behind it
            y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
                x / largest, 1 / 127, 128, self.matrix
            ).mul_(largest)
        elif self.takes_few and len(x) <= FEW:
            y = torch._weight_int8pack_mm(x, self.weight, self.scale)
        else:
            y = F.linear(x.to(self.plain), self.weight.to(self.plain)) * self.scale
        y = y.to(self.out)
        return y if self.bias is None else y + self.bias

    def embedding(self, ids):
        """Rows of the matrix, for an embedding that is tied to this layer: (..., I) of ids (...)."""
        return self.weight[ids] * self.scale[ids, None]


def rounds_inputs(device):
    """Whether Int8 rounds its inputs there: on a CPU where torch has FBGEMM and it multiplies 8-bit numbers
    without overflow."""
    known = device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines
    return known and torch.cpu._is_vnni_supported()


def hadamard(n):
    """An orthogonal matrix (n, n) of 1 and -1, divided by sqrt(n); n is a power of 2."""
    if n == 1:
        return torch.ones(1, 1)
    return torch.kron(hadamard(n // 2), torch.tensor([[1, 1], [1, -1]])) / 2**0.5


def rotated(x, matrix):
    """x (N, I) with each b of its channels multiplied by a matrix (b, b)."""
    return (x.reshape(-1, len(matrix)) @ matrix).view_as(x)


def with_scales(weight, scale):
    """Weights (O, I) in int8 and scales (O,) as one tensor, which FBGEMM takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to drop this way to make a quantised tensor
        zeros = torch.zeros_like(scale, dtype=torch.long)
        return torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)


def fuse(model: nn.Module, quantize="", dtype=None, device=None) -> nn.Module:
    """Make a model faster for inference, in place: q, k and v become one matrix, gate and up another, and all
    are laid out as Fused describes. With quantize "int8" all are Int8 on `device`, and everything else is
    moved there and computes in `dtype`, a half precision. Where Int8 rounds its inputs, the residual
    stream is in float32 all the same, which takes no more time and loses less.

    Adapters must be merged before. The model can no longer be trained or saved."""
    config = model.config
    join = join_qkv = Fused
    if quantize:
        # the dtype of the residual stream; recurrent layers multiply it by plain matrices in `dtype`
        wide = torch.float32 if rounds_inputs(device) and not config.recurrent else dtype
        join_qkv = partial(Int8, dtype=dtype, device=device, out=dtype)
        join = partial(join_qkv, out=wide)
    for block in model.layers:
        attn = block.attn
        if hasattr(attn, "q_proj"):  # recurrent layers stay as they are
            attn.qkv_proj = join_qkv(attn.q_proj, attn.k_proj, attn.v_proj)
            attn.o_proj = join(attn.o_proj)
            del attn.q_proj, attn.k_proj, attn.v_proj

        mlp = block.mlp
        if mlp.gated:
            mlp.gate_up_proj = join(mlp.gate_proj, mlp.up_proj)
            del mlp.gate_proj, mlp.up_proj
        else:
            mlp.up_proj = join(mlp.up_proj)
        mlp.down_proj = join(mlp.down_proj)

    if hasattr(model, "head"):
        model.head = join(model.head, out=torch.float32) if quantize else Fused(model.head)
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
