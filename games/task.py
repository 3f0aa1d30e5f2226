"""What a game is to the rest of the program: a Task that gives examples, training items, prompts and scores.

Nothing here or in any game knows torch. An *example* is a plain dict, a *message* is {"role", "content"}, a
*conversation* is a list of messages that ends with the user's. An *agent* is anything with

    reply(conversations, n=1) -> for each conversation a list of at most n Replies, best first (a game may ask
        for what agents.Model can besides: begin, until, watch, seconds)
    choose(conversations, choices) -> for each conversation the log-probability of each choice
    classify(conversations) -> the probability of each class (N, classes)
    embed(texts, kind) -> a vector of each text (N, width), as a "query" or a "document"
"""

import math
from dataclasses import dataclass, field

import numpy as np


# ------------------------------------------------------------------------------------------------ training it
@dataclass
class Chat:
    """A conversation to imitate. `learn` says which tokens count: the last reply, every reply, or the whole
    text."""

    messages: list
    learn: str = "replies"  # last | replies | all


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
    messages: list
    chosen: str
    rejected: str


@dataclass
class Judged:
    messages: list
    reply: str
    good: bool


@dataclass
class Contrast:
    query: str
    positive: str
    negatives: list
    label_id: int | None = (
        None  # of the positive, from 0 on; texts of one label do not count against each other
    )
    scores: list | None = None  # a teacher's of the positive and the negatives (--distil)


# ------------------------------------------------------------------------------------------------ play
@dataclass
class Reply:
    """What an agent said: text, and from a model the ids it sampled, their log-probabilities (its own, and
    those of the distribution they were drawn from), and the ids of the prompt before them."""

    text: str
    ids: list = field(default_factory=list)
    logps: list = field(default_factory=list)
    drawn_logps: list = field(default_factory=list)
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
    credits: list = field(default_factory=list)  # of each reply, where they differ from the reward


