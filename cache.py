"""Keys and values of texts, kept so that no token is read twice: KVCache holds them, Session knows which text
each row belongs to.

One invariant holds between any two calls:

    For every p < len(texts[row]), slot p of a row holds the key and the value of token p of texts[row].

Two rows of eight slots. Row 1 held [5, 9, 4, 4, 8] when the prompt [5, 9, 7] came: its text was cut back to
the two tokens that both begin with, then 7 was read into the slot of the first 4.

    texts[0] = [5, 9, 2, 31]      row 0:   5   9   2  31   .   .   .   .
    texts[1] = [5, 9, 7]          row 1:   5   9   7   x   x   .   .   .

The x are left over and do no harm, like everything behind a text: a query sees no slot behind its own, and a
token is written before it is looked at. So cutting a text back costs nothing, the padding of a ragged batch
lands behind the shorter texts, and a row whose reply has ended may compute along with its neighbours.

Sliding layers look only `reach` tokens back, so they keep near = reach + SLACK + 1 slots, of which the last
takes padding. Position p of a row has slot p - base. With reach 2 and SLACK 3, row 0 has read five tokens and
row 1 two (numbers are positions); each now reads one more:

    slot               0   1   2   3   4   5                        0   1   2   3   4   5
    row 0   base 0     0   1   2   3   4   .      row 0   base 3    3   4   5   3   4   .
    row 1   base 0     0   1   x   .   .   .      row 1   base 0    0   1   2   .   .   .

Row 0 has no slot for position 5, so `slide` moves what its query will see, positions 3 and 4, to the front
(over 0 and 1) and sets the base to 3. Then 5 is written over 2. The 3 and 4 on the right are left over, in
the slots of positions 6 and 7. Row 1 has room: 2 is written over the padding of an earlier pass.

Shapes as in model.py."""

from itertools import chain

import numpy as np
import torch

from attention import ALWAYS
from data import shared_length
from deltanet import empty_states

SLACK = 1024  # spare slots per window, so it shifts only every SLACK tokens
PREFILL_SLOTS = 2048  # in one pass over prompts, padding included
MIN_SHARED = 8  # sharing fewer tokens than this is not worth a separate pass
GRAPH_KEYS = 256  # a CUDA graph looks at a multiple of so many keys
SHARED_ROWS = 8  # with fewer rows, a CPU reads a beginning that they share once for each of them
SHARED_TOKENS = 128  # likewise where the beginning is shorter


