"""Eedi: find the misconception behind a wrong answer, among the texts of all that are known.

A query (a question, its right answer and a wrong one) and every label become vectors, and the labels are
ranked by their similarity; a reranker may then read the first of them beside the query. Read `items` for what
is learned, `rank` and `evaluate` for what counts, `mined` for hard negatives. games/eedi/files.py reads the
files, games/eedi/world.py holds the embedded questions."""

import math
import re
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from games.eedi import files, world
from games.eedi.files import PLACES, query_of
from games.stats import wilson
from games.task import (
    Classifies,
    Contrast,
    HasBank,
    Interactive,
    Label,
    Mines,
    SubmitsRows,
    Task,
    TracksTraining,
    flag,
)
from terminal import UsageError, ask

RECALLS = (1, 10, 25, 100)
WORLD_PLACES = {i: i for i in range(len(world.LABELS))}


Split = Literal["question", "construct", "subject", "all"]
Query = Literal["s1", "s2", "s3", "s4", "full", "topic"]


@dataclass
class Options:
    # questions and labels | train eval play collect submit rows
    data: str = ""  # Eedi's folder, or rows or items (games/eedi/files.py); by default the world's questions
    pool: str = ""  # rows with the texts of more labels
    split: Split = flag("question", as_trained=True)  # what train and test rows never share; all: only tests
    # queries | train eval play collect submit
    query: Query = flag("full", as_trained=True)  # s1 to s4 as published; full: ours; topic: a control
    clean: Literal["", "seed"] = flag("", as_trained=True)  # seed: the published clean-up, without digits
    # mined rows | train
    group_size: int = 8  # texts for each query of mined rows in a step: the right label and negatives
    # ranking | train eval play collect submit
    match: Literal["label", "example"] = "label"  # compare a query with labels, or with other test queries
    reranker: str = flag("", agent="classify", cosmetic=True)  # run or model that reorders the first labels
    top: int = flag(25, cosmetic=True)  # labels that a reranker reads
    # hard negatives | collect
    range: str = "1-100"  # places of the ranking that negatives come from, the first being place 0
    negatives: int = 15  # negatives for each query
    margin: float = 0.0  # leave out negatives that are not this much less similar than the right label
    # the world | train eval play collect
    questions: int = 4000  # training questions of an epoch, each drawn anew each time
    tests: int = 600  # test questions; a seventh of the labels is in no training question


