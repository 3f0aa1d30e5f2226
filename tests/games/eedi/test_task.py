"""Eedi: items, metrics of rankings, hard negatives, reranking, submitting and playing."""

import json

import numpy as np
import pytest

from games.eedi import world
from games.eedi.task import Eedi, Options, average_precision, tf_idf
from games.task import Contrast, Label, Players
from terminal import UsageError
from tests.games.eedi.help_eedi import (
    NAMES,
    Judge,
    Vectors,
    write,
    write_explained,
    write_folder,
    write_lines,
)

RANDOM = Players(Vectors())


@pytest.fixture
def folder(tmp_path):
    """Twelve questions with two or three labelled wrong answers each; no question has the labels 50 to 59."""
    rows = [
        (q, q % 4, q % 2, "D", (f"{q}.0", f"{q + 12}.0", f"{q + 24}.0" if q % 2 else "", ""))
        for q in range(12)
    ]
    write_folder(tmp_path, NAMES, rows)
    return str(tmp_path)


# ------------------------------------------------------------------------------------------------ examples
@pytest.mark.parametrize(
    "split, key", [("question", "question"), ("construct", "construct_id"), ("subject", "subject_id")]
)
def test_train_and_test_share_no_group(folder, split, key):
    task = Eedi(Options(data=folder, split=split))
    train, test = task.examples("train"), task.examples("test")
    assert len(train) + len(test) == 30
    assert not {e[key] for e in train} & {e[key] for e in test}
    assert task.trained_on() == [e["id"] for e in train]


def test_all_rows_can_be_for_testing(folder):
    task = Eedi(Options(data=folder, split="all"))
    assert len(task.examples("test")) == 30 and task.examples("train") == task.bank() == []
    assert "map@25/unseen" not in task.evaluate(task.examples("test"), RANDOM)["metrics"]


def test_the_gold_label_is_not_in_the_query(folder):
    for task in (Eedi(Options(data=folder)), Eedi(Options(tests=5))):
        for example in task.examples("test"):
            assert task.query(example) == task.query({**example, "label": 7})


def test_the_world_keeps_its_test_questions_and_unseen_labels_apart():
    task = Eedi(Options(tests=200, questions=50))
    again = Eedi(Options(tests=200, questions=50))
    assert task.examples("test") == again.examples("test")
    rng = np.random.default_rng(0)
    taught = [pair for example in task.examples("train") for pair in task.wrong_answers(example, rng)]
    assert not {pair["text"] for pair in taught} & {pair["text"] for pair in task.examples("test")}
    assert {pair["label"] for pair in taught} <= set(task.trained)
    unseen = {pair["label"] for pair in task.examples("test")} - set(task.trained)
    assert unseen and all(world.is_unseen(label) for label in unseen)


# ------------------------------------------------------------------------------------------------ training
def test_items_are_contrasts_whose_labels_count_in_the_bank(folder):
    rng = np.random.default_rng(0)
    for task in (Eedi(Options(data=folder)), Eedi(Options(questions=20))):
        bank = task.bank()
        for example in task.examples("train")[:20]:
            for item in task.items(example, rng):
                assert isinstance(item, Contrast) and not item.negatives
                assert bank[item.label_id] == item.positive
    assert all(task.items(e, rng) == [] for e in task.examples("test") if e["label"] not in task.trained)


def test_clean_seed_deletes_digits_of_queries_and_labels(folder):
    task = Eedi(Options(data=folder, clean="seed", query="s3"))
    assert task.bank()[0] == "label" and not any(c.isdigit() for c in task.query(task.examples("test")[0]))


@pytest.fixture
def mined(folder, tmp_path):
    """(the task, its mined rows, the path of a file of them)"""
    task = Eedi(Options(data=folder, range="2-20", negatives=5))
    rows, pool = task.mined(RANDOM, 0)
    write_lines(tmp_path / "mined_pool.jsonl", pool)
    return task, rows, write_lines(tmp_path / "mined.jsonl", rows)


