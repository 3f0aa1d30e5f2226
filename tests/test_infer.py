"""infer.py: play, eval, sample and merge on a small run."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_model

import data
import infer
import lora
import model as models
import train
from games.twentyq.prompts import read_prompt
from recipes import Infer, parse

SMALL = (
    "--dim 32 --layers 1 --heads 2 --kv-heads 2 --mlp-dim 32 --vocab 400 --eval-n 4 --eval-few 2 --batch 2 "
    "--cells 2 --opening 2 --explore 0 --noise 0 --no-greedy --max-new 4 --threads 1 --dtype float32 "
    "--device cpu"
).split()


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
def test_eval_prints_and_writes_its_report_and_does_not_overwrite(flags, tmp_path, capsys):
    out = tmp_path / "eval.json"
    argv = ["eval", *flags, "--limit", "3", "--noise", "0,0.2", "--out", str(out)]
    assert infer.main(argv) == 0
    shown, report = capsys.readouterr().out, models.read_json(out)
    fields = {"format", "task", "n", "seed", "metrics", "intervals", "baselines"}
    assert fields <= set(report)
    assert (report["format"], report["task"], report["n"], report["seed"]) == (1, "20q", 3, 0)
    assert {"win_rate@0", "win_rate@0.2", "win_rate_greedy@0", "answerer_balanced"} <= set(report["metrics"])
    for name, value in report["metrics"].items():
        line = next(line for line in shown.splitlines() if line.startswith(f"{name} "))
        assert ("-" if value is None else f"{value:.3f}") in line
    assert "n = 3" in shown
    before = out.read_bytes()
    assert infer.main(argv) == 1
    assert str(out) in capsys.readouterr().err and out.read_bytes() == before


def test_settings_of_the_model_are_not_those_of_its_judge(monkeypatch):
    """A chat format and a revision belong to the model that a call names."""
    seen = []
    opens = lambda name, *given: seen.append((name, given[0], given[3])) or (tiny_model(), name, None)
    monkeypatch.setattr(infer.lora, "open_model", opens)
    monkeypatch.setattr(infer.data, "load_tokenizer", lambda folder, format, vocab: seen.append(format))
    call = "eval --task reasoning --model a/b --revision r1 --format chatml --lora x --device cpu".split()
    for name in ("a/b", "c/d"):
        infer.opened(parse(Infer, call), name)
    assert seen == [("a/b", "x", "r1"), "chatml", ("c/d", "", None), ""]


def test_eval_agrees_with_the_evaluation_of_training(flags, all_runs, tmp_path):
    out = tmp_path / "eval.json"
    more = ["--limit", "4", "--noise", "0", "--no-greedy", "--max-new", "4", "--out", str(out)]
    assert infer.main(["eval", *flags, *more]) == 0
    trained = models.read_json(all_runs / "base" / "eval.json")
    trained["metrics"].pop("valid_loss")
    again = models.read_json(out)
    assert all(again[key] == trained[key] for key in ("metrics", "intervals", "baselines", "n"))


def test_eval_is_the_same_twice(flags, tmp_path):
    for name in ("a", "b"):
        more = ["--limit", "2", "--temperature", "1", "--no-greedy", "--noise", "0", "--out"]
        assert infer.main(["eval", *flags, *more, str(tmp_path / name)]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# ------------------------------------------------------------------------------------------- sample
def test_sample_prints_n_replies(flags, capsys):
    assert infer.main(["sample", *flags, "--prompt", "Is it alive?", "--max-new", "5"]) == 0
    greedy = capsys.readouterr().out
    more = ["--n", "4", "--temperature", "2", "--max-new", "5", "--seed", "3"]
    assert infer.main(["sample", *flags, "--prompt", "Is it alive?", *more]) == 0
    first = capsys.readouterr().out
    assert greedy and len(first.splitlines()) >= 4
    assert infer.main(["sample", *flags, "--prompt", "Is it alive?", *more]) == 0
    assert capsys.readouterr().out == first


def test_what_a_model_says_cannot_steer_the_terminal(flags, monkeypatch, capsys):
    monkeypatch.setattr(data.Tokenizer, "decode", lambda self, ids: "\x1b[2Jhello\x07")
    assert infer.main(["sample", *flags, "--prompt", "hi", "--max-new", "2"]) == 0
    assert capsys.readouterr().out == "\\x1b[2Jhello\\x07\n"


def test_sample_without_a_prompt_is_a_wrong_call(flags, capsys):
    assert infer.main(["sample", *flags]) == 2
    assert "--prompt" in capsys.readouterr().err


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


@pytest.mark.parametrize("text", ["my notes", "my notes\nand more", '{"row": 0, "x"\nrest'])
def test_a_file_that_holds_no_replies_stays_as_it_is(asked, tmp_path, capsys, text):
    """What a kill left of a line is cut off, but not the last line of somebody's own file."""
    (tmp_path / "notes.txt").write_text(text)
    assert asked(tmp_path / "notes.txt") == 1
    assert "notes.txt" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == text


