"""What a game is to the rest of the program: the class Task, and small classes for what only some games do.

Nothing here or in any game knows torch. An *example* is a plain dict, a *message* is {"role", "content"}, a
*conversation* is a list of messages that ends with the user's. An *agent* is anything with one of

    reply(conversations, n=1) -> for each conversation a list of at most n Replies, best first
    choose(conversations, choices) -> for each conversation the log-probability of each choice
    classify(conversations) -> the probability of each class (N, classes)
    embed(texts, kind) -> a vector of each text (N, width), as a "query" or a "document"

A new game needs examples, items, prompt and score, and inherits everything else; reading order: the items,
Reply and Episode, Task, then the classes behind it when a game wants more."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


# ------------------------------------------------------------------------------------------------ training it
@dataclass
class Chat:
    """A conversation to imitate. `learn` says which tokens count: the last reply, every reply, or the whole
    text."""

    messages: list
    learn: str = "replies"  # last | replies | all
    shorten: Callable | None = None  # (fits) -> a shorter Chat, for one that is too long; fits(chat) -> bool


@dataclass
class Label:
    """A text and its class. Its messages may be several of one role, the parts of an encoder's input, and
    have a "share": how much of them is left where they are too long (data.Tokenizer.fitted)."""

    messages: list
    target: int | list  # a class index or a distribution


@dataclass
class Duel:
    """Two texts, each judged by itself, and which is better: 0 the first, 1 the second, 2 neither, or a
    distribution over these."""

    first: list
    second: list
    target: int | list


@dataclass
class Pair:
    """Two replies to a conversation, one of which is preferred."""

    messages: list
    chosen: str
    rejected: str


@dataclass
class Judged:
    """A reply to a conversation, and whether it is good."""

    messages: list
    reply: str
    good: bool


@dataclass
class Contrast:
    """A query, the text that it should find, and texts that it should not."""

    query: str
    positive: str
    negatives: list
    label_id: int | None = None  # the positive's label, from 0; texts of one label do not count against it
    scores: list | None = None  # a teacher's scores of the positive and the negatives (--distil)


# ------------------------------------------------------------------------------------------------ play
@dataclass
class Reply:
    """What an agent said: text, and from a model the ids it sampled, their log-probabilities under the model
    at temperature 1, and the ids of the prompt before them."""

    text: str
    ids: list = field(default_factory=list)
    logps: list = field(default_factory=list)
    finished: bool = True  # it stopped by itself, not at the length limit
    prompt: list = field(default_factory=list)

    @property
    def logp(self):
        return sum(self.logps)


@dataclass
class Episode:
    """One game played: the example, its turns as dicts, the agent's Replies, the reward, and the parts of the
    reward by name."""

    example: dict
    turns: list
    replies: list = field(default_factory=list)
    reward: float = 0.0
    scores: dict = field(default_factory=dict)
    credits: list = field(default_factory=list)  # one for each reply, where they differ from the reward


@dataclass
class Players:
    """Who takes part in an evaluation, and how; train.py and infer.py make it."""

    player: object = None  # the agent at hand
    named: dict = field(default_factory=dict)  # flag -> the agent that it names; a list flag: name -> agent
    n: int = 1  # replies to each prompt
    total: int = 0  # replies over all shares, where n is one of several (ttt.py)
    trained_on: frozenset = frozenset()  # ids of examples that the player's model was trained on


@dataclass(frozen=True)
class Evaluation:
    """How a game is evaluated where no flag says otherwise."""

    n: int = 1  # replies to each prompt
    temperature: float = 0.0  # 0 takes the likeliest token
    max_new: int = 24  # longest reply in tokens
    varied: bool = False  # games about one example differ even at temperature 0
    lower_is_better: bool = False  # for the first metric that evaluate() returns


# ------------------------------------------------------------------------------------------------ its flags
def flag(default, **marks):
    """A field of a game's Options with marks, which recipes.py and infer.py read:

    agent="reply" | "classify": names an agent, which infer.py opens. With it go: words=(...), values that
        name none; max_new=16; endpoint={"model" | "workers" | "price": name of the flag that says so};
        plays="eval" | "collect": what it names plays there instead of, or beside, --run or --model
    as_trained=True: a run is played and evaluated with the value that it was trained with
    cosmetic=True: changes no result, so a killed evaluation may go on with another value
    share=True: a share, between 0 and 1"""
    return field(default=default, metadata=marks)


# ------------------------------------------------------------------------------------------------ contract
PHRASES = r"\n|[^\n:]*: |[^\n:]+|:"  # pre-tokens: text is cut at line ends and after ": " only


class Task:
    """A game, made for one kind of item. The first ones below are what a new game gives; the others have
    defaults for games of one prompt and one reply."""

    loss = "sft"  # the objective of train.py without --loss
    evaluation = Evaluation()
    pre_tokens = PHRASES  # regex: the merges of a new tokenizer never cross these pieces

    @dataclass
    class Options:
        """The game's own command-line flags."""

    def __init__(self, options=None, seed=0, kind=Chat):
        self.options, self.seed = options or self.Options(), seed
        self.kind = kind  # the items that the loss at hand learns from; None where it learns from games
        self.dropped = Counter()  # reason -> rows of the user's data that were left out

    def examples(self, split):
        """The examples of "train", "valid" or "test", in the same order every time: list of dicts."""
        raise NotImplementedError

    def items(self, example, rng):
        """What an example teaches this time, a list of items of self.kind. Augmentation uses `rng`."""
        raise NotImplementedError

    def prompt(self, example):
        """The conversation that asks for an answer; it never depends on the gold answer."""
        raise NotImplementedError

    def score(self, example, reply):
        """{"score": 0..1, ...} of a reply's text: the metric and the reward."""
        raise NotImplementedError

    def texts(self):
        """What a new tokenizer for this game is trained on: list of str. A text must stand there twice to
        become tokens of its own."""
        rng = np.random.default_rng(0)
        items = [item for example in self.examples("train") for item in self.items(example, rng)]
        return sorted({message["content"] for item in items for message in item.messages})

    def play(self, examples, player):
        """One prompt, one reply: list of Episodes. Reinforcement learns from them too."""
        replies = player.reply([self.prompt(example) for example in examples])
        episodes = []
        for example, (reply, *_) in zip(examples, replies):
            result = self.score(example, reply.text)
            turns = [{"reply": reply.text, **result}]
            episodes.append(Episode(example, turns, [reply], result["score"], result))
        return episodes

    def evaluate(self, examples, players):
        """{"n", "metrics", "intervals", "baselines", "records"} of players.player on examples; the first
        metric is the main one."""
        episodes = self.play(examples, players.player)
        score = float(np.mean([episode.reward for episode in episodes]))
        return {
            "n": len(episodes),
            "metrics": {"score": score},
            "intervals": {},
            "baselines": {},
            "records": [episode.turns for episode in episodes],
        }


