"""An OpenAI-compatible endpoint for one model: python infer.py serve --model DIR

The main thread runs the Engine, in which all replies grow together; a request that arrives joins them. Each
connection has a thread with a Handler, which reads a Request, gives its Choices to the engine, and writes
what has grown. What a request asks for is done, or refused by name."""

import hmac
import json
import os
import re
import reprlib
import select
import signal
import socket
import sys
import threading
import time
import uuid
from collections import deque
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from socketserver import ThreadingTCPServer
from urllib.parse import unquote

import torch

from agents import reply_seeds
from cache import Session
from data import read_tokenizer, replace_surrogates
from files import COUNT, FLAG, OBJECT, TEXT, by_key, either, list_of, number, whole
from games.rows import conversation
from sampler import BATCH, Batch, Growing, next_logits
from terminal import UsageError

LARGEST_BODY = 4 << 20  # bytes of a request
QUEUE = 256  # replies that wait for a row of the cache; more are told to come again
LONGEST_STOPS = 1000  # characters of all stop strings
CONNECTIONS = 128  # at a time, each with a thread
WAIT_SECONDS = 60  # that a client may send or read nothing
END_SECONDS = 5  # in which running replies may end after SIGTERM or Ctrl-C
POLL = 0.2  # seconds between two looks at whether a client is still there
DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "n": 1, "stop": [], "stream": False}
SHORT = 16  # tokens of a completion that names no limit, as OpenAI has it

PROMPT = list_of(COUNT, least=1)
FIELDS = by_key(
    {
        TEXT: "model",
        FLAG: "stream",
        OBJECT: "stream_options",
        COUNT: "seed",
        whole(1, 1 << 31): "max_tokens",
        whole(1, BATCH): "n",
        whole(-1, 1 << 31): "top_k",
        number(0, 1): "top_p min_p",
        number(0, 100): "temperature",
        either(TEXT, list_of(TEXT)): "stop",
    }
)
CHAT = {
    **FIELDS,
    "messages": list_of(OBJECT, least=1),
    "max_completion_tokens": FIELDS["max_tokens"],
    "logprobs": FLAG,
    "top_logprobs": whole(0, 20),
}
COMPLETION = {
    **FIELDS,
    "prompt": either(TEXT, list_of(TEXT, least=1), PROMPT, list_of(PROMPT, least=1)),
    "logprobs": CHAT["top_logprobs"],
    "echo": FLAG,
}
MESSAGE = {"role": TEXT, "content": either(TEXT, list_of(OBJECT))}
# fields that change no reply, and values with which others change none
HARMLESS = """user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention
    parallel_tool_calls prediction""".split()
NEUTRAL = {
    "response_format": {"type": "text"},
    "tool_choice": "none",
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "best_of": 1,
}


# ------------------------------------------------------------------------------------------------ requests
class Refused(Exception):
    """A request that is answered with an error. param: the field; code: OpenAI's word for the reason."""

    def __init__(self, message: str, param: str | None = None, status=400, code=None):
        self.status = status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def check(value: dict, kinds: dict, where=""):
    """Refuse fields of wrong kinds, and unknown ones that could change the reply."""
    for name, content in value.items():
        param = f"{where}{name}"[:100]
        harmless = content in (None, "", [], {}) or name in HARMLESS or content == NEUTRAL.get(name, ...)
        if name not in kinds and not harmless:
            raise Refused(f"{param} is not supported here", param)
        if name in kinds and content is not None and not kinds[name].fits(content):
            raise Refused(f"{param} is {reprlib.repr(content)}, expected {kinds[name].name}", param)


