"""Reasoning: where examples come from, what a model learns from them, how replies are evaluated."""

import json
import math

import numpy as np
import pytest
import torch

from games.reasoning.answers import parse, write_reply
from games.reasoning.task import HASTY_SHARE, SYSTEM, Options, Reasoning
from games.task import Chat, Judged, Pair, Players, Reply
from terminal import UsageError

SUM = {"question": "What is 9 plus 9?", "reasoning": "9 + 9 = 18.", "answer": "18", "kind": "number"}
GOOD = write_reply("9 + 9 = 18.", "18")


class Says:
    """An agent that says the same texts in turn; `prompts` holds the conversations that it was given."""

    def __init__(self, *texts, finished=True):
        self.texts, self.finished, self.prompts = texts, finished, []

    def reply(self, conversations, n=1, watch=None):
        replies = []
        for conversation in conversations:
            text = self.texts[len(self.prompts) % len(self.texts)]
            replies.append([Reply(text, [1, 2], [-1.0, -1.0], finished=self.finished)])
            self.prompts.append(conversation)
        return replies


def task_of(tmp_path, rows, kind=Chat, **options):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Reasoning(Options(data=str(path), **options), kind=kind)


# ------------------------------------------------------------------------------------------------ examples
def test_train_and_test_questions_differ(tmp_path):
    rows = [{"question": f"q{i}", "reasoning": "r", "answer": "a"} for i in range(400)]
    task = task_of(tmp_path, rows)
    train, test = ({row["question"] for row in task.examples(split)} for split in ("train", "test"))
    assert len(train) + len(test) == 400 and not train & test and 8 < len(test) < 40
    other = tmp_path / "test.jsonl"
    other.write_text(json.dumps(rows[0]) + "\n")
    task = task_of(tmp_path, rows, test_data=str(other))
    assert len(task.examples("train")) == 399 and task.dropped == {"with a prompt of the test rows": 1}


def test_code_is_left_out_where_it_cannot_be_run(tmp_path, monkeypatch):
    row = {"text": "Add one.", "code": "def f(x): return x + 1", "test_list": ["assert f(1) == 2"]}
    monkeypatch.setattr("games.reasoning.task.level", lambda: ("full", []))
    assert len(task_of(tmp_path, [row | {"text": str(i)} for i in range(30)]).examples("train")) > 20
    monkeypatch.setattr("games.reasoning.task.level", lambda: ("limits", ["no filter"]))
    task = task_of(tmp_path, [row])
    assert task.examples("train") == [] and task.dropped.total() == 1
    task = task_of(tmp_path, [row], test_data=str(tmp_path / "data.jsonl"))
    assert task.examples("test") == [] and task.dropped.total() == 2
    task = task_of(tmp_path, [row], test_data=str(tmp_path / "data.jsonl"), unsafe_exec=True)
    assert len(task.examples("test")) == 1


