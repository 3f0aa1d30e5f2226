"""How tokens attend to each other: one rule for padding, packing, shared prefixes and caching, the rotation
by which queries and keys know their positions, and three ways to compute it.

Query slot i sees key slot j when j <= i < end[j], in a sliding layer only if at most `reach` positions lie
between them: see `sees`. `ways` chooses how: `dense` makes all scores under a mask, `banded` those near the
diagonal, `flexed` has a kernel compiled for the rule, `by_text` is for encoders' texts without their padding.
Shapes as in model.py."""

import math
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.utils._triton import has_triton

ALWAYS = 1 << 30  # an `end` beyond every slot: the token stays visible
FLEX_FROM = 1024  # slots from which a GPU gets a kernel compiled for the mask: tens of seconds, once


# ------------------------------------------------------------------------------------------------ the rule
def sees(i, j, end_i, end_j, causal):
    """The attention rule: slot i sees j when j <= i < end[j]; in an encoder, when both belong to the same
    text, which is when their ends are equal. A slot that sees nothing sees itself, so that softmax stays
    finite. All are tensors that broadcast."""
    seen = (j <= i) & (i < end_j) if causal else (end_i == end_j) & (end_j > 0)
    return seen | (i == j)


def visible(end, causal):
    """`sees` as a mask (B, 1, T, T).

    `end` (B, T) is where a token stops being seen: ALWAYS in a plain row, the end of its document in a packed
    row, the end of its subtree where prompts share a prefix, 0 for padding."""
    slots = torch.arange(end.shape[1], device=end.device)
    return sees(slots[:, None], slots, end[:, :, None], end[:, None, :], causal)[:, None]


# ------------------------------------------------------------------------------------------------ positions
def llama3_scaling(frequencies, rope):
    """Llama 3.1's rule: long wavelengths slow down by `factor`, short ones stay, those between are
    blended."""
    wavelengths = 2 * math.pi / frequencies
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    blend = (rope["original_max_position_embeddings"] / wavelengths - low) / (high - low)
    blend = blend.clamp(0, 1)
    return (1 - blend) * frequencies / rope["factor"] + blend * frequencies


def rotary(rope, head_dim, positions, dtype):
    """[cos, sin], each (B, 1, T, E), of positions (B, T), the first half of sin negative as `rotate` wants
    it; angles in float32 whatever the model's dtype.

    Dynamic scaling raises the base of a row that is longer than the model was trained for, by its own length,
    so that a batch means what its rows mean alone; keys in a cache keep the base they were rotated with."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    base, kind = rope["rope_theta"], rope["rope_type"]
    if kind == "dynamic":
        longest = rope["max_position_embeddings"]
        excess = ((positions.amax(1) + 1) / longest).clamp(min=1) - 1  # (B,)
        base = base * (1 + rope["factor"] * excess) ** (head_dim / (head_dim - 2))
        base = base[:, None, None, None]
    frequencies = base**-exponents  # (E/2,) or (B, 1, 1, E/2)
    if kind == "linear":
        frequencies = frequencies / rope["factor"]
    elif kind == "llama3":
        frequencies = llama3_scaling(frequencies, rope)
    angles = positions[:, None, :, None].float() * frequencies  # (B, 1, T, E/2)
    cos, sin = angles.cos(), angles.sin()
    return [torch.cat(halves, dim=-1).to(dtype) for halves in ((cos, cos), (-sin, sin))]


def rotate(x, cos, sin):
    """Rotate pairs (first half, second half) of the head width: x (B, heads, T, E); cos, sin of `rotary`."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


# ------------------------------------------------------------------------------------------------ three ways
def dense(q, k, v, mask, causal, scale, softcap):
    """Attention, (B, H, T, E), of q (B, H, T, E) on k and v (B, K, S, E) by all T x S scores: under a mask
    (B, 1, T, S), or without one over all keys, in a decoder over those up to the query's own."""
    T, group = q.shape[2], q.shape[1] // k.shape[1]
    if T == 1 and group > 1:  # heads that share their keys are as good as queries that do
        x = dense(q.view(-1, k.shape[1], group, q.shape[3]), k, v, mask, False, scale, softcap)
        return x.reshape(q.shape)
    causal = causal and mask is None and T > 1
    if group > 1 and (softcap or (mask is not None and q.device.type != "cpu")):
        # no fast kernel takes both a mask and grouped heads
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    if not softcap:
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=grouped
        )
    # no fused kernel lets scores saturate at +-softcap, before the mask and a float32 softmax
    scores = softcap * torch.tanh(q @ k.transpose(2, 3) * scale / softcap)  # (B, H, T, S)
    if causal:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.float().softmax(dim=-1).to(v.dtype) @ v


