"""The arena's files: battles in, submissions out.

A battle is {"id", "turns": [[prompt, a, b], ...], "models": [a, b] or None, "target", "source"}. Its target
is 0 (A won), 1 (B won), 2 (a tie), a distribution over the three, or None where nobody voted. A row has one
of three forms (JSON lines, CSV, Parquet, a folder or a Hub data set: games/rows.py):

    LMSYS   id, prompt, response_a, response_b, each text a string that holds a JSON array of turns; in
            train.csv also model_a, model_b, winner_model_a, winner_model_b, winner_tie
    WSDM    id, prompt, response_a, response_b, each text a string of one turn; in train.parquet also model_a,
            model_b, winner ("model_a" or "model_b", no ties) and language
    ours    {"prompt", "response_a", "response_b", "winner": "a" | "b" | "tie" | "both_bad"}, each text a
            string or a list of turns; also "id", "model_a", "model_b"

Rows of all forms may have a "source", the name of a part of the data (else the language is the source), and
the probabilities "p_a", "p_b", "p_tie", for example from a larger model. These then are the target."""

import re
import zlib

from files import TEXT, check_fields, one_of
from games.rows import parse_json, read_rows

TEXTS = ("prompt", "response_a", "response_b")
WINNERS = ("winner_model_a", "winner_model_b", "winner_tie")
SOFT = ("p_a", "p_b", "p_tie")
# of two bad answers neither is better
WORDS = {"a": 0, "b": 1, "tie": 2, "both_bad": 2, "model_a": 0, "model_b": 1}
KINDS = dict.fromkeys(("model_a", "model_b", "source", "language"), TEXT) | {"winner": one_of("", *WORDS)}
SWAP = [1, 0, 2]  # the classes after the answers have changed places


# ------------------------------------------------------------------------------------------------ battles in
def read_battles(source, rows, dropped, training=True):
    """Yield the battles of a source. For training every row needs a target, and battles that teach nothing
    are counted in `dropped` (a Counter) by reason. Otherwise every row is yielded, with or without a
    target."""
    found = list(read_rows(source, rows, TEXTS, "train" if training else "test"))
    # LMSYS's test.csv has no winners, so only its texts give its form away. One prompt that looks like an
    # array says nothing: people ask about arrays.
    arrays = all(map(looks_like_arrays, found))
    for where, row in found:
        check_fields(where, row, KINDS)
        try:
            example = parse_battle(row, where, arrays)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if training:
            if example["target"] is None:
                raise ValueError(f"{where}: no winner; training needs {', '.join(WINNERS)}, or winner")
            reason = why_useless(example)
            if reason:
                dropped[reason] += 1
                continue
        yield example


def is_plain(source):
    """Whether the texts of a test file are single strings, as WSDM's are."""
    found = list(read_rows(source, "", TEXTS, "test"))
    arrays = all(map(looks_like_arrays, found))
    return not arrays and not any(isinstance(row[name], list) for _, row in found for name in TEXTS)


def looks_like_arrays(found):
    """Whether all texts of a (where, row) are strings in square brackets."""
    cells = [found[1].get(name) for name in TEXTS]
    return all(type(cell) is str and re.fullmatch(r"(?s)\s*\[.*\]\s*", cell) for cell in cells)


def parse_battle(row, where="", arrays=False):
    """The battle in a row of any form; a row without an id is named by its place in the file. arrays: whether
    the strings of its file hold JSON arrays, as they do beside LMSYS's winners in any case."""
    arrays = arrays or WINNERS[0] in row
    columns = {name: turns_of(name, row.get(name), arrays) for name in TEXTS}
    sizes = [*map(len, columns.values())]
    if len({*sizes}) > 1 or not sizes[0]:
        raise ValueError(f"prompt and responses must have the same number of turns, found {sizes}")
    models = [row.get("model_a"), row.get("model_b")]
    return {
        "id": where if row.get("id") in (None, "") else str(row["id"]),
        "turns": [list(turn) for turn in zip(*columns.values())],
        "models": models if all(models) else None,
        "target": target_of(row),
        "source": row.get("source") or row.get("language") or None,
    }


def turns_of(name, value, arrays):
    """The turns in a column, a list of texts. null is an empty text."""
    if arrays and isinstance(value, str):
        value = parse_json(value, name)
    elif isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(text is None or isinstance(text, str) for text in value):
        raise ValueError(f"{name!r} must be {'a JSON array' if arrays else 'a text or a list'} of turns")
    return [text or "" for text in value]


def target_of(row):
    """The target: soft labels if the row has them, else its winner columns, else its "winner", else None."""
    for names in (SOFT, WINNERS):
        cells = [*map(row.get, names)]
        if all(cell in (None, "") for cell in cells):
            continue
        try:
            values = [*map(float, cells)]
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{', '.join(names)} must be numbers, found {cells}") from error
        total = sum(values)
        # in this form the check fails for a NaN too
        if not (min(values) >= 0 and abs(total - 1) <= 1e-3):
            raise ValueError(f"{', '.join(names)} must be shares that sum to 1, found {cells}")
        if names is SOFT:
            # rounded shares sum to 1 only nearly
            return [value / total for value in values]
        if sorted(values) != [0, 0, 1]:
            raise ValueError(f"{', '.join(names)} must be one 1 and two 0s, found {cells}")
        return values.index(1)
    return WORDS.get(row.get("winner"))


def why_useless(example):
    """The reason why a battle teaches nothing, or ""."""
    answers_a = [a.strip() for _, a, _ in example["turns"]]
    answers_b = [b.strip() for _, _, b in example["turns"]]
    # one empty answer is not useless: saying nothing should lose
    if not any(answers_a + answers_b):
        return "with two empty answers"
    return "with two equal answers" if answers_a == answers_b else ""


def split_of(prompt):
    """ "test" for a tenth of all prompts, else "train". The split depends on the text alone, so a prompt that
    occurs often is never on both sides. For several turns pass the first prompt."""
    # a prompt that differs only in case or spaces counts as the same
    words = prompt.casefold().split()
    return "test" if zlib.crc32(" ".join(words).encode()) % 10 == 0 else "train"


def swap_answers(example):
    """The same battle with A and B in each other's place."""
    target = example["target"]
    if isinstance(target, list):
        target = [target[k] for k in SWAP]
    elif target is not None:
        target = SWAP[target]
    models = example["models"]
    turns = [[prompt, b, a] for prompt, a, b in example["turns"]]
    return example | {"turns": turns, "models": models and models[::-1], "target": target}


# ------------------------------------------------------------------------------------------------ submissions
def submission_rows(examples, probs, plain=False):
    """The rows of submission.csv, dicts, from probabilities (N, 3) in the order of the examples: LMSYS's
    chances, or with plain WSDM's winners. ValueError if a row is not a distribution, for example because the
    model diverged."""
    rows = []
    for i, (example, chances) in enumerate(zip(examples, probs, strict=True), 1):
        if not (0 <= min(chances) and abs(sum(chances) - 1) <= 1e-6):
            raise ValueError(f"row {i}, id {example['id']}: not probabilities that sum to 1: {[*chances]}")
        row = {"id": example["id"]}
        if plain:
            row["winner"] = "model_a" if chances[0] >= chances[1] else "model_b"
        else:
            row |= zip(WINNERS, map(float, chances))
        rows.append(row)
    return rows
