"""Batched generation with a KV cache: sampling, n-best, and the probability of given texts.

Prompts are ragged lists of ids. A Session (cache.py) keeps the cache between calls, so what texts share with
any text in it is never read twice. Rows leave a batch when their reply ends, and waiting prompts take their
place. Each reply has its own random stream, so neighbours, order and batch size change nothing."""

from collections import deque
from heapq import nlargest
from operator import attrgetter

import numpy as np
import torch
import torch.nn.functional as F

from cache import Session
from data import collate, common, share_prefixes
from games.task import Reply
from losses import token_logp

BATCH = 64  # replies that grow at a time


# ------------------------------------------------------------------------------------------------ one token
def truncate(probs, top_k=0, top_p=1.0, min_p=0.0):
    """probs (B, V) with the tails zeroed, not renormalised: the k likeliest tokens, then the fewest that hold
    top_p of the mass (arXiv 1904.09751), then those of at least min_p times the likeliest (arXiv
    2407.01082)."""
    if 0 < top_k < probs.shape[-1]:
        probs = probs * (probs >= probs.topk(top_k, dim=-1).values[..., -1:])
    if top_p < 1:
        ranked, index = probs.sort(dim=-1, descending=True)
        before = ranked.cumsum(-1) - ranked
        ranked = ranked * (before < max(top_p, 1e-9) * ranked.sum(-1, keepdim=True))
        probs = torch.zeros_like(probs).scatter(-1, index, ranked)
    if min_p > 0:
        probs = probs * (probs >= min_p * probs.amax(-1, keepdim=True))
    return probs


def pick(logits, uniform, temperature, **tails):
    """One token a row, (B,), of logits (B, V): the best at temperature 0, else the inverse of the cumulative
    distribution at uniform, a list of B shares. tails as in truncate."""
    if temperature == 0:
        return logits.argmax(-1)
    probs = truncate((logits / temperature).softmax(-1), **tails)
    exact = probs if probs.is_cuda else probs.cpu()  # not every device has float64
    uniform = torch.tensor(uniform, dtype=torch.float64, device=exact.device)
    return invert(exact, uniform).to(logits.device)[:, 0]


def invert(probs, uniform, block=256):
    """For each row the first token, (B, 1), with which the cumulative probs (B, V) exceed the share uniform
    (B,) of their sum: in float64, first among the sums of blocks, then in one block."""

    def first(cumulative, value):  # that exceeds the value, which rounding must not take to the end
        value = torch.minimum(value, torch.nextafter(cumulative[:, -1:], torch.zeros_like(value)))
        return torch.searchsorted(cumulative, value, right=True)

    blocks = F.pad(probs, (0, -probs.shape[1] % block)).unflatten(1, (-1, block))
    outer = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    value = uniform[:, None].double() * outer[:, -1:]
    at = first(outer, value)
    inner = blocks.gather(1, at[:, :, None].expand(-1, -1, block))[:, 0].double().cumsum(-1)
    return at * block + first(inner, value - F.pad(outer, (1, 0)).gather(1, at))


# ------------------------------------------------------------------------------------------------ sampling
class Growing:
    """A reply that is to grow in a row of the cache: the `number`-th, of at most `limit` tokens. `shares` is
    its random stream, a share for each token, none at temperature 0."""

    def __init__(self, number, prompt, limit, temperature, seed):
        self.number, self.prompt, self.limit = number, prompt, limit
        self.shares = np.random.default_rng(seed).random(limit) if temperature else ()
        self.reply = Reply("", finished=False)

    def add(self, token, logp, stop, until):
        """Add a token. Returns whether the reply goes on."""
        reply = self.reply
        reply.ids.append(token)
        reply.logps.append(logp)
        reply.finished = token in stop or bool(until and until(reply.ids))
        return not reply.finished and len(reply.ids) < self.limit