class Request:
    """The body of a request, checked, and the `choices` that it asks for. `news` is set when one of them has
    grown."""

    def __init__(self, body, chat: bool, server):
        if type(body) is not dict:
            raise Refused("the body is no JSON object")
        check(body, CHAT if chat else COMPLETION)
        given = {name: value for name, value in body.items() if value is not None}
        self.body = {**server.defaults, **given}
        self.chat = chat
        self.server = server
        self.news = threading.Event()
        if given.get("model", "") not in ("", server.name):
            raise Refused(f"the only model here is {server.name}", "model", 404, "model_not_found")
        for name, other in (("top_logprobs", "logprobs"), ("stream_options", "stream")):
            if given.get(name) and not given.get(other):
                raise Refused(f"{name} needs {other}", name)
        stop = self.body["stop"]
        self.stops = [stop] if type(stop) is str else stop
        if "" in self.stops or sum(map(len, self.stops)) > LONGEST_STOPS:
            raise Refused(f"stop holds an empty text, or more than {LONGEST_STOPS} characters", "stop")
        self.top = given.get("logprobs")  # tokens to show beside each token; None: no log-probabilities
        if chat:
            self.top = given.get("top_logprobs", 0) if self.top else None
        self.prompts = self.read_messages() if chat else self.read_prompts()
        self.choices = self.make_choices()

    def usage(self) -> dict:
        prompts = sum(len(ids) for _, ids in self.prompts)
        replies = sum(len(choice.reply.ids) for choice in self.choices)
        return {"prompt_tokens": prompts, "completion_tokens": replies, "total_tokens": prompts + replies}

    def read_messages(self) -> list:
        """[(text that the reply shows first, ids of the prompt)] of a chat."""
        messages = self.body.get("messages", [])
        for i, message in enumerate(messages):
            check(message, MESSAGE, f"messages[{i}].")
        tokenizer = self.server.tokenizer
        for cached in (tokenizer.encode, tokenizer.shape_of):  # which keep 100,000 texts, of any length
            if cached.cache_info().currsize > QUEUE:
                cached.cache_clear()
        try:
            return [("", tokenizer.prompt(conversation("the body", {"messages": messages})))]
        except ValueError as error:
            raise Refused(str(error), "messages") from error

    def read_prompts(self) -> list:
        """The same of a completion, whose prompts are texts or ids. Texts are read as transformers does."""
        raw = self.server.raw
        given = self.body.get("prompt", "")
        prompts = []
        for prompt in [given] if type(given) is str or type(given[0]) is int else given:
            ids = prompt
            if type(prompt) is str:
                ids = raw.encode(replace_surrogates(prompt)).ids
            if not ids or max(ids) >= self.server.engine.model.config.vocab:
                raise Refused("a prompt is missing, empty, or holds an id that is no token", "prompt")
            text = ""
            if self.body.get("echo"):
                text = prompt if type(prompt) is str else raw.decode(ids, skip_special_tokens=False)
            prompts.append((text, ids))
        return prompts

    def make_choices(self) -> list:
        body = self.body
        context = self.server.engine.context
        if len(self.prompts) * body["n"] > QUEUE:
            raise Refused(f"more than {QUEUE} replies", "n")
        repeated = [prompt for prompt in self.prompts for _ in range(body["n"])]
        seed = body.get("seed", int.from_bytes(os.urandom(6), "big"))
        seeds = reply_seeds([seed, 1], [ids for _, ids in repeated])
        sampling = {name: body[name] for name in ("temperature", "top_p", "top_k", "min_p")}
        choices = []
        for (text, ids), stream in zip(repeated, seeds):
            room = context - len(ids)
            limits = body.get("max_completion_tokens"), body.get("max_tokens"), body.get("max_new")
            limit = next(filter(None, limits), room if self.chat else SHORT)
            if not 0 < limit <= room:
                message = f"a prompt of {len(ids)} tokens and a reply of {limit}: more than {context}"
                raise Refused(message, "messages" if self.chat else "prompt", 400, "context_length_exceeded")
            choices.append(Choice(self, text, len(choices), ids, limit, sampling, stream))
        return choices


