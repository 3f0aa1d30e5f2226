"""The arena: what is learned of a battle, how both orders count, what evaluations hold, use."""

import csv
import json

import numpy as np
import pytest
import torch

from games.arena.files import swapped
from games.arena.task import Arena, Options
from games.task import Duel, Label

ROW = {"prompt": "p", "response_a": "good", "response_b": "bad", "winner": "a"}


class Reader:
    """A classifier that likes an answer by its words, and what stands first by `bias`."""

    classes = 3

    def __init__(self, bias=0.0):
        self.bias = bias

    def scores(self, conversations):
        rows = []
        for talk in conversations:
            a, b = (sum(part["content"].count("good") for part in talk[side::3]) for side in (1, 2))
            half = (a - b + self.bias) / 2
            rows.append([half, -half, 0.0])
        return torch.tensor(rows)

    def classify(self, conversations):
        return self.scores(conversations).softmax(-1).numpy()


class Sides(Reader):
    """The same of each side by itself."""

    classes = 2

    def scores(self, conversations):
        return torch.tensor([[float(str(talk).count("good")), 0.0] for talk in conversations])


@pytest.fixture
def battles(tmp_path):
    path, rows = tmp_path / "battles.jsonl", []
    for i in range(60):
        winner = ("a", "b", "tie")[i % 3]
        texts = {"a": ("good", "bad"), "b": ("bad", "so good"), "tie": ("bad", "sad")}[winner]
        more = {"model_a": f"m{i % 2}", "model_b": f"m{2 + i % 2}", "source": "xy"[i % 2], "id": str(i)}
        prompt = f"question {i // 2}"
        rows.append(
            {"prompt": prompt, "response_a": texts[0], "response_b": texts[1], "winner": winner, **more}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# ------------------------------------------------------------------------------------------------ examples
def test_no_prompt_is_on_both_sides(battles):
    task = Arena(Options(data=battles))
    train, test = ({e["turns"][0][0] for e in task.examples(split)} for split in ("train", "test"))
    assert train and test and not train & test and len(task.trained_on()) == len(task.examples("train"))


def test_sources_are_chosen_and_those_for_testing_are_never_trained_on(battles):
    task = Arena(Options(data=battles, source="x", test_source="y"))
    assert {e["source"] for e in task.examples("test")} == {"y"} and len(task.examples("test")) == 30
    asked = {e["turns"][0][0] for e in task.examples("test")}
    assert not asked & {e["turns"][0][0] for e in task.examples("train")}
    assert task.dropped == {"with a prompt of the test battles": 30 - len(task.examples("train"))}
    with pytest.raises(ValueError, match="--source z: no battle of it"):
        Arena(Options(data=battles, source="z")).examples("train")


def test_the_gold_label_is_not_in_the_prompt():
    task = Arena(Options(battles=4, tests=4))
    for example in task.examples("test"):
        assert task.prompt(example) == task.prompt({**example, "target": 2, "probs": None})


def test_half_of_the_test_battles_have_a_fair_judge():
    task = Arena(Options(battles=10, tests=400))
    fair, biased = ([e for e in task.examples("test") if e["fair"] == kind] for kind in (True, False))
    assert len(fair) == len(biased) == 200
    gap = lambda some: np.mean([e["probs"][0] - e["probs"][1] for e in some])
    assert abs(gap(fair)) < 0.1 < 0.15 < gap(biased)


# ------------------------------------------------------------------------------------------------ training
@pytest.mark.parametrize("swap, n", [("none", 1), ("both", 2), ("random", 1)])
def test_each_order_is_an_item(battles, swap, n):
    task = Arena(Options(data=battles, swap=swap))
    example, orders = task.examples("train")[0], set()
    for seed in range(20):
        items = task.items(example, np.random.default_rng(seed))
        assert len(items) == n and all(isinstance(item, Label) for item in items)
        orders |= {item.target for item in items}
        for item in items:
            same = item.target == example["target"]
            assert item.messages == task.prompt(example if same else swapped(example))
    assert len(orders) == (1 if swap == "none" else 2)


def test_turns_stay_in_order_and_answers_get_twice_the_room():
    task = Arena(Options(battles=2, tests=2))
    parts = task.prompt({"turns": [["p", "x", "y"], ["q", "z", "w"]]})
    assert [part["content"] for part in parts] == ["Prompt: p", "A: x", "B: y", "Prompt: q", "A: z", "B: w"]
    assert [part["share"] for part in parts] == [1, 2, 2] * 2


def test_a_duel_shows_each_side_without_the_other(battles):
    task = Arena(Options(data=battles))
    task.item = Duel
    (item,) = task.items(task.examples("train")[0], np.random.default_rng(0))
    texts = [[part["content"] for part in side] for side in (item.first, item.second)]
    assert texts == [["Prompt: question 0", "good"], ["Prompt: question 0", "bad"]]


def test_soft_labels_make_every_target_a_distribution(tmp_path):
    path = tmp_path / "soft.jsonl"
    soft = {"p_a": 0.5, "p_b": 0.3, "p_tie": 0.2}
    rows = [{**ROW, "prompt": f"p{i}", **(soft if i % 2 else {})} for i in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Arena(Options(data=str(path)))
    targets = [
        item.target for e in task.examples("train") for item in task.items(e, np.random.default_rng(0))
    ]
    assert {tuple(target) for target in targets} == {(0.5, 0.3, 0.2), (0.3, 0.5, 0.2), (1, 0, 0), (0, 1, 0)}


# ------------------------------------------------------------------------------------------------ evaluation
def test_a_reader_of_sides_cannot_be_swayed_by_the_order(battles):
    task = Arena(Options(data=battles))
    examples = task.examples("test")
    probs, back = task.chances(examples, Sides())
    assert np.allclose(probs, back[:, [1, 0, 2]])
    whole, _ = task.chances(examples, Reader())
    assert np.allclose(probs, whole, atol=1e-6)


def test_an_evaluation_shows_the_bias_and_what_the_mean_of_orders_does(battles):
    task = Arena(Options(data=battles, test_data=battles))
    task.splits["train"] = task.examples("test")
    found = task.evaluate(task.examples("test"), Reader(bias=2.0))
    metrics = found["metrics"]
    assert metrics["gap A - B"] > 0.4 and found["baselines"]["gap A - B"] == 0.0 and metrics["flips"] > 0.5
    assert metrics["log_loss, both orders"] < metrics["log_loss"] and metrics[
        "log_loss, shares"
    ] == pytest.approx(np.log(3))
    fair = task.evaluate(task.examples("test"), Reader())["metrics"]
    assert fair["flips"] == 0 and fair["gap A - B"] == pytest.approx(0, abs=1e-6)
    assert fair["log_loss"] == pytest.approx(fair["log_loss, both orders"], abs=1e-6) and json.dumps(found)
    assert [*metrics][0] == "log_loss" and Arena.lower


def test_battles_to_test_on_alone_have_no_features_beside_them(battles):
    task = Arena(Options(data=battles, source="x", test_source="x,y"))
    assert task.examples("train") == []
    assert "log_loss, features" not in task.evaluate(task.examples("test"), Reader())["metrics"]


def test_the_world_says_how_much_of_the_way_is_gone():
    task = Arena(Options(battles=60, tests=200))

    class Knows(Reader):
        def classify(self, conversations):
            known = {str(task.prompt(e)): e["probs"] for e in task.examples("test")}
            known |= {
                str(task.prompt(swapped(e))): [e["probs"][k] for k in (1, 0, 2)]
                for e in task.examples("test")
            }
            return np.array([known[str(talk)] for talk in conversations])

    metrics = task.evaluate(task.examples("test"), Knows())["metrics"]
    assert metrics["share of the way"] == pytest.approx(1.0)
    assert metrics["log_loss"] == pytest.approx(metrics["log_loss, best possible"])
    assert metrics["biased battles log_loss, best possible"] == pytest.approx(
        metrics["biased battles log_loss"]
    )


# ------------------------------------------------------------------------------------------------ use
def test_what_a_model_says_becomes_labels_for_another(battles, tmp_path):
    task = Arena(Options(data=battles))
    rows, pool = task.mined(Reader(), 5)
    assert len(rows) == 5 and pool is None
    path = tmp_path / "soft.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = Arena(Options(data=str(path), test_source="y"))
    for example in again.examples("train"):
        mean = task.said([example], Reader())[0]
        assert example["target"] == pytest.approx(mean.tolist(), abs=1e-5) and example["models"]


def test_soft_labels_keep_the_battles_to_test_on_with_their_own(battles, tmp_path):
    """Split by prompt, a file of training battles alone would have nothing to test on."""
    task = Arena(Options(data=battles))
    path = tmp_path / "soft.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in task.mined(Reader(), 0)[0]))
    again = Arena(Options(data=str(path)))
    assert [e["id"] for e in again.examples("test")] == [e["id"] for e in task.examples("test")]
    assert [np.argmax(e["target"]) for e in again.examples("test")] == [
        e["target"] for e in task.examples("test")
    ]
    assert len(again.examples("train")) == len(task.examples("train"))
    with pytest.raises(ValueError, match="no battle to test on"):
        task.evaluate([], Reader())


def test_a_submission_keeps_ids_and_sums_to_one(tmp_path):
    path = tmp_path / "test.csv"
    with open(path, "w", newline="") as file:
        rows = [[7, '["p"]', '["good"]', '["bad"]'], [3, '["q", null]', '["a", "b"]', '["good", null]']]
        csv.writer(file).writerows([["id", "prompt", "response_a", "response_b"], *rows])
    task = Arena(Options(battles=2, tests=2))
    task.options.data = str(path)
    found = task.submission(Reader(bias=1.0))
    assert [row["id"] for row in found] == ["7", "3"]
    assert (
        found[0]["winner_model_a"] > found[0]["winner_model_b"]
        and found[1]["winner_model_a"] < found[1]["winner_model_b"]
    )


def test_playing_both_seats(battles):
    task, shown = Arena(Options(data=battles)), []
    typed = iter(["p", "good good", "bad", "quit"])
    task.interact(Reader(), lambda: next(typed, None), shown.append, "model", 0)
    assert any(line.startswith("both") and "A is better 67%" in line for line in shown)
    shown.clear()
    typed = iter(["a", "t", "quit"])
    task.interact(Reader(), lambda: next(typed, None), shown.append, "person", 0)
    assert sum("agree on" in line for line in shown) == 2 and "of 2" in "".join(shown)
    shown.clear()
    task.interact(Reader(), None, shown.append, "model", 0)
    assert shown[-1].startswith("the label: ")
