"""Batched generation with a KV cache: sampling, n-best, and the probability of given texts.

Prompts are ragged lists of ids. A Session (cache.py) keeps the cache between calls, so what a prompt shares
with any text in it is not read again. Rows leave a batch when their reply ends, and waiting prompts take
their place. Each reply has its own random stream, so neighbours, order and batch size change nothing."""

import itertools
from collections import deque
from functools import partial
from heapq import nlargest
from operator import attrgetter

import numpy as np
import torch
import torch.nn.functional as F

from cache import Session
from data import collate, share_prefixes, shared_length
from games.task import Reply
from losses import token_logp

BATCH = 64  # replies that grow at a time
DRAFT = 5  # tokens
FLOAT32_DRAFT = 3  # the same in float32, where a row more costs more (bench/RESULTS.md has both)
PAYS = 0.4  # tokens of a draft that must come true on average, as a pass over a draft costs so much more
COLDEST = 1e-6  # logits divided by less would overflow, and differ by too much for a second token anyway


# ------------------------------------------------------------------------------------------------ one token
def finite(model, values):
    """The values, which a model has computed. Raises ValueError if one is not finite, with what is likely."""
    if not values.isfinite().all():
        broken = [name for name, w in model.named_parameters() if not w.to_dense().isfinite().all()]
        cause = f"they overflow in {model.embed.weight.dtype}; --dtype float32 has the most room"
        if broken:
            cause = f"its weight {model.config.file_name(broken[0])} is not; download or train it again"
        raise ValueError(f"the model's scores are not finite: {cause}")
    return values


def next_logits(model, hidden):
    """model.logits in float32, of which the largest of each row must be finite."""
    logits = model.logits(hidden).float()
    finite(model, logits.amax(-1))
    return logits


def truncate(probs, top_k=0, top_p=1.0, min_p=0.0):
    """probs (B, V) with the unlikely tokens set to zero; the rest is not renormalised.

    In this order: all but the top_k likeliest; all but the fewest that hold top_p of what is left (arXiv
    1904.09751); those below min_p times the likeliest (arXiv 2407.01082)."""
    if 0 < top_k < probs.shape[-1]:
        lowest = probs.topk(top_k, dim=-1).values[..., -1:]  # (B, 1)
        probs = probs * (probs >= lowest)
    if top_p < 1:
        ranked, index = probs.sort(dim=-1, descending=True)
        before = ranked.cumsum(-1) - ranked  # the mass of all likelier tokens
        # at least 1e-9, so that the likeliest token always stays
        enough = max(top_p, 1e-9) * ranked.sum(-1, keepdim=True)  # (B, 1)
        ranked = ranked * (before < enough)
        probs = torch.zeros_like(probs).scatter(-1, index, ranked)
    if min_p > 0:
        lowest = min_p * probs.amax(-1, keepdim=True)  # (B, 1)
        probs = probs * (probs >= lowest)
    return probs


def pick(logits, uniform, temperature, **tails):
    """One token a row, (B,), from logits (B, V): the likeliest at temperature 0 (below COLDEST),
    otherwise sampled.

    uniform: B numbers in [0, 1), at which the inverse of the cumulative distribution is taken. tails: see
    truncate."""
    if temperature < COLDEST:
        return logits.argmax(-1)
    probs = (logits / temperature).softmax(-1)  # (B, V)
    probs = truncate(probs, **tails)
    if not probs.is_cuda:  # not every device has float64
        probs = probs.cpu()
    uniform = torch.tensor(uniform, dtype=torch.float64, device=probs.device)
    return invert(probs, uniform)[:, 0].to(logits.device)


def logps_of(logits, tokens):
    """The log-probability of one token a row, (B,), of logits (B, V) and tokens (B,)."""
    return logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]


