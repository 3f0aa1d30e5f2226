"""20 Questions, what a belief says of a model's own play: comparisons of its best replies
(`infer.py collect --strategy compare`), and the reward and credits of its games (grpo).

The belief is the teacher's, with its pool of questions: others, told to a model that never saw them asked,
made it lose."""

import numpy as np

from games.twentyq.match import Around
from games.twentyq.prompts import ROUNDS
from games.twentyq.world import plain

MARGIN = 0.02  # bits by which a chosen question tells more
ODDS = 1.5  # times as likely a chosen guess must be
SPEED = 1 / 40  # what a round earlier is worth, where the win is worth 1
CREDIT = 2.0  # weight, beside the win, of bits and chances that a turn gave away


# ------------------------------------------------------------------------------------------------ comparing
class Comparer(Around):
    """An agent that plays as another and notes, of its k best questions or guesses in each state, the one
    that a belief thinks best beside the one it takes (or, if that is the best, beside the worst)."""

    def __init__(self, agent, belief, k):
        super().__init__(agent)
        self.belief, self.least = belief, k
        self.rows = {}  # by state, so that a state counts once

    def order(self, seat, turns, replies):
        """The replies as they are. A comparison is noted where one is clearly better: questions are worth the
        bits that they are expected to tell, guesses the logarithm to base ODDS of their chance; what was
        asked before, and what the table does not know, is worth nothing."""
        texts = [reply.text.strip() for reply in replies[: self.least]]
        belief = self.belief.after(turns)
        worth = belief.worth_of(texts) if seat == "asker" else belief.odds_of(texts, ODDS)
        best = worth.index(max(worth))
        other = worth.index(min(worth)) if best == 0 else 0  # 0 is the one that is played
        if worth[best] - worth[other] >= (MARGIN if seat == "asker" else 1.0):
            self.rows[seat, str(turns)] = {
                "turns": [list(turn) for turn in turns],
                "asks": "question" if seat == "asker" else "guess",
                "chosen": texts[best],
                "rejected": texts[other],
            }
        return replies


def compare(task, agent, examples, k, **settings):
    """Play games about the examples with the settings of TwentyQuestions.play; what their states teach: for
    each example a list of comparisons."""
    comparer = Comparer(agent, task.teacher, k)
    compared = []
    for episode in task.play(examples, comparer, repeats=True, **settings):
        turns, rows = [], []
        for turn in episode.turns:
            asker = "asker", str(turns)
            turns.append((turn["question"], turn["answer"]))
            for state in (asker, ("guesser", str(turns))):
                if state in comparer.rows:
                    rows.append({"keyword": episode.example["keyword"], **comparer.rows.pop(state)})
        compared.append(rows)
    return compared


# ------------------------------------------------------------------------------------------------ reward
def reward_turns(episode, belief):
    """Give an Episode its reward for learning, 0 or 1 and SPEED for each round to spare, and each of its
    replies its credit: that reward less, times CREDIT, what the reply fell short of the best by a belief,
    in bits of its question or chance of its guess. (What a turn is worth by itself depends on where it is
    played: late questions tell little.) What is no question or no guess costs 1 more, so it is worse than
    any other."""
    won = episode.reward > 0
    episode.reward = 1 + SPEED * (ROUNDS - len(episode.turns)) if won else 0.0
    belief.restart()
    told, short, invalid = [], [], []
    for turn in episode.turns:
        (gain,), best = belief.worth_of([turn["question"]]), belief.gains().max()
        told.append(gain)
        short.append(best - gain)
        belief.learn(turn["question"], turn["answer"])
        chances = belief.probabilities()
        guess = belief.world.keyword_index.get(plain(turn["guess"]))
        short.append(chances.max() - (0.0 if guess is None else chances[guess]))
        invalid += [not turn["question"].endswith("?"), not plain(turn["guess"])]
    episode.credits = [episode.reward - CREDIT * float(x) - no for x, no in zip(short, invalid)]
    episode.scores = {"won": float(won), "bits": float(np.mean(told)), "short": float(np.mean(short))}
    return episode
