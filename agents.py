"""The players: a Model has reply() and choose(), an Encoder embed(), a Classifier classify(), a Teacher (a
model behind an endpoint) reply(). A game's own player may be an agent too (games/task.py)."""

import hashlib
import json
import math
import os
import re
import time
import urllib.error
import urllib.request
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from threading import Lock

import torch
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

import data
import sampler
from cache import Session
from files import replacing
from games.rows import parsed
from games.task import Reply
from model import class_logits
from terminal import UsageError


# ------------------------------------------------------------------------------------------------ our own
class Model:
    """A model as an agent. Each reply has its own random stream, seeded by (seed, call, prompt, repeat), so
    neither the rest of the batch nor the rank affects it. seed: an int or a list; tails as in
    sampler.generate."""

    def __init__(self, model, tokenizer, max_new=32, temperature=0.0, seed=0, **tails):
        self.model, self.tokenizer, self.max_new = model, tokenizer, max_new
        self.sampling = {"temperature": temperature, **tails}
        self.seed = seed if isinstance(seed, list) else [seed]
        self.calls = 0
        self.forget()

    def start_part(self, part):
        """Begin a part of the work: from here on replies follow from the seed and the part's own calls."""
        self.calls = 0

    def forget(self):
        """Drop what was read so far: the weights have changed."""
        self.session = Session(self.model)

    def reply(self, conversations, n=1, begin="", until=(), watch=None, seconds=0.0):
        """For each conversation n replies: samples, or at temperature 0 the n likeliest, best first.

        begin: text that every reply begins with; until: strings that end a reply and do not belong to it;
        watch(i, text) is called as reply i grows; seconds: after which all replies end where they are. With
        any of the last three, replies are sampled one by one."""
        late = time.monotonic() + seconds if seconds else math.inf
        decode, stop = self.tokenizer.decode, self.tokenizer.stop_ids
        start = list(self.tokenizer.encode(begin))
        prompts = [self.tokenizer.prompt(conversation) + start for conversation in conversations]
        self.calls += 1
        if n > 1 and self.sampling["temperature"] == 0 and not (until or watch or seconds):
            groups = sampler.n_best(self.model, prompts, n, self.max_new, stop, self.session)
        else:
            tail = max((len(end.encode()) for end in until), default=0) + 4  # a token is a byte or more
            repeated = [prompt for prompt in prompts for _ in range(n)]
            flat = sampler.generate(
                self.model,
                repeated,
                self.max_new,
                stop,
                seeds=self.seeds(repeated),
                session=self.session,
                until=lambda ids: time.monotonic() > late or any(end in decode(ids[-tail:]) for end in until),
                watch=watch and (lambda i, reply: watch(i, begin + decode(reply.ids))),
                **self.sampling,
            )
            groups = in_groups(flat, n)
        for prompt, group in zip(prompts, groups):
            for reply in group:
                text = decode(reply.ids)
                for end in until:
                    text = text.partition(end)[0]
                reply.text, reply.prompt = begin + text, prompt
        return groups

    def seeds(self, prompts):
        """The seed of a reply to each prompt, of which several may be equal."""
        seeds, repeats = [], Counter()
        for prompt in prompts:
            text = zlib.crc32(str(prompt).encode())
            seeds.append([*self.seed, self.calls, text, repeats[text]])
            repeats[text] += 1
        return seeds

    def choose(self, conversations, choices):
        """Log-probability of each choice as the whole reply to each conversation: list of lists."""
        samples = [self.tokenizer.replied(talk, choice) for talk in conversations for choice in choices]
        scores = sampler.score(self.model, samples)
        return in_groups(scores, len(choices))


def in_groups(values, size):
    return [values[i : i + size] for i in range(0, len(values), size)]


