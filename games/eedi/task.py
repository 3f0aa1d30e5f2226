"""Eedi: find the misconception behind a wrong answer, among the texts of all that are known.

A query (a question, its right answer and a wrong one) and every label become vectors, and the labels are
ranked by their similarity; a reranker may then read the first of them beside the query. Read `evaluate` for
what counts, `items` for what is learned, `mined` for hard negatives. Files are read by games/eedi/files.py,
the embedded questions are worlds/eedi.py."""

import math
import re
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from games.eedi import files as eedi_files
from games.eedi import world
from games.eedi.files import PLACES, QUERIES, query_of
from games.task import Contrast, Label, Task, typed, wilson

CORRECT = "Correct Answer."  # the label of right answers, where --correct-label teaches them
RECALLS = (1, 10, 25, 100)
GROUPS = {"question": "question", "construct": "construct_id", "subject": "subject_id", "all": ""}


@dataclass
class Options:
    data: str = ""  # Eedi's folder, or rows or items (games/eedi/files.py); else the world's questions
    pool: str = ""  # rows with the texts of more labels
    query: str = "full"  # s1, s2, s3, s4 as published; full, with the right answer; topic, a control
    clean: str = ""  # seed: the published clean-up, which deletes every digit, of queries and labels
    correct_label: bool = False  # teach right answers too, under a label of their own
    split: str = "question"  # what train and test rows never share: question, construct or subject; or all
    match: str = "label"  # what a query is compared with: labels, or (example) the other test queries of each
    group_size: int = 8  # texts of a query's own in a step: the right label and mined negatives, if any
    range: str = "1-100"  # collect: places of the ranking that negatives are from, the first being place 0
    negatives: int = 15  # collect: of each query
    margin: float = 0.0  # collect: leave out negatives that are not so much less similar than the right label
    reranker: str = ""  # a run or model that puts the first --top labels in order, reading them and the query
    top: int = 25  # labels that a reranker reads
    questions: int = 4000  # world: questions of an epoch, each drawn anew each time
    tests: int = 600  # world: test questions; a seventh of the labels is in no training question
    paraphrase: int = 0  # world: evaluate on the k-th other wording of every label


