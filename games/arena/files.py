"""The arena's files: battles in, submissions out.

A battle is {"id", "turns": [[prompt, a, b], ...], "models": [a, b] or None, "target", "source"}; its target
is 0 (A won), 1 (B won), 2 (a tie), a distribution over the three, or None where nobody voted. Forms of a row
(as JSON lines, CSV, Parquet, a folder or a Hub data set: games/rows.py):

    the competition's   id, prompt, response_a, response_b, each text a JSON array of turns in a string; in
                        train.csv also model_a, model_b, winner_model_a, winner_model_b, winner_tie
    our own             {"prompt", "response_a", "response_b", "winner": "a" | "b" | "tie" | "both_bad"}, each
                        text a string or a list of turns; also "id", "model_a", "model_b"

Both may have a "source", the name of a part of the data, and "p_a", "p_b", "p_tie", such as a larger model
says: these then are the target."""

import json
import zlib

from games.rows import read_rows

TEXTS = ("prompt", "response_a", "response_b")
WINNERS = ("winner_model_a", "winner_model_b", "winner_tie")
SOFT = ("p_a", "p_b", "p_tie")
WORDS = {"a": 0, "b": 1, "tie": 2, "both_bad": 2}
SWAP = [1, 0, 2]  # the classes once the answers have changed places


# ------------------------------------------------------------------------------------------------ battles in
def read_battles(source, rows, dropped, training=True):
    """Yield the battles of a source. For training every row needs a target, and those that teach nothing are
    counted in `dropped` (a Counter) by reason; otherwise all rows come, with or without target."""
    for where, row in read_rows(source, rows, TEXTS, "train" if training else "test"):
        try:
            example = battle(row, where)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if training and example["target"] is None:
            raise ValueError(f"{where}: nobody won; training needs {', '.join(WINNERS)}, or a winner")
        reason = training and useless(example)
        if reason:
            dropped[reason] += 1
        else:
            yield example


def battle(row, where=""):
    """The example of a row of either form; a row without id is called by its place."""
    looks = str(row.get("prompt")).startswith(('["', "[null"))  # which tells where test.csv has no winners
    arrays = WINNERS[0] in row or (looks and "winner" not in row)
    columns = {name: turns_of(name, row.get(name), arrays) for name in TEXTS}
    if len({*map(len, columns.values())}) > 1 or not columns["prompt"]:
        found = ", ".join(f"{len(texts)} in {name}" for name, texts in columns.items())
        raise ValueError(f"prompt and responses must have as many turns as each other, found {found}")
    models = [row.get("model_a"), row.get("model_b")]
    return {
        "id": where if row.get("id") in (None, "") else str(row["id"]),
        "turns": [list(turn) for turn in zip(*columns.values())],
        "models": models if all(models) else None,
        "target": target_of(row),
        "source": row.get("source") or None,
    }


def turns_of(name, value, arrays):
    """The texts of a column; null is an empty one, half a surrogate pair, which no UTF-8 can hold, is a ?."""
    if arrays and isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name!r} must be a JSON array of turns ({error})") from error
    elif isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(text is None or isinstance(text, str) for text in value):
        raise ValueError(f"{name!r} must be {'a JSON array' if arrays else 'a text or a list'} of turns")
    return [(text or "").encode("utf-8", "replace").decode() for text in value]


def target_of(row):
    """Soft labels before winner columns before the winner's word; None where a row has none of them."""
    for names in (SOFT, WINNERS):
        cells = [row.get(name) for name in names]
        if all(cell in (None, "") for cell in cells):
            continue
        try:
            values = [float(cell) for cell in cells]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{', '.join(names)} must be numbers, found {cells}") from error
        total = sum(values)
        if not (min(values) >= 0 and abs(total - 1) <= 1e-3):
            raise ValueError(f"{', '.join(names)} must be shares that sum to 1, found {cells}")
        if names is SOFT:
            return [value / total for value in values]
        if sorted(values) != [0, 0, 1]:
            raise ValueError(f"{', '.join(names)} must be one 1 and two 0, found {cells}")
        return values.index(1)
    word = row.get("winner")
    if word not in (None, "", *WORDS):
        raise ValueError(f"winner {word!r} must be one of {', '.join(WORDS)}")
    return WORDS.get(word)


def useless(example):
    """Why a battle teaches nothing, or ""."""
    a, b = ([turn[side].strip() for turn in example["turns"]] for side in (1, 2))
    if not any(a + b):
        return "with two empty answers"
    return "with two equal answers" if a == b else ""


def split_of(prompt):
    """ "test" for a tenth of all prompts, else "train": a function of the text, so that a prompt that comes
    often is never on both sides. Of several turns give the first."""
    return "test" if zlib.crc32(" ".join(prompt.casefold().split()).encode()) % 10 == 0 else "train"


def swapped(example):
    """The same battle with A and B in each other's place."""
    models, target = example["models"], example["target"]
    if isinstance(target, list):
        target = [target[k] for k in SWAP]
    elif target is not None:
        target = SWAP[target]
    turns = [[prompt, b, a] for prompt, a, b in example["turns"]]
    return example | {"turns": turns, "models": models and models[::-1], "target": target}


# ------------------------------------------------------------------------------------------------ submissions
def submission_rows(examples, probs):
    """Rows of submission.csv, dicts, from probabilities (N, 3) in the order of the examples. ValueError where
    a row is no distribution, as where a model diverged."""
    rows = []
    for i, (example, row) in enumerate(zip(examples, probs, strict=True), 1):
        if not (0 <= min(row) and abs(sum(row) - 1) <= 1e-6):
            raise ValueError(f"row {i}, id {example['id']}: not probabilities that sum to 1: {[*row]}")
        rows.append({"id": example["id"], **dict(zip(WINNERS, map(float, row)))})
    return rows