def invert(probs, uniform, block=256):
    """In each row the first token, (B, 1), at which the cumulative sum of probs (B, V) exceeds the share
    `uniform` (B,) of the total.

    In float64, in two steps: first among the sums of blocks, then within one block."""

    def first_above(cumulative, value):
        # rounding must not carry the value to the end, which nothing exceeds
        value = torch.minimum(value, torch.nextafter(cumulative[:, -1:], torch.zeros_like(value)))
        return torch.searchsorted(cumulative, value, right=True)

    padded = F.pad(probs, (0, -probs.shape[1] % block))
    blocks = padded.unflatten(1, (-1, block))  # (B, blocks, block)
    outer = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    value = uniform[:, None].double() * outer[:, -1:]
    at = first_above(outer, value)  # (B, 1), a block
    index = at[:, :, None].expand(-1, -1, block)
    chosen = blocks.gather(1, index)[:, 0]  # (B, block)
    inner = chosen.double().cumsum(-1)
    before = F.pad(outer, (1, 0)).gather(1, at)  # the sum of all earlier blocks
    return at * block + first_above(inner, value - before)


# ------------------------------------------------------------------------------------------------ sampling
class Growing:
    """A reply of at most `limit` tokens that grows in a row of the cache, the `index`-th of the call.

    sampling: the settings of `pick`. until(ids) says whether the reply is complete. `uniform` is its random
    stream, an iterator with a number for each token; None at temperature 0."""

    def __init__(self, index, prompt, limit, sampling, seed, until=None):
        self.index = index
        self.prompt = prompt
        self.limit = limit
        self.sampling = sampling
        self.until = until
        self.uniform = None
        if sampling["temperature"]:
            self.uniform = iter(np.random.default_rng(seed).random(limit))
        self.reply = Reply("", finished=False)

    def add(self, token, logp, stop):
        """Add a token. Returns whether the reply goes on."""
        reply = self.reply
        reply.ids.append(token)
        reply.logps.append(logp)
        reply.finished = token in stop or bool(self.until and self.until(reply.ids))
        return not reply.finished and len(reply.ids) < self.limit


