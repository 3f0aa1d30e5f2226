"""Eedi: find the misconception behind a wrong answer, among the texts of all known misconceptions.

A query (a question, its right answer and a wrong one) and every label become vectors, and the labels are
ranked by their similarity to the query. A reranker may then read the best labels together with the query.
Read `items` for what a model learns, `rank` and `evaluate` for the metrics, and `mined` for hard negatives.
games/eedi/files.py reads the files; games/eedi/world.py holds the embedded questions."""

import math
import re
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from games.eedi import files, world
from games.eedi.files import places_of, query_of
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

RECALLS = (1, 10, 25, 100)  # k of recall@k
RECORDED = ("id", "subject", "construct", "text", "right", "wrong")  # fields that a record copies
INSTRUCT = "Given a question, its right answer and a wrong answer, find the misconception behind it"
WORLD_PLACES = {i: i for i in range(len(world.LABELS))}  # the world's label ids are indices already

Split = Literal["question", "construct", "subject", "all"]
Query = Literal["s1", "s2", "s3", "s4", "full", "topic"]


@dataclass
class Options:
    # questions and labels | train eval play collect submit rows
    data: str = ""  # Eedi's folder or a file of rows (games/eedi/files.py); by default the world's questions
    pool: str = ""  # rows with the texts of more labels
    split: Split = flag("question", as_trained=True)  # train and test rows never share one; all: only tests
    # queries | train eval play collect submit
    query: Query = flag("full", as_trained=True)  # s1 to s4: as published; full: ours; topic: a control
    clean: Literal["", "seed"] = flag("", as_trained=True)  # seed: the published clean-up, without digits
    # mined rows | train
    group_size: int = 8  # texts per query of mined rows in a step: the right label and negatives
    # ranking | train eval play collect submit
    match: Literal["label", "example"] = "label"  # compare a query with labels, or with other test queries
    reranker: str = flag("", agent="classify", instruct=INSTRUCT, cosmetic=True)  # reorders the best labels
    top: int = flag(25, cosmetic=True)  # labels that a reranker reads for each query
    # hard negatives | collect
    range: str = "1-100"  # negatives come from these places of the ranking; the best place is 0
    negatives: int = 15  # negatives per query
    margin: float = 0.0  # a negative must be less similar than the right label by this much
    # the world | train eval play collect
    questions: int = 4000  # training questions per epoch; each epoch draws their numbers anew
    tests: int = 600  # test questions; one label in seven is in no training question


