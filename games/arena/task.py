"""Arena: which of two answers do people prefer, A, B or neither?

The model reads a battle as one text of parts (the prompt, A and B of every turn), or with --loss davidson as
two texts, one for each side, so that the order of the answers cannot matter. Read `items` for the training
targets, `chances` for the predictions in both orders, `evaluate` for the metrics: log loss beside controls
that need no model, and the biases. games/arena/files.py reads the files, games/arena/stats.py computes the
statistics, games/arena/world.py makes the embedded battles."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from games.arena import stats, world
from games.arena.features import Features
from games.arena.files import (
    SOFT,
    SWAP,
    TEXTS,
    is_plain,
    parse_battle,
    read_battles,
    split_of,
    submission_rows,
    swap_answers,
)
from games.arena.stats import targets_of
from games.rows import hold_out
from games.stats import davidson_logits, log_softmax, mean_interval, wilson
from games.task import (
    Classifies,
    Duel,
    Evaluation,
    HasAgents,
    Interactive,
    Label,
    Mines,
    Ranked,
    SubmitsRows,
    Task,
    TracksTraining,
    flag,
)
from terminal import UsageError, ask

NAMES = ("A is better", "B is better", "a tie")
HEADS = ("Prompt: ", "A: ", "B: ")
SHARES = (1, 2, 2)  # how a prompt and its two answers share the room if a battle is too long
# A reward model knows of no ties. The pull of ties that its predictions get is fitted to so many training
# battles; without any it is TIE: a third of the battles between equal answers are ties.
LABELLED = 300
TIE = 0.0


@dataclass
class Options:
    # battles | train eval play collect submit rows
    data: str = ""  # battles, the competition's or your own (games/arena/files.py); else the world's
    rows: str = ""  # slice of --data, such as 0:1000
    source: str = ""  # use only battles of these sources (column "source" or "language"), by commas
    test_data: str = ""  # battles to evaluate on; else a tenth of the prompts of --data
    test_source: str = ""  # evaluate on battles of these sources of --data and never train on them
    # who judges | play eval submit
    judge: str = flag("", agent="classify", plays="play eval submit")  # features (fitted to --data), or a run
    # a mixture | submit
    mix: bool = False  # of the judge and features, with weights fitted to the held-out tenth of --data
    # the order of the answers | train
    swap: Literal["none", "random", "both"] = "both"  # orders to train on; none: only the order of the data
    # the world | train eval play collect
    battles: int = 4000  # training battles; their judge prefers the first answer
    tests: int = 2000  # test battles; the judge of half of them ignores the order


class Arena(HasAgents, Classifies, Mines, SubmitsRows, TracksTraining, Interactive, Task):
    Options = Options
    loss = "classify"
    labels = 3
    evaluation = Evaluation(lower_is_better=True)
    # a word with the space before it, or any other character by itself
    pre_tokens = r" ?[A-Za-z]+|\s|[^\sA-Za-z]"
    seats = ("model", "person")

    # -------------------------------------------------------------------------------------------- examples
    @cached_property
    def splits(self):
        """{split: battles} of the world or of the user's data; no prompt is in both splits."""
        if not self.options.data:
            return self.make_splits()
        train, tests = self.read_splits()
        return hold_out(train, tests, first_prompt, self.dropped)

    def make_splits(self):
        """The world's battles. A fair judge decides half of the test battles, which measure what the model
        learnt; the biased judge of the training battles decides the other half."""
        half = self.options.tests // 2
        rows = world.battles(self.seed, half, bias=0.0, stream=1)
        rows += world.battles(self.seed, self.options.tests - half, stream=2)
        tests = []
        for i, row in enumerate(rows):
            tests.append(parse_battle(row) | {"probs": row["probs"], "fair": i < half})
        train = [parse_battle(row) for row in world.battles(self.seed, self.options.battles)]
        return {"train": train, "test": tests}

    def read_splits(self):
        """(training battles, test battles) of the user's data."""
        options = self.options
        sources = {*filter(None, options.source.split(","))}
        test_sources = {*filter(None, options.test_source.split(","))}
        train = []
        tests = []
        known = set()
        for example in read_battles(options.data, options.rows, self.dropped):
            source = example["source"]
            known.add(source)
            # --source leaves out all other sources, but not those of --test-source
            if sources and source not in sources | test_sources:
                continue
            if test_sources or options.test_data:
                is_test = source in test_sources
            else:
                is_test = split_of(first_prompt(example)) == "test"
            (tests if is_test else train).append(example)
        for name in (sources | test_sources) - known:
            raise UsageError(f"--source {name}: no battle has it (there are: {', '.join(map(str, known))})")
        if options.test_data:
            # then all test battles come from this file; those of --test-source in --data are left out
            tests = []
            for example in read_battles(options.test_data, "", self.dropped):
                if not test_sources or example["source"] in test_sources:
                    tests.append(example)
        return train, tests

    def examples(self, split):
        return self.splits["train" if split == "train" else "test"]

    @cached_property
    def soft(self):
        """Whether any target is a distribution; then all of them have to be."""
        return any(isinstance(example["target"], list) for example in self.examples("train"))

    def texts(self):
        # some thousand battles are enough for a tokenizer
        return [part["content"] for example in self.examples("train")[:4000] for part in self.prompt(example)]

    def trained_on(self):
        return [example["id"] for example in self.splits["train"]] if self.options.data else []

    # -------------------------------------------------------------------------------------------- training
    def prompt(self, example):
        """The parts of the one text, all turns in order."""
        return text_parts(example["turns"], HEADS)

    def sides(self, example, head=HEADS[0], role="user"):
        """The parts of the two texts, each with the prompts and the answers of one side. head: of a prompt;
        role: of an answer."""
        texts = []
        for side in (1, 2):
            turns = [(turn[0], turn[side]) for turn in example["turns"]]
            # without "A: " or "B: ", which would tell the sides apart
            texts.append(text_parts(turns, (head, ""), ("user", role)))
        return texts

    def chats(self, example):
        """The two sides as chats, which a reward model reads."""
        return self.sides(example, "", "assistant")

    def items(self, example, rng):
        """A Duel, or a Label for each order of the answers that --swap asks for; of a battle that is no tie
        the Ranked chats for a reward model."""
        if self.kind is Ranked:
            winner = targets_of([example])[0].argmax()
            a, b = self.chats(example)
            if winner == 0:
                return [Ranked(a, b)]
            return [Ranked(b, a)] if winner == 1 else []
        if self.soft:
            example = example | {"target": targets_of([example])[0].tolist()}
        if self.kind is Duel:
            return [Duel(*self.sides(example), example["target"])]
        orders = [example, swap_answers(example)]
        if self.options.swap != "both":
            swap = self.options.swap == "random" and rng.random() < 0.5
            orders = [orders[swap]]
        return [Label(self.prompt(order), order["target"]) for order in orders]

    # -------------------------------------------------------------------------------------------- play
    def agent_named(self, name, open_agent):
        return self.features if name == "features" else None

    @cached_property
    def features(self):
        """The judge by features, fitted to the training battles."""
        return Features(self.examples("train"))

    def chances(self, examples, player, labelled=()):
        """Probabilities of A, B and a tie, and the same predicted for the swapped battles, with A and B
        exchanged again: two (N, 3), to be compared row by row. labelled: battles to which the ties of a
        reward model are fitted."""
        if isinstance(player, Features):
            swapped = player.chances([*map(swap_answers, examples)])
            return player.chances(examples), swapped[:, SWAP]
        if player.classes < 3:
            # two scores of each side: its worth and its pull towards a tie; the order has no effect
            make_sides = self.chats
            if player.classes == 2:
                make_sides = self.sides
                labelled = ()  # it knows of ties
            sides = []
            for example in [*examples, *labelled]:
                sides += make_sides(example)
            scores = player.scores(sides).numpy().astype(float)
            if player.classes == 1:
                gaps = scores[::2, 0] - scores[1::2, 0]  # (N + labelled,)
                known = gaps[len(examples) :]
                tie = stats.fit_tie(known, targets_of(labelled)) if labelled else TIE
                scores = np.pad(scores, ((0, 0), (0, 1)), constant_values=tie / 2)
            first = scores[: 2 * len(examples) : 2]
            second = scores[1 : 2 * len(examples) : 2]
            probs = np.exp(log_softmax(davidson_logits(first, second)))
            return probs, probs
        prompts = []
        for example in examples:
            prompts.append(self.prompt(example))
            prompts.append(self.prompt(swap_answers(example)))
        probs = player.classify(prompts)
        return probs[::2], probs[1::2, SWAP]

    def mean_chances(self, examples, player, labelled=()):
        """The mean of both orders' probabilities, (N, 3). Features know what the first place is worth: they
        predict the given order."""
        if isinstance(player, Features):
            return player.chances(examples)
        return np.add(*self.chances(examples, player, labelled)) / 2

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, players):
        """Log loss in the given order and for the mean of both orders, accuracy and calibration of that mean,
        and biases. The log loss stands beside controls that know less (equal chances, the shares of the
        labels, features of style, words and order) or all there is to know (the world's own chances)."""
        if not examples:
            raise UsageError("--data: no battle to test on; add some with --test-data FILE")
        probs, back = self.chances(examples, players.player, self.examples("train")[:LABELLED])
        mean = (probs + back) / 2
        targets = targets_of(examples)
        # the user's battles have no known judge and all count as fair
        fair = np.array([example.get("fair", True) for example in examples])

        controls = self.controls(examples, targets, fair)
        predictions = {"log_loss": probs, "log_loss, both orders": mean} | controls
        by_features = controls.get("log_loss, features")
        if self.options.data and by_features is not None:
            predictions["log_loss, mixed with features"] = stats.mix_halves(targets, [mean, by_features])
        losses = {name: stats.losses(predicted, targets) for name, predicted in predictions.items()}
        classes = 3 if targets[:, 2].any() else 2  # without ties, as in WSDM's data, the verdict is A or B
        hits = stats.hits(mean[:, :classes], targets)
        result = {"n": len(examples), "metrics": {}, "intervals": {}, "baselines": {}}
        for prefix, chosen in (("", fair), ("biased battles ", ~fair)):
            if chosen.any():
                add_scores(result, prefix, losses, hits, chosen)
                # the accuracy of always naming the most frequent class
                result["baselines"][f"{prefix}accuracy"] = float(targets[chosen].mean(0).max())

        # biases and calibration are measured where the judge is fair
        fair_examples = [examples[i] for i in np.flatnonzero(fair)]
        fair_probs = probs[fair]
        fair_targets = targets[fair]
        position = stats.position(fair_probs, back[fair], fair_targets)
        verbosity = stats.verbosity(fair_probs, fair_examples, fair_targets)
        bias = {"position": position, "verbosity": verbosity}
        bias["families"] = stats.families(fair_probs, fair_examples, fair_targets)
        length = verbosity["all"]
        calibration = stats.calibration(mean[fair], fair_targets)
        result["metrics"] |= {
            "gap A - B": position["gap"],
            "flips": position["flips"],
            "asymmetry": position["asymmetry"],
            "longer is said to win": length["longer_predicted"],
            "calibration error": calibration["ece"],
            "Brier": calibration["brier"],
        }
        n = len(fair_examples)
        result["intervals"]["flips"] = wilson(round(position["flips"] * n), n)
        result["baselines"]["gap A - B"] = position["gap_of_labels"]
        result["baselines"]["longer is said to win"] = length["longer_wins"]
        return result | {
            "bias": bias,
            "reliability": calibration["reliability"],
            "notes": bias_tables(bias),
            "records": [*map(make_record, examples, targets, fair, probs, back)],
        }

    def controls(self, examples, targets, fair):
        """{name: chances (N, 3)} without a model: from features, fitted to the training battles, from the
        shares of the labels, and for the world the true chances."""
        chances = {}
        train = self.examples("train")
        if train:
            chances["log_loss, features"] = self.features.chances(examples)
        # fair and biased battles have labels with different shares
        shares = np.empty_like(targets)
        for kind in np.unique(fair):
            shares[fair == kind] = targets[fair == kind].mean(0)
        chances["log_loss, shares"] = shares
        if not self.options.data:
            chances["log_loss, best possible"] = np.array([example["probs"] for example in examples])
        return chances

    # -------------------------------------------------------------------------------------------- use
    def mined(self, players, limit):
        """(the training battles with the model's predictions as targets, for a smaller model to learn from;
        no pool). Without a limit the test battles of --data follow with their own targets: the rows are split
        by prompt again, and without them nothing would be left to test on."""
        options = self.options
        train = self.examples("train")[: limit or None]  # a limit of 0 is none
        tests = self.examples("test") if options.data and not (options.test_data or limit) else []
        chances = self.mean_chances(train, players.player, train[:LABELLED])
        targets = [*chances, *targets_of(tests)]
        rows = []
        for example, probs in zip(train + tests, targets):
            row = {"id": example["id"]}
            row |= zip(TEXTS, map(list, zip(*example["turns"])))
            row |= zip(("model_a", "model_b"), example["models"] or ())
            row["source"] = example["source"]
            for name, p in zip(SOFT, probs):
                row[name] = round(float(p), 6)
            rows.append(row)
        return rows, None

    def submission(self, players):
        """Rows for every battle of the test file in --data, checked."""
        examples = list(read_battles(self.options.data, "", self.dropped, training=False))
        chances = self.mean_chances(examples, players.player).astype(float)
        if self.options.mix:
            tests = self.examples("test")
            if not tests:
                raise UsageError("--mix: no battle to fit the weights to; --data needs train.csv as well")
            known = [self.mean_chances(tests, players.player), self.features.chances(tests)]
            chances = stats.mix(known, targets_of(tests), [chances, self.features.chances(examples)])
        return submission_rows(examples, chances, is_plain(self.options.data))

    def interact(self, players, read, show, seat, seed):
        """The model judges answers that a person types. On the seat "person" the person judges test battles
        and sees whether the model agrees. With nobody there (read is None) the model judges one of them."""
        if read and seat == "model":
            while example := ask_battle(read, show):
                self.show_chances(example, players.player, show)
            return
        tests = self.examples("test")
        agreements = []
        for place in np.random.default_rng(seed).permutation(len(tests)):
            example = tests[place]
            label = NAMES[targets_of([example]).argmax()]
            for part in self.prompt(example):
                show(part["content"])
            line = read and ask(read, show, "Which is better, a, b, or t for a tie? (quit ends)")
            if read and line is None:
                return
            verdict = self.show_chances(example, players.player, show)
            if not read:
                show(f"the label: {label}")
                return
            # any other line skips the battle
            choice = "abt".find(line.strip().lower()[:1] or "?")
            if choice >= 0:
                agreements.append(choice == verdict)
                show(f"you and the model agree on {sum(agreements)} of {len(agreements)}; the label: {label}")

    def show_chances(self, example, player, show):
        """Show the predictions for each order and their mean; return the class that the mean makes
        likeliest."""
        (probs,), (back,) = self.chances([example], player)
        mean = (probs + back) / 2
        for title, chances in (("as it stands", probs), ("swapped", back), ("both", mean)):
            cells = [f"{name} {p:.0%}" for name, p in zip(NAMES, chances)]
            show(f"{title:13}" + "   ".join(cells))
        return mean.argmax()