class Encoder:
    """An Embedder as an agent. Vectors of documents are kept in the folder `cache`, where there is one, under
    a name that follows from all that makes them: they are never stale."""

    def __init__(self, embedder, cache=None):
        self.embedder, self.cache = embedder, cache

    def embed(self, texts, kind="document"):
        """Vectors (N, width), numpy, of texts as queries or documents, with the prompt for them."""
        embed = lambda: self.embedder.embed(texts, self.embedder.prompt_of(kind), progress=True).numpy()
        if not self.cache or kind != "document":
            return embed()
        path = Path(self.cache, f"{self.embedder.fingerprint(texts, kind)}.safetensors")
        if path.exists():
            return load_file(path)["vectors"]
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors = embed()
        with replacing(path) as partial:
            save_file({"vectors": vectors}, partial)
        return vectors


class Classifier:
    """A model with a classifier as an agent; texts of more than max_tokens are shortened (Tokenizer.fitted),
    batch_tokens are computed at a time, padding included."""

    def __init__(self, model, tokenizer, max_tokens=512, batch_tokens=4096):
        self.model, self.tokenizer = model.eval(), tokenizer
        self.max_tokens, self.batch_tokens = max_tokens, batch_tokens
        self.classes = model.config.labels

    def classify(self, conversations):
        """The probability of each class, (N, classes), numpy."""
        return self.scores(conversations).softmax(-1).numpy()

    @torch.no_grad()
    def scores(self, conversations):
        """What the classifier gives before the softmax, (N, classes), a float32 tensor on the CPU."""
        fitted = [self.tokenizer.fitted(messages, self.max_tokens) for messages in conversations]
        rows = [data.text_row(ids, i) for i, (ids, _) in enumerate(fitted)]
        scores = torch.empty(len(rows), self.classes)
        batches = data.micro_batches(rows, self.batch_tokens)
        for group in tqdm(batches, unit="batch", disable=None if len(batches) > 20 else True):
            batch = data.collate(group, self.model.device)
            scores[batch.labels.cpu()] = class_logits(self.model, batch).float().cpu()
        return scores


# ------------------------------------------------------------------------------------------------ an endpoint
class Journal:
    """Rows that a killed call goes on with: {"row": number, ..., "settings"}, a line each of a file. What a
    kill left of a line is cut off. Raises ValueError where the file was made with other settings. Without a
    path nothing is written."""

    def __init__(self, path, settings):
        self.path, self.rows = path, {}
        self.settings = json.loads(json.dumps(settings))  # as they will be read back
        if not path:
            return
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        content = file.read_bytes()
        *lines, rest = content.split(b"\n")
        begins = b'{"row": '
        if not all(line.startswith(begins[: len(line)]) for line in (*lines, rest)):
            raise ValueError(f"{path}: not a file of ours; nothing was changed in it, take another --out")
        rows = [parsed(line, path, number) for number, line in enumerate(lines, 1)]
        made = rows[0].get("settings", {}) if rows else self.settings
        for name, now in self.settings.items():
            if made.get(name) != now:
                was = made.get(name)
                raise ValueError(f"{path}: made with {name} {was!r}, now {now!r}; take another --out")
        os.truncate(path, len(content) - len(rest))
        self.rows = {row["row"]: row for row in rows}

    def add(self, rows):
        """Keep rows, at once and on the disk."""
        rows = [row | {"settings": self.settings} for row in rows]
        self.rows |= {row["row"]: row for row in rows}
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())


AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # what an endpoint says for a while
TOKENS = "prompt_tokens", "completion_tokens"  # what a reply costs, as endpoints name it


