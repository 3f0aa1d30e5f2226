"""A stub of an OpenAI-compatible endpoint."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Endpoint(ThreadingHTTPServer):
    """A stub of an OpenAI-compatible endpoint on loopback; `script` says how requests fare, then "ok": a
    word, a status, bytes (the body of the answer), or a function that is called with the Handler.
    Closing it waits for the requests it still serves, so that none talks into the next test."""

    daemon_threads = False

    def __init__(self, *script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.lock = list(script), [], threading.Lock()
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.002,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_):
        """A client that hangs up is part of the play."""

    def talk(self, messages):
        return f"re: {messages[-1]['content']}"

    def __exit__(self, *_):
        self.closing.set()
        self.shutdown()
        self.server_close()


class Waits(list):
    """Stands in for the Event of a Teacher (agents.Event): keeps how long it would have waited."""

    def __call__(self):
        return self

    def set(self):
        pass

    def wait(self, seconds):
        self.append(seconds)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        return self.do_POST()

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = json.loads(text or "null")
        with self.server.lock:
            self.server.seen.append((self.path, self.headers["Authorization"], body))
            how = self.server.script.pop(0) if self.server.script else "ok"
        if callable(how):
            return how(self)
        if how == "slow":
            threading.Event().wait(0.6)
        if how == "hang up":
            return self.connection.close()
        if isinstance(how, int):
            return self.answer(how, b'{"error": "not now"}', {"Retry-After": "0"})
        answer = {
            "choices": [
                {"message": {"content": self.server.talk(body["messages"])}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        }
        data = {
            "nonsense": b"<html>",
            "other": b'{"choices": []}',
            "null": b'{"choices":[{"message":{"content":null}}]}',
        }
        if not isinstance(how, bytes):
            how = data.get(how) or json.dumps(answer).encode()
        return self.answer(200, how)

    def answer(self, status, content, headers=None, reason=None):
        self.send_response(status, reason)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def drip(self, piece, start=b"", pause=0.05):
        """Send a start, and a piece again and again, until the client hangs up."""
        self.wfile.write(start)
        while not self.server.closing.wait(pause):
            self.wfile.write(piece)
