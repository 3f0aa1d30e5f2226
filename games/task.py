"""The contract between a game and the rest of the program: the class Task, and a small class for each ability
that only some games have.

No game imports torch. An *example* is a plain dict, a *message* is {"role", "content"}, and a *conversation*
is a list of messages that ends with a message of the user. An *agent* has at least one of these methods:

    reply(conversations, n=1) -> for each conversation a list of at most n Replies, best first
    choose(conversations, choices) -> for each conversation the log-probability of each choice
    classify(conversations) -> class probabilities (N, classes)
    embed(texts, kind) -> vectors (N, width); kind is "query" or "document"

A new game writes examples, items, prompt and score, and inherits everything else. Read in this order: the
items, Reply and Episode, Task, and then the abilities, when your game wants one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from files import COUNT, NUMBER, TEXT, Kind, check_fields, either, list_of, map_of, one_of, read_json


# ------------------------------------------------------------------------------------------------ items
# What an example teaches. Each kind of loss learns from one kind of item.
@dataclass
class Chat:
    """A conversation to imitate. `learn` says which tokens count in the loss: those of the last reply, of
    every reply, or of the whole text."""

    messages: list
    learn: str = "replies"  # last | replies | all
    shorten: Callable | None = None  # (fits) -> a shorter Chat, for one that is too long; fits(chat) -> bool


@dataclass
class Label:
    """A text and its class. Several messages of one role are the parts of an encoder's input. A message may
    have a "share", its weight when all of them must be cut to fit into --max-tokens (data.py)."""

    messages: list
    target: int | list  # a class index or a distribution


@dataclass
class Duel:
    """Two texts, each judged by itself, and which one is better: 0 the first, 1 the second, 2 neither, or a
    distribution over these three."""

    first: list
    second: list
    target: int | list


@dataclass
class Ranked(Duel):
    """Two chats that end in replies, each judged by itself, of which the first is better."""

    target: int = 0


@dataclass
class Pair:
    """Two replies to a conversation, the preferred one and the other."""

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
    """A query, the text that it should find, and texts that it should not find."""

    query: str
    positive: str
    negatives: list
    label_id: int | None = None  # number of the positive's label; texts of the same label are no negatives


# ------------------------------------------------------------------------------------------------ playing
@dataclass
class Reply:
    """An agent's answer. A model's reply also has the ids that it sampled, so that nobody has to tokenise the
    text again, their log-probabilities at temperature 1, and the ids of the prompt."""

    text: str
    ids: list = field(default_factory=list)
    logps: list = field(default_factory=list)
    finished: bool = True  # False: cut off at the length limit
    prompt: list = field(default_factory=list)

    @property
    def logp(self):
        return sum(self.logps)


@dataclass
class Episode:
    """A finished game: the example, the turns as dicts, the agent's Replies, the reward, and the parts of the
    reward by name."""

    example: dict
    turns: list
    replies: list = field(default_factory=list)
    reward: float | None = 0.0  # None: unknown, so nothing is learned from the game
    scores: dict = field(default_factory=dict)
    credits: list = field(default_factory=list)  # a reward for each reply, where they are not all `reward`


@dataclass
class Players:
    """The agents of an evaluation. train.py and infer.py make it."""

    player: object = None  # the agent under test
    named: dict = field(default_factory=dict)  # flag -> the agent that it names; a list flag: name -> agent
    n: int = 1  # replies to each prompt
    trained_on: frozenset = frozenset()  # ids of the examples that the player's model was trained on


@dataclass(frozen=True)
class Evaluation:
    """How a game is evaluated unless a flag says otherwise."""

    n: int = 1  # replies to each prompt
    temperature: float = 0.0  # 0 takes the most likely token
    max_new: int = 24  # longest reply in tokens
    varied: bool = False  # two games about the same example differ even at temperature 0
    lower_is_better: bool = False  # for the first metric that evaluate() returns


# ------------------------------------------------------------------------------------------------ flags
def flag(default, **marks):
    """A field of a game's Options with marks. recipes.py and infer.py read the marks, so that they need not
    know any flag of a game by name:

    agent="reply" | "classify": the flag names an agent, which infer.py opens. More marks of such a flag are
        words=(...), values that name no agent; max_new=16; endpoint={"model" | "workers" | "price": the flag
        that holds it}; and plays="eval submit": in these verbs the agent plays instead of, or beside, the
        model of --run or --model
    instruct="...": what a reranker is told to find
    as_trained=True: a run is played and evaluated with the value that it was trained with
    code=True: may name a file of Python code, so its value is never taken from a run.json
    cosmetic=True: does not change the result, so a killed evaluation may go on with another value
    share=True: a number from 0 to 1
    least=1: the smallest value, if not 0"""
    return field(default=default, metadata=marks)


# ------------------------------------------------------------------------------------------------ contract
PHRASES = r"\n|[^\n:]*: |[^\n:]+|:"  # pre-tokens that end only at line breaks and after ": "


class Task:
    """A game, made for one kind of item. A new game overrides the methods that raise NotImplementedError; the
    defaults of the others suit a game with one prompt and one reply."""

    loss = "sft"  # the objective of train.py without --loss
    evaluation = Evaluation()
    pre_tokens = PHRASES  # regex of pre-tokens: the merges of a new tokenizer never cross them

    @dataclass
    class Options:
        """The game's own command-line flags."""

    def __init__(self, options=None, seed=0, kind=Chat):
        self.options = options or self.Options()
        self.seed = seed
        self.kind = kind  # the kind of item that the loss learns from; None where it learns from games
        self.dropped = Counter()  # reason -> how many rows of the user's data were left out

    def examples(self, split: str) -> list:
        """The examples (dicts) of "train", "valid" or "test", in the same order every time."""
        raise NotImplementedError

    def items(self, example: dict, rng) -> list:
        """The items of self.kind that an example teaches this time. Random augmentation uses `rng` only."""
        raise NotImplementedError

    def prompt(self, example: dict) -> list:
        """The conversation that asks for an answer. It must not depend on the gold answer."""
        raise NotImplementedError

    def score(self, example: dict, reply: str) -> dict:
        """{"score": 0..1, ...} for the text of a reply. It is both the metric and the reward."""
        raise NotImplementedError

    def texts(self) -> list:
        """The texts that train a new tokenizer for this game. A phrase must occur in it at least twice to
        become a token; without pre_tokens, a text that is there data.OFTEN times becomes one in any case."""
        rng = np.random.default_rng(0)
        texts = set()
        for example in self.examples("train"):
            for item in self.items(example, rng):
                texts |= {message["content"] for message in item.messages}
        return sorted(texts)

    def play(self, examples: list, player) -> list:
        """Play one prompt and one reply for each example, and return the Episodes. Reinforcement learning
        learns from them too."""
        replies = player.reply([self.prompt(example) for example in examples])
        episodes = []
        for example, (reply, *_) in zip(examples, replies):
            result = self.score(example, reply.text)
            turns = [{"reply": reply.text, **result}]
            episodes.append(Episode(example, turns, [reply], result["score"], result))
        return episodes

    def evaluate(self, examples: list, players: Players) -> dict:
        """Evaluate players.player: {"n", "metrics", "intervals", "baselines", "records"}. The first metric is
        the main one: it decides which checkpoint is the best."""
        episodes = self.play(examples, players.player)
        score = float(np.mean([episode.reward for episode in episodes]))
        return {
            "n": len(episodes),
            "metrics": {"score": score},
            "intervals": {},
            "baselines": {},
            "records": [episode.turns for episode in episodes],
        }


