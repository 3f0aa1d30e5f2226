"""Eedi's files: questions and labels in, mined negatives in, submissions out.

`read` tells four sources apart and gives the texts of all labels, in the order of their numbers, and the
examples: {"id", "label": its place among the labels or None, "split": train, test or None} with either
{"question", "construct", "subject", "text", "right", "wrong", "construct_id", "subject_id"} or, where others
wrote the query, {"query", "neg"}.

    a folder with train.csv and misconception_mapping.csv    the competition's files, as Kaggle has them
    {"query", "pos", "neg"}            FlagEmbedding's rows, and what infer.py collect writes
    {"Question", "Incorrect Answer", "Correct Answer", "Misconception", "Topic"}   Math Misconceptions"""

import re
from pathlib import Path

from games.rows import check_columns, read_rows

LETTERS = ("A", "B", "C", "D")
MAPPING = "misconception_mapping.csv"
PLACES = 25  # labels for each question of a submission
COLUMNS = ["QuestionId", "ConstructId", "ConstructName", "SubjectId", "SubjectName", "CorrectAnswer"]
COLUMNS += ["QuestionText", *(f"Answer{letter}Text" for letter in LETTERS)]
LABEL_COLUMNS = [f"Misconception{letter}Id" for letter in LETTERS]  # not in test.csv
ITEM_COLUMNS = ("Question", "Incorrect Answer", "Correct Answer", "Misconception")


def read(source, pool="", split="train"):
    """(labels, examples) of a source. pool: rows of more labels, each with a "text" or "MisconceptionName".
    split: which file of a folder, train or test."""
    mapping = Path(source, MAPPING)
    if mapping.is_file():
        names = read_labels(mapping)
        places = {number: place for place, number in enumerate(names)} if split == "train" else None
        columns = COLUMNS if places is None else COLUMNS + LABEL_COLUMNS
        examples = []
        for where, row in read_rows(Path(source, f"{split}.csv"), columns=columns):
            examples += question_examples(row, places, where)
        return list(names.values()), examples
    if Path(source).is_dir() and not any(Path(source).glob("*.json*")):
        raise FileNotFoundError(f"{source}: no {MAPPING} in this folder")
    labels = read_pool(source, pool)
    examples = []
    for number, (where, row) in enumerate(read_rows(source)):
        if "query" in row:
            examples += mined_examples(where, number, row, labels)
        else:
            examples.append(item_example(where, number, row, labels))
    return list(labels), examples


def read_pool(source, pool):
    """{text: place} of the labels in a pool, by default SOURCE_pool.jsonl where there is one."""
    beside = Path(source).with_name(f"{Path(source).stem}_pool.jsonl")
    if not pool and beside.exists():
        pool = str(beside)
    labels = {}
    for where, row in read_rows(pool) if pool else ():
        name = row.get("text", row.get("MisconceptionName"))
        if not isinstance(name, str):
            raise ValueError(f'{where}: a row of --pool needs a "text" or a "MisconceptionName"')
        labels.setdefault(name, len(labels))
    return labels


# ---------------------------------------------------------------------------------------- the competition's
def whole_number(text, where, name):
    """The number in a cell, which the competition's files write as 1672.0."""
    if not re.fullmatch(r"-?\d+(\.0*)?", str(text).strip()):
        raise ValueError(f"{where}: {name} {text!r} is not a whole number")
    return int(float(text))


def read_labels(path):
    """{id: name} of the mapping, in its order."""
    names = {}
    for where, row in read_rows(path, columns=("MisconceptionId", "MisconceptionName")):
        number = whole_number(row["MisconceptionId"], where, "MisconceptionId")
        if number in names:
            raise ValueError(f"{where}: MisconceptionId {number} stands twice")
        names[number] = row["MisconceptionName"].strip()
    return names


def question_examples(row, places, where=""):
    """Yield an example of each wrong answer of a question that has a label, in the order of the letters.
    places: label id -> its place; None where a file has no labels: then of every wrong answer."""
    numbers = {
        name: whole_number(row[name], where, name) for name in ("QuestionId", "ConstructId", "SubjectId")
    }
    right = row["CorrectAnswer"]
    if right not in LETTERS:
        raise ValueError(f"{where}: CorrectAnswer {right!r} is none of {', '.join(LETTERS)}")
    for letter, name in zip(LETTERS, LABEL_COLUMNS):
        label = None if places is None else row[name]
        if letter == right or label == "":
            continue
        if label is not None:
            label = places.get(whole_number(label, where, name))
            if label is None:
                raise ValueError(f"{where}: {name} {row[name]} is not in {MAPPING}")
        yield {
            "id": f"{numbers['QuestionId']}_{letter}",
            "question": numbers["QuestionId"],
            "construct_id": numbers["ConstructId"],
            "subject_id": numbers["SubjectId"],
            "construct": row["ConstructName"],
            "subject": row["SubjectName"],
            "text": row["QuestionText"],
            "right": row[f"Answer{right}Text"],
            "wrong": row[f"Answer{letter}Text"],
            "label": label,
            "split": None,
        }