class Eedi(HasBank, Classifies, Mines, TracksTraining, SubmitsRows, Interactive, Task):
    Options = Options
    loss = "contrastive"
    labels = 2  # a reranker's classes: wrong, right
    pre_tokens = r"[0-9]| ?[A-Za-z]+|\s|[^\sA-Za-z0-9]"  # a digit is a token

    def __init__(self, options=None, seed=0, kind=Contrast):
        super().__init__(options, seed, kind)
        o = self.options
        places = re.fullmatch(r"(\d+)-(\d+)", o.range)
        if not places or int(places[1]) >= int(places[2]):
            raise UsageError(
                f"--range {o.range}: must be two places such as 1-100, the first below the second"
            )
        self.range = slice(int(places[1]), int(places[2]))
        self.splits = {"train": [], "test": []}
        if o.data:
            self.names, examples = files.read(o.data, o.pool)
            for example in examples:
                self.splits[self.split_of(example)].append(example)
            trained = {example["label"] for example in self.splits["train"]}
        else:
            self.names = world.LABELS
            self.splits["train"] = [{"number": i} for i in range(o.questions)]
            trained = {place for place in WORLD_PLACES if not world.is_unseen(place)}
        self.label_texts = [files.seed_clean(name) for name in self.names] if o.clean else self.names
        self.trained = {label: place for place, label in enumerate(sorted(trained))}  # label -> its bank's id

    # -------------------------------------------------------------------------------------------- examples
    def split_of(self, example):
        """train or test, as the row says; else a fifth of the groups that --split names is for testing, or
        all. A group that a row does not name is its question."""
        split = self.options.split
        if split == "all":
            return "test"
        group = str(example.get(f"{split}_id", example["question"]))
        return example["split"] or ("train" if zlib.crc32(group.encode()) % 5 else "test")

    def examples(self, split):
        """Rows of the user's data, a wrong answer each. Of the world numbers of questions to train on, and to
        test the wrong answers of questions whose text belongs to the test split."""
        split = "train" if split == "train" else "test"
        if split == "test" and not (self.options.data or self.splits["test"]):
            for i in range(self.options.tests):
                rng = np.random.default_rng([self.seed, 1, i])
                self.splits["test"] += self.draw_answers(rng, i, test=True)
        return self.splits[split]

    def draw_answers(self, rng, number, test=False):
        """The wrong answers of a question of the world that belongs to a split."""
        while True:
            row = world.question(rng, number, unseen=test)
            if world.held_out(row["QuestionText"]) == test:
                return list(files.question_examples(row, WORLD_PLACES))

    def query(self, example, form=""):
        return query_of(example, form or self.options.query, self.options.clean == "seed")

    def bank(self):
        """The texts of the labels that training rows have: one that is never right in training would only be
        pushed away."""
        return [self.label_texts[label] for label in self.trained]

    def texts(self):
        rng = np.random.default_rng([self.seed, 2])
        queries = []
        for example in self.examples("train")[:4000]:
            queries += [self.query(answer) for answer in self.wrong_answers(example, rng)]
        return queries + self.label_texts

    def trained_on(self):
        return [example["id"] for example in self.splits["train"]] if self.options.data else []

    # -------------------------------------------------------------------------------------------- training
    def wrong_answers(self, example, rng):
        """The wrong answers that a training example teaches: of the world all those of one question."""
        return self.draw_answers(rng, example["number"]) if "number" in example else [example]

    def items(self, example, rng):
        """Contrasts, or for a reranker (--loss classify) the right label and mined ones as yes and no. Labels
        that are not trained on teach nothing."""
        items = []
        for answer in self.wrong_answers(example, rng):
            right = answer["label"]
            if right not in self.trained:
                continue
            query = self.query(answer)
            labels = [right, *answer.get("neg", [])]
            drawn = self.draw_group(len(labels), rng)
            texts = [self.label_texts[labels[k]] for k in drawn]
            if self.kind is Label:
                if len(drawn) == 1:
                    raise UsageError(
                        "--loss classify: a reranker learns from rows that infer.py collect made, --data FILE"
                    )
                targets = [int(labels[k] == right) for k in drawn]
                items += [Label(parts(query, text), target) for text, target in zip(texts, targets)]
            else:
                scores = answer.get("scores")
                scores = scores and [scores[k] for k in drawn]
                items.append(Contrast(query, texts[0], texts[1:], self.trained[right], scores))
        return items

    def draw_group(self, n, rng):
        """The places 0, of the right label, and of --group-size - 1 of the n - 1 negatives behind it, drawn
        without replacement, and once more from the start where there are too few."""
        drawn = [0]
        while 1 < n and len(drawn) < self.options.group_size:
            drawn += (1 + rng.permutation(n - 1))[: self.options.group_size - len(drawn)].tolist()
        return drawn

    # -------------------------------------------------------------------------------------------- ranking
    def similarities(self, examples, player, form=""):
        """How similar each label is to each query, (N, labels)."""
        queries = player.embed([self.query(example, form) for example in examples], "query")
        if self.options.match == "label":
            return queries @ player.embed(self.label_texts, "document").T
        among = queries @ queries.T
        np.fill_diagonal(among, -np.inf)  # leave one out
        nearest = np.full((len(examples), len(self.names)), -np.inf, among.dtype)
        for i, example in enumerate(examples):
            nearest[:, example["label"]] = np.maximum(nearest[:, example["label"]], among[:, i])
        return nearest

    def retrieve(self, examples, player):
        """(places of the labels, best first, equals in their order; their similarities), both (N, labels)."""
        if not hasattr(player, "classify"):
            scores = self.similarities(examples, player)
            return best_first(scores), scores
        candidates = [example.get("candidates") for example in examples]
        if not all(candidates):
            raise UsageError(
                "--data: a reranker is tested on rows with candidates, which infer.py collect writes"
            )
        scores = np.full((len(examples), len(self.names)), -np.inf)
        for row, places in zip(scores, candidates):
            row[places] = -np.arange(len(places))
        return best_first(scores), scores

    def rerank(self, examples, order, reranker):
        """The order with its first --top labels sorted by the reranker's chance that each is right."""
        first = order[:, : self.options.top]
        queries = map(self.query, examples)
        pairs = [
            parts(query, self.label_texts[place]) for query, places in zip(queries, first) for place in places
        ]
        chances = reranker.classify(pairs)[:, 1].reshape(first.shape)
        first = np.take_along_axis(first, best_first(chances), 1)
        return np.concatenate([first, order[:, self.options.top :]], axis=1)

    def rank(self, examples, players):
        """(places of the labels, best first, (N, labels); the same before reranking, or None where nothing
        reranks; similarities (N, labels)). A player that classifies is a reranker by itself, on the
        candidates that were collected."""
        player = players.player
        reranker = player if hasattr(player, "classify") else players.named.get("reranker")
        order, scores = self.retrieve(examples, player)
        if reranker:
            return self.rerank(examples, order, reranker), order, scores
        return order, None, scores

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, players):
        """MAP@25, which with one right label is the mean of 1 / rank up to 25, and recall, of labels seen and
        not seen in training apart; controls beside them: chance, TF-IDF, and a ranking that is told subject
        and construct only."""
        examples = [example for example in examples if example["label"] is not None]
        if not examples:
            raise UsageError("--data: no test row has a label")
        player = players.player
        gold = np.array([example["label"] for example in examples])
        order, before, scores = self.rank(examples, players)
        figures = [*self.figures(order, gold)]
        if before is not None:
            figures += self.figures(before, gold, "before reranking ")
        if not hasattr(player, "classify") and not any("query" in example for example in examples):
            topics = self.similarities(examples, player, "topic")
            figures += self.figures(best_first(topics), gold, "topic only ", recalls=())
        if self.options.match == "label":
            words = tf_idf([self.query(example) for example in examples], self.label_texts)
            figures += self.figures(best_first(words), gold, "tf-idf ", recalls=())
        names, values, intervals, chances = zip(*figures)
        return {
            "n": len(examples),
            "metrics": dict(zip(names, values)),
            "intervals": dict(zip(names, intervals)),
            "baselines": dict(zip(names, chances)),
            "records": [self.record(*row) for row in zip(examples, order, scores)],
        }

    def figures(self, order, gold, prefix="", recalls=RECALLS):
        """Yield (name, value, interval, chance) of MAP@25 and recall of an order (N, labels)."""
        n, labels = order.shape
        ranks = (order == gold[:, None]).argmax(1) + 1
        seen = np.isin(gold, [*self.trained])
        precision = np.where(ranks <= PLACES, 1 / ranks, 0.0)
        chance = sum(1 / k for k in range(1, min(PLACES, labels) + 1)) / labels
        for name, part in (("", np.ones(n, bool)), ("/seen", seen), ("/unseen", ~seen)):
            if part.any() and not (name and part.all()):
                mean = precision[part].mean()
                error = 1.96 * precision[part].std() / math.sqrt(part.sum())
                interval = float(max(0, mean - error)), float(min(1, mean + error))
                yield f"{prefix}map@25{name}", float(mean), interval, chance
        for k in recalls:
            if k < labels:
                hits = int((ranks <= k).sum())
                yield f"{prefix}recall@{k}", hits / n, wilson(hits, n), k / labels

    def record(self, example, order, scores):
        """What is kept of one query, its labels' places and similarities (labels,)."""
        gold = example["label"]
        names = ("id", "subject", "construct", "text", "right", "wrong")
        return {
            **{name: example.get(name, "") for name in names},
            "query": self.query(example),
            "label": self.names[gold],
            "seen": gold in self.trained,
            "rank": int(np.flatnonzero(order == gold)[0]) + 1,
            "top": [self.names[place] for place in order[:3]],
            "similarity": float(scores[gold]),
            "hardest": float(np.delete(scores, gold).max(initial=-np.inf)),
        }

    # -------------------------------------------------------------------------------------------- mining
    def mined(self, players, limit):
        """(rows in FlagEmbedding's form, the pool of all labels): for each training row --negatives labels
        from the places --range of its ranking, drawn by its seed; for test rows the first --top candidates. A
        label that is right for the same query anywhere, or reads the same, is no negative."""
        o = self.options
        rows = []
        plain = [" ".join(text.casefold().split()) for text in self.label_texts]
        right = defaultdict(set)  # query -> its right labels as plain text
        for split in ("train", "test"):
            examples = self.examples(split)[: limit or None]
            if split == "train":
                rngs = [np.random.default_rng([self.seed, 4, i]) for i in range(len(examples))]
                drawn = map(self.wrong_answers, examples, rngs)
                examples = [answer for answers in drawn for answer in answers]
            for example in examples:
                right[self.query(example)].add(plain[example["label"]])
            order, scores = self.retrieve(examples, players.player)
            for i, example in enumerate(examples):
                gold, query = example["label"], self.query(example)
                ceiling = scores[i, gold] - o.margin if o.margin else np.inf
                labels = order[i].tolist()
                allowed = [
                    label
                    for label in labels[self.range]
                    if plain[label] not in right[query]
                    and scores[i, label] < ceiling
                    and (split == "test" or label in self.trained)  # in training others are unknown
                ]
                rng = np.random.default_rng([self.seed, 5, i])
                chosen = [allowed[k] for k in sorted(rng.permutation(len(allowed))[: o.negatives])]
                if split == "train" and not chosen:
                    self.dropped["queries without a negative in --range below --margin"] += 1
                row = {
                    "id": f"{split}-{i}",
                    "split": split,
                    "subject": example.get("subject", ""),
                    "query": query,
                    "pos": [self.label_texts[gold]],
                    "neg": [self.label_texts[label] for label in chosen],
                    "candidates": [self.label_texts[label] for label in labels[: o.top]],
                    "places": [labels.index(label) for label in chosen],
                }
                rows.append(row)
        if rows and "reranker" in players.named:
            add_scores(rows, players.named["reranker"])
        return rows, [{"text": text} for text in self.label_texts]

    # -------------------------------------------------------------------------------------------- use
    def submission(self, players):
        """Rows for every wrong answer of the test.csv in --data, checked."""
        _, examples = files.read(self.options.data, split="test")
        ids = list(files.read_labels(f"{self.options.data}/{files.MAPPING}"))
        return files.submission_rows(examples, self.rank(examples, players)[0], ids)

    def interact(self, players, read, show, seat, seed):
        """Rank the labels for a question, its right and a wrong answer, which a person types; for one of the
        tests where nobody is there (read is None)."""
        while True:
            example = ask_answer(read, show) if read else self.examples("test")[0]
            if example is None:
                return
            if not read:
                show(self.query(example))
            order, _, scores = self.rank([example], players)
            for place in order[0][:5]:
                show(f"{scores[0, place]:6.3f}  {self.names[place]}")
            if not read:
                show(f"true:   {self.names[example['label']]}")
                return