class Batch:
    """Replies that grow together: those `waiting` for a row of the cache, and those `growing`, {row: reply}.
    More may be added to `waiting` between two steps. rows: how many grow at a time."""

    def __init__(self, model, session: Session, rows: int, stop):
        self.model = model
        self.session = session
        self.rows = rows
        self.stop = stop
        self.waiting = deque()
        self.growing = {}
        self.fed = {}  # row -> the token that its reply ends with, which the model has not read yet
        # last state of each row
        self.hidden = torch.empty(len(session.texts), model.config.dim, device=model.device)
        self.shared = 0  # tokens that all growing prompts begin with

    @torch.no_grad()
    def step(self) -> tuple:
        """Add a token to each growing reply; those that have ended leave their rows. Returns the replies that
        grew, and the logits (B, V) that their tokens were picked from."""
        # read the last tokens of those that go on
        if self.fed:
            close_gaps(self.session, self.fed, self.growing)
            self.hidden[: max(self.fed) + 1] = self.session.feed(self.fed, self.shared)
            self.fed = {}

        # let prompts in, an eighth of the rows or more at a time
        free = self.rows - len(self.growing)
        if self.waiting and (not self.growing or free >= max(1, self.rows // 8)):
            entering = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
            taken, states = self.session.prefill([new.prompt for new in entering], self.growing)
            self.growing |= zip(taken, entering)
            self.hidden = self.hidden.to(states.dtype)
            self.hidden[taken] = states
            texts = [reply.prompt for reply in self.growing.values()]
            self.shared = shared_length(min(texts), max(texts))  # the first and last in order share least

        # one token for each
        at = sorted(self.growing)
        grown = [self.growing[row] for row in at]
        logits = next_logits(self.model, self.hidden[at])  # (B, V)
        tokens = pick_each(logits, grown)  # (B,)
        logps = logps_of(logits, tokens)
        for row, token, logp in zip(at, tokens.tolist(), logps.tolist()):
            if self.growing[row].add(token, logp, self.stop):
                self.fed[row] = token
            else:
                del self.growing[row]
        return grown, logits


def pick_each(logits, growing: list):
    """One token for each reply, (B,), from logits (B, V), by its own settings and random stream."""
    tokens = torch.empty(len(growing), dtype=torch.long, device=logits.device)
    groups = {}  # settings -> the replies that have them, by number
    for i, growth in enumerate(growing):
        groups.setdefault(tuple(growth.sampling.items()), []).append(i)
    for settings, rows in groups.items():
        uniform = [next(growing[i].uniform) for i in rows if growing[i].uniform]
        part = logits if len(groups) == 1 else logits[rows]
        tokens[rows] = pick(part, uniform, **dict(settings))
    return tokens


@torch.no_grad()
def generate(
    model,
    prompts: list,
    max_new,
    stop,
    temperature: float = 1.0,
    seeds=None,
    session: Session | None = None,
    batch=BATCH,
    until=None,
    watch=None,
    **tails,
) -> list:
    """Continue each prompt until a stop id or max_new tokens (an int, or one for each prompt): list of Reply
    without text, in the order of the prompts.

    A reply's ids hold what was sampled, including a final stop id; its logps are the model's own, at
    temperature 1 and untruncated. seeds: an int or a list of ints for each prompt, by default its index.
    batch: how many replies grow at a time. until(ids) says whether a reply is complete; watch(i, reply) is
    called after every token of prompt i. tails: top_k, top_p and min_p, see truncate."""
    if not prompts:
        return []
    session = session or Session(model)
    limits = [max_new] * len(prompts) if isinstance(max_new, int) else max_new
    seeds = seeds or range(len(prompts))
    sampling = {"temperature": temperature, **tails}
    replies = []
    for i, prompt in enumerate(prompts):
        replies.append(Growing(i, prompt, limits[i], sampling, seeds[i], until))
    longest = max(len(new.prompt) + new.limit for new in replies)
    rows = session.reserve(min(batch, len(prompts)), longest)
    if len(replies) == 1 and can_draft(session, temperature):
        return [continue_alone(model, replies[0], session, stop, watch)]
    together = Batch(model, session, rows, stop)
    together.waiting.extend(replies)
    while together.waiting or together.growing:
        for growth in together.step()[0]:
            if watch:
                watch(growth.index, growth.reply)
    return [growth.reply for growth in replies]


class Lookup:
    """Guesses how a text goes on: as it did where its last three tokens, or two, stood before (prompt lookup,
    arXiv 2304.04487).

    `rate` is how many tokens of a guess came true, on average over about the last eight. While it is below
    PAYS, guesses are compared with what comes, at no cost, but not handed out."""

    def __init__(self, ids, size):
        self.size = size  # tokens of a guess
        self.ids = []
        self.after = {}  # the last tokens of a beginning of the text -> its length
        self.rate = 1.0
        self.guess = []
        self.start = 0  # where the guess begins
        for token in ids:
            self.add(token)

    def add(self, token):
        for n in (2, 3):
            self.after[tuple(self.ids[-n:])] = len(self.ids)
        self.ids.append(token)

    def draft(self, room) -> list:
        """At most `size` tokens, and at most `room`, that probably come next."""
        ids = self.ids
        came = ids[self.start : self.start + self.size]
        true = shared_length(self.guess, came)
        if self.guess and true == len(came) < len(self.guess):  # not decided yet
            return []
        if self.guess:
            self.rate += (true - self.rate) / 8
        self.guess = []
        self.start = len(ids)
        place = self.after.get(tuple(ids[-3:])) or self.after.get(tuple(ids[-2:]))
        for at in range(place, place + self.size) if place else ():
            self.guess.append(ids[at] if at < len(ids) else self.guess[at - len(ids)])
        return self.guess[: max(0, room)] if self.rate >= PAYS else []


def can_draft(session, temperature):
    """Whether one reply may be read with drafts of its next tokens: not where a CUDA graph reads one token
    faster, nor where the length of a text, with its draft, decides how keys are rotated, nor with states,
    which cannot be cut back."""
    return temperature < COLDEST and not (session.graphed or session.by_length or session.recurrent)


def continue_alone(model, growth, session, stop, watch):
    """Let one greedy reply grow to its end, and return it. A draft of its next tokens is read together with
    its last token, and those hold that the model chooses too: the reply is the same, in fewer passes."""
    (row,), states = session.prefill([growth.prompt])
    if row:
        session.swap(row, 0)
    in_float32 = model.embed.weight.dtype == torch.float32
    lookup = Lookup(growth.prompt, FLOAT32_DRAFT if in_float32 else DRAFT)
    draft = []
    while True:
        logits = next_logits(model, states)  # (1 + len(draft), V)
        tokens = logits.argmax(-1)
        logps = logps_of(logits, tokens).tolist()
        for i, token in enumerate(tokens.tolist()):
            goes_on = growth.add(token, logps[i], stop)
            lookup.add(token)
            if watch:
                watch(growth.index, growth.reply)
            if not goes_on or draft[i : i + 1] != [token]:
                break
        text = session.texts[0]
        del text[len(text) - len(draft) + i :]  # what did not come true
        if not goes_on:
            return growth.reply

        draft = lookup.draft(growth.limit - len(growth.reply.ids) - 1)
        if draft:
            new = [token, *draft]
            states = session.forward({0: new})[0]  # (1 + len(draft), D)
            text += new
        else:
            states = session.feed({0: token})


def close_gaps(session, fed, growing):
    """Move the highest rows into gaps, if more than a quarter of the rows are gaps: those compute along."""
    while max(fed) + 1 > len(fed) + len(fed) // 3:
        high = max(fed)
        gap = min(set(range(high)) - set(fed))
        session.swap(high, gap)
        fed[gap] = fed.pop(high)
        growing[gap] = growing.pop(high)


# ------------------------------------------------------------------------------------------------ n-best
class Search:
    """The beam search of one prompt: `beams`, at most n replies that still grow, and `ended`, the n likeliest
    that have ended, both best first.

    `parents` says which earlier beam each beam grew from, `last` which token it added; both are filled up to
    n with zeros."""

    def __init__(self, n, stops):
        self.n = n
        self.stops = stops
        self.beams = [Reply("", finished=False)]
        self.ended = []

    def grow(self, logps, tokens):
        """Add one token to the beams, from the C likeliest of each: lists (beams, C)."""
        options = []
        for w, beam in enumerate(self.beams):
            total = beam.logp
            for logp, token in zip(logps[w], tokens[w]):
                options.append((total + logp, w, token, logp))

        grown = []
        parents = []
        for _, w, token, logp in nlargest(2 * self.n, options):
            beam = self.beams[w]
            longer = Reply("", [*beam.ids, token], [*beam.logps, logp], token in self.stops)
            if longer.finished:
                self.ended.append(longer)
            elif len(grown) < self.n:
                grown.append(longer)
                parents.append(w)

        self.ended = nlargest(self.n, self.ended, key=attrgetter("logp"))
        if grown and len(self.ended) == self.n:
            if grown[0].logp <= self.ended[-1].logp:
                grown = []  # no longer reply can become better
        padding = [0] * (self.n - len(grown))
        self.beams = grown
        self.parents = parents[: len(grown)] + padding
        self.last = [beam.ids[-1] for beam in grown] + padding


@torch.no_grad()
def n_best(model, prompts: list, n: int, max_new: int, stop, session: Session | None = None) -> list:
    """The n likeliest replies to each prompt by beam search of width n, finished ones first: lists of Reply.

    Beams are branches of one tree behind the prompt, kept apart by the mask, so nothing is copied when they
    fork. Token t of beam w has slot len(prompt) + t n + w."""
    session = session or Session(model)
    S = max(map(len, prompts)) + n * max_new
    fits = session.reserve(len(prompts), S, windows=False)
    states = itertools.chain(*session.cache.states.values())
    copies = n * sum(x[0].nbytes for x in states)  # bytes for a prompt
    settings = n, max_new, stop, session
    if min(fits, max(1, session.budget // (1 + copies))) < len(prompts):  # too many for the budget
        half = -(-len(prompts) // 2)
        return n_best(model, prompts[:half], *settings) + n_best(model, prompts[half:], *settings)
    return grow_beams(model, prompts, *settings)


def grow_beams(model, prompts, n, max_new, stop, session):
    """n_best of prompts that the session has room for."""
    sizes = [len(prompt) for prompt in prompts]
    longest = max(sizes)
    S = longest + n * max_new
    at, hidden = session.prefill(prompts)
    hidden = hidden[:, None]  # (B, W, D)
    cache = session.cache
    states = cache.states.copy()  # of the prompts
    tensor = partial(torch.tensor, device=model.device)
    cache.branch(tensor(at))
    lengths = tensor(sizes)[:, None]  # (B, 1)
    slots = torch.arange(S, device=model.device)
    in_prompt = slots < lengths  # (B, S)
    cache.rows = tensor(at)
    cache.positions = torch.where(in_prompt, slots, lengths + (slots - lengths) // n)  # (B, S)
    seen = in_prompt[:, None]  # (B, W, S): the slots that each beam sees
    searches = [Search(n, set(stop)) for _ in prompts]
    for t in range(max_new):
        logps = next_logits(model, hidden).log_softmax(-1)  # (B, W, V)
        top, index = logps.topk(min(2 * n, logps.shape[-1]), dim=-1)  # (B, W, C) each
        for search, values, tokens in zip(searches, top.tolist(), index.tolist()):
            search.grow(values, tokens)
        if t + 1 == max_new or not any(search.beams for search in searches):
            break

        # each beam sees what its parent saw, and its own new slot
        parents = tensor([search.parents for search in searches])  # (B, n)
        last = tensor([search.last for search in searches])
        cache.slots = lengths + t * n + torch.arange(n, device=model.device)
        cache.used = longest + (t + 1) * n
        seen = seen.gather(1, parents[..., None].expand(-1, -1, S))
        seen = seen.scatter(2, cache.slots[..., None], True)
        mask = seen[:, None, :, : cache.used]  # (B, 1, W, used)
        if states:  # no mask hides a state: each beam goes on from a copy of its parent's
            first = hidden.shape[1] * torch.arange(len(prompts), device=model.device)[:, None]
            cache.branch((first + parents).flatten())
        hidden = model(last, (lengths + t).expand(-1, n), cache=cache, mask=mask)
    cache.slots = None
    cache.used = None
    cache.states = states
    return [search.ended or search.beams for search in searches]  # unfinished ones where none ended in time


# ------------------------------------------------------------------------------------------------ scoring
@torch.no_grad()
def score(model, samples: list, rows=16, max_tokens=1024) -> list:
    """Summed log-probability of the masked tokens of each sample (ids, mask): list of floats.

    Samples that begin alike are computed together, whatever conversation they come from."""
    # sorted samples into groups, each of which becomes one tree
    groups = [[]]
    size = 0
    last = []
    for i in sorted(range(len(samples)), key=samples.__getitem__):
        ids = samples[i][0]
        new = len(ids) - shared_length(last, ids)
        if groups[-1] and size + new > max_tokens:
            groups.append([])
            size = 0
            new = len(ids)
        groups[-1].append(i)
        size += new
        last = ids

    totals = torch.zeros(len(samples), dtype=torch.double)
    for start in range(0, len(groups), rows):
        trees = []
        for group in groups[start : start + rows]:
            members = [samples[i] for i in group]
            trees.append(share_prefixes(members, group))
        batch = collate(trees, model.device)
        hidden = model(batch.ids, batch.positions, batch.end)  # (B, T, D)
        hidden = hidden.flatten(0, 1)[batch.source]  # (N, D)
        logps = token_logp(model.logits, hidden, batch.target, model.config.vocab)
        owners = batch.labels[batch.owner].cpu()  # (N,): the sample of each token
        totals.index_add_(0, owners, logps.cpu().double())
    return finite(model, totals).tolist()