def test_the_world_is_split_by_question():
    task = Reasoning(Options(tests=40, problems=200))
    test = task.examples("test")
    assert [example["unseen"] for example in test[:8]] == [False, False, False, True] * 2
    train = {task.problem(example)["question"] for example in task.examples("train")}
    assert len(train) > 190 and not train & {example["question"] for example in test}
    items = [task.items({"number": 0}, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert items[0] == items[1] != items[2]
    assert len({example["question"] for example in test}) == 40


# ------------------------------------------------------------------------------------------------ items
def test_items_of_rows(tmp_path):
    rng = np.random.default_rng(0)
    (chat,) = task_of(tmp_path, [SUM], system="tags").items(SUM, rng)
    system = {"role": "system", "content": SYSTEM}
    question = {"role": "user", "content": SUM["question"]}
    assert chat == Chat([system, question, {"role": "assistant", "content": GOOD}], "last", shorten=None)
    (chat,) = Reasoning().items(SUM | {"reasoning": "", "answer": "def f(): pass"}, rng)  # code has no trace
    assert parse(chat.messages[-1]["content"]).strict
    pair = {"question": "q", "chosen": "a", "rejected": "b"}
    messages = [{"role": "user", "content": "q"}]
    assert Reasoning(kind=Pair).items(pair, rng) == [Pair(messages, "a", "b")]
    judged = [Judged(messages, "a", True), Judged(messages, "b", False)]
    assert Reasoning(kind=Judged).items(pair, rng) == judged
    assert Reasoning(kind=Judged).items({"question": "q", "reply": "b", "good": False}, rng) == judged[1:]


@pytest.mark.parametrize("overlong", ["trim-reasoning", "truncate"])
def test_overlong_rows(tmp_path, overlong):
    """Trimmed rows keep whole sentences and the answer."""
    row = SUM | {"reasoning": " ".join(f"Step {i} is here." for i in range(9))}
    (chat,) = task_of(tmp_path, [row], overlong=overlong).items(row, np.random.default_rng(0))
    words = lambda chat: len(chat.messages[-1]["content"].split())
    assert words(chat) > 20
    short = chat.shorten(lambda chat: words(chat) <= 20)
    least = chat.shorten(lambda chat: False)
    text = short.messages[-1]["content"]
    assert 16 < len(text.split()) <= 20
    assert short.messages[:-1] == chat.messages[:-1] and short.learn == "last"
    if overlong == "trim-reasoning":
        assert parse(text).strict and parse(text).reasoning.endswith("here.") and parse(text).answer == "18"
        assert parse(least.messages[-1]["content"]).reasoning == "Step 0 is here."
    else:
        assert chat.messages[-1]["content"].startswith(text) and "</answer>" not in text
        assert least.messages[-1]["content"] == ""


def test_share_of_hasty_traces():
    task = Reasoning()
    hasty = 0
    for i in range(400):
        text = task.items({"number": 0}, np.random.default_rng(i))[0].messages[-1]["content"]
        assert parse(text).strict
        hasty += parse(text).reasoning.startswith("Quickly")
    assert abs(hasty / 400 - HASTY_SHARE) < 0.1


# ------------------------------------------------------------------------------------------------ evaluation
def evaluate(rows, *texts, n=1, finished=True, **named):
    result = Reasoning().evaluate(rows, Players(Says(*texts, finished=finished), named, n))
    return result["metrics"], result["records"]


def test_figures_by_hand():
    rows = [SUM, SUM | {"question": "b"}, {"question": "c", "answer": "", "kind": "open"}]
    metrics, _ = evaluate(rows, GOOD, "18", write_reply("a", "it is nice"))
    assert metrics["right"] == 0.5 and metrics["strict"] == metrics["strict_closed"] == pytest.approx(2 / 3)
    assert metrics["loose"] == pytest.approx(2 / 3) and metrics["closed"] == 1.0 and metrics["tokens"] == 2.0
    assert evaluate(rows, GOOD, finished=False)[0]["strict_closed"] == 0.0
    metrics, _ = evaluate([SUM], GOOD, write_reply("a", "17"), GOOD, "18", n=4)
    assert metrics["right"] == 0.5 and metrics["vote"] == 1.0 and metrics["pass@2"] == pytest.approx(5 / 6)
    assert {"pass@4", "vote"} <= metrics.keys()


def test_figures_of_families_and_of_unseen_sentences():
    task = Reasoning(Options(tests=8))
    rows = task.examples("test")
    replies = [write_reply("a", row["answer"] if row["unseen"] else "none") for row in rows]
    result = task.evaluate(rows, Players(Says(*replies)))
    checked = [row for row in rows if row["kind"] != "open"]
    assert result["metrics"]["right/unseen sentences"] == 1.0
    for family in {row["family"] for row in checked}:
        unseen = [row["unseen"] for row in checked if row["family"] == family]
        assert result["metrics"][f"right/{family}"] == np.mean(unseen)
    assert result["intervals"].keys() == result["metrics"].keys() - {"tokens"}


def test_a_judge_grades_from_0_to_10_or_not_at_all():
    judge = Says("8", "Grade: 7.5", "11", "good")
    metrics, records = evaluate([SUM, SUM], GOOD, n=2, judge=judge)
    assert [reply["grade"] for record in records for reply in record["replies"]] == [8.0, 7.5, None, None]
    assert metrics["grade"] == 7.75 and metrics["graded"] == 0.5
    asked = [prompt[-1]["content"] for prompt in judge.prompts]
    assert all(GOOD in text and SUM["question"] in text for text in asked)


def test_rollouts_carry_their_parts():
    task = Reasoning(Options(rewards="format:0.2,exact:1"))
    episodes = task.play([SUM, SUM], Says(GOOD, "no"))
    assert [episode.reward for episode in episodes] == [1.0, 0.0]
    assert episodes[0].scores == {"format": 1.0, "exact": 1.0} and episodes[1].turns[0]["reply"] == "no"


def test_a_judge_rewards_each_reply_once_and_where_it_fails_the_reward_is_unknown(tmp_path):
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("Be strict.")
    task = Reasoning(Options(rewards="exact:1,judge:3", judge="some model", rubric=str(rubric)))
    assert task.judge_flag() == "judge" and Reasoning().judge_flag() == ""
    judge = Says("8", "none", "3")
    episodes = task.play([SUM] * 4, Says(GOOD, "no", GOOD, "17"))
    task.grade(episodes, judge)
    assert [episode.reward for episode in episodes] == [
        pytest.approx((1 + 3 * 0.8) / 4),
        None,
        pytest.approx((1 + 3 * 0.8) / 4),
        pytest.approx(3 * 0.3 / 4),
    ]
    assert [episode.scores["judge"] for episode in episodes] == [0.8, None, 0.8, 0.3]
    assert episodes[0].scores["exact"] == 1.0 and episodes[3].turns[0]["judge"] == 0.3
    again = task.play([SUM] * 2, Says(GOOD, "new"))
    task.grade(again, Says("5"))
    assert again[0].scores["judge"] == 0.8 and again[1].scores["judge"] == 0.5
    assert [prompt[-1]["content"].split("Reply: ")[1] for prompt in judge.prompts] == [GOOD, "no", "17"]
    assert {prompt[0]["content"] for prompt in judge.prompts} == {"Be strict."}
    for options in (Options(rewards="judge:1"), Options(judge="some model")):
        with pytest.raises(UsageError, match="needs both --rewards judge:1 and --judge"):
            Reasoning(options).judge_flag()


def test_a_reward_model_judges_replies_as_chats_and_against_each_other():
    class Reward:
        """Prefers long replies."""

        classes = 1

        def scores(self, conversations):
            for question, reply in conversations:
                assert (question, reply["role"]) == (
                    {"role": "user", "content": SUM["question"]},
                    "assistant",
                )
            return torch.tensor([[float(len(reply["content"]))] for _, reply in conversations])

    task = Reasoning(Options(rewards="exact:1,judge:1", judge="a reward model"))
    episodes = task.play([SUM] * 3, Says("no", "yes", "no"))
    task.grade(episodes, Reward())
    win = 1 / (1 + math.exp(-1))
    shares = [(1 + 1 - win) / 3, (0.5 + 2 * win) / 3, (1 + 1 - win) / 3]
    assert [episode.scores["judge"] for episode in episodes] == pytest.approx(shares)
    assert [episode.reward for episode in episodes] == pytest.approx([share / 2 for share in shares])
    metrics, _ = evaluate([SUM, SUM], "no", n=1, judge=Reward())
    assert metrics["grade"] == 2.0 and metrics["graded"] == 1.0


def test_collected_pairs_are_the_best_and_the_worst():
    replies = [{"text": text, "score": score} for text, score in (("a", 0.2), ("b", 1.0), ("c", 0.0))]
    record = {"question": "q", "replies": replies}
    assert Reasoning().collected(record) == [{"question": "q", "chosen": "b", "rejected": "c"}]
    assert Reasoning().collected({"question": "q", "replies": replies[:1] * 3}) == []


@pytest.mark.parametrize(
    "kind, truth, answers, right",
    [
        (
            "number",
            "18",
            ["20", "18", "$18.00", "20", "18 dollars"],
            True,
        ),  # values, not spellings, are counted
        ("number", "18", ["-18", "18", "-$18", "- 18", "18.0"], False),
        ("number", "0.5", ["1/2", "2", "2", ".50", "50%", "\\frac12"], True),
        ("number", "18", ["2 + 2", "18", "2 + 2"], False),
        ("number", "18", ["", "", "18"], True),
        ("number", "18", ["", ""], False),
        ("text", "yes", ["**Yes.**", "no", "yes"], True),
        ("list", "1, 2", ["[1, 2]", "2, 1", "2, 1", "1 2", "1;2"], True),
        ("math", "\\frac{\\sqrt{3}}{2}", ["sqrt(3)/2", "1", "\\sqrt3/2", "1"], True),
    ],
)
def test_votes_are_for_values(kind, truth, answers, right):
    row = {"question": "q", "answer": truth, "kind": kind}
    replies = [write_reply("a", answer) for answer in answers]
    assert evaluate([row], *replies, n=len(replies))[0]["vote"] == right


def test_a_person_sees_votes_for_values():
    shown = []
    player = Says(
        *[write_reply("a", answer) for answer in ("20", "18", "$18.00", "18 dollars", "Rome", "rome.")]
    )
    Reasoning().answer(Players(player, n=6), "q", lambda text, **how: shown.append(text))
    assert shown == ["3 of 6: 18\n2 of 6: Rome\n1 of 6: 20"]


@pytest.mark.parametrize("n", [1, 3])
def test_a_person_asks_and_sees_thoughts_and_answer(n):
    shown = []
    show = lambda text, **how: shown.append(text)
    lines = iter(["What is 9 plus 9?", "quit", "not asked"])
    player, task = Says(GOOD), Reasoning(Options(tests=1))
    task.interact(Players(player, n=n), lambda: next(lines, None), show, "asker", 0)
    assert len(player.prompts) == n and (n == 1 or shown == ["3 of 3: 18"])
    task.interact(Players(player, n=n), None, show, "asker", 0)
    assert task.examples("test")[0]["question"] in shown and len(player.prompts) == 2 * n
