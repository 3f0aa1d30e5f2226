"""infer.py serve: an endpoint for OpenAI's clients. Replies are those of the sampler, whoever else asks, in
whole or in pieces; whatever else comes over the wire is refused by name or cut off."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest
import torch
from conftest import tiny_model
from torch.testing import assert_close

import checkpoint
import infer
import serve
from agents import Model, Teacher
from tests.processes import Child, wait_for
from tests.replies import teacher_forced

ASK = [{"role": "user", "content": "Is it alive?"}]
CHATS = [[{"role": "user", "content": text}] for text in ("Is it alive?", "Can it fly?", "eagle", "x y z")]
KEY = "sk-secret-0123456789"


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A random model: its replies hold broken characters, and end at random."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    model = tiny_model(vocab_size=tokenizer.size, max_position_embeddings=512)
    checkpoint.Checkpoint(model, tokenizer).save(folder)
    return folder


@pytest.fixture(scope="module")
def point(folder):
    return checkpoint.open(folder)


class Served:
    """A server in this process, whose engine runs in a thread."""

    def __init__(self, point, **settings):
        self.point = point
        self.engine = serve.Engine(point.model, 200, point.tokenizer.stop_ids)
        self.server = serve.Server(("127.0.0.1", 0), self.engine, point, "tiny", **settings)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.thread = threading.Thread(target=self.engine.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.engine.deadline = time.monotonic()
        self.thread.join()
        self.server.shutdown()
        self.server.server_close()

    def open(self, path, body=None, method="POST", key=""):
        """(connection, answer) of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        content = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        connection.request(method, path, content, {"Authorization": f"Bearer {key}"} if key else {})
        return connection, connection.getresponse()

    def call(self, path, body=None, method="POST", key=""):
        """(status, JSON) of a request."""
        connection, answer = self.open(path, body, method, key)
        value = json.loads(answer.read())
        connection.close()
        return answer.status, value

    def ask(self, **body):
        """The answer to a request of either kind: `completion_of` fills in what every request has."""
        status, value = self.call(*request_of(body))
        assert status == 200, value
        return value

    def stream(self, **body):
        """The JSON of all events of a streamed answer."""
        connection, answer = self.open(*request_of({"stream": True, **body}))
        assert answer.status == 200 and answer.headers["Content-Type"] == "text/event-stream"
        *events, last, rest = answer.read().decode().split("\n\n")
        assert last == "data: [DONE]" and rest == ""
        connection.close()
        return [json.loads(event.removeprefix("data: ")) for event in events]


def request_of(body):
    """(path, body) of a short request, a completion if it has a prompt."""
    if "prompt" in body:
        return "/v1/completions", {"max_tokens": 12, "seed": 3, **body}
    return "/v1/chat/completions", {"messages": ASK, "max_tokens": 12, "seed": 3, **body}


@pytest.fixture(scope="module")
def served(point):
    with Served(point) as served:
        yield served


def sampled(point, chat=ASK, n=1, temperature=1.0, seed=3, max_new=12, **tails):
    """The texts that `infer.py sample` replies to a chat."""
    agent = Model(point.model, point.tokenizer, max_new, temperature, seed, **tails)
    return [reply.text for reply in agent.reply([chat], n)[0]]


def texts_of(value):
    """The replies of an answer, by their indices."""
    assert [choice["index"] for choice in value["choices"]] == list(range(len(value["choices"])))
    return [
        choice["message"]["content"] if "message" in choice else choice["text"] for choice in value["choices"]
    ]


def joined(events):
    """The replies of a stream, by their indices."""
    texts = {}
    for event in events:
        for choice in event["choices"]:
            piece = choice["delta"].get("content", "") if "delta" in choice else choice["text"]
            texts[choice["index"]] = texts.get(choice["index"], "") + piece
    return [texts[index] for index in range(len(texts))]


def refusal(answer):
    """(status, param) of an answer in the form of OpenAI's errors."""
    status, value = answer
    assert value.keys() == {"error"}
    assert value["error"].keys() == {"message", "type", "param", "code"}
    assert value["error"]["message"] and value["error"]["type"] in ("invalid_request_error", "server_error")
    return status, value["error"]["param"]


