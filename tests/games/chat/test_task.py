"""Chat: which loss follows from the rows, what they teach, what is held out, and how texts are rendered."""

import json
import math

import numpy as np
import pytest

from data import train_tokenizer
from games.chat.task import Options, Talk
from games.chat.world import chats, is_held_out
from games.task import Chat, Judged, Pair, Players, Reply
from recipes import Train, parse
from terminal import UsageError

USER = {"role": "user", "content": "Hi"}
TWO = [USER, {"role": "assistant", "content": "A"}, USER, {"role": "assistant", "content": "B"}]
ROWS = {  # rows by the loss that follows from them
    "sft": lambda i: {"messages": [{"role": "user", "content": f"q {i}"}, *TWO[1:]]},
    "dpo": lambda i: {"prompt": f"q {i}", "chosen": "yes", "rejected": "no"},
    "kto": lambda i: {"prompt": f"q {i}", "completion": "yes", "label": i % 2 == 0},
    "text": lambda i: {"text": f"text {i}"},
    "prompt": lambda i: {"prompt": f"q {i}", "answer": "yes"},
}


@pytest.fixture
def write(tmp_path):
    def write(name, n=40, row=None):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps((row or ROWS[name])(i)) + "\n" for i in range(n)))
        return str(path)

    return write


def call(data, *more):
    return parse(Train, ["--task", "chat", "--model", "x", "--data", data, *more])


# ------------------------------------------------------------------------------------------- losses
@pytest.mark.parametrize("loss", ["sft", "dpo", "kto"])
def test_the_loss_and_its_recipe_follow_from_the_rows(write, loss):
    settings = call(write(loss))
    assert settings.loss == loss and settings.recipe == ("chat-model" if loss == "sft" else f"chat-{loss}")


def test_a_flag_beats_the_rows(write):
    assert call(write("dpo"), "--loss", "simpo").recipe == "chat-simpo"
    assert call(write("dpo"), "--loss", "kto").loss == "kto"
    assert call(write("text")).loss == "sft"
    assert call(write("dpo"), "--recipe", "chat-model").loss == "dpo"
    assert parse(Train, ["--task", "chat"]).loss == "sft"


@pytest.mark.parametrize("rows, loss", [("sft", "dpo"), ("kto", "sft"), ("prompt", "sft"), ("text", "grpo")])
def test_a_loss_that_cannot_learn_from_the_rows_is_a_wrong_call(write, rows, loss):
    with pytest.raises(UsageError, match=f"--loss {loss}: .*line 1"):
        call(write(rows), "--loss", loss)


def test_prompts_alone_need_rewards(write):
    with pytest.raises(UsageError, match="--rewards"):
        call(write("prompt"))
    assert call(write("prompt"), "--rewards", "own.py:f:1").loss == "grpo"


# ------------------------------------------------------------------------------------------- items
def items(data, kind=Chat, **options):
    task = Talk(Options(data=data, **options), 0, kind)
    return [task.items(example, np.random.default_rng(0)) for example in task.examples("train")]


def test_learn_says_which_replies_count(write):
    data = write("sft")
    for learn, last in (("", 4), ("replies", 4), ("all", 4), ("last", 4)):
        for (chat,) in items(data, learn=learn):
            assert chat.learn == (learn or "replies") and len(chat.messages) == last
    rows = [{"prompt": TWO[:3], "completion": "B"}]
    ((chat,), *_) = items(write("one", 40, lambda i: {**rows[0], "prompt": [{**USER, "content": str(i)}]}))
    assert chat.learn == "last"


def test_a_trailing_message_of_the_user_is_kept_unless_only_the_last_reply_counts(write):
    data = write("tail", 40, lambda i: {"messages": [{"role": "user", "content": str(i)}, TWO[1], USER]})
    assert all(len(chat.messages) == 3 for (chat,) in items(data))
    assert all(len(chat.messages) == 2 for (chat,) in items(data, learn="last"))


def test_preferences_become_what_the_loss_learns_from(write):
    data = write("dpo")
    for (pair,) in items(data, Pair):
        assert (pair.chosen, pair.rejected) == ("yes", "no")
    for good, bad in items(data, Judged):
        assert (good.reply, good.good, bad.reply, bad.good) == ("yes", True, "no", False)
    for (chat,) in items(data):
        assert chat.messages[-1] == {"role": "assistant", "content": "yes"} and chat.learn == "last"
    for (judged,) in items(write("kto"), Judged):
        assert judged.reply == "yes" and type(judged.good) is bool


def test_a_system_prompt_is_given_to_those_that_have_none(write):
    own = {"role": "system", "content": "Own."}
    rows = lambda i: {"messages": [own] * (i % 2) + ROWS["sft"](i)["messages"]}
    for (chat,) in items(write("system", 40, rows), system="Be kind."):
        first = chat.messages[0]["content"]
        number = int(chat.messages[1]["content"].split()[1])
        assert first == ("Own." if number % 2 else "Be kind.")