def test_negatives_are_from_the_range_never_right_and_follow_from_the_seed(mined):
    task, rows, path = mined
    right = {}
    for row in rows:
        right.setdefault(row["query"], set()).update(row["pos"])
    for row in rows:
        assert row["split"] == "test" or 1 <= len(row["neg"]) <= 5
        assert all(2 <= place < 20 for place in row["places"]) and len(set(row["neg"])) == len(row["neg"])
        assert not set(row["neg"]) & right[row["query"]] and len(row["candidates"]) == 25
        if row["split"] == "train":
            assert set(row["neg"]) <= {NAMES[label] for label in task.trained}
    assert rows == Eedi(task.options).mined(RANDOM, 0)[0]
    other = Eedi(task.options, seed=1).mined(RANDOM, 0)[0]
    assert [row["neg"] for row in rows] != [row["neg"] for row in other]


def test_a_label_that_reads_like_the_right_one_is_no_negative(folder):
    names = [*NAMES[:-1]] + ["LABEL 1"]
    write(f"{folder}/misconception_mapping.csv", ["MisconceptionId", "MisconceptionName"], enumerate(names))
    rows, _ = Eedi(Options(data=folder, range="0-60", negatives=60)).mined(RANDOM, 0)
    twins = [row for row in rows if row["pos"] == ["label 1"]]
    assert twins and all("LABEL 1" not in row["neg"] for row in twins)


def test_mining_takes_no_reranker(folder):
    with pytest.raises(UsageError, match="drop --reranker"):
        Eedi(Options(data=folder, reranker="model")).mined(RANDOM, 0)


def test_a_margin_leaves_out_what_is_nearly_as_similar(folder):
    task = Eedi(Options(data=folder, range="0-60", negatives=60, margin=0.2))
    rows, _ = task.mined(RANDOM, 0)
    labels = dict(zip(NAMES, Vectors().embed(NAMES, "document")))
    for row in (row for row in rows if row["split"] == "train"):
        query = Vectors().embed([row["query"]], "query")[0]
        assert all(labels[name] @ query < labels[row["pos"][0]] @ query - 0.2 for name in row["neg"])
    assert sum(task.dropped.values()) == sum(not row["neg"] for row in rows if row["split"] == "train")


def test_mined_rows_train_with_their_negatives(mined):
    _, rows, path = mined
    again = Eedi(Options(data=path, group_size=4))
    assert [e["id"] for e in again.examples("test")] == [row["id"] for row in rows if row["split"] == "test"]
    (item,) = again.items(again.examples("train")[0], np.random.default_rng(0))
    assert item.positive == rows[0]["pos"][0] and len(set(item.negatives)) == 3 < len(rows[0]["neg"])
    assert set(item.negatives) <= set(rows[0]["neg"])
    larger = Eedi(Options(data=path, group_size=8))  # more than there are, so each is drawn again
    (item,) = larger.items(larger.examples("train")[0], np.random.default_rng(0))
    assert len(item.negatives) == 7 and set(item.negatives) == set(rows[0]["neg"])


def test_a_reranker_learns_yes_and_no_from_mined_rows_only(mined, folder):
    _, rows, path = mined
    task = Eedi(Options(data=path, group_size=4), kind=Label)
    items = task.items(task.examples("train")[0], np.random.default_rng(0))
    assert [item.target for item in items] == [1, 0, 0, 0]
    assert items[0].messages[1]["content"] == rows[0]["pos"][0]
    plain = Eedi(Options(data=folder), kind=Label)
    with pytest.raises(UsageError, match="a reranker learns from rows that infer.py collect"):
        plain.items(plain.examples("train")[0], np.random.default_rng(0))


