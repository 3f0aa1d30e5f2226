"""Rewards: their parts and weights, and functions of the user's own."""

import math

import pytest

from games import task_class
from games.reasoning.answers import write_reply
from games.reasoning.task import Options, Reasoning
from games.rewards import Rewards, read_rewards, win_shares
from terminal import UsageError

SUM = {"question": "What is 9 plus 9?", "answer": "18", "kind": "number"}
KNOWN = ("format", "exact")
CODE = """
def close(example, text):
    example["answer"] = "changed"
    return 1 / (1 + abs(18 - len(text)))

def fails(example, text):
    raise RuntimeError("no idea")

def bad(example, text):
    return {"nan": float("nan"), "inf": float("inf"), "none": None, "text": "1", "list": [1]}[text]

def yes(example, text):
    return True

other = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own rewards.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize(
    "text",
    ["format", "style:1", "format:x", "", "format:1,format:2", "format:-1", ".py:f:1"],
)
def test_rewards_that_are_none_are_a_wrong_call(text):
    with pytest.raises(UsageError, match="^--rewards"):
        read_rewards(text, KNOWN)


def test_the_score_is_the_weighted_mean_of_the_known_parts():
    rewards = read_rewards("format:0.5,exact:1.5", KNOWN)
    assert rewards.weigh({"format": 1.0, "exact": 0.0}) == (0.25, {"format": 1.0, "exact": 0.0})
    assert rewards.weigh({"format": 1.0, "tests": 0.0}) == (1.0, {"format": 1.0})
    assert rewards.weigh({}) == (0.0, {}) and Rewards().weigh({"format": 1.0}) == (0.0, {})
    assert rewards.weigh({"format": 1.0, "exact": None})[0] is None


def test_a_function_of_the_user_is_a_part_of_the_score(file):
    task = Reasoning(Options(rewards=f"exact:1,{file}:close:3"))
    text = write_reply("9 + 9 = 18.", "18")
    result = task.score(SUM, text)
    closeness = 1 / (1 + abs(18 - len(text)))
    assert result["parts"] == {"exact": 1.0, "close": pytest.approx(closeness)}
    assert result["score"] == pytest.approx((1 + 3 * closeness) / 4)
    assert SUM["answer"] == "18"  # the function got a copy
    episode = task.play([SUM], Says(text))[0]
    assert episode.reward == result["score"] and episode.scores["close"] == pytest.approx(closeness)
    assert read_rewards(f"{file}:yes:1", ()).own(SUM, "") == {"yes": 1.0}


class Says:
    def __init__(self, text):
        self.text = text

    def reply(self, conversations, n=1, **how):
        from games.task import Reply

        return [[Reply(self.text)] for _ in conversations]


def test_own_rewards_count_in_every_game_that_plays(file, tmp_path):
    """ARC: a part beside the program's; 20 Questions: added to the credit of each reply of the game."""
    lengths = tmp_path / "lengths.py"
    lengths.write_text("def length(example, text):\n    return float(len(text))\n")
    arc = task_class("arc")
    task = arc(arc.Options(tests=4, unsafe_exec=True, rewards=f"right:1,{lengths}:length:3"))
    task.runner.judge = lambda questions, programs: (
        [{"answers": None, "right": 1, "verdict": "x"}] * len(programs)
    )
    example = task.examples("test")[0]
    (episode,) = task.play([example], Says("def task(x): return x"))
    assert episode.scores["length"] == 21.0 and episode.reward == 3 * 21 / 4 and episode.scores["right"] == 0
    with pytest.raises(UsageError, match="known: right, shown, memorised"):
        arc(arc.Options(rewards="rigth:1"))

    twentyq = task_class("20q")
    plain = twentyq(twentyq.Options())
    task = twentyq(twentyq.Options(rewards=f"{lengths}:length:0.5"))
    example = task.examples("train")[0]
    asks = Says("Is it alive?")
    asks.seed = [0]
    (without,) = plain.rollout([example], asks)
    (episode,) = task.rollout([example], asks)
    texts = [f"{turn['question']} {turn['answer']} {turn['guess']}" for turn in episode.turns]
    more = 0.5 * len("\n".join(texts))
    assert episode.scores["length"] == 2 * more and episode.reward == without.reward + more
    assert episode.credits == pytest.approx([credit + more for credit in without.credits])


def test_a_function_that_fails_is_an_error_with_its_row(file):
    with pytest.raises(ValueError, match="--rewards fails: RuntimeError: no idea.*What is 9 plus 9"):
        Reasoning(Options(rewards=f"{file}:fails:1")).score(SUM, "x")
    rewards = read_rewards(f"{file}:bad:1", ())
    for text in ("nan", "inf", "none", "text", "list"):
        with pytest.raises(ValueError, match="must return a finite number, not .*What is 9"):
            rewards.own(SUM, text)


def test_a_file_without_the_function_or_that_does_not_run_is_a_wrong_call(file, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:\n")
    raises = tmp_path / "raises.py"
    raises.write_text("1 / 0")
    for text, why in (
        (f"{file}:missing:1", "no function missing"),
        (f"{file}:other:1", "no function other"),
        (f"{tmp_path / 'none.py'}:close:1", "no such file"),
        (f"{broken}:f:1", "SyntaxError"),
        (f"{raises}:f:1", "ZeroDivisionError"),
        (f"exact:1,{file}:exact:1", "another part of the name"),
        (f"{file}:close:1,{file}:close:1", "another part of the name"),
    ):
        with pytest.raises(UsageError, match=why):
            read_rewards(text, KNOWN)


def test_weights_are_numbers(file):
    assert read_rewards(f"{file}:close:.5", ()).weights == {"close": 0.5}
    assert math.isclose(read_rewards("exact:0.25", KNOWN).weights["exact"], 0.25)


def test_the_scores_of_a_reward_model_become_shares_of_wins():
    """Within a question, with itself as half a win, whatever is added to the scores of all replies to it."""
    win = 1 / (1 + math.exp(-1))
    found = win_shares([3.0, 900.0, 2.0, -900.0, 7.0], ["q", "r", "q", "r", "s"])
    assert found == pytest.approx([(0.5 + win) / 2, 0.75, (0.5 + 1 - win) / 2, 0.25, 0.5])
    assert win_shares([-17.0, -18.0], ["q", "q"]) == pytest.approx([found[0], found[2]])
