"""20 Questions, what a belief says of a model's own play: comparisons of its best replies
(`infer.py collect --strategy compare`), and the reward and credits of its games (grpo).

The belief is the teacher's, with its pool of questions and its opening: other questions, told to a model that
never saw them asked, made it lose."""

import numpy as np

from games.twentyq.world import plain

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