# ------------------------------------------------------------------------------------------------ replies
class Choice(Growing):
    """A reply of a request. The engine's thread lets it grow, the handler's takes what is new. before: text
    that it shows first, the prompt of a completion with echo."""

    def __init__(self, request, before, *settings):
        super().__init__(*settings, until=self.is_complete if request.stops else None)
        self.request = request
        self.before = before
        self.finish = None  # at the end: stop or length
        self.taken = 0  # characters that `take` has returned
        # (token, its log-probability, the likeliest tokens with theirs) of each token, if they are asked for
        self.entries = []
        self.told = 0  # entries that `take` has returned
        self.offset = 0  # characters of the tokens in these

    def text(self) -> str:
        return self.request.server.tokenizer.decode(list(self.reply.ids))

    def is_complete(self, ids) -> bool:
        text = self.text()
        return any(stop in text for stop in self.request.stops)

    def note(self, token, logits):
        """Note a token and the logits (V,) that it was picked from."""
        if self.request.top is not None:
            spell = self.request.server.spell
            logps = logits.log_softmax(-1)
            values, ids = logps.topk(self.request.top)
            likely = zip(map(spell, ids.tolist()), values.tolist())
            self.entries.append((spell(token), float(logps[token]), list(likely)))

    def begin(self, model):
        """Note the tokens of the prompt, if the reply shows them: nothing is known of the first."""
        if self.before and self.request.top is not None:
            hidden = model(torch.tensor([self.prompt], device=model.device))[0]  # (T, D)
            self.entries.append((self.request.server.spell(self.prompt[0]), None, []))
            for start in range(0, len(self.prompt), BATCH):
                logits = next_logits(model, hidden[start : start + BATCH])
                for token, row in zip(self.prompt[start + 1 :], logits):
                    self.note(token, row)

    def grew(self, logits):
        """Note what the last step added."""
        reply = self.reply
        self.note(reply.ids[-1], logits)
        if reply.finished or len(reply.ids) >= self.limit:
            self.end("stop" if reply.finished else "length")
        elif self.request.body["stream"]:
            self.request.news.set()

    def end(self, finish):
        self.finish = finish
        self.request.news.set()

    def take(self, finish) -> tuple:
        """(text, entries) that are new. Before the end, text that a later token may change is held back: half
        a character, and what may begin a stop string."""
        text = self.text()
        for stop in self.request.stops:
            text = text.partition(stop)[0]
        end = len(text)
        if not finish:
            end = len(text.rstrip("\ufffd"))
            for stop in self.request.stops:
                begun = [size for size in range(len(stop)) if text.endswith(stop[:size])]
                end = min(end, len(text) - max(begun))
        piece = self.before + text[self.taken : end]
        self.before = ""
        self.taken = end
        entries = self.entries[self.told :]
        self.told += len(entries)
        return piece, entries


class Engine:
    """Lets replies grow together, in the thread that calls `run`. Other threads add Choices by `submit`."""

    def __init__(self, model, context: int, stop):
        self.model = model
        self.context = context  # longest prompt with its reply, in tokens
        self.lock = threading.Condition()
        self.arrived = deque()
        self.deadline = None  # of replies that still run when the server is asked to end
        session = Session(model)
        self.batch = Batch(model, session, session.reserve(BATCH, context), stop)

    def submit(self, choices: list):
        with self.lock:
            if self.deadline:
                raise Refused("the server is ending", None, 503)
            if len(self.arrived) + len(choices) > QUEUE:
                raise Refused(f"{len(self.arrived)} replies are waiting; come again", None, 429)
            self.arrived += choices
            self.lock.notify()

    @torch.no_grad()
    def run(self):
        """Let replies grow until the server is asked to end and they have ended, or their time is over."""
        batch = self.batch
        while not self.deadline or (batch.growing and time.monotonic() < self.deadline):
            with self.lock:
                if not (self.arrived or batch.growing):
                    self.lock.wait(POLL)
                entering = []
                while self.arrived and len(entering) + len(batch.waiting) + len(batch.growing) < batch.rows:
                    entering.append(self.arrived.popleft())
            for choice in entering:
                if choice.limit:  # 0: nobody waits for it any more
                    choice.begin(self.model)
                    batch.waiting.append(choice)
            if batch.waiting or batch.growing:
                for choice, logits in zip(*batch.step()):
                    choice.grew(logits)
        for choice in (*batch.growing.values(), *batch.waiting, *self.arrived):
            choice.end("length")


