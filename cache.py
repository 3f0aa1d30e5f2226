"""Keys and values of texts, kept so that no token is read twice: KVCache holds them, Session knows whose they
are.

One invariant holds between any two calls:

    For every p < len(texts[row]), slot p of a row holds the key and the value of token p of texts[row].

Two rows of eight slots. Row 1 held [5, 9, 4, 4, 8] when the prompt [5, 9, 7] came: its text was cut back to
the two tokens that both begin with, then 7 was read into the slot of the first 4.

    texts[0] = [5, 9, 2, 31]      row 0:   5   9   2  31   .   .   .   .
    texts[1] = [5, 9, 7]          row 1:   5   9   7   x   x   .   .   .

The x are left over and harmless, as is all that lies behind a text: a query sees no slot behind its own, and
a token is written before it is looked at. So a text is cut back for free, the padding of a ragged batch lands
behind the shorter texts, and a row whose reply has ended may compute along with its neighbours.

Sliding layers look only `reach` tokens back and keep near = reach + SLACK + 1 slots, in which position p has
slot p - base; the last slot takes padding. With reach 2 and SLACK 3, position 5 finds no room, so what it
does not see is forgotten:

    base 0:   0   1   2   3   4   | padding
    base 3:   3   4   5   .   .   | padding

Shapes as in model.py."""

import numpy as np
import torch

from data import common

SLACK = 1024  # spare slots per window, so it shifts only every SLACK tokens
PREFILL_SLOTS = 2048  # in one pass over prompts, padding included
MIN_SHARED = 8  # sharing fewer tokens than this is not worth a separate pass
GRAPH_KEYS = 256  # a CUDA graph looks at a multiple of so many keys
SHARED_ROWS = 8  # with fewer rows than this a CPU reads a beginning that all share in each row
SHARED_TOKENS = 128  # as it does with a shorter one


# ------------------------------------------------------------------------------------------------ the cache
class KVCache:
    """Keys and values of rows of text.

    Set for one pass: `rows`, those that it is about, a slice or a tensor (B,); `used`, how many slots are
    looked at; `shared`, how many of the first are known to be the same in all rows. Where texts branch, a
    token's slot is not its position: `slots` (B, T) says where new tokens go and `positions` (B, S) what
    stands in each slot, and the caller gives the mask.

    windows: sliding layers keep only their windows; `slide` makes room in them before each pass, of at most
    SLACK tokens a row."""

    def __init__(self, config, rows, slots, device=None, dtype=None, windows=False):
        near = config.reach + SLACK + 1
        self.near = near if windows and any(config.sliding or ()) and near < slots else None
        self.slides = [bool(self.near and config.sliding[layer]) for layer in range(config.layers)]
        self.reach, self.capacity = config.reach, slots

        def empty(slides):
            size = near if slides else slots
            return torch.zeros(rows, config.kv_heads, size, config.head_dim, device=device, dtype=dtype)

        self.keys = [empty(slides) for slides in self.slides]
        self.values = [empty(slides) for slides in self.slides]
        self.tensors = self.keys + self.values
        self.base = torch.zeros(rows, dtype=torch.long, device=device)
        self.bases = [0] * rows  # the same, where it can be asked without waiting for the device
        self.rows = slice(None)
        self.slots = self.positions = self.used = self.near_used = None
        self.length = self.shared = 0

    def open(self, positions):
        """Make room for tokens at positions (B, T): the positions of all keys that are looked at, (B, S), and
        a mask (B, 1, T, S) of those that each query sees, None where it sees all before it."""
        B, T = positions.shape
        slots = positions if self.slots is None else self.slots
        self.length = S = self.used or int(slots.max()) + 1
        rows = torch.arange(len(self.base), device=slots.device)[self.rows, None]
        self.place = rows, slots
        if self.near:
            base = self.base[self.rows, None]  # (B, 1)
            self.near_place = rows, (positions - base).clamp(max=self.near - 1)
            keys = base + torch.arange(self.near_used, device=slots.device)  # (B, near)
            back = positions[:, :, None] - keys[:, None]
            self.window = ((back >= 0) & (back <= self.reach))[:, None]  # (B, 1, T, near)
        if self.slots is not None:
            return self.positions[:, :S], None
        keys = torch.arange(S, device=slots.device).expand(B, S)
        if S == T or positions.numel() == 1:  # texts from their beginning, or the end of one
            return keys, None
        return keys, (keys[:, None] <= positions[:, :, None])[:, None]

    def append(self, layer, k, v):
        """Store k and v (B, K, T, E) in the slots just opened; return all that is looked at, (B, K, S, E)."""
        rows, slots = self.place
        S = self.length
        if self.slides[layer]:
            rows, slots = self.near_place
            S = self.near_used
        keys, values = self.keys[layer], self.values[layer]
        keys[rows, :, slots] = k.transpose(1, 2).to(keys.dtype)
        values[rows, :, slots] = v.transpose(1, 2).to(values.dtype)
        return keys[self.rows, :, :S], values[self.rows, :, :S]

    def slide(self, parts):
        """Before a pass over positions first to end - 1 of each row, parts (row, first, end): where there is
        no room for them, forget what lies before their windows."""
        self.near_used = 1
        for row, first, end in parts if self.near else ():
            if end - self.bases[row] >= self.near:
                start = first - self.reach - self.bases[row]
                for x, slides in zip(self.tensors, self.slides * 2):
                    if slides:
                        x[row, :, : self.reach] = x[row, :, start : start + self.reach].clone()
                self.rebase(row, first - self.reach)
            self.near_used = max(self.near_used, end - self.bases[row])

    def rebase(self, row, base=0):
        """Let the windows of a row begin at position `base`."""
        self.bases[row] = self.base[row] = base

    def reaches(self, row, n):
        """Whether a text can go on behind the first n tokens of a row."""
        return self.bases[row] <= max(0, n - self.reach)

    def copy(self, source, row, n, other=None):
        """Give a row the first n tokens of another row, or of a row of another cache."""
        other = other or self
        for x, y in zip(self.tensors, other.tensors):
            x[row, :, :n] = y[source, :, :n]  # in windows no token lies further back than its position
        self.rebase(row, other.bases[source])


