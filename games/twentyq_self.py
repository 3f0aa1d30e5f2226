"""20 Questions, learning from games the model plays itself: what games teach by imitation, by preference and
by reward, and the comparisons that `infer.py collect --strategy compare` writes.

A game is {"keyword", "turns": [(question, answer)], "guesses", "won"}; a comparison is {"keyword", "turns",
"asks": question or guess, "chosen", "rejected"}. The belief that judges is the teacher's, with its pool of
questions and its opening: other questions, told to a model that never saw them asked, made it lose."""

import numpy as np

from games.task import Chat, Judged, Pair
from games.twentyq_table import plain

MARGIN = 0.02  # bits by which a chosen question tells more
ODDS = 1.5  # times as likely a chosen guess must be
SPEED = 1 / 40  # what a round earlier is worth, where the win is worth 1


# ------------------------------------------------------------------------------------------------ comparing
class Comparer:
    """An agent that plays as another and notes, of its k best questions or guesses in each state, the one
    that a belief thinks best beside the one it takes (or, if that is the best, beside the worst)."""

    def __init__(self, task, agent, k):
        self.task, self.agent, self.k = task, agent, k
        self.belief, self.rows = task.teacher, {}  # rows by state, so that a state counts once

    def reply(self, conversations, n=1):
        found = self.agent.reply(conversations, max(n, self.k))
        for conversation, replies in zip(conversations, found):
            self.note(conversation, [reply.text.strip() for reply in replies[: self.k]])
        return [replies[:n] for replies in found]

    def note(self, conversation, texts):
        seat, turns = self.task.read(conversation)
        worth = self.worth(seat, turns, texts)
        played, best, worst = 0, worth.index(max(worth)), worth.index(min(worth))
        other = played if best != played else worst
        if worth[best] - worth[other] >= (MARGIN if seat == "asker" else 1.0):
            self.rows[seat, str(turns)] = {
                "turns": [list(turn) for turn in turns],
                "asks": "question" if seat == "asker" else "guess",
                "chosen": texts[best],
                "rejected": texts[other],
            }

    def worth(self, seat, turns, texts):
        """Of questions the bits they are expected to tell, of guesses the logarithm to base ODDS of their
        chance; what was asked before, and what the table does not know, is worth nothing."""
        belief = self.belief.after(turns)
        return belief.worth_of(texts) if seat == "asker" else belief.odds_of(texts, ODDS)


def compared(task, agent, examples, k, **how):
    """Games about the examples, played as `how` says (TwentyQuestions.play), and what their states teach: for
    each example a list of comparisons."""
    comparer = Comparer(task, agent, k)
    found = []
    for episode in task.play(examples, comparer, repeats=True, **how):
        turns, rows = [], []
        for turn in episode.turns:
            states = [("asker", str(turns))]
            turns.append((turn["question"], turn["answer"]))
            states.append(("guesser", str(turns)))
            rows += [comparer.rows.pop(state) for state in states if state in comparer.rows]
        found.append([{"keyword": episode.example["keyword"], **row} for row in rows])
    return found


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


# ------------------------------------------------------------------------------------------------ items
def judged(game, ask_prompt, guess_prompt):
    """Every question and the last guess of a game, good if it was won: list of Judged."""
    turns, won = game["turns"], game["won"]
    items = [Judged(ask_prompt(turns[:i]), question, won) for i, (question, _) in enumerate(turns)]
    return items + [Judged(guess_prompt(turns), guess, won) for guess in game.get("guesses", [])[-1:]]


def shuffled(game, rng):
    """The game with its turns in random order and its keyword as every guess: what answers tell does not
    depend on when they came, and a player that met its questions at fixed places has yet to learn that."""
    turns = [game["turns"][i] for i in rng.permutation(len(game["turns"]))]
    keyword = game["keyword"]
    return {
        "keyword": keyword,
        "turns": turns,
        "guesses": [keyword] * len(turns),
        "strategy": "shuffled",
    }


def preferred(row, item, ask_prompt, guess_prompt):
    """The Pair of a comparison, or both its replies Judged, where the loss learns from such; or the better
    one to imitate."""
    prompt = (ask_prompt if row["asks"] == "question" else guess_prompt)(row["turns"])
    if item is not Pair and item is not Judged:
        return [Chat([*prompt, {"role": "assistant", "content": row["chosen"]}], learn="last")]
    if item is Judged:
        return [Judged(prompt, row["chosen"], True), Judged(prompt, row["rejected"], False)]
    return [Pair(prompt, row["chosen"], row["rejected"])]


def checked(where, row):
    """A comparison of --data. Raises ValueError."""
    texts = all(isinstance(row.get(key), str) for key in ("keyword", "chosen", "rejected"))
    turns = row.get("turns")
    fine = isinstance(turns, list) and all(isinstance(turn, list) and len(turn) == 2 for turn in turns)
    if not (texts and fine and row.get("asks") in ("question", "guess")):
        raise ValueError(f'{where}: a comparison needs "keyword", "turns", "asks", "chosen" and "rejected"')
    return row


def lessons(rows, item, lost, drop):
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


# ------------------------------------------------------------------------------------------------ reward
def rewarded(episode, belief, weight):
    """Give an Episode its reward for learning, 0 or 1 and SPEED for each round to spare, and each of its
    replies its credit: that reward less, times `weight`, what the reply fell short of the best by a belief,
    in bits of its question or chance of its guess. (What a turn is worth by itself depends on where it is
    played: late questions tell little.) What is no question or no guess costs 1 more, so it is worse than
    any other."""
    turns, world = episode.turns, belief.world
    episode.reward = 1 + SPEED * (20 - len(turns)) if episode.reward > 0 else 0.0
    told, short, none, belief = [], [], [], belief.restart()
    for turn in turns:
        (gain,), best = belief.worth_of([turn["question"]]), belief.gains().max()
        told.append(gain)
        short.append(best - gain)
        belief.learn(turn["question"], turn["answer"])
        p, k = belief.probabilities(), world.keyword_index.get(plain(turn["guess"]))
        short.append(p.max() - (0.0 if k is None else p[k]))
        none += [not turn["question"].endswith("?"), not plain(turn["guess"])]
    episode.credits = [episode.reward - weight * float(x) - no for x, no in zip(short, none)]
    episode.scores = {"won": float(episode.reward > 0), "bits": float(np.mean(told))}
    episode.scores["short"] = float(np.mean(short))
    return episode