# ------------------------------------------------------------------------------------------------ the cache
class KVCache:
    """Keys and values of rows of text, for each layer.

    Set for one pass: `rows`, the ones it reads, a slice or a tensor (B,); `used`, how many slots are looked
    at; `shared`, how many of the first slots are known to be the same in all rows. Where texts branch, a
    token's slot is not its position: then `slots` (B, T) says where new tokens go, `positions` (B, S) what
    stands in each slot, and the caller gives the mask.

    windows: sliding layers keep only their windows. Before each pass, of at most SLACK tokens a row, `slide`
    makes room in them."""

    def __init__(self, config, rows: int, slots: int, device=None, dtype=None, windows=False):
        near = config.reach + SLACK + 1
        self.near = None  # slots of a window; None where every layer keeps all
        if windows and any(config.sliding or ()) and near < slots:
            self.near = near
        self.slides = [bool(self.near and config.sliding[layer]) for layer in range(config.layers)]
        self.reach = config.reach
        self.capacity = slots

        self.states = {}  # layer -> what a recurrent layer keeps in place of keys and values
        if config.recurrent:
            self.states = empty_states(config, rows, device)

        def empty(layer):
            size = near if self.slides[layer] else slots
            return torch.zeros(
                rows,
                config.kv_heads,
                0 if layer in self.states else size,
                config.head_dim,
                device=device,
                dtype=dtype,
            )

        self.keys = [empty(layer) for layer in range(config.layers)]
        self.values = [empty(layer) for layer in range(config.layers)]
        self.tensors = [*self.keys, *self.values, *chain(*self.states.values())]
        self.base = torch.zeros(rows, dtype=torch.long, device=device)  # position of each window's first slot
        self.bases = [0] * rows  # the same as a list: asking it does not wait for the device

        # for one pass
        self.rows = slice(None)
        self.slots = None
        self.positions = None
        self.used = None
        self.near_used = None  # slots looked at in windows
        self.length = 0  # slots looked at elsewhere
        self.shared = 0

    def open(self, positions: torch.Tensor) -> tuple:
        """Choose the slots of tokens at positions (B, T), for `append` to fill.

        Returns the positions of all keys that are looked at, (B, S), and a mask (B, 1, T, S) of the keys that
        each query sees, None where it sees all up to its own."""
        B, T = positions.shape
        slots = positions if self.slots is None else self.slots
        S = self.used or int(slots.max()) + 1
        self.length = S
        rows = torch.arange(len(self.base), device=slots.device)[self.rows, None]
        self.place = rows, slots
        if self.near:
            base = self.base[self.rows, None]  # (B, 1)
            self.near_place = rows, (positions - base).clamp(max=self.near - 1)
            keys = base + torch.arange(self.near_used, device=slots.device)  # (B, near)
            back = positions[:, :, None] - keys[:, None]
            seen = (back >= 0) & (back <= self.reach)  # (B, T, near)
            self.window = seen[:, None]

        if self.slots is not None:
            return self.positions[:, :S], None
        keys = torch.arange(S, device=slots.device).expand(B, S)
        if S == T or positions.numel() == 1:  # texts from their beginning, or the last token of one
            return keys, None
        seen = keys[:, None] <= positions[:, :, None]  # (B, T, S)
        return keys, seen[:, None]

    def append(self, layer, k, v):
        """Store k and v (B, K, T, E) in the slots just opened. Returns all keys and values that are looked
        at, (B, K, S, E)."""
        rows, slots = self.place
        S = self.length
        if self.slides[layer]:
            rows, slots = self.near_place
            S = self.near_used
        keys = self.keys[layer]
        values = self.values[layer]
        keys[rows, :, slots] = k.transpose(1, 2).to(keys.dtype)
        values[rows, :, slots] = v.transpose(1, 2).to(values.dtype)
        return keys[self.rows, :, :S], values[self.rows, :, :S]

    def slide(self, parts):
        """Make room in the windows for a pass over positions first to end - 1 of each row. parts: (row,
        first, end) for each. Where there is no room, what lies before the windows is forgotten."""
        self.near_used = 1
        if not self.near:
            return
        for row, first, end in parts:
            base = self.bases[row]
            if end - base >= self.near:
                start = first - self.reach - base  # slot of the first key that is still needed
                for x, slides in zip(self.tensors, self.slides * 2):
                    if slides:
                        kept = x[row, :, start : start + self.reach]  # (K, reach, E)
                        x[row, :, : self.reach] = kept.clone()  # a copy, since the two may overlap
                base += start
                self.rebase(row, base)
            self.near_used = max(self.near_used, end - base)

    def rebase(self, row, base=0):
        """Let the windows of a row begin at position `base`."""
        self.bases[row] = base
        self.base[row] = base

    def clear(self, row):
        """Let a row begin a new text."""
        self.rebase(row)
        for state in chain(*self.states.values()):
            state[row] = 0

    def branch(self, index):
        """Go on from copies of the states of the rows, or of the branches, that `index` (N,) names."""
        for layer, (window, memory) in self.states.items():
            self.states[layer] = [window[index], memory[index]]

    def can_continue(self, row: int, n: int) -> bool:
        """Whether a text can go on after the first n tokens of a row: whether its windows hold enough."""
        return self.bases[row] <= max(0, n - self.reach)

    def copy(self, source: int, row: int, n: int, other=None):
        """Give a row the first n tokens of the row `source`, of this cache or of another; with states, n is
        all of them."""
        other = other or self
        for x, y in zip(self.tensors, other.tensors):
            # n slots are enough in windows too: no slot exceeds its position
            x[row, :, :n] = y[source, :, :n]
        self.rebase(row, other.bases[source])