def cascaded(q, k, v, mask, causal, scale, softcap, n):
    """`dense` for single queries whose first n keys are the same in all rows: they are read once, for all
    queries together (as in Hydragen, arXiv 2402.05099)."""
    (B, H, _, E), K = q.shape, k.shape[1]
    q = q.reshape(B, K, -1, E) * scale  # (B, K, G, E)

    def across(x):  # (B, K, G, .) -> (K, B G, .): the queries of all rows as those of one
        return x.transpose(0, 1).flatten(1, 2)

    def back(x):
        return x.unflatten(1, (B, -1)).transpose(0, 1)

    first, rest = across(q) @ k[0, :, :n].transpose(1, 2), q @ k[:, :, n:].transpose(2, 3)
    if softcap:
        first, rest = (softcap * torch.tanh(x / softcap) for x in (first, rest))
    if mask is not None:
        rest = rest.masked_fill(~mask[..., n:], -torch.inf)
    scores = torch.cat((first, across(rest)), dim=2)  # (K, B G, S)
    weights = scores.float().softmax(dim=2).to(v.dtype)
    return (back(weights[..., :n] @ v[0, :, :n]) + back(weights[..., n:]) @ v[:, :, n:]).reshape(B, H, 1, E)


def banded(q, k, v, mask, causal, scale, softcap):
    """The same for a sliding layer, by the scores near the diagonal only: each block of w queries takes the S
    keys that it can reach. mask (B, n, 1, w, S): see `band`."""
    T, n, w, S = q.shape[2], mask.shape[1], *mask.shape[3:]
    before = S - w if causal else (S - w) // 2

    def cut(x, before, width):
        """Windows (B n, heads, width, E) of x (B, heads, T, E), each `before` slots ahead of its block."""
        x = F.pad(x, (0, 0, before, (n - 1) * w + width - before - T)).unfold(2, width, w)
        return x.permute(0, 2, 1, 4, 3).flatten(0, 1)

    windows = cut(q, 0, w), cut(k, before, S), cut(v, before, S)
    x = dense(*windows, mask.flatten(0, 1), causal, scale, softcap)  # (B n, H, w, E)
    return x.unflatten(0, (-1, n)).transpose(1, 2).flatten(2, 3)[:, :, :T]


def by_text(q, k, v, texts, causal, scale, softcap):
    """The same for texts that stand one behind the other in one row, q (1, H, N, E), each seen by
    itself alone: no mask, no padding. texts: see `texts_of`."""
    sizes = [count * T for count, T in texts]
    found = []
    for size, *part in zip(texts, *(x[0].transpose(0, 1).split(sizes) for x in (q, k, v))):
        part = [x.unflatten(0, size).transpose(1, 2) for x in part]  # (count, heads, T, E)
        found.append(dense(*part, None, causal, scale, softcap).transpose(1, 2).flatten(0, 1))
    return torch.cat(found).transpose(0, 1)[None]


def flexed(q, k, v, mask, causal, scale, softcap):
    """The same by a kernel that is compiled for a rule and keeps no scores; mask: a BlockMask of `blocks`."""
    # as tensors: of a number that is another in the next model torch makes a variable, and cannot compile it
    scale, cap = (torch.full((), number or 1.0, device=q.device) for number in (scale, softcap))
    if softcap:
        score = lambda score, b, h, i, j: cap * torch.tanh(score * scale / cap)
    else:
        score = lambda score, b, h, i, j: score * scale
    attend = compiled_flex() if q.is_cuda else flex_attention  # uncompiled it is no faster than dense
    return attend(q, k, v, score_mod=score, block_mask=mask, scale=1.0, enable_gqa=True)


@lru_cache
def compiled_flex():
    # One kernel for one row and one for several, with gradients and without, and so on. Past the limit torch
    # would go on uncompiled, where gradients inside a checkpoint are wrong: fullgraph makes that an error.
    return torch.compile(flex_attention, fullgraph=True, recompile_limit=64)


# ------------------------------------------------------------------------------------------------ their masks
def texts_of(end):
    """The texts of an encoder's rows of one text each, end (B, T): a list of (how many of a length in a row,
    their tokens), empty ones left out. Or None where a row holds several."""
    if not ((end == 0) | (end == end.amax(1, keepdim=True))).all():
        return None
    lengths = (end > 0).sum(1)
    lengths, counts = lengths[lengths > 0].unique_consecutive(return_counts=True)
    return list(zip(counts.tolist(), lengths.tolist()))


