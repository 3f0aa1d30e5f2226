"""The teacher behind an endpoint: order, retries, what is given up at once, what is counted; a judge."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import agents
from agents import Teacher
from games.reasoning.task import Options, Reasoning, written
from games.task import Reply

KEY = "sk-very-secret"


class Endpoint(ThreadingHTTPServer):
    """A stub of an OpenAI-compatible endpoint on loopback; `script` says how requests fare, then "ok".
    Closing it waits for the requests it still serves, so that none talks into the next test."""

    daemon_threads = False

    def __init__(self, *script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.lock = list(script), [], threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_):
        """A client that hangs up is part of the play."""

    def talk(self, messages):
        return f"re: {messages[-1]['content']}"

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, self.headers["Authorization"], body))
            how = self.server.script.pop(0) if self.server.script else "ok"
        if how == "slow":
            threading.Event().wait(0.6)
        if how == "hang up":
            return self.connection.close()
        if isinstance(how, int):
            self.send_response(how)
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(b'{"error": "not now"}')
            return None
        data = {
            "nonsense": b"<html>",
            "other": b'{"choices": []}',
            "null": b'{"choices":[{"message":{"content":null}}]}',
        }
        answer = {
            "choices": [
                {"message": {"content": self.server.talk(body["messages"])}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data.get(how) or json.dumps(answer).encode())
        return None


def asked(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    waits = []
    monkeypatch.setattr(agents.time, "sleep", waits.append)
    return waits


def test_replies_come_in_order_and_are_counted():
    with Endpoint() as end:
        teacher = Teacher(end.url, "big", KEY, max_new=7, temperature=0.5, workers=4)
        groups = teacher.reply(asked(*"abcdefgh"), n=2)
    assert [[reply.text for reply in group] for group in groups] == [[f"re: {x}"] * 2 for x in "abcdefgh"]
    assert teacher.tokens == {"prompt_tokens": 48, "completion_tokens": 32}
    path, key, body = end.seen[0]
    assert path == "/v1/chat/completions" and key == f"Bearer {KEY}"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("big", 7, 0.5)


@pytest.mark.parametrize("how", [429, 500, 503, "nonsense", "other", "null", "hang up", "slow"])
def test_what_fails_for_a_while_is_tried_again(how, no_waiting):
    with Endpoint(how, how) as end:
        ((reply,),) = Teacher(end.url, "big", timeout=0.3).reply(asked("a"))
    assert reply.text == "re: a" and reply.finished and len(end.seen) == 3
    assert no_waiting == (
        [0.0, 0.0] if isinstance(how, int) else [1.0, 2.0]
    )  # as the endpoint asks, or doubling


@pytest.mark.parametrize("how, tries", [(401, 1), (404, 1), (503, 3)])
def test_what_cannot_work_says_so_without_the_key(how, tries):
    with Endpoint(*[how] * 9) as end:
        with pytest.raises(
            ConnectionError, match=f"{end.url}/chat/completions: no reply .*{how}.*not now"
        ) as error:
            Teacher(end.url, "big", KEY, tries=3).reply(asked("a"))
    assert len(end.seen) == tries and KEY not in str(error.value)


def test_nobody_there(no_waiting):
    with pytest.raises(ConnectionError, match="no reply"):
        Teacher("http://127.0.0.1:9/v1", "big", tries=2).reply(asked("a"))
    assert no_waiting == [1.0]


# ------------------------------------------------------------------------------------------------ judging
class Says:
    def __init__(self, *texts):
        self.texts = list(texts)

    def reply(self, conversations, n=1):
        self.seen = conversations
        return [[Reply(self.texts[i % len(self.texts)], [1])] for i in range(len(conversations))]


def test_grades_of_a_judge():
    """Numbers from 0 to 10 count; the judge sees question and reply, not the truth."""
    task = Reasoning(Options(tests=4))
    task.grader = Says("8", "Grade: 6.5", "eleven", "12")
    rows = [{"question": f"q{i}", "answer": "the truth", "kind": "open"} for i in range(4)]
    metrics = task.evaluate(rows, Says(written("thoughts", "an answer")))["metrics"]
    assert metrics["grade"] == 7.25 and metrics["graded"] == 0.5
    told = task.grader.seen[0][-1]["content"]
    assert "q0" in told and "thoughts" in told and "the truth" not in told