class Task:
    """A game. Subclasses give `examples` and `items`; the rest has a default for games of one prompt and one
    reply."""

    loss = "sft"
    labels = 0  # classes, of a task whose items are Labels
    lower = False  # whether a lower value is better, of the first metric of an evaluation
    seats = ("asker", "answerer")  # of the model at play, the usual one first
    pieces = r"\n|[^\n:]*: |[^\n:]+|:"  # of text, beyond which no token of a new tokenizer goes: phrases
    varied = False  # whether games about one example differ where the model takes its likeliest token
    alone = ()  # verbs that need no model, as the flags are
    idle = ()  # flags of the game that change no result
    grader = None  # an agent that grades replies, where --judge names one
    reranker = None  # an agent that puts the first candidates in order, where --reranker names one
    n, temperature, max_new = 1, 0.0, 24  # of an evaluation: replies to a prompt, how drawn, longest (tokens)

    @dataclass
    class Options:
        """The game's own command-line flags."""

    def __init__(self, options=None, seed=0):
        self.options, self.seed = options or self.Options(), seed
        self.dropped = {}  # reason -> rows of the user's data that were left out
        self.seen = set()  # ids of examples that the model was trained on
        self.players = {}  # name -> () -> an agent of the game's own, which a flag may name
        self.wrappers = {}  # name -> agent -> an agent made of it, which a flag may name as NAME+AGENT
        self.rivals = {}  # name -> an agent, of a tournament (--against)
        self.length, self.max_tokens = None, 0  # tokens of a Chat, and most of them: training sets both
        self.item = (
            None  # the kind of item that --loss learns from, where a game has several: training sets it
        )

    def examples(self, split):
        """The examples of "train" or "test", in the same order every time: list of dicts."""
        raise NotImplementedError

    def items(self, example, rng):
        """What an example teaches this time: a list of Chat, Label, Duel, Pair, Judged or
        Contrast. Augmentation uses `rng`."""
        raise NotImplementedError

    def prompt(self, example):
        """The conversation that asks for an answer; it never depends on the gold answer."""
        raise NotImplementedError

    def score(self, example, reply):
        """{"score": 0..1, ...} of a reply's text: the metric and the reward."""
        raise NotImplementedError

    def drop(self, reason):
        """Count a row of the user's data that is left out."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def texts(self):
        """Every text that a tokenizer for this game should know: list of str."""
        rng = np.random.default_rng(0)
        items = [item for example in self.examples("train") for item in self.items(example, rng)]
        return sorted({message["content"] for item in items for message in item.messages})

    def play(self, examples, agent):
        """One prompt, one reply: list of Episodes."""
        replies = agent.reply([self.prompt(example) for example in examples])
        episodes = []
        for example, (reply, *_) in zip(examples, replies):
            result = self.score(example, reply.text)
            turns = [{"reply": reply.text, **result}]
            episodes.append(Episode(example, turns, [reply], result["score"], result))
        return episodes

    def rollout(self, examples, agent):
        """The games that reinforcement learns from, every reply sampled by the agent: list of Episodes."""
        return self.play(examples, agent)

    def bank(self):
        """The texts of all labels, by label_id, for contrastive learning against every one of them."""
        return []

    def trained_on(self):
        """Ids of examples, of data that others evaluate on, which training sees: kept beside the model."""
        return []

    def unseen(self, examples):
        """The examples; ValueError where the model was trained on some of them."""
        both = [example["id"] for example in examples if example.get("id") in self.seen]
        if both:
            raise ValueError(
                f"{len(both):,} of {len(examples):,} examples are among those that the model was trained on "
                f"({both[0]}), so a result on them says nothing: take others, or a model that never saw them"
            )
        return examples

    def interact(self, agent, read, show, seat, seed):
        """Play with a person: read() gives the line typed or None at the end, show(line) prints (painted=True
        what has colours of our own); read is None where nobody is there. May give the games played, for
        --out."""
        raise NotImplementedError

    # (examples, agent) -> (place, record) of each example as it ends; of a game that goes on after a kill. Of
    # one with lessons also (..., records so far, replies to add)
    attempt = None
    summary = None  # records -> what evaluate gives, of a game that is evaluated by its attempts

    collects = "train"  # the split whose examples `collect` takes
    lessons = None  # (examples, records so far) -> what to learn from at test time, no output of a test

    mined = None  # (agent, limit) -> (rows for --data, rows of texts), of a game that collects negatives

    def collected(self, record):
        """Rows for --data that a record of `attempt` on a training example makes."""
        raise ValueError("--task: this game collects nothing")

    def tally(self, records):
        """Lines that collect prints about all its records."""
        return []

    def lines(self, record):
        """What --verbose shows of a record of `attempt`."""
        return []

    def files(self, records):
        """What eval writes beside its report: {ending of the name: what json can write}."""
        return {}

    def submit(self, path):
        """The submission that a file of predictions makes, checked."""
        raise ValueError("--predictions: this game makes its submissions from a model, --run or --model")

    def submission(self, agent):
        """The rows of a submission, dicts of what a CSV file has, that an agent makes for --data, checked; of
        games whose submissions are not made from what eval wrote."""
        raise NotImplementedError

    package = None  # (out, folder, format, settings): writes it, of games whose submission is a program

    def evaluate(self, examples, agent):
        """{"n", "metrics", "intervals", "baselines", "records"} of an agent on examples."""
        episodes = self.play(examples, agent)
        score = float(np.mean([episode.reward for episode in episodes]))
        return {
            "n": len(episodes),
            "metrics": {"score": score},
            "intervals": {},
            "baselines": {},
            "records": [episode.turns for episode in episodes],
        }


# ------------------------------------------------------------------------------------------------ shared help
def typed(read, show, what):
    """The line that a person types when asked for something, or None at the end or at quit."""
    show(what)
    line = read()
    return None if line is None or line.strip().lower() in ("quit", "q") else line


def wilson(wins, n, z=1.96):
    """The 95 % Wilson score interval of a rate wins / n: (low, high)."""
    if n == 0:
        return 0.0, 1.0
    rate = wins / n
    centre = rate + z * z / (2 * n)
    spread = z * (rate * (1 - rate) / n + z * z / (4 * n * n)) ** 0.5
    low, high = ((centre + side * spread) / (1 + z * z / n) for side in (-1, 1))
    return max(low, 0.0), min(high, 1.0)  # rounding leaves the ends a hair outside


def pass_at(n, c, k):
    """The chance that k of n attempts, drawn without replacement, hold one of the c right ones: the unbiased
    estimator 1 - C(n - c, k) / C(n, k) of arXiv 2107.03374."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass_at(n={n}, c={c}, k={k}): needs 0 <= c <= n and 1 <= k <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)
