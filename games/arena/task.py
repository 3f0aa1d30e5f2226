"""Arena: which of two answers do people prefer, A, B or neither?

A battle is read as one text of parts (prompt, A, B, of every turn), or with --loss davidson as two, each side
by itself, which no order can sway. Read `items` for what is learned, `chances` for what a model says of both
orders, `evaluate` for what counts: log loss beside what needs no model, and the biases. games/arena/files.py
reads the files, games/arena/stats.py has the figures, games/arena/world.py the embedded battles."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from games.arena import stats, world
from games.arena.files import SOFT, SWAP, TEXTS, battle, read_battles, split_of, submission_rows, swapped
from games.arena.stats import distributions
from games.stats import davidson_logits, log_softmax, mean_interval, wilson
from games.task import (
    Classifies,
    Duel,
    Evaluation,
    Interactive,
    Label,
    Mines,
    SubmitsRows,
    Task,
    TracksTraining,
)
from terminal import UsageError, ask

NAMES = ("A is better", "B is better", "a tie")
HEADS = ("Prompt: ", "A: ", "B: ")
SHARES = (1, 2, 2)  # how the room is shared by a prompt and its answers, where a battle is too long


@dataclass
class Options:
    # battles | train eval play collect submit rows
    data: str = ""  # battles, the competition's or your own (games/arena/files.py); by default the world's
    rows: str = ""  # a slice of --data such as 0:1000
    source: str = ""  # only battles of these sources of --data (its column source), divided by commas
    test_data: str = ""  # battles to evaluate on, instead of a tenth of the prompts of --data
    test_source: str = ""  # evaluate on the battles of these sources of --data, which are never trained on
    # the order of the answers | train
    swap: Literal["none", "random", "both"] = "both"  # orders of the answers; none: as they stand
    # the world | train eval play collect
    battles: int = 4000  # training battles, decided by a judge who prefers what stands first
    tests: int = 2000  # test battles, half of them decided by a judge who does not


class Arena(Classifies, Mines, SubmitsRows, TracksTraining, Interactive, Task):
    Options = Options
    loss = "classify"
    labels = 3
    evaluation = Evaluation(lower_is_better=True)
    pre_tokens = r" ?[A-Za-z]+|\s|[^\sA-Za-z]"
    seats = ("model", "person")

    # -------------------------------------------------------------------------------------------- examples
    @cached_property
    def splits(self):
        """{split: battles}: the world's, or of the user's data, no prompt in both."""
        o = self.options
        if not o.data:
            # half of the test battles are decided by a fair judge, half by the judge of the training
            half = o.tests // 2
            rows = world.battles(self.seed, half, bias=0.0, stream=1)
            rows += world.battles(self.seed, o.tests - half, stream=2)
            tests = [battle(row) | {"probs": row["probs"], "fair": i < half} for i, row in enumerate(rows)]
            return {"train": [battle(row) for row in world.battles(self.seed, o.battles)], "test": tests}
        train, tests = self.read_splits()
        prompts = {first_prompt(example) for example in tests}
        kept = [example for example in train if first_prompt(example) not in prompts]
        if len(kept) < len(train):
            self.dropped["with a prompt of the test battles"] += len(train) - len(kept)
        return {"train": kept, "test": tests}

    def read_splits(self):
        """(battles to train on, battles to test on) of the user's data."""
        o = self.options
        sources, test_sources = (set(filter(None, names.split(","))) for names in (o.source, o.test_source))
        train, tests, known = [], [], set()
        for example in read_battles(o.data, o.rows, self.dropped):
            source = example["source"]
            known.add(source)
            if test_sources or o.test_data:
                is_test = source in test_sources
            else:
                is_test = split_of(first_prompt(example)) == "test"
            if not sources or source in sources | test_sources:
                (tests if is_test else train).append(example)
        for name in (sources | test_sources) - known:
            raise UsageError(f"--source {name}: no battle of it (there are: {', '.join(map(str, known))})")
        if o.test_data:
            tests = [
                example
                for example in read_battles(o.test_data, "", self.dropped)
                if not test_sources or example["source"] in test_sources
            ]
        return train, tests

    def examples(self, split):
        return self.splits["train" if split == "train" else "test"]

    @cached_property
    def soft(self):
        """Whether some targets are distributions, so that all have to be."""
        return any(isinstance(example["target"], list) for example in self.examples("train"))

    def texts(self):
        return [part["content"] for example in self.examples("train")[:4000] for part in self.prompt(example)]

    def trained_on(self):
        return [example["id"] for example in self.splits["train"]] if self.options.data else []

    # -------------------------------------------------------------------------------------------- training
    def prompt(self, example):
        """The parts of one text, all turns in order."""
        return parts(example["turns"], HEADS)

    def sides(self, example):
        """The parts of the two texts in which each answer stands by itself."""
        first = [(prompt, a) for prompt, a, _ in example["turns"]]
        second = [(prompt, b) for prompt, _, b in example["turns"]]
        return [parts(turns, (HEADS[0], "")) for turns in (first, second)]

    def items(self, example, rng):
        """A Duel, or a Label for each order of the answers that --swap asks for."""
        if self.soft:
            example = example | {"target": distributions([example["target"]])[0].tolist()}
        if self.kind is Duel:
            return [Duel(*self.sides(example), example["target"])]
        orders = [example, swapped(example)]
        if self.options.swap != "both":
            turned = self.options.swap == "random" and rng.random() < 0.5
            orders = [orders[turned]]
        return [Label(self.prompt(order), order["target"]) for order in orders]

    # -------------------------------------------------------------------------------------------- play
    def chances(self, examples, player):
        """(probabilities of A, B and a tie (N, 3); the same of the swapped battles, turned back)."""
        if player.classes == 2:  # worth and inclination to tie of each side
            sides = [side for example in examples for side in self.sides(example)]
            scores = player.scores(sides).numpy()
            probs = np.exp(log_softmax(davidson_logits(scores[::2], scores[1::2])))
            return probs, probs
        orders = [order for example in examples for order in (example, swapped(example))]
        probs = player.classify([self.prompt(order) for order in orders])
        return probs[::2], probs[1::2, SWAP]

    def mean_chances(self, examples, player):
        """The mean of both orders' probabilities, (N, 3)."""
        return np.add(*self.chances(examples, player)) / 2

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, players):
        """Log loss and accuracy as the battles stand and by the mean of both orders, calibration, biases; and
        the log loss of what knows less (one chance for all, the shares of the labels, six features of style)
        or all there is to know (the world's own chances)."""
        if not examples:
            raise UsageError("--data: no battle to test on; --test-data FILE brings some")
        probs, back = self.chances(examples, players.player)
        mean = (probs + back) / 2
        targets = distributions([example["target"] for example in examples])
        fair = np.array([example.get("fair", True) for example in examples])
        guesses = {"log_loss": probs, "log_loss, both orders": mean}
        guesses |= self.controls(examples, targets, fair)
        losses = {name: stats.losses(guess, targets) for name, guess in guesses.items()}
        hits = stats.hits(mean, targets)
        result = {"n": len(examples), "metrics": {}, "intervals": {}, "baselines": {}}
        for prefix, part in (("", fair), ("biased battles ", ~fair)):
            if part.any():
                of_part = {name: values[part] for name, values in losses.items()}
                add_scores(result, prefix, of_part, hits[part])
                result["baselines"][f"{prefix}accuracy"] = float(targets[part].mean(0).max())

        of_fair = probs[fair], [examples[i] for i in np.flatnonzero(fair)], targets[fair]
        position = stats.position(probs[fair], back[fair], targets[fair])
        verbosity = stats.verbosity(*of_fair)
        bias = {"position": position, "verbosity": verbosity, "families": stats.families(*of_fair)}
        length = verbosity["all"]
        calibration = stats.calibration(mean[fair], targets[fair])
        result["metrics"] |= {
            "gap A - B": position["gap"],
            "flips": position["flips"],
            "asymmetry": position["asymmetry"],
            "longer is said to win": length["longer_predicted"],
            "calibration error": calibration["ece"],
            "Brier": calibration["brier"],
        }
        result["intervals"]["flips"] = wilson(round(position["flips"] * fair.sum()), int(fair.sum()))
        result["baselines"] |= {
            "gap A - B": position["gap_of_labels"],
            "longer is said to win": length["longer_wins"],
        }
        return result | {
            "bias": bias,
            "reliability": calibration["reliability"],
            "notes": notes(bias),
            "records": [record(*row) for row in zip(examples, targets, fair, probs, back)],
        }

    def controls(self, examples, targets, fair):
        """{name: chances (N, 3)} as they are without a model: by style alone, fitted to the battles of the
        training, by the shares of the labels, and, of the world, as they truly are."""
        chances = {}
        train = self.examples("train")
        if train:
            X, others = (
                np.array([stats.features(example) for example in some]) for some in (train, examples)
            )
            predict = stats.fit_style(X, distributions([example["target"] for example in train]))
            chances["log_loss, features"] = predict(others)
        shares = np.empty_like(targets)
        for kind in np.unique(fair):
            shares[fair == kind] = targets[fair == kind].mean(0)
        chances["log_loss, shares"] = shares
        if not self.options.data:
            chances["log_loss, best possible"] = np.array([example["probs"] for example in examples])
        return chances

    # -------------------------------------------------------------------------------------------- use
    def mined(self, players, limit):
        """(the training battles with what the model says of them as their target, for a smaller one to learn
        from; without a limit also those of --data to test on, with their own; no pool)."""
        o = self.options
        train = self.examples("train")[: limit or None]
        tests = self.examples("test") if o.data and not (o.test_data or limit) else []
        targets = [*self.mean_chances(train, players.player)]
        targets += [*distributions([example["target"] for example in tests])]
        rows = []
        for example, probs in zip(train + tests, targets):
            row = {"id": example["id"]}
            row |= zip(TEXTS, map(list, zip(*example["turns"])))
            row |= zip(("model_a", "model_b"), example["models"] or ())
            row["source"] = example["source"]
            row |= zip(SOFT, (round(float(p), 6) for p in probs))
            rows.append(row)
        return rows, None

    def submission(self, players):
        """Rows for every battle of the test file in --data, checked."""
        examples = list(read_battles(self.options.data, "", self.dropped, training=False))
        return submission_rows(examples, self.mean_chances(examples, players.player).astype(float))

    def interact(self, players, read, show, seat, seed):
        """The model judges answers that a person types, or (seat person) a person judges battles of the tests
        and sees whether the model agrees; where nobody is there (read is None) it judges one of the tests."""
        if read and seat == "model":
            while example := ask_battle(read, show):
                self.show_chances(example, players.player, show)
            return
        tests = self.examples("test")
        agreements = []
        for place in np.random.default_rng(seed).permutation(len(tests)):
            example = tests[place]
            label = NAMES[distributions([example["target"]]).argmax()]
            for part in self.prompt(example):
                show(part["content"])
            line = read and ask(read, show, "Which is better, a, b, or t for a tie? (quit ends)")
            if read and line is None:
                return
            verdict = self.show_chances(example, players.player, show)
            if not read:
                show(f"the label: {label}")
                return
            mine = "abt".find(line.strip().lower()[:1] or "?")
            if mine >= 0:
                agreements.append(mine == verdict)
                counts = f"{sum(agreements)} of {len(agreements)}"
                show(f"you and the model agree on {counts}; the label was: {label}")

    def show_chances(self, example, player, show):
        """Show what the model says of both orders; the class that it takes for the likeliest is returned."""
        (probs,), (back,) = self.chances([example], player)
        mean = (probs + back) / 2
        for name, row in (("as it stands", probs), ("swapped", back), ("both", mean)):
            show(f"{name:13}" + "   ".join(f"{what} {p:.0%}" for what, p in zip(NAMES, row)))
        return mean.argmax()


