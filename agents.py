"""Who plays: a Model has reply() and choose(), a Teacher, who is elsewhere, reply(), an Encoder embed(), a
Classifier classify(); a game's own player may be an agent too (games.task)."""

import hashlib
import json
import math
import time
import urllib.error
import urllib.request
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from threading import Lock

import torch
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

import data
import sampler
from attention import ALWAYS
from games.task import Reply


class Model:
    """A model as an agent. A reply is drawn by (seed, call, prompt, which of the same prompt), so that the
    other conversations of a call, and on which machine they are, change nothing. seed: an int or a list."""

    def __init__(self, model, tokenizer, max_new=32, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=0):
        self.model, self.tokenizer, self.max_new = model, tokenizer, max_new
        self.seed = seed if isinstance(seed, list) else [seed]
        self.sampling = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        self.session, self.calls = sampler.Session(model), 0

    def reply(self, conversations, n=1, begin="", until=(), choices=(), watch=None, seconds=0.0):
        """For each conversation n replies: samples, or at temperature 0 the n likeliest, best first.

        begin: text that every reply begins with; until: strings that end a reply and do not belong to it;
        choices: texts, one of which a reply must be; watch(i, text) is called as reply i grows; seconds:
        after which all replies end where they are. With any of these replies are sampled one by one."""
        late = time.monotonic() + seconds if seconds else math.inf
        prompts = [self.tokenizer.prompt(conversation) for conversation in conversations]
        if begin:
            prompts = [prompt + list(self.tokenizer.encode(begin)) for prompt in prompts]
        stop = self.tokenizer.stop_ids
        self.calls += 1
        if n > 1 and self.sampling["temperature"] == 0 and not (until or choices or watch or seconds):
            groups = sampler.n_best(self.model, prompts, n, self.max_new, stop, self.session)
        else:
            repeated = [prompt for prompt in prompts for _ in range(n)]
            seeds, seen = [], Counter()
            for prompt in repeated:
                text = zlib.crc32(str(prompt).encode())
                seeds.append([*self.seed, self.calls, text, seen[text]])
                seen[text] += 1
            control = {}
            if until or seconds:
                # tokens, each of a byte or more
                tail = max((len(end.encode()) for end in until), default=0) + 4
                ended = lambda ids: any(end in self.tokenizer.decode(ids[-tail:]) for end in until)
                control["until"] = lambda ids: time.monotonic() > late or ended(ids)
            if choices:
                control["process"] = sampler.only([self.spelled(conversations[0], text) for text in choices])
            if watch:
                control["watch"] = lambda i, reply: watch(i, begin + self.tokenizer.decode(reply.ids))
            settings = self.sampling | dict(seeds=seeds, session=self.session) | control
            flat = sampler.generate(self.model, repeated, self.max_new, stop, **settings)
            groups = [flat[i : i + n] for i in range(0, len(flat), n)]
        for prompt, group in zip(prompts, groups):
            for reply in group:
                reply.text, reply.prompt = begin + self.tokenizer.decode(reply.ids), prompt
                for end in until:
                    reply.text = reply.text[: len(begin)] + reply.text[len(begin) :].partition(end)[0]
        return groups

    def spelled(self, conversation, text):
        """The ids of a text as the reply to a conversation, its end included."""
        ids, mask = self.tokenizer.replied(conversation, text)
        return [token for token, learned in zip(ids, mask) if learned]

    def choose(self, conversations, choices):
        """Log-probability of each choice as the whole reply to each conversation: list of lists."""
        samples = [self.tokenizer.replied(talk, choice) for talk in conversations for choice in choices]
        scores = sampler.score(self.model, samples)
        return [scores[i : i + len(choices)] for i in range(0, len(scores), len(choices))]


class Encoder:
    """An Embedder as an agent. Vectors of documents are kept in the folder `cache`, where there is one, under
    a name that follows from all that makes them: they are never stale."""

    def __init__(self, embedder, cache=None):
        self.embedder, self.cache = embedder, cache

    def embed(self, texts, kind="document"):
        """Vectors (N, width), numpy, of texts as queries or documents, with the prompt for them."""
        keep = self.cache and kind == "document"
        path = Path(self.cache, f"{self.embedder.fingerprint(texts, kind)}.safetensors") if keep else None
        if keep and path.exists():
            return load_file(path)["vectors"]
        found = self.embedder.embed(texts, self.embedder.prompt_of(kind), progress=True).numpy()
        if keep:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            save_file({"vectors": found}, partial)
            partial.replace(path)
        return found


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
        found = torch.empty(len(rows), self.classes)
        batches = data.micro_batches(rows, self.batch_tokens)
        for group in tqdm(batches, unit="batch", disable=None if len(batches) > 20 else True):
            batch = data.collate(group, self.model.device)
            found[batch["labels"].cpu()] = class_logits(self.model, batch).float().cpu()
        return found