def test_rows_need_a_file_to_go_to_a_prompt_and_a_temperature(asked, tmp_path, capsys):
    assert asked("") == 2 and "--out" in capsys.readouterr().err
    assert (
        asked(tmp_path / "a.jsonl", "--temperature", "0") == 2 and "--temperature" in capsys.readouterr().err
    )
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "x"}\n{"text": "y"}\n')
    assert asked(tmp_path / "a.jsonl") == 1
    assert "line 2: a row needs" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- play
@pytest.mark.parametrize("text", ["", "\n \n"])
@pytest.mark.parametrize("verb", [["play"], []])
def test_play_without_input_plays_one_scripted_game(flags, monkeypatch, capsys, text, verb):
    typed(monkeypatch, text)
    assert infer.main([*verb, *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].lstrip().startswith("1. ") and lines[-1].startswith(("Found ", "Not found: "))


@pytest.mark.slow
def test_play_in_a_process_of_its_own_with_no_input(flags):
    argv = [sys.executable, str(Path(infer.__file__)), "play", *flags]
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stderr == "" and "1. " in result.stdout


def test_play_takes_its_input_from_a_script(flags, monkeypatch, capsys):
    typed(monkeypatch, "xyzzy\ny\nu\nn\ntop\nundo\nquit\ny\n")
    assert infer.main(["play", *flags]) == 0
    shown = capsys.readouterr().out
    assert "did not understand" in shown and "> xyzzy" in shown and "Taken back" in shown
    assert shown.rstrip().endswith("Goodbye.")


def test_play_to_the_bitter_end_from_a_script(flags, monkeypatch, capsys):
    typed(monkeypatch, "y\n" * 20 + "n\nspoon\n")
    assert infer.main(["play", *flags]) == 0
    shown = capsys.readouterr().out
    assert "Round 20" in shown and "I gave spoon a chance of" in shown and "it is number" in shown


def test_play_ends_with_its_input(flags, monkeypatch, capsys):
    typed(monkeypatch, "y\nn")
    assert infer.main(["play", *flags]) == 0
    assert "Round 3" in capsys.readouterr().out


def test_the_other_seat_answers(flags, monkeypatch, capsys):
    typed(monkeypatch, "Can it fly?\na stone\nlist\nIs it striped?\n\nquit\n")
    assert infer.main(["play", *flags, "--seat", "answerer", "--seed", "4"]) == 0
    shown = capsys.readouterr().out
    assert "% sure)" in shown and "do not trust me" in shown and "It was: " in shown


def test_a_seed_chooses_the_keyword_of_the_other_seat(flags, monkeypatch, capsys):
    def keyword(seed):
        typed(monkeypatch, "quit\n")
        assert infer.main(["play", *flags, "--seat", "answerer", "--seed", str(seed)]) == 0
        return capsys.readouterr().out.split("It was: ")[1]

    assert keyword(4) == keyword(4) and len({keyword(seed) for seed in range(1, 9)}) > 1


def test_a_wrong_seat_is_a_wrong_call(flags, monkeypatch, capsys):
    typed(monkeypatch, "")
    assert infer.main(["play", *flags, "--seat", "judge"]) == 2
    assert "--seat judge" in capsys.readouterr().err


def test_without_a_run_the_training_command_is_named(tmp_path, world_file, capsys):
    argv = ["play", "--world", str(world_file), "--runs", str(tmp_path / "runs")]
    assert infer.main(argv) == 1
    assert "python train.py --task 20q" in capsys.readouterr().err


def test_the_newest_run_is_taken(all_runs, world_file, capsys):
    shown = []
    for more in (["--runs", str(all_runs)], ["--run", str(all_runs / "adapter")]):
        argv = ["eval", "--world", str(world_file), "--limit", "2", "--noise", "0", "--no-greedy"]
        assert infer.main([*argv, *more, "--max-new", "4", "--threads", "1", "--device", "cpu"]) == 0
        shown.append([line for line in capsys.readouterr().out.splitlines() if not line.startswith("n =")])
    assert shown[0] == shown[1]


def test_a_misspelt_verb_is_a_wrong_call_that_suggests_the_right_one(capsys):
    assert infer.main(["evl"]) == 2 and "did you mean eval" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, code, said",
    [
        (["--run", "nowhere"], 1, "nowhere"),
        (["--model", "./nowhere"], 1, "nowhere"),
        (["--limt", "3"], 2, "--limit"),
        (["--task", "20qs"], 2, "did you mean 20q"),
        (["--dtype", "half"], 2, "--dtype half"),
        (["--world", "nowhere.txt"], 1, "nowhere.txt"),
        (["--device", "gpu"], None, "gpu"),
    ],
)
def test_a_wrong_call_ends_with_its_code_and_a_line(flags, capsys, more, code, said):
    result = infer.main(["eval", *flags, *more])
    error = capsys.readouterr().err
    assert (result == code or (code is None and result in (1, 2))) and said in error