# ------------------------------------------------------------------------------------------------ evaluation
def test_map_and_recall_by_hand_seen_and_unseen_apart(folder):
    task = Eedi(Options(data=folder))
    labels = np.arange(60)
    order = np.stack([np.roll(labels, rank - 1) for rank in (1, 2, 26, 4)])  # label 0 has these ranks
    unseen = next(label for label in labels if label not in task.trained)
    gold = np.array([0, unseen, 0, 0])
    order[1] = np.roll(labels, 1 - unseen)  # rank 2
    figures = list(task.figures(order, [{"label": label} for label in gold]))
    metrics = {name: value for name, value, *_ in figures}
    assert 0 in task.trained and metrics["map@25"] == pytest.approx((1 + 1 / 2 + 0 + 1 / 4) / 4)
    assert metrics["map@25/seen"] == pytest.approx((1 + 0 + 1 / 4) / 3) and metrics["map@25/unseen"] == 0.5
    assert (metrics["recall@1"], metrics["recall@10"], metrics["recall@25"]) == (0.25, 0.75, 0.75)
    assert "recall@100" not in metrics  # there are 60 labels
    chances = {name: chance for name, *_, chance in figures}
    assert chances["map@25"] == pytest.approx(3.816 / 60, abs=1e-4)
    assert chances["recall@10"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    "ranking, right, k, precision",
    [
        ("abc", "a", 3, 1),
        ("bca", "a", 3, 1 / 3),
        ("bca", "a", 2, 0),
        ("abc", "ab", 3, 1),
        ("cab", "ab", 3, (1 / 2 + 2 / 3) / 2),
        ("abc", "ac", 2, 1 / 2),
        ("aab", "ab", 3, (1 + 2 / 3) / 2),  # the second a is no hit
        ("abc", "aab", 3, 1),
    ],
)
def test_average_precision_by_hand(ranking, right, k, precision):
    assert average_precision(ranking, right, k) == pytest.approx(precision)


def test_a_query_with_two_right_labels_counts_once(tmp_path):
    """Ranked 1 and 2 both are found as well as they can be. Recall counts each."""
    rows = [{"query": "q1", "pos": ["a", "b"], "neg": ["c"]}, {"query": "q2", "pos": ["c"], "neg": []}]
    task = Eedi(Options(data=write_lines(tmp_path / "rows.jsonl", rows), split="all"))
    examples = task.examples("test")
    assert [task.names[example["label"]] for example in examples] == [*"abc"] and task.names == [*"abc"]
    for last, precision in ((1, (1 + 1 / 2) / 2), (0, (1 + 1 / 3) / 2)):
        order = np.array([[0, 1, 2], [0, 1, 2], [0, 2, 1] if last else [0, 1, 2]])
        metrics = {name: value for name, value, *_ in task.figures(order, examples)}
        assert metrics["map@25"] == pytest.approx(precision)
        assert metrics["recall@1"] == pytest.approx(1 / 3)


def test_labels_of_one_text_are_one_label(tmp_path):
    names = ["Rounds", "Adds ", "Adds"]
    write_folder(tmp_path, names, [(q, 1, 1, "D", ("2", "", "", "")) for q in range(9)])
    task = Eedi(Options(data=str(tmp_path), split="all"))
    order = np.array([[1, 2, 0]] * 9)  # the right label comes second, behind its twin
    assert {name: value for name, value, *_ in task.figures(order, task.examples("test"))}["map@25"] == 1
    assert task.record(task.examples("test")[0], order[0], np.zeros(3))["rank"] == 1


def test_the_successor_is_scored_at_three_and_its_twins_stay_together(tmp_path):
    rows = [
        (q, f"answer {i}", f"because {i}", "False_Misconception", f"m{i % 9}")
        for q in (1, 2)
        for i in range(40)
    ]
    write_explained(tmp_path, rows)
    task = Eedi(Options(data=str(tmp_path)))
    train, test = task.examples("train"), task.examples("test")
    assert {e["construct_id"] for e in train} == {e["construct_id"] for e in test} == {1, 2}
    found = task.evaluate(test, RANDOM)
    assert "map@3" in found["metrics"] and "map@25" not in found["metrics"]
    order = np.array([[3, 1, 2, 0, 4, 5, 6, 7, 8]] * len(test))
    precision = [{3: 1, 1: 1 / 2, 2: 1 / 3}.get(e["label"], 0) for e in test]
    assert next(task.figures(order, test))[:2] == ("map@3", pytest.approx(np.mean(precision)))
    submitted = task.submission(RANDOM)
    assert [[*row] for row in submitted] == [["row_id", "Category:Misconception"]] * 4
    for row in submitted:
        labels = row["Category:Misconception"].split(" ")
        assert len({*labels}) == 3 and {*labels} <= {*task.names}


