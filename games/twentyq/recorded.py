"""20 Questions, recorded games and comparisons: how a row of --data is read, what of it a loss learns from,
and the lessons.

A game is {"keyword", "turns": [(question, answer)]} and what else its row says of "guesses", "won",
"flipped", "wandered", "strategy"; a comparison is {"keyword", "turns", "asks": question or guess, "chosen",
"rejected"}, as `infer.py collect --strategy compare` writes them."""

from games.task import Judged, Pair
from games.twentyq.prompts import ROUNDS, answer_prompt, ask_prompt, guess_prompt, said, unnamed
from games.twentyq.world import plain


# ------------------------------------------------------------------------------------------------ reading
def read(task, where, row):
    """The game or comparison in a row, or None where it is left out and counted (task.drop). A game ends for
    us where a question names the keyword: what comes after would be learned from prompts that hold the
    answer. Raises ValueError, which names the place, where the row is neither."""
    if "chosen" in row:
        return comparison(where, row)
    for key, kind in (("keyword", str), ("rounds", list)):
        if not isinstance(row.get(key), kind):
            raise ValueError(f"{where}: {key!r} is missing or not a {kind.__name__}")
    keyword, turns, guesses = row["keyword"], [], []
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
    marks = {name: row.get(name, [False] * len(turns)) for name in ("flipped", "wandered")}
    for name, mark in marks.items():
        if not (isinstance(mark, list) and len(mark) == len(turns)):
            raise ValueError(f"{where}: {name!r} must be a list with true or false for each round")
    if not plain(keyword):  # of a game with a person who did not say
        return task.drop("no keyword")
    if len(turns) > ROUNDS or not turns:
        return task.drop("more than 20 rounds" if turns else "no rounds")
    if any(answer not in ("yes", "no", "unsure") for _, answer in turns):
        return task.drop("an answer other than yes, no and unsure")
    clean = unnamed([question for question, _ in turns], task.words(keyword))
    if clean < len(turns):
        task.drop("rest of a game, whose question names the keyword")
    game = {"keyword": keyword, "turns": turns[:clean]}
    if guesses:
        game["guesses"] = guesses[:clean]
    game |= {name: mark[:clean] for name, mark in marks.items() if any(mark)}
    game |= {"strategy": row["strategy"]} if "strategy" in row else {}
    if "won" in row and not row.get("cut"):
        game["won"] = bool(row["won"])
    return game if clean else None


def comparison(where, row):
    """A comparison of --data, checked. Raises ValueError."""
    texts = all(isinstance(row.get(key), str) for key in ("keyword", "chosen", "rejected"))
    turns = row.get("turns")
    fine = isinstance(turns, list) and all(isinstance(turn, list) and len(turn) == 2 for turn in turns)
    if not (texts and fine and row.get("asks") in ("question", "guess")):
        raise ValueError(f'{where}: a comparison needs "keyword", "turns", "asks", "chosen" and "rejected"')
    return row


# ------------------------------------------------------------------------------------------------ choosing
def usable(rows, item, lost, drop):
    """The rows that a loss can learn from: comparisons, and won and lost games about the same keyword, make
    pairs; comparisons and games judged replies; what comparisons chose, and games that were not lost (with
    `lost` these too), are imitated. `drop(reason)` counts the others."""
    preference, kept, games = item in (Pair, Judged), [], []
    for row in rows:
        if "chosen" in row:
            kept.append(row)
        elif preference and "won" not in row:
            drop("games that do not say whether they were won")
        elif not preference and not row.get("won", True) and not lost:
            drop("lost games (--lost takes them)")
        else:
            games.append(row)
    return kept + (divergences(games, drop) if item is Pair else games)


def divergences(games, drop):
    """Comparisons of won and lost games about one keyword, at the first state in which they part: list of
    dicts. Lost games without one are dropped: those of a player that takes what is likeliest part at answers
    alone."""
    found, by = {}, {}
    for game in games:
        by.setdefault(game["keyword"], ([], []))[not game["won"]].append(game)
    for keyword, (won, lost) in by.items():
        for loser in lost:
            ends = [(*parting(game, loser), game) for game in won]
            ends = [end for end in ends if end[0] < min(len(texts(g, end[1])) for g in (end[2], loser))]
            if not ends:
                drop(
                    "lost games from which no won one parts at a question or guess (--temperature makes such)"
                )
                continue
            at, asks, winner = max(ends, key=lambda end: end[0])
            chosen, rejected = (texts(game, asks)[at] for game in (winner, loser))
            history = winner["turns"][: at + (asks == "guess")]
            row = {"keyword": keyword, "turns": history, "asks": asks}
            found[str(row)] = row | {"chosen": chosen, "rejected": rejected}
    return list(found.values())