def band(positions, end, reach, causal):
    """`sees` within `reach` as a mask (B, n, 1, w, S) for `banded`: n blocks of w queries on the S keys near
    each. Or None, where that is not faster, or where two tokens that see each other are not as many slots as
    positions apart, as where prompts share a prefix.

    positions, end (B, T). What padding itself sees may differ from what a dense mask shows it."""
    T, w, after = positions.shape[1], max(64, (reach + 1) // 4), 0 if causal else reach
    n, S = -(-T // w), reach + w + after
    if T < 2 * S:  # forward and backward 1.0 to 2.3 times faster at 2 S, 1.8 to 3.2 at 3 S, 2.5 to 3.7 at 4 S
        return None
    j = torch.arange(T, device=positions.device)
    if end is None:  # one text a row; positions that stay 0 are padding behind a decoder's
        padding = causal & (positions.flip(1).cumsum(1).flip(1) == 0) & (j > 0)
        end = torch.where(padding, 0, ALWAYS)
    last = end.clamp(max=T) - 1  # the last slot that sees a token; between them no position may be skipped
    jump = (positions[:, 1:] != positions[:, :-1] + 1) | (end[:, :-1] == 0)
    jumps = F.pad(jump & (end[:, 1:] > 0), (1, 0)).cumsum(1)
    straight = (last >= j) & (jumps.gather(1, last.clamp(min=0)) == jumps)
    if not (straight | (end == 0)).all():
        return None
    i = torch.arange(n * w, device=end.device).view(n, w, 1)
    j = (i[:, :1] - reach) + torch.arange(S, device=end.device)  # (n, 1, S)
    end = F.pad(end, (reach, n * w - T + after))
    end_i, end_j = end[:, reach : reach + n * w].view(-1, n, w, 1), end.unfold(1, S, w)[:, :, None]
    return (sees(i, j, end_i, end_j, causal) & ((i - j).abs() <= reach))[:, :, None]


def blocks(positions, end, reach, causal):
    """`sees` within `reach` for `flexed`, of positions and end (B, T): the rule, and a list of the blocks of
    128 x 128 slots in which it may let a score through. No mask is made. Padding may see less than by
    `visible`."""
    B, T = end.shape
    n = -(-T // 128)
    positions, end = positions.int(), end.int()
    padding = F.pad(end == 0, (0, n * 128 - T), value=True)
    reach = torch.full((), reach, dtype=torch.int, device=end.device)  # as a tensor: see `flexed`

    def rule(b, h, i, j):
        near = (positions[b, i] - positions[b, j]).abs() <= reach
        return near & sees(i, j, end[b, i], end[b, j], causal)

    def bounds(x):
        """The least and the greatest in each block, as (B, n, 1) for queries and (B, 1, n) for keys."""
        x = F.pad(x, (0, n * 128 - T))
        low, high = (x.masked_fill(padding, gap).view(B, n, 128) for gap in (ALWAYS, 0))
        low, high = low.amin(2), high.amax(2)
        return low[:, :, None], high[:, :, None], low[:, None], high[:, None]

    J = torch.arange(n, device=end.device)
    I = J[:, None]
    low_i, high_i, low_j, high_j = bounds(end)
    live = (J <= I) & (I * 128 < high_j) if causal else (low_i <= high_j) & (low_j <= high_i)
    low_i, high_i, low_j, high_j = bounds(positions)
    live = live & (low_i - high_j <= reach) & (low_j - high_i <= reach) | (I == J)  # (B, n, n)
    order = live.int().argsort(dim=2, descending=True, stable=True)
    count, order = live.sum(2, dtype=torch.int)[:, None], order[:, None].int()
    return BlockMask.from_kv_blocks(count, order, mask_mod=rule, seq_lengths=(T, T))


def flexible(config, positions):
    """Whether `flexed` is worth its compilation, and compiles: wider heads need the shared memory of a data
    centre's card."""
    if not positions.is_cuda or positions.shape[1] < FLEX_FROM or not has_triton():
        return False
    room = torch.cuda.get_device_properties(positions.device).shared_memory_per_multiprocessor
    return 16 <= config.head_dim <= (256 if room >= 160 << 10 else 64)


def ways(config, positions, end, keys, mask, shared):
    """How full layers attend and how sliding ones do: for each the function and its mask.

    positions (B, T) of the queries; end, keys (B, S): visibility, or None, and positions of the keys; mask
    (B, 1, T, S) replaces what `end` says. shared: how many of the first keys are known to be the same in all
    rows; T is 1 then."""
    causal, reach = config.causal, config.reach
    alone = mask is None and keys.shape == positions.shape  # no keys but those of the queries
    slides = bool(config.sliding) and keys.shape[1] > reach + 1  # a shorter row is seen whole
    if alone and flexible(config, positions):
        known = torch.full_like(positions, ALWAYS) if end is None else end
        full = flexed, blocks(positions, known, ALWAYS, causal)
        if end is None and not config.softcap:
            full = dense, None  # which has a kernel without a mask
        return full, (flexed, blocks(positions, known, reach, causal)) if slides else full
    apart = alone and not (causal or end is None) and positions.device.type == "cpu"
    texts = texts_of(end) if apart else None  # on a GPU many small kernels would take longer
    if texts and not slides:
        return (by_text, texts), (by_text, texts)
    if texts:  # what slides takes their tokens as a row of several texts
        lengths = (end > 0).sum(1)
        keys = positions = positions[end > 0][None]  # (1, N)
        end = lengths.cumsum(0).repeat_interleave(lengths)[None]
    near = band(positions, end, reach, causal) if alone and slides else None
    if mask is None and end is not None and not (near is not None and (texts or all(config.sliding))):
        mask = visible(end, causal)
    full = partial(cascaded, n=shared) if shared else dense, mask
    if texts:
        full = by_text, texts
    if near is not None:
        return full, (banded, near)
    if not slides:
        return full, full
    near = (positions[:, :, None] - keys[:, None, :]).abs()[:, None] <= reach  # (B, 1, T, S)
    if mask is not None:
        near = near & mask
    elif causal and positions.shape[1] > 1:  # a single query stands behind all keys
        near = near.tril()
    return full, (dense, near)
