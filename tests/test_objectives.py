"""Objectives: what an item becomes, and that each one trains, on games whose items are made up from a tiny
world."""

import copy
import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import data
import lora
import losses
import model as models
import objectives
import train
from data import Row
from games import TASKS
from games.task import Chat, Judged, Label, Pair
from games.twentyq import TwentyQuestions, answer_prompt
from objectives import OBJECTIVES, step_rows
from recipes import Train, parse

SMALL = (
    "--dim 32 --layers 1 --heads 2 --kv-heads 2 --mlp-dim 32 --vocab 400 --eval-n 2 --eval-few 2 --batch 4 "
    "--noise 0 --no-greedy --max-new 4 --threads 1 --dtype float32 --device cpu --optimizer adamw --lr 0.003"
).split()
KINDS = ["sft", "classify", "dpo", "kto"]
kinds = pytest.mark.parametrize("kind", KINDS)


class Facts(TwentyQuestions):
    """Whether something holds of a keyword, as items of any kind; `kind` is set by a fixture."""

    kind, labels = "sft", 2

    def __init__(self, options=None, seed=0):
        super().__init__(options, seed)
        self.loss = self.kind

    def items(self, example, rng):
        k, made = self.world.keyword_index[example["keyword"]], []
        for q in rng.choice(len(self.world.questions), 2, replace=False):
            messages, true = (
                answer_prompt(example["keyword"], self.world.questions[q]),
                bool(self.world.table[k, q]),
            )
            right, wrong = ("yes, it is so", "no") if true else ("no", "yes, it is so")
            made.append(
                {
                    "sft": Chat([*messages, {"role": "assistant", "content": right}]),
                    "classify": Label(messages, int(true)),
                    "dpo": Pair(messages, right, wrong),
                    "kto": Judged(messages, right if len(made) else wrong, bool(made)),
                }[self.kind]
            )
        return made

    def evaluate(self, examples, agent):
        return dict(n=len(examples), metrics={}, intervals={}, baselines={}, records=[])


@pytest.fixture
def facts(monkeypatch):
    """facts(kind) makes the game 20q give items of that kind."""

    def choose(kind):
        monkeypatch.setattr(Facts, "kind", kind)
        monkeypatch.setitem(TASKS, "20q", Facts)

    return choose


