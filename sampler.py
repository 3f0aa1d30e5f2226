"""Batched generation with a KV cache: sampling, n-best, and the probability of given texts.

Prompts are ragged lists of ids. A Session keeps the cache between calls: what texts share with any text in it
is never read twice. Rows leave a batch when their reply ends and waiting prompts take their place. Sampling
draws its numbers from one seed a sample, so neighbours, order and batch size change nothing."""

from collections import deque

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from cache import SLACK, KVCache
from data import collate, common, share_prefixes
from games.task import Reply
from losses import token_logp

BATCH = 64  # replies that grow at a time
READ = 2048  # slots of a forward pass over prompts
LITTLE = 8  # tokens that are rather read twice than waited for
KEYS = 256  # a CUDA graph looks at a multiple of so many keys
SHARED = 8, 128  # rows and tokens from which a CPU reads a beginning that all rows share only once a step


# ------------------------------------------------------------------------------------------------ the cache
class Session:
    """A model's cache of texts, of at most `budget` bytes: `texts` are the ids that each row holds. What was
    used least recently makes room."""

    def __init__(self, model, budget=None):
        self.model, self.cache, self.budget = model, None, budget or memory_for_texts(model.device)
        self.texts, self.last, self.clock = [], [], 0
        self.graphed, self.graphs = model.device.type == "cuda", {}  # see `replayed`

    def reserve(self, rows, slots, windows=True):
        """Rows (at most those asked for, as many as the budget holds, at least one) of at least `slots`;
        windows: sliding layers may keep only these."""
        asked, config, device = rows, self.model.config, self.model.device
        dtype = self.model.embed.weight.dtype  # of keys and values, unless autocast makes them another
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        before, kept = self.cache, []
        old = (len(self.texts), before.positions.shape[1]) if before else (0, 0)
        fits = before is not None and before.keys[0].dtype == dtype and (windows or not before.near)
        if rows <= old[0] and slots <= old[1] and fits:
            return rows
        slots = max(old[1], slots + slots // 4 if old[1] else slots)  # a growing conversation grows again
        tokens = sum(x.shape[2] for x in KVCache(config, 0, slots, windows=windows).keys)  # of all layers
        size = 2 * tokens * config.kv_heads * config.head_dim * dtype.itemsize
        rows = max(1, min(max(rows, old[0]), self.budget // size))
        self.cache, self.graphs = KVCache(config, rows, slots, device, dtype, windows), {}
        if fits and before.near == self.cache.near:
            kept = sorted(range(old[0]), key=lambda row: -self.last[row])[:rows]
        for new, row in enumerate(kept):
            self.cache.copy(row, new, len(self.texts[row]), before)
        empty = rows - len(kept)
        self.texts = [self.texts[row] for row in kept] + [[] for _ in range(empty)]
        self.last = [self.last[row] for row in kept] + [-1] * empty
        return min(asked, rows)

    def prefill(self, prompts, busy=()):
        """Read prompts (lists of ids) into rows that are not busy, reusing all that any row holds: (rows,
        last hidden states (B, D)).

        Prompts that share more with each other than with the cache are read one after another, so that n
        samples of a prompt cost one."""
        rows, hidden = [None] * len(prompts), [None] * len(prompts)
        waiting, taken = sorted(range(len(prompts)), key=prompts.__getitem__), set(busy)
        self.clock += 1
        while waiting:
            wave, later, previous = [], [], []
            for i in waiting:
                keep, _ = self.nearest(prompts[i])
                if min(common(previous, prompts[i]), len(prompts[i]) - 1) > keep + LITTLE:
                    later.append(i)
                    continue
                wave.append((keep, i))
                previous = prompts[i]
            for _, i in sorted(wave, reverse=True):  # who shares most chooses first
                keep, source = self.nearest(prompts[i])
                rows[i] = row = self.row_for(source, keep, taken)
                if not keep:
                    self.cache.begin(row)
                elif row != source:
                    self.cache.copy(source, row, keep)
                self.texts[row], self.last[row] = prompts[i][:keep], self.clock
                taken.add(row)
            self.read([i for _, i in wave], rows, prompts, hidden)
            waiting = later
        return rows, torch.stack(hidden)

    def nearest(self, prompt):
        """(tokens shared, row) of the row that begins most like a prompt. The last token of a prompt counts
        as new: it must be read, for its output."""
        same = [row for row, text in enumerate(self.texts) if text[:1] == prompt[:1]]
        kept = ((min(common(self.texts[row], prompt), len(prompt) - 1), row) for row in same)
        return max((pair for pair in kept if self.cache.reaches(pair[1], pair[0])), default=(0, 0))

    def row_for(self, source, keep, taken):
        """A row for a text that begins like `source`: that one, if little is lost by it, else the one used
        least recently."""
        if source not in taken and keep and 2 * keep >= len(self.texts[source]):
            return source
        return min((row for row in range(len(self.texts)) if row not in taken), key=self.last.__getitem__)

    def read(self, chosen, rows, prompts, hidden):
        """Read what the rows of the chosen prompts lack, and note the last hidden states."""
        for i in chosen if self.cache.near else ():  # windows take no more than SLACK at once
            while len(rest := prompts[i][len(self.texts[rows[i]]) :]) > SLACK:
                self.read_group({i: rest[:SLACK]}, rows, hidden)
        new = {i: prompts[i][len(self.texts[rows[i]]) :] for i in chosen}
        order = sorted(chosen, key=lambda i: len(new[i]))
        while order:
            group = [order.pop()]  # the longest gives the width
            T = len(new[group[0]])
            while (
                order and (len(group) + 1) * T <= READ and (T <= 4 * LITTLE or 2 * len(new[order[-1]]) >= T)
            ):
                group.append(order.pop())
            self.read_group({i: new[i] for i in group}, rows, hidden)

    def read_group(self, new, rows, hidden):
        """Append ids to rows in one pass, {i: ids} to row rows[i], and note in hidden[i] the last state."""
        group, device = sorted(new, key=rows.__getitem__), self.model.device
        T = max(map(len, new.values()))
        ids = torch.tensor([new[i] + [0] * (T - len(new[i])) for i in group], device=device)
        kept = [len(self.texts[rows[i]]) for i in group]
        self.cache.slide((rows[i], n, n + len(new[i])) for i, n in zip(group, kept))
        last = self.cache.positions.shape[1] - 1  # padding must not ask for more
        positions = torch.tensor(kept, device=device)[:, None] + torch.arange(T, device=device)
        low, high = rows[group[0]], rows[group[-1]] + 1
        self.cache.rows = torch.tensor([rows[i] for i in group], device=device)
        if high - low == len(group):
            self.cache.rows = slice(low, high)  # which copies nothing
        found = self.model(ids, positions.clamp(max=last), cache=self.cache)  # (B, T, D)
        for i, states in zip(group, found):
            hidden[i] = states[len(new[i]) - 1]
            self.texts[rows[i]] += new[i]

    def feed(self, tokens, shared=0):
        """Append one token to rows, {row: token}, the rows between them reading along: hidden states (top, D)
        of all rows up to the highest. shared: with how many tokens all of these rows begin alike."""
        top, device = max(tokens) + 1, self.model.device
        if self.graphed:  # few numbers of rows: 1, 2, 4, 8, 16, 24 ...
            top = min(len(self.texts), next((n for n in (1, 2, 4) if n >= top), -(-top // 8) * 8))
        ids, positions = np.zeros((top, 1), dtype=np.int64), np.zeros((top, 1), dtype=np.int64)
        for row in range(top):
            positions[row] = len(self.texts[row])
        self.cache.slide((row, int(n), int(n) + 1) for row, n in enumerate(positions[:, 0]))
        for row, token in tokens.items():
            ids[row], self.last[row] = token, self.clock
            self.texts[row].append(token)
        self.cache.rows, self.cache.used = slice(0, top), int(positions.max()) + 1
        worth = device.type == "cpu" and len(tokens) >= SHARED[0] and shared >= SHARED[1]
        self.cache.shared = shared if worth else 0
        ids, positions = torch.from_numpy(ids).to(device), torch.from_numpy(positions).to(device)
        if self.graphed:
            hidden = self.replayed(ids, positions)
        else:
            hidden = self.model(ids, positions, cache=self.cache)
        self.cache.used, self.cache.shared = None, 0
        return hidden[: max(tokens) + 1, 0]

    def replayed(self, ids, positions):
        """The model on one token a row, by a CUDA graph: its hundreds of small kernels start in one go. A
        graph is of one shape, so it looks at a multiple of KEYS keys; what it reads and writes stays in
        place until `reserve` makes another cache."""
        cache = self.cache
        used = min(cache.positions.shape[1], -(-cache.used // KEYS) * KEYS)

        def step(ids, positions):
            cache.rows, cache.used, cache.near_used = slice(0, len(ids)), used, cache.near
            seen = torch.arange(used, device=ids.device) <= positions[:, :, None]
            return self.model(ids, positions, cache=cache, mask=seen[:, None])

        if torch.is_autocast_enabled(ids.device.type):  # a graph would go on with its copies of the weights
            return step(ids, positions)
        key = len(ids), used
        if key not in self.graphs:
            self.graphs[key] = torch.cuda.make_graphed_callables(step, (ids, positions))
        return self.graphs[key](ids, positions)

    def swap(self, a, b):
        """Exchange two rows."""
        n, cache = max(len(self.texts[a]), len(self.texts[b])), self.cache
        for x in cache.tensors(near=False):
            x[[a, b], :, :n] = x[[b, a], :, :n]
        for x in (*cache.tensors(near=True), cache.positions, cache.base):
            x[[a, b]] = x[[b, a]]
        for values in (self.texts, self.last, cache.bases):
            values[a], values[b] = values[b], values[a]


def memory_for_texts(device):
    """Bytes that a session may keep: 2 GiB, of a graphics card half of what is free."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 2 << 30


# ------------------------------------------------------------------------------------------------ sampling
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


def pick(logits, uniform, temperature, top_k=0, top_p=1.0, min_p=0.0):
    """One token a row, (B,), and its log-probability under what it was drawn from: the best at temperature 0,
    else the inverse of the cumulative distribution at uniform (B,)."""
    if temperature == 0:
        best = logits.argmax(-1)
        return best, torch.zeros(len(best))
    probs = truncate((logits / temperature).softmax(-1), top_k, top_p, min_p)
    exact = probs if probs.is_cuda else probs.cpu()  # not every device has float64
    tokens = invert(exact, uniform.to(exact.device)).to(logits.device)
    return tokens[:, 0], (probs.gather(1, tokens) / probs.sum(-1, keepdim=True)).log()[:, 0]


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


@torch.no_grad()
def generate(
    model,
    prompts,
    max_new,
    stop,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    seeds=None,
    session=None,
    batch=BATCH,
    process=None,
    until=None,
    watch=None,
    progress=False,
):
    """Continue each prompt until a stop id or max_new tokens (an int, or one a prompt): list of Reply without
    text, in their order.

    A reply's ids hold what was sampled, a final stop id included; logps are the model's own, at temperature 1
    and untruncated, drawn_logps those of the distribution that was drawn from. seeds: one int or list of ints
    a prompt, by default its number. batch: replies that grow at a time.
    process(logits (B, V), replies) -> logits changes what may come next; until(ids) says whether a reply is
    at its end; watch(i, reply) is called after every token of prompt i; progress shows a bar."""
    if not prompts:
        return []
    session = session or Session(model)
    limits = [max_new] * len(prompts) if isinstance(max_new, int) else max_new
    longest = max(len(prompt) + limit for prompt, limit in zip(prompts, limits))
    rows = session.reserve(min(batch, len(prompts)), longest)
    replies, waiting, growing = [Reply("", finished=False) for _ in prompts], deque(range(len(prompts))), {}
    seeds = seeds or range(len(prompts))
    draws = [np.random.default_rng(seed).random(n) for seed, n in zip(seeds, limits)] if temperature else []
    hidden = torch.empty(len(session.texts), model.config.dim, device=model.device)
    bar = tqdm(total=len(prompts), unit="reply", disable=not progress)
    while waiting or growing:
        free = rows - len(growing)
        if waiting and (not growing or free >= max(1, rows // 8)):
            entering = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            taken, states = session.prefill([prompts[i] for i in entering], growing)
            growing |= dict(zip(taken, entering))
            hidden = hidden.to(states.dtype)
            hidden[taken] = states
            texts = [prompts[i] for i in growing.values()]
            shared = common(min(texts), max(texts))  # what the first and the last in order begin with, all do
        at = sorted(growing)
        current = [replies[growing[row]] for row in at]
        logits = model.logits(hidden[at]).float()  # (B, V)
        scores = process(logits.clone(), current) if process else logits
        uniform = [draws[growing[row]][len(reply.ids)] for row, reply in zip(at, current) if temperature]
        uniform = torch.tensor(uniform, dtype=torch.float64)
        tokens, drawn = pick(scores, uniform, temperature, top_k, top_p, min_p)
        logps = (logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
        fed = {}
        for row, token, logp, own in zip(at, tokens.tolist(), logps, drawn.tolist()):
            i = growing[row]
            reply = replies[i]
            reply.ids.append(token)
            reply.logps.append(logp)
            reply.drawn_logps.append(own)
            reply.finished = token in stop or bool(until and until(reply.ids))
            if watch:
                watch(i, reply)
            if reply.finished or len(reply.ids) == limits[i]:
                del growing[row]
                bar.update()
            else:
                fed[row] = token
        if fed:
            close_ranks(session, fed, growing)
            hidden[: max(fed) + 1] = session.feed(fed, shared)
    bar.close()
    return replies


def only(choices):
    """A `process` of generate that lets nothing come but one of the choices, lists of ids."""
    trie = {}
    for choice in choices:
        node = trie
        for token in choice:
            node = node.setdefault(token, {})

    def process(logits, replies):
        scores = torch.full_like(logits, -torch.inf)
        for row, reply in enumerate(replies):
            node = trie
            for token in reply.ids:
                node = node[token]
            scores[row, list(node)] = logits[row, list(node)]
        return scores

    return process


def close_ranks(session, fed, growing):
    """Move the highest rows into gaps, where these are more than a quarter: gaps compute along."""
    while max(fed) + 1 > len(fed) + len(fed) // 3:
        high, gap = max(fed), min(row for row in range(max(fed)) if row not in fed)
        session.swap(high, gap)
        fed[gap], growing[gap] = fed.pop(high), growing.pop(high)


@torch.no_grad()
def n_best(model, prompts, n, max_new, stop, session=None, length_penalty=0.0):
    """The n likeliest replies of each prompt by beam search of width n, finished ones first: lists of Reply.

    Replies are compared by their log-probability over their length ** length_penalty. Beams are branches of
    one tree behind the row's text, kept apart by the mask: nothing is copied when they fork."""
    session = session or Session(model)
    longest = max(map(len, prompts))
    rows = session.reserve(len(prompts), longest + n * max_new, windows=False)
    if rows < len(prompts):
        half = -(-len(prompts) // 2)
        parts = (prompts[:half], prompts[half:])
        return [
            group
            for part in parts
            for group in n_best(model, part, n, max_new, stop, session, length_penalty)
        ]
    at, hidden = session.prefill(prompts)
    hidden, cache, device, stops = hidden[:, None], session.cache, model.device, set(stop)  # (B, W, D)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)[:, None]
    cache.rows, slots = torch.tensor(at, device=device), torch.arange(longest + n * max_new, device=device)
    prefix = (slots < lengths)[:, None]  # (B, 1, S)
    live = [[((), ())] for _ in prompts]  # (ids, logps) of each beam
    done = [[] for _ in prompts]
    # which of the branches' slots each beam sees
    own = torch.zeros(len(prompts), 1, len(slots), dtype=torch.bool, device=device)

    def worth(logps, length=None):
        return sum(logps) / (length or len(logps)) ** length_penalty

    for t in range(max_new):
        logps = model.logits(hidden).float().log_softmax(-1)  # (B, W, V)
        best = logps.topk(min(2 * n, logps.shape[-1]), dim=-1)
        values, tokens = best.values.tolist(), best.indices.tolist()
        parents, fed = [], []
        for row, beams in enumerate(live):
            totals = [sum(so_far) for _, so_far in beams]
            options = sorted(
                (
                    (total + value, w, token, value)
                    for w, total in enumerate(totals)
                    for value, token in zip(values[row][w], tokens[row][w])
                ),
                reverse=True,
            )
            grown = []
            for _, w, token, logp in options[: 2 * n]:
                ids, so_far = (*beams[w][0], token), (*beams[w][1], logp)
                if token in stops:
                    done[row].append(Reply("", list(ids), list(so_far)))
                elif len(grown) < n:
                    grown.append((w, ids, so_far))
            done[row] = sorted(done[row], key=lambda reply: -worth(reply.logps))[:n]
            worst = worth(done[row][-1].logps) if len(done[row]) == n else -np.inf
            if not grown or worth(grown[0][2], max_new) <= worst:  # no longer reply can be better any more
                grown = []
            live[row] = [(ids, so_far) for _, ids, so_far in grown]
            padding = n - len(grown)
            parents.append([w for w, _, _ in grown] + [0] * padding)
            fed.append([ids[-1] for _, ids, _ in grown] + [0] * padding)
        if t + 1 == max_new or not any(live):
            break
        parents, fed = torch.tensor(parents, device=device), torch.tensor(fed, device=device)
        own = own.gather(1, parents[..., None].expand(-1, -1, own.shape[2]))
        new = lengths + t * n + torch.arange(n, device=device)  # (B, W) slots of the beams' new tokens
        own = own.scatter(2, new[..., None], True)
        cache.slots, cache.used = new, longest + (t + 1) * n
        mask = (prefix | own)[:, None, :, : cache.used]  # (B, 1, W, S)
        hidden = model(fed, (lengths + t).expand(-1, n), cache=cache, mask=mask)
    cache.slots = cache.used = None
    for row, beams in enumerate(live):  # none ended in time: the best that did not
        cut = [Reply("", list(ids), list(logps), finished=False) for ids, logps in beams]
        done[row] = done[row] or cut
    return done


# ------------------------------------------------------------------------------------------------ scoring
@torch.no_grad()
def score(model, samples, rows=16, max_tokens=1024):
    """Summed log-probability of the masked tokens of each sample (ids, mask): list of floats.

    Samples that begin alike are computed together, whatever conversation they come from.
    """
    order = sorted(range(len(samples)), key=lambda i: samples[i])
    groups, size, last = [[]], 0, []
    for i in order:
        ids = samples[i][0]
        new = len(ids) - common(last, ids)
        if groups[-1] and size + new > max_tokens:
            groups.append([])
            size, new = 0, len(ids)
        groups[-1].append(i)
        size, last = size + new, ids
    totals = [0.0] * len(samples)
    for start in range(0, len(groups), rows):
        chunk = groups[start : start + rows]
        batch = collate([share_prefixes([samples[i] for i in group]) for group in chunk], model.device)
        hidden = model(batch["ids"], batch["positions"], batch["end"])
        hidden = hidden.flatten(0, 1)[batch["source"]]  # (N, D)
        logp = token_logp(model.logits, hidden, batch["target"], model.config.vocab).cpu().double()
        owner = [i for group in chunk for i in group for learned in samples[i][1][1:] if learned]
        for i, value in zip(owner, logp.tolist()):
            totals[i] += value
    return totals