def first_prompt(example):
    return example["turns"][0][0]


def text_parts(turns, heads, roles=("user",) * 3):
    """The messages of a text: for each turn its prompt and its answers, each behind its head."""
    return [
        {"role": role, "content": head + text, "share": share}
        for turn in turns
        for role, head, text, share in zip(roles, heads, turn, SHARES)
    ]


def ask_battle(read, show):
    """The battle that a person types, or None at the end."""
    texts = []
    for question in ("Prompt (quit ends)", "Answer A", "Answer B"):
        line = ask(read, show, question)
        if line is None:
            return None
        texts.append(line)
    return {"turns": [texts], "models": None, "target": None}


# ------------------------------------------------------------------------------------------------ reports
def add_scores(result, prefix, losses, hits, chosen):
    """Add the scores of some battles to the result of evaluate(): `losses` maps the name of a prediction to
    the loss of each battle (N,), `hits` (N,) says which verdicts are right, `chosen` (N,) which battles
    count."""
    metrics = {}
    for name, values in losses.items():
        metrics[name] = float(values[chosen].mean())
        result["intervals"][prefix + name] = mean_interval(values[chosen])
        # the loss of equal chances for A, B and a tie
        result["baselines"][prefix + name] = math.log(3)
    if "log_loss, best possible" in metrics:
        prior = metrics["log_loss, shares"]
        best = metrics["log_loss, best possible"]
        # 0 for a model that knows only the shares of the labels, 1 for one that knows the judge
        for order in ("", ", both orders"):
            gained = prior - metrics[f"log_loss{order}"]
            metrics[f"share of the way{order}"] = gained / (prior - best)
    chosen_hits = hits[chosen]
    metrics["accuracy"] = float(chosen_hits.mean())
    for name, value in metrics.items():
        result["metrics"][prefix + name] = value
    result["intervals"][f"{prefix}accuracy"] = wilson(chosen_hits.sum(), len(chosen_hits))