def test_a_folder_without_run_json_goes_with_model_not_run(all_runs, flags, capsys):
    folder = all_runs / "base" / "model"
    assert infer.main(["eval", *flags, "--run", str(folder)]) == 1
    assert "--model" in capsys.readouterr().err
    more = ["--model", str(folder), "--limit", "1", "--noise", "0"]
    assert infer.main(["eval", *flags[:2], *more, "--threads", "1"]) == 0


# ------------------------------------------------------------------------------------------- merge
def test_merge_writes_a_model_with_the_outputs_of_the_adapter(all_runs, world_file, tmp_path, capsys):
    out = tmp_path / "merged"
    argv = ["merge", "--world", str(world_file), "--run", str(all_runs / "adapter"), "--out", str(out)]
    assert infer.main([*argv, "--device", "cpu"]) == 0
    assert str(out) in capsys.readouterr().out and not list(tmp_path.glob("*.partial"))
    ids = torch.arange(3, 60)[None]
    adapted, merged = lora.open_model(str(all_runs / "adapter"))[0], models.load(str(out))
    base = models.load(str(all_runs / "base"))
    assert lora.adapters(adapted) and not lora.adapters(merged)
    assert torch.allclose(logits(adapted, ids), logits(merged, ids), atol=1e-5)
    assert not torch.allclose(logits(base, ids), logits(merged, ids), atol=1e-3)
    assert data.load_tokenizer(out).size == merged.config.vocab
    adapter, again = str(all_runs / "adapter" / "model"), tmp_path / "twice"
    argv = ["merge", "--world", str(world_file), "--model", str(out), "--lora", adapter, "--out", str(again)]
    assert infer.main(argv) == 1 and not again.exists()
    assert "is merged into it already" in capsys.readouterr().err
    assert not (out / "adapter_config.json").exists()


def test_a_classifiers_adapter_is_merged_without_a_chat_format(world_file, tmp_path):
    models.save(tiny_model("modernbert"), tmp_path / "base")
    model = lora.add_lora(models.load(tmp_path / "base", labels=3, seed=1), rank=2)
    lora.save_lora(model, tmp_path / "adapter", tmp_path / "base")
    base, adapter, out = (str(tmp_path / name) for name in ("base", "adapter", "merged"))
    argv = ["merge", "--world", str(world_file), "--model", base, "--lora", adapter, "--out", out]
    assert infer.main(argv) == 0
    ids = torch.arange(3, 60)[None]
    merged = models.load(out)
    assert merged.config.labels == 3
    assert torch.allclose(merged.classify(merged(ids)), model.eval().classify(model(ids)), atol=1e-5)


def test_a_merged_model_is_the_same_from_model_and_lora_named_apart(all_runs, world_file, tmp_path):
    out = tmp_path / "merged"
    base, adapter = (str(all_runs / name) for name in ("base", "adapter"))
    argv = ["merge", "--world", str(world_file), "--model", base, "--lora", adapter, "--out", str(out)]
    assert infer.main(argv) == 0
    ids = torch.arange(3, 60)[None]
    adapted = lora.open_model(adapter)[0]
    assert torch.allclose(logits(adapted, ids), logits(models.load(str(out)), ids), atol=1e-5)


@pytest.mark.parametrize("files", [["mine"], []])
def test_merge_refuses_an_existing_folder(all_runs, world_file, tmp_path, capsys, files):
    out = tmp_path / "merged"
    out.mkdir()
    for name in files:
        (out / name).write_text("keep")
    argv = ["merge", "--world", str(world_file), "--run", str(all_runs / "adapter"), "--out", str(out)]
    assert infer.main(argv) == 1
    assert str(out) in capsys.readouterr().err and [path.name for path in out.iterdir()] == files


def test_merge_without_out_is_a_wrong_call(flags, capsys):
    assert infer.main(["merge", *flags]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_tokenizer_larger_than_the_vocabulary_is_an_error(all_runs, flags, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(all_runs / "base" / "model", folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zzz"] = tokenizer["model"]["vocab"].__len__()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert infer.main(["eval", *flags[:2], "--model", str(folder)]) == 1
    assert "the model has room for" in capsys.readouterr().err


def test_the_model_plays_from_the_prompts_of_training(all_runs, monkeypatch, flags):
    """Every prompt an evaluation hands the model reads back as a prompt of the game."""
    heard = []
    prompt = data.Tokenizer.prompt
    monkeypatch.setattr(data.Tokenizer, "prompt", lambda self, c: heard.append(c) or prompt(self, c))
    assert infer.main(["eval", *flags, "--limit", "1", "--noise", "0", "--no-greedy"]) == 0
    assert heard and {read_prompt(conversation)[0] for conversation in heard} == {"asker", "guesser"}
