"""Eedi's files: reads questions, labels and mined negatives, and writes submissions.

`read` accepts four sources. It returns the texts of all labels and the examples. An example has "id",
"label" (the index of its text, or None), "split" (train, test or None), and either
{"question", "construct", "subject", "text", "right", "wrong", "construct_id", "subject_id"}, with
"explanation" and "is_right" (or None) where a student explained the answer, or, if somebody else wrote the
query, {"query", "neg", "labels"}.

    a folder with train.csv and misconception_mapping.csv: the competition's files, as Kaggle has them
    a folder with train.csv and test.csv of MAP, its successor of 2025, or its train.csv alone: a student's
        answer and explanation, and a label such as False_Misconception:Incomplete
    rows {"query", "pos", "neg"}: FlagEmbedding's form, which infer.py collect writes as well
    rows {"Question", "Incorrect Answer", "Correct Answer", "Misconception", "Topic"}: Math Misconceptions"""

import re
from collections import Counter, defaultdict
from pathlib import Path

from files import TEXT, check_fields, list_of, one_of
from games.rows import read_rows

LETTERS = tuple("ABCD")  # no str, which would also contain "" and "AB"
MAPPING = "misconception_mapping.csv"
PLACES = 25  # labels for each answer in a submission
COLUMNS = ["QuestionId", "ConstructId", "ConstructName", "SubjectId", "SubjectName", "CorrectAnswer"]
COLUMNS += ["QuestionText", *(f"Answer{letter}Text" for letter in LETTERS)]
LABEL_COLUMNS = [f"Misconception{letter}Id" for letter in LETTERS]  # missing in test.csv
ITEM_COLUMNS = ("Question", "Incorrect Answer", "Correct Answer", "Misconception")
ITEM = dict.fromkeys((*ITEM_COLUMNS, "Topic"), TEXT)
CATEGORIES = "True_Correct True_Neither True_Misconception False_Correct False_Neither False_Misconception"
EXPLAINED_COLUMNS = ["row_id", "QuestionId", "QuestionText", "MC_Answer", "StudentExplanation"]
EXPLAINED_LABEL = ["Category", "Misconception"]  # missing in test.csv
EXPLAINED_PLACES = 3  # labels in a submission
MINED = {  # of the columns of a mined row
    "query": TEXT,
    "pos": list_of(TEXT, 1),
    "neg": list_of(TEXT),
    "candidates": list_of(TEXT),
    "split": one_of("train", "test"),
    "subject": TEXT,
}


def read(source, pool="", split="train"):
    """(labels, examples) of a source. pool: a file with rows of more labels, each with a "text" or
    "MisconceptionName". split: which file of the competition's folder to read, train or test."""
    examples = []
    mapping = Path(source, MAPPING)
    if mapping.is_file():
        names = read_labels(mapping)
        columns = COLUMNS
        places = None  # test.csv has no labels
        if split == "train":
            columns = COLUMNS + LABEL_COLUMNS
            places = {label_id: place for place, label_id in enumerate(names)}
        for where, row in read_rows(Path(source, f"{split}.csv"), columns=columns):
            examples += question_examples(row, places, where)
        return list(names.values()), examples

    if not Path(source).is_dir() or any(Path(source).glob("*.csv")):
        _, first = next(read_rows(source))
        if "StudentExplanation" in first:
            return read_explained(source, split)
    if Path(source).is_dir() and not any(Path(source).glob("*.json*")):
        raise FileNotFoundError(f"{source}: no {MAPPING} in this folder")
    labels = read_pool(source, pool)
    for i, (where, row) in enumerate(read_rows(source)):
        if "query" in row:
            examples += mined_examples(where, i, row, labels)
        else:
            examples.append(item_example(where, i, row, labels))
    return list(labels), examples