@torch.no_grad()
def generate(
    model,
    prompts,
    max_new,
    stop,
    temperature=1.0,
    seeds=None,
    session=None,
    batch=BATCH,
    until=None,
    watch=None,
    **tails,
):
    """Continue each prompt until a stop id or max_new tokens (an int, or one a prompt): list of Reply without
    text, in their order.

    A reply's ids hold what was sampled, a final stop id included; logps are the model's own, at temperature 1
    and untruncated. seeds: one int or list of ints a prompt, by default its number. batch: replies that grow
    at a time. until(ids) says whether a reply is at its end; watch(i, reply) is called after every token of
    prompt i. tails: top_k, top_p and min_p, see truncate."""
    if not prompts:
        return []
    session = session or Session(model)
    limits = [max_new] * len(prompts) if isinstance(max_new, int) else max_new
    seeds = seeds or range(len(prompts))
    replies = [Growing(i, prompts[i], limits[i], temperature, seeds[i]) for i in range(len(prompts))]
    longest = max(len(new.prompt) + new.limit for new in replies)
    rows = session.reserve(min(batch, len(prompts)), longest)
    hidden = torch.empty(len(session.texts), model.config.dim, device=model.device)  # last state of each row
    waiting, growing = deque(replies), {}  # growing: row -> the reply in it
    while waiting or growing:
        free = rows - len(growing)
        if waiting and (not growing or free >= max(1, rows // 8)):
            entering = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            taken, states = session.prefill([new.prompt for new in entering], growing)
            growing |= zip(taken, entering)
            hidden = hidden.to(states.dtype)
            hidden[taken] = states
            texts = [reply.prompt for reply in growing.values()]
            shared = common(min(texts), max(texts))  # what the first and the last in order begin with, all do
        at = sorted(growing)
        logits = model.logits(hidden[at]).float()  # (B, V)
        shares = [growing[row].shares[len(growing[row].reply.ids)] for row in at if temperature]
        tokens = pick(logits, shares, temperature, **tails)
        logps = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        fed = {}
        for row, token, logp in zip(at, tokens.tolist(), logps.tolist()):
            growth = growing[row]
            if growth.add(token, logp, stop, until):
                fed[row] = token
            else:
                del growing[row]
            if watch:
                watch(growth.number, growth.reply)
        if fed:
            close_ranks(session, fed, growing)
            hidden[: max(fed) + 1] = session.feed(fed, shared)
    return [growth.reply for growth in replies]


def close_ranks(session, fed, growing):
    """Move the highest rows into gaps, where these are more than a quarter: gaps compute along."""
    while max(fed) + 1 > len(fed) + len(fed) // 3:
        high = max(fed)
        gap = min(set(range(high)) - set(fed))
        session.swap(high, gap)
        fed[gap] = fed.pop(high)
        growing[gap] = growing.pop(high)


# ------------------------------------------------------------------------------------------------ n-best
class Search:
    """The beam search of one prompt: `beams`, at most n replies that still grow, and `ended`, the n likeliest
    that did, both best first. `parents` are the beams that these grew from, `last` their last tokens, filled
    up to n."""

    def __init__(self, n, stops):
        self.n, self.stops = n, stops
        self.beams, self.ended = [Reply("", finished=False)], []

    def grow(self, logps, tokens):
        """Go on by one token, of the likeliest of each beam, (beams, C) lists."""
        options = []
        for w, beam in enumerate(self.beams):
            total = beam.logp
            options += [(total + logp, w, token, logp) for logp, token in zip(logps[w], tokens[w])]
        grown, parents = [], []
        for _, w, token, logp in nlargest(2 * self.n, options):
            beam = self.beams[w]
            longer = Reply("", [*beam.ids, token], [*beam.logps, logp], token in self.stops)
            if longer.finished:
                self.ended.append(longer)
            elif len(grown) < self.n:
                grown.append(longer)
                parents.append(w)
        self.ended = nlargest(self.n, self.ended, key=attrgetter("logp"))
        if grown and len(self.ended) == self.n and grown[0].logp <= self.ended[-1].logp:
            grown = []  # no longer reply can be better any more
        empty = [0] * (self.n - len(grown))
        self.beams = grown
        self.parents = parents[: len(grown)] + empty
        self.last = [beam.ids[-1] for beam in grown] + empty


@torch.no_grad()
def n_best(model, prompts, n, max_new, stop, session=None):
    """The n likeliest replies of each prompt by beam search of width n, finished ones first: lists of Reply.

    Beams are branches of one tree behind the row's text, kept apart by the mask: nothing is copied when they
    fork. Token t of beam w has slot len(prompt) + t n + w."""
    session = session or Session(model)
    longest = max(map(len, prompts))
    S = longest + n * max_new
    if session.reserve(len(prompts), S, windows=False) < len(prompts):
        half = -(-len(prompts) // 2)
        settings = n, max_new, stop, session
        return n_best(model, prompts[:half], *settings) + n_best(model, prompts[half:], *settings)
    at, hidden = session.prefill(prompts)
    cache, device, hidden = session.cache, model.device, hidden[:, None]  # (B, W, D)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)[:, None]  # (B, 1)
    slots = torch.arange(S, device=device)
    cache.rows = torch.tensor(at, device=device)
    cache.positions = torch.where(slots < lengths, slots, lengths + (slots - lengths) // n)  # (B, S)
    seen = (slots < lengths)[:, None]  # (B, W, S): the slots that each beam sees
    searches = [Search(n, set(stop)) for _ in prompts]
    for t in range(max_new):
        logps = model.logits(hidden).float().log_softmax(-1)  # (B, W, V)
        best = logps.topk(min(2 * n, logps.shape[-1]), dim=-1)
        for search, values, tokens in zip(searches, best.values.tolist(), best.indices.tolist()):
            search.grow(values, tokens)
        if t + 1 == max_new or not any(search.beams for search in searches):
            break
        parents = torch.tensor([search.parents for search in searches], device=device)  # (B, n)
        last = torch.tensor([search.last for search in searches], device=device)
        cache.slots = lengths + t * n + torch.arange(n, device=device)
        cache.used = longest + (t + 1) * n
        seen = seen.gather(1, parents[..., None].expand(-1, -1, S)).scatter(2, cache.slots[..., None], True)
        mask = seen[:, None, :, : cache.used]  # (B, 1, W, used)
        hidden = model(last, (lengths + t).expand(-1, n), cache=cache, mask=mask)
    cache.slots = cache.used = None
    return [search.ended or search.beams for search in searches]  # where none ended in time, those cut


# ------------------------------------------------------------------------------------------------ scoring
@torch.no_grad()
def score(model, samples, rows=16, max_tokens=1024):
    """Summed log-probability of the masked tokens of each sample (ids, mask): list of floats.

    Samples that begin alike are computed together, whatever conversation they come from."""
    groups, size, last = [[]], 0, []
    for i in sorted(range(len(samples)), key=samples.__getitem__):
        ids = samples[i][0]
        new = len(ids) - common(last, ids)
        if groups[-1] and size + new > max_tokens:
            groups.append([])
            size, new = 0, len(ids)
        groups[-1].append(i)
        size += new
        last = ids
    totals = torch.zeros(len(samples), dtype=torch.double)
    for start in range(0, len(groups), rows):
        chunk = groups[start : start + rows]
        trees = [share_prefixes([samples[i] for i in group], group) for group in chunk]
        batch = collate(trees, model.device)
        hidden = model(batch.ids, batch.positions, batch.end).flatten(0, 1)[batch.source]  # (N, D)
        logps = token_logp(model.logits, hidden, batch.target, model.config.vocab)
        totals.index_add_(0, batch.labels[batch.owner].cpu(), logps.cpu().double())
    return totals.tolist()
