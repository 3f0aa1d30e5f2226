"""20 Questions: learning from preferences (--loss dpo and kto on --data). The data are recorded games that
were won or lost, and comparisons.

A comparison is {"keyword", "turns", "asks": "question" or "guess", "chosen", "rejected"}."""

from files import TEXT, check_fields, list_of, one_of
from games.task import Judged, Pair
from games.twentyq.prompts import ask_prompt, guess_prompt, lesson

KINDS = {
    "keyword": TEXT,
    "turns": list_of(list_of(TEXT, 2)),  # [question, answer]
    "asks": one_of("question", "guess"),
    "chosen": TEXT,
    "rejected": TEXT,
}

NO_PARTING = "lost games that differ from no won game in a question or guess first (try --temperature)"


def read(where, row):
    """A comparison of --data, checked. Raises ValueError."""
    return check_fields(where, row, KINDS, KINDS)


# ------------------------------------------------------------------------------------------------ selecting
def select(rows, kind, dropped):
    """The rows to learn from: comparisons, and games that say whether they were won; `dropped` counts the
    others. For Pair, won and lost games about the same keyword become comparisons."""
    comparisons = []
    games = []
    for row in rows:
        if "chosen" in row:
            comparisons.append(row)
        elif "won" in row:
            games.append(row)
    if unknown := len(rows) - len(comparisons) - len(games):
        dropped["games that do not say whether they were won"] += unknown
    return comparisons + (divergences(games, dropped) if kind is Pair else games)


def divergences(games, dropped):
    """Comparisons of lost games with won games about the same keyword: list of dicts.

    Two games are compared in the first state in which they differ. Of all won games, the one that stays with
    the lost game for the longest counts. `dropped` counts lost games without a comparison: if a player always
    takes its most likely reply, two of its games differ only after a different answer."""
    by_keyword = {}
    for game in games:
        by_keyword.setdefault(game["keyword"], []).append(game)
    rows = {}  # by keyword and state, so that a state counts once
    for same_keyword in by_keyword.values():
        winners = [game for game in same_keyword if game["won"]]
        for loser in same_keyword:
            if loser["won"]:
                continue
            partings = filter(None, [parting(winner, loser) for winner in winners])
            last = max(partings, key=lambda place: place[0], default=None)
            if last:
                _, state, replies = last
                rows[loser["keyword"] + str(state)] = {"keyword": loser["keyword"], **state, **replies}
            else:
                dropped[NO_PARTING] += 1
    return list(rows.values())


def parting(winner, loser):
    """Where two games first differ: (round, state, the chosen and the rejected reply), or None if they differ
    in an answer first, which is no choice of the player."""
    turns = winner["turns"]
    for number, (turn, other) in enumerate(zip(turns, loser["turns"])):
        if turn[0] != other[0]:
            state = {"turns": turns[:number], "asks": "question"}
            return number, state, {"chosen": turn[0], "rejected": other[0]}
        if turn != other:
            return None
    # all turns of the winner are shared, so its last guess made the difference
    last = len(turns) - 1
    if last >= len(loser["turns"]) or not ("guesses" in winner and "guesses" in loser):
        return None
    replies = {"chosen": winner["guesses"][last], "rejected": loser["guesses"][last]}
    return last, {"turns": turns, "asks": "guess"}, replies


# ------------------------------------------------------------------------------------------------ lessons
def items(row, kind):
    """What a comparison teaches, or what Judged learns from a game: list of Pair, Judged or Chat. A Chat
    imitates the chosen reply."""
    if "chosen" not in row:
        return judge(row)
    prompt = (ask_prompt if row["asks"] == "question" else guess_prompt)([turn[:2] for turn in row["turns"]])
    if kind is Judged:
        return [Judged(prompt, row["chosen"], True), Judged(prompt, row["rejected"], False)]
    if kind is Pair:
        return [Pair(prompt, row["chosen"], row["rejected"])]
    return [lesson(prompt, row["chosen"])]


def judge(game):
    """Every question and the last guess of a game, good if the game was won: list of Judged."""
    turns = game["turns"]
    judged = []
    for i, (question, _) in enumerate(turns):
        judged.append(Judged(ask_prompt(turns[:i]), question, game["won"]))
    # earlier guesses were wrong in won games too
    for guess in game.get("guesses", [])[-1:]:
        judged.append(Judged(guess_prompt(turns), guess, game["won"]))
    return judged
