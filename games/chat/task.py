"""Chat: a model learns to talk, from chats, preferences, judged replies, texts, or rewards of the user's.

files.py reads the user's rows, world.py makes chats whose answers can be checked, terminal.py talks with a
person. This file says where examples come from, what they teach under each loss, and how a model is
evaluated: by the scores of its replies where they can be scored, and by the loss of what is held out."""

import json
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from games.chat import world
from games.chat.files import FORMS, form_at, read_chats
from games.chat.terminal import Dialogue, talk
from games.rewards import Rewards, read_rewards
from games.rows import hold_out
from games.stats import mean_interval, wilson
from games.task import Chat, Evaluation, FollowsData, Interactive, Judged, Pair, Task, flag
from terminal import UsageError

SHOWN = 10  # replies that an evaluation shows


@dataclass
class Options:
    # your own rows | train eval rows
    data: str = ""  # chats, preferences, prompts or texts (games/chat/files.py); else the world's
    rows: str = ""  # slice of --data, such as 0:1000
    test_data: str = ""  # rows to evaluate on; else a twentieth of --data, kept out of training
    on_bad_row: Literal["refuse", "drop"] = "refuse"  # rows with tools, images and the like; drop counts them
    learn: Literal["", "last", "replies", "all"] = ""  # what is learned; default: all replies of messages
    # the chat | train eval play
    system: str = flag("", as_trained=True)  # system prompt of your rows that have none, and of play
    # embedded chats | train eval play
    problems: int = 50_000  # training chats
    tests: int = 400  # test chats; a quarter ask for two steps in an order that training never shows
    # scores | train eval
    rewards: str = flag("", code=True)  # exact:WEIGHT or FILE.py:FUNCTION:WEIGHT; the world's: exact:1


class Talk(FollowsData, Interactive, Task):
    Options = Options
    # a word with the space before it, a digit, white space, or any other character
    pre_tokens = r" ?\p{L}+|\p{N}|\s|[^\s\p{L}\p{N}]"
    evaluation = Evaluation(max_new=256)
    seats = ("assistant",)

    def __init__(self, options=None, seed=0, kind=Chat):
        super().__init__(options, seed, kind)
        options = self.options
        source = options.data or options.test_data
        self.rewards = Rewards()
        if options.rewards or not source:
            self.rewards = read_rewards(options.rewards or "exact:1", ["exact"])
        self.form = ("messages",)  # of all examples, a key of FORMS
        self.splits = {}
        if source:
            _, self.form = form_at(source, options.rows, "train" if options.data else "test")
            more = self.form, self.dropped, options.system, options.on_bad_row == "drop"
            rows = [*read_chats(options.data, options.rows, "train", *more)] if options.data else []
            tests = [*read_chats(options.test_data, "", "test", *more)] if options.test_data else None
            self.splits = hold_out(rows, tests, prompt_text, self.dropped)
        by_loss = not (self.rewards.weights or "chosen" in self.form)
        self.evaluation = Evaluation(max_new=256, lower_is_better=by_loss)

    @classmethod
    def loss_for(cls, options, asked):
        if not options.data:
            return asked or cls.loss
        where, form = form_at(options.data, options.rows)
        loss = asked or FORMS[form][0]
        if loss not in FORMS[form]:
            raise UsageError(f"--loss {loss}: {where} suits {', '.join(FORMS[form])} ({', '.join(form)})")
        if loss == "grpo" and not options.rewards:
            raise UsageError(f"{where}: --loss grpo needs --rewards FILE.py:FUNCTION:1")
        return loss

    # -------------------------------------------------------------------------------------------- examples
    def examples(self, split):
        if split not in self.splits:
            n = self.options.problems if split == "train" else self.options.tests
            self.splits[split] = world.chats(split, self.seed, n)
        return self.splits[split]

    def prompt(self, example):
        return example["prompt"]

    # -------------------------------------------------------------------------------------------- training
    def items(self, example, rng):
        """What an example teaches. A preferred and another reply give a Pair or two Judged replies, whatever
        the loss learns from, and for imitation the preferred one alone."""
        if self.kind is Pair:
            return [Pair(example["prompt"], example["chosen"], example["rejected"])]
        if self.kind is Judged:
            goods = {"completion": example.get("label")}
            if "chosen" in example:
                goods = {"chosen": True, "rejected": False}
            return [Judged(example["prompt"], example[name], good) for name, good in goods.items()]
        return [self.lesson(example)]

    def lesson(self, example, column=""):
        """The Chat to imitate, with the reply of this column if one is named."""
        learn = self.options.learn
        if "text" in example:
            return Chat([{"role": "text", "content": example["text"]}], "all")
        if "messages" in example and learn != "last":
            return Chat(example["messages"], learn or "replies")
        reply = example[column or ("chosen" if "chosen" in example else "completion")]
        return Chat([*example["prompt"], {"role": "assistant", "content": reply}], learn or "last")

    # -------------------------------------------------------------------------------------------- scores
    def score(self, example, text):
        """The weighted mean of the rewards: whether the reply is the one of the example, and the user's
        functions."""
        exact = text.strip() == example.get("completion", example.get("chosen", "")).strip()
        score, parts = self.rewards.weigh({"exact": float(exact), **self.rewards.own(example, text)})
        return {"score": score} | parts | {"score": score}  # the main metric stands first

    def evaluate(self, examples, players):
        metrics = {}
        intervals = {}

        def add_mean(name, values):
            metrics[name] = float(np.mean(values))
            is_rate = {*values} <= {0, 1}
            intervals[name] = wilson(int(sum(values)), len(values)) if is_rate else mean_interval(values)

        # where nothing scores replies there are only some, to read
        count = len(examples) if self.rewards.weights else SHOWN
        asked = [row for row in examples[:count] if "prompt" in row]
        games = self.play([row for row in asked for _ in range(players.n)], players.player)
        for name in games[0].scores if games and self.rewards.weights else ():
            add_mean(name, [game.scores[name] for game in games])
        for family in sorted({game.example.get("family", "") for game in games} - {""}):
            add_mean(family, [game.reward for game in games if game.example["family"] == family])

        # of judged replies the good ones count
        good = [row for row in examples if "label" not in self.form or row["label"]]
        if good and self.form != ("prompt",):
            measured = players.player.likelihood([*map(self.lesson, good)])
            if "chosen" in self.form:
                others = players.player.likelihood([self.lesson(row, "rejected") for row in good])
                add_mean("preferred", [float(one > other) for (one, _), (other, _) in zip(measured, others)])
            metrics["loss"] = -sum(logp for logp, _ in measured) / max(1, sum(n for _, n in measured))
            metrics["perplexity"] = math.exp(metrics["loss"])

        records = [game.example | game.turns[0] for game in games] or examples
        replies = {row["prompt"][-1]["content"]: row["reply"] for row in records[:SHOWN] if "reply" in row}
        result = {"n": len(examples), "metrics": metrics, "intervals": intervals, "baselines": {}}
        return result | {"replies": replies, "records": records}

    # -------------------------------------------------------------------------------------------- terminal
    def interact(self, players, read, show, seat, seed):
        """A chat with a person; with nobody there (read is None) the model answers one test prompt."""
        if players.n > 1:
            raise UsageError("play: a chat takes one reply at a time, without --n")
        dialogue = Dialogue(players.player, show, self.options.system)
        if read:
            return talk(dialogue, read)
        text = self.examples("test")[0]["prompt"][-1]["content"]
        show(text)
        dialogue.say(text)


def prompt_text(example):
    """What examples of one prompt have in common."""
    return example["text"] if "text" in example else json.dumps(example["prompt"])