# ---------------------------------------------------------------------------------------- rows of others
def item_example(where, number, row, labels):
    """The example of an item of Math Misconceptions; its topic is the subject."""
    check_columns(where, ITEM_COLUMNS, row)
    for name in ITEM_COLUMNS:
        if not isinstance(row[name], str):
            raise ValueError(f"{where}: {name!r} is not text")
    topic = str(row.get("Topic", ""))
    return {
        "id": f"{row.get('Misconception ID', number)}_{row.get('Example Number', number)}",
        "question": number,
        "construct_id": topic,
        "subject_id": topic,
        "construct": topic,
        "subject": topic,
        "text": row["Question"],
        "right": row["Correct Answer"],
        "wrong": row["Incorrect Answer"],
        "label": labels.setdefault(row["Misconception"].strip(), len(labels)),
        "split": None,
    }


def mined_examples(where, number, row, labels):
    """An example of each positive of a row in FlagEmbedding's form. What collect writes has more: an id, the
    split, the candidates in their order, and the scores of positives and negatives."""
    places = {}  # column -> the places of its labels
    for column in ("pos", "neg", "candidates"):
        texts = row.get(column, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{where}: {column!r} must be a list of texts")
        scores = f"{column}_scores"
        if scores in row and len(row[scores] or ()) != len(texts):
            raise ValueError(f"{where}: {scores!r} must have a number for each text of {column!r}")
        places[column] = [labels.setdefault(text, len(labels)) for text in texts]
    if not isinstance(row["query"], str) or not places["pos"]:
        raise ValueError(f'{where}: needs a "query", text, and a "pos" with one text at least')
    examples = []
    for i, place in enumerate(places["pos"]):
        example = {
            "id": f"{row.get('id', number)}" + (f"+{i}" if i else ""),
            "question": row["query"],
            "query": row["query"],
            "subject": str(row.get("subject", "")),
            "label": place,
            "neg": places["neg"],
            "candidates": places["candidates"],
            "split": row.get("split"),
        }
        if "pos_scores" in row:
            example["scores"] = [row["pos_scores"][i], *row.get("neg_scores", [])]
        examples.append(example)
    return examples


# ------------------------------------------------------------------------------------------------ queries
IMAGE = re.compile(r"!\[(.*?)\]\(.*?\)", re.S)  # an image in Markdown; its description is kept
QUERIES = {  # the published formats, with their own separators, and ours
    "s1": "{construct} ### {text} ### {wrong}",
    "s2": "Category: {construct}. Question: {text} Given Answer: {wrong}",
    "s3": "{subject} ### {construct} ### {text} ### {wrong}",
    "s4": "Subject: {subject} ### Construct: {construct} ### Question: {text} ### Student Answer: {wrong}",
    "full": "{subject}. {construct}. {text} Right answer: {right} Wrong answer: {wrong}",
    "topic": "{subject}. {construct}.",  # a control: nothing of the question itself
}


def seed_clean(text):
    """The published clean-up: lower case, and every digit is deleted."""
    text = text.lower()
    for pattern in (r"@\w+", r"'\d+", r"\d+", r"http\S+"):
        text = re.sub(pattern, "", text)
    text = re.sub(r"\s+", " ", text)
    return re.sub(r"([.,])\1+", r"\1", text).strip()


def query_of(example, form, clean=False):
    """The query about an example; one that others wrote is taken as it is."""
    if "query" in example:
        return example["query"]
    parts = {name: example[name] for name in ("construct", "subject", "text", "right", "wrong")}
    if clean:
        return seed_clean(QUERIES[form].format(**parts))
    return QUERIES[form].format(**{name: IMAGE.sub(r"\1", part).strip() for name, part in parts.items()})


# ------------------------------------------------------------------------------------------------ submission
def submission_rows(examples, order, ids):
    """Rows of a submission. order (N, labels): the places of labels, best first; ids: the labels' ids."""
    rows = []
    for example, places in zip(examples, order):
        labels = [str(ids[place]) for place in places[:PLACES]]
        rows.append({"QuestionId_Answer": example["id"], "MisconceptionId": " ".join(labels)})
    return rows
