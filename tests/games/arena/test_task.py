"""The arena: the items of a battle, predictions in both orders, what evaluations hold, use."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from games.arena import plots
from games.arena.files import read_battles, swap_answers
from games.arena.task import Arena, Options
from games.stats import wilson
from games.task import Label, Players, Ranked
from terminal import UsageError
from tests.games.arena.help_arena import Reader, Sides, write_rows

ROW = {"prompt": "p", "response_a": "good", "response_b": "bad", "winner": "a"}


@pytest.fixture
def battles(tmp_path):
    """60 battles about 30 prompts, from the sources x and y in turn."""
    answers = {"a": ("good", "bad"), "b": ("bad", "so good"), "tie": ("bad", "sad")}
    rows = []
    for i in range(60):
        winner = ("a", "b", "tie")[i % 3]
        row = {"prompt": f"question {i // 2}", "winner": winner, "source": "xy"[i % 2], "id": str(i)}
        row |= zip(("response_a", "response_b"), answers[winner])
        rows.append(row | {"model_a": f"m{i % 2}", "model_b": f"m{2 + i % 2}"})
    return write_rows(tmp_path / "battles.jsonl", rows)


# ------------------------------------------------------------------------------------------------ examples
def test_no_prompt_is_on_both_sides(battles):
    task = Arena(Options(data=battles))
    train, test = ({e["turns"][0][0] for e in task.examples(split)} for split in ("train", "test"))
    assert train and test and not train & test and len(task.trained_on()) == len(task.examples("train"))
    few = Arena(Options(data=battles, rows="50:"))
    assert len(few.examples("train") + few.examples("test")) == 10


def test_sources_are_chosen_and_those_for_testing_are_never_trained_on(battles):
    task = Arena(Options(data=battles, source="x", test_source="y"))
    assert {e["source"] for e in task.examples("test")} == {"y"} and len(task.examples("test")) == 30
    asked = {e["turns"][0][0] for e in task.examples("test")}
    assert not asked & {e["turns"][0][0] for e in task.examples("train")}
    assert task.dropped == {"with a prompt of the test rows": 30 - len(task.examples("train"))}
    one = Arena(Options(data=battles, source="x"))
    assert {e["source"] for e in one.examples("train") + one.examples("test")} == {"x"}
    with pytest.raises(UsageError, match="--source z: no battle has it"):
        Arena(Options(data=battles, source="z")).examples("train")


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
            assert item.messages == task.prompt(example if same else swap_answers(example))
    assert len(orders) == (1 if swap == "none" else 2)


def test_turns_stay_in_order_answers_get_twice_the_room_and_sides_stand_alone():
    task = Arena()
    battle = {"turns": [["p", "x", "y"], ["q", "z", "w"]]}
    parts = task.prompt(battle)
    assert [part["content"] for part in parts] == ["Prompt: p", "A: x", "B: y", "Prompt: q", "A: z", "B: w"]
    assert [part["share"] for part in parts] == [1, 2, 2] * 2
    sides = [[part["content"] for part in side] for side in task.sides(battle)]
    assert sides == [["Prompt: p", "x", "Prompt: q", "z"], ["Prompt: p", "y", "Prompt: q", "w"]]


def test_soft_labels_make_every_target_a_distribution(tmp_path):
    soft = {"p_a": 0.5, "p_b": 0.3, "p_tie": 0.2}
    rows = [ROW | {"prompt": f"p{i}"} | (soft if i % 2 else {}) for i in range(9)]
    task = Arena(Options(data=write_rows(tmp_path / "soft.jsonl", rows)))
    items = [item for example in task.examples("train") for item in task.items(example, None)]
    targets = {tuple(item.target) for item in items}
    assert targets == {(0.5, 0.3, 0.2), (0.3, 0.5, 0.2), (1, 0, 0), (0, 1, 0)}


# ------------------------------------------------------------------------------------------------ evaluation
def test_a_reader_of_sides_cannot_be_swayed_by_the_order(battles):
    task = Arena(Options(data=battles))
    examples = task.examples("test")
    probs, back = task.chances(examples, Sides())
    assert np.array_equal(probs, back)
    whole, _ = task.chances(examples, Reader())
    assert np.allclose(probs, whole, atol=1e-6)
    read = []
    sides = Sides()
    sides.scores = lambda talks: read.extend(talks) or Sides().scores(talks)
    task.chances(examples, sides, task.examples("train"))
    assert len(read) == 2 * len(examples)  # it knows of ties and reads no labelled battles


def test_a_reward_model_judges_chats_by_the_difference_of_its_scores(battles):
    class Reward:
        classes = 1

        def scores(self, conversations):
            assert all([part["role"] for part in talk][:2] == ["user", "assistant"] for talk in conversations)
            return torch.tensor([[float(str(talk[1::2]).count("good"))] for talk in conversations])

    task = Arena(Options(data=battles))
    examples = task.examples("test")
    probs, back = task.chances(examples, Reward())
    assert np.array_equal(probs, back) and np.allclose(probs.sum(1), 1)
    for row, example in zip(probs, examples):
        a, b = (sum(turn[side].count("good") for turn in example["turns"]) for side in (1, 2))
        assert np.log(row[0] / row[1]) == pytest.approx(a - b, abs=1e-5)  # Bradley and Terry's


def test_a_reward_model_gets_its_ties_from_labelled_battles(battles):
    class Reward:
        classes = 1

        def scores(self, conversations):
            return torch.tensor([[float(str(talk[1::2]).count("good"))] for talk in conversations])

    task = Arena(Options(data=battles))
    train, test = task.examples("train"), task.examples("test")
    plain, _ = task.chances(test, Reward())
    fitted, _ = task.chances(test, Reward(), train)
    assert np.allclose(plain[:, 0] / plain[:, 1], fitted[:, 0] / fitted[:, 1])
    assert task.chances(train, Reward(), train)[0][:, 2].mean() == pytest.approx(
        np.mean([e["target"] == 2 for e in train]), abs=1e-6
    )
    found = task.evaluate(test, Players(Reward()))
    assert found["records"][0]["probs"][2] == pytest.approx(fitted[0, 2])
    rows, _ = task.mined(Players(Reward()), 20)
    assert np.mean([row["p_tie"] for row in rows]) == pytest.approx(
        np.mean([e["target"] == 2 for e in train[:20]]), abs=1e-5
    )


def test_a_battle_that_is_no_tie_teaches_a_reward_model_the_better_chat(battles):
    task = Arena(Options(data=battles), kind=Ranked)
    turns = [["p", "x", "y"], ["q", "z", "w"]]
    for target, answers in ((0, "xz"), (1, "yw"), ([0.2, 0.5, 0.3], "yw"), (2, ""), ([0.3, 0.3, 0.4], "")):
        found = task.items({"turns": turns, "target": target}, None)
        assert len(found) == len(answers[:1])
        for item in found:
            assert [part["content"] for part in item.first] == ["p", answers[0], "q", answers[1]]
            assert [part["role"] for part in item.first] == ["user", "assistant"] * 2
            assert {part["content"] for part in item.second} == {*"pqxyzw"} - {*answers}


def test_an_evaluation_shows_the_bias_and_what_the_mean_of_orders_does(battles):
    task = Arena(Options(data=battles, test_data=battles))
    task.splits["train"] = task.examples("test")
    found = task.evaluate(task.examples("test"), Players(Reader(bias=2.0)))
    metrics = found["metrics"]
    assert metrics["gap A - B"] > 0.4 and found["baselines"]["gap A - B"] == 0.0 and metrics["flips"] > 0.5
    assert metrics["log_loss, both orders"] < metrics["log_loss"]
    assert metrics["log_loss, shares"] == pytest.approx(np.log(3))
    fair = task.evaluate(task.examples("test"), Players(Reader()))["metrics"]
    assert fair["flips"] == 0 and fair["gap A - B"] == pytest.approx(0, abs=1e-6)
    assert fair["log_loss"] == pytest.approx(fair["log_loss, both orders"], abs=1e-6) and json.dumps(found)
    assert [*metrics][0] == "log_loss" and Arena.evaluation.lower_is_better


def test_without_ties_the_verdict_is_between_the_two(tmp_path):
    """Accuracy is then that of WSDM, whatever a model of three classes gives to ties."""

    class Shy(Reader):
        def classify(self, conversations):
            return super().classify(conversations) * 0.1 + [0, 0, 0.9]

    rows = [ROW | {"prompt": f"p{i}", "winner": "model_a"} for i in range(40)]
    rows[3] |= {"response_a": "bad", "response_b": "good"}
    for winner, accuracy in (("model_a", 39 / 40), ("tie", 1 / 40)):
        rows[3]["winner"] = winner
        task = Arena(Options(data=write_rows(tmp_path / "wsdm.jsonl", rows)))
        task.splits = {"train": [], "test": [*read_battles(task.options.data, "", Counter())]}
        found = task.evaluate(task.examples("test"), Players(Shy()))
        assert found["metrics"]["accuracy"] == pytest.approx(accuracy)
        assert found["intervals"]["accuracy"] == wilson(round(40 * accuracy), 40)


def test_battles_to_test_on_alone_have_no_features_beside_them(battles):
    task = Arena(Options(data=battles, source="x", test_source="x,y"))
    assert task.examples("train") == []
    assert "log_loss, features" not in task.evaluate(task.examples("test"), Players(Reader()))["metrics"]


def test_an_evaluation_has_a_picture(battles, tmp_path):
    pytest.importorskip("matplotlib")
    task = Arena(Options(data=battles, source="x", test_source="y"))
    report = json.loads(json.dumps(task.evaluate(task.examples("test"), Players(Reader()))))
    assert plots.draw({"before": report, "after": report}, tmp_path / "e.png") == [tmp_path / "e.png"]
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")


def test_the_world_says_how_much_of_the_way_is_gone():
    task = Arena(Options(battles=60, tests=200))
    known = {}
    for example in task.examples("test"):
        known[str(task.prompt(example))] = example["probs"]
        known[str(task.prompt(swap_answers(example)))] = [example["probs"][k] for k in (1, 0, 2)]

    class Knows(Reader):
        def classify(self, conversations):
            return np.array([known[str(talk)] for talk in conversations])

    metrics = task.evaluate(task.examples("test"), Players(Knows()))["metrics"]
    assert metrics["share of the way"] == pytest.approx(1.0)
    for kind in ("", "biased battles "):
        assert metrics[f"{kind}log_loss"] == pytest.approx(metrics[f"{kind}log_loss, best possible"])


# ------------------------------------------------------------------------------------------------ use
def test_what_a_model_says_becomes_labels_for_another(battles, tmp_path):
    """The rows hold all training battles with the model's predictions and the test battles with their own
    labels: the split is by prompt, so a file of training battles alone would have nothing to test on."""
    task = Arena(Options(data=battles))
    assert len(task.mined(Players(Reader()), 5)[0]) == 5
    rows, pool = task.mined(Players(Reader()), 0)
    again = Arena(Options(data=write_rows(tmp_path / "soft.jsonl", rows)))
    assert pool is None and len(again.examples("train")) == len(task.examples("train"))
    for example in again.examples("train"):
        mean = task.mean_chances([example], Reader())[0]
        assert example["target"] == pytest.approx(mean.tolist(), abs=1e-5) and example["models"]
    labels = [(example["id"], np.argmax(example["target"])) for example in again.examples("test")]
    assert labels == [(example["id"], example["target"]) for example in task.examples("test")]
    with pytest.raises(UsageError, match="no battle to test on"):
        task.evaluate([], Players(Reader()))


def test_a_submission_has_the_ids_in_order_and_the_chances(tmp_path):
    rows = [
        {"id": 7, "prompt": ["p"], "response_a": ["good"], "response_b": ["bad"]},
        {"id": 3, "prompt": ["q", None], "response_a": ["a", "b"], "response_b": ["good", None]},
    ]
    task = Arena(Options(data=write_rows(tmp_path / "test.csv", rows)))
    first, second = task.submission(Players(Reader(bias=1.0)))
    assert [*first] == ["id", "winner_model_a", "winner_model_b", "winner_tie"]
    assert (first["id"], second["id"]) == ("7", "3")
    assert first["winner_model_a"] > first["winner_model_b"]
    assert second["winner_model_a"] < second["winner_model_b"]


def test_playing_both_seats(battles):
    task, shown = Arena(Options(data=battles)), []
    typed = iter(["p", "good good", "bad", "quit"])
    task.interact(Players(Reader()), lambda: next(typed, None), shown.append, "model", 0)
    assert any(line.startswith("both") and "A is better 67%" in line for line in shown)
    shown.clear()
    typed = iter(["a", "t", "quit"])
    task.interact(Players(Reader()), lambda: next(typed, None), shown.append, "person", 0)
    assert sum("agree on" in line for line in shown) == 2 and "of 2" in "".join(shown)
    shown.clear()
    task.interact(Players(Reader()), None, shown.append, "model", 0)
    assert shown[-1].startswith("the label: ")


@pytest.mark.parametrize("name", ["test.csv", "test.jsonl"])
def test_a_submission_to_the_successor_names_the_winner(tmp_path, name):
    """WSDM's files have plain texts, and its submission has no chances."""
    rows = [
        {"id": "x", "prompt": '["p"]', "response_a": "[bad]", "response_b": "good"},
        {"id": "y", "prompt": "q", "response_a": "good", "response_b": "bad"},
    ]
    task = Arena(Options(data=write_rows(tmp_path / name, rows)))
    submitted = task.submission(Players(Reader()))
    assert submitted == [{"id": "x", "winner": "model_b"}, {"id": "y", "winner": "model_a"}]