def first_prompt(example):
    return example["turns"][0][0]


def parts(turns, heads):
    """The messages of a text: for each turn its prompt and answers, each behind its head."""
    return [
        {"role": "user", "content": head + text, "share": share}
        for turn in turns
        for head, text, share in zip(heads, turn, SHARES)
    ]


def ask_battle(read, show):
    """The battle that a person types, or None."""
    texts = []
    for question in ("Prompt (quit ends)", "Answer A", "Answer B"):
        line = ask(read, show, question)
        if line is None:
            return None
        texts.append(line)
    return {"turns": [texts], "models": None, "target": None}


# ------------------------------------------------------------------------------------------------ reports
def add_scores(result, prefix, losses, hits):
    """Put into a result of evaluate() what the losses (N,) of guesses by name, and whether the verdicts are
    right (N,), come to."""
    metrics = {}
    for name, values in losses.items():
        metrics[name] = float(values.mean())
        result["intervals"][prefix + name] = mean_interval(values)
        result["baselines"][prefix + name] = math.log(3)
    if "log_loss, best possible" in metrics:
        prior, best = metrics["log_loss, shares"], metrics["log_loss, best possible"]
        for order in ("", ", both orders"):
            gained = prior - metrics[f"log_loss{order}"]
            metrics[f"share of the way{order}"] = gained / (prior - best)
    metrics["accuracy"] = float(hits.mean())
    result["metrics"] |= {prefix + name: value for name, value in metrics.items()}
    result["intervals"][f"{prefix}accuracy"] = wilson(hits.sum(), len(hits))