# ------------------------------------------------------------------------------------------------ abilities
# A game inherits from the classes whose methods it has; a verb of infer.py asks isinstance.
class FollowsData:
    """Learns by a loss that follows from the user's data."""

    @classmethod
    def loss_for(cls, options, asked: str) -> str:
        """The loss for the data that the options name. asked: that of --loss or a recipe, "" without one.
        Raises UsageError for one that cannot learn from these data."""
        raise NotImplementedError


class Rollouts:
    """Reinforcement learning plays games of its own, not those of `play`."""

    def rollout(self, examples: list, player) -> list:
        """Play one game about each example, where the player samples every reply. Returns the Episodes."""
        raise NotImplementedError


class HasJudge:
    """A judge may grade the games that it learns from."""

    def judge_flag(self) -> str:
        """The name of the flag that names this judge (see `flag`), or "" if no reward needs one."""
        raise NotImplementedError

    def grade(self, episodes: list, judge):
        """Set the reward of each Episode, with the judge's opinion as a part of it."""
        raise NotImplementedError


class Classifies:
    """Learns from Labels."""

    labels = 2  # number of classes


class HasBank:
    """Learns from Contrasts whose labels are all known beforehand (--bank)."""

    def bank(self) -> list:
        """The texts of all labels; label_id is the index into it."""
        raise NotImplementedError


