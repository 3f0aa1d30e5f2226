"""Chat from the command line: training on rows of each loss, rewards of the user's, and the chat itself."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import infer
import train
from files import read_json
from games.chat.terminal import Dialogue, talk
from games.task import Reply

ROOT = Path(infer.__file__).parent
SMALL = "--dim 16 --layers 1 --heads 2 --mlp-dim 16 --device cpu --dtype float32 --threads 1".split()
SHORT = "--task chat --steps 2 --batch 2 --eval-n 4 --eval-few 4 --max-new 4 --problems 50 --tests 4".split()
ROWS = {
    "sft": lambda i: {"messages": chat(f"q {i}", f"a {i}")},
    "dpo": lambda i: {"chosen": chat(f"q {i}", "yes"), "rejected": chat(f"q {i}", "no")},
    "kto": lambda i: {"prompt": f"q {i}", "completion": f"a {i}", "label": i % 3 == 0},
    "text": lambda i: {"text": f"one two {i}"},
    "grpo": lambda i: {"prompt": f"q {i}", "letter": "abc"[i % 3]},
}


def chat(text, reply):
    return [{"role": "user", "content": text}, {"role": "assistant", "content": reply}]


def write(path, loss, n=60):
    path.write_text("".join(json.dumps(ROWS[loss](i)) + "\n" for i in range(n)))
    return str(path)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    assert train.main([*SHORT, *SMALL, "--runs", str(folder), "--name", "run"]) == 0
    return folder / "run"


@pytest.mark.parametrize("loss", ["sft", "text", "dpo", "kto"])
def test_rows_of_each_loss_are_trained_on_and_evaluated(run, tmp_path, loss, capsys):
    data = ["--data", write(tmp_path / "rows.jsonl", loss)]
    where = ["--init", str(run), "--runs", str(tmp_path), "--name", loss]
    assert train.main([*SHORT, *data, *where, *SMALL[-6:]]) == 0
    saved = read_json(tmp_path / loss / "run.json")["values"]
    assert saved["loss"] == ("sft" if loss == "text" else loss)
    for name in ("before", "eval"):
        metrics = read_json(tmp_path / loss / f"{name}.json")["metrics"]
        assert {"loss", "perplexity", "valid_loss"} <= metrics.keys()
        assert ("preferred" in metrics) == (loss == "dpo")
    shown = 0 if loss == "text" else read_json(tmp_path / loss / "eval.json")["n"]
    printed = capsys.readouterr().out
    assert (printed.count("  before: "), printed.count("   after: ")) == (shown, shown)


CODE = "def has(example, text):\n    return float(example['letter'] in text)\n"


def test_rewards_of_the_users_make_grpo_work_on_prompts(run, tmp_path, capsys):
    code = tmp_path / "own.py"
    code.write_text(CODE)
    data = ["--data", write(tmp_path / "rows.jsonl", "grpo")]
    rewards = ["--rewards", f"{code}:has:1"]
    where = ["--init", str(run), "--runs", str(tmp_path), "--name", "grpo"]
    assert train.main([*SHORT, *data, *rewards, *where, *SMALL[-6:], "--group", "4"]) == 0
    assert read_json(tmp_path / "grpo/run.json")["values"]["loss"] == "grpo"
    assert all("score/has" in row for row in lines_of(tmp_path / "grpo/metrics.jsonl"))
    assert "has" in read_json(tmp_path / "grpo/eval.json")["metrics"]
    capsys.readouterr()
    assert train.main(["--resume", str(tmp_path / "grpo"), "--steps", "3"]) == 2
    assert f"--task chat --rewards {code}:has:1" in capsys.readouterr().err


def test_a_bad_row_ends_the_call_before_anything_is_written(run, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    write(path, "sft")
    path.write_text(path.read_text() + json.dumps({"messages": [{"role": "tool", "content": "4"}]}) + "\n")
    call = [*SHORT, "--data", str(path), "--init", str(run), "--runs", str(tmp_path), "--name", "bad"]
    assert train.main(call) == 1 and not (tmp_path / "bad").exists()
    assert f"{path}, line 61, message 1" in capsys.readouterr().err
    assert train.main([*call, "--on-bad-row", "drop", *SMALL[-6:]]) == 0
    assert "1 with tools" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------- the chat
def test_a_pipe_gets_a_reply_a_line_and_the_chat_is_kept(run, tmp_path, monkeypatch):
    saved, out = tmp_path / "saved.jsonl", tmp_path / "out.jsonl"
    lines = ["one", "", "two", "/undo", "/system Be kind.", "three", "/again", f"/save {saved}", "/nonsense"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    assert infer.main(["play", "--run", str(run), "--max-new", "2", "--threads", "1", "--out", str(out)]) == 0
    (row,) = lines_of(out)
    texts = [message["content"] for message in row["messages"] if message["role"] != "assistant"]
    assert texts == ["Be kind.", "one", "three"] and lines_of(saved) == [row]
    assert [message["role"] for message in row["messages"]] == ["system", *["user", "assistant"] * 2]


class Slow:
    """Replies word by word; the words of `stops` are answered by an interrupt after the first."""

    def __init__(self, *replies, stops=()):
        self.replies = iter(replies)
        self.stops = stops
        self.seen = []
        self.forgotten = 0

    def reply(self, conversations, watch):
        self.seen.append(conversations[0])
        text = ""
        words = next(self.replies)
        for word in words.split(" "):
            text += word
            watch(0, text)
            if words in self.stops:
                raise KeyboardInterrupt
            text += " "
        return [[Reply(words)]]

    def forget(self):
        self.forgotten += 1


def dialogue_of(player, *lines):
    """What is printed and the rows of a dialogue in which a person says these lines."""
    printed = []
    dialogue = Dialogue(player, lambda line, dim=False, end="\n": printed.append(line + end))
    waiting = iter(lines)

    def read():
        line = next(waiting, None)
        if line is KeyboardInterrupt:
            raise line
        return line

    return "".join(printed), talk(dialogue, read), printed


def test_an_interrupt_ends_a_reply_and_not_the_chat():
    player = Slow("one two", "three four", stops=["one two"])
    _, ((row),), printed = dialogue_of(player, "a", "b")
    assert [message["content"] for message in row["messages"]] == ["a", "one", "b", "three four"]
    assert player.forgotten == 1 and "".join(printed) == "one\nthree four\n"


def test_an_interrupt_between_replies_ends_the_chat_only_when_it_is_repeated():
    _, ((row),), _ = dialogue_of(Slow("one"), KeyboardInterrupt, "a", KeyboardInterrupt)
    assert len(row["messages"]) == 2
    with pytest.raises(KeyboardInterrupt):
        dialogue_of(Slow(), KeyboardInterrupt, KeyboardInterrupt)


def test_a_reply_appears_as_it_grows_without_halves_of_characters_or_control_codes():
    shown = []

    class Halves(Slow):
        def reply(self, conversations, watch):
            for text in ("caf\ufffd", "caf\u00e9", "caf\u00e9\x1b[2J"):
                watch(0, text)
                shown.append("".join(printed))
            return [[Reply("caf\u00e9\x1b[2J!")]]

    printed = []
    dialogue = Dialogue(Halves(), lambda line, dim=False, end="\n": printed.append(line + end))
    dialogue.say("a")
    assert shown[:2] == ["caf", "caf\u00e9"] and "".join(printed) == "caf\u00e9\\x1b[2J!\n"


def test_undo_and_again_of_nothing_are_answered():
    _, rows, printed = dialogue_of(Slow(), "/undo", "/again", "/save", "/quit", "never said")
    assert rows is None and len(printed) == 3


@pytest.mark.slow
def test_a_chat_through_pipes_answers_each_line_before_the_next(run, tmp_path):
    """Another program talks through pipes: it waits for each reply, and interrupts one."""
    call = [sys.executable, "infer.py", "play", "--run", str(run), "--threads", "1", "--max-new", "3000"]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    with subprocess.Popen(
        [*call, "--temperature", "9"], env=os.environ | {"HF_HUB_OFFLINE": "1"}, **pipes
    ) as chat:
        chat.stdin.write(b"first\n")
        chat.stdin.flush()
        assert chat.stdout.readline() == b"> first\n"
        assert chat.stdout.read(1)  # the reply grows
        time.sleep(0.1)
        chat.send_signal(signal.SIGINT)
        rest, errors = chat.communicate(b"/undo\n", timeout=100)
        assert chat.returncode == 0, errors
        assert b"taken back: first" in rest
