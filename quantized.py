"""Linear layers that adapters are trained on, held in 8 or 4 bits: train.py --quantize int8 | nf4.

`int8` holds a weight in 8 bits and each row's scale. `nf4` is the base of QLoRA (arXiv 2305.14314): a weight
is one of 16 numbers, times a scale for each block of 64 weights, and the scales are held in 8 bits too. No
gradient reaches these weights, so a layer makes its matrix whenever it multiplies by it, in the forward and
again in the backward pass, and keeps none.

Shapes: O outputs and I inputs of a layer."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ranks import whole

# Quantiles of a normal distribution between -1 and 1, with an exact zero (appendix E of the paper).
# fmt: off
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
    1.0,
)
# fmt: on
BLOCK = 64  # weights that share a scale
GROUP = 256  # scales that share a scale of their own
TINY = 1e-30  # a scale of zeros


# ------------------------------------------------------------------------------------------------ the numbers
# Weights are rounded some four million at a time, which takes about 60 MB.
def pack_int8(weight: Tensor, dtype=torch.float32) -> list[Tensor]:
    """codes (O, I) in int8 and scales (O,) of a matrix (O, I), which is about codes * scales. The scales are
    rounded to their dtype first, so the codes make up for it."""
    scales = (weight.norm(torch.inf, 1).float() / 127).clamp(min=TINY).to(dtype)
    codes = []
    for rows, scale in zip(weight.split(256), scales.float()[:, None].split(256)):
        codes.append((rows / scale).round_().clamp_(-127, 127).to(torch.int8))
    return [torch.cat(codes), scales]


def pack_nf4(weight: Tensor) -> list[Tensor]:
    """codes, scales and steps of a matrix of any shape, read row by row: codes has two weights in a byte,
    scales (blocks,) is in 8 bits, and steps (groups,) is the unit of the scales of each group."""
    flat = weight.flatten()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    peaks = blocks.norm(torch.inf, 1).float()  # (blocks,)
    steps = F.pad(peaks, (0, -len(peaks) % GROUP)).view(-1, GROUP).amax(1) / 255  # (groups,)
    units = of_blocks(steps.clamp_(min=TINY), len(peaks))
    scales = (peaks / units).ceil().clamp(max=255).to(torch.uint8)  # ceil: no weight lies beyond its scale
    lengths = (scales * units).clamp(min=TINY)[:, None]

    table = torch.tensor(NF4, device=weight.device)
    borders = (table[1:] + table[:-1]) / 2
    codes = []
    for part, length in zip(blocks.split(1 << 16), lengths.split(1 << 16)):
        pairs = torch.bucketize(part / length, borders, out_int32=True).view(-1, 2)
        codes.append((pairs[:, 0] * 16 + pairs[:, 1]).to(torch.uint8))
    return [torch.cat(codes), scales, steps]


def of_blocks(steps, blocks):
    """The step of each block, (blocks,)."""
    return steps.repeat_interleave(GROUP)[:blocks]


def unpack_nibbles(codes: Tensor, table: Tensor) -> Tensor:
    """The entries of a table (16,) that the two halves of each byte name, the upper half first: (2 n,)."""
    byte = torch.arange(256, device=table.device)
    pairs = table[torch.stack([byte // 16, byte % 16], dim=1)]  # (256, 2)
    # both numbers of a pair count as one number of twice the size: a tenth of the time
    pairs = pairs.view({2: torch.int32, 4: torch.int64}[table.itemsize])[:, 0]
    return pairs.index_select(0, codes.int()).view(table.dtype)


# ------------------------------------------------------------------------------------------------ the layer
class Product(torch.autograd.Function):
    """x W^T + bias, (..., O) of x (..., I), for the frozen matrix W of a QuantizedLinear."""

    @staticmethod
    def forward(ctx, x, layer):
        ctx.layer = layer
        return F.linear(x, layer.matrix(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx, gradient):
        return gradient @ ctx.layer.matrix(gradient.dtype), None


class QuantizedLinear(nn.Linear):
    """A frozen linear layer with a quantised matrix. `weight` is made on demand, in float32; to change it
    changes nothing."""

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """The matrix (O, I) in a dtype."""
        codes = whole(self.codes)
        scales = whole(self.scales)
        if codes.dtype == torch.int8:
            return codes.to(dtype).mul_(scales.to(dtype)[:, None])
        table = torch.tensor(NF4, dtype=dtype, device=codes.device)
        blocks = unpack_nibbles(codes, table).view(-1, BLOCK)
        blocks.mul_((scales * of_blocks(whole(self.steps), len(scales))).to(dtype)[:, None])
        return blocks.resize_(self.out_features, self.in_features)  # without the padding

    @property
    def weight(self):
        return self.matrix(torch.float32)

    def forward(self, x):
        return Product.apply(x, self)


def hold(model: nn.Module, state: dict, name: str, kind: str):
    """Quantise the weight of this name if it is a matrix of a block. Its layer becomes a QuantizedLinear, and
    the state holds None."""
    if not name.startswith("layers.") or state[name].dim() != 2:  # a convolution has three
        return
    weight = state[name]
    state[name] = None
    layer = model.get_submodule(name.removesuffix(".weight"))
    del layer.weight
    layer.__class__ = QuantizedLinear
    packed = {"int8": pack_int8, "nf4": pack_nf4}[kind](weight)
    if not packed[-1].isfinite().all():
        raise ValueError(f"{name} holds numbers that are not finite")
    # Parameters rather than buffers, so that --shard cuts them over the ranks.
    for name, tensor in zip(("codes", "scales", "steps"), packed):
        layer.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    layer.uncounted = weight.numel() - sum(map(torch.numel, packed))  # what a count of parameters misses
