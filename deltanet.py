"""Gated DeltaNet (arXiv 2412.06464): a layer that keeps a state of fixed size in place of keys and values.

A token passes a short causal convolution, then changes the memory S (E, V) of each head, which answers its
query q. With a decay d and a rate b, both between 0 and 1:

    S <- d S                        forget
    S <- S + b k (v - S^T k)^T      the delta rule: S^T k comes closer to v
    y  = S^T q

Nothing in S says which token left it there, so no mask can hide one. What that means:

    packed rows     hold several texts: S and the convolution begin anew with each of them.
    prefix trees    are taken apart (`rows_of`): here each text is read from its first token. All products
                    with weights are still computed once for what texts share.
    padding         never enters a state: it counts as a text of its own, or its rate is 0 and its decay 1.
    a cache         holds a state for each row, after its last token. It can be copied, but not cut back: a
                    text that leaves it earlier is read again (cache.py). Each beam has a copy of its own.

Shapes as in model.py; here H counts heads of values, E is the width of keys, V that of values, and C counts
the channels of the convolution: all queries, keys and values. Between the products all is float32."""

from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F

from layers import RMSNorm

CHUNK = 64  # tokens that are computed together


# ------------------------------------------------------------------------------------------------ the rule
def token_by_token(inputs, memory):
    """y (B, H, T, V) and the memory after it, by the rule as it is written above. inputs: q and k
    (B, H, T, E), v (B, H, T, V), the logarithm of the decay and the rate (B, H, T, 1). memory: before,
    (B, H, E, V)."""
    outputs = []
    for q, k, v, decay, rate in zip(*[x.split(1, dim=2) for x in inputs]):
        memory = decay.exp() * memory
        memory = memory + k.mT @ (rate * (v - k @ memory))
        outputs.append(q @ memory)
    return torch.cat(outputs, dim=2), memory


def in_chunks(inputs, memory, text):
    """The same as `token_by_token`, by products of matrices over chunks of tokens (arXiv 2412.06464).

    Let D[i, j] be the decay from token j to token i of a chunk, and D[i] that from its beginning. With S the
    memory before the chunk, what its tokens write obeys

        e[i] = b[i] (v[i] - D[i] S^T k[i] - sum of D[i, j] (k[i] . k[j]) e[j] over j < i)

    which is a unit triangular system. text (B, T): a number for each token, the same within a text; between
    two texts D is 0."""
    outputs = []
    before = text[:, None, :1, None]  # the text of the token before the chunk
    inputs = [*inputs, text[:, None, :, None]]
    for q, k, v, decay, rate, text in zip(*[x.split(CHUNK, dim=2) for x in inputs]):  # (B, H, C, .)
        total = decay.cumsum(2)
        # above the diagonal, where the exponent is positive and may overflow, it is not used
        between = (total - total.mT).clamp(max=0).exp().tril() * (text == text.mT)  # D[i, j], (B, H, C, C)
        start = total.exp() * (text == before)  # D[i]
        error = rate * (v - start * (k @ memory))
        system = rate * (k @ k.mT) * between
        error = torch.linalg.solve_triangular(system, error, upper=False, unitriangular=True)
        outputs.append(start * (q @ memory) + (q @ k.mT * between) @ error)
        memory = start[:, :, -1:] * memory + (k * between[:, :, -1, :, None]).mT @ error
        before = text[:, :, -1:]
    return torch.cat(outputs, dim=2), memory


# ------------------------------------------------------------------------------------------------ the rows
def rows_of(ids, end, mask=None, cache=None) -> tuple:
    """(text, slots, places, count): how rows of ids (B, T) are read in which each token is seen until `end`
    (B, T), see attention.visible.

    text (B, T): the number of each token's text. Where texts begin alike, they are laid end to end in one
    row: slots (N,) are those of its tokens, counted across the batch, and places (B T,) says where in it the
    output of each slot is. In the tree of data.share_prefixes

        slot        0   1   2   3   4
        end         5   5   3   5   5       texts: slots 0 1 2 and slots 0 1 3 4

    a text ends in slot 2, whose branch ends there, and in slot 4; it is what its last slot sees.

    count: how many tokens of each row are no padding, (B, 1) or one number for all. With a cache, `end` is
    that number, and no text ends within a row."""
    if mask is not None and (cache is None or cache.slots is None):
        raise ValueError("a recurrent layer cannot follow a mask")
    B, T = ids.shape
    if end is None or cache is not None:
        return torch.zeros_like(ids), None, None, T if end is None else end.clamp(max=T)
    slot = torch.arange(T, device=ids.device)
    following = F.pad(end[:, 1:], (0, 1))  # 0 where padding or nothing follows
    row, last = ((end > 0) & (following.minimum(end) <= slot + 1)).nonzero(as_tuple=True)  # (texts,)
    seen = (slot <= last[:, None]) & (end[row] > last[:, None])  # (texts, T)
    text, inside = seen.nonzero(as_tuple=True)  # text by text
    if len(text) == (end > 0).sum():  # no slot is of two texts
        return end, None, None, T
    slots = row[text] * T + inside
    order = torch.arange(len(slots), device=ids.device)
    places = slots.new_zeros(B * T).scatter_reduce(0, slots, order, "amax")  # of several, the last
    return text[None], slots, places, len(slots)