def read_pool(source, pool):
    """{text: index} of the labels in a pool. Without --pool this is SOURCE_pool.jsonl, if it exists."""
    beside = Path(source).with_name(f"{Path(source).stem}_pool.jsonl")
    if not pool and beside.exists():
        pool = str(beside)
    labels = {}
    if not pool:
        return labels
    for where, row in read_rows(pool):
        name = row.get("text", row.get("MisconceptionName"))
        if not isinstance(name, str):
            raise ValueError(f'{where}: a row of --pool needs a "text" or a "MisconceptionName"')
        labels.setdefault(name, len(labels))
    return labels


# -------------------------------------------------------------------------------------- the competition
def whole_number(text, where, name):
    """The integer in a cell; the competition's files write 1672 as 1672.0."""
    if not re.fullmatch(r"-?[0-9]{1,15}(\.0*)?", str(text).strip()):
        raise ValueError(f"{where}: {name} {text!r} is not a whole number")
    return int(float(text))


def read_labels(path):
    """{id: text} of the labels, in the order of the mapping."""
    names = {}
    for where, row in read_rows(path, columns=("MisconceptionId", "MisconceptionName")):
        label_id = whole_number(row["MisconceptionId"], where, "MisconceptionId")
        if label_id in names:
            raise ValueError(f"{where}: MisconceptionId {label_id} stands twice")
        names[label_id] = row["MisconceptionName"].strip()
    return names


def question_examples(row, places, where=""):
    """Yield an example for each wrong answer of a question that has a label, in the order of the letters.
    places: {label id: index}, or None if the file has no labels; then every wrong answer is an example."""
    ids = {}
    for name in ("QuestionId", "ConstructId", "SubjectId"):
        ids[name] = whole_number(row[name], where, name)
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
            "id": f"{ids['QuestionId']}_{letter}",
            "question": ids["QuestionId"],
            "construct_id": ids["ConstructId"],
            "subject_id": ids["SubjectId"],
            "construct": row["ConstructName"],
            "subject": row["SubjectName"],
            "text": row["QuestionText"],
            "right": row[f"Answer{right}Text"],
            "wrong": row[f"Answer{letter}Text"],
            "label": label,
            "split": None,
        }


# -------------------------------------------------------------------------------------- its successor
def read_explained(source, split):
    """(labels, examples) of MAP's files. The right answer to a question is the one that its other training
    rows call right most often."""
    labels = {}
    votes = defaultdict(Counter)  # question -> {answer: how many training rows call it right}
    rows = list(read_rows(source, columns=EXPLAINED_COLUMNS + EXPLAINED_LABEL))
    for where, row in rows:
        check_fields(where, row, {"Category": one_of(*CATEGORIES.split())}, ["Category"])
        label = f"{row['Category']}:{row['Misconception'] or 'NA'}"
        if " " in label:
            raise ValueError(f"{where}: the label {label!r} holds a space, which separates labels")
        row["label"] = labels.setdefault(label, len(labels))
        if row["Category"].startswith("True"):
            votes[row["QuestionId"]][row["MC_Answer"]] += 1
    if split == "test":
        rows = read_rows(source, columns=EXPLAINED_COLUMNS, split="test")
    examples = []
    for where, row in rows:
        question = whole_number(row["QuestionId"], where, "QuestionId")
        rights = votes[row["QuestionId"]].copy()
        if row.get("Category", "").startswith("True"):
            rights[row["MC_Answer"]] -= 1  # a row must not tell its own label
        right = max(+rights, key=rights.get, default="")
        texts = {name: "" if row[name] is None else str(row[name]) for name in EXPLAINED_COLUMNS}
        examples.append(
            {
                "id": texts["row_id"],
                # equal explanations of an answer, in train or in test
                "question": f"{question} {texts['MC_Answer']} {texts['StudentExplanation'].casefold()}",
                "construct_id": question,
                "subject_id": question,
                "construct": texts["QuestionText"],
                "subject": f"Question {question}",
                "text": texts["QuestionText"],
                "right": right,
                "is_right": right == texts["MC_Answer"] if right else None,
                "wrong": texts["MC_Answer"],
                "explanation": texts["StudentExplanation"],
                "label": row.get("label"),
                "split": None,
            }
        )
    return list(labels), examples


