"""Recorded games of 20 Questions: how a row of --data is read, and which of them a loss learns from.

A game is {"keyword", "turns": [(question, answer)]} and what else its row says of "guesses", "won",
"flipped", "wandered", "strategy"; a comparison is described in experiments/preferences.py."""

from games.task import Judged, Pair
from games.twentyq.prompts import ROUNDS, count_unnamed
from games.twentyq.world import plain


def read(task, where, row):
    """The game or comparison in a row, or None where it is left out and counted in task.dropped. A game ends
    for us where a question names the keyword: what comes after would be learned from prompts that hold the
    answer. Raises ValueError, which names the place, where the row is neither."""
    if "chosen" in row:
        from games.twentyq.experiments import preferences

        return preferences.read(where, row)
    keyword, turns, guesses = read_rounds(where, row)
    marks = {name: row[name] for name in ("flipped", "wandered") if name in row}
    for name, mark in marks.items():
        if not (isinstance(mark, list) and len(mark) == len(turns)):
            raise ValueError(f"{where}: {name!r} must be a list with true or false for each round")
    if reason := unusable(keyword, turns):
        task.dropped[reason] += 1
        return None
    clean = count_unnamed([question for question, _ in turns], task.words({"keyword": keyword}))
    if clean < len(turns):
        task.dropped["rest of a game, whose question names the keyword"] += 1
    if not clean:
        return None
    game = {"keyword": keyword, "turns": turns[:clean]}
    if guesses:
        game["guesses"] = guesses[:clean]
    game |= {name: mark[:clean] for name, mark in marks.items() if any(mark)}
    if "strategy" in row:
        game["strategy"] = row["strategy"]
    if "won" in row and not row.get("cut"):
        game["won"] = bool(row["won"])
    return game


def read_rounds(where, row):
    """(keyword, turns, guesses) of a row; no guesses where it has none. Raises ValueError."""
    for key, kind in (("keyword", str), ("rounds", list)):
        if not isinstance(row.get(key), kind):
            raise ValueError(f"{where}: {key!r} is missing or not a {kind.__name__}")
    turns, guesses = [], []
    for turn in row["rounds"]:
        if not (isinstance(turn, list) and len(turn) >= 2 and all(isinstance(x, str) for x in turn[:3])):
            raise ValueError(
                f'{where}: a round must be [question, "yes" or "no"], and its guess if there is one, '
                f"found {turn!r}"
            )
        turns.append((turn[0], plain(turn[1])))
        guesses += turn[2:3]
    if guesses and len(guesses) < len(turns):
        raise ValueError(f'{where}: all rounds have a guess ("" is none) or no round has one')
    return row["keyword"], turns, guesses


def unusable(keyword, turns):
    """Why nothing can be learned from a game, or ""."""
    if not plain(keyword):
        return "no keyword"  # a game with a person who did not say
    if not turns:
        return "no rounds"
    if len(turns) > ROUNDS:
        return "more than 20 rounds"
    known = all(answer in ("yes", "no", "unsure") for _, answer in turns)
    return "" if known else "an answer other than yes, no and unsure"


def usable(rows, kind, lost, dropped):
    """The rows that a loss can learn from. What comparisons chose, and games that were not lost (with `lost`
    these too), are imitated; for other losses see experiments/preferences.py. The others are counted in
    `dropped`."""
    if kind in (Pair, Judged):
        from games.twentyq.experiments import preferences

        return preferences.usable(rows, kind, dropped)
    kept = [row for row in rows if lost or row.get("won", True)]
    if len(kept) < len(rows):
        dropped["lost games (--lost takes them)"] += len(rows) - len(kept)
    return sorted(kept, key=lambda row: "chosen" not in row)  # comparisons first