# ------------------------------------------------------------------------------------------------ for some
class Rollouts:
    """Reinforcement learns from other games than those of `play`."""

    def rollout(self, examples, player):
        """One game about each example, every reply sampled by the player: list of Episodes."""
        raise NotImplementedError


class Classifies:
    """Learns from Labels."""

    labels = 2  # classes


class HasBank:
    """Learns from Contrasts whose labels are known beforehand (--bank)."""

    def bank(self):
        """The texts of all labels, by label_id."""
        raise NotImplementedError


class TracksTraining:
    """Trains on data that others evaluate on: what a model saw is kept beside it, as ids of examples."""

    def trained_on(self):
        """The ids of the training examples."""
        raise NotImplementedError

    def tests_for(self, n, trained_on):
        """The first n test examples, 0 takes all, for a model that was trained on some ids. ValueError where
        it was trained on one of them."""
        return refuse_seen(first(self.examples("test"), n), trained_on)


class HasAgents:
    """Has players of its own, which flags that name agents may name."""

    def agent_named(self, name, open_agent):
        """The game's own agent of this name, or None; open_agent(name) opens another that is a part of it."""
        raise NotImplementedError


class Interactive:
    """Can be played by a person in the terminal."""

    seats = ("asker", "answerer")  # the model's seats, the usual one first

    def needs_model(self):
        """Whether infer.py must open a model for this play."""
        return True

    def interact(self, players, read, show, seat, seed):
        """Play: read() gives the line typed, or None at the end, and is None itself where nobody is there;
        show(line) prints (painted=True: the line has colours of our own). Returns the games played, as rows,
        or None."""
        raise NotImplementedError


class Attempts:
    """Makes a record of each example, so that long work goes on after a kill."""

    def attempt(self, examples, players):
        """Yield (place, record) of each example as it ends."""
        raise NotImplementedError

    def lines(self, record):
        """What eval shows of a record as it ends: list of str."""
        return []


class EvaluatesRecords(Attempts):
    """Is evaluated by the records of its attempts."""

    def summary(self, records, players):
        """What `evaluate` returns, from all records."""
        raise NotImplementedError

    def files(self, records):
        """What eval writes beside its report: {ending of the name: what json can write}."""
        return {}

    def evaluate(self, examples, players):
        records = [record for _, record in self.attempt(examples, players)]
        return self.summary(records, players)


class LearnsAtTestTime(EvaluatesRecords):
    """Can train on what its test tasks show (ttt.py)."""

    def attempt(self, examples, players, records=None):
        """As in Attempts; with records there are, players.n more replies go into these."""
        raise NotImplementedError

    def lessons(self, examples, records):
        """Examples to learn from before a test is answered, given the records so far; no output of a test."""
        raise NotImplementedError


class Collects(Attempts):
    """Its replies teach something: `infer.py collect`."""

    collect_split = "train"  # the split whose examples are collected from

    def collected(self, record):
        """Rows for --data that a record of `attempt` makes."""
        raise NotImplementedError

    def tally(self, records):
        """Lines that collect prints about all its records."""
        return []


class Mines:
    """Collects rows in one go: hard negatives, or what a model says of the training examples."""

    def mined(self, players, limit):
        """(rows for --data, rows with the texts of all labels or None) from the first `limit` examples."""
        raise NotImplementedError


class SubmitsPredictions:
    """Makes a submission from the predictions that eval wrote."""

    def submit(self, path):
        """What json can write, checked against --data."""
        raise NotImplementedError


class SubmitsRows:
    """Makes a submission that is a CSV file from a model."""

    def submission(self, players):
        """The rows, dicts of cells, for the test rows of --data, checked."""
        raise NotImplementedError


class SubmitsProgram:
    """Its submission is a program that plays with the model."""

    def package(self, out, folder, format, settings):
        """Write the program with the model of `folder` to `out`; settings: agents.Model's keywords."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------------------ shared help
def first(examples, n):
    """The first n of a list, all for n = 0."""
    return examples[:n] if n else examples


def refuse_seen(examples, trained_on):
    """The examples; ValueError where a model was trained on some of them."""
    both = [example["id"] for example in examples if example.get("id") in trained_on]
    if both:
        raise ValueError(
            f"{len(both):,} of {len(examples):,} examples are among those that the model was trained on "
            f"({both[0]}), so a result on them says nothing: take others, or a model that never saw them"
        )
    return examples


def tests_for(task, n, trained_on=frozenset()):
    """The test examples that a model is evaluated on: the first n, those it was trained on left alone."""
    if isinstance(task, TracksTraining):
        return task.tests_for(n, trained_on)
    return first(task.examples("test"), n)
