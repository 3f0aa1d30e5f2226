"""Eedi's files: questions and labels in, mined negatives in, submissions out.

`read` tells four sources apart and gives of each the texts of all labels, in the order of their numbers, and
its examples: {"id", "label": its number or None, "split": train, test or None} with either {"question",
"construct", "subject", "text", "right", "wrong", "construct_id", "subject_id"} or, of rows that others made,
{"query", "neg"}.

    a folder with train.csv and misconception_mapping.csv    the competition's files, as Kaggle has them
    {"query", "pos", "neg"}            FlagEmbedding's rows, and what infer.py collect writes
    {"Question", "Incorrect Answer", "Correct Answer", "Misconception", "Topic"}   Math Misconceptions"""

import re
from pathlib import Path

from games.rows import check_columns, read_rows

LETTERS = "ABCD"
MAPPING = "misconception_mapping.csv"
PLACES = 25  # labels a question of a submission


def read(source, pool="", split="train"):
    """(labels, examples) of a source. pool: rows of more labels, each with a "text" or "MisconceptionName".
    split: which file of a folder, train or test."""
    if Path(source, MAPPING).is_file():
        names = labels_of(Path(source, MAPPING))
        places = {number: place for place, number in enumerate(names)}
        return list(names.values()), list(pairs(Path(source, f"{split}.csv"), places, split == "test"))
    if Path(source).is_dir() and not any(Path(source).glob("*.json*")):
        raise FileNotFoundError(f"{source}: no {MAPPING} in this folder")
    beside = Path(source).with_name(f"{Path(source).stem}_pool.jsonl")
    labels, examples = {}, []
    for place in (pool or (str(beside) if beside.exists() else ""),):
        for where, row in read_rows(place) if place else ():
            name = row.get("text", row.get("MisconceptionName"))
            if not isinstance(name, str):
                raise ValueError(f'{where}: a row of --pool needs a "text" or a "MisconceptionName"')
            labels.setdefault(name, len(labels))
    for number, (where, row) in enumerate(read_rows(source)):
        if "query" in row:
            examples += mined(where, number, row, labels)
        else:
            check_columns(where, ("Question", "Incorrect Answer", "Correct Answer", "Misconception"), row)
            examples.append(item(where, number, row, labels))
    return list(labels), examples


def whole(text, where, name):
    """The number in a cell, which the competition's files write as 1672.0."""
    try:
        value = float(text)
        if value != int(value):
            raise ValueError
        return int(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {name} {text!r} is not a whole number") from error


def labels_of(path):
    """{id: name} of the mapping, in its order."""
    found = {}
    for where, row in read_rows(path, columns=("MisconceptionId", "MisconceptionName")):
        number = whole(row["MisconceptionId"], where, "MisconceptionId")
        if number in found:
            raise ValueError(f"{where}: MisconceptionId {number} stands twice")
        found[number] = row["MisconceptionName"].strip()
    return found


COLUMNS = ["QuestionId", "ConstructId", "ConstructName", "SubjectId", "SubjectName", "CorrectAnswer"]
COLUMNS += ["QuestionText", *(f"Answer{letter}Text" for letter in LETTERS)]


def pairs(path, places, unlabelled=False):
    """Yield an example of each wrong answer that has a label, in the order of the file and the letters; of
    all wrong answers where a file has no labels. places: label id -> its place."""
    marks = [] if unlabelled else [f"Misconception{letter}Id" for letter in LETTERS]
    for where, row in read_rows(path, columns=COLUMNS + marks):
        yield from pairs_of(row, places, where, unlabelled)


def pairs_of(row, places, where="", unlabelled=False):
    """The examples of one row in the competition's columns."""
    numbers = {name: whole(row[name], where, name) for name in ("QuestionId", "ConstructId", "SubjectId")}
    right = row["CorrectAnswer"]
    if right not in LETTERS or not right:
        raise ValueError(f"{where}: CorrectAnswer {right!r} is none of {', '.join(LETTERS)}")
    for letter in LETTERS.replace(right, ""):
        label = row.get(f"Misconception{letter}Id")
        if label in (None, "") and not unlabelled:
            continue
        place = None if unlabelled else places.get(whole(label, where, f"Misconception{letter}Id"))
        if place is None and not unlabelled:
            raise ValueError(f"{where}: Misconception{letter}Id {label} is not in {MAPPING}")
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
            "label": place,
            "split": None,
        }


