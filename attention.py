"""How tokens attend to each other: one rule for padding, packing, shared prefixes and caching, and the ways
to compute attention. The rotation that tells queries and keys their positions is in rotary.py.

Query slot i sees key slot j when j <= i < end[j], and in a sliding layer only if they are at most `reach`
positions apart: see `sees`. `ways` chooses how to compute it: `dense` makes all scores under a mask, `banded`
only those near the diagonal, `flexed` compiles a kernel for the rule, `by_text` leaves out the padding of an
encoder's texts. Shapes as in model.py."""

from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.utils._triton import has_triton

ALWAYS = 1 << 30  # an `end` beyond every slot: the token stays visible
BLOCK = 64  # queries in a block of the band, at least
FLEX_FROM = 1024  # slots from which a GPU gets a kernel compiled for the mask: tens of seconds, once


# ------------------------------------------------------------------------------------------------ the rule
def sees(i, j, end_i, end_j, causal):
    """The attention rule: whether slot i sees slot j, as tensors that broadcast.

    In a decoder when j <= i < end[j]; in an encoder when both belong to the same text, which is when their
    ends are equal. A slot that sees no other sees itself, so that softmax stays finite."""
    if causal:
        seen = (j <= i) & (i < end_j)
    else:
        seen = (end_i == end_j) & (end_j > 0)
    return seen | (i == j)


def visible(end, causal):
    """`sees` as a mask (B, 1, T, T).

    `end` (B, T) is the slot from which a token is no longer seen: ALWAYS in a plain row, the end of its
    document in a packed row, the end of its subtree where samples share a prefix, 0 for padding."""
    slots = torch.arange(end.shape[1], device=end.device)
    return sees(slots[:, None], slots, end[:, :, None], end[:, None, :], causal)[:, None]


# ------------------------------------------------------------------------------------------------ the ways
def dense(q, k, v, mask, causal, scale, softcap):
    """Attention by all T x S scores: (B, H, T, E) of q (B, H, T, E) on k and v (B, K, S, E).

    mask (B, 1, T, S), or None: an encoder's query then sees all keys, a decoder's those up to its slot."""
    _, H, T, E = q.shape
    K = k.shape[1]
    group = H // K  # query heads that share a key head
    if T == 1 and group > 1:  # these heads can be treated as so many queries of one head
        queries = q.view(-1, K, group, E)  # (B, K, G, E)
        x = dense(queries, k, v, mask, False, scale, softcap)
        return x.reshape(q.shape)

    causal = causal and mask is None and T > 1
    masked_on_gpu = mask is not None and q.device.type != "cpu"
    if group > 1 and (softcap or masked_on_gpu):
        # no fast kernel takes both a mask and grouped heads
        k = k.repeat_interleave(group, dim=1)
        v = v.repeat_interleave(group, dim=1)
    if not softcap:
        grouped = H != k.shape[1]
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            mask,
            is_causal=causal,
            scale=scale,
            enable_gqa=grouped,
        )

    # by hand: no fused kernel limits scores to +-softcap before the mask and a float32 softmax
    scores = softcap * torch.tanh(q @ k.transpose(2, 3) * scale / softcap)  # (B, H, T, S)
    if causal:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.float().softmax(dim=-1).to(v.dtype)
    return weights @ v


def cascaded(q, k, v, mask, causal, scale, softcap, n):
    """`dense` for single queries whose first n keys are the same in all rows: those are read once, for all
    queries together (as in Hydragen, arXiv 2402.05099)."""
    B, H, _, E = q.shape
    K = k.shape[1]
    q = q.reshape(B, K, -1, E) * scale  # (B, K, G, E)

    def merge(x):  # (B, K, G, .) -> (K, B G, .): the queries of all rows as if they were of one
        return x.transpose(0, 1).flatten(1, 2)

    def split(x):
        return x.unflatten(1, (B, -1)).transpose(0, 1)

    first = merge(q) @ k[0, :, :n].transpose(1, 2)  # (K, B G, n)
    rest = q @ k[:, :, n:].transpose(2, 3)  # (B, K, G, S - n)
    if softcap:
        first = softcap * torch.tanh(first / softcap)
        rest = softcap * torch.tanh(rest / softcap)
    if mask is not None:
        rest = rest.masked_fill(~mask[..., n:], -torch.inf)

    # one softmax over both parts, then the values of each
    scores = torch.cat((first, merge(rest)), dim=2)  # (K, B G, S)
    weights = scores.float().softmax(dim=2).to(v.dtype)
    x = split(weights[..., :n] @ v[0, :, :n])  # (B, K, G, E)
    x = x + split(weights[..., n:]) @ v[:, :, n:]
    return x.reshape(B, H, 1, E)