class Eedi(HasBank, Classifies, Mines, TracksTraining, SubmitsRows, Interactive, Task):
    Options = Options
    loss = "contrastive"
    pre_tokens = r"[0-9]| ?[A-Za-z]+|\s|[^\sA-Za-z0-9]"  # each digit is a token of its own

    def __init__(self, options=None, seed=0, kind=Contrast):
        super().__init__(options, seed, kind)
        o = self.options
        ends = re.fullmatch(r"(\d+)-(\d+)", o.range)
        if not ends or int(ends[1]) >= int(ends[2]):
            raise UsageError(
                f"--range {o.range}: must be two places such as 1-100, the first below the second"
            )
        self.range = slice(*map(int, ends.groups()))
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
        first = {}
        # of each label the first label with the same text
        self.first_of = np.array([first.setdefault(text, i) for i, text in enumerate(self.label_texts)])
        # label that training rows have -> its index in the bank
        self.trained = {label: index for index, label in enumerate(sorted(trained))}

    # -------------------------------------------------------------------------------------------- examples
    def split_of(self, example):
        """train or test. --split all tests on every row. A row may also name its split; otherwise a hash puts
        a fifth of the groups (--split) into test. The group of a row without this column is its question."""
        split = self.options.split
        if split == "all":
            return "test"
        if example["split"]:
            return example["split"]
        group = str(example.get(f"{split}_id", example["question"]))
        return "train" if zlib.crc32(group.encode()) % 5 else "test"

    def examples(self, split):
        """One example for each wrong answer in the user's data. From the world: for training the numbers of
        questions to draw, for testing the wrong answers of questions that are held out."""
        split = "train" if split == "train" else "test"
        if split == "test" and not (self.options.data or self.splits["test"]):
            for i in range(self.options.tests):
                rng = np.random.default_rng([self.seed, 1, i])
                self.splits["test"] += self.draw_answers(rng, i, test=True)
        return self.splits[split]

    def draw_answers(self, rng, number, test=False):
        """The wrong answers of a new question of the world, held out from training or not."""
        while True:
            row = world.question(rng, number, unseen=test)
            if world.held_out(row["QuestionText"]) == test:
                return list(files.question_examples(row, WORLD_PLACES))

    def query(self, example, form=""):
        """The query for an example; form: instead of --query."""
        return query_of(example, form or self.options.query, self.options.clean == "seed")

    def bank(self):
        """The texts of the labels that training rows have. The softmax would only push away a label that is
        never right in training."""
        return self.texts_of(self.trained)

    def texts_of(self, labels):
        return [self.label_texts[label] for label in labels]

    def texts(self):
        rng = np.random.default_rng([self.seed, 2])
        queries = []
        for example in self.examples("train")[:4000]:
            queries += [self.query(answer) for answer in self.wrong_answers(example, rng)]
        return queries + self.label_texts

    def trained_on(self):
        if not self.options.data:
            return []
        return [example["id"] for example in self.splits["train"]]

    # -------------------------------------------------------------------------------------------- training
    def wrong_answers(self, example, rng):
        """The wrong answers that a training example teaches. A number of the world is drawn as a question
        first."""
        if "number" in example:
            return self.draw_answers(rng, example["number"])
        return [example]

    def items(self, example, rng):
        """Contrasts; or for a reranker (--loss classify) Labels, "yes" for the right label and "no" for mined
        ones. An answer whose label is held out from training teaches nothing."""
        items = []
        for answer in self.wrong_answers(example, rng):
            right = answer["label"]
            if right not in self.trained:
                continue
            query = self.query(answer)
            labels = [right, *self.draw_negatives(answer.get("neg", []), rng)]
            texts = self.texts_of(labels)
            if self.kind is not Contrast and len(labels) == 1:
                raise UsageError("--data: a reranker learns from rows that infer.py collect made")
            if self.kind is Label:
                for label, text in zip(labels, texts):
                    items.append(Label(parts(query, text), int(label == right)))
            else:
                items.append(Contrast(query, texts[0], texts[1:], self.trained[right]))
        return items

    def draw_negatives(self, negatives, rng):
        """--group-size - 1 of the negatives, drawn without replacement; if they run out, drawing starts again
        with all of them."""
        wanted = self.options.group_size - 1
        drawn = []
        while negatives and len(drawn) < wanted:
            for k in rng.permutation(len(negatives))[: wanted - len(drawn)]:
                drawn.append(negatives[k])
        return drawn

    # -------------------------------------------------------------------------------------------- ranking
    def possible(self, examples):
        """Whether each label can be right for each query, (N, labels). MAP's labels say whether the answer is
        right, and mostly its file does too."""
        possible = np.ones((len(examples), len(self.names)), bool)
        is_right = np.array([name.startswith("True_") for name in self.names])
        for row, example in zip(possible, examples):
            if example.get("is_right") is not None:
                row[:] = is_right == example["is_right"]
        return possible

    def similarities(self, examples, player, form=""):
        """The similarity of each label to each query, (N, labels), -inf where it cannot be right. With
        --match example, the similarity to a label is that to the nearest other query that has this label."""
        texts = [self.query(example, form) for example in examples]
        queries = player.embed(texts, "query")  # (N, width)
        if self.options.match == "label":
            scores = queries @ player.embed(self.label_texts, "document").T
            return np.where(self.possible(examples), scores, -np.inf)

        among = queries @ queries.T  # (N, N)
        np.fill_diagonal(among, -np.inf)  # a query must not find itself
        nearest = np.full((len(examples), len(self.names)), -np.inf, among.dtype)
        for i, example in enumerate(examples):
            column = nearest[:, example["label"]]  # (N,), a view: writing to it changes nearest
            np.maximum(column, among[:, i], out=column)
        return nearest

    def retrieve(self, examples, player):
        """(indices of the labels, best first; their similarities), both (N, labels). A reranker that plays
        alone cannot retrieve: it starts from the candidates in its rows, in their order."""
        if hasattr(player, "embed"):
            scores = self.similarities(examples, player)
            return best_first(scores), scores
        candidates = [example.get("candidates") for example in examples]
        if not all(candidates):
            raise UsageError(
                "--data: a reranker is tested on rows with candidates; infer.py collect writes such rows"
            )
        scores = np.full((len(examples), len(self.names)), -np.inf)
        for of_query, labels in zip(scores, candidates):
            of_query[labels] = -np.arange(len(labels))
        return best_first(scores), scores

    def rerank(self, examples, order, scores, reranker):
        """The order after sorting its --top best labels by the reranker's scores. scores: the retriever's."""
        top = self.options.top
        best = order[:, :top]  # (N, top)
        queries = [self.query(example) for example in examples]
        ratings = np.array(rate(reranker, queries, [*map(self.texts_of, best)]))  # (N, top)
        ratings[np.take_along_axis(scores, best, 1) == -np.inf] = -np.inf  # these cannot be right
        places = best_first(ratings)  # (N, top)
        best = np.take_along_axis(best, places, 1)
        return np.concatenate([best, order[:, top:]], axis=1)

    def rank(self, examples, players):
        """(indices of the labels, best first; the same before reranking, or None without a reranker;
        similarities), all (N, labels). A player that classifies is itself the reranker."""
        player = players.player
        reranker = players.named.get("reranker")
        if not hasattr(player, "embed"):
            reranker = player
        order, scores = self.retrieve(examples, player)
        if reranker:
            return self.rerank(examples, order, scores, reranker), order, scores
        return order, None, scores

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, players):
        """MAP@25 (MAP@3 where students explain their answers), also for labels seen and not seen in training,
        and recall. With one right label, MAP@25 is the mean of 1 / rank, where ranks beyond 25 count 0. The
        controls are chance, TF-IDF, and queries of subject and construct only."""
        examples = [example for example in examples if example["label"] is not None]
        if not examples:
            raise UsageError("--data: no test row has a label")
        player = players.player
        order, before, scores = self.rank(examples, players)

        figures = [*self.figures(order, examples)]
        if before is not None:
            figures += self.figures(before, examples, "before reranking ")
        if hasattr(player, "embed") and not any("query" in example for example in examples):
            by_topic = self.similarities(examples, player, "topic")
            figures += self.figures(best_first(by_topic), examples, "topic only ", recalls=())
        if self.options.match == "label":
            by_words = tf_idf([self.query(example) for example in examples], self.label_texts)
            by_words[~self.possible(examples)] = -np.inf
            figures += self.figures(best_first(by_words), examples, "tf-idf ", recalls=())
        names, values, intervals, chances = zip(*figures)
        return {
            "n": len(examples),
            "metrics": dict(zip(names, values)),
            "intervals": dict(zip(names, intervals)),
            "baselines": dict(zip(names, chances)),
            "records": [*map(self.record, examples, order, scores)],
        }

    def figures(self, order, examples, prefix="", recalls=RECALLS):
        """Yield (name, value, interval, value of a random order) of MAP@25 and recall. order (N, labels):
        indices of labels, best first."""
        n, labels = order.shape
        places = places_of(examples[0])
        gold = np.array([example["label"] for example in examples])
        seen = np.isin(gold, [*self.trained])
        order = self.first_of[order]
        ranks = (order == self.first_of[gold][:, None]).argmax(1) + 1
        right = [example.get("labels", [example["label"]]) for example in examples]
        counts = np.array([*map(bool, right)])  # a query with several right labels counts once
        precision = np.zeros(n)
        for i in np.flatnonzero(counts):
            precision[i] = average_precision(order[i], self.first_of[right[i]], places)
        sizes = self.possible(examples).sum(1)  # (N,): labels that can be right
        harmonic = np.cumsum(1 / np.arange(1, places + 1))
        chance = float((harmonic[np.minimum(places, sizes) - 1] / sizes).mean())  # with one right label

        groups = {"": counts, "/seen": counts & seen, "/unseen": counts & ~seen}
        for name, group in groups.items():
            repeats = name and group.sum() == counts.sum()  # of all queries, as the first group
            if group.any() and not repeats:
                chosen = precision[group]
                mean = chosen.mean()
                error = 1.96 * chosen.std() / math.sqrt(len(chosen))
                low = float(max(0, mean - error))
                high = float(min(1, mean + error))
                yield f"{prefix}map@{places}{name}", float(mean), (low, high), chance

        for k in recalls:
            if k < labels:
                hits = int((ranks <= k).sum())
                yield f"{prefix}recall@{k}", hits / n, wilson(hits, n), float(np.minimum(k / sizes, 1).mean())

    def record(self, example, order, scores):
        """The record of one query, for samples and pictures. order, scores: (labels,)."""
        gold = example["label"]
        return {
            **{name: example.get(name, "") for name in RECORDED},
            "query": self.query(example),
            "label": self.names[gold],
            "seen": gold in self.trained,
            "rank": int((self.first_of[order] == self.first_of[gold]).argmax()) + 1,
            "top": [self.names[place] for place in order[:3]],
            "similarity": float(scores[gold]),
            "hardest": float(np.delete(scores, gold).max(initial=-np.inf)),
        }

    # -------------------------------------------------------------------------------------------- mining
    def mined(self, players, limit):
        """(rows in FlagEmbedding's form, one row for the text of each label). A row of the first kind has
        --negatives labels, drawn from the places --range of its ranking, and the --top best labels as
        candidates. A label that is right for the same query in any row, or has the same text, is no
        negative."""
        o = self.options
        if o.reranker:
            raise UsageError("collect: the retriever alone ranks the labels here; drop --reranker")
        rows = []
        plain = [" ".join(text.casefold().split()) for text in self.label_texts]
        right = defaultdict(set)  # query -> its right labels as plain text
        for split in ("train", "test"):
            examples = self.examples(split)[: limit or None]
            if split == "train":
                answers = []
                for i, example in enumerate(examples):
                    rng = np.random.default_rng([self.seed, 4, i])
                    answers += self.wrong_answers(example, rng)
                examples = answers
            for example in examples:
                right[self.query(example)].add(plain[example["label"]])
            order, scores = self.retrieve(examples, players.player)

            for i, example in enumerate(examples):
                gold = example["label"]
                query = self.query(example)
                ceiling = scores[i, gold] - o.margin if o.margin else np.inf
                ranking = [label for label in order[i].tolist() if scores[i, label] > -np.inf]
                allowed = []
                for label in ranking[self.range]:
                    # Training must not show the labels that are held out from it.
                    usable = split == "test" or label in self.trained
                    if usable and plain[label] not in right[query] and scores[i, label] < ceiling:
                        allowed.append(label)
                rng = np.random.default_rng([self.seed, 5, i])
                drawn = rng.permutation(len(allowed))[: o.negatives]
                negatives = [allowed[k] for k in sorted(drawn)]  # most similar first
                if split == "train" and not negatives:
                    self.dropped["queries without a negative in --range below --margin"] += 1
                rows.append(
                    {
                        "id": f"{split}-{i}",
                        "split": split,
                        "subject": example.get("subject", ""),
                        "query": query,
                        "pos": [self.label_texts[gold]],
                        "neg": self.texts_of(negatives),
                        "candidates": self.texts_of(ranking[: o.top]),
                        "places": [ranking.index(label) for label in negatives],
                    }
                )
        return rows, [{"text": text} for text in self.label_texts]

    # -------------------------------------------------------------------------------------------- use
    def submission(self, players):
        """A row of labels for each wrong answer, or each explained one, of test.csv in the folder --data."""
        ids, examples = files.read(self.options.data, split="test")
        if "explanation" not in examples[0]:
            ids = list(files.read_labels(f"{self.options.data}/{files.MAPPING}"))
        order = self.rank(examples, players)[0]
        return files.submission_rows(examples, order, ids)

    def interact(self, players, read, show, seat, seed):
        """Show the best labels for questions and answers that a person types, or for one test example if no
        person is there (read is None)."""
        while True:
            if read:
                example = ask_answer(read, show)
                if example is None:
                    return
            else:
                example = self.examples("test")[0]
                show(self.query(example))

            order, _, scores = self.rank([example], players)
            for place in order[0][:5]:
                show(f"{scores[0, place]:6.3f}  {self.names[place]}")
            if not read:
                show(f"true:   {self.names[example['label']]}")
                return


