"""Arena: which of two answers do people prefer, A, B or neither?

A battle is read as one text of parts (prompt, A, B, of every turn), or with --loss davidson as two, each side
by itself, which no order can sway. Read `items` for what is learned, `chances` for what a model says of both
orders, `evaluate` for what counts: log loss beside what needs no model, and the biases. Files are read by
games/arena/files.py, figures are games/arena/stats.py, the embedded battles worlds/arena.py."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from games.arena import files as arena_files
from games.arena import stats as arena_stats
from games.arena import world
from games.arena.files import battle, read_battles, split_of, swapped
from games.arena.stats import SWAP, distributions, mean_interval
from games.task import Duel, Label, Task, typed, wilson

NAMES = ("A is better", "B is better", "a tie")
SHARES = (1, 2, 2)  # of the room that a prompt and its answers get where a battle is too long
HEADS = ("Prompt: ", "A: ", "B: ")


@dataclass
class Options:
    data: str = ""  # battles, the competition's or your own (games/arena/files.py); else the world's
    rows: str = ""  # of --data: a slice such as 0:1000
    source: str = ""  # of --data: only battles of these sources (their column source), divided by commas
    test_data: str = ""  # battles to evaluate on; else a tenth of the prompts of --data, not trained on
    test_source: str = ""  # evaluate on the battles of these sources of --data, which are never trained on
    swap: str = "both"  # orders of the answers in training: none (as they stand), random, or both
    average: bool = True  # say the mean of both orders at play and in submissions
    battles: int = 4000  # world: battles to train on, of a judge who prefers what stands first
    tests: int = 2000  # world: battles to test on, half of them by a judge who does not
    bias: float = 1.2  # world: how much the judge of the training battles prefers what stands first


class Arena(Task):
    Options = Options
    loss, labels = "classify", 3
    lower = True  # is better, of the first metric
    pieces = r" ?[A-Za-z]+|\s|[^\sA-Za-z]"
    idle = ("average",)
    seats = ("model", "person")

    def __init__(self, options=None, seed=0):
        super().__init__(options, seed)
        o = self.options
        if o.swap not in ("none", "random", "both"):
            raise ValueError(f"--swap {o.swap}: must be none, random or both")

    # -------------------------------------------------------------------------------------------- examples
    @cached_property
    def splits(self):
        """{split: battles}: the world's, or of the user's data, no prompt in both."""
        o = self.options
        if not o.data:
            return {"train": self.world("train"), "test": self.world("test")}
        only, tests = ({*filter(None, names.split(","))} for names in (o.source, o.test_source))
        found = {"train": [], "test": []}
        known = set()
        for example in read_battles(o.data, o.rows, self.drop):
            if tests and example["source"] in tests:
                found["test"].append(example)
            elif not only or example["source"] in only:
                held = split_of(example["turns"][0][0])
                found["train" if tests or o.test_data else held].append(example)
            known.add(example["source"])
        for name in (only | tests) - known:
            raise ValueError(f"--source {name}: no battle of it (there are: {', '.join(map(str, known))})")
        if o.test_data:
            found["test"] = [
                e for e in read_battles(o.test_data, "", self.drop) if not tests or e["source"] in tests
            ]
        asked = {example["turns"][0][0] for example in found["test"]}
        kept = [example for example in found["train"] if example["turns"][0][0] not in asked]
        for _ in range(len(found["train"]) - len(kept)):
            self.drop("with a prompt of the test battles")
        return {"train": kept, "test": found["test"]}

    def world(self, split):
        """Battles of the world; to test on half by the judge of the training, half by a fair one."""
        o = self.options
        if split == "train":
            return [battle(row) for row in world.battles(self.seed, o.battles, o.bias)]
        fair = world.battles(self.seed, o.tests // 2, 0.0, stream=1)
        biased = world.battles(self.seed, o.tests - o.tests // 2, o.bias, stream=2)
        return [
            battle(row) | {"probs": row["probs"], "fair": fair}
            for fair, rows in ((True, fair), (False, biased))
            for row in rows
        ]

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
        return [
            {"role": "user", "content": head + text, "share": share}
            for turn in example["turns"]
            for head, text, share in zip(HEADS, turn, SHARES)
        ]

    def sides(self, example):
        """The parts of the two texts in which each answer stands by itself."""
        parts = self.prompt(example)
        return [
            [
                {**part, "content": part["content"].removeprefix(HEADS[k % 3] if k % 3 else "")}
                for k, part in enumerate(parts)
                if k % 3 in (0, side)
            ]
            for side in (1, 2)
        ]

    def items(self, example, rng):
        """A Duel, or a Label for each order of the answers that --swap asks for."""
        target = distributions([example["target"]])[0].tolist() if self.soft else example["target"]
        example = {**example, "target": target}
        if self.item is Duel:
            return [Duel(*self.sides(example), target)]
        orders = {"none": [example], "both": [example, swapped(example)]}.get(self.options.swap)
        orders = orders or [swapped(example) if rng.random() < 0.5 else example]
        return [Label(self.prompt(one), one["target"]) for one in orders]

    # -------------------------------------------------------------------------------------------- play
    def chances(self, examples, agent):
        """(probabilities of A, B and a tie (N, 3); the same of the swapped battles, in their order)."""
        if agent.classes == 2:  # worth and inclination to tie of each side
            scores = agent.scores([side for example in examples for side in self.sides(example)]).numpy()
            first, second = scores[::2], scores[1::2]
            half, tie = (first[:, 0] - second[:, 0]) / 2, first[:, 1] + second[:, 1]
            probs = np.exp(arena_stats.log_softmax(np.stack([half, -half, tie], 1)))
            return probs, probs[:, SWAP]
        both = [self.prompt(one) for example in examples for one in (example, swapped(example))]
        probs = agent.classify(both)
        return probs[::2], probs[1::2]

    def said(self, examples, agent):
        """What the model says of each battle, (N, 3): with --average of both orders."""
        probs, back = self.chances(examples, agent)
        return (probs + back[:, SWAP]) / 2 if self.options.average else probs

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, agent):
        """Log loss and accuracy as the battles stand and by the mean of both orders, calibration, biases; and
        the log loss of what knows less (one chance for all, the shares of the labels, six features of style)
        or all there is to know (the world's own chances)."""
        if not examples:
            raise ValueError("--data: no battle to test on; --test-data FILE brings some")
        probs, back = self.chances(examples, agent)
        fair = np.array([example.get("fair", True) for example in examples])
        targets = distributions([example["target"] for example in examples])
        result = {"metrics": {}, "intervals": {}, "baselines": {}}
        by_style = self.by_style(examples)
        mean = (probs + back[:, SWAP]) / 2
        for name, part in (("", fair), ("biased battles ", ~fair)):
            if part.any():
                known = [
                    example["probs"] for example, kept in zip(examples, part) if kept and "probs" in example
                ]
                self.report(
                    result,
                    name,
                    probs[part],
                    mean[part],
                    targets[part],
                    by_style[part] if len(by_style) else (),
                    known,
                )
        some = [example for example, kept in zip(examples, fair) if kept]
        found = arena_stats.bias(probs[fair], back[fair], some, targets[fair])
        place, length = found["position"], found["verbosity"]["all"]
        result["metrics"] |= {
            "gap A - B": place["gap"],
            "flips": place["flips"],
            "asymmetry": place["asymmetry"],
            "longer is said to win": length["longer_predicted"],
        }
        result["intervals"]["flips"] = wilson(round(place["flips"] * fair.sum()), int(fair.sum()))
        result["baselines"] |= {
            "gap A - B": place["gap_of_labels"],
            "longer is said to win": length["longer_wins"],
        }
        calibrated = arena_stats.calibration(mean[fair], targets[fair])
        result["metrics"] |= {"calibration error": calibrated["ece"], "Brier": calibrated["brier"]}
        records = [
            {
                **{name: example[name] for name in ("id", "turns", "models", "source")},
                "target": target.tolist(),
                "fair": bool(is_fair),
                "probs": one.tolist(),
                "swapped": other.tolist(),
            }
            for example, target, is_fair, one, other in zip(examples, targets, fair, probs, back)
        ]
        tables = {"bias": found, "reliability": calibrated["reliability"], "notes": self.notes(found)}
        return {"n": len(examples), **result, **tables, "records": records}

    def by_style(self, examples):
        """What style alone tells of battles, (N, 3), as fitted to those of the training, if there are any."""
        train = self.examples("train")
        if not train:
            return ()
        X, other = (np.array([arena_stats.features(e) for e in some]) for some in (train, examples))
        model = arena_stats.fit_features(X, [example["target"] for example in train])
        return arena_stats.predict(model, other)

    def notes(self, bias):
        """The tables of biases as lines."""
        cell = lambda value: "       -" if value is None else f"{value:8.3f}"
        lines = [
            "fifths by how much longer A is: battles, accuracy, log loss, longer wins, longer is said to win"
        ]
        names = ("accuracy", "log_loss", "longer_wins", "longer_predicted")
        for part in bias["verbosity"]["parts"]:
            lines.append(f"  {part['n']:6,}" + "".join(cell(part[name]) for name in names))
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

    def report(self, result, prefix, probs, mean, targets, by_style, known):
        """Put the scores of some battles into an evaluation."""
        shares = np.tile(targets.mean(0), (len(targets), 1))
        sides = {"log_loss": probs, "log_loss, both orders": mean}
        sides |= {"log_loss, features": by_style} if len(by_style) else {}
        sides |= {"log_loss, shares": shares} | (
            {"log_loss, best possible": np.array(known)} if known else {}
        )
        for name, one in sides.items():
            values = arena_stats.losses(one, targets)
            result["metrics"][prefix + name], result["intervals"][prefix + name] = (
                float(values.mean()),
                mean_interval(values),
            )
            result["baselines"][prefix + name] = float(np.log(3))
        if known:
            best, prior = (
                result["metrics"][f"{prefix}log_loss, best possible"],
                result["metrics"][f"{prefix}log_loss, shares"],
            )
            for name in ("log_loss", "log_loss, both orders"):
                gained = (prior - result["metrics"][prefix + name]) / (prior - best)
                result["metrics"][f"{prefix}share of the way{name.removeprefix('log_loss')}"] = gained
        hits = arena_stats.hits(mean, targets)
        result["metrics"][f"{prefix}accuracy"], result["intervals"][f"{prefix}accuracy"] = (
            float(hits.mean()),
            wilson(hits.sum(), len(hits)),
        )
        result["baselines"][f"{prefix}accuracy"] = float(targets.mean(0).max())

    # -------------------------------------------------------------------------------------------- use
    def mined(self, agent, limit):
        """(the training battles with what the model says of them as their target, for a smaller one to learn
        from; without a limit also those of --data to test on, with their own; no pool)."""
        train, o = self.examples("train")[: limit or None], self.options
        tests = self.examples("test") if o.data and not (o.test_data or limit) else []
        targets = [*self.said(train, agent), *distributions([example["target"] for example in tests])]
        rows = []
        for example, probs in zip(train + tests, targets):
            texts = dict(zip(arena_files.TEXTS, map(list, zip(*example["turns"]))))
            models = dict(zip(("model_a", "model_b"), example["models"] or ()))
            soft = dict(zip(arena_files.SOFT, (round(float(p), 6) for p in probs)))
            rows.append({"id": example["id"], **texts, **models, "source": example["source"], **soft})
        return rows, None

    def submission(self, agent):
        """Rows for every battle of the test file in --data, checked."""
        examples = list(read_battles(self.options.data, "", self.drop, training=False))
        return arena_files.submission_rows(examples, self.said(examples, agent).astype(float))

    def interact(self, agent, read, show, seat, seed):
        """The model judges answers that a person types, or (seat person) a person judges battles of the tests
        and sees whether the model agrees; where nobody is there (read is None) it judges one of the tests."""
        agreed = judged = 0
        order = np.random.default_rng(seed).permutation(len(self.examples("test")))
        for place in order:
            example = self.examples("test")[place]
            if read and seat == "model":
                texts = []
                for what in ("Prompt (quit ends)", "Answer A", "Answer B"):
                    texts.append(typed(read, show, what))
                    if texts[-1] is None:
                        return
                example = {"turns": [texts], "models": None, "target": None}
            else:
                for part in self.prompt(example):
                    show(part["content"])
            mine = None
            if read and seat == "person":
                mine = typed(read, show, "Which is better, a, b, or t for a tie? (quit ends)")
                if mine is None:
                    break
                mine = "abt".find(mine.strip().lower()[:1] or "?")
            self.verdict(example, agent, show)
            if mine is not None and mine >= 0:
                judged += 1
                agreed += mine == int(self.said([example], agent)[0].argmax())
                show(f"you and the model agree on {agreed} of {judged}; the label was: {self.label(example)}")
            if not read:
                return show(f"the label: {self.label(example)}")

    def verdict(self, example, agent, show):
        probs, back = self.chances([example], agent)
        for name, one in (
            ("as it stands", probs[0]),
            ("swapped", back[0][SWAP]),
            ("both", (probs + back[:, SWAP])[0] / 2),
        ):
            show(f"{name:13}" + "   ".join(f"{what} {p:.0%}" for what, p in zip(NAMES, one)))

    def label(self, example):
        return NAMES[int(distributions([example["target"]])[0].argmax())]