class Eedi(Task):
    Options = Options
    loss, labels = "contrastive", 2  # of a reranker: wrong, right
    pieces = r"[0-9]| ?[A-Za-z]+|\s|[^\sA-Za-z0-9]"  # a digit is a token
    idle = ("reranker", "top")

    def __init__(self, options=None, seed=0):
        super().__init__(options, seed)
        o = self.options
        for name, known in (("query", QUERIES), ("clean", ("", "seed")), ("split", GROUPS)):
            if getattr(o, name) not in known:
                raise ValueError(
                    f"--{name} {getattr(o, name)}: must be one of {', '.join(filter(None, known))}"
                )
        if o.match not in ("label", "example"):
            raise ValueError(f"--match {o.match}: must be label or example")
        found = re.fullmatch(r"(\d+)-(\d+)", o.range)
        if not found or int(found[1]) >= int(found[2]):
            raise ValueError(
                f"--range {o.range}: must be two places such as 1-100, the first below the second"
            )
        if not 0 <= o.paraphrase < len(world.JOIN):
            raise ValueError(
                f"--paraphrase {o.paraphrase}: the world has wordings 0 to {len(world.JOIN) - 1}"
            )
        self.places = int(found[1]), int(found[2])
        if o.data:
            self.names, examples = eedi_files.read(o.data, o.pool)
            self.splits = {"train": [], "test": []}
            for example in examples:
                self.splits[self.split_of(example)].append(example)
        else:
            self.names = [world.paraphrase(i, o.paraphrase) for i in range(len(world.LABELS))]
            self.splits = {"train": [{"number": i} for i in range(o.questions)]}
        self.trained = sorted(self.trained_labels())  # labels that training rows have
        self.place = {label: place for place, label in enumerate(self.trained)}  # in the bank

    # -------------------------------------------------------------------------------------------- examples
    def split_of(self, example):
        """train or test, as the row says; else a fifth of the groups that --split names is for testing, or
        all."""
        if self.options.split == "all":
            return "test"
        group = str(example.get(GROUPS[self.options.split], example["question"]))
        return example["split"] or ("train" if zlib.crc32(group.encode()) % 5 else "test")

    def trained_labels(self):
        if self.options.data:
            return {example["label"] for example in self.splits["train"]}
        return {i for i in range(len(self.names)) if not world.is_unseen(i)}

    def examples(self, split):
        """Rows of the user's data, a wrong answer each; of the world to train on numbers of questions, and to
        test the wrong answers of questions whose text belongs to the test split."""
        split = "train" if split == "train" else "test"
        if split not in self.splits:
            questions = [
                self.drawn(np.random.default_rng([self.seed, 1, i]), i, True)
                for i in range(self.options.tests)
            ]
            self.splits[split] = [pair for row in questions for pair in self.pairs(row)]
        return self.splits[split]

    def drawn(self, rng, number, test=False):
        """A question of the world that belongs to a split."""
        while True:
            row = world.question(rng, number, unseen=test)
            if world.held_out(row["QuestionText"]) == test:
                return row

    def pairs(self, row):
        places = {i: i for i in range(len(self.names))}
        return list(eedi_files.pairs_of(row, places))

    def query(self, example, form=""):
        return query_of(example, form or self.options.query, self.options.clean == "seed")

    def label(self, place):
        return eedi_files.seed_clean(self.names[place]) if self.options.clean else self.names[place]

    def bank(self):
        """The texts of the labels that training rows have: one that is never right in training would only be
        pushed away."""
        return [self.label(place) for place in self.trained] + [CORRECT] * self.options.correct_label

    def texts(self):
        rng = np.random.default_rng([self.seed, 2])
        examples = [pair for example in self.examples("train")[:4000] for pair in self.taught(example, rng)]
        return [self.query(example) for example in examples] + [self.label(i) for i in range(len(self.names))]

    def trained_on(self):
        return [example["id"] for example in self.splits["train"]] if self.options.data else []

    # -------------------------------------------------------------------------------------------- training
    def taught(self, example, rng):
        """The wrong answers that an example of training teaches; of the world's all those of one question."""
        return self.pairs(self.drawn(rng, example["number"])) if "number" in example else [example]

    def items(self, example, rng):
        """Contrasts, or for a reranker (--loss classify) the right label and mined ones as yes and no. Labels
        that are not trained on teach nothing."""
        found = []
        for pair in self.taught(example, rng):
            if pair["label"] not in self.place:
                continue
            own = self.group(pair, rng)
            if self.item is Label:
                if len(own) == 1:
                    raise ValueError(
                        "--loss classify: a reranker learns from rows that infer.py collect made, --data FILE"
                    )
                found += [
                    Label(self.asked(self.query(pair), self.label(place)), int(place == pair["label"]))
                    for place, _ in own
                ]
                continue
            (right, *_), *negatives = own
            scores = [score for _, score in own] if pair.get("scores") else None
            texts = [self.label(place) for place, _ in negatives]
            found.append(Contrast(self.query(pair), self.label(right), texts, self.place[right], scores))
            if self.options.correct_label and "right" in pair:
                asked = self.query({**pair, "wrong": pair["right"]})
                found.append(Contrast(asked, CORRECT, [], len(self.trained)))
        return found

    def group(self, pair, rng):
        """[(label, a teacher's score of it)] of the right label and --group-size - 1 of its negatives, drawn
        without replacement, and once more from the start where there are too few."""
        negatives, scores = pair.get("neg", []), pair.get("scores") or [0.0] * (1 + len(pair.get("neg", [])))
        wanted, drawn = self.options.group_size - 1 if negatives else 0, []
        while len(drawn) < wanted:
            drawn += rng.permutation(len(negatives))[: wanted - len(drawn)].tolist()
        return [(pair["label"], scores[0]), *((negatives[i], scores[1 + i]) for i in drawn)]

    def asked(self, query, label):
        """What a reranker reads: two parts, of which the shorter, the label, is hardly ever cut."""
        return [{"role": "user", "content": text} for text in (query, label)]

    # -------------------------------------------------------------------------------------------- ranking
    def similarities(self, examples, agent, form=""):
        """How similar each label is to each query, (N, labels)."""
        queries = agent.embed([self.query(example, form) for example in examples], "query")
        if self.options.match == "label":
            return queries @ agent.embed([self.label(i) for i in range(len(self.names))], "document").T
        among = queries @ queries.T
        np.fill_diagonal(among, -np.inf)  # leave one out
        found = np.full((len(examples), len(self.names)), -np.inf, among.dtype)
        for i, example in enumerate(examples):
            found[:, example["label"]] = np.maximum(found[:, example["label"]], among[:, i])
        return found

    def order(self, examples, agent):
        """(places of the labels, best first (N, labels); their similarities (N, labels)), equals in the order
        of the labels: before any reranking."""
        if hasattr(agent, "classify"):  # a reranker by itself, on candidates that were collected
            wanted = [example.get("candidates") for example in examples]
            if not all(wanted):
                raise ValueError(
                    "--data: a reranker is tested on rows with candidates, which infer.py collect writes"
                )
            scores = np.full((len(examples), len(self.names)), -np.inf)
            for row, places in zip(scores, wanted):
                row[places] = -np.arange(len(places))
        else:
            scores = self.similarities(examples, agent)
        return np.argsort(-scores, axis=1, kind="stable"), scores

    def reranked(self, examples, order, agent):
        """The order with its first --top labels put anew by a reranker's chance that each is right."""
        top = min(self.options.top, order.shape[1])
        asked = [
            self.asked(self.query(e), self.label(place))
            for e, places in zip(examples, order)
            for place in places[:top]
        ]
        chance = agent.classify(asked)[:, 1].reshape(len(examples), top)
        first = np.take_along_axis(order[:, :top], np.argsort(-chance, axis=1, kind="stable"), 1)
        return np.concatenate([first, order[:, top:]], axis=1)

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, agent):
        """MAP@25, which with one right label is the mean of 1 / rank up to 25, and recall, of labels seen and
        not seen in training apart; controls beside them: chance, TF-IDF, and a ranking that is told subject
        and construct only."""
        examples = [example for example in examples if example["label"] is not None]
        if not examples:
            raise ValueError("--data: no test row has a label")
        gold = np.array([example["label"] for example in examples])
        seen = np.isin(gold, self.trained)
        order, scores = self.order(examples, agent)
        ranks, result = ranks_of(order, gold), {"metrics": {}, "intervals": {}, "baselines": {}}
        reranker = agent if hasattr(agent, "classify") else self.reranker
        first = ranks
        if reranker:
            order = self.reranked(examples, order, reranker)
            ranks = ranks_of(order, gold)
        self.report(result, ranks, seen, "")
        if reranker:
            self.report(result, first, seen, "before reranking ")
        if not any(hasattr(agent, "classify") or "query" in example for example in examples):
            topic = np.argsort(-self.similarities(examples, agent, "topic"), axis=1, kind="stable")
            self.report(result, ranks_of(topic, gold), seen, "topic only ", maps=True)
        if self.options.match == "label":
            queries, labels = map(self.query, examples), map(self.label, range(len(self.names)))
            words = np.argsort(-tf_idf(list(queries), list(labels)), axis=1, kind="stable")
            self.report(result, ranks_of(words, gold), seen, "tf-idf ", maps=True)
        wrong = scores.copy()
        wrong[np.arange(len(gold)), gold] = -np.inf
        records = [
            {
                **{
                    name: example.get(name, "")
                    for name in ("id", "subject", "construct", "text", "right", "wrong")
                },
                "query": self.query(example),
                "label": self.names[example["label"]],
                "seen": bool(seen[i]),
                "rank": int(ranks[i]),
                "top": [self.names[place] for place in order[i][:3]],
                "similarity": float(scores[i, gold[i]]),
                "hardest": float(wrong[i].max()),
            }
            for i, example in enumerate(examples)
        ]
        return {"n": len(examples), **result, "records": records}

    def report(self, result, ranks, seen, prefix, maps=False):
        """Put MAP@25 of ranks (N,) into an evaluation, and recall unless it is `maps`; chance beside them."""
        n, labels = len(ranks), len(self.names)
        precision = np.where(ranks <= PLACES, 1 / ranks, 0.0)
        parts = {"": np.ones(n, bool), "/seen": seen, "/unseen": ~seen}
        for name, part in parts.items():
            if part.any() and not (name and part.all()):
                mean, error = precision[part].mean(), 1.96 * precision[part].std() / math.sqrt(part.sum())
                key = f"{prefix}map@25{name}"
                result["metrics"][key] = float(mean)
                result["intervals"][key] = (float(max(0, mean - error)), float(min(1, mean + error)))
                result["baselines"][key] = sum(1 / k for k in range(1, min(PLACES, labels) + 1)) / labels
        for k in () if maps else RECALLS:
            if k < labels:
                hits, key = int((ranks <= k).sum()), f"{prefix}recall@{k}"
                result["metrics"][key], result["intervals"][key] = hits / n, wilson(hits, n)
                result["baselines"][key] = k / labels

    # -------------------------------------------------------------------------------------------- mining
    def mined(self, agent, limit):
        """(rows in FlagEmbedding's form, the pool of all labels): for each training row --negatives labels
        from the places --range of its ranking, drawn by its seed; for test rows the first --top candidates. A
        label that is right for the same query anywhere, or reads the same, is no negative."""
        o, rows = self.options, []
        low, high = self.places
        known, same = {}, [" ".join(self.label(i).casefold().split()) for i in range(len(self.names))]
        for split in ("train", "test"):
            examples = self.examples(split)[: limit or None]
            if split == "train":
                rngs = [np.random.default_rng([self.seed, 4, i]) for i in range(len(examples))]
                examples = [pair for e, rng in zip(examples, rngs) for pair in self.taught(e, rng)]
            for example in examples:
                known.setdefault(self.query(example), set()).add(same[example["label"]])
            order, scores = self.order(examples, agent)
            for i, example in enumerate(examples):
                right, query = example["label"], self.query(example)
                least = scores[i, right] - o.margin if o.margin else np.inf
                taken = [
                    p for p in order[i][low:high] if same[p] not in known[query] and scores[i, p] < least
                ]
                if split == "train":
                    taken = [p for p in taken if p in self.place]  # as in training, where others are unknown
                rng = np.random.default_rng([self.seed, 5, i])
                chosen = [taken[k] for k in sorted(rng.permutation(len(taken))[: o.negatives])]
                rows.append(
                    {
                        "id": f"{split}-{i}",
                        "split": split,
                        "subject": example.get("subject", ""),
                        "query": query,
                        "pos": [self.label(right)],
                        "neg": [self.label(p) for p in chosen],
                        "candidates": [self.label(p) for p in order[i][: o.top]],
                        "places": [int(np.flatnonzero(order[i] == p)[0]) for p in chosen],
                    }
                )
                if split == "train" and not chosen:
                    self.drop("queries without a negative in --range below --margin")
        if self.reranker:
            self.teach(rows, self.reranker)
        return rows, [{"text": self.label(i)} for i in range(len(self.names))]

    def teach(self, rows, agent):
        """Put a reranker's scores of positives and negatives, in log-odds, into mined rows: what --distil
        learns from."""
        asked = [self.asked(row["query"], text) for row in rows for text in row["pos"] + row["neg"]]
        chance = np.clip(agent.classify(asked)[:, 1].astype(float), 1e-6, 1 - 1e-6) if asked else []
        scores = iter(np.log(chance) - np.log1p(-np.asarray(chance)))
        for row in rows:
            for name in ("pos", "neg"):
                row[f"{name}_scores"] = [round(float(next(scores)), 4) for _ in row[name]]

    # -------------------------------------------------------------------------------------------- use
    def submission(self, agent):
        """Rows for every wrong answer of the test.csv in --data, checked."""
        _, examples = eedi_files.read(self.options.data, split="test")
        ids = list(eedi_files.labels_of(f"{self.options.data}/{eedi_files.MAPPING}"))
        order, _ = self.order(examples, agent)
        if self.reranker:
            order = self.reranked(examples, order, self.reranker)
        return eedi_files.check_submission(eedi_files.submission(examples, order, ids), examples, ids)

    def interact(self, agent, read, show, seat, seed):
        """Rank the labels for a question, its right and a wrong answer, which a person types; for one of the
        tests where nobody is there (read is None)."""
        asked = ("Question (quit ends)", "Right answer", "Wrong answer")
        while True:
            if read:
                found = []
                for what in asked:
                    line = typed(read, show, what)
                    if line is None:
                        return
                    found.append(line.strip())
                example = dict(zip(("text", "right", "wrong"), found), construct="", subject="", label=None)
            else:
                example = self.examples("test")[0]
                show(self.query(example))
            order, scores = self.order([example], agent)
            if self.reranker:
                order = self.reranked([example], order, self.reranker)
            for place in order[0][:5]:
                show(f"{scores[0, place]:6.3f}  {self.names[place]}")
            if not read:
                return show(f"true:   {self.names[example['label']]}")


def ranks_of(order, gold):
    """The rank of each gold label (N,), from 1 on, in an order (N, labels)."""
    return (order == gold[:, None]).argmax(1) + 1


def tf_idf(queries, labels):
    """Cosine of bags of words weighted by (1 + log tf) * idf, (queries, labels); idf over the labels."""
    words = [Counter(re.findall(r"\w+", text.lower())) for text in labels]
    found = Counter(word for bag in words for word in bag)
    column = {word: i for i, word in enumerate(found)}
    idf = np.array([math.log((1 + len(labels)) / (1 + n)) + 1 for n in found.values()])

    def matrix(bags):
        rows = np.zeros((len(bags), len(column)))
        for row, bag in zip(rows, bags):
            for word, n in bag.items():
                if word in column:
                    row[column[word]] = (1 + math.log(n)) * idf[column[word]]
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    return matrix([Counter(re.findall(r"\w+", text.lower())) for text in queries]) @ matrix(words).T