def empty_states(config, rows, device) -> dict:
    """Layer -> its states in rows without a text: the last inputs of the convolution, and the memory. They
    are (rows, numbers, 1), as one slot of a cache, so that what copies slots copies them."""
    H, key_heads, E, V, taps = config.delta
    sizes = (taps - 1) * (2 * key_heads * E + H * V), H * E * V
    states = {}
    for layer in config.recurrent:
        states[layer] = [torch.zeros(rows, size, 1, device=device) for size in sizes]
    return states


# ------------------------------------------------------------------------------------------------ the layer
class GatedDeltaNet(nn.Module):
    """The layer, in the place of attention. Each head of keys serves several of values."""

    def __init__(self, config):
        super().__init__()
        H, key_heads, E, V, taps = config.delta
        self.shapes = (key_heads, E), (key_heads, E), (H, V)  # of queries, keys and values
        self.widths = [heads * width for heads, width in self.shapes]
        C = sum(self.widths)
        linear = partial(nn.Linear, config.dim, bias=False)
        self.in_proj_qkv = linear(C)
        self.in_proj_z = linear(H * V)
        self.in_proj_b = linear(H)
        self.in_proj_a = linear(H)
        self.conv1d = nn.Conv1d(C, C, taps, groups=C, bias=False)  # only its weight is used
        self.A_log = nn.Parameter(torch.zeros(H))
        self.dt_bias = nn.Parameter(torch.zeros(H))
        self.gated_norm = RMSNorm(V, config.eps)
        self.out_proj = nn.Linear(H * V, config.dim, bias=False)

    def forward(self, x, rope, way, cache=None, layer=0):
        """(B, T, D) of x (B, T, D). way: by rows_of. rope is not used: the state knows what came before."""
        text, slots, places, count = way
        step = F.softplus(self.in_proj_a(x).float() + self.dt_bias.float())
        decay = -self.A_log.float().exp() * step  # its logarithm, (B, T, H)
        inputs = [self.in_proj_qkv(x).float(), decay, self.in_proj_b(x).float().sigmoid()]
        if slots is not None:
            inputs = [part.flatten(0, 1)[slots][None] for part in inputs]
        inputs.append(text)
        with torch.autocast(x.device.type, enabled=False):
            if cache is None:
                y, _ = self.read(*inputs, count)
            else:
                rows = cache.rows
                if cache.slots is not None:  # beams, each with states of its own
                    rows = slice(None)
                    count = 1
                    inputs = [part.flatten(0, 1)[:, None] for part in inputs]
                states = cache.states[layer]
                y, new = self.read(*inputs, count, [state[rows] for state in states])
                for state, value in zip(states, new):
                    state[rows] = value
        if slots is not None:
            y = y[0, places]
        y = self.gated_norm(y.to(x.dtype)).view(*x.shape[:2], -1)
        return self.out_proj((y * F.silu(self.in_proj_z(x).float())).to(x.dtype))

    def read(self, qkv, decay, rate, text, count, states=None):
        """y (B, T, H, V), and the states after the first `count` tokens of each row. states: those before."""
        B, T, C = qkv.shape
        H, V = self.shapes[2]
        E = self.shapes[0][1]
        taps = self.conv1d.weight.float()[:, 0]  # (C, taps)
        back = taps.shape[1] - 1
        window, memory = states or (qkv.new_zeros(B, back * C), qkv.new_zeros(B, H * E * V))
        window = torch.cat((window.view(B, back, C), qkv), dim=1)  # (B, back + T, C)
        mixed = 0
        for i in range(back + 1):
            same = F.pad(text, (back, 0))[:, i : i + T] == text
            mixed = mixed + window[:, i : i + T] * taps[:, i] * same[..., None]
        parts = zip(F.silu(mixed).split(self.widths, dim=-1), self.shapes)
        q, k, v = [x.unflatten(2, shape).transpose(1, 2) for x, shape in parts]  # (B, heads, T, .)
        # x / |x| is rms_norm(x) / E ** 0.5; queries are divided by another E ** 0.5
        q, k = [F.rms_norm(x, (E,), eps=1e-6 / E).repeat_interleave(H // x.shape[1], 1) for x in (q, k)]
        slot = torch.arange(T, device=qkv.device)
        decay, rate = [(x * (slot < count)[..., None]).mT[..., None] for x in (decay, rate)]  # (B, H, T, 1)
        rule = token_by_token if T == 1 else partial(in_chunks, text=text)
        y, memory = rule([q / E, k / E**0.5, v, decay, rate], memory.view(B, H, E, V))
        kept = count + torch.arange(back, device=qkv.device)  # (B, back) or (back,)
        window = window.gather(1, kept.view(-1, back, 1).expand(B, back, C))
        return y.transpose(1, 2), [x.reshape(B, -1, 1) for x in (window, memory)]
