"""A stub of an OpenAI-compatible endpoint."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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