def ask_answer(read, show):
    """The example that a person types, or None."""
    questions = {"text": "Question (quit ends)", "right": "Right answer", "wrong": "Wrong answer"}
    typed = {"construct": "", "subject": "", "label": None}
    for name, question in questions.items():
        line = ask(read, show, question)
        if line is None:
            return None
        typed[name] = line.strip()
    return typed


def add_scores(rows, reranker):
    """Put a reranker's scores of positives and negatives, in log-odds, into mined rows: what --distil learns
    from."""
    pairs = [parts(row["query"], text) for row in rows for text in row["pos"] + row["neg"]]
    chances = np.clip(reranker.classify(pairs)[:, 1].astype(float), 1e-6, 1 - 1e-6)
    scores = iter(np.log(chances) - np.log1p(-chances))
    for row in rows:
        for name in ("pos", "neg"):
            row[f"{name}_scores"] = [round(float(next(scores)), 4) for _ in row[name]]


def parts(query, label):
    """What a reranker reads: two parts, of which the shorter, the label, is hardly ever cut."""
    return [{"role": "user", "content": text} for text in (query, label)]


def best_first(scores):
    """The places of each row by falling score, equals in their order: (N, labels)."""
    return np.argsort(-scores, axis=1, kind="stable")


def tf_idf(queries, labels):
    """Cosine of bags of words weighted by (1 + log tf) * idf, (queries, labels); idf over the labels."""
    n = len(labels)
    bags = [Counter(re.findall(r"\w+", text.lower())) for text in [*labels, *queries]]
    labels_with = Counter(word for bag in bags[:n] for word in bag)
    known = {}  # word -> (its column, its idf)
    for column, (word, count) in enumerate(labels_with.items()):
        known[word] = column, math.log((1 + n) / (1 + count)) + 1
    rows = np.zeros((len(bags), len(known)))
    for row, bag in zip(rows, bags):
        for word in bag.keys() & known:
            column, idf = known[word]
            row[column] = (1 + math.log(bag[word])) * idf
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows[n:] @ rows[:n].T