def banded(q, k, v, mask, causal, scale, softcap):
    """`dense` for a sliding layer, by the scores near the diagonal only: each block of w queries takes the S
    keys within its reach. mask (B, n, 1, w, S): see `band`, which has a picture."""
    T = q.shape[2]
    _, n, _, w, S = mask.shape
    before = S - w  # keys ahead of a block's first query
    if not causal:  # as many behind its last
        before //= 2

    def cut(x, before, width):
        """Windows (B n, heads, width, E) of x (B, heads, T, E), each beginning `before` slots ahead of its
        block."""
        behind = (n - 1) * w + width - before - T
        x = F.pad(x, (0, 0, before, behind))
        x = x.unfold(2, width, w)  # (B, heads, n, E, width)
        return x.permute(0, 2, 1, 4, 3).flatten(0, 1)

    queries = cut(q, 0, w)
    keys = cut(k, before, S)
    values = cut(v, before, S)
    x = dense(queries, keys, values, mask.flatten(0, 1), causal, scale, softcap)  # (B n, H, w, E)
    x = x.unflatten(0, (-1, n)).transpose(1, 2)  # (B, H, n, w, E)
    return x.flatten(2, 3)[:, :, :T]


def by_text(q, k, v, texts, causal, scale, softcap):
    """`dense` for texts laid end to end in one row, q (1, H, N, E), each of which sees only itself: no mask,
    no padding. texts: see `texts_of`."""
    sizes = [count * T for count, T in texts]
    parts = (x[0].transpose(0, 1).split(sizes) for x in (q, k, v))  # (slots, heads, E) each
    outputs = []
    for shape, *part in zip(texts, *parts):
        part = [x.unflatten(0, shape).transpose(1, 2) for x in part]  # (count, heads, T, E)
        x = dense(*part, None, causal, scale, softcap)
        outputs.append(x.transpose(1, 2).flatten(0, 1))  # (count T, heads, E)
    return torch.cat(outputs).transpose(0, 1)[None]


def flexed(q, k, v, mask, causal, scale, softcap):
    """`dense` by a kernel compiled for the rule, which keeps no scores. mask: a BlockMask by `blocks`."""
    # As tensors, since torch cannot compile numbers that differ in the next model: it makes them variables.
    scale = torch.full((), scale, device=q.device)
    cap = torch.full((), softcap or 1.0, device=q.device)
    if softcap:
        score = lambda score, b, h, i, j: cap * torch.tanh(score * scale / cap)
    else:
        score = lambda score, b, h, i, j: score * scale
    attend = flex_attention  # uncompiled it is no faster than dense
    if q.is_cuda:
        attend = compiled_flex()
    return attend(
        q,
        k,
        v,
        score_mod=score,
        block_mask=mask,
        scale=1.0,
        enable_gqa=True,
    )


@lru_cache
def compiled_flex():
    # One kernel for one row and one for several, with gradients and without, and so on. Past the limit torch
    # would go on uncompiled, where gradients inside a checkpoint are wrong: fullgraph makes that an error.
    return torch.compile(flex_attention, fullgraph=True, recompile_limit=64)


# ------------------------------------------------------------------------------------------------ their masks
def texts_of(end):
    """The texts of an encoder's rows, if each row holds one, else None: a list of (how many successive rows
    have this length, the length), empty rows left out. end (B, T)."""
    one_text = (end == 0) | (end == end.amax(1, keepdim=True))  # (B, T)
    if not one_text.all():
        return None
    lengths = (end > 0).sum(1)
    lengths = lengths[lengths > 0]
    lengths, counts = lengths.unique_consecutive(return_counts=True)
    return list(zip(counts.tolist(), lengths.tolist()))


