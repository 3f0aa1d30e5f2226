"""20 Questions, learning from preferences (--loss dpo and kto on --data): comparisons, as
`infer.py collect --strategy compare` writes them, and recorded games that were won or lost.

A comparison is {"keyword", "turns", "asks": question or guess, "chosen", "rejected"}."""

from games.task import Judged, Pair
from games.twentyq.prompts import ask_prompt, guess_prompt, lesson

NO_PARTING = "lost games from which no won one parts at a question or guess (--temperature makes such)"


def read(where, row):
    """A comparison of --data, checked. Raises ValueError."""
    texts = all(isinstance(row.get(key), str) for key in ("keyword", "chosen", "rejected"))
    turns = row.get("turns")
    pairs = isinstance(turns, list) and all(isinstance(turn, list) and len(turn) == 2 for turn in turns)
    if not (texts and pairs and row.get("asks") in ("question", "guess")):
        raise ValueError(f'{where}: a comparison needs "keyword", "turns", "asks", "chosen" and "rejected"')
    return row


# ------------------------------------------------------------------------------------------------ choosing
def usable(rows, kind, dropped):
    """The rows to learn from: comparisons, and games, of which won and lost ones about the same keyword make
    pairs. The others are counted in `dropped`."""
    comparisons = [row for row in rows if "chosen" in row]
    games = [row for row in rows if "won" in row and "chosen" not in row]
    if unknown := len(rows) - len(comparisons) - len(games):
        dropped["games that do not say whether they were won"] += unknown
    return comparisons + (divergences(games, dropped) if kind is Pair else games)


def divergences(games, dropped):
    """Comparisons of won and lost games about one keyword, at the last state in which they part: list of
    dicts. Lost games without one are counted: those of a player that takes what is likeliest part at answers
    alone."""
    by_keyword, rows = {}, {}
    for game in games:
        by_keyword.setdefault(game["keyword"], []).append(game)
    for about in by_keyword.values():
        won = [game for game in about if game["won"]]
        for loser in [game for game in about if not game["won"]]:
            partings = filter(None, [parting(winner, loser) for winner in won])
            last = max(partings, key=lambda found: found[0], default=None)
            if last:
                _, state, replies = last
                rows[loser["keyword"] + str(state)] = {"keyword": loser["keyword"], **state, **replies}
            else:
                dropped[NO_PARTING] += 1
    return list(rows.values())


def parting(winner, loser):
    """Where two games part, (round, state, the replies chosen and rejected), or None where they part at an
    answer."""
    turns = winner["turns"]
    for number, (turn, other) in enumerate(zip(turns, loser["turns"])):
        if turn[0] != other[0]:
            state = {"turns": turns[:number], "asks": "question"}
            return number, state, {"chosen": turn[0], "rejected": other[0]}
        if turn != other:
            return None
    last = len(turns) - 1
    if last >= len(loser["turns"]) or not ("guesses" in winner and "guesses" in loser):
        return None
    replies = {"chosen": winner["guesses"][last], "rejected": loser["guesses"][last]}
    return last, {"turns": turns, "asks": "guess"}, replies


# ------------------------------------------------------------------------------------------------ lessons
def items(row, kind):
    """What a comparison teaches, or what Judged learns from a game: list of Pair, Judged or Chat, the better
    reply to imitate."""
    if "chosen" not in row:
        return judged(row)
    prompt = (ask_prompt if row["asks"] == "question" else guess_prompt)(row["turns"])
    if kind is Judged:
        return [Judged(prompt, row["chosen"], True), Judged(prompt, row["rejected"], False)]
    return [Pair(prompt, row["chosen"], row["rejected"]) if kind is Pair else lesson(prompt, row["chosen"])]


def judged(game):
    """Every question and the last guess of a game, good if it was won: list of Judged."""
    turns, won = game["turns"], game["won"]
    asked = [Judged(ask_prompt(turns[:i]), question, won) for i, (question, _) in enumerate(turns)]
    return asked + [Judged(guess_prompt(turns), guess, won) for guess in game.get("guesses", [])[-1:]]