# ---------------------------------------------------------------------------------------- rows
def item_example(where, number, row, labels):
    """The example of a Math Misconceptions row. Its topic serves as construct and as subject. labels
    {text: index} grows by the texts that are new."""
    check_fields(where, row, ITEM, ITEM_COLUMNS)
    topic = row.get("Topic") or ""
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
    """Yield one example for each positive of a row in FlagEmbedding's form; labels as in item_example. Rows
    from infer.py collect have more columns: an id, the split and the ranked candidates."""
    check_fields(where, row, MINED, ["query", "pos"])
    if row.get("pos_scores") or row.get("neg_scores"):
        raise ValueError(f"{where}: scores of a teacher are not learned here; drop pos_scores and neg_scores")
    places = {}  # column -> the indices of its labels
    for column in ("pos", "neg", "candidates"):
        texts = row.get(column) or []
        places[column] = [labels.setdefault(text, len(labels)) for text in texts]
    for i, place in enumerate(places["pos"]):
        suffix = f"+{i}" if i else ""  # several positives of one query need different ids
        yield {
            "id": f"{row.get('id', number)}{suffix}",
            "question": row["query"],
            "query": row["query"],
            "subject": row.get("subject") or "",
            "label": place,
            "labels": [] if i else places["pos"],  # the right labels of the query, which counts once
            "neg": places["neg"],
            "candidates": places["candidates"],
            "split": row.get("split"),
        }


# ------------------------------------------------------------------------------------------------ queries
IMAGE = re.compile(r"!\[(.*?)\]\(.*?\)", re.S)  # an image in Markdown; a query keeps its description
# The published formats s1 to s4, with their own separators, and ours.
QUERIES = {
    "s1": "{construct} ### {text} ### {wrong}",
    "s2": "Category: {construct}. Question: {text} Given Answer: {wrong}",
    "s3": "{subject} ### {construct} ### {text} ### {wrong}",
    "s4": "Subject: {subject} ### Construct: {construct} ### Question: {text} ### Student Answer: {wrong}",
    "full": "{subject}. {construct}. {text} Right answer: {right} Wrong answer: {wrong}",
    "topic": "{subject}. {construct}.",  # a control that does not show the question itself
}
EXPLAINED = "{text} Right answer: {right} Answer: {wrong} Explanation: {explanation}"


def seed_clean(text):
    """The published clean-up of a query: lower case, without any digit."""
    text = text.lower()
    for pattern in (r"@\w+", r"'\d+", r"\d+", r"http\S+"):
        text = re.sub(pattern, "", text)
    text = re.sub(r"\s+", " ", text)
    return re.sub(r"([.,])\1+", r"\1", text).strip()


def query_of(example, form, clean=False):
    """The query for an example. A query that the example already has is used as it is. form: a key of
    QUERIES, of which only "topic" leaves out a student's explanation; clean: with the published clean-up."""
    if "query" in example:
        return example["query"]
    parts = {}
    for name in ("construct", "subject", "text", "right", "wrong", "explanation"):
        text = example.get(name, "")
        parts[name] = text if clean else IMAGE.sub(r"\1", text).strip()
    template = EXPLAINED if "explanation" in example and form != "topic" else QUERIES[form]
    query = template.format(**parts)
    return seed_clean(query) if clean else query


# ------------------------------------------------------------------------------------------------ submission
def submission_rows(examples, order, ids):
    """The rows of a submission, one for each example. order (N, labels): indices of labels, best first; ids:
    the competition's id of each label, for MAP its text."""
    rows = []
    for example, places in zip(examples, order):
        labels = [str(ids[place]) for place in places[: places_of(example)]]
        names = "QuestionId_Answer", "MisconceptionId"
        if "explanation" in example:
            names = "row_id", "Category:Misconception"
        rows.append(dict(zip(names, (example["id"], " ".join(labels)))))
    return rows


def places_of(example):
    """How many labels a submission names for an example."""
    return EXPLAINED_PLACES if "explanation" in example else PLACES