# ------------------------------------------------------------------------------------------- held out
def test_a_twentieth_of_the_prompts_is_held_out_and_of_few_rows_at_least_one(write):
    for n, least, most in ((400, 5, 45), (6, 1, 2)):
        task = Talk(Options(data=write("sft", n)))
        train, test = task.examples("train"), task.examples("test")
        assert least <= len(test) <= most and len(train) + len(test) == n
        assert not {row["prompt"][0]["content"] for row in test} & {
            row["prompt"][0]["content"] for row in train
        }


def test_prompts_of_the_test_rows_are_not_learned(write):
    task = Talk(Options(data=write("sft", 40), test_data=write("test", 10, ROWS["sft"])))
    assert len(task.examples("test")) == 10 and len(task.examples("train")) == 30
    assert task.dropped == {"with a prompt of the test rows": 10}


def test_test_rows_of_another_form_are_an_error_with_its_place(write):
    with pytest.raises(ValueError, match="dpo.jsonl, line 1"):
        Talk(Options(data=write("sft"), test_data=write("dpo")))


# ------------------------------------------------------------------------------------------- texts
def test_every_token_of_a_text_is_learned_and_control_tokens_count_as_such():
    tokenizer = train_tokenizer(["one two three"] * 4, 300)
    end = tokenizer.control["<|end|>"]
    ids, mask = tokenizer.render([{"role": "text", "content": "one<|assistant|>two<|end|>"}], "all")
    assert ids == [
        *tokenizer.encode("one"),
        tokenizer.control["<|assistant|>"],
        *tokenizer.encode("two"),
        end,
    ]
    assert mask == [0] + [1] * (len(ids) - 1)
    assert tokenizer.render([{"role": "text", "content": "one"}], "all")[0][-1] == end


# ------------------------------------------------------------------------------------------- scores
class Parrot:
    """Replies what it is told, and gives each learned token a likelihood of a half."""

    def __init__(self, *replies):
        self.replies = replies

    def reply(self, conversations):
        return [[Reply(self.replies[i % len(self.replies)])] for i in range(len(conversations))]

    def likelihood(self, chats):
        return [(-math.log(2) * 3, 3) for _ in chats]


def test_the_world_is_scored_by_exact_replies():
    task = Talk(Options(tests=8))
    examples = task.examples("test")
    right = Parrot(*[example["completion"] for example in examples])
    result = task.evaluate(examples, Players(right))
    assert (
        result["metrics"]["score"] == result["metrics"]["exact"] == 1
        and next(iter(result["metrics"])) == "score"
    )
    assert result["metrics"]["perplexity"] == pytest.approx(2) and not task.evaluation.lower_is_better
    assert task.evaluate(examples, Players(Parrot("nothing")))["metrics"]["score"] == 0
    assert result["metrics"]["new pair"] == 1 and len(result["records"]) == 8


def test_unscored_rows_are_evaluated_by_their_loss_and_ten_replies_are_shown(write):
    task = Talk(Options(data=write("sft", 40), test_data=write("test", 30, lambda i: ROWS["sft"](i + 100))))
    result = task.evaluate(task.examples("test"), Players(Parrot("well")))
    assert [*result["metrics"]] == ["loss", "perplexity"] and task.evaluation.lower_is_better
    assert len(result["replies"]) <= 10 and {*result["replies"].values()} == {"well"}
    assert [record["reply"] for record in result["records"]] == ["well"] * 10
    twice = task.evaluate(task.examples("test"), Players(Parrot("well"), n=2))
    assert len(twice["records"]) == 20 and twice["n"] == result["n"]


def test_rewards_of_the_users_score_replies(write, tmp_path):
    code = tmp_path / "own.py"
    code.write_text("def right(example, text):\n    return 1.0 * (text == example['answer'])\n")
    task = Talk(Options(data=write("prompt", 40), rewards=f"{code}:right:1"), 0, None)
    episodes = task.play(task.examples("train")[:2], Parrot("yes", "no"))
    assert [episode.reward for episode in episodes] == [1, 0]
    assert task.evaluate(task.examples("test"), Players(Parrot("yes")))["metrics"]["right"] == 1


# ------------------------------------------------------------------------------------------- the world
def test_no_chat_of_the_tests_is_trained_on_whatever_the_seed():
    train = {json.dumps(chat["prompt"]) for seed in range(3) for chat in chats("train", seed, 300)}
    test = [json.dumps(chat["prompt"]) for seed in range(3) for chat in chats("test", seed, 100)]
    assert not train & {*test}
    assert all(is_held_out(chat) for chat in chats("test", 0, 40))


def test_a_quarter_of_the_tests_asks_for_steps_in_an_order_that_training_never_shows():
    families = [chat["family"] for chat in chats("test", 0, 40)]
    assert families.count("new pair") == 10
    assert "new pair" not in {chat["family"] for chat in chats("train", 0, 300)}