def record(example, target, fair, probs, back):
    """What is kept of one battle."""
    return {name: example[name] for name in ("id", "turns", "models", "source")} | {
        "target": target.tolist(),
        "fair": bool(fair),
        "probs": probs.tolist(),
        "swapped": back[SWAP].tolist(),
    }


def notes(bias):
    """The tables of biases as lines."""
    lines = [
        "fifths by how much longer A is: battles, accuracy, log loss, longer wins, longer is said to win"
    ]
    for part in bias["verbosity"]["parts"]:
        line = f"  {part['n']:6,}"
        for name in ("accuracy", "log_loss", "longer_wins", "longer_predicted"):
            line += "       -" if part[name] is None else f"{part[name]:8.3f}"
        lines.append(line)
    place = bias["position"]
    lines.append(
        f"for A in both orders {place['both_first']:,}, for B in both orders {place['both_second']:,}"
    )
    if bias["families"]:
        lines.append("models: battles, share of wins said and true, difference with 95 % interval")
    for row in bias["families"]:
        low, high = row["interval"] or (math.nan, math.nan)
        shares = f"{row['predicted']:.3f} {row['observed']:.3f} {row['residual']:+.3f}"
        lines.append(f"  {row['model']:30}{row['n']:6,} {shares} [{low:+.3f}, {high:+.3f}]")
    return lines