# ------------------------------------------------------------------------------------------------ the texts
class Session:
    """A model's cache and its texts: texts[row] are the ids that a row holds. The cache takes at most
    `budget` bytes, and the text used least recently makes room for a new one."""

    def __init__(self, model):
        self.model = model
        self.budget = memory_for_texts(model.device)
        self.cache = None
        self.texts = []
        self.last_used = []  # by the clock, for each row
        self.clock = 0
        rope = model.config.rope or {}
        self.by_length = rope.get("rope_type") in ("dynamic", "longrope")  # see rotary.rotary
        self.original = ALWAYS  # length of the longest texts that LongRoPE rotates by its short factors
        if rope.get("rope_type") == "longrope":
            self.original = rope["original_max_position_embeddings"]
        self.recurrent = bool(model.config.recurrent)
        # not with states, which a capture would change
        self.graphed = model.device.type == "cuda" and not self.recurrent
        self.graphs = {}  # see `replay`

    def reserve(self, rows: int, slots: int, windows=True) -> int:
        """Make room for `rows` texts of `slots` tokens, or for as many as the budget allows, at least one.
        Returns how many. windows: whether sliding layers may keep only their windows."""
        config = self.model.config
        device = self.model.device
        old = self.cache
        windows = windows and self.original == ALWAYS  # a text that is read again is read in one pass
        dtype = self.model.embed.weight.dtype
        if torch.is_autocast_enabled(device.type):  # which gives keys and values a dtype of its own
            dtype = torch.get_autocast_dtype(device.type)
        held = len(self.texts)
        usable = old is not None and old.keys[0].dtype == dtype and (windows or not old.near)
        if usable and rows <= held and slots <= old.capacity:
            return rows

        if old is not None:
            slots = max(old.capacity, slots + slots // 4)  # a conversation that grew will grow again
        one_row = KVCache(config, 1, slots, "meta", dtype, windows)
        row_size = sum(x.nbytes for x in one_row.tensors)  # bytes
        wanted = max(rows, held)
        total = max(1, min(wanted, self.budget // row_size))
        self.cache = KVCache(config, total, slots, device, dtype, windows)
        self.graphs = {}

        # keep the rows that were used last
        kept = []
        if usable and old.near == self.cache.near:
            kept = sorted(range(held), key=lambda row: -self.last_used[row])[:total]
        texts = []
        last_used = []
        for new, row in enumerate(kept):
            self.cache.copy(row, new, len(self.texts[row]), old)
            texts.append(self.texts[row])
            last_used.append(self.last_used[row])
        for _ in range(total - len(kept)):
            texts.append([])
            last_used.append(-1)
        self.texts = texts
        self.last_used = last_used
        return min(rows, total)

    def prefill(self, prompts: list, busy=()) -> tuple:
        """Read prompts (lists of ids) into rows that are not busy, reusing whatever any row already holds.
        Returns the rows and their last hidden states (B, D)."""
        # In waves: a prompt that shares more with a prompt of this wave than with any row waits for the next.
        # Say the cache is empty and three prompts come, where S stands for a hundred tokens:
        #
        #     S a b      wave 1: read as a whole
        #     S c        waits until S is in the cache: wave 2 copies it and reads c
        #     x y        wave 1: shares nothing
        #
        # Of equal prompts S a b one is read as a whole, and all others read their last token, b, in one pass.
        #
        # A state is copied only where a row ends. So with recurrent layers a wave reads a prompt up to where
        # those that wait leave it, S above, or up to its last token; the last tokens are read at the end.
        rows = [None] * len(prompts)
        states = {}
        waiting = sorted(range(len(prompts)), key=prompts.__getitem__)
        taken = set(busy)
        self.clock += 1
        while waiting:
            wave = []
            later = []
            previous = []
            stops = {}  # how far each prompt of the wave is read
            for i in waiting:  # in order of their ids: a prompt shares most with its neighbours
                prompt = prompts[i]
                keep, _ = self.best_match(prompt)
                shared = min(shared_length(previous, prompt), len(prompt) - 1)
                if shared > keep + MIN_SHARED:
                    later.append(i)
                    if self.recurrent:
                        head = wave[-1][1]
                        stops[head] = min(stops[head], shared)
                else:
                    wave.append((keep, i))
                    stops[i] = len(prompt) - self.recurrent
                    previous = prompt
            for _, i in sorted(wave, reverse=True):  # the prompt that shares most chooses first
                rows[i] = self.claim(prompts[i], taken)
                taken.add(rows[i])
            states |= self.read({rows[i]: prompts[i][:stop] for i, stop in stops.items()})
            for i, stop in stops.items():
                if stop + self.recurrent < len(prompts[i]):  # it goes on from there with those that wait
                    later.append(i)
                    taken.remove(rows[i])
            waiting = sorted(later, key=prompts.__getitem__)
        if self.recurrent:
            states = self.read(dict(zip(rows, prompts)))
        return rows, torch.stack([states[row] for row in rows])

    def best_match(self, prompt):
        """(tokens shared, row) of the row that begins most like a prompt. The last token of a prompt counts
        as new, since it must be read for its output."""
        best = 0, 0
        least = 1  # one comparison skips a row that shares less than the best so far
        for row, text in enumerate(self.texts):
            if text[:least] == prompt[:least]:
                keep = min(shared_length(text, prompt), len(prompt) - 1)
                continues = self.rotated_alike(text, prompt, keep) and self.cache.can_continue(row, keep)
                if self.recurrent:  # a state cannot be cut back
                    continues = continues and keep == len(text)
                if keep >= best[0] and continues:
                    best = keep, row
                    least = max(1, keep)
        return best

    def rotated_alike(self, text, prompt, keep):
        """Whether the first `keep` tokens that a row holds of a text are rotated as those of a prompt are.

        LongRoPE rotates all keys of a longer text otherwise. A row's length says how its keys are rotated, so
        what a long prompt keeps must be long too."""
        if len(prompt) > self.original:
            return keep > self.original
        return len(text) <= self.original

    def claim(self, prompt, taken):
        """Choose a row that is not taken, and give it the beginning of a prompt as far as any row holds it.

        This is the row that holds it, unless much else would be lost with it; otherwise the one that was used
        least recently."""
        keep, source = self.best_match(prompt)
        row = source
        if source in taken or not keep or 2 * keep < len(self.texts[source]):
            free = [row for row in range(len(self.texts)) if row not in taken]
            row = min(free, key=self.last_used.__getitem__)
        if not keep:
            self.cache.clear(row)
        elif row != source:
            self.cache.copy(source, row, keep)
        self.texts[row] = prompt[:keep]
        self.last_used[row] = self.clock
        return row

    def read(self, prompts: dict) -> dict:
        """Read what the rows lack of their prompts, {row: ids}. Returns {row: last hidden state (D,)}."""
        if self.cache.near:
            for row, prompt in prompts.items():
                while len(rest := prompt[len(self.texts[row]) :]) > SLACK:  # windows take no more at once
                    self.extend({row: rest[:SLACK]})
        new = {row: prompt[len(self.texts[row]) :] for row, prompt in prompts.items()}
        order = sorted(filter(new.get, new), key=lambda row: len(new[row]))
        states = {}
        while order:  # prompts of about the same length together
            group = [order.pop()]  # the longest gives the width
            T = len(new[group[0]])
            least = 1  # token
            if T > 4 * MIN_SHARED:
                least = T / 2  # padding must not be most of the work
            room = 1 if self.by_length else PREFILL_SLOTS // T  # padding would count as length
            while order and len(group) < room and len(new[order[-1]]) >= least:
                group.append(order.pop())
            states |= self.extend({row: new[row] for row in group})
        return states

    def extend(self, new: dict) -> dict:
        """Append ids to the texts of rows, {row: ids}, in one pass. Returns {row: last hidden state (D,)}."""
        states = {}
        for row, hidden in zip(sorted(new), self.forward(new)):
            states[row] = hidden[len(new[row]) - 1]
            self.texts[row] += new[row]
        return states

    def feed(self, tokens: dict, shared=0) -> torch.Tensor:
        """Append one token to each of some rows, {row: token}; the rows between them compute along.

        Returns the hidden states (top, D) of all rows up to the highest. shared: how many tokens all of these
        rows begin with."""
        for row, token in tokens.items():
            text = self.texts[row]
            if len(text) == self.original:  # with this token it is longer, so it is rotated and read again
                self.texts[row] = []
                self.extend({row: [*text, token]})
                self.texts[row] = text
        if len({len(self.texts[row]) < self.original for row in tokens}) > 1:
            shared = 0  # of some rows the keys are rotated otherwise
        count = max(tokens) + 1
        top = count  # rows that are computed
        if self.graphed:  # a graph is made for each number of rows, so only for 1, 2, 4, 8, 16, 24 ...
            rounded = -(-top // 8) * 8
            if top <= 4:
                rounded = 1 << (top - 1).bit_length()
            top = min(len(self.texts), rounded)
        if self.model.device.type == "cpu" and len(tokens) >= SHARED_ROWS and shared >= SHARED_TOKENS:
            self.cache.shared = shared
        new = {row: [tokens[row]] if row in tokens else [] for row in range(top)}
        hidden = self.forward(new, self.graphed)
        self.cache.shared = 0
        for row, token in tokens.items():
            self.texts[row].append(token)
            self.last_used[row] = self.clock
        return hidden[:count, 0]

    def forward(self, new, graphed=False):
        """Read ids that follow the texts of rows, {row: ids}, in one pass. Returns hidden states (B, T, D),
        the rows in order; behind a row's own ids is padding."""
        rows = sorted(new)
        cache = self.cache
        device = self.model.device
        T = max(map(len, new.values()))
        lengths = [len(self.texts[row]) for row in rows]
        cache.slide((row, n, n + len(new[row])) for row, n in zip(rows, lengths))
        stop = rows[-1] + 1
        cache.rows = slice(rows[0], stop)  # which copies nothing
        if len(rows) < stop - rows[0]:
            cache.rows = torch.tensor(rows, device=device)
        cache.used = min(max(lengths) + T, cache.capacity)

        ids = np.zeros((len(rows), T), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(new[row])] = new[row]
        positions = np.array(lengths)[:, None] + np.arange(T)
        positions = np.minimum(positions, cache.capacity - 1)  # padding must not need more slots
        ids = torch.from_numpy(ids).to(device)
        positions = torch.from_numpy(positions).to(device)
        end = None
        if self.recurrent:  # no state may read the padding
            end = torch.tensor([[len(new[row])] for row in rows], device=device)
        if graphed:
            hidden = self.replay(ids, positions)
        else:
            hidden = self.model(ids, positions, end, cache)
        cache.used = None
        return hidden

    def replay(self, ids, positions):
        """The model on one token a row, as a CUDA graph, which starts hundreds of small kernels in one go.

        A graph has one shape, so it looks at a multiple of GRAPH_KEYS keys. What it reads and writes stays in
        place until `reserve` makes another cache."""
        cache = self.cache
        used = min(cache.capacity, -(-cache.used // GRAPH_KEYS) * GRAPH_KEYS)

        def step(ids, positions):
            cache.rows = slice(0, len(ids))
            cache.used = used
            cache.near_used = cache.near
            seen = torch.arange(used, device=ids.device) <= positions[:, :, None]
            return self.model(ids, positions, cache=cache, mask=seen[:, None])

        if torch.is_autocast_enabled(ids.device.type):  # a graph would keep autocast's copies of the weights
            return step(ids, positions)
        key = len(ids), used
        if key not in self.graphs:
            self.graphs[key] = torch.cuda.make_graphed_callables(step, (ids, positions))
        return self.graphs[key](ids, positions)

    def swap(self, a: int, b: int):
        """Exchange two rows."""
        cache = self.cache
        n = max(len(self.texts[a]), len(self.texts[b]))
        for x in cache.tensors:
            x[[a, b], :, :n] = x[[b, a], :, :n]
        cache.base[[a, b]] = cache.base[[b, a]]
        for values in (self.texts, self.last_used, cache.bases):
            values[a], values[b] = values[b], values[a]


def memory_for_texts(device):
    """Bytes that a session may keep: half of what is free on a graphics card, otherwise 2 GiB."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free // 2
    return 2 << 30