def texts(game, asks):
    """The questions or the guesses of a game, none where it has none: list of str."""
    if asks == "question":
        return [question for question, _ in game["turns"]]
    return game.get("guesses", []) if asks else []


def parting(winner, loser):
    """(round, what) in which two games part: "question", "guess" where the winner's is the keyword, or ""."""
    for at, (one, other) in enumerate(zip(winner["turns"], loser["turns"])):
        if one[0] != other[0]:
            return at, "question"
        if one[1] != other[1]:
            return at, ""
        if at + 1 == len(winner["turns"]):
            return at, "guess"
    return 0, ""


# ------------------------------------------------------------------------------------------------ lessons
def items(row, item, rng, options, tutor=None):
    """What a usable row teaches: list of Pair, Judged or Chat, as the loss takes (`item`). options: the
    game's, of which --shuffle and --cells count here; tutor: a Belief over recorded answers, or None."""
    if "chosen" in row:
        return preferred(row, item)
    if item is Judged:
        return judged(row)
    lessons = imitated(shuffled(row, rng) if rng.random() < options.shuffle else row, tutor)
    return lessons + (cells(tutor.world, row["keyword"], options.cells, rng) if tutor else [])


def imitated(game, tutor=None):
    """Somebody's game: its questions (but those asked at random), its answers (but flipped ones) as the
    answerer's lessons, its guesses; the keyword as the last one where it has none. A model's own game, or a
    tutor, teaches with each guess what would have been right. Whoever wrote a snapshot knew the keyword from
    the start: its first question is no lesson, and nobody gave its answers. Of a shuffled game only guesses
    are taught."""
    keyword, turns, strategy = game["keyword"], game["turns"], game.get("strategy", "")
    flipped, wandered = (game.get(name, [False] * len(turns)) for name in ("flipped", "wandered"))
    made = game.get("guesses", [""] * (len(turns) - 1) + [keyword])
    guesses = tutor.told(turns) if tutor else made
    right = [keyword] if strategy == "play" or tutor else []
    first = {"snapshot": 1, "shuffled": len(turns)}.get(strategy, 0)
    asks = [said(ask_prompt(turns[:i]), turns[i][0]) for i in range(first, len(turns)) if not wandered[i]]
    answers = [
        said(answer_prompt(keyword, question), answer)
        for (question, answer), wrong in zip(turns, flipped)
        if not (strategy in ("snapshot", "shuffled") or wrong or answer == "unsure")
    ]
    taught = [
        said(guess_prompt(turns[: i + 1]), text)
        for i, guess in enumerate(guesses)
        for text in dict.fromkeys([guess, *right])
        if text
    ]
    return asks + answers + taught


def shuffled(game, rng):
    """The game with its turns in random order and its keyword as every guess: what answers tell does not
    depend on when they came, and a player that met its questions at fixed places has yet to learn that."""
    turns = [game["turns"][i] for i in rng.permutation(len(game["turns"]))]
    keyword = game["keyword"]
    return {"keyword": keyword, "turns": turns, "guesses": [keyword] * len(turns), "strategy": "shuffled"}


def cells(world, keyword, n, rng):
    """What a world says of the keyword on n of its questions at random, as the answerer's lessons."""
    k = world.keyword_index.get(plain(keyword))
    if k is None:
        return []
    drawn = rng.choice(len(world.questions), min(n, len(world.questions)), replace=False)
    return [
        said(answer_prompt(keyword, world.questions[q]), "yes" if world.table[k, q] else "no")
        for q in drawn
        if world.chance[k, q] != 0.5  # nobody knows
    ]


def judged(game):
    """Every question and the last guess of a game, good if it was won: list of Judged."""
    turns, won = game["turns"], game["won"]
    found = [Judged(ask_prompt(turns[:i]), question, won) for i, (question, _) in enumerate(turns)]
    return found + [Judged(guess_prompt(turns), guess, won) for guess in game.get("guesses", [])[-1:]]


def preferred(row, item):
    """The Pair of a comparison, or both its replies Judged, where the loss learns from such; or the better
    one to imitate."""
    prompt = (ask_prompt if row["asks"] == "question" else guess_prompt)(row["turns"])
    if item is Judged:
        return [Judged(prompt, row["chosen"], True), Judged(prompt, row["rejected"], False)]
    return [Pair(prompt, row["chosen"], row["rejected"]) if item is Pair else said(prompt, row["chosen"])]