def test_labels_that_are_equally_similar_stand_in_their_order(folder):
    class Flat(Vectors):
        def embed(self, texts, kind):
            return np.ones((len(texts), 4), np.float32)

    task = Eedi(Options(data=folder))
    order, _, scores = task.rank(task.examples("test"), Players(Flat()))
    assert np.ptp(scores) == 0 and (order == np.arange(60)).all()


def test_an_evaluation_ranks_by_similarity_with_controls_beside(folder):
    task = Eedi(Options(data=folder))
    examples = task.examples("test")
    names = {task.query(example): task.names[example["label"]] for example in examples}
    found = task.evaluate(examples, Players(Vectors(names)))  # every query lies on its own label
    assert found["n"] == len(examples) and found["metrics"]["map@25"] == 1.0
    assert found["metrics"]["topic only map@25"] < 0.5 and "tf-idf map@25" in found["metrics"]
    record = found["records"][0]
    assert record["rank"] == 1 and record["hardest"] < 0.999 < record["similarity"]
    assert record["label"] == record["top"][0] and json.dumps(found)
    assert task.evaluate(examples, RANDOM)["metrics"]["map@25"] < 0.5


def test_a_reranker_reorders_the_first_and_its_gain_is_apart(folder):
    task = Eedi(Options(data=folder, top=40))
    example = task.examples("test")[0]
    players = Players(Vectors(), {"reranker": Judge(task.names[example["label"]])})
    order, before, _ = task.rank([example], players)
    rank = before[0].tolist().index(example["label"]) + 1
    metrics = task.evaluate([example], players)["metrics"]
    assert metrics["map@25"] == (1.0 if rank <= 40 else 0.0)
    assert metrics["before reranking map@25"] == pytest.approx(1 / rank if rank <= 25 else 0.0)
    assert sorted(order[0]) == sorted(before[0]) and (order[0][40:] == before[0][40:]).all()


def test_a_reranker_alone_is_tested_on_the_candidates_of_mined_rows(mined, folder):
    _, rows, path = mined
    task = Eedi(Options(data=path))
    examples = task.examples("test")
    inside = [row["pos"][0] in row["candidates"] for row in rows if row["split"] == "test"]
    judge = Players(Judge(task.names[examples[0]["label"]]))
    assert task.evaluate(examples, judge)["metrics"]["recall@25"] == pytest.approx(np.mean(inside))
    plain = Eedi(Options(data=folder))
    with pytest.raises(UsageError, match="rows with candidates"):
        plain.evaluate(plain.examples("test"), judge)


def test_by_examples_each_label_is_as_near_as_its_nearest_other_query(tmp_path):
    items = [("q1", "A"), ("q2", "A"), ("q3", "B"), ("q4", "B")]
    head = {"Incorrect Answer": "1", "Correct Answer": "2", "Topic": ""}
    path = tmp_path / "items.json"
    path.write_text(json.dumps([head | {"Question": q, "Misconception": name} for q, name in items]))
    task = Eedi(Options(data=str(path), match="example"))
    examples = task.examples("train") + task.examples("test")
    near = {task.query(e): e["text"].replace("q4", "q3") for e in examples}  # q3 and q4 have the same vector
    scores = task.similarities(examples, Vectors(near))
    place = {e["text"]: i for i, e in enumerate(examples)}
    assert scores[place["q3"], 1] == pytest.approx(1, abs=1e-5) and scores[place["q1"], 0] < 0.9


