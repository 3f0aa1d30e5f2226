"""Batched generation with a KV cache: sampling, n-best, and the probability of given texts.

Prompts are ragged lists of ids. A Session keeps the cache between calls, so that a growing conversation pays
only for what is new. Sampling draws its numbers from one seed a sample, so neighbours and batch size change
nothing."""

from bisect import bisect

import numpy as np
import torch

from attention import ALWAYS
from data import collate, common, share_prefixes
from games.task import Reply
from losses import token_logp
from model import KVCache


# ------------------------------------------------------------------------------------------------ the cache
class Session:
    """A model's cache over one set of rows; `texts` are the ids that each row's cache holds."""

    def __init__(self, model):
        self.model, self.cache, self.texts = model, None, []
        self.borrowed = False  # the cache is another session's too

    def fork(self):
        """A session that starts from this one's cache and leaves it as it is."""
        other = Session(self.model)
        other.cache, other.texts, other.borrowed = self.cache, self.texts, True
        return other

    def prefill(self, prompts):
        """Bring the cache to `prompts` (lists of ids), reusing rows that begin alike; last hidden states (B,
        D)."""
        rows, keep = self.match(prompts)
        device = self.model.device
        longest = max(len(prompt) - kept for prompt, kept in zip(prompts, keep))
        if not any(keep):
            dtype = self.model.embed.weight.dtype  # of keys and values, unless autocast makes them another
            if torch.is_autocast_enabled(device.type):
                dtype = torch.get_autocast_dtype(device.type)
            self.cache = KVCache(self.model.config, len(prompts), longest + 32, device, dtype)
        elif (
            rows == list(range(len(self.texts)))
            and not self.borrowed
            and self.cache.length < 2 * max(keep) + 64
        ):
            self.cache.forget(torch.tensor(keep, device=device))
        else:
            self.cache = self.cache.select(
                torch.tensor(rows, device=device), torch.tensor(keep, device=device)
            )
        self.borrowed, self.texts = False, [list(prompt) for prompt in prompts]
        ids = np.zeros((len(prompts), longest), dtype=np.int64)
        for row, (prompt, kept) in enumerate(zip(prompts, keep)):
            ids[row, : len(prompt) - kept] = prompt[kept:]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        positions = torch.tensor(keep, device=device)[:, None] + torch.arange(longest, device=device)
        end = (positions < lengths[:, None]) * ALWAYS
        hidden = self.model(torch.from_numpy(ids).to(device), positions, end, self.cache)  # (B, T, D)
        last = (lengths - 1)[:, None] - positions[:, :1]
        return hidden.gather(1, last[..., None].expand(-1, 1, hidden.shape[2]))[:, 0]

    def match(self, prompts):
        """For each prompt the row that shares most with it and how many tokens: among sorted texts, a
        neighbour."""
        order = sorted(range(len(self.texts)), key=self.texts.__getitem__)
        texts = [self.texts[row] for row in order]
        rows, keep = [], []
        for i, prompt in enumerate(prompts):
            place = bisect(texts, prompt)
            near = [
                (common(texts[p], prompt), -abs(order[p] - i), order[p])
                for p in (place - 1, place)
                if 0 <= p < len(texts)
            ]
            shared, _, row = max(near, default=(0, 0, 0))
            rows.append(row)
            keep.append(min(shared, len(prompt) - 1))  # the last token is always fed: its output is needed
        return rows, keep

    def feed(self, tokens, alive):
        """Append one token (B,) to each row; rows not alive (a list) take padding. Hidden states (B, D)."""
        lengths = torch.tensor([len(text) for text in self.texts], device=tokens.device)
        for text, token, live in zip(self.texts, tokens.tolist(), alive):
            if live:
                text.append(token)
        end = torch.tensor(alive, device=tokens.device) * ALWAYS
        return self.model(tokens[:, None], lengths[:, None], end[:, None], self.cache)[:, 0]


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
    """One token a row, (B,): the best at temperature 0, else the inverse of the cumulative distribution at
    uniform (B,)."""
    if temperature == 0:
        return logits.argmax(-1)
    probs = truncate((logits / temperature).softmax(-1), top_k, top_p, min_p)
    cumulative = probs.cpu().double().cumsum(-1)  # not every device has float64
    tokens = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
    return tokens[:, 0].to(logits.device)