def band(positions, end, reach, causal):
    """`sees` within `reach` as a mask (B, n, 1, w, S) for `banded`: n blocks of w queries, S keys for each.
    None where that is no faster, or where two tokens that see each other are not as many slots as positions
    apart, as where samples share a prefix. positions, end (B, T).

    A decoder's row of T = 8 slots with reach 2, in blocks of w = 2 queries. Each block is given the
    S = reach + w = 4 keys from `reach` before its first query to its last query; x marks what is seen:

                   keys  0 1 2 3 4 5 6 7
        block 0  query 0 x . . . . . . .      keys -2 -1  0  1      . . x .
                       1 x x . . . . . .                            . . x x
        block 1  query 2 x x x . . . . .      keys  0  1  2  3      x x x .
                       3 . x x x . . . .                            . x x x
        block 2  query 4 . . x x x . . .      keys  2  3  4  5      x x x .
                       5 . . . x x x . .                            . x x x
        block 3  query 6 . . . . x x x .      keys  4  5  6  7      x x x .
                       7 . . . . . x x x                            . x x x

    On the left the 64 scores of `dense`, on the right the 32 of `banded`; in a row of T the band has T S.
    Slots before the row (-2, -1) are padding. An encoder's blocks also take `reach` keys behind them. What
    padding itself sees may differ from what a dense mask shows it."""
    T = positions.shape[1]
    w = max(BLOCK, (reach + 1) // 4)
    after = reach
    if causal:
        after = 0
    n = -(-T // w)
    S = reach + w + after
    if T < 2 * S:  # forward and backward 1.0 to 2.3 times faster at 2 S, 1.8 to 3.2 at 3 S, 2.5 to 3.7 at 4 S
        return None

    j = torch.arange(T, device=positions.device)
    if end is None:  # one text a row; positions that stay 0 are padding behind a decoder's
        padding = causal & (positions.flip(1).cumsum(1).flip(1) == 0) & (j > 0)
        end = torch.where(padding, 0, ALWAYS)

    # From a token to the last slot that sees it, each position must follow the one before.
    last = end.clamp(max=T) - 1
    jump = (positions[:, 1:] != positions[:, :-1] + 1) | (end[:, :-1] == 0)
    jumps = F.pad(jump & (end[:, 1:] > 0), (1, 0)).cumsum(1)  # how many up to each slot
    straight = (last >= j) & (jumps.gather(1, last.clamp(min=0)) == jumps)
    if not (straight | (end == 0)).all():
        return None

    i = torch.arange(n * w, device=end.device).view(n, w, 1)
    j = (i[:, :1] - reach) + torch.arange(S, device=end.device)  # (n, 1, S)
    end = F.pad(end, (reach, n * w - T + after))
    end_i = end[:, reach : reach + n * w].view(-1, n, w, 1)
    end_j = end.unfold(1, S, w)[:, :, None]  # (B, n, 1, S)
    near = (i - j).abs() <= reach  # (n, w, S)
    mask = sees(i, j, end_i, end_j, causal) & near  # (B, n, w, S)
    return mask[:, :, None]


def blocks(positions, end, reach, causal):
    """`sees` within `reach` as a BlockMask for `flexed`: the rule, and a list of the blocks of 128 x 128
    slots in which it may let a score through. No mask is made. positions, end (B, T).

    Padding may see less than by `visible`."""
    B, T = end.shape
    n = -(-T // 128)
    positions = positions.int()
    end = end.int()
    behind = n * 128 - T  # slots that fill the last block
    padding = F.pad(end == 0, (0, behind), value=True)
    reach = torch.full((), reach, dtype=torch.int, device=end.device)  # as a tensor: see `flexed`

    def rule(b, h, i, j):
        near = (positions[b, i] - positions[b, j]).abs() <= reach
        return near & sees(i, j, end[b, i], end[b, j], causal)

    def bounds(x):
        """The least and the greatest in each block, as (B, n, 1) for queries and (B, 1, n) for keys."""
        x = F.pad(x, (0, behind))
        low = x.masked_fill(padding, ALWAYS).view(B, n, 128).amin(2)
        high = x.masked_fill(padding, 0).view(B, n, 128).amax(2)
        return (
            low[:, :, None],
            high[:, :, None],
            low[:, None],
            high[:, None],
        )

    # a block is live unless its bounds show that none of its queries sees any of its keys
    J = torch.arange(n, device=end.device)
    I = J[:, None]
    low_i, high_i, low_j, high_j = bounds(end)
    if causal:
        live = (J <= I) & (I * 128 < high_j)
    else:
        live = (low_i <= high_j) & (low_j <= high_i)
    low_i, high_i, low_j, high_j = bounds(positions)
    live = live & (low_i - high_j <= reach) & (low_j - high_i <= reach)
    live = live | (I == J)  # (B, n, n)
    order = live.int().argsort(dim=2, descending=True, stable=True)  # the live ones first
    count = live.sum(2, dtype=torch.int)[:, None]
    return BlockMask.from_kv_blocks(
        count,
        order[:, None].int(),
        mask_mod=rule,
        seq_lengths=(T, T),
    )


# ------------------------------------------------------------------------------------------------ the choice
def use_flex(config, positions):
    """Whether `flexed` is worth its compilation, and compiles at all: wider heads need the shared memory of a
    data centre's card."""
    if not positions.is_cuda or positions.shape[1] < FLEX_FROM or not has_triton():
        return False
    room = torch.cuda.get_device_properties(positions.device).shared_memory_per_multiprocessor
    widest = 64
    if room >= 160 << 10:
        widest = 256
    return 16 <= config.head_dim <= widest


def ways(
    config,
    positions,  # (B, T), of the queries
    end,  # (B, S): until which slot each key is seen; or None
    keys,  # (B, S): positions of the keys
    mask,  # (B, 1, T, S), replaces what `end` says; or None
    shared,  # how many of the first keys are known to be the same in all rows; T is 1 then
) -> tuple:
    """How full layers attend, and how sliding ones do: (function, mask) for each."""
    causal = config.causal
    reach = config.reach
    alone = mask is None and keys.shape == positions.shape  # no keys but those of the queries
    slides = bool(config.sliding) and keys.shape[1] > reach + 1  # a window holds all of a shorter row

    # on a GPU, for long rows: a compiled kernel
    if alone and use_flex(config, positions):
        known = end
        if end is None:
            known = torch.full_like(positions, ALWAYS)
        if end is None and not config.softcap:
            full = dense, None  # which has a kernel without a mask
        else:
            full = flexed, blocks(positions, known, ALWAYS, causal)
        if not slides:
            return full, full
        return full, (flexed, blocks(positions, known, reach, causal))

    # on a CPU, for an encoder's texts: each by itself; on a GPU so many small kernels would take longer
    apart = alone and not (causal or end is None) and positions.device.type == "cpu"
    texts = None
    if apart:
        texts = texts_of(end)
    if texts and not slides:
        return (by_text, texts), (by_text, texts)
    if texts:  # sliding layers take their tokens as a row of several texts
        lengths = (end > 0).sum(1)
        keys = positions = positions[end > 0][None]  # (1, N)
        end = lengths.cumsum(0).repeat_interleave(lengths)[None]

    # otherwise a mask of all scores, unless every layer that would need one has another way
    near = None
    if alone and slides:
        near = band(positions, end, reach, causal)
    spared = near is not None and (texts or all(config.sliding))
    if mask is None and end is not None and not spared:
        mask = visible(end, causal)

    if texts:
        full = by_text, texts
    elif shared:
        full = partial(cascaded, n=shared), mask
    else:
        full = dense, mask
    if near is not None:
        return full, (banded, near)
    if not slides:
        return full, full
    distance = (positions[:, :, None] - keys[:, None, :]).abs()  # (B, T, S)
    near = distance[:, None] <= reach
    if mask is not None:
        near = near & mask
    elif causal and positions.shape[1] > 1:  # a single query stands behind all keys
        near = near.tril()
    return full, (dense, near)