def test_tf_idf_by_hand():
    found = tf_idf(["adds adds the tops", "nothing here"], ["adds the tops", "the bottoms"])
    idf = {"adds": np.log(3 / 2) + 1, "the": 1.0, "tops": np.log(3 / 2) + 1, "bottoms": np.log(3 / 2) + 1}
    query = np.array([(1 + np.log(2)) * idf["adds"], 1.0, idf["tops"]])
    label = np.array([idf["adds"], 1.0, idf["tops"]])
    assert found[0, 0] == pytest.approx(query @ label / np.linalg.norm(query) / np.linalg.norm(label))
    assert found[0, 1] < found[0, 0] and not found[1].any()


# ------------------------------------------------------------------------------------------------ use
def test_a_submission_has_every_wrong_answer_and_25_labels(folder):
    rows = Eedi(Options(data=folder)).submission(RANDOM)
    assert [row["QuestionId_Answer"] for row in rows] == ["7_A", "7_C", "7_D", "9_B", "9_C", "9_D"]
    assert all(len(set(row["MisconceptionId"].split())) == 25 for row in rows)


def test_playing_ranks_what_is_typed(folder):
    task, shown = Eedi(Options(data=folder)), []
    typed = iter(["2 x 3?", "6", "5", "quit"])
    near = {task.query(dict(text="2 x 3?", right="6", wrong="5", construct="", subject="")): "label 9"}
    task.interact(Players(Vectors(near)), lambda: next(typed, None), shown.append, "", 0)
    assert shown[3].split() == ["1.000", "label", "9"]
    shown.clear()
    task.interact(RANDOM, None, shown.append, "", 0)
    assert shown[-1].startswith("true:   label")


def test_places_that_are_no_range_are_refused():
    with pytest.raises(UsageError, match="--range 9-2: must be two places"):
        Eedi(Options(range="9-2"))


def test_labels_of_the_successor_agree_with_what_the_file_says_of_the_answer(tmp_path):
    """The answer that other rows call right has True_ labels, any other False_ labels; both where no row
    tells."""
    told = [(1, "4", f"because {i}", "True_Correct", "NA") for i in range(20)]
    told += [(1, "5", f"since {i}", "False_Misconception", f"m{i % 4}") for i in range(20)]
    told += [(2, "6", "who knows", "False_Neither", "NA"), (3, "7", "one vote", "True_Neither", "NA")]
    write_explained(tmp_path, told)
    task = Eedi(Options(data=str(tmp_path), split="all"))
    examples = task.examples("test")
    order, _, scores = task.rank(examples, RANDOM)
    for example, ranking, values in zip(examples, order, scores):
        kinds = [task.names[place].startswith("True") for place in ranking]
        if example["construct_id"] == 1:
            n = 2 if example["wrong"] == "4" else 5
            assert {*kinds[:n]} == {n == 2} and np.isfinite(values).sum() == n
        else:  # a row does not tell its own label
            assert example["is_right"] is None and np.isfinite(values).all()
    chance = task.evaluate(examples[:20], RANDOM)["baselines"]["map@3"]
    assert chance == pytest.approx((1 + 1 / 2) / 2)  # two True_ labels
    submitted = task.submission(RANDOM)[0]["Category:Misconception"].split()
    assert all(label.startswith("True_") for label in submitted[:2])


def test_a_row_of_the_successor_does_not_tell_its_own_label(tmp_path):
    rows = [(1, "4", "so", "True_Correct", "NA"), (1, "5", "no", "True_Neither", "NA")]
    queries = []
    for category in ("True_Neither", "False_Neither"):
        write_explained(tmp_path, [rows[0], (*rows[1][:3], category, "NA")])
        example = Eedi(Options(data=str(tmp_path), split="all")).examples("test")[1]
        queries.append((example["right"], example["is_right"]))
    assert queries[0] == queries[1] == ("4", False)