# ------------------------------------------------------------------------------------------------ whose it is
class Session:
    """A model's cache of texts, of at most `budget` bytes: texts[row] are the ids that a row holds. What was
    used least recently makes room."""

    def __init__(self, model):
        self.model = model
        self.budget = memory_for_texts(model.device)
        self.cache = None
        self.texts = []
        self.last_used = []  # a row's last use, by the clock
        self.clock = 0
        self.graphed = model.device.type == "cuda"
        self.graphs = {}  # see `replay`

    def reserve(self, rows, slots, windows=True):
        """Make room for `rows` texts of `slots` tokens; returns for how many the budget has room, at least
        one. windows: sliding layers may keep only these."""
        config, device, old = self.model.config, self.model.device, self.cache
        dtype = self.model.embed.weight.dtype  # of keys and values, unless autocast makes them another
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        usable = old is not None and old.keys[0].dtype == dtype and (windows or not old.near)
        if usable and rows <= len(self.texts) and slots <= old.capacity:
            return rows
        if old is not None:
            slots = max(old.capacity, slots + slots // 4)  # a growing conversation grows again
        size = sum(x.nbytes for x in KVCache(config, 1, slots, "meta", dtype, windows).tensors)  # of a row
        total = max(1, min(max(rows, len(self.texts)), self.budget // size))
        self.cache = KVCache(config, total, slots, device, dtype, windows)
        self.graphs = {}
        kept = []
        if usable and old.near == self.cache.near:
            kept = sorted(range(len(self.texts)), key=lambda row: -self.last_used[row])[:total]
        for new, row in enumerate(kept):
            self.cache.copy(row, new, len(self.texts[row]), old)
        empty = total - len(kept)
        self.texts = [self.texts[row] for row in kept] + [[] for _ in range(empty)]
        self.last_used = [self.last_used[row] for row in kept] + [-1] * empty
        return min(rows, total)

    def prefill(self, prompts, busy=()):
        """Read prompts (lists of ids) into rows that are not busy, reusing all that any row holds: (rows,
        last hidden states (B, D))."""
        # In waves: who shares more with a prompt of this wave than with any row waits for the next. Say the
        # cache is empty and three prompts come, S a hundred tokens:
        #
        #     S a b      wave 1: read as a whole
        #     S c        waits, and finds S in the cache then: wave 2 copies it and reads c
        #     x y        wave 1: shares nothing
        #
        # Equal prompts come to one pass of S a b, and one in which all others read their last token, b.
        rows, states = [None] * len(prompts), {}
        waiting, taken = sorted(range(len(prompts)), key=prompts.__getitem__), set(busy)
        self.clock += 1
        while waiting:
            wave, later, previous = [], [], []
            for i in waiting:  # in order of their ids: a prompt shares most with its neighbours
                keep, _ = self.nearest(prompts[i])
                if min(common(previous, prompts[i]), len(prompts[i]) - 1) > keep + MIN_SHARED:
                    later.append(i)
                else:
                    wave.append((keep, i))
                    previous = prompts[i]
            for _, i in sorted(wave, reverse=True):  # who shares most chooses first
                rows[i] = self.begin(prompts[i], taken)
                taken.add(rows[i])
            states |= self.read({rows[i]: prompts[i] for _, i in wave})
            waiting = later
        return rows, torch.stack([states[row] for row in rows])

    def nearest(self, prompt):
        """(tokens shared, row) of the row that begins most like a prompt. The last token of a prompt counts
        as new: it must be read, for its output."""
        best = 0, 0
        for row, text in enumerate(self.texts):
            if text[:1] == prompt[:1]:
                keep = min(common(text, prompt), len(prompt) - 1)
                if self.cache.reaches(row, keep):
                    best = max(best, (keep, row))
        return best

    def begin(self, prompt, taken):
        """A row that is not taken, whose text is now all of a prompt that any row holds: the row that holds
        it, if little else is lost with it, otherwise the one used least recently."""
        keep, source = self.nearest(prompt)
        row = source
        if source in taken or not keep or 2 * keep < len(self.texts[source]):
            free = [row for row in range(len(self.texts)) if row not in taken]
            row = min(free, key=self.last_used.__getitem__)
        if not keep:
            self.cache.rebase(row)
        elif row != source:
            self.cache.copy(source, row, keep)
        self.texts[row] = prompt[:keep]
        self.last_used[row] = self.clock
        return row

    def read(self, prompts):
        """Read what the rows lack of their prompts, {row: ids}: {row: last hidden state (D,)}. Prompts of
        about the same length are read together."""
        for row, prompt in prompts.items() if self.cache.near else ():
            while len(rest := prompt[len(self.texts[row]) :]) > SLACK:  # windows take no more at once
                self.extend({row: rest[:SLACK]})
        new = {row: prompt[len(self.texts[row]) :] for row, prompt in prompts.items()}
        order = sorted(new, key=lambda row: len(new[row]))
        states = {}
        while order:
            group = [order.pop()]  # the longest gives the width
            T = len(new[group[0]])
            least = T / 2 if T > 4 * MIN_SHARED else 1  # tokens: padding must not be most of the work
            while order and (len(group) + 1) * T <= PREFILL_SLOTS and len(new[order[-1]]) >= least:
                group.append(order.pop())
            states |= self.extend({row: new[row] for row in group})
        return states

    def extend(self, new):
        """Append ids to the texts of rows, {row: ids}, in one pass: {row: last hidden state (D,)}."""
        states = {}
        for row, hidden in zip(sorted(new), self.forward(new)):
            states[row] = hidden[len(new[row]) - 1]
            self.texts[row] += new[row]
        return states

    def feed(self, tokens, shared=0):
        """Append one token to rows, {row: token}, the rows between them computing along: hidden states (top,
        D) of all rows up to the highest. shared: with how many tokens all of these rows begin alike."""
        top = max(tokens) + 1
        if self.graphed:  # few numbers of rows: 1, 2, 4, 8, 16, 24 ...
            steps = next((n for n in (1, 2, 4) if n >= top), -(-top // 8) * 8)
            top = min(len(self.texts), steps)
        if self.model.device.type == "cpu" and len(tokens) >= SHARED_ROWS and shared >= SHARED_TOKENS:
            self.cache.shared = shared
        hidden = self.forward({row: [tokens.get(row, 0)] for row in range(top)}, self.graphed)
        self.cache.shared = 0
        for row, token in tokens.items():
            self.texts[row].append(token)
            self.last_used[row] = self.clock
        return hidden[: max(tokens) + 1, 0]

    def forward(self, new, graphed=False):
        """Read ids behind the texts of rows, {row: ids}, in one pass: hidden states (B, T, D), of the rows in
        their order; what follows a row's own ids is padding."""
        rows, cache, device = sorted(new), self.cache, self.model.device
        T = max(map(len, new.values()))
        lengths = [len(self.texts[row]) for row in rows]
        cache.slide((row, n, n + len(new[row])) for row, n in zip(rows, lengths))
        cache.rows = slice(rows[0], rows[-1] + 1)  # which copies nothing
        if len(rows) < rows[-1] + 1 - rows[0]:
            cache.rows = torch.tensor(rows, device=device)
        cache.used = min(max(lengths) + T, cache.capacity)
        ids = np.zeros((len(rows), T), dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(new[row])] = new[row]
        positions = np.array(lengths)[:, None] + np.arange(T)
        positions = np.minimum(positions, cache.capacity - 1)  # padding must not ask for more
        ids, positions = torch.from_numpy(ids).to(device), torch.from_numpy(positions).to(device)
        hidden = self.replay(ids, positions) if graphed else self.model(ids, positions, cache=cache)
        cache.used = None
        return hidden

    def replay(self, ids, positions):
        """The model on one token a row, by a CUDA graph: its hundreds of small kernels start in one go. A
        graph is of one shape, so it looks at a multiple of GRAPH_KEYS keys; what it reads and writes stays in
        place until `reserve` makes another cache."""
        cache = self.cache
        used = min(cache.capacity, -(-cache.used // GRAPH_KEYS) * GRAPH_KEYS)

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
        cache, n = self.cache, max(len(self.texts[a]), len(self.texts[b]))
        for x in cache.tensors:
            x[[a, b], :, :n] = x[[b, a], :, :n]
        cache.base[[a, b]] = cache.base[[b, a]]
        for values in (self.texts, self.last_used, cache.bases):
            values[a], values[b] = values[b], values[a]


def memory_for_texts(device):
    """Bytes that a session may keep: 2 GiB, of a graphics card half of what is free."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 2 << 30