def item(where, number, row, labels):
    """The example of an item of Math Misconceptions; its topic is the subject."""
    for name in ("Question", "Incorrect Answer", "Correct Answer", "Misconception"):
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


def mined(where, number, row, labels):
    """An example of each positive of a row in FlagEmbedding's form. What collect writes has more: an id, the
    split, the candidates in their order, and the scores of positives and negatives."""
    texts = {name: row.get(name, []) for name in ("pos", "neg", "candidates")}
    for name, found in texts.items():
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise ValueError(f"{where}: {name!r} must be a list of texts")
    for name, score in (("pos", "pos_scores"), ("neg", "neg_scores")):
        if score in row and len(row[score] or ()) != len(texts[name]):
            raise ValueError(f"{where}: {score!r} must have a number for each text of {name!r}")
    if not isinstance(row["query"], str) or not texts["pos"]:
        raise ValueError(f'{where}: needs a "query", text, and a "pos" with one text at least')
    place = {text: labels.setdefault(text, len(labels)) for found in texts.values() for text in found}
    found = []
    for i, text in enumerate(texts["pos"]):
        example = {
            "id": f"{row.get('id', number)}" + (f"+{i}" if i else ""),
            "question": row["query"],
            "query": row["query"],
            "subject": str(row.get("subject", "")),
            "label": place[text],
            "neg": [place[text] for text in texts["neg"]],
            "candidates": [place[text] for text in texts["candidates"]],
            "split": row.get("split"),
        }
        if "pos_scores" in row:
            example["scores"] = [row["pos_scores"][i], *row.get("neg_scores", [])]
        found.append(example)
    return found


# ------------------------------------------------------------------------------------------------ queries
IMAGE = re.compile(r"!\[(.*?)\]\(.*?\)", re.S)  # of which the description is kept
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
    for what, by in ((r"@\w+", ""), (r"'\d+", ""), (r"\d+", ""), (r"http\S+", ""), (r"\s+", " ")):
        text = re.sub(what, by, text)
    return re.sub(r",+", ",", re.sub(r"\.+", ".", text)).strip()


def query_of(example, form, clean=False):
    """What is asked for an example; a query that others made is itself."""
    if "query" in example:
        return example["query"]
    parts = {name: example[name] for name in ("construct", "subject", "text", "right", "wrong")}
    if clean:
        return seed_clean(QUERIES[form].format(**parts))
    return QUERIES[form].format(**{name: IMAGE.sub(r"\1", part).strip() for name, part in parts.items()})


# ------------------------------------------------------------------------------------------------ submission
HEADER = ("QuestionId_Answer", "MisconceptionId")


def submission(examples, order, ids):
    """Rows of a submission: order (N, >= 25) has the places of labels, best first, ids their numbers."""
    return [
        dict(zip(HEADER, (example["id"], " ".join(str(ids[place]) for place in places[:PLACES]))))
        for example, places in zip(examples, order)
    ]


def check_submission(rows, examples, ids):
    """The rows, if every wrong answer has one, in order, with 25 different labels that there are (all of
    them, where there are fewer). ValueError says what is not so."""
    wanted, known, most = [example["id"] for example in examples], set(ids), min(PLACES, len(ids))
    found = [row[HEADER[0]] for row in rows]
    if found != wanted:
        at = next((i for i, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), len(found))
        raise ValueError(f"submission, row {at + 1}: {len(found)} rows for {len(wanted)} wrong answers")
    for i, row in enumerate(rows, 1):
        labels = [int(number) for number in row[HEADER[1]].split(" ")]
        if len(set(labels)) != most or len(labels) != most or not known.issuperset(labels):
            raise ValueError(f"submission, row {i}: must have {most} different labels that are in {MAPPING}")
    return rows
