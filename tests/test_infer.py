"""infer.py: play, eval, sample and merge on a small run."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_model

import checkpoint
import data
import infer
import lora
import model as models
import train
from files import read_json
from recipes import Infer, parse

SMALL = (
    "--dim 32 --layers 1 --heads 2 --mlp-dim 32 --vocab 400 --eval-n 4 --eval-few 2 --batch 2 "
    "--cells 2 --explore 0 --noise 0 --no-greedy --tries 1 --answers 40 --max-new 4 --threads 1 "
    "--dtype float32 --device cpu"
).split()
EVAL = ["--tries", "2", "--answers", "40", "--max-new", "4"]


@pytest.fixture(autouse=True, scope="module")
def short_games():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("games.twentyq.match.ROUNDS", 3)
        yield


@pytest.fixture(scope="module")
def all_runs(world_file, tmp_path_factory):
    """A folder of runs: `base`, trained from scratch, and `adapter` upon it, the newest."""
    folder = tmp_path_factory.mktemp("runs")
    flags = [*SMALL, "--world", str(world_file), "--runs", str(folder), "--steps", "3"]
    assert train.main([*flags, "--name", "base"]) == 0
    more = ["--name", "adapter", "--model", str(folder / "base"), "--lora-rank", "2", "--lr", "0.05"]
    assert train.main([*flags, *more]) == 0
    return folder


@pytest.fixture
def flags(all_runs, world_file):
    return ["--world", str(world_file), "--run", str(all_runs / "base"), "--threads", "1", "--device", "cpu"]


def typed(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def logits(model, ids):
    with torch.inference_mode():
        return model.eval().logits(model(ids))


# ------------------------------------------------------------------------------------------- eval
def test_eval_prints_every_figure_of_its_report(flags, tmp_path, capsys):
    out = tmp_path / "eval.json"
    more = [*EVAL, "--limit", "3", "--noise", "0,0.2", "--verbose"]
    assert infer.main(["eval", *flags, *more, "--out", str(out)]) == 0
    shown, metrics = capsys.readouterr().out, read_json(out)["metrics"]
    assert {"win_rate@0", "win_rate@0.2", "win_rate_greedy@0", "answerer_balanced"} <= set(metrics)
    for name, value in metrics.items():
        line = next(line for line in shown.splitlines() if line.startswith(f"{name} "))
        assert ("-" if value is None else f"{value:.3f}") in line
    assert "n = 3" in shown


def test_settings_of_the_model_are_not_those_of_its_judge(monkeypatch):
    """A chat format and a revision belong to the model that a call names."""
    seen = []
    point = checkpoint.Checkpoint(tiny_model())

    def opens(name, head, **settings):
        seen.append((name, *(settings.get(key) for key in ("lora", "revision", "format"))))
        return point

    monkeypatch.setattr(infer.checkpoint, "open", opens)
    monkeypatch.setattr(checkpoint, "fuse", lambda model: model)
    call = "eval --task reasoning --model a/b --revision r1 --format chatml --lora x --device cpu".split()
    for name in ("a/b", "c/d"):
        infer.open_model(parse(Infer, call), name)
    assert seen == [("a/b", "x", "r1", "chatml"), ("c/d", None, None, None)]


# ------------------------------------------------------------------------------------------- sample
def test_sample_prints_n_replies_by_its_seed(flags, capsys):
    def printed(*more):
        assert infer.main(["sample", *flags, "--prompt", "Is it alive?", "--max-new", "5", *more]) == 0
        return capsys.readouterr().out

    four = ("--n", "4", "--temperature", "2", "--seed")
    assert printed() and len(printed(*four, "3").splitlines()) >= 4
    assert printed(*four, "3") == printed(*four, "3") != printed(*four, "4")


def test_what_a_model_says_cannot_steer_the_terminal(flags, monkeypatch, capsys):
    monkeypatch.setattr(data.Tokenizer, "decode", lambda self, ids: "\x1b[2Jhello\x07")
    assert infer.main(["sample", *flags, "--prompt", "hi", "--max-new", "2"]) == 0
    assert capsys.readouterr().out == "\\x1b[2Jhello\\x07\n"


@pytest.fixture
def asked(flags, tmp_path, monkeypatch):
    """Sample from a file of 7 rows, three of them in a chunk: asked(out, *more) gives the exit code."""
    monkeypatch.setattr(infer, "CHUNK", 6)
    rows = [{"prompt": text, "id": text} for text in ("oak", "elm", "oak", "a longer prompt", "x")]
    rows += [{"messages": [{"role": "user", "content": text}]} for text in ("oak", "metal")]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def ask(out, *more):
        settings = ["--n", "2", "--temperature", "1.5", "--max-new", "5", "--seed", "3"]
        return infer.main(["sample", *flags, "--prompts", str(path), *settings, "--out", str(out), *more])

    return ask


def test_every_row_of_a_file_is_replied_to_once_whatever_stopped_it(asked, tmp_path, capsys):
    assert asked(tmp_path / "whole.jsonl") == 0
    assert "0 rows done before, 7 to do" in capsys.readouterr().out
    whole = (tmp_path / "whole.jsonl").read_bytes()
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [row["row"] for row in rows] == list(range(7)) and rows[3]["id"] == "a longer prompt"
    assert all(len(row["replies"]) == 2 for row in rows)
    assert len({reply["text"] for row in (rows[0], rows[2], rows[5]) for reply in row["replies"]}) > 3
    for cut in (0, 1, len(whole) // 3, len(whole) - 1, len(whole)):
        (tmp_path / "cut.jsonl").write_bytes(whole[:cut])
        assert asked(tmp_path / "cut.jsonl") == 0
        again = [json.loads(line) for line in (tmp_path / "cut.jsonl").read_text().splitlines()]
        assert [row["row"] for row in again] == list(range(7))
        for row, expected in zip(again, rows):
            pairs = list(zip(row.pop("replies"), expected["replies"]))
            assert row == {name: value for name, value in expected.items() if name != "replies"}
            for reply, other in pairs:
                assert reply["text"] == other["text"]
                assert reply["logp"] == pytest.approx(other["logp"], abs=1e-4)


def test_a_file_of_replies_is_not_gone_on_with_under_other_settings(asked, tmp_path, capsys):
    assert asked(tmp_path / "out.jsonl") == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    assert asked(tmp_path / "out.jsonl", "--seed", "4") == 1
    assert "made with seed 3, now 4" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_rows_need_a_file_to_go_to_a_prompt_and_a_temperature(asked, tmp_path, capsys):
    assert asked("") == 2 and "--out" in capsys.readouterr().err
    assert (
        asked(tmp_path / "a.jsonl", "--temperature", "0") == 2 and "--temperature" in capsys.readouterr().err
    )
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "x"}\n{"text": "y"}\n')
    assert asked(tmp_path / "a.jsonl") == 1
    assert "line 2: a row needs" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- play


@pytest.mark.slow
def test_play_in_a_process_of_its_own_with_no_input(flags):
    argv = [sys.executable, str(Path(infer.__file__)), "play", *flags]
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stderr == "" and "1. " in result.stdout


def test_play_which_is_what_no_verb_means_ends_with_its_input(flags, monkeypatch, capsys):
    typed(monkeypatch, "y\nn")
    assert infer.main(flags) == 0
    assert "Round 3" in capsys.readouterr().out


def test_a_seed_chooses_the_keyword_of_the_other_seat(flags, monkeypatch, capsys):
    def keyword(seed):
        typed(monkeypatch, "quit\n")
        assert infer.main(["play", *flags, "--seat", "answerer", "--seed", str(seed)]) == 0
        return capsys.readouterr().out.split("It was: ")[1]

    assert keyword(4) == keyword(4) and len({keyword(seed) for seed in range(1, 9)}) > 1


def test_without_a_run_the_training_command_is_named(tmp_path, world_file, capsys):
    argv = ["play", "--world", str(world_file), "--runs", str(tmp_path / "runs")]
    assert infer.main(argv) == 1
    assert "python train.py --task 20q" in capsys.readouterr().err


def test_the_newest_run_is_taken(all_runs, world_file, capsys):
    shown = []
    for more in (["--runs", str(all_runs)], ["--run", str(all_runs / "adapter")]):
        argv = ["eval", "--world", str(world_file), "--limit", "2", "--noise", "0", "--no-greedy"]
        assert infer.main([*argv, *more, *EVAL, "--threads", "1", "--device", "cpu"]) == 0
        shown.append([line for line in capsys.readouterr().out.splitlines() if not line.startswith("n =")])
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    "call, code, said",
    [
        ("evl", 2, "did you mean eval"),
        ("eval --run nowhere", 1, "nowhere"),
        ("eval --model ./nowhere", 1, "nowhere"),
        ("eval --run RUN/model", 1, "--model"),
        ("eval --limt 3", 2, "--limit"),
        ("eval --task 20qs", 2, "did you mean 20q"),
        ("eval --dtype half", 2, "--dtype half"),
        ("eval --world nowhere.txt", 1, "nowhere.txt"),
        ("eval --device gpu", None, "gpu"),
        ("sample", 2, "--prompt"),
    ],
)
def test_a_wrong_call_ends_with_its_code_and_a_line(flags, all_runs, capsys, call, code, said):
    verb, *more = call.replace("RUN", str(all_runs / "base")).split()
    result = infer.main([verb, *flags, *more])
    error = capsys.readouterr().err
    assert (result == code or (code is None and result in (1, 2))) and said in error


# ------------------------------------------------------------------------------------------- merge
@pytest.mark.parametrize("how", ["run", "model and lora"])
def test_merge_writes_a_model_with_the_outputs_of_the_adapter(all_runs, world_file, tmp_path, capsys, how):
    out = tmp_path / "merged"
    base, adapter = (str(all_runs / name) for name in ("base", "adapter"))
    named = ["--run", adapter] if how == "run" else ["--model", base, "--lora", adapter]
    call = ["merge", "--world", str(world_file), "--device", "cpu"]
    assert infer.main([*call, *named, "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out and not list(tmp_path.glob("*.partial"))
    ids = torch.arange(3, 60)[None]
    adapted, merged, plain = (checkpoint.open(name).model for name in (adapter, out, base))
    assert lora.adapters(adapted) and not lora.adapters(merged)
    assert torch.allclose(logits(adapted, ids), logits(merged, ids), atol=1e-5)
    assert not torch.allclose(logits(plain, ids), logits(merged, ids), atol=1e-3)
    assert data.load_tokenizer(out).size == merged.config.vocab
    assert not (out / "adapter_config.json").exists()
    more = ["--model", str(out), "--lora", f"{adapter}/model", "--out", str(tmp_path / "twice")]
    assert infer.main([*call, *more]) == 1 and not (tmp_path / "twice").exists()
    assert "is already merged into it" in capsys.readouterr().err


def test_merge_refuses_an_empty_folder_too(all_runs, world_file, tmp_path, capsys):
    argv = ["merge", "--world", str(world_file), "--run", str(all_runs / "adapter"), "--out", str(tmp_path)]
    assert infer.main(argv) == 1
    assert str(tmp_path) in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_a_classifiers_adapter_is_merged_without_a_chat_format(world_file, tmp_path):
    models.save(tiny_model("modernbert"), tmp_path / "base")
    model = lora.add_lora(models.load(tmp_path / "base", head=3, seed=1), rank=2)
    lora.save_lora(model, tmp_path / "adapter", tmp_path / "base")
    base, adapter, out = (str(tmp_path / name) for name in ("base", "adapter", "merged"))
    argv = ["merge", "--world", str(world_file), "--model", base, "--lora", adapter, "--out", out]
    assert infer.main(argv) == 0
    ids = torch.arange(3, 60)[None]
    merged = models.load(Path(out))
    assert merged.config.labels == 3
    assert torch.allclose(merged.classify(merged(ids)), model.eval().classify(model(ids)), atol=1e-5)


# ------------------------------------------------------------------------------------------- 8 bits
def test_quantised_play_says_what_it_cannot_do(flags, all_runs, tmp_path, capsys):
    """An adapter is merged before it is quantised. A journal does not go on with other weights."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "eagle"}\n' * 2)
    adapter = [flags[0], flags[1], "--run", str(all_runs / "adapter"), *flags[4:]]
    call = ["sample", *adapter, "--max-new", "3", "--prompts", str(prompts), "--out", str(tmp_path / "o")]
    assert infer.main([*call, "--quantize", "int8"]) == 0
    assert len((tmp_path / "o").read_text().splitlines()) == 2
    assert infer.main(call) == 1 and "made with quantize" in capsys.readouterr().err
    for verb, *more in (
        ["merge", "--out", str(tmp_path / "merged")],
        ["rows", "--out", str(tmp_path / "rows")],
        ["eval", "--ttt-steps", "2"],
        ["eval", "--dtype", "float32"],
        ["eval", "--quantize", "int4"],
    ):
        assert infer.main([verb, *flags, "--quantize", "int8", *more]) == 2
        assert "--quantize" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flag, value",
    [("quantize", "int8"), ("lora", "adapter"), ("revision", "main"), ("format", "chatml")],
)
def test_flags_of_a_model_are_refused_where_none_is_opened(flag, value, capsys):
    call = ["eval", "--task", "arena", "--tests", "10", "--battles", "40", "--judge", "features"]
    assert infer.main([*call, f"--{flag}", value]) == 2
    assert f"--{flag}: no model is opened in this call" in capsys.readouterr().err
    assert infer.main(call) == 0


@pytest.mark.parametrize("native", [False, True])
def test_auto_keeps_the_half_precision_of_a_file_where_it_is_native(all_runs, tmp_path, monkeypatch, native):
    """Files in float32 stay so."""
    point = checkpoint.open(all_runs / "base", dtype=torch.bfloat16)
    point.save(tmp_path / "half")
    monkeypatch.setattr("ranks.is_native", lambda dtype, device: native)
    cpu = torch.device("cpu")
    for folder, kept in ((tmp_path / "half", native), (all_runs / "base", False)):
        model = checkpoint.open_to_play(folder, "own", "auto", cpu).model
        assert model.embed.weight.dtype == (torch.bfloat16 if kept else torch.float32)