def ask_answer(read, show):
    """An example that a person types, or None at the end."""
    questions = {"text": "Question (quit ends)", "right": "Right answer", "wrong": "Wrong answer"}
    typed = {"construct": "", "subject": "", "label": None}
    for name, question in questions.items():
        line = ask(read, show, question)
        if line is None:
            return None
        typed[name] = line.strip()
    return typed


def rate(reranker, queries, texts):
    """A reranker's scores of the texts of each query, as log-odds: a list of arrays."""
    pairs = []
    for query, labels in zip(queries, texts):
        pairs += [parts(query, label) for label in labels]
    # A chance of exactly 0 or 1 would have infinite log-odds.
    chances = np.clip(reranker.classify(pairs).astype(float), 1e-300, 1)
    scores = np.log(chances[:, 1]) - np.log(chances[:, 0])  # (pairs,)
    return np.split(scores, np.cumsum([*map(len, texts)])[:-1])


def parts(*texts):
    """A reranker's input, a query and a label, as messages, so that a long query is cut and not the label."""
    return [{"role": "user", "content": text} for text in texts]


def best_first(scores):
    """The indices of each row's columns, highest score first and ties in their order: (N, labels)."""
    return np.argsort(-scores, axis=1, kind="stable")


def average_precision(ranking, right, k):
    """Average precision at k of a ranking of labels, best first: the sum of the precision at the rank of each
    right label, divided by the largest number of right labels that fit. A label that stands several times
    counts once."""
    left = {*right}
    most = min(len(left), k)
    found = 0
    total = 0.0
    for rank, label in enumerate(ranking[:k], 1):
        if label in left:
            left.remove(label)
            found += 1
            total += found / rank
    return total / most


def tf_idf(queries, labels):
    """The TF-IDF similarities (queries, labels): cosines of bags of words with weights (1 + log tf) * idf.
    The idf of a word is that among the labels."""
    n = len(labels)
    bags = [Counter(re.findall(r"\w+", text.lower())) for text in [*labels, *queries]]
    labels_with = Counter()  # word -> in how many labels it stands, however often in each
    for bag in bags[:n]:
        labels_with.update(list(bag))
    known = {}  # word -> (its column, its idf)
    for column, (word, count) in enumerate(labels_with.items()):
        idf = math.log((1 + n) / (1 + count)) + 1
        known[word] = column, idf

    vectors = np.zeros((len(bags), len(known)))
    for vector, bag in zip(vectors, bags):
        for word in bag.keys() & known:
            column, idf = known[word]
            vector[column] = (1 + math.log(bag[word])) * idf
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.maximum(norms, 1e-12)  # a text without a known word stays 0
    return vectors[n:] @ vectors[:n].T