@pytest.fixture(scope="module")
def base(world_file, tmp_path_factory):
    """A small decoder with random weights and a tokenizer, as a folder."""
    folder = tmp_path_factory.mktemp("base")
    cfg = parse(Train, [*SMALL, "--world", str(world_file)])
    model, tokenizer = train.scratch(cfg, TwentyQuestions(cfg.options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.empty(weight.shape).normal_(0, 0.1, generator=generator))
    models.save(model, folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture
def flags(world_file, base, tmp_path):
    return [*SMALL, "--world", str(world_file), "--model", str(base), "--runs", str(tmp_path)]


def rows_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def before_and_after(folder):
    return [models.read_json(folder / f"{name}.json")["metrics"]["valid_loss"] for name in ("before", "eval")]


# ------------------------------------------------------------------------------------------------ training
@pytest.mark.parametrize("lora_rank", [0, 4])
@kinds
def test_each_objective_trains(flags, facts, tmp_path, kind, lora_rank):
    facts(kind)
    more = ["--lora-rank", str(lora_rank), "--steps", "30", "--name", "a", "--warmup", "0"]
    assert train.main([*flags, *more]) == 0
    before, after = before_and_after(tmp_path / "a")
    assert after < before - 0.02
    if kind == "dpo":
        assert before == pytest.approx(math.log(2), abs=1e-6)
        assert rows_in(tmp_path / "a")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    if kind == "kto":
        assert before == pytest.approx(0.5, abs=1e-6)
    model, _, _ = lora.open_model(str(tmp_path / "a"))
    assert model.config.labels == (2 if kind == "classify" else None)


@kinds
def test_three_steps_and_three_resumed_are_six(flags, facts, tmp_path, kind):
    facts(kind)
    assert train.main([*flags, "--steps", "6", "--save-every", "3", "--name", "a"]) == 0
    assert train.main([*flags, "--steps", "3", "--schedule", "constant", "--name", "b"]) == 0
    assert train.main([*flags, "--steps", "6", "--schedule", "constant", "--name", "c"]) == 0
    assert train.main(["--resume", str(tmp_path / "b"), "--steps", "6"]) == 0
    resumed, whole = (rows_in(tmp_path / name) for name in "bc")
    assert [row["loss"] for row in resumed] == [row["loss"] for row in whole]


@kinds
def test_how_the_work_is_cut_changes_nothing(flags, facts, tmp_path, kind):
    facts(kind)
    losses_, norms = [], []
    for name, slots in (("a", "8192"), ("b", "100")):
        assert train.main([*flags, "--steps", "2", "--name", name, "--micro-tokens", slots]) == 0
        losses_.append([row["loss"] for row in rows_in(tmp_path / name)])
        norms.append([row["grad"] for row in rows_in(tmp_path / name)])
    assert losses_[0] == pytest.approx(losses_[1], rel=1e-5) and norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_classifier_beside_a_half_precision_base_is_trained_in_float32(flags, facts, tmp_path, capsys):
    """Its gradients would be float16 otherwise, which the loss scaler refuses."""
    facts("classify")
    more = ["--lora-rank", "4", "--dtype", "float16", "--steps", "4", "--name", "a"]
    assert train.main([*flags, *more]) == 0
    assert "classifier: classifier.out.weight made anew" in capsys.readouterr().out


def test_a_run_whose_classifier_is_gone_does_not_resume_with_another(flags, facts, tmp_path, capsys):
    facts("classify")
    assert train.main([*flags, "--steps", "2", "--name", "a"]) == 0
    path = tmp_path / "a" / "model" / "model.safetensors"
    state = load_file(path)
    del state["score.weight"]
    save_file(state, path)
    assert train.main(["--resume", str(tmp_path / "a"), "--steps", "4"]) == 1
    assert "score.weight is missing" in capsys.readouterr().err


def test_a_loss_of_another_item_is_an_error_that_names_both(flags, facts, capsys):
    facts("dpo")
    assert train.main([*flags, "--loss", "sft", "--steps", "1"]) == 1
    assert "learns from Chat items, and the task gives Pair" in capsys.readouterr().err


def test_preferences_without_a_model_to_compare_with_are_a_wrong_call(flags, facts, capsys):
    facts("dpo")
    flags = [flag for i, flag in enumerate(flags) if "--model" not in (flag, flags[i - 1])]
    assert train.main([*flags, "--steps", "1"]) == 2
    assert "needs --model or --init" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ layouts
@pytest.fixture
def opened(base):
    return models.load(base), data.load_tokenizer(base)


def items(kind, n=5):
    """n pairs or judged replies of different lengths, each to a prompt of its own."""
    texts = ["yes", "no, it is not", "Is it alive?", "metal", "oak tree"]
    prompts = [[{"role": "user", "content": f"Keyword: {text}"}] for text in texts]
    if kind == "dpo":
        return [Pair(prompts[i], texts[i], texts[i - 1]) for i in range(n)]
    return [Judged(prompts[i], texts[i], i % 2 == 0) for i in range(n)]


def batch_of(kind, tokenizer):
    cfg = parse(Train, ["--max-tokens", "400"])
    rows, others, _ = step_rows(OBJECTIVES[kind], [items(kind)], tokenizer, cfg)
    return data.collate(rows), others


def alone(model, tokenizer, messages, reply):
    ids, mask = tokenizer.render([*messages, {"role": "assistant", "content": reply}])
    logp = model.logits(model(torch.tensor([ids])))[0].log_softmax(-1)
    return sum(logp[t - 1, ids[t]] for t in range(len(ids)) if mask[t])


@torch.no_grad()
def test_packed_pairs_have_the_log_probabilities_of_their_replies_alone(opened):
    model, tokenizer = opened
    batch, _ = batch_of("dpo", tokenizer)
    assert len(batch["ids"]) == 1  # packed into one row
    found = objectives.reply_logp(model, batch).view(-1, 2)
    replies = [(pair.messages, reply) for pair in items("dpo") for reply in (pair.chosen, pair.rejected)]
    expected = torch.stack([alone(model, tokenizer, *reply) for reply in replies]).view(-1, 2)
    order = [
        scores[:, 0].argsort() for scores in (found, expected)
    ]  # rows are packed in an order of their own
    assert_close(found[order[0]], expected[order[1]], atol=1e-4, rtol=0)


@torch.no_grad()
def test_ktos_z_is_the_mean_gain_of_replies_put_to_other_prompts(opened):
    (model, tokenizer), (_, others) = opened, batch_of("kto", opened[1])
    reference = copy.deepcopy(model)
    for weight in reference.parameters():
        weight.mul_(1.1)
    z = objectives.gain(model, [data.collate(others[:2]), data.collate(others[2:])], reference) / len(others)
    judged = items("kto")
    swapped = [(at.messages, said.reply) for at, said in zip(judged[1:] + judged[:1], judged)]
    gains = [alone(model, tokenizer, *reply) - alone(reference, tokenizer, *reply) for reply in swapped]
    assert_close(z, torch.stack(gains).mean(), atol=1e-4, rtol=0)


def test_a_single_judged_reply_has_no_other_prompt_to_be_put_to(opened):
    rows, others, _ = step_rows(OBJECTIVES["kto"], [items("kto", 1)], opened[1], parse(Train, []))
    assert len(rows) == 1 and others == [] and objectives.gain(opened[0], [], None) == 0


@kinds
def test_what_is_too_long_is_left_out_whole_and_counted(opened, kind):
    tokenizer, cfg = opened[1], parse(Train, ["--max-tokens", "30"])
    long, short = "word " * 60, "oak"
    messages = {text: [{"role": "user", "content": text}] for text in (long, short)}
    made = {
        "sft": [Chat([*messages[text], {"role": "assistant", "content": "yes"}]) for text in messages],
        "classify": [Label(messages[text], 1) for text in messages],
        "dpo": [Pair(messages[text], "yes", "no") for text in messages],
        "kto": [Judged(messages[text], "yes", True) for text in (long, short, short)],
    }[kind]
    rows, _, left_out = step_rows(OBJECTIVES[kind], [made], tokenizer, cfg)
    assert left_out == 1 and OBJECTIVES[kind].weight(rows) > 0


@pytest.mark.parametrize("family", ["qwen3", "bert", "modernbert"])
@torch.no_grad()
def test_classifying_a_padded_batch_equals_each_text_alone(tiny, tmp_path, family):
    models.save(tiny(family), tmp_path)
    model = models.load(tmp_path, labels=3, seed=0)
    texts = [[5, 6, 7, 8, 9], [5, 9], [4, 4, 4]]
    rows = [Row(ids, [*range(len(ids))], [len(ids)] * len(ids), [], []) for ids in texts]
    for row, label in zip(rows, (0, 2, 1)):
        row.labels = [label]
    found = objectives.classify_loss(model, data.collate(rows), None)
    logits = torch.cat([model.classify(model(torch.tensor([ids]))) for ids in texts])
    assert_close(found, losses.classify(logits, torch.tensor([0, 2, 1])).sum(), atol=1e-5, rtol=1e-5)
    assert (logits.amax(0) - logits.amin(0)).max() > 0.01
