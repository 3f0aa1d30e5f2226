"""Recorded games of 20 Questions: how a row of --data is read, and from which rows a loss learns.

A game is {"keyword", "turns": [(question, answer)]}, and "guesses", "won", "flipped" and "strategy" if
its row has them. experiments/preferences.py describes comparisons."""

from files import FLAG, TEXT, check_fields, list_of
from games.task import Judged, Pair
from games.twentyq.prompts import ROUNDS, count_unnamed
from games.twentyq.world import plain

KINDS = {
    "keyword": TEXT,
    "rounds": list_of(list_of(TEXT, 2)),  # [question, "yes" or "no"] or [question, "yes" or "no", guess]
    "won": FLAG,
    "cut": FLAG,
    "strategy": TEXT,
    "flipped": list_of(FLAG),
    "wandered": list_of(FLAG),
}


def read(task, where, row):
    """The game or comparison in a row, or None if it is left out; task.dropped counts the reasons.

    A game is cut before a question that names the keyword, because every later prompt would contain the
    keyword. Raises ValueError with the place in the file if the row is neither a game nor a comparison."""
    if "chosen" in row:
        from games.twentyq.experiments import preferences

        return preferences.read(where, row)
    keyword, turns, guesses = read_rounds(where, row)
    flipped = row.get("flipped") or []  # written by collect
    if flipped and len(flipped) != len(turns):
        raise ValueError(f"{where}: 'flipped' must be a list with true or false for each round")
    if any(row.get("wandered") or []):  # collect wrote it until November 2026; its questions are no lessons
        task.dropped["questions asked at random, by an earlier version"] += 1
        return None
    if reason := reason_to_drop(keyword, turns):
        task.dropped[reason] += 1
        return None

    end = count_unnamed([question for question, _ in turns], task.words({"keyword": keyword}))
    if end < len(turns):
        task.dropped["games cut before a question that names the keyword"] += 1
    if not end:
        return None
    game = {"keyword": keyword, "turns": turns[:end]}
    if guesses:
        game["guesses"] = guesses[:end]
    if any(flipped):
        game["flipped"] = flipped[:end]
    for name in ("strategy", "won"):
        if row.get(name) is not None:
            game[name] = row[name]
    if row.get("cut"):  # nobody knows how a cut game would have ended
        game.pop("won", None)
    return game


def read_rounds(where, row):
    """(keyword, turns, guesses) of a row; guesses is empty if the row has none. Raises ValueError."""
    check_fields(where, row, KINDS, ["keyword", "rounds"])
    turns = []
    guesses = []
    for turn in row["rounds"]:
        turns.append((turn[0], plain(turn[1])))
        guesses += turn[2:3]  # if the round has one
    if guesses and len(guesses) < len(turns):
        raise ValueError(f'{where}: all rounds must have a guess ("" for none), or no round')
    return row["keyword"], turns, guesses


def reason_to_drop(keyword, turns):
    """Why nothing can be learned from a game, or ""."""
    if not plain(keyword):
        return "no keyword"  # the person who thought of it did not name it
    if not turns:
        return "no rounds"
    if len(turns) > ROUNDS:
        return "more than 20 rounds"
    if not all(answer in ("yes", "no", "unsure") for _, answer in turns):
        return "an answer other than yes, no and unsure"
    return ""


def select(rows, kind, lost, dropped):
    """The rows from which a loss can learn; `dropped` counts the others.

    Imitation takes the chosen replies of comparisons and the games that were not lost (with `lost` these
    too). experiments/preferences.py selects for the losses that learn from preferences."""
    if kind in (Pair, Judged):
        from games.twentyq.experiments import preferences

        return preferences.select(rows, kind, dropped)
    selected = [row for row in rows if lost or row.get("won", True)]
    if len(selected) < len(rows):
        dropped["lost games (--lost takes them)"] += len(rows) - len(selected)
    return sorted(selected, key=lambda row: "chosen" not in row)  # comparisons first