@dataclass(eq=False, repr=False)  # which would show the key
class Teacher:
    """A model behind an OpenAI-compatible endpoint, url ending in /v1. Requests run `workers` at a time; what
    fails for a while (429, 5xx, a broken or slow connection, an answer that is none) is tried again after
    Retry-After or 1, 2, 4 ... seconds, up to `tries` times.

    price: for a million tokens of prompts and of replies, such as "0.15,0.6". kept: a Journal of replies:
    what it holds is not asked, and paid, again. A reply is known by the part of the work (start_part), its
    request, and how many equal requests there were in the part before it."""

    url: str
    model: str
    key: str = ""
    max_new: int = 512
    temperature: float = 0.0
    workers: int = 8
    price: str = ""
    tries: int = 6
    timeout: float = 120
    kept: Journal | None = None

    def __post_init__(self):
        self.url = self.url.rstrip("/") + "/chat/completions"
        self.prices = read_prices(self.price)
        self.kept = self.kept or Journal("", {})
        self.part, self.asked, self.lock = 0, Counter(), Lock()
        self.before = self.tokens()  # of the replies that were kept

    def start_part(self, part):
        """Begin a part of the work: equal requests are counted within it."""
        self.part = part

    def reply(self, conversations, n=1):
        """For each conversation n replies, in order."""
        settings = {"max_tokens": self.max_new, "temperature": self.temperature}
        bodies = []
        for messages in conversations:
            body = {"model": self.model, "messages": messages, **settings}
            bodies += [json.dumps(body).encode()] * n
        with ThreadPoolExecutor(self.workers) as pool:
            replies = list(pool.map(self.ask, bodies, [self.name_of(body) for body in bodies]))
        return in_groups(replies, n)

    def name_of(self, body):
        """What tells the reply to a request from all others of the work."""
        name = hashlib.sha256(f"{self.url} {self.part} ".encode() + body).hexdigest()
        self.asked[name] += 1
        return f"{name}-{self.asked[name]}"

    def ask(self, body, name):
        """The Reply to a request, kept or new. Raises ConnectionError, without the key, where no try succeeds
        or more will not help."""
        row = self.kept.rows.get(name)
        if row is None:
            row = {"row": name, **self.request(body)}
            with self.lock:
                self.kept.add([row])
        return Reply(row["text"], finished=row["finished"])

    def request(self, body):
        """What the endpoint replies, as read_answer gives it."""
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        for attempt in range(self.tries):
            wait = 2.0**attempt
            try:
                request = urllib.request.Request(self.url, body, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    return read_answer(json.loads(answer.read()))
            except urllib.error.HTTPError as error:
                why = f"{error.code} {error.reason}: {error.read(300).decode('utf-8', 'replace')}"
                if error.code not in AGAIN:
                    break
                after = error.headers.get("Retry-After", "")
                if after.isdigit():  # it may be a date
                    wait = min(float(after), 60.0)
            except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
                why = f"{type(error).__name__}: {error}"
            if attempt + 1 < self.tries:
                time.sleep(wait)
        raise ConnectionError(f"{self.url}: no reply ({why})")

    def tokens(self):
        """Those of all prompts and of all replies."""
        usages = [row["usage"] for row in self.kept.rows.values()]
        return [sum(usage.get(name, 0) for usage in usages) for name in TOKENS]

    def bill(self):
        """A line on what the replies took, those of calls that were killed before included."""
        total = self.tokens()
        line = f"tokens: {total[0]:,} of prompts, {total[1]:,} of replies"
        if any(self.before):
            line += f" ({self.before[0]:,} and {self.before[1]:,} paid before)"
        if self.prices:
            line += f"; cost {sum(n * price for n, price in zip(total, self.prices)) / 1e6:.4g}"
        return line


def read_answer(answer):
    """{"text", "finished", "usage"} of what an endpoint sent. LookupError or TypeError where it is no
    reply."""
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("no text in the reply")
    usage = answer.get("usage") or {}
    counts = {name: usage[name] for name in TOKENS if usage.get(name)}
    return {"text": text, "finished": choice.get("finish_reason") != "length", "usage": counts}


def read_prices(text):
    """The two prices in --price, or None where it is empty."""
    if not text:
        return None
    if not re.fullmatch(r"\d*\.?\d+, *\d*\.?\d+", text):
        raise UsageError(f"--price {text}: must be two numbers, of prompts and replies, such as 0.15,0.6")
    return [float(price) for price in text.split(",")]