# ------------------------------------------------------------------------------------------------ connections
class Handler(BaseHTTPRequestHandler):
    """A connection, which may bring many requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = WAIT_SECONDS
    error_content_type = "application/json"  # of answers to what is no proper HTTP
    error_message_format = json.dumps(Refused("HTTP error %(code)d").body)

    def log_message(self, *_):
        """Nothing: `do_POST` prints a line."""

    def do_POST(self):
        self.server.running.add(self)
        began = time.monotonic()
        self.status = "gone"
        self.used = ""
        try:
            self.answer()
        except Refused as error:
            self.send(error.status, error.body)
        finally:
            self.server.running.discard(self)
            call = f"{self.client_address[0]} {self.command} {self.path.partition('?')[0][:100]}"
            line = f"{call} {self.status}{self.used}, {time.monotonic() - began:.2f} s\n"
            print(line, end="", flush=True)

    do_GET = do_POST

    def answer(self):
        server = self.server
        body = self.read_body()
        call = f"{self.command} {unquote(self.path.partition('?')[0])}"
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if server.key and not hmac.compare_digest(key.encode(), server.key.encode()):
            raise Refused("the key is missing or wrong", None, 401, "invalid_api_key")
        model = {"id": server.name, "object": "model", "created": server.began, "owned_by": "parlor"}
        if call == "GET /v1/models":
            self.send(200, {"object": "list", "data": [model]})
        elif call == f"GET /v1/models/{server.name}":
            self.send(200, model)
        elif call in ("POST /v1/chat/completions", "POST /v1/completions"):
            try:
                body = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise Refused(f"the body is not valid JSON ({error})") from error
            self.reply(Request(body, "chat" in call, server))
        else:
            raise Refused(f"{call[:100]}: there is no such call", None, 404)

    def read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not re.fullmatch("[0-9]{1,12}", length) or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise Refused("a request needs a Content-Length", None, 411)
        if int(length) <= LARGEST_BODY:
            return self.rfile.read(int(length))
        for _ in range(int(length) >> 20):  # many clients look for an answer only after their last byte
            self.rfile.read(1 << 20)
        self.close_connection = True
        raise Refused(f"a request may have {LARGEST_BODY >> 20} MB", None, 413)

    def send(self, status: int, value: dict):
        """Send a JSON object."""
        content = json.dumps(value).encode()
        self.send_head(status, "application/json", {"Content-Length": len(content)})
        self.wfile.write(content)

    def send_head(self, status: int, kind: str, headers: dict):
        self.status = status
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        if status in (429, 503):
            self.send_header("Retry-After", 1)
        self.end_headers()

    def reply(self, request):
        """Let the replies grow, and send them, with "stream" as they grow in server-sent events."""
        frame = {"id": uuid.uuid4().hex, "created": int(time.time()), "model": self.server.name}
        frame["object"] = "chat.completion" if request.chat else "text_completion"
        self.server.engine.submit(request.choices)
        try:
            if request.body["stream"]:
                self.stream(request, frame)
            else:
                choices = sorted(self.news(request), key=itemgetter("index"))
                self.send(200, {**frame, "choices": choices, "usage": request.usage()})
        finally:
            for choice in request.choices:
                choice.limit = 0  # which ends it if the client is gone
            prompts, replies, _ = request.usage().values()
            self.used = f", {prompts} + {replies} tokens"

    def news(self, request):
        """Yield what is new of each choice, in the form of the answer, until all have ended."""
        running = list(request.choices)
        while running:
            if not request.news.wait(POLL):
                ready, _, _ = select.select([self.connection], [], [], 0)
                if ready and not self.connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionAbortedError
            request.news.clear()
            for choice in list(running):
                finish = choice.finish  # before its text is taken: it may grow meanwhile
                if finish:
                    running.remove(choice)
                if finish or request.body["stream"]:
                    yield show(choice, finish)

    def stream(self, request, frame):
        self.close_connection = True  # which is how the client knows the end
        self.send_head(200, "text/event-stream", {"Cache-Control": "no-cache"})

        def send(value):
            self.wfile.write(f"data: {value}\n\n".encode())

        def send_chunk(*choices, **more):
            send(json.dumps({**frame, "choices": choices, **more}))

        if request.chat:
            frame["object"] += ".chunk"
            for choice in request.choices:
                send_chunk({"index": choice.index, "delta": {"role": "assistant"}, "finish_reason": None})
        for choice in self.news(request):
            send_chunk(choice)
        if request.body.get("stream_options", {}).get("include_usage"):
            send_chunk(usage=request.usage())
        send("[DONE]")


def show(choice, finish) -> dict:
    """What is new of a choice, in the form of an answer or of a chunk of it."""
    request = choice.request
    text, entries = choice.take(finish)
    shown = {"index": choice.index, "finish_reason": finish, "logprobs": None}
    if request.top is not None:
        shown["logprobs"] = (chat_logprobs if request.chat else logprobs)(choice, entries)
    if not request.chat:
        return {**shown, "text": text}
    if request.body["stream"]:
        return {**shown, "delta": {"content": text}}
    return {**shown, "message": {"role": "assistant", "content": text, "refusal": None}}


def chat_logprobs(choice, entries) -> dict:
    """Log-probabilities as a chat shows them."""

    def shown(text, logp):
        return {"token": text, "logprob": logp, "bytes": list(text.encode())}

    content = []
    for text, logp, likely in entries:
        content.append({**shown(text, logp), "top_logprobs": [shown(*pair) for pair in likely]})
    return {"content": content}


def logprobs(choice, entries) -> dict:
    """Log-probabilities as a completion shows them."""
    texts = [text for text, _, _ in entries]
    offsets = [*accumulate(map(len, texts), initial=choice.offset)]
    choice.offset = offsets.pop()
    return {
        "tokens": texts,
        "token_logprobs": [logp for _, logp, _ in entries],
        "top_logprobs": [{**dict(likely), text: logp} for text, logp, likely in entries],
        "text_offset": offsets,
    }


class Server(ThreadingTCPServer):
    """Accepts connections, each in a thread of its own. defaults: of the fields of a request."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = CONNECTIONS

    def __init__(self, address, engine, point, name: str, key="", defaults=None):
        super().__init__(address, Handler)
        self.engine = engine
        self.tokenizer = point.tokenizer
        self.folder = point.folder
        self.name = name
        self.key = key
        self.defaults = {**DEFAULTS, **(defaults or {})}
        self.began = int(time.time())
        self.running = set()  # handlers that are answering

    def process_request(self, request, client):
        if threading.active_count() > CONNECTIONS:
            self.shutdown_request(request)
        else:
            super().process_request(request, client)

    def handle_error(self, request, client):
        if not isinstance(sys.exc_info()[1], OSError):  # of a client that went away
            super().handle_error(request, client)

    @cached_property
    def raw(self):
        """The tokenizer as its file has it, for completions: it puts tokens around a text, and control tokens
        where the text spells them."""
        inner = read_tokenizer(self.folder, self.engine.model.config.vocab)
        inner.encode_special_tokens = False
        inner.no_truncation()
        inner.no_padding()
        return inner

    def spell(self, token: int) -> str:
        """The text of a token behind another text."""
        ids = [*self.tokenizer.encode("a"), token]
        return self.tokenizer.inner.decode(ids, skip_special_tokens=False).partition("a")[2]


