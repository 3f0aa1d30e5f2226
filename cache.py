"""What a model needs to generate: a cache of keys and values, and its matrices laid out for speed.

Shapes as in model.py."""

import torch
import torch.nn as nn
import torch.nn.functional as F

SLACK = 1024  # slots that windows have beyond what is seen: they move on only so often


# ------------------------------------------------------------------------------------------------ the cache
class KVCache:
    """Keys and values of rows of text. A token lies in the slot of its position in its row, so a query sees
    the slots up to its own, whatever lies behind them, and a row is cut back by writing over it.

    `rows` are those that a forward pass is about, a slice or a tensor (B,). Where texts branch, `slots`
    (B, T) says where their tokens go instead, and the caller gives the mask. `used` is how many slots are
    looked at, and `shared` how many of the first are the same in all rows, where the caller knows it.

    With windows, sliding layers have only `near` slots: their first is position `base` of the row, and the
    caller makes room by `slide` before each pass, of at most SLACK tokens a row."""

    def __init__(self, config, rows, slots, device=None, dtype=None, windows=False):
        near = config.reach + SLACK + 1 if windows and any(config.sliding or ()) else slots
        self.near, self.reach = (near if near < slots else None), config.reach
        self.slides = [bool(self.near and config.sliding[layer]) for layer in range(config.layers)]
        self.keys, self.values = (
            [
                torch.zeros(rows, config.kv_heads, size, config.head_dim, device=device, dtype=dtype)
                for size in (near if slides else slots for slides in self.slides)
            ]
            for _ in range(2)
        )
        self.positions = torch.zeros(rows, slots, dtype=torch.long, device=device)
        self.base, self.near_used = torch.zeros(rows, dtype=torch.long, device=device), None
        self.bases = [0] * rows  # the same, where it can be asked without waiting for the device
        self.rows, self.slots, self.used, self.length, self.shared = slice(None), None, None, 0, 0

    def open(self, positions):
        """Make room for tokens at positions (B, T): the positions of all keys that are looked at, (B, S), and
        a mask (B, 1, T, S) of those that each query sees, None where it sees all before it."""
        slots = positions if self.slots is None else self.slots
        self.length = S = self.used or int(slots.max()) + 1
        if S > self.positions.shape[1]:
            more = max(S - self.positions.shape[1], self.positions.shape[1])
            self.keys, self.values = (
                [x if slides else F.pad(x, (0, 0, 0, more)) for x, slides in zip(xs, self.slides)]
                for xs in (self.keys, self.values)
            )
            self.positions = F.pad(self.positions, (0, more))
        rows = torch.arange(len(self.positions), device=slots.device)[self.rows]
        self.place = rows[:, None], slots
        self.positions[self.place] = positions
        if self.near:  # the last slot is for padding only
            base = self.base[self.rows][:, None]  # (B, 1)
            self.near_place = rows[:, None], (positions - base).clamp(max=self.near - 1)
            back = positions[:, :, None] - (base + torch.arange(self.near_used, device=rows.device))[:, None]
            self.window = ((back >= 0) & (back <= self.reach))[:, None]  # (B, 1, T, near)
        T = positions.shape[1]
        if S == T or positions.numel() == 1:  # texts from their beginning, or the end of one
            return self.positions[self.rows, :S], None
        seen = torch.arange(S, device=positions.device) <= positions[:, :, None]
        return self.positions[self.rows, :S], seen[:, None]

    def append(self, layer, k, v):
        """Store k and v (B, K, T, E) in the slots just opened; return all that is looked at, (B, K, S, E)."""
        slides = self.slides[layer]
        (rows, slots), S = (self.near_place, self.near_used) if slides else (self.place, self.length)
        for kept, new in ((self.keys[layer], k), (self.values[layer], v)):
            kept[rows, :, slots] = new.transpose(1, 2).to(kept.dtype)
        return self.keys[layer][self.rows, :, :S], self.values[layer][self.rows, :, :S]

    def slide(self, parts):
        """Before a pass over positions first to end - 1 of each row, parts (row, first, end): where there is
        no room for them, forget what lies before their windows."""
        self.near_used = 1
        for row, first, end in parts if self.near else ():
            if end - self.bases[row] >= self.near:
                start = first - self.reach - self.bases[row]
                for x in self.tensors(near=True):
                    x[row, :, : self.reach] = x[row, :, start : start + self.reach].clone()
                self.begin(row, first - self.reach)
            self.near_used = max(self.near_used, end - self.bases[row])

    def begin(self, row, base=0):
        """Let the windows of a row begin at position `base`."""
        self.bases[row] = self.base[row] = base

    def reaches(self, row, n):
        """Whether a text can go on behind the first n tokens of a row."""
        return self.bases[row] <= max(0, n - self.reach)

    def tensors(self, near):
        """Keys and values of the layers that have only windows, or of the others."""
        return [x for xs in (self.keys, self.values) for x, slides in zip(xs, self.slides) if slides == near]

    def copy(self, source, row, n, other=None):
        """Give a row the first n tokens of another row, or of a row of another cache."""
        other = other or self
        for near in (False, True):
            for x, y in zip(self.tensors(near), other.tensors(near)):
                x[row, :, : None if near else n] = y[source, :, : None if near else n]
        self.positions[row, :n] = other.positions[source, :n]
        self.begin(row, other.bases[source])


# ------------------------------------------------------------------------------------------------ speed
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
    model.simple = config.norms == "pre" and config.gated and not (config.sliding or config.qk_norm)
    return model
