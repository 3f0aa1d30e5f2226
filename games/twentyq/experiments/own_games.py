"""20 Questions: a belief judges a model's own play. It compares the model's best replies
(`infer.py collect --strategy compare`), and gives the reward and the credits of its games (grpo).

The belief is the teacher's, with the teacher's pool of questions. A model that had never seen other questions
lost games when it learned them from the belief."""

import numpy as np

from games.twentyq.match import AgentWrapper
from games.twentyq.prompts import ROUNDS
from games.twentyq.world import plain

MARGIN = 0.02  # a chosen question has this many bits more than the rejected one, at least
ODDS = 1.5  # a chosen guess is this many times as likely as the rejected one, at least
SPEED = 1 / 40  # reward for each round to spare; the win itself counts 1
CREDIT = 2.0  # weight of the bits and the probability that a reply lost, against the reward of the game


# ------------------------------------------------------------------------------------------------ comparing
class Comparer(AgentWrapper):
    """An agent that replies like its inner agent and collects comparisons.

    In each state, a belief ranks the agent's k best questions or guesses. The best of them is set against the
    agent's first one, or against the worst if the first is the best."""

    def __init__(self, agent, belief, k):
        super().__init__(agent)
        self.belief = belief
        self.min_replies = k
        self.rows = {}  # (seat, turns) -> comparison, so that a state counts once

    def reorder(self, seat, turns, replies):
        """The replies unchanged. Stores a comparison if one reply is clearly better.

        A question is worth its expected bits, and a guess the logarithm of its probability to base ODDS. A
        question that was asked before or that the table does not know is worth nothing."""
        texts = [reply.text.strip() for reply in replies[: self.min_replies]]
        belief = self.belief.after(turns)
        if seat == "asker":
            worth = belief.worth_of(texts)
        else:
            worth = belief.log_chances(texts, ODDS)
        best = worth.index(max(worth))
        other = worth.index(min(worth)) if best == 0 else 0  # 0 is the reply that is played
        if worth[best] - worth[other] >= (MARGIN if seat == "asker" else 1.0):
            self.rows[seat, str(turns)] = {
                "turns": [list(turn) for turn in turns],
                "asks": "question" if seat == "asker" else "guess",
                "chosen": texts[best],
                "rejected": texts[other],
            }
        return replies


def compare(task, agent, examples, k, **settings):
    """Play games about the examples with the settings of TwentyQuestions.play: for each example the list of
    the comparisons from its states."""
    comparer = Comparer(agent, task.teacher, k)
    compared = []
    for episode in task.play(examples, comparer, repeats=True, **settings):
        rows = []
        states = []
        turns = []
        for turn in episode.turns:
            states.append(("asker", str(turns)))
            turns.append((turn["question"], turn["answer"]))
            states.append(("guesser", str(turns)))
        for state in states:
            # a state of several games is given to the first of them
            if state in comparer.rows:
                rows.append({"keyword": episode.example["keyword"], **comparer.rows.pop(state)})
        compared.append(rows)
    return compared


# ------------------------------------------------------------------------------------------------ reward
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