def make_record(example, target, fair, probs, back):
    """One battle and the predictions for it, as eval.json keeps them. "swapped" holds the predictions for the
    swapped battle as the model made them."""
    return {name: example[name] for name in ("id", "turns", "models", "source")} | {
        "target": target.tolist(),
        "fair": bool(fair),
        "probs": probs.tolist(),
        "swapped": back[SWAP].tolist(),
    }


def bias_tables(bias):
    """The tables of biases as lines of text."""
    lines = [
        "fifths by how much longer A is: battles, accuracy, log loss, longer wins, longer predicted to win"
    ]
    for part in bias["verbosity"]["parts"]:
        line = f"  {part['n']:6,}"
        for name in ("accuracy", "log_loss", "longer_wins", "longer_predicted"):
            line += "       -" if part[name] is None else f"{part[name]:8.3f}"
        lines.append(line)
    place = bias["position"]
    lines.append(
        "verdicts for the same place in both orders: "
        f"first {place['both_first']:,}, second {place['both_second']:,}"
    )
    if bias["families"]:
        lines.append("models: battles, predicted and true share of wins, difference with 95 % interval")
    for row in bias["families"]:
        low, high = row["interval"] or (math.nan, math.nan)
        shares = f"{row['predicted']:.3f} {row['observed']:.3f} {row['residual']:+.3f}"
        lines.append(f"  {row['model']:30}{row['n']:6,} {shares} [{low:+.3f}, {high:+.3f}]")
    return lines
