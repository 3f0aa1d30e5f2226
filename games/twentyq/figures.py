"""The metrics of an evaluation of 20 Questions: win rates with intervals, by noise and by group of keywords;
the information of the questions; repeated and invalid replies; the accuracy of a model's answers."""

from collections import Counter

import numpy as np

from games.stats import wilson
from games.twentyq.prompts import answer_prompt
from games.twentyq.world import plain

MIN_CATEGORY = 8  # games that a category needs for a line of its own


def bits(belief, turns):
    """The information that a belief expected from each question of a game before its answer: list of bits, 0
    for a question that was asked before, None for one that the belief does not know.

    turns: rounds [question, answer, ...]."""
    belief.restart()  # it may come from another game
    gains = []
    for question, answer, *_ in turns:
        known = plain(question) in belief.world.question_index
        gains.append(belief.worth_of([question])[0] if known else None)
        belief.learn(question, answer)
    return gains


def summarise(episodes, belief, tag, metrics, intervals):
    """Add the metrics of some games to `metrics` and `intervals`, under names that end in tag."""
    n = len(episodes)
    won = [len(episode.turns) for episode in episodes if episode.reward > 0]  # rounds of each won game
    gains = []
    faults = []  # (turns, 3): repeated, unknown, invalid
    for episode in episodes:
        gains += [gain for gain in bits(belief, rounds_of(episode.turns)) if gain is not None]
        for turn in episode.turns:
            truth = belief.world.answer(episode.example["keyword"], turn["question"])
            valid = turn["question"].endswith("?") and plain(turn["guess"])
            faults.append([turn["repeated"], truth is None, not valid])
    repeated, unknown, invalid = np.mean(faults, 0).tolist()
    figures = {
        "win_rate": len(won) / n,
        "rounds_to_win": float(np.mean(won)) if won else None,
        "kaggle_reward": float(np.mean([episode.reward for episode in episodes])),
        # the score of the Entity-Deduction Arena (arXiv 2310.01468)
        "eda_score": sum(1 - 0.02 * max(rounds - 5, 0) for rounds in won) / n,
        "bits_a_question": float(np.mean(gains)) if gains else None,
        "repeated_questions": repeated,
        "unknown_questions": unknown,
        "invalid": invalid,
    }
    metrics.update({name + tag: value for name, value in figures.items()})
    intervals[f"win_rate{tag}"] = wilson(len(won), n)


def of_list(episodes, known, all_words, tag, metrics, intervals):
    """Add the share of known keywords in a list, and the win rate over the whole list: a game about an
    unknown keyword is lost. Where only some of the known keywords were played, they stand for all."""
    won = sum(episode.reward > 0 for episode in episodes)
    n = round(len(episodes) * all_words / known)
    metrics["known_keywords"] = known / all_words
    metrics[f"win_rate_of_list{tag}"] = won / n
    intervals[f"win_rate_of_list{tag}"] = wilson(won, n)


def variety(episodes):
    """How much the questions vary between games that were played to their last round: the number of
    different questions in all games, and the mean number of questions that two games share."""
    games_with = Counter()  # question -> number of games
    for episode in episodes:
        games_with.update({plain(turn["question"]) for turn in episode.turns})
    figures = {"different_questions": len(games_with)}
    n = len(episodes)
    if n > 1:
        # a question of g games is shared by g (g - 1) ordered pairs of games
        pairs = sum(games * (games - 1) for games in games_with.values())
        figures["shared_questions"] = pairs / (n * (n - 1))
    return figures


def groups(task, episodes, trained_on):
    """Win rates by difficulty, by category and by whether the keyword was trained on: {name: {part: {"n",
    "win_rate", "interval"}}}."""
    # the difficulty of a keyword is defined within the world only
    difficulty = {} if task.options.keywords else task.world.difficulty()
    seen = {plain(word) for word in trained_on}
    won = {"difficulty": {}, "category": {}, "keywords": {}}
    for episode in episodes:
        example = episode.example
        keyword = example["keyword"]
        trained = "trained on" if plain(keyword) in seen else "not trained on"
        parts = {
            "difficulty": example.get("difficulty") or difficulty.get(keyword),
            "category": example.get("category") or task.world.kinds.get(keyword),
            "keywords": trained if seen else None,
        }
        for name, part in parts.items():
            if part:
                won[name].setdefault(part, []).append(episode.reward > 0)
    rates = {}
    for name, parts in won.items():
        rates[name] = {part: win_rate(hits) for part, hits in sorted(parts.items())}
    return rates


def win_rate(won):
    """The share of True in a list of bool, with its interval."""
    return {"n": len(won), "win_rate": sum(won) / len(won), "interval": wilson(sum(won), len(won))}


def groups_shown(groups):
    """Yield (name, part, win rate) for each group of games. Small categories are left out: they are in the
    report only."""
    for name, parts in groups.items():
        for part, group in parts.items():
            if name != "category" or group["n"] >= MIN_CATEGORY:
                yield name, part, group


def group_lines(groups):
    """The win rates of groups of games, as lines of text."""
    for name, part, group in groups_shown(groups):
        rate = "{:.3f} [{:.3f}, {:.3f}]".format(group["win_rate"], *group["interval"])
        yield f"{name + ' ' + part:28} {rate} of {group['n']}"


def answer_accuracy(world, agent, n, seed):
    """(metrics, intervals): the accuracy of the agent as answerer on n random cells of the truth table, half
    of them true. The balanced accuracy has an interval by the normal approximation."""
    if n < 2:
        return {}, {}
    rng = np.random.default_rng([seed, 21])
    rates = []  # of the true cells, then of the false ones
    intervals = {}
    variance = 0.0  # of the balanced accuracy
    for right, table in ((True, world.chance > 0.5), (False, world.chance < 0.5)):
        cells = np.argwhere(table)  # (cells, 2): keyword, question
        if not cells.size:  # nothing is true in this world, or everything
            return {}, {}
        # equally many of both, because most cells of the table are no
        cells = cells[rng.choice(len(cells), min(n // 2, len(cells)), replace=False)]
        prompts = [answer_prompt(world.keywords[k], world.questions[q]) for k, q in cells]
        hits = [(yes > no) == right for yes, no in agent.choose(prompts, ["yes", "no"])]
        rate = float(np.mean(hits))
        rates.append(rate)
        intervals[f"answerer_{right}".lower()] = wilson(int(sum(hits)), len(hits))
        variance += rate * (1 - rate) / len(hits) / 4
    balanced = sum(rates) / 2
    margin = 1.96 * variance**0.5
    intervals["answerer_balanced"] = (max(0.0, balanced - margin), min(1.0, balanced + margin))
    metrics = {"answerer_true": rates[0], "answerer_false": rates[1], "answerer_balanced": balanced}
    return metrics, intervals


def rounds_of(turns):
    """The rounds of a game in the form of a row: [question, answer, guess]."""
    return [[turn["question"], turn["answer"], turn["guess"]] for turn in turns]


def record(episode):
    """A game as a row of a report, which --data and --replay read too."""
    return {**episode.example, "won": episode.reward > 0, "rounds": rounds_of(episode.turns)}