@torch.no_grad()
def generate(
    model, prompts, max_new, stop, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seeds=None, session=None
):
    """Continue each prompt until a stop id or max_new tokens: list of Reply without text.

    A reply's ids hold what was sampled, a final stop id included; logps are the model's own, at temperature 1
    and untruncated. seeds: one int or list of ints a row, by default the row's number."""
    session = session or Session(model)
    hidden = session.prefill(prompts)
    if temperature:
        draws = [np.random.default_rng(seed).random(max_new) for seed in seeds or range(len(prompts))]
        uniform = torch.from_numpy(np.stack(draws))
    replies = [Reply("", finished=False) for _ in prompts]
    for t in range(max_new):
        logits = model.logits(hidden).float()  # (B, V)
        tokens = pick(logits, uniform[:, t] if temperature else None, temperature, top_k, top_p, min_p)
        logps = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        for reply, token, logp in zip(replies, tokens.tolist(), logps.tolist()):
            if not reply.finished:
                reply.ids.append(token)
                reply.logps.append(logp)
                reply.finished = token in stop
        alive = [not reply.finished for reply in replies]
        if t + 1 == max_new or not any(alive):
            break
        hidden = session.feed(tokens, alive)
    return replies


@torch.no_grad()
def n_best(model, prompts, n, max_new, stop, session=None):
    """The n likeliest replies of each prompt by beam search of width n, finished ones first: lists of Reply.

    Beams are branches of one tree in the row's cache, kept apart by the mask: nothing is copied when they
    fork."""
    session = session.fork() if session else Session(model)
    hidden = session.prefill(prompts)[:, None]  # (B, W, D)
    cache, device, stops = session.cache, model.device, set(stop)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)[:, None]
    prefix = cache.end[:, None, : cache.length] > 0  # (B, 1, S)
    live = [[((), ())] for _ in prompts]  # (ids, logps) of each beam
    done = [[] for _ in prompts]
    own = torch.zeros(
        len(prompts), 1, 0, dtype=torch.bool, device=device
    )  # which branch slots each beam sees
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
            for _, w, token, value in options[: 2 * n]:
                ids, so_far = (*beams[w][0], token), (*beams[w][1], value)
                if token in stops:
                    done[row].append(Reply("", list(ids), list(so_far)))
                elif len(grown) < n:
                    grown.append((w, ids, so_far))
            done[row] = sorted(done[row], key=lambda reply: -reply.logp)[:n]
            worst = done[row][-1].logp if len(done[row]) == n else -np.inf
            if not grown or sum(grown[0][2]) <= worst:  # a longer reply is never likelier than its beginning
                grown = []
            live[row] = [(ids, so_far) for _, ids, so_far in grown]
            padding = n - len(grown)
            parents.append([w for w, _, _ in grown] + [0] * padding)
            fed.append([ids[-1] for _, ids, _ in grown] + [0] * padding)
        if t + 1 == max_new or not any(live):
            break
        parents, fed = torch.tensor(parents, device=device), torch.tensor(fed, device=device)
        own = own.gather(1, parents[..., None].expand(-1, -1, own.shape[2]))
        itself = torch.eye(n, dtype=torch.bool, device=device).expand(len(prompts), n, n)
        own = torch.cat((own, itself), dim=2)
        mask = torch.cat((prefix.expand(-1, n, -1), own), dim=2)[:, None]  # (B, 1, W, S)
        hidden = model(fed, (lengths + t).expand(-1, n), torch.zeros_like(fed), cache, mask)
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
