"""Two ranks on a CPU train what one does, and stop together."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train
from games import GAMES
from tests.facts import KINDS, SMALL, Facts, rows_in
from tests.processes import Child

ROOT = Path(train.__file__).parent
SCRIPT = """
import sys
sys.path[:0] = {paths!r}
import ranks
import train
from games import GAMES
from tests.facts import Facts
GAMES["20q"] = Facts
for kind in {kinds!r}:
    Facts.loss = kind
    code = train.main(sys.argv[1:] + (["--name", kind] if "--resume" not in sys.argv else []))
    if code:
        ranks.leave(code)
ranks.leave(0)
"""


@pytest.fixture
def torchrun(tmp_path):
    """Start the script on two ranks: a Popen."""

    def start(flags, kinds=KINDS):
        paths = [str(ROOT), str(ROOT / "tests")]
        (tmp_path / "script.py").write_text(SCRIPT.format(paths=paths, kinds=list(kinds)))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command += [str(tmp_path / "script.py"), *flags]
        command += ["--runs", str(tmp_path / "two")] if "--resume" not in flags else []
        streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **streams)

    return start


class Forks:
    """Two ranks that are forks of this process, as torchrun would start them but without its seconds of
    imports. They train each kind in turn."""

    def __init__(self, flags, kinds, folder):
        self.flags, self.kinds = [*flags, "--runs", str(folder / "two")], kinds
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.children = [Child(folder / f"said-{rank}.txt", self.run, rank) for rank in range(2)]
        self.returncode = None

    def run(self, rank):
        numbers = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_PORT=self.port)
        os.environ |= {name: str(number) for name, number in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}
        GAMES["20q"] = Facts
        for kind in self.kinds:
            Facts.loss = kind
            if code := train.main([*self.flags, "--name", kind]):
                return code
        return 0

    def communicate(self, timeout):
        self.returncode = max(abs(child.kill_after(timeout)) for child in self.children)
        return ["\n".join(child.said for child in self.children)]


def weights(folder):
    return load_file(next((folder / "model").glob("*model*.safetensors")))


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "kinds, more, forks",
    [
        (["classify", "contrastive", "grpo"], [], True),
        pytest.param(["sft", "dpo", "kto", "simpo", "distil"], [], False, marks=slow),
        pytest.param(KINDS, ["--lora-rank", "2"], False, marks=slow),
        pytest.param(KINDS, ["--shard"], False, marks=slow),
        pytest.param(KINDS, ["--shard", "--lora-rank", "2"], False, marks=slow),
        pytest.param(KINDS, ["--shard", "--lora-rank", "2", "--quantize", "nf4"], False, marks=slow),
    ],
)
def test_two_ranks_train_what_one_does_for_every_loss(
    torchrun, facts, base, expert, world_file, tmp_path, kinds, more, forks
):
    flags = [*SMALL, "--world", str(world_file), "--model", str(base), "--steps", "4", "--micro-tokens", "60"]
    flags += ["--expert", str(expert)]
    flags += ["--eval-every", "2", *(flag for flag in more if flag != "--shard")]
    call = [*flags, *more], kinds
    two = Forks(*call, tmp_path) if forks else torchrun(*call)
    for kind in kinds:
        facts(kind)
        assert train.main([*flags, "--name", kind, "--runs", str(tmp_path / "one")]) == 0
    output = two.communicate(timeout=300)[0]
    assert two.returncode == 0, output
    for kind in kinds:
        one, other = (weights(tmp_path / name / kind) for name in ("one", "two"))
        assert one.keys() == other.keys()
        for key in one:
            assert torch.allclose(one[key], other[key], atol=2e-4), (kind, key)
        runs = [[row for row in rows_in(tmp_path / name / kind) if "loss" in row] for name in ("one", "two")]
        for name, digits in (("loss", 1e-4), ("grad", 1e-3)):
            expected, found = ([row[name] for row in run] for run in runs)
            assert found == pytest.approx(expected, rel=digits, abs=1e-6) and len(found) == 4


@pytest.mark.slow
def test_under_float16_a_rank_may_have_no_rows(torchrun, base, world_file, tmp_path):
    """Its loss scaler would not know the scale."""
    flags = [
        *SMALL,
        "--world",
        str(world_file),
        "--model",
        str(base),
        "--steps",
        "4",
        "--micro-tokens",
        "9999",
    ]
    two = torchrun([*flags, "--batch", "1", "--dtype", "float16"], ["sft"])
    output = two.communicate(timeout=120)[0]
    assert two.returncode == 0, output
    assert len(rows_in(tmp_path / "two" / "sft")) >= 4


@pytest.mark.slow
def test_a_sharded_run_resumes_with_its_optimizer(torchrun, base, world_file, tmp_path):
    flags = [*SMALL, "--world", str(world_file), "--model", str(base), "--shard", "--schedule", "constant"]
    for steps, more in (("4", flags), ("2", flags), ("4", ["--resume", str(tmp_path / "two" / "sft")])):
        two = torchrun([*more, "--steps", steps], ["sft"])
        output = two.communicate(timeout=120)[0]
        assert two.returncode == 0, output
        if steps == "4" and "--resume" not in more:
            (tmp_path / "two" / "sft").rename(tmp_path / "whole")
    whole, resumed = (rows_in(folder) for folder in (tmp_path / "whole", tmp_path / "two" / "sft"))
    assert [row["loss"] for row in resumed] == pytest.approx([row["loss"] for row in whole], rel=1e-6)
    assert len(resumed) == 4 and "resumed after step 2" in output


@pytest.mark.slow
def test_two_ranks_stop_together_save_and_go_on(torchrun, base, world_file, tmp_path):
    flags = [*SMALL, "--world", str(world_file), "--model", str(base), "--steps", "100000"]
    two, log = torchrun(flags, ["sft"]), tmp_path / "two" / "sft" / "metrics.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert two.poll() is None, two.communicate()[0]
        time.sleep(0.1)
    two.send_signal(signal.SIGTERM)
    two.communicate(timeout=120)
    saved = int(os.readlink(tmp_path / "two" / "sft" / "model").removeprefix("step-"))
    assert saved == len(log.read_text().splitlines()) > 3


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_run_with_its_message(torchrun, base, world_file, tmp_path):
    folder = tmp_path / "two" / "sft"
    folder.mkdir(parents=True)
    (folder / "eval.json").write_text("{}")  # the first rank may not overwrite a run that has ended
    two = torchrun([*SMALL, "--world", str(world_file), "--model", str(base), "--steps", "4"], ["sft"])
    output = two.communicate(timeout=120)[0]
    assert two.returncode and "exists: take another --name" in output
