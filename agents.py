"""The players: a Model can reply() and choose(), an Encoder embed(), a Classifier classify(), a Teacher (a
model behind an endpoint) reply(). A game's own player may be an agent too (games/task.py)."""

import hashlib
import json
import math
import os
import re
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Event, Lock
from urllib import request as web

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

import data
import sampler
from cache import Session
from files import COUNT, locked, replacing
from games.task import Reply
from journal import Journal
from model import class_logits
from terminal import UsageError

LONGEST_TEXT = 4096  # tokens


# ------------------------------------------------------------------------------------------------ own models
class Model:
    """A model as an agent. Each reply has its own random stream, seeded by (seed, call, prompt, repeat), so
    neither the rest of the batch nor the rank affects it. seed: an int or a list; tails as in
    sampler.generate."""

    def __init__(
        self, model, tokenizer: data.Tokenizer, max_new: int = 32, temperature: float = 0.0, seed=0, **tails
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.max_new = max_new
        self.sampling = {"temperature": temperature, **tails}
        self.seed = seed if isinstance(seed, list) else [seed]
        self.calls = 0
        self.forget()

    def start_part(self, part: int):
        """Begin a part of the work, whose replies depend only on the seed and the calls within the part."""
        self.calls = 0
        self.forget()  # what is read again, or not, changes the last bits of a log-probability

    def forget(self):
        """Drop all that was read so far, since the weights have changed."""
        self.session = Session(self.model)

    def reply(self, conversations: list, n=1, begin="", until=(), watch=None, seconds=0.0) -> list:
        """n replies to each conversation: samples, or at temperature 0 the n likeliest, best first.

        begin: text that every reply begins with; until: strings that end a reply and are not part of it;
        watch(i, text) is called as reply i grows; seconds: when this time is over, all replies end where they
        are. With any of the last three, replies are sampled one by one."""
        late = time.monotonic() + seconds if seconds else math.inf
        decode = self.tokenizer.decode
        stop = self.tokenizer.stop_ids
        start = list(self.tokenizer.encode(begin))
        prompts = [self.tokenizer.prompt(conversation) + start for conversation in conversations]
        self.calls += 1
        if n > 1 and self.sampling["temperature"] == 0 and not (until or watch or seconds):
            groups = sampler.n_best(self.model, prompts, n, self.max_new, stop, self.session)
        else:
            # enough of the last tokens to see any of these strings: a token is a byte or more
            tail = max((len(end.encode()) for end in until), default=0) + 4

            def is_complete(ids):
                return time.monotonic() > late or any(end in decode(ids[-tail:]) for end in until)

            repeated = [prompt for prompt in prompts for _ in range(n)]
            replies = sampler.generate(
                self.model,
                repeated,
                self.max_new,
                stop,
                seeds=self.seeds(repeated),
                session=self.session,
                until=is_complete,
                watch=watch and (lambda i, reply: watch(i, begin + decode(reply.ids))),
                **self.sampling,
            )
            groups = in_groups(replies, n)
        for prompt, group in zip(prompts, groups):
            for reply in group:
                text = decode(reply.ids)
                for end in until:
                    text = text.partition(end)[0]
                reply.text = begin + text
                reply.prompt = prompt
        return groups

    def seeds(self, prompts):
        """The seed of a reply to each prompt."""
        return reply_seeds([*self.seed, self.calls], prompts)

    def choose(self, conversations: list, choices: list) -> list:
        """Log-probability of each choice as the entire reply to each conversation: list of lists."""
        samples = []
        for conversation in conversations:
            samples += [self.tokenizer.render_reply(conversation, choice) for choice in choices]
        return in_groups(sampler.score(self.model, samples), len(choices))

    def likelihood(self, chats: list) -> list:
        """(log-probability, number) of the learned tokens of each Chat, cut after LONGEST_TEXT tokens."""
        samples = []
        for chat in chats:
            ids, mask = self.tokenizer.render(chat.messages, chat.learn)
            samples.append((ids[:LONGEST_TEXT], mask[:LONGEST_TEXT]))
        return [(logp, sum(mask)) for logp, (_, mask) in zip(sampler.score(self.model, samples), samples)]


def reply_seeds(start: list, prompts: list) -> list:
    """A seed for a reply to each prompt, which begins with `start`. Equal prompts are told apart by their
    repeat."""
    seeds = []
    repeats = Counter()
    for prompt in prompts:
        text = zlib.crc32(str(prompt).encode())
        seeds.append([*start, text, repeats[text]])
        repeats[text] += 1
    return seeds


def in_groups(values, size):
    return [values[i : i + size] for i in range(0, len(values), size)]


class Encoder:
    """An Embedder as an agent. With a folder `cache` it keeps the vectors of documents there, in files whose
    names are made from everything that the vectors depend on, so they are never stale."""

    def __init__(self, embedder, cache=None):
        self.embedder = embedder
        self.cache = cache

    def embed(self, texts: list, kind="document") -> np.ndarray:
        """Vectors (N, width) of texts as queries or documents, with the prompt for that kind."""
        embed = lambda: self.embedder.embed(texts, self.embedder.prompt_of(kind), progress=True).numpy()
        if not self.cache or kind != "document":
            return embed()
        path = Path(self.cache, f"{self.embedder.fingerprint(texts, kind)}.safetensors")
        if path.exists():
            return load_file(path)["vectors"]
        vectors = embed()
        with suppress(BlockingIOError):  # another process writes the same vectors
            with locked(path), replacing(path) as partial:
                save_file({"vectors": vectors}, partial)
        return vectors


class Classifier:
    """A model with a classifier as an agent. Texts of more than max_tokens are shortened
    (Tokenizer.fit_row); batch_tokens are computed at a time, padding included."""

    def __init__(self, model, tokenizer: data.Tokenizer, max_tokens: int = 512, batch_tokens: int = 4096):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.batch_tokens = batch_tokens
        self.classes = model.config.labels

    def classify(self, conversations: list) -> np.ndarray:
        """The probability of each class, (N, classes). The score of a single class, as rerankers and reward
        models have it, counts as the log-odds of yes: the probabilities of no and yes, (N, 2)."""
        scores = self.scores(conversations)
        if self.classes == 1:  # in float64, or all above 17 would be equal
            scores = F.pad(scores.double(), (1, 0))
        return scores.softmax(-1).numpy()

    @torch.no_grad()
    def scores(self, conversations: list) -> torch.Tensor:
        """The output of the classifier before the softmax, (N, classes), in float32 on the CPU."""
        rows = []
        for i, messages in enumerate(conversations):
            row, _ = self.tokenizer.fit_row(messages, self.max_tokens, i)
            rows.append(row)
        scores = torch.empty(len(rows), self.classes)
        batches = data.micro_batches(rows, self.batch_tokens)
        for group in tqdm(batches, unit="batch", disable=None if len(batches) > 20 else True):
            batch = data.collate(group, self.model.device)
            scores[batch.labels.cpu()] = class_logits(self.model, batch).float().cpu()
        return sampler.finite(self.model, scores)


# ------------------------------------------------------------------------------------------------ an endpoint
TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # HTTP status of errors that pass
TOKENS = "prompt_tokens", "completion_tokens"  # the tokens that a reply costs, by the endpoints' names
BAD_ANSWER = OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError, RecursionError
LARGEST_ANSWER = 32 << 20  # bytes
LONGEST = 600  # seconds from the start of a request to the last byte of its answer
URL = r"(?!.*[@?#])https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!-~]*)?"


@dataclass(eq=False, repr=False)  # which would show the key
class Teacher:
    """A model behind an OpenAI-compatible endpoint, whose url ends in /v1.

    `workers` requests run at a time. After an error that may pass (429, 5xx, a broken or slow connection, a
    bad answer) a request is tried again, up to `tries` times, after the seconds in Retry-After or 1, 2, 4 ...
    seconds. price: for a million tokens of prompts and of replies, such as "0.15,0.6".

    The key is sent to this url only, since a redirect is an error, and it is cut out of whatever the endpoint
    says. Raises UsageError for a key that cannot be sent, and for a url that is none or may hold a secret.

    journal: a Journal of replies, which need not be requested and paid for again. It finds a reply by the
    part of the work (start_part), the request, and the number of equal requests before it in this part."""

    url: str
    model: str
    key: str = ""
    max_new: int = 512
    temperature: float = 0.0
    workers: int = 8
    price: str = ""
    tries: int = 6
    timeout: float = 120
    journal: Journal | None = None

    def __post_init__(self):
        if re.search("[^!-~]", self.key):
            raise UsageError("PARLOR_KEY holds a space, a line end or a character outside ASCII; remove it")
        if not re.fullmatch(URL, self.url):
            # an @, ? or # may stand beside a secret, which is then not shown
            shown = re.sub("(?s).*[@?#].*", "the endpoint's URL", self.url)
            raise UsageError(f"{shown}: must be http(s)://HOST/v1, without @ ? #; a key goes into PARLOR_KEY")
        # the key, even where JSON, a URL or HTML has escaped some of its characters
        spelt = [rf"\\{{0,3}}({re.escape(c)}|(%|%25|u00|&#x){ord(c):02x};?|&#{ord(c)};)" for c in self.key]
        self.secret = re.compile("".join(spelt) or "(?!)", re.IGNORECASE)
        self.opener = web.OpenerDirector()  # that of build_opener would follow redirects and open files
        for handler in (web.ProxyHandler, web.UnknownHandler, Bounded):
            self.opener.add_handler(handler())
        self.url = self.url.rstrip("/") + "/chat/completions"
        self.prices = read_prices(self.price)
        self.journal = self.journal or Journal("", {})
        self.part = 0
        self.repeats = Counter()  # how often each request was made
        self.lock = Lock()
        self.paid_before = self.tokens()  # for the replies in the journal

    def start_part(self, part: int):
        """Begin a part of the work; equal requests are counted within it."""
        self.part = part

    def reply(self, conversations: list, n=1) -> list:
        """n replies to each conversation, in order.

        An error or Ctrl-C ends the waits for another try. Requests that run are paid for, and end first."""
        settings = {"max_tokens": self.max_new, "temperature": self.temperature}
        bodies = []
        for messages in conversations:
            body = {"model": self.model, "messages": messages, **settings}
            bodies += [json.dumps(body).encode()] * n
        self.stopped = Event()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                replies = list(pool.map(self.ask, bodies, [self.reply_name(body) for body in bodies]))
            except BaseException:  # KeyboardInterrupt too
                self.stopped.set()
                raise
        return in_groups(replies, n)

    def reply_name(self, body):
        """A name for the reply to a request that no other reply of the work has."""
        name = hashlib.sha256(f"{self.url} {self.part} ".encode() + body).hexdigest()
        self.repeats[name] += 1
        return f"{name}-{self.repeats[name]}"

    def ask(self, body: bytes, name: str) -> Reply:
        """The Reply to a request, from the journal or new.

        Raises ConnectionError, which does not show the key, when no try succeeds or another cannot help."""
        row = self.journal.rows.get(name)
        if row is None:
            row = {"row": name, **self.request(body)}
            with self.lock:  # requests run in threads
                self.journal.add([row])
        return Reply(row["text"], finished=row["finished"])

    def request(self, body: bytes) -> dict:
        """Send a request, several times if need be. Returns what read_answer makes of the answer."""
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        for attempt in range(self.tries):
            wait = 2.0**attempt
            try:
                request = web.Request(self.url, body, headers)
                with self.opener.open(request, timeout=self.timeout) as answer:
                    content = answer.read(LARGEST_ANSWER)  # of a larger one only a part, which is no JSON
                if answer.status == 200:
                    with self.lock:  # parsed JSON can take 25 times its bytes: one answer at a time
                        reply = read_answer(content)
                    if len(self.key) > 8:  # a shorter one is no secret but a word, such as none
                        reply["text"] = self.secret.sub("***", reply["text"])
                    return reply
                why = f"{answer.status} {answer.reason}: {content.decode('utf-8', 'replace')}"
                if place := answer.headers["Location"]:  # it is not followed: the key would go there
                    why = f"{answer.status}, give this URL instead: {place.removesuffix('/chat/completions')}"
                if answer.status not in TRY_AGAIN:  # such as a wrong key
                    break
                after = answer.headers.get("Retry-After", "")
                if after.isdecimal():  # otherwise it is a date
                    wait = float(after)
            except BAD_ANSWER as error:
                why = f"{type(error).__name__}: {error}"
            if attempt + 1 < self.tries and self.stopped.wait(min(wait, 60.0)):
                break
        why = self.secret.sub("***", why)[:400]  # in this order: a key that was cut would not be recognized
        raise ConnectionError(f"{self.url}: no reply ({' '.join(why.split())})")

    def tokens(self) -> list:
        """The tokens of all prompts and those of all replies."""
        total = Counter()
        for row in self.journal.rows.values():
            total.update(row["usage"])
        return [total[name] for name in TOKENS]

    def bill(self) -> str:
        """A line that says what the replies cost, including those of earlier calls that were killed."""
        total = self.tokens()
        line = f"tokens: {total[0]:,} of prompts, {total[1]:,} of replies"
        if any(self.paid_before):
            line += f" ({self.paid_before[0]:,} and {self.paid_before[1]:,} paid before)"
        if self.prices:
            line += f"; cost {sum(n * price for n, price in zip(total, self.prices)) / 1e6:.4g}"
        return line


class Bounded(web.HTTPHandler, web.HTTPSHandler):
    """Opens http and https URLs, whose answers raise TimeoutError LONGEST seconds after the start.

    The timeout of a socket bounds each wait for a byte, but not headers or a body that come byte by byte."""

    def do_open(self, connect, request, **settings):
        end = time.monotonic() + LONGEST

        class Connection(connect):
            def response_class(self, sock, **more):
                response = HTTPResponse(sock, **more)
                raw = response.fp.raw  # all that is received passes here: headers, sizes of chunks, body
                receive = raw.readinto

                def readinto(buffer):
                    seconds = end - time.monotonic()
                    if seconds <= 0:
                        raise TimeoutError(f"no complete answer after {LONGEST} seconds")
                    sock.settimeout(min(seconds, sock.gettimeout()))
                    return receive(buffer)

                raw.readinto = readinto
                return response

        return super().do_open(Connection, request, **settings)


def read_answer(content: bytes) -> dict:
    """{"text", "finished", "usage"} of an endpoint's answer. Raises an error of BAD_ANSWER if it holds no
    reply, or none that can be kept."""
    answer = json.loads(content.decode("utf-8-sig"))
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("the reply holds no text")
    text.encode("utf-8")  # a lone surrogate could not be written
    usage = answer.get("usage") or {}
    counts = {name: usage[name] for name in TOKENS if usage.get(name)}
    if not all(map(COUNT.fits, counts.values())):
        raise TypeError("the tokens of the usage are no whole numbers")
    return {"text": text, "finished": choice.get("finish_reason") != "length", "usage": counts}


def read_prices(text: str) -> list | None:
    """The two prices in --price, or None where it is empty."""
    if not text:
        return None
    if not re.fullmatch(r"\d*\.?\d+, *\d*\.?\d+", text):
        raise UsageError(f"--price {text}: must be two numbers, for prompts and replies, such as 0.15,0.6")
    return [float(price) for price in text.split(",")]


def open_endpoint(name: str, options, marks: dict, max_new: int) -> Teacher:
    """The Teacher at URL or URL#MODEL, with the key in PARLOR_KEY. marks: those of the flag that names it
    (games.task.flag), by which `options` holds its other settings. max_new: its longest reply, in tokens."""
    url, _, model = name.partition("#")
    flags = marks.get("endpoint", {})
    settings = {kind: getattr(options, flag) for kind, flag in flags.items()}
    model = settings.pop("model", "") or model
    key = os.environ.get("PARLOR_KEY", "")
    return Teacher(url, model, key, max_new, **settings, **marks.get("settings", {}))
