"""Files in the competition's form, and agents that need no model."""

import csv
import json

import numpy as np

from games.eedi.files import COLUMNS, LABEL_COLUMNS, LETTERS

HEAD = COLUMNS + LABEL_COLUMNS
ROWS = [  # question, construct, subject, right letter, labels of A to D
    (7, 3, 1, "B", ("2.0", "", "0.0", "")),
    (9, 4, 1, "A", ("", "1.0", "1.0", "0.0")),
]
NAMES = [f"label {i}" for i in range(60)]


def cells(question, construct, subject, right, labels):
    names = [question, construct, f"construct {construct}", subject, f"subject {subject}", right]
    text = 'Find \\( 2 \\times 3 \\),\nthen "halve" it ![a square, side 3]()'
    return [*names, text, *(f"answer {letter}" for letter in LETTERS), *labels]


def write(path, head, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def write_lines(path, rows):
    """Write rows as JSON lines. Returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_folder(folder, names, rows=ROWS):
    """Write the competition's files: training questions, test questions, and labels."""
    write(folder / "train.csv", HEAD, [cells(*row) for row in rows])
    write(folder / "test.csv", HEAD[:-4], [cells(*row)[:-4] for row in ROWS])
    write(folder / "misconception_mapping.csv", ["MisconceptionId", "MisconceptionName"], enumerate(names))


EXPLAINED = [  # MAP's: question, answer, explanation, category, misconception
    (31, "\\( 6 \\)", "2 times 3 is 6", "True_Correct", "NA"),
    (31, "\\( 5 \\)", "I added, them", "False_Misconception", "Adding_terms"),
    (31, "\\( 6 \\)", "just because", "True_Neither", "NA"),
    (32, "8", "longer is larger", "False_Misconception", "Whole_numbers_larger"),
    (31, "\\( 5 \\)", "i ADDED, them", "False_Misconception", "Adding_terms"),
    (32, "9", "I guessed", "True_Correct", "NA"),
    (32, "8", "it is 9", "False_Neither", "NA"),
]
EXPLAINED_HEAD = "row_id QuestionId QuestionText MC_Answer StudentExplanation Category Misconception".split()


def explained_cells(row, values):
    question, answer, *rest = values
    return [row, question, f'What is "{question}",\nwhen doubled?', answer, *rest]


def write_explained(folder, rows=EXPLAINED):
    """Write MAP's files: rows with labels, rows without, and an example of a submission."""
    cells = [explained_cells(i, values) for i, values in enumerate(rows)]
    write(folder / "train.csv", EXPLAINED_HEAD, cells)
    write(folder / "test.csv", EXPLAINED_HEAD[:-2], [[900 + row[0], *row[1:-2]] for row in cells[:4]])
    write(folder / "sample_submission.csv", ["row_id", "Category:Misconception"], [(900, "True_Correct:NA")])


class Vectors:
    """An agent with a random vector for each text. near: text -> another text whose vector it gets."""

    def __init__(self, near=None):
        self.near = near or {}

    def embed(self, texts, kind):
        vectors = []
        for text in texts:
            vector = np.random.default_rng(list(self.near.get(text, text).encode())).normal(size=32)
            vectors.append(vector / np.linalg.norm(vector))
        return np.array(vectors, np.float32)


class Judge:
    """A reranker to which only one text is right."""

    def __init__(self, right):
        self.right = right

    def classify(self, conversations):
        chance = np.array([0.9 if talk[1]["content"] == self.right else 0.2 for talk in conversations])
        return np.stack([1 - chance, chance], 1)
