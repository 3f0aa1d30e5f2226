"""The training loop on a world of eight things: what it writes, that resuming and cutting the work change
nothing, and how it fails."""

import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import checkpoint
import data
import lora
import reports
import runs
import train
from files import read_json
from games.task import Chat
from games.twentyq import match
from games.twentyq.recipes import RECIPES
from games.twentyq.task import TwentyQuestions
from objectives import OBJECTIVES, sft_loss
from recipes import Train, parse
from steps import draw, items_of

SMALL = (
    "--dim 32 --layers 1 --heads 2 --mlp-dim 32 --vocab 400 --eval-n 4 --eval-few 2 --batch 2 "
    "--cells 2 --explore 0 --noise 0 --no-greedy --tries 1 --answers 40 --max-new 4 --threads 1 "
    "--dtype float32 --device cpu"
).split()
LINE = re.compile(
    r"step \d+/\d+ \| loss \d+\.\d{4} \| lr \d\.\de[+-]\d\d \| grad \d+\.\d\d \| tok/s [\d,]+"
    r" \| eta (\d+s|\d+m|\d+h\d\dm)"
)


class Stopped(Exception):
    """Stands for a crash: train.main() does not catch it."""


@pytest.fixture(autouse=True, scope="module")
def short_games():
    """Evaluations here are about the loop around them: games end after 3 rounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match, "ROUNDS", 3)
        yield


@pytest.fixture
def flags(world_file, tmp_path):
    """Flags of a small training under tmp_path/runs."""
    return [*SMALL, "--world", str(world_file), "--runs", str(tmp_path / "runs")]


@pytest.fixture(scope="module")
def done(world_file, tmp_path_factory):
    """The folder of a finished run of 4 steps."""
    folder = tmp_path_factory.mktemp("done")
    argv = [*SMALL, "--world", str(world_file), "--runs", str(folder), "--name", "base", "--steps", "4"]
    assert train.main(argv) == 0
    return folder / "base"


def folder_of(flags, name):
    return Path(flags[flags.index("--runs") + 1]) / name


def train_as(flags, name, *more):
    """Train under a name, and give the run's folder."""
    assert train.main([*flags, "--name", name, *more]) == 0
    return folder_of(flags, name)


def weights(folder):
    return {
        f"{path.name}:{key}": tensor
        for path in sorted((Path(folder) / "model").glob("*.safetensors"))
        for key, tensor in load_file(path).items()
    }


def newest(folder):
    """(weights, optimizer tensors, state) of the newest checkpoint."""
    state = Path(folder) / "model" / "state"
    return weights(folder), load_file(state / "optimizer.safetensors"), read_json(state / "state.json")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def rows(folder, name="metrics"):
    return [json.loads(line) for line in (Path(folder) / f"{name}.jsonl").read_text().splitlines()]


def crash_after(monkeypatch, step):
    """Until the patch is undone, training crashes right after the checkpoint of a step."""
    save = runs.Run.save

    def crashing(self, done, *rest, **kept):
        save(self, done, *rest, **kept)
        if done == step:
            raise Stopped

    monkeypatch.setattr(runs.Run, "save", crashing)