# ------------------------------------------------------------------------------------------- the script
@pytest.fixture
def child(folder, tmp_path, monkeypatch):
    """start(*flags) runs `infer.py serve` in a fork: (the Child, its port)."""
    monkeypatch.setenv("PARLOR_SERVE_KEY", KEY)
    children = []

    def start(*flags):
        argv = ["serve", "--model", str(folder), "--port", "0", "--device", "cpu", "--threads", "1", *flags]
        one = Child(tmp_path / f"said-{len(children)}.txt", infer.main, argv)
        children.append(one)
        end = time.monotonic() + 20
        wait_for(one.output)
        while not (found := re.search(r"127\.0\.0\.1:(\d+)/v1", one.said)):
            assert time.monotonic() < end, one.said
            time.sleep(0.005)
        return one, int(found[1])

    yield start
    for one in children:
        with suppress(ProcessLookupError, ChildProcessError):  # it has ended
            one.kill_after(0)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_and_the_replies_that_run(child, kind, monkeypatch):
    monkeypatch.setattr(serve, "END_SECONDS", 1)
    one, port = child("--context", "512")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    # greedy from a context without an end: it is still running when the signal comes
    body = {"messages": ASK, "stream": True, "temperature": 0, "max_tokens": 480, "stop": ["never said"]}
    headers = {"Authorization": f"Bearer {KEY}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    answer.read(100)
    os.kill(one.pid, kind)
    events = answer.read().decode()
    assert one.wait() == 0
    assert events.endswith("data: [DONE]\n\n")
    last = json.loads(events.split("\n\n")[-3].removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] in ("length", "stop")
    assert "Traceback" not in one.said
    assert len(re.findall("^127.0.0.1 POST /v1/chat/completions 200,", one.said, re.M)) == 1
    assert KEY not in one.said


def test_a_wrong_address_and_a_model_that_cannot_reply_are_refused(folder, tmp_path, capsys, tokenizer):
    argv = ["serve", "--device", "cpu", "--threads", "1", "--model", str(folder)]
    assert infer.main([*argv, "--port", "70000"]) == 2
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert infer.main([*argv, "--port", str(other.getsockname()[1])]) == 2
    assert "--port" in capsys.readouterr().err
    from families import with_head
    from model import Transformer

    classifier = Transformer(with_head(tiny_model(vocab_size=tokenizer.size).config, 3)).initialise(0)
    checkpoint.Checkpoint(classifier, tokenizer).save(tmp_path)
    assert infer.main(["serve", "--model", str(tmp_path), "--device", "cpu", "--port", "0"]) == 1
    assert "no language model" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- replies
SETTINGS = [dict(temperature=0), dict(), dict(temperature=1.3, top_p=0.9, top_k=50), dict(min_p=0.1)]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_reply_is_that_of_sample_with_the_same_seed(served, point, settings):
    n = 3 if settings.get("temperature", 1) else 1
    assert texts_of(served.ask(n=n, **settings)) == sampled(point, n=n, **settings)


def test_replies_do_not_depend_on_who_else_asks(served, point):
    """Sixteen clients at once, each with settings of its own, half of them in pieces."""
    found = {}

    def ask(i):
        settings = {"messages": CHATS[i % 4], "seed": i, "temperature": i % 3, "max_tokens": 4 + i}
        found[i] = joined(served.stream(**settings)) if i % 2 else texts_of(served.ask(**settings))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(16):
        assert found[i] == sampled(point, CHATS[i % 4], 1, i % 3, seed=i, max_new=4 + i)


def test_a_request_that_arrives_joins_the_running_batch(point):
    """The test takes the engine's steps itself."""
    end = Served(point)
    first, second = (
        serve.Request({"messages": chat, "temperature": 0}, True, end.server) for chat in CHATS[:2]
    )
    batch = end.engine.batch
    batch.waiting += first.choices
    for _ in range(3):
        batch.step()
    assert len(first.choices[0].reply.ids) == 3
    batch.waiting += second.choices
    batch.step()
    assert len(first.choices[0].reply.ids) == 4 and len(second.choices[0].reply.ids) == 1
    end.server.shutdown()
    end.server.server_close()


def test_parlors_own_teacher_reads_it(served, point):
    teacher = Teacher(served.url, "tiny", max_new=12, temperature=0.0, workers=4)
    groups = teacher.reply(CHATS)
    assert [group[0].text for group in groups] == [sampled(point, chat, temperature=0)[0] for chat in CHATS]
    prompts = sum(len(point.tokenizer.prompt(chat)) for chat in CHATS)
    assert teacher.tokens()[0] == prompts


def test_without_a_seed_replies_differ_and_the_flags_are_defaults(point):
    asked = {"messages": ASK}
    with Served(point, defaults={"temperature": 0.0, "max_new": 5}) as end:
        value = end.call("/v1/chat/completions", asked)[1]
        assert texts_of(value) == sampled(point, temperature=0, max_new=5)
        hot = {**asked, "temperature": 1.5, "max_tokens": 30}
        first, second = (texts_of(end.call("/v1/chat/completions", hot)[1]) for _ in range(2))
        assert first != second


def test_prompts_of_a_completion_are_texts_or_ids_alone_or_many(served, point):
    ids = list(point.tokenizer.encode("Is it alive?"))
    texts = []
    for prompt in ("Is it alive?", ids, ["Is it alive?"], [ids]):
        value = served.ask(prompt=prompt, temperature=0)
        assert value["usage"]["prompt_tokens"] == len(ids)
        texts += texts_of(value)
    assert len(texts) == 4 and len(set(texts)) == 1
    several = served.ask(prompt=["Is it alive?", "eagle"], n=2, temperature=0, echo=True)
    assert [text.startswith("Is it alive?") for text in texts_of(several)] == [True, True, False, False]
    assert texts_of(several)[0] == f"Is it alive?{texts[0]}"
    short = served.call("/v1/completions", {"prompt": "eagle", "seed": 1})[1]
    assert short["usage"]["completion_tokens"] <= 16


# ------------------------------------------------------------------------------------------- pieces
@pytest.mark.parametrize("seed", range(4))
def test_the_pieces_of_a_stream_make_the_whole_reply(served, seed):
    """The replies of a random model hold broken characters in plenty."""
    body = dict(seed=seed, n=2, max_tokens=40, stream_options={"include_usage": True})
    events = served.stream(**body)
    whole = served.ask(seed=seed, n=2, max_tokens=40)
    assert joined(events) == texts_of(whole)
    *chunks, last = events
    assert last["choices"] == [] and last["usage"] == whole["usage"]
    for index, choice in enumerate(whole["choices"]):
        mine = [one for chunk in chunks for one in chunk["choices"] if one["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        reasons = [one["finish_reason"] for one in mine]
        assert reasons == [None] * (len(mine) - 1) + [choice["finish_reason"]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in events}) == 1
    assert joined(served.stream(prompt="eagle", seed=seed)) == texts_of(served.ask(prompt="eagle", seed=seed))


def test_a_stop_string_ends_a_reply_wherever_tokens_begin_and_end(served):
    """Pieces of a reply of two and five characters; a stream never shows the beginning of one."""
    text = texts_of(served.ask(seed=5, max_tokens=40))[0]
    places = [(start, size) for start in range(0, len(text) - 5, 4) for size in (2, 5)]
    tried = 0
    for start, size in places[:8]:
        stop = text[start : start + size]
        if "\ufffd" in stop:  # half a character, which nobody can send
            continue
        expected = text.partition(stop)[0]
        value = served.ask(seed=5, max_tokens=40, stop=["not there", stop])
        assert texts_of(value) == [expected] and value["choices"][0]["finish_reason"] == "stop"
        assert joined(served.stream(seed=5, max_tokens=40, stop=stop)) == [expected]
        tried += 1
    assert tried > 3
    # a beginning that does not go on is shown in the end
    stop = text[-3:] + "#"
    assert joined(served.stream(seed=5, max_tokens=40, stop=stop)) == [text]


# ------------------------------------------------------------------------------------------- probabilities
def greedy_ids(point, prompt, n):
    ids = []
    for _ in range(n):
        with torch.no_grad():
            ids.append(int(point.model.logits(point.model(torch.tensor([prompt + ids])))[0, -1].argmax()))
    return ids


@pytest.mark.parametrize("streams", [False, True])
def test_log_probabilities_of_a_chat_are_the_models_own(served, point, streams):
    prompt = point.tokenizer.prompt(ASK)
    body = dict(temperature=0, max_tokens=5, logprobs=True, top_logprobs=3)
    content = []
    if streams:
        for event in served.stream(**body):
            content += (event["choices"][0].get("logprobs") or {"content": []})["content"]
    else:
        content = served.ask(**body)["choices"][0]["logprobs"]["content"]
    expected = teacher_forced(point.model, prompt, greedy_ids(point, prompt, len(content)))
    assert_close(torch.tensor([token["logprob"] for token in content]), expected, atol=1e-5, rtol=0)
    for token in content:
        best, *others = token["top_logprobs"]
        assert best["logprob"] == token["logprob"] and best["token"] == token["token"]
        assert len(others) == 2 and bytes(token["bytes"]).decode() == token["token"]
    assert served.ask(logprobs=False)["choices"][0]["logprobs"] is None
    plain = served.ask(logprobs=True)["choices"][0]["logprobs"]["content"]
    assert all(token["top_logprobs"] == [] for token in plain)


def test_an_echo_shows_the_probabilities_of_the_prompt(served, point):
    ids = list(point.tokenizer.encode("Is it alive? Can it fly?"))
    value = served.ask(prompt=ids, max_tokens=1, temperature=0, logprobs=1, echo=True)
    shown = value["choices"][0]["logprobs"]
    reply = greedy_ids(point, ids, 1)
    expected = teacher_forced(point.model, ids[:1], [*ids[1:], *reply])
    first, *others = shown["token_logprobs"]
    assert first is None
    assert_close(torch.tensor(others), expected, atol=1e-5, rtol=0)
    assert "".join(shown["tokens"][:-1]) == "Is it alive? Can it fly?"
    assert shown["text_offset"][1] == len(shown["tokens"][0])
    for text, logp, top in zip(shown["tokens"], shown["token_logprobs"], shown["top_logprobs"]):
        assert top[text] == logp and 1 <= len(top) <= 2
    assert max(shown["top_logprobs"][-1].values()) == others[-1]  # greedy
    alone = served.ask(prompt=ids, max_tokens=1, temperature=0, logprobs=1)["choices"][0]["logprobs"]
    assert_close(alone["token_logprobs"], others[-1:], atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------- refusals
REFUSED = [
    (dict(tools=[{"type": "function"}]), "tools"),
    (dict(response_format={"type": "json_object"}), "response_format"),
    (dict(logit_bias={"5": 1}), "logit_bias"),
    (dict(frequency_penalty=0.5), "frequency_penalty"),
    (dict(add_generation_prompt=False), "add_generation_prompt"),
    (dict(prompt_ids=[3]), "prompt_ids"),
    (dict(echo=True), "echo"),
    (dict(temperature="warm"), "temperature"),
    (dict(temperature=-1), "temperature"),
    (dict(temperature=True), "temperature"),
    (dict(temperature=float("nan")), "temperature"),
    (dict(top_p=1.5), "top_p"),
    (dict(n=0), "n"),
    (dict(n=10_000), "n"),
    (dict(seed=-1), "seed"),
    (dict(max_tokens=0), "max_tokens"),
    (dict(max_completion_tokens=10_000), "messages"),
    (dict(stop=["a", 5]), "stop"),
    (dict(stop=""), "stop"),
    (dict(stop=["x" * 600] * 2), "stop"),
    (dict(stream="yes"), "stream"),
    (dict(stream_options={"include_usage": True}), "stream_options"),
    (dict(top_logprobs=3), "top_logprobs"),
    (dict(logprobs=True, top_logprobs=99), "top_logprobs"),
    (dict(messages=[]), "messages"),
    (dict(messages=None), "messages"),
    (dict(messages="hello"), "messages"),
    (dict(messages=[3]), "messages"),
    (dict(messages=[{"role": "user"}]), "messages"),
    (dict(messages=[{"role": "tool", "content": "x"}]), "messages"),
    (dict(messages=[*ASK, {"role": "assistant", "content": "x"}]), "messages"),
    (dict(messages=[{"role": "user", "content": 5}]), "messages[0].content"),
    (dict(messages=[{**ASK[0], "tool_calls": [{"id": "x"}]}]), "messages[0].tool_calls"),
    (dict(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "messages"),
    (dict(messages=[{"role": "user", "content": "long " * 400}]), "messages"),
    (dict(prompt="x", suffix="y"), "suffix"),
    (dict(prompt="x", logprobs=True), "logprobs"),
    (dict(prompt="x", messages=ASK), "messages"),
    (dict(prompt=""), "prompt"),
    (dict(prompt=[]), "prompt"),
    (dict(prompt=[[]]), "prompt"),
    (dict(prompt=[-1]), "prompt"),
    (dict(prompt=[10**6]), "prompt"),
    (dict(prompt=["a", 5]), "prompt"),
    (dict(prompt=["a"] * 10, n=60), "n"),
    (dict(prompt={"a": 1}), "prompt"),
]


@pytest.mark.parametrize("body, param", REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_done_is_refused_by_name(served, body, param):
    assert refusal(served.call(*request_of(body))) == (400, param)


def test_what_changes_no_reply_is_accepted(served):
    more = dict(
        user="me", metadata={"a": "b"}, store=True, tools=None, logit_bias={}, frequency_penalty=0, stop=None,
        presence_penalty=0.0, response_format={"type": "text"}, model="tiny", n=None, service_tier="auto",
    )  # fmt: skip
    parts = [{"type": "text", "text": "Is it "}, {"type": "text", "text": "alive?"}]
    system = {"role": "developer", "content": "Play."}
    messages = [system, {"role": "user", "content": parts, "tool_calls": None}]
    plain = [{"role": "system", "content": "Play."}, {"role": "user", "content": "Is it alive?"}]
    assert texts_of(served.ask(messages=messages, **more)) == texts_of(served.ask(messages=plain))


@pytest.mark.parametrize(
    "path, body, method, status",
    [
        ("/v1/chat/completions", {"messages": ASK, "model": "other"}, "POST", 404),
        ("/v1/embeddings", {"input": "x"}, "POST", 404),
        ("/v1/chat/completions", None, "GET", 404),
        ("/", None, "GET", 404),
        ("/v1/models/other", None, "GET", 404),
        ("/v1/chat/completions", None, "POST", 400),
        ("/v1/chat/completions", "{", "POST", 400),
        ("/v1/chat/completions", b"\xff\xfe\xff", "POST", 400),
        ("/v1/chat/completions", "[" * 100_000, "POST", 400),
        ("/v1/chat/completions", "[]", "POST", 400),
        ("/v1/chat/completions", "null", "POST", 400),
        ("/v1/chat/completions", "9" * 5000, "POST", 400),
        ("/v1/chat/completions", b" " * (serve.LARGEST_BODY + 1), "POST", 413),
        ("/v1/chat/completions", None, "PUT", 501),
    ],
    ids=lambda value: str(value)[:30],
)
def test_other_calls_are_answered_with_an_error_and_nothing_else_happens(served, path, body, method, status):
    assert refusal(served.call(path, body, method))[0] == status
    assert served.call("/v1/models", method="GET")[0] == 200


def test_the_models_are_listed(served):
    status, value = served.call("/v1/models", method="GET")
    assert status == 200 and [model["id"] for model in value["data"]] == ["tiny"]
    assert served.call("/v1/models/tiny", method="GET") == (200, value["data"][0])


def test_a_key_is_asked_for_and_never_shown(point, capfd):
    with Served(point, key=KEY) as end:
        for wrong in ("", "x", KEY[:-1], KEY + "x", "\xe9"):
            assert refusal(end.call("/v1/models", method="GET", key=wrong))[0] == 401
            assert refusal(end.call("/v1/chat/completions", {"messages": ASK}, key=wrong))[0] == 401
        assert end.call("/v1/models", method="GET", key=KEY)[0] == 200
        teacher = Teacher(end.url, "tiny", KEY, max_new=4)
        assert teacher.reply([ASK])[0][0].text == sampled(point, temperature=0, max_new=4)[0]
        assert refusal(end.call(f"/v1/models?key={KEY}", method="GET"))[0] == 401
    said = "".join(capfd.readouterr())
    assert KEY not in said and said.count(" 401") == 11


# ------------------------------------------------------------------------------------------- bad company
def test_too_many_waiting_replies_are_told_to_come_again(point, monkeypatch):
    monkeypatch.setattr(serve, "QUEUE", 3)
    end = Served(point)  # its engine does not run yet
    with pytest.raises(serve.Refused) as refused:
        end.engine.submit([None] * 4)
    assert refused.value.status == 429
    waiting = threading.Thread(target=end.call, args=request_of({"n": 3}))
    waiting.start()
    while not end.engine.arrived:
        time.sleep(0.005)
    connection, answer = end.open(*request_of({}))
    assert answer.status == 429 and answer.headers["Retry-After"] == "1"
    connection.close()
    with end:
        waiting.join()
        assert end.call(*request_of({}))[0] == 200


def rows_in_use(served):
    return len(served.engine.batch.growing) + len(served.engine.batch.waiting) + len(served.engine.arrived)


@pytest.mark.parametrize("streams", [False, True])
def test_a_client_that_goes_away_frees_its_row(point, streams, monkeypatch):
    monkeypatch.setattr(serve, "POLL", 0.02)
    slow = threading.Event()
    with Served(point) as end:
        step = end.engine.batch.step
        monkeypatch.setattr(end.engine.batch, "step", lambda: slow.wait(0.01) or step())
        body = {"messages": ASK, "stream": streams, "max_tokens": 150, "temperature": 0}
        with socket.create_connection(("127.0.0.1", end.port)) as client:
            content = json.dumps(body).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(content)}\r\n\r\n"
            client.sendall(head.encode() + content)
            while not rows_in_use(end):
                time.sleep(0.002)
        began = time.monotonic()
        while rows_in_use(end):
            assert time.monotonic() < began + 0.8  # all its 150 tokens take longer
            time.sleep(0.005)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/chat/comp",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 90\r\n\r\n{",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",  # TLS
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"GET /" + b"x" * 100_000,
    ],
    ids=range(9),
)
def test_a_slow_or_broken_client_delays_nobody_and_is_cut_off(point, sent, monkeypatch, capfd):
    monkeypatch.setattr(serve.Handler, "timeout", 0.3)
    with Served(point) as end:
        with socket.create_connection(("127.0.0.1", end.port), timeout=10) as client:
            client.sendall(sent)
            assert texts_of(end.ask()) == sampled(point)
            received = b""
            try:
                while part := client.recv(4096):
                    received += part
            except ConnectionResetError:
                pass
        assert not received or refusal((0, json.loads(received.rpartition(b"\r\n\r\n")[2])))
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_client_that_reads_nothing_is_cut_off(point, monkeypatch, capfd):
    monkeypatch.setattr(serve.Handler, "timeout", 0.3)
    with Served(point) as end, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(("127.0.0.1", end.port))
        body = json.dumps(
            {"prompt": ["eagle"] * 40, "n": 4, "stream": True, "max_tokens": 150, "logprobs": 20}
        ).encode()
        client.sendall(
            f"POST /v1/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        assert texts_of(end.ask()) == sampled(point)
        limit = time.monotonic() + 15
        while end.server.running:
            assert time.monotonic() < limit
            time.sleep(0.01)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_connections_are_limited(point, monkeypatch):
    monkeypatch.setattr(serve, "CONNECTIONS", threading.active_count() + 4)
    with Served(point) as end:
        clients = [socket.create_connection(("127.0.0.1", end.port), timeout=10) for _ in range(8)]
        while not any(is_closed(client) for client in clients):
            time.sleep(0.01)
        for client in clients:
            client.close()
        end_of_wait = time.monotonic() + 5
        while threading.active_count() >= serve.CONNECTIONS:
            assert time.monotonic() < end_of_wait
            time.sleep(0.01)
        assert end.call("/v1/models", method="GET")[0] == 200


def is_closed(client):
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_many_requests_may_come_over_one_connection(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    for body, status in (({}, 200), ({"n": 0}, 400), ({}, 200)):
        path, content = request_of(body)
        connection.request("POST", path, json.dumps(content))
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status and not answer.will_close
    connection.close()
