"""Throughput of infer.py serve against the sampler alone: python bench/serve.py --model DIR

In one process: 16 prompts by sampler.generate, then the same 16 as requests of 16 client threads on loopback,
whole and streamed, in turn. Replies are greedy and have --new tokens each, since no stop id is given. Prints
the tokens of replies a second of each side (medians), and its ratio to the sampler in each round, by the wall
clock and by the processor time of the process, clients included."""

import argparse
import http.client
import json
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import checkpoint  # noqa: E402
import sampler  # noqa: E402
import serve  # noqa: E402
from cache import Session  # noqa: E402
from fused import fuse  # noqa: E402


def request(port, ids, new, streams):
    """Ask for one reply and read it to its end. Returns its tokens."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = {"prompt": ids, "max_tokens": new, "temperature": 0, "stream": streams}
    if streams:
        body["stream_options"] = {"include_usage": True}
    connection.request("POST", "/v1/completions", json.dumps(body))
    text = connection.getresponse().read().decode()
    if streams:
        text = text.split("\n\n")[-3].removeprefix("data: ")
    connection.close()
    return json.loads(text)["usage"]["completion_tokens"]


def together(port, prompts, new, streams):
    """Ask for replies to all prompts at once, each in a thread of its own. Returns their tokens."""
    counts = []
    clients = []
    for ids in prompts:
        ask = lambda ids=ids: counts.append(request(port, ids, new, streams))
        clients.append(threading.Thread(target=ask))
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="a local folder of a chat model")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--new", type=int, default=128, help="tokens of a reply")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    point = checkpoint.open(args.model, dtype=torch.float32)
    fuse(point.model)
    engine = serve.Engine(point.model, 1024, [])  # no stop id: all replies have the same length
    server = serve.Server(("127.0.0.1", 0), engine, point, "model")
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=engine.run, daemon=True).start()
    sys.stdout, terminal = open("/dev/null", "w"), sys.stdout  # the server's line for each request

    rng = np.random.default_rng(0)
    sides = ["sampler", "serve", "serve, streamed"]
    seconds = {side: [] for side in sides}
    cpu = {side: [] for side in sides}
    for turn in range(args.rounds + 1):
        new = args.new if turn else 4  # the first round warms up
        prompts = [rng.integers(300, 40000, size=32).tolist() for _ in range(args.clients)]
        for side in sides:
            clock = time.perf_counter()
            used = time.process_time()
            if side == "sampler":
                replies = sampler.generate(point.model, prompts, new, [], 0.0, session=Session(point.model))
                tokens = sum(len(reply.ids) for reply in replies)
            else:
                tokens = sum(together(port, prompts, new, side != "serve"))
            assert tokens == args.clients * new
            if turn:
                seconds[side].append(time.perf_counter() - clock)
                cpu[side].append(time.process_time() - used)
                spent = f"{seconds[side][-1]:.1f} s, {cpu[side][-1]:.1f} s of processor time"
                print(f"round {turn}, {side}: {spent}", file=sys.stderr, flush=True)

    for side in sides:
        speed = args.clients * args.new / statistics.median(seconds[side])
        line = f"{side}: {speed:.0f} tokens/s; ratio {ratios(seconds, side)}; CPU {ratios(cpu, side)}"
        print(line, file=terminal)


def ratios(times, side):
    """How many times as fast as the sampler a side was in each round."""
    return ", ".join(f"{alone / spent:.2f}" for alone, spent in zip(times["sampler"], times[side]))


if __name__ == "__main__":
    main()