def class_logits(model, batch):
    """Scores of the classes, (B, classes), of a batch (data.collate) of texts, a row each."""
    slots = torch.arange(batch["ids"].shape[1], device=batch["ids"].device)
    end = (slots < batch["length"][:, None]) * ALWAYS  # (B, T)
    return model.classify(model(batch["ids"], batch["positions"], end, noise=batch.get("noise")), end)


class Teacher:
    """A model behind an OpenAI-compatible endpoint, url ending in /v1. Requests run `workers` at a time; what
    fails for a while (429, 5xx, a broken or slow connection, an answer that is none) is tried again after
    Retry-After or 1, 2, 4 ... seconds, up to `tries` times. `tokens` counts those of prompts and replies.

    kept: where replies are kept as they come, an infer.Journal: what it holds is not asked, and paid, again.
    A reply is known by `part` (of the work, which who asks sets), its request, and how many equal requests
    there were in the part before it."""

    AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}

    def __init__(
        self, url, model, key="", max_new=512, temperature=0.0, workers=8, tries=6, timeout=120, kept=None
    ):
        self.url, self.model, self.key = url.rstrip("/") + "/chat/completions", model, key
        self.settings = {"max_tokens": max_new, "temperature": temperature}
        self.workers, self.tries, self.timeout = workers, tries, timeout
        self.tokens, self.before = Counter(), Counter()  # before: of replies that were kept
        self.kept, self.part, self.asked, self.lock = kept, 0, Counter(), Lock()
        for row in kept.rows.values() if kept else ():
            self.before.update(row["usage"])

    def reply(self, conversations, n=1):
        """For each conversation n replies, in order."""
        bodies = [self.body(conversation) for conversation in conversations for _ in range(n)]
        with ThreadPoolExecutor(self.workers) as pool:
            replies = list(pool.map(self.ask, bodies, [self.name_of(body) for body in bodies]))
        return [replies[i : i + n] for i in range(0, len(replies), n)]

    def body(self, messages):
        return json.dumps({"model": self.model, "messages": messages, **self.settings}).encode()

    def name_of(self, body):
        """What tells the reply to a request from all others of the work."""
        name = hashlib.sha256(f"{self.url} {self.part} ".encode() + body).hexdigest()
        self.asked[name] += 1
        return f"{name}-{self.asked[name]}"

    def ask(self, body, name):
        """The Reply to a request, kept or new. Raises ConnectionError, without the key, where no try succeeds
        or more will not help."""
        if self.kept and name in self.kept.rows:
            row = self.kept.rows[name]
            return Reply(row["text"], finished=row["finished"])
        reply, usage = self.request(body)
        with self.lock:
            self.tokens.update(usage)
            if self.kept:
                row = {"row": name, "text": reply.text, "finished": reply.finished, "usage": usage}
                self.kept.add([row])
        return reply

    def request(self, body):
        """The Reply that the endpoint gives, and its usage."""
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        for attempt in range(self.tries):
            wait = 2.0**attempt
            try:
                request = urllib.request.Request(self.url, body, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    return self.read(json.loads(answer.read()))
            except urllib.error.HTTPError as error:
                said = error.read(300).decode("utf-8", "replace")
                why = f"{error.code} {error.reason}: {said}"
                if error.code not in self.AGAIN:
                    break
                after = error.headers.get("Retry-After", "")
                wait = min(float(after), 60.0) if after.replace(".", "", 1).isdigit() else wait
            except (OSError, HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                why = f"{type(error).__name__}: {error}"
            if attempt + 1 < self.tries:
                time.sleep(wait)
        raise ConnectionError(f"{self.url}: no reply ({why})")

    def read(self, found):
        """The Reply in what an endpoint sent, and its usage. KeyError, IndexError or TypeError where it is
        none."""
        choice = found["choices"][0]
        text = choice["message"]["content"]
        if not isinstance(text, str):
            raise TypeError("no text in the reply")
        usage = {name: count for name, count in (found.get("usage") or {}).items() if isinstance(count, int)}
        return Reply(text, finished=choice.get("finish_reason") != "length"), usage
