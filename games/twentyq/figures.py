"""The figures of an evaluation of 20 Questions: win rates with intervals, by noise and by group of keywords;
what the questions told; repeats and replies that are none; how well a model answers."""

from collections import Counter

import numpy as np

from games.stats import wilson
from games.twentyq.prompts import answer_prompt
from games.twentyq.world import plain

LEAST = 8  # keywords of a category that is shown by itself


def bits(belief, turns):
    """What each question of a game, rounds [question, answer, ...], was expected to tell by a belief before
    its answer: list of bits, 0 for a question asked before, None for one that the belief does not know."""
    belief.restart()
    told = []
    for question, answer, *_ in turns:
        known = plain(question) in belief.world.question_index
        told.append(belief.worth_of([question])[0] if known else None)
        belief.learn(question, answer)
    return told


def summarise(episodes, belief, tag, metrics, intervals):
    """Add the figures of some games under names that end in tag."""
    n = len(episodes)
    won = [len(episode.turns) for episode in episodes if episode.reward > 0]
    told, faults = [], []
    for episode in episodes:
        told += [gain for gain in bits(belief, rounds_of(episode.turns)) if gain is not None]
        for turn in episode.turns:
            known = belief.world.answer(episode.example["keyword"], turn["question"])
            valid = turn["question"].endswith("?") and plain(turn["guess"])
            faults.append([turn["repeated"], known is None, not valid])
    repeated, unknown, invalid = np.mean(faults, 0).tolist()
    figures = {
        "win_rate": len(won) / n,
        "rounds_to_win": float(np.mean(won)) if won else None,
        "kaggle_reward": float(np.mean([episode.reward for episode in episodes])),
        # of the Entity-Deduction Arena (arXiv 2310.01468)
        "eda_score": sum(1 - 0.02 * max(rounds - 5, 0) for rounds in won) / n,
        "bits_a_question": float(np.mean(told)) if told else None,
        "repeated_questions": repeated,
        "unknown_questions": unknown,
        "invalid": invalid,
    }
    metrics.update({name + tag: value for name, value in figures.items()})
    intervals[f"win_rate{tag}"] = wilson(len(won), n)


def variety(episodes):
    """How much the questions vary from game to game, of games played to their last round: how many different
    ones there are, and how many of a game's 20 another game has too, on average over all pairs of games."""
    asked = [{plain(turn["question"]) for turn in episode.turns} for episode in episodes]
    games_with = Counter(question for questions in asked for question in questions)
    figures = {"different_questions": len(games_with)}
    if (n := len(episodes)) > 1:
        pairs = sum(games * (games - 1) for games in games_with.values())
        figures["shared_questions"] = pairs / (n * (n - 1))
    return figures


def groups(task, episodes, trained_on):
    """Games by difficulty, by category and by whether the keyword was trained on: {name: {part: {"n",
    "win_rate", "interval"}}}."""
    hard = {} if task.options.keywords else task.world.difficulty()
    seen = {plain(word) for word in trained_on}
    won = {"difficulty": {}, "category": {}, "keywords": {}}
    for episode in episodes:
        example = episode.example
        keyword = example["keyword"]
        trained = "trained on" if plain(keyword) in seen else "not trained on"
        parts = {
            "difficulty": example.get("difficulty") or hard.get(keyword),
            "category": example.get("category") or task.world.kinds.get(keyword),
            "keywords": trained if seen else None,
        }
        for name, part in parts.items():
            if part:
                won[name].setdefault(part, []).append(episode.reward > 0)
    return {
        name: {part: win_rate(hits) for part, hits in sorted(parts.items())} for name, parts in won.items()
    }


def win_rate(won):
    return {"n": len(won), "win_rate": sum(won) / len(won), "interval": wilson(sum(won), len(won))}


def groups_shown(groups):
    """Yield (name, part, win rate) of groups of games; small categories are in the report only."""
    for name, parts in groups.items():
        for part, group in parts.items():
            if name != "category" or group["n"] >= LEAST:
                yield name, part, group


def lines_of(groups):
    """The win rates of groups of games as lines of text."""
    for name, part, group in groups_shown(groups):
        rate = "{:.3f} [{:.3f}, {:.3f}]".format(group["win_rate"], *group["interval"])
        yield f"{name + ' ' + part:28} {rate} of {group['n']}"


def answer_accuracy(world, agent, n, seed):
    """The agent as answerer against the truth table: n cells drawn by the seed, half of them true."""
    if n < 2:
        return {}
    rng = np.random.default_rng([seed, 21])
    rates = []
    for right, table in ((True, world.chance > 0.5), (False, world.chance < 0.5)):
        cells = np.argwhere(table)
        cells = cells[rng.choice(len(cells), min(n // 2, len(cells)), replace=False)]
        prompts = [answer_prompt(world.keywords[k], world.questions[q]) for k, q in cells]
        says_yes = [yes > no for yes, no in agent.choose(prompts, ["yes", "no"])]
        rates.append(float(np.mean(np.array(says_yes) == right)))
    return {"answerer_true": rates[0], "answerer_false": rates[1], "answerer_balanced": sum(rates) / 2}


def rounds_of(turns):
    """The rounds of a game as a row has them: [question, answer, guess]."""
    return [[turn["question"], turn["answer"], turn["guess"]] for turn in turns]


def record(episode):
    return {**episode.example, "won": episode.reward > 0, "rounds": rounds_of(episode.turns)}
