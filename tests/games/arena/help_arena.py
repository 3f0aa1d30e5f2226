"""Judges that need no model, and files of battles."""

import csv
import json

import numpy as np
import torch


def example(a, b, models=None, target=None, prompt="p"):
    return {"turns": [[prompt, a, b]], "models": models, "target": target}


def draw(rng, probs):
    """Draw a class for each row: distributions (N, 3)."""
    return np.eye(3)[(rng.random((len(probs), 1)) > np.cumsum(probs, 1)[:, :2]).sum(1)]


class Reader:
    """A classifier that counts "good" in each answer and favours the first one by `bias`."""

    classes = 3

    def __init__(self, bias=0.0):
        self.bias = bias

    def classify(self, conversations):
        rows = []
        for talk in conversations:
            a, b = (sum(part["content"].count("good") for part in talk[side::3]) for side in (1, 2))
            half = (a - b + self.bias) / 2
            rows.append([half, -half, 0.0])
        return torch.tensor(rows).softmax(-1).numpy()


class Sides:
    """The same judge, which sees one side at a time."""

    classes = 2

    def scores(self, conversations):
        return torch.tensor([[float(str(talk).count("good")), 0.0] for talk in conversations])


def write_rows(path, rows):
    """Write JSON lines, or a CSV where lists are JSON arrays, depending on the file's name."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return str(path)
