"""Two ranks that play write what one does."""

import os
import socket

import pytest

import infer
import train
from ranks import leave
from tests.processes import Child

SMALL = (
    "--dim 32 --layers 1 --heads 2 --mlp-dim 32 --vocab 400 --eval-n 4 --eval-few 2 --batch 2 --cells 2 "
    "--explore 0 --noise 0 --no-greedy --tries 1 --answers 40 --steps 2 --threads 1 --device cpu"
).split()


@pytest.fixture(scope="module")
def run(world_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    flags = [*SMALL, "--max-new", "4", "--world", str(world_file), "--runs", str(folder), "--name", "base"]
    assert train.main(flags) == 0
    return ["--world", str(world_file), "--run", str(folder / "base"), "--threads", "1", "--device", "cpu"]


def on_two_ranks(argv, folder):
    """The exit codes of infer.py on two ranks, forks of this process, and what they say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def rank(number):
        numbers = dict(RANK=number, LOCAL_RANK=number, WORLD_SIZE=2, MASTER_PORT=port)
        os.environ |= {name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}
        try:
            leave(infer.main(argv))
        except SystemExit as end:  # of a rank that has not joined the others
            os._exit(end.code)

    children = [Child(folder / f"said-{number}.txt", rank, number) for number in range(2)]
    return [child.kill_after(60) for child in children], [child.said for child in children]


def test_two_ranks_reply_as_one_does_and_go_on_after_a_kill(run, tmp_path, monkeypatch):
    """A part is two rows, five rows in all. The second call finds journals of three ranks, with a row each
    and a torn line, and makes only what is missing."""
    monkeypatch.setattr(infer, "CHUNK", 4)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(f'{{"prompt": "say {word}"}}\n' for word in ("eagle", "oak", "spoon", "a", "b"))
    )
    flags = ["sample", *run, "--prompts", str(prompts), "--n", "2", "--temperature", "1", "--max-new", "5"]
    assert infer.main([*flags, "--out", str(tmp_path / "one")]) == 0
    one = (tmp_path / "one").read_bytes()
    codes, said = on_two_ranks([*flags, "--out", str(tmp_path / "two")], tmp_path)
    assert codes == [0, 0], said
    assert (tmp_path / "two").read_bytes() == one
    assert "0 rows done before" in said[0] and not said[1]

    lines = one.splitlines(keepends=True)
    for rank, row in ((0, 1), (1, 2), (2, 4)):
        (tmp_path / f"again.rank-{rank}").write_bytes(lines[row] + lines[3][:40])
    codes, said = on_two_ranks([*flags, "--out", str(tmp_path / "again")], tmp_path)
    assert codes == [0, 0], said
    assert (tmp_path / "again").read_bytes() == one
    assert "3 rows done before, 2 to do" in said[0]
    assert not list(tmp_path.glob("again.*"))


def test_what_cannot_be_shared_is_refused(run, tmp_path):
    codes, said = on_two_ranks(["play", *run], tmp_path)
    assert codes == [2, 2] and "torchrun" in said[0]