class TracksTraining:
    """Trains on data that others evaluate on. A checkpoint therefore keeps the ids of the examples that its
    model has seen."""

    def trained_on(self) -> list:
        """The ids of the training examples."""
        raise NotImplementedError

    def tests_for(self, n: int, trained_on) -> list:
        """The first n test examples (n = 0: all), or ValueError if the model was trained on one of them."""
        examples = first(self.examples("test"), n)
        seen = [example["id"] for example in examples if example.get("id") in trained_on]
        if seen:
            raise ValueError(
                f"{len(seen):,} of {len(examples):,} examples are among those that the model was trained on "
                f"({seen[0]}), so a result on them says nothing: take others, or a model that never saw them"
            )
        return examples


class HasAgents:
    """Has agents of its own, which a flag may name."""

    def agent_named(self, name: str, open_agent):
        """The game's own agent of this name, or None. open_agent(name) opens another agent that it needs."""
        raise NotImplementedError


class Interactive:
    """A person can play it in the terminal."""

    seats = ("asker", "answerer")  # the seats that the model can take, the usual one first

    def needs_model(self) -> bool:
        """Whether infer.py must open a model for this play."""
        return True

    def interact(self, players, read, show, seat, seed):
        """Play with a person. read() returns the next line, or None at the end of input; read itself is None
        where no person is there. show(line) prints.
        Returns the games as rows, or None."""
        raise NotImplementedError


class Attempts:
    """Makes one record for each example, so that long work can go on after a kill."""

    def attempt(self, examples: list, players: Players):
        """Yield (index of the example, its record) as soon as an example is finished."""
        raise NotImplementedError

    def lines(self, record: dict) -> list:
        """The lines that eval --verbose prints for a finished record."""
        return []


class EvaluatesRecords(Attempts):
    """Its evaluation is a summary of the records of its attempts."""

    def summary(self, records: list, players: Players) -> dict:
        """The result of `evaluate`, from all records."""
        raise NotImplementedError

    def files(self, records: list) -> dict:
        """The files that eval writes beside its report: {ending of the file name: content for json}."""
        return {}

    def evaluate(self, examples: list, players: Players) -> dict:
        records = [record for _, record in self.attempt(examples, players)]
        return self.summary(records, players)


class LearnsAtTestTime(EvaluatesRecords):
    """Can train on the demonstrations of its test tasks (ttt.py)."""

    def attempt(self, examples, players, records=None):
        """As in Attempts. Given records, it adds players.n more replies to them."""
        raise NotImplementedError

    def lessons(self, examples: list, records: list) -> list:
        """Training examples made from test tasks and the records so far, but never from a test's output."""
        raise NotImplementedError


class Collects(Attempts):
    """Its replies become training data: `infer.py collect`."""

    collect_split = "train"  # the split of the examples to collect from

    def collected(self, record: dict) -> list:
        """The rows for --data that a record of `attempt` gives."""
        raise NotImplementedError

    def tally(self, records: list) -> list:
        """The lines that collect prints about all its records."""
        return []


class Mines:
    """Collects all rows at once: hard negatives, or a model's opinion of the training examples."""

    def mined(self, players: Players, limit: int) -> tuple:
        """(rows for --data, rows with the texts of all labels or None), from the first `limit` examples."""
        raise NotImplementedError


class SubmitsPredictions:
    """Its submission is made from the predictions that eval wrote."""

    def submit(self, path):
        """The submission, as content for json, checked against --data."""
        raise NotImplementedError


class SubmitsRows:
    """Its submission is a CSV file that a model fills."""

    def submission(self, players: Players) -> list:
        """One dict of cells for each test row of --data, checked."""
        raise NotImplementedError


class SubmitsProgram:
    """Its submission is a program that plays with the model."""

    def package(self, out, folder, format, settings):
        """Write the program and the model in `folder` to `out`. settings: keyword arguments of
        agents.Model."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------------------ helpers
REPORT = {  # of a file that holds what `evaluate` returns
    "task": TEXT,
    "n": COUNT,
    "metrics": map_of(NUMBER),
    "intervals": map_of(either(list_of(NUMBER, 2), one_of(None))),
    "baselines": map_of(NUMBER),
    "records": Kind("a list that is not empty", lambda x: type(x) is list and x),
}


def read_report(path, *required) -> dict:
    """An evaluation that train.py or infer.py wrote. required: fields that it must have; without any, the
    report is {} if there is no file."""
    return check_fields(path, read_json(path, default=None if required else {}), REPORT, required)


def first(examples: list, n: int) -> list:
    """The first n examples; n = 0 means all."""
    return examples[:n] if n else examples


def tests_for(task: Task, n: int, trained_on=frozenset()) -> list:
    """The first n test examples, checked against the ids that the model was trained on."""
    if isinstance(task, TracksTraining):
        return task.tests_for(n, trained_on)
    return first(task.examples("test"), n)