# ------------------------------------------------------------------------------------------- what it writes
def test_a_run_leaves_its_files_a_line_a_step_and_what_it_was_trained_with(done):
    names = {path.name for path in done.iterdir()}
    assert {"run.json", "log.txt", "metrics.jsonl", "samples.jsonl", "eval.json", "before.json"} <= names
    assert {"model", "step-4"} <= names and not any(name.endswith(".partial") for name in names)
    assert os.readlink(done.parent / "latest") == "base"
    lines = [line for line in (done / "log.txt").read_text().splitlines() if re.match(r"step \d+/", line)]
    assert [line.split()[1] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    for row in rows(done):
        assert set(row) == {"step", "loss", "lr", "grad", "tok/s", "tokens", "learned", "dropped"}
        assert row["learned"] > 0 and row["tokens"] > 0 and math.isfinite(row["loss"])
    record = read_json(done / "run.json")
    assert (record["values"]["steps"], record["values"]["cells"]) == (4, 2)
    assert record["values"]["lr"] == RECIPES["20q"]["lr"]
    assert record["argv"][:2] == ["--dim", "32"] and record["versions"]["torch"] == torch.__version__


def test_a_run_can_start_another(flags, done):
    folder = train_as(flags, "next", "--init", str(done), "--steps", "1", "--lr", "0")
    assert equal(weights(folder), weights(done))
    assert read_json(folder / "run.json")["values"]["recipe"] == "20q-model"


def test_a_dry_run_writes_nothing(flags, tmp_path, capsys):
    assert train.main([*flags, "--dry-run", "--steps", "3"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"steps: 3 of 2 .*0\.75 epochs", shown) and "Is it alive?" in shown
    assert not any(tmp_path.iterdir())


def test_the_example_shown_before_training_is_the_first_one_learned(flags, monkeypatch, capsys):
    seen = []
    items = TwentyQuestions.items
    monkeypatch.setattr(TwentyQuestions, "items", lambda *args: seen.append(items(*args)) or seen[-1])
    assert train.main([*flags, "--dry-run", "--steps", "3", "--flips", "0.9", "--seed", "3"]) == 0
    assert seen[-1] in seen[:2]  # the first two are the batch of step 1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(flags):
    one, two = (train_as(flags, name, "--steps", "2") for name in "ab")
    assert equal(weights(one), weights(two))
    assert not equal(weights(one), weights(train_as(flags, "c", "--steps", "2", "--seed", "1")))


# ------------------------------------------------------------------------------------------- resuming
KINDS = {
    "full": ["--optimizer", "adamw"],
    "lora": ["--lora-rank", "2", "--lora-dropout", "0.2", "--max-tokens", "512", "--checkpointing"],
    "half": ["--dtype", "float16", "--seed", "3"],  # no overflow, so its scaler counts on
}


@pytest.mark.parametrize("kind", KINDS)
def test_three_steps_and_three_resumed_are_six(flags, done, monkeypatch, kind):
    more = [*KINDS[kind], "--steps", "6", "--save-every", "3"]
    more += ["--model", str(done)] if kind == "lora" else []
    whole = train_as(flags, "whole", *more)
    with monkeypatch.context() as patched:
        crash_after(patched, 3)
        with pytest.raises(Stopped):
            train.main([*flags, "--name", "halves", *more])
    halves = folder_of(flags, "halves")
    assert not equal(weights(halves), weights(whole)) and newest(halves)[2]["step"] == 3
    assert train.main(["--resume", str(halves)]) == 0
    a, b = newest(whole), newest(halves)
    assert a[0] and a[1] and equal(a[0], b[0]) and equal(a[1], b[1]) and a[2] == b[2]
    losses = [[row["loss"] for row in rows(folder)] for folder in (whole, halves)]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    assert read_json(whole / "eval.json") == read_json(halves / "eval.json")


def test_the_best_checkpoint_is_kept_beside_the_newest_and_its_score_when_resuming(flags, monkeypatch):
    more = ["--steps", "4", "--eval-every", "1", "--save-every", "1"]
    with monkeypatch.context() as patched:
        crash_after(patched, 2)
        with pytest.raises(Stopped):
            train.main([*flags, "--name", "a", *more])
    folder = folder_of(flags, "a")
    best = newest(folder)[2]["best"]
    assert best is not None and train.main(["--resume", str(folder)]) == 0
    assert newest(folder)[2]["best"] >= best
    assert os.readlink(folder / "model") == "step-4" and (folder / "best" / "config.json").exists()
    assert {path.name for path in folder.glob("step-*")} == {"step-4", os.readlink(folder / "best")}
    assert [row["step"] for row in rows(folder) if "eval" in row] == [1, 2, 3]


def test_a_finished_run_can_be_trained_longer_by_the_link_latest_and_with_a_flag_repeated(flags):
    more = ["--schedule", "constant", "--optimizer", "adamw", "--steps"]
    folder, whole = train_as(flags, "b", *more, "2"), train_as(flags, "a", *more, "4")
    runs.link(folder.parent / "latest", folder.name)
    latest = str(folder.parent / "latest")
    assert train.main(["--resume", latest, "--steps", "4", "--batch", "2"]) == 0
    assert equal(weights(folder), weights(whole))
    assert os.readlink(latest) == "b" and os.readlink(folder / "model") == "step-4"


def test_more_epochs_make_a_run_longer(flags, done):
    more = "--recipe 20q-seed-2 --train-only= --steps 0 --epochs 1 --init".split()
    folder = train_as(flags, "a", *more, str(done))  # 8 examples by 2
    assert newest(folder)[2]["step"] == 4
    assert train.main(["--resume", str(folder), "--epochs", "2"]) == 0
    assert newest(folder)[2]["step"] == 8


def test_what_cannot_be_resumed_is_named(done, tmp_path, capsys):
    damaged, empty = tmp_path / "damaged", tmp_path / "empty"
    shutil.copytree(done, damaged, symlinks=True)
    path = damaged / "model" / "state" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    empty.mkdir()
    shutil.copy(done / "run.json", empty)
    folders = (tmp_path / "nothing", "nothing"), (empty, "no checkpoint"), (damaged, "optimizer.safetensors")
    for folder, said in folders:
        assert train.main(["--resume", str(folder), "--steps", "5"]) == 1
        assert said in capsys.readouterr().err


def test_an_adapter_on_the_latest_run_still_names_its_base_after_two_saves(flags, done, tmp_path):
    base = train_as(flags, "a", "--steps", "1")
    latest = str(base.parent / "latest")
    folder = train_as(flags, "b", "--model", latest, "--lora-rank", "2", "--steps", "2", "--save-every", "1")
    point = checkpoint.open(str(folder))
    assert Path(point.base[0]).resolve() == (base / "model").resolve() and lora.adapters(point.model)


def test_resuming_under_other_settings_is_refused_naming_them(done, capsys):
    before = (done / "log.txt").read_text()
    assert train.main(["--resume", str(done), "--lr", "0.5", "--batch", "7", "--cells", "1"]) == 2
    said = capsys.readouterr().err
    assert "lr was 0.02, now 0.5" in said and "batch was 2, now 7" in said and "cells was 2, now 1" in said
    assert (done / "log.txt").read_text() == before


# ------------------------------------------------------------------------------------------- cutting the work


# ------------------------------------------------------------------------------------------- learning


def test_train_only_leaves_all_other_weights_as_they_were(flags, done):
    pattern = r"layers\.0\.attn\.|^norm"
    more = ["--init", str(done), "--steps", "3", "--lr", "0.01", "--weight-decay", "0.1"]
    folder = train_as(flags, "a", *more, "--train-only", pattern)
    before, after = (checkpoint.open(run).model.state_dict() for run in (done, folder))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if re.search(pattern, key)} and len(changed) == 7


def test_an_adapter_leaves_its_base_as_it_was(flags, done):
    before = weights(done)
    folder = train_as(flags, "a", "--model", str(done), "--lora-rank", "2", "--steps", "2", "--lr", "0.01")
    assert equal(before, weights(done))
    assert {path.name for path in (folder / "model").glob("*.safetensors")} == {"adapter_model.safetensors"}
    model = checkpoint.open(str(folder)).model
    assert any(layer.lora_B.abs().sum() > 0 for _, layer in lora.adapters(model))


def test_every_epoch_and_every_example_is_augmented_afresh(flags):
    cfg = parse(Train, [*flags, "--flips", "0.9", "--cells", "6"])
    task = TwentyQuestions(cfg.options)
    chosen = [(index, epoch) for index in range(4) for epoch in range(4)]
    made, again = (items_of(task, draw([{"keyword": "oak"}] * 4, cfg, chosen), Chat) for _ in range(2))
    assert len({str(items) for items in made}) > 10 and again == made


def test_learn_all_reaches_the_loop(flags):
    row = rows(train_as(flags, "a", "--steps", "1", "--learn-all"))[0]
    assert row["learned"] > 2 * rows(train_as(flags, "b", "--steps", "1"))[0]["learned"]


def test_the_gradient_is_clipped_to_its_norm(flags):
    more = ["--steps", "1", "--optimizer", "adamw"]
    norms = []
    for name, clip in (("a", "0.01"), ("b", "0")):
        state = newest(train_as(flags, name, *more, "--clip", clip))[1]
        squares = sum(float(t.sum()) for key, t in state.items() if key.endswith("exp_avg_sq"))
        norms.append(math.sqrt(squares / (1 - 0.95)))
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert norms[1] == pytest.approx(rows(folder_of(flags, "b"))[0]["grad"], rel=1e-3) and norms[1] > 1


def test_the_rates_of_the_schedule_reach_the_log(flags):
    folder = train_as(flags, "a", "--steps", "4", "--schedule", "linear", "--warmup", "0.5", "--lr", "0.004")
    assert [row["lr"] for row in rows(folder)] == pytest.approx([0.002, 0.004, 0.004, 0.002])


# ------------------------------------------------------------------------------------------- wrong calls
def test_data_of_which_almost_nothing_is_left_ends_with_1_and_the_reasons(flags, tmp_path, capsys):
    """A filter once left 1,786 of 180,000 rows, and training went on with them."""
    path = tmp_path / "games.jsonl"
    more = ["--data", str(path), "--steps", "1", "--name", "a"]
    path.write_text("")
    assert train.main([*flags, *more]) == 1 and f"{path}: holds no rows" in capsys.readouterr().err
    answers = ["no", "no", *["maybe"] * 36]
    games = [
        {"keyword": f"thing {i}", "rounds": [["Is it alive?", answer]]} for i, answer in enumerate(answers)
    ]
    path.write_text("".join(json.dumps(game) + "\n" for game in games))
    assert train.main([*flags, *more]) == 1
    said = capsys.readouterr().err
    assert "only 1 of 37 examples are left" in said and "36 an answer other than" in said and "--keep" in said
    assert train.main([*flags, *more, "--keep", "0"]) == 0
    assert train.main([*flags, "--steps", "1", "--name", "b", "--max-tokens", "6"]) == 1
    said = capsys.readouterr().err
    assert "samples are left" in said and "longer than --max-tokens 6" in said


@pytest.mark.parametrize(
    "more, code, said",
    [
        (["--stepz", "3"], 2, "did you mean --steps"),
        (["--recipe", "20q-sed-1"], 2, "20q-seed-1"),
        (["--loss", "dpo"], 2, "--loss dpo"),
        (["--optimizer", "sgd"], 2, "--optimizer sgd"),
        (["--dtype", "half"], 2, "--dtype half"),
        (["--world", "nowhere.txt"], 1, "nowhere.txt"),
        (["--model", "./nowhere"], 1, "nowhere"),
        (["--max-tokens", "5"], 1, "--max-tokens 5"),
        (["--steps", "1", "--runs", f"{__file__}/runs"], 1, f"{__file__}"),  # a folder that cannot be made
        (["--schedule", "cosin", "--steps", "1"], None, "--schedule cosin"),
        (["--device", "gpu"], None, "gpu"),
        (["--batch", "0"], None, "--batch"),
        (["--train-only", "("], None, "--train-only"),
        (["--train-only", "nothing"], 2, "--train-only nothing"),
        (["--lora-rank", "2"], None, "--model"),
    ],
)
def test_a_wrong_call_ends_with_its_code_and_a_line_before_anything_is_written(
    flags, tmp_path, capsys, more, code, said
):
    result = train.main([*flags, *more])
    error = capsys.readouterr().err
    assert result == code or (code is None and result in (1, 2))
    assert said in error and "Traceback" not in error and not (tmp_path / "runs").exists()


def test_before_training_the_samples_are_counted(flags, tmp_path, capsys):
    assert train.main([*flags, "--dry-run", "--max-tokens", "40"]) == 0
    said = capsys.readouterr().out
    found = re.search(
        r"samples: (\d+) kept; dropped: (\d+) too long \(of all 8 examples\).* (\d+) at most", said
    )
    kept, dropped, longest = map(int, found.groups())
    cfg = parse(Train, flags)
    task = TwentyQuestions(cfg.options)
    items = items_of(task, draw(task.examples("train"), cfg, [(i, 0) for i in range(8)]), Chat)
    tokenizer = data.train_tokenizer(task.texts(), 400)
    sizes = [len(tokenizer.render(item.messages, item.learn)[0]) for some in items for item in some]
    assert kept == sum(size <= 40 for size in sizes) and dropped == sum(size > 40 for size in sizes) > 0
    assert longest <= 40


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_weights(flags, monkeypatch, capsys):
    def broken(learner, *rest, calls=[0]):  # noqa: B006
        calls[0] += 1
        return [sft_loss(learner, *rest)[0] * (math.nan if calls[0] == 5 else 1)]

    monkeypatch.setattr(OBJECTIVES["sft"], "loss", broken)  # after the memory line and the validation loss
    more = ["--steps", "6", "--name", "a", "--save-every", "2", "--micro-tokens", "8192"]
    assert train.main([*flags, *more]) == 1
    said = capsys.readouterr().err
    assert "step 3: loss nan" in said and "first in embed.weight, on the examples [" in said
    folder = folder_of(flags, "a")
    assert newest(folder)[2]["step"] == 2
    assert all(torch.isfinite(weight).all() for weight in weights(folder).values())
    monkeypatch.undo()
    assert train.main(["--resume", str(folder)]) == 0
    assert equal(weights(folder), weights(train_as(flags, "b", "--steps", "6", "--micro-tokens", "8192")))


def test_float16_skips_a_step_that_overflows_lowers_its_scale_and_goes_on(flags, monkeypatch):
    def huge(learner, *rest, calls=[0]):  # noqa: B006
        calls[0] += 1
        return [sft_loss(learner, *rest)[0] * (1e5 if calls[0] == 4 else 1)]

    monkeypatch.setattr(OBJECTIVES["sft"], "loss", huge)  # after the memory line and the validation loss
    folder = train_as(flags, "a", "--steps", "5", "--dtype", "float16", "--micro-tokens", "8192")
    skipped = [row["skipped"] for row in rows(folder)]
    assert skipped[1] and not all(skipped[2:])
    scaler = newest(folder)[2]["scaler"]
    assert scaler["scale"] == 2.0 ** (16 - sum(skipped))
    assert all(torch.isfinite(weight).all() for weight in weights(folder).values())


# ------------------------------------------------------------------------------------------- memory, time
def test_activations_are_what_the_backward_pass_needs_without_the_weights():
    x, weight = torch.randn(5, 10), torch.nn.Parameter(torch.randn(10, 20))
    assert reports.activations(lambda: (x @ weight).relu()) == 4 * (5 * 10 + 5 * 20)
    assert reports.activations(lambda: x @ weight.T.T) == 4 * 5 * 10


def test_the_memory_line_counts_less_with_an_adapter_and_with_checkpointing(flags, done, capsys):
    found = []
    for more in ([], ["--checkpointing"], ["--lora-rank", "2"]):
        call = [*flags, "--model", str(done), "--steps", "1", "--batch", "16", "--dry-run"]
        assert train.main([*call, *more]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("memory: about"))
        found.append(float(re.search(r"activations ([\d,]+)", line)[1].replace(",", "")))
    assert found[0] > found[1] and found[0] > 0


def test_out_of_memory_names_what_takes_less(flags, monkeypatch, capsys):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(OBJECTIVES["sft"], "loss", full)
    assert train.main([*flags, "--steps", "1", "--name", "a"]) == 1
    said = capsys.readouterr().err
    assert "Tried to allocate" in said and "--micro-tokens" in said and "--checkpointing" in said


@pytest.mark.parametrize("more", [[], ["--micro-tokens", "64"]], ids=["whole", "cut"])
def test_computing_activations_twice_changes_no_bit(flags, more):
    plain = train_as(flags, "a", "--steps", "2", *more)
    twice = train_as(flags, "b", "--steps", "2", *more, "--checkpointing")
    assert equal(newest(plain)[0], newest(twice)[0]) and equal(newest(plain)[1], newest(twice)[1])


def test_training_ends_in_time_with_the_learning_rate_at_its_end(flags):
    folder = train_as(flags, "a", "--steps", "100000", "--max-minutes", "0.02", "--warmup", "0")
    found, state = rows(folder), newest(folder)[2]
    assert state["step"] == len(found) < 100000 and state["seconds"] >= 1.2
    peak = RECIPES["20q"]["lr"]
    assert found[0]["lr"] == pytest.approx(peak, rel=0.05)  # the clock starts before the first step
    assert found[-1]["lr"] < 0.3 * peak
    assert (folder / "eval.json").exists()
    assert train.main(["--resume", str(folder)]) == 0 and len(rows(folder)) == len(found)


def test_training_ends_when_evaluations_get_no_better(flags, monkeypatch):
    scores = iter([0.0, 0.1, 0.3, 0.2, 0.3, 0.1, 0.0])  # before, five during, after

    def evaluated(*arguments):
        return dict(n=2, metrics={"win_rate": next(scores)}, intervals={}, baselines={}, records=[])

    monkeypatch.setattr(train, "evaluate", evaluated)
    folder = train_as(flags, "a", "--steps", "20", "--eval-every", "1", "--patience", "3")
    assert len([row for row in rows(folder) if "loss" in row]) == 5
    assert os.readlink(folder / "best") == "step-2" and newest(folder)[2]["step"] == 5


# ------------------------------------------------------------------------------------------- interruption
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_saves_and_goes_on_to_the_same_weights(flags, monkeypatch, capsys, number):
    record = runs.Run.record

    def interrupted(self, name, row):
        record(self, name, row)
        if row.get("step") == 3:
            signal.raise_signal(number)

    with monkeypatch.context() as patched:
        patched.setattr(runs.Run, "record", interrupted)
        assert train.main([*flags, "--name", "a", "--steps", "6"]) == 130
    folder = folder_of(flags, "a")
    assert f"--resume {folder}" in capsys.readouterr().out and newest(folder)[2]["step"] == 3
    assert train.main(["--resume", str(folder)]) == 0
    assert equal(weights(folder), weights(train_as(flags, "b", "--steps", "6")))


def test_a_second_interrupt_stops_at_once(capsys):
    stop = train.Interrupt()
    signal.raise_signal(signal.SIGINT)
    assert stop.asked
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_comes_after_the_decision_to_save_is_saved_too(flags, monkeypatch):
    """asked turns true between the two times the loop looks at it."""

    class Late(train.Interrupt):
        looks = 0

        @property
        def asked(self):
            self.looks += 1
            return self.looks > 1

        @asked.setter
        def asked(self, value):
            pass

    monkeypatch.setattr(train, "Interrupt", Late)
    assert train.main([*flags, "--name", "a", "--steps", "6"]) == 130
    assert newest(folder_of(flags, "a"))[2]["step"] in (1, 2)


def reported(folder):
    """The last step in metrics.jsonl, whole lines only."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return max((json.loads(line)["step"] for line in lines), default=0)


@pytest.mark.slow
def test_a_training_killed_fifty_times_ends_with_the_weights_of_one_that_was_not(flags):
    """Every child is this process forked, killed at a random moment of its start, a step or a save."""
    flags = [*flags, "--schedule", "constant", "--warmup", "0", "--save-every", "1", "--steps"]
    folder, rng, saved, moments = folder_of(flags[:-1], "killed"), np.random.default_rng(0), 0, []
    while len(moments) < 50:
        argv = (
            ["--resume", str(folder), "--steps"]
            if (folder / "model").exists()
            else [*flags[:-1], "--name", "killed", "--steps"]
        )
        if argv[0] != "--resume":
            shutil.rmtree(folder, ignore_errors=True)  # killed before its first checkpoint
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(train.main([*argv, "100000"]))
        while len(moments) % 4 and reported(folder) <= (moments or [0])[-1]:  # a quarter dies at the start
            assert os.waitpid(child, os.WNOHANG)[0] == 0, "it ended by itself"
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        moments.append(reported(folder))
        if (folder / "model").exists():
            step = newest(folder)[2]["step"]
            assert saved <= step and moments[-1] - 1 <= step <= moments[-1] + 1
            assert checkpoint.open(str(folder)).model.config.dim == 32
            saved = step
    assert saved > 20 and len(set(moments)) > 10
    assert train.main(["--resume", str(folder), "--steps", str(saved + 3)]) == 0
    whole = train_as([*flags, str(saved + 3)], "whole")
    assert equal(weights(folder), weights(whole)) and list(folder.rglob("*.partial")) == []
    assert [row["loss"] for row in rows(folder)] == [row["loss"] for row in rows(whole)]


def limited(argv, size):
    """Run argv where no file may grow beyond size bytes: what a full disk does to a write."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return subprocess.run(argv, preexec_fn=limit, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_a_write_that_fails_leaves_the_last_checkpoint_and_ends_with_1(flags):
    folder = train_as(flags, "a", "--steps", "2")
    before = newest(folder)
    call = [sys.executable, train.__file__, "--resume", str(folder), "--steps", "4"]
    result = limited(call, 40_000)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "saving step 4 failed" in result.stderr and "step-2 is complete" in result.stderr
    after = newest(folder)
    assert equal(before[0], after[0]) and equal(before[1], after[1]) and before[2] == after[2]
    assert list(folder.rglob("*.partial")) == []
    assert train.main(["--resume", str(folder), "--steps", "4"]) == 0