def serve(cfg, point, name: str):
    """Serve the model of a call until Ctrl-C or SIGTERM; a second one ends it at once."""
    config = point.model.config
    if config.head != "lm":
        raise ValueError(f"{name}: is no language model, so it cannot reply")
    name = Path(name).resolve().name if Path(name).exists() else name
    key = os.environ.get("PARLOR_SERVE_KEY", "")
    context = min(cfg.context, config.hf.get("max_position_embeddings") or cfg.context)
    engine = Engine(point.model, context, point.tokenizer.stop_ids)
    given = {flag: getattr(cfg, flag) for flag in (*DEFAULTS, "seed", "max_new") if flag in cfg.origin}
    try:
        server = Server((cfg.host, cfg.port), engine, point, name, key, given)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--host {cfg.host} --port {cfg.port}: {error}") from error

    def end(*_):
        if engine.deadline:
            raise KeyboardInterrupt
        engine.deadline = time.monotonic() + END_SECONDS

    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, end)
    threading.Thread(target=server.serve_forever, args=(POLL,), daemon=True).start()
    place = f"http://{cfg.host}:{server.server_address[1]}/v1"
    print(f"{name} at {place}: {engine.batch.rows} replies at a time, {context} tokens each", flush=True)
    if not key and cfg.host not in ("127.0.0.1", "localhost"):
        print("warning: set PARLOR_SERVE_KEY, or whoever reaches this port may use the model", flush=True)
    engine.run()
    server.shutdown()
    late = time.monotonic() + END_SECONDS
    while server.running and time.monotonic() < late:  # what has grown is still written
        time.sleep(0.01)
