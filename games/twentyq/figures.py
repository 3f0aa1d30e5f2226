"""The figures of games of 20 Questions: win rates with intervals by noise, difficulty, category and whether
the keyword was trained on; what the questions told; repeats and replies that are none."""

import numpy as np

from games.task import wilson
from games.twentyq.world import plain

LEAST = 8  # keywords of a category that is shown by itself


def bits(belief, turns):
    """What each question of a game was expected to tell by a belief before its answer: list of bits, None for
    a question that the belief does not know."""
    belief.restart()
    place, found = {int(q): i for i, q in enumerate(belief.pool)}, []
    for turn in turns:
        q = belief.world.question_index.get(plain(turn["question"]))
        asked = q is not None and q in belief.asked  # a second time it tells what the noise hides; count none
        found.append(None if q is None else 0.0 if asked else float(belief.information()[place[q]]))
        belief.learn(turn["question"], turn["answer"])
    return found


def eda(won):
    """The score of the Entity-Deduction Arena (arXiv 2310.01468) for a win in a round, or None without."""
    return 0.0 if won is None else 1 - 0.02 * max(won - 5, 0)


def summarise(episodes, belief, tag, metrics, intervals):
    """Add the figures of some games under names that end in tag."""
    n, won = len(episodes), [len(episode.turns) for episode in episodes if episode.reward > 0]
    turns = [turn for episode in episodes for turn in episode.turns]
    told = [x for episode in episodes for x in bits(belief, episode.turns) if x is not None]
    metrics[f"win_rate{tag}"] = len(won) / n
    intervals[f"win_rate{tag}"] = wilson(len(won), n)
    metrics[f"rounds_to_win{tag}"] = float(np.mean(won)) if won else None
    metrics[f"kaggle_reward{tag}"] = float(np.mean([episode.reward for episode in episodes]))
    metrics[f"eda_score{tag}"] = sum(map(eda, won)) / n
    metrics[f"bits_a_question{tag}"] = float(np.mean(told)) if told else None
    metrics[f"repeated_questions{tag}"] = float(np.mean([turn["repeated"] for turn in turns]))
    metrics[f"unknown_questions{tag}"] = float(np.mean([not turn["known"] for turn in turns]))
    metrics[f"invalid{tag}"] = float(np.mean([invalid(turn) for turn in turns]))


def invalid(turn):
    """Whether a question of a round is no question, or its guess is none."""
    return not (turn["question"].endswith("?") and plain(turn["guess"]))


def groups(episodes, of):
    """{name: {"n", "win_rate", "interval"}} of the games by of(example), "" left out."""
    found = {}
    for episode in episodes:
        found.setdefault(of(episode.example), []).append(episode.reward > 0)
    return {
        name: {"n": len(won), "win_rate": sum(won) / len(won), "interval": wilson(sum(won), len(won))}
        for name, won in sorted(found.items())
        if name
    }


def record(episode):
    rounds = [[turn["question"], turn["answer"], turn["guess"]] for turn in episode.turns]
    return {**episode.example, "won": episode.reward > 0, "rounds": rounds}
