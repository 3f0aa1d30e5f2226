"""20 Questions: a belief gives the reward and the credits of a model's own games (grpo).

The belief is the teacher's, with the teacher's pool of questions."""

import numpy as np

from games.twentyq.prompts import ROUNDS
from games.twentyq.world import plain

SPEED = 1 / 40  # reward for each round to spare; the win itself counts 1
CREDIT = 2.0  # weight of the bits and the probability that a reply lost, against the reward of the game


def reward_turns(episode, belief):
    """Give an Episode its reward for learning, and each of its replies a credit.

    The reward is 0 for a lost game, else 1 and SPEED for each round to spare. The credit of a reply is the
    reward minus CREDIT times the reply's shortfall: how much less a belief expects of it than of the best
    reply in the same state, in bits for a question, in probability for a guess. (The bits alone would depend
    on the round: late questions have few.) A reply that is no question or no guess costs 1 more, and so is
    worse than any other."""
    won = episode.reward > 0
    episode.reward = 1 + SPEED * (ROUNDS - len(episode.turns)) if won else 0.0
    belief.restart()
    gains = []
    shortfalls = []  # of question, guess, question, guess ...
    invalid = []
    for turn in episode.turns:
        gain = belief.worth_of([turn["question"]])[0]  # before the answer
        gains.append(gain)
        shortfalls.append(belief.gains().max() - gain)
        belief.learn(turn["question"], turn["answer"])
        chances = belief.probabilities()
        guess = belief.world.keyword_index.get(plain(turn["guess"]))
        shortfalls.append(chances.max() - (0.0 if guess is None else chances[guess]))
        invalid += [not turn["question"].endswith("?"), not plain(turn["guess"])]
    episode.credits = []
    for shortfall, wrong in zip(shortfalls, invalid):
        episode.credits.append(episode.reward - CREDIT * float(shortfall) - wrong)
    episode.scores = {
        "won": float(won),
        "bits": float(np.mean(gains)),
        "short": float(np.mean(shortfalls)),
    }
    return episode
