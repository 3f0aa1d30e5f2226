"""The arena's statistics: scores of predictions, a model of six hand-made features, biases, ratings.

Probabilities and targets are (N, 3) in the order A, B, tie; `distributions` makes targets of class indices.
Every model here is a softmax over logits that are linear in its parameters (games.stats.newton fits them):

    Davidson            logits (d / 2, -d / 2, c), d the difference of two strengths, c the pull of ties
    Bradley and Terry   the first two of them, a tie counting as half a win for either
    features            Davidson's, whose d is a weighted sum of differences of features

(Davidson 1970: P(tie) = nu sqrt(P(A) P(B)), from which the logits follow with c = ln nu.)"""

import re
from collections import defaultdict

import numpy as np

from games.arena.files import SWAP
from games.stats import SCALE, log_softmax, mean_interval, newton

CENTRE = 1000  # mean rating
RIDGE = 1e-3  # on strengths: gives a model that never lost a finite rating
STYLE_RIDGE = 1.0  # on what features count
BINS = 15  # of equal width, in tables of reliability


# ------------------------------------------------------------------------------------------------ scores
def distributions(targets):
    """Targets of either kind as (N, 3)."""
    return np.array([np.eye(3)[t] if np.ndim(t) == 0 else t for t in targets], float).reshape(-1, 3)


def losses(probs, targets):
    """The log loss of each battle, (N,), with probabilities clipped at 1e-15."""
    return -(targets * np.log(np.clip(probs, 1e-15, 1))).sum(1)


def hits(probs, targets):
    """Whether the likeliest class is right, (N,)."""
    return probs.argmax(1) == targets.argmax(1)


def reliability(predicted, observed):
    """The BINS that are not empty: [{"n", "predicted", "observed"}], means of both (N,)."""
    which = np.minimum((predicted * BINS).astype(int), BINS - 1)
    parts = [(predicted[which == k], observed[which == k]) for k in np.unique(which)]
    return [{"n": len(p), "predicted": float(p.mean()), "observed": float(y.mean())} for p, y in parts]


def calibration(probs, targets):
    """{"ece", "brier", "reliability": {"top", "a", "b", "tie"}}: the expected calibration error of the
    likeliest class (arXiv 1706.04599), Brier's score summed over the classes, from 0 to 2, and tables."""
    probs = probs.astype(float)
    tables = {"top": reliability(probs.max(1), hits(probs, targets))}
    for k, name in enumerate(("a", "b", "tie")):
        tables[name] = reliability(probs[:, k], targets[:, k])
    gaps = [row["n"] * abs(row["predicted"] - row["observed"]) for row in tables["top"]]
    brier = float(((probs - targets) ** 2).sum(1).mean())
    return {"ece": sum(gaps) / len(probs), "brier": brier, "reliability": tables}


# ------------------------------------------------------------------------------------------------ features
words_of = lambda text: {*re.findall(r"\w+", text.lower())}


def style(text, prompt):
    """What is counted of an answer, (6,): length, lines, bullets, punctuation, code and bold, as logarithms,
    and the share of the prompt's words that it has."""
    counts = [
        len(text),
        text.count("\n"),
        len(re.findall(r"^\s*(?:[-*\u2022]|\d+[.)])\s", text, re.M)),
        len(re.findall(r"[.?!,:;]", text)),
        text.count("```") + text.count("**"),
    ]
    words = words_of(prompt)
    overlap = len(words & words_of(text)) / max(len(words), 1)
    return np.array([*np.log1p(counts), overlap])


def texts_of(example):
    """[prompt, a, b] with all turns in one text each."""
    return ["\n".join(parts) for parts in zip(*example["turns"])]


def length_differences(examples):
    """The log length of A minus that of B, (N,)."""
    lengths = [[len(text) for text in texts_of(example)[1:]] for example in examples]
    return np.subtract(*np.log1p(lengths).T)


def features(example):
    """Differences A - B in style, (6,): swapping turns their sign."""
    prompt, a, b = texts_of(example)
    return style(a, prompt) - style(b, prompt)


def davidson(differences, ties=None):
    """The design (N, 3, P + 1 + Q) of logits (d / 2, -d / 2, c + ties @ v): the parameters are the weights of
    the differences (N, P) in d, then c, then v, the weights of what else makes ties (N, Q)."""
    ties = np.ones((len(differences), 1)) if ties is None else np.insert(ties, 0, 1, axis=1)
    half = differences / 2
    first = np.hstack([half, 0 * ties])
    neither = np.hstack([0 * half, ties])
    return np.stack([first, -first, neither], 1)


def fit_style(X, targets):
    """What style alone tells of battles: fitted to features (N, 6), a function from features to
    probabilities, which for -X are the same with A and B exchanged."""
    scale = np.sqrt((X**2).mean(0)) + 1e-9  # but no mean is taken off: that would favour a side
    # what differs in style is also no tie
    design = lambda X: davidson(X / scale, np.minimum(np.abs(X / scale), 1))  # (N, 3, 13)
    parameters = newton(design(X), targets, STYLE_RIDGE)
    return lambda X: np.exp(log_softmax(design(X) @ parameters))


# ------------------------------------------------------------------------------------------------ biases
def position(probs, back, targets):
    """What the order of the answers does. back (N, 3) is what was said of the swapped battles, turned back.
    "gap" is mean P(A) - P(B), to be compared with that of the labels; "flips" the share of the verdicts that
    change; "asymmetry" how much of the probability moves; "both_first" and "both_second" count the verdicts
    for a place whoever stands in it."""
    verdict = probs.argmax(1)
    again = back.argmax(1)
    gap = lambda shares: float((shares[:, 0] - shares[:, 1]).mean())
    return {
        "gap": gap(probs),
        "gap_of_labels": gap(targets),
        "flips": float((verdict != again).mean()),
        "asymmetry": float(np.abs(probs - back).sum(1).mean() / 2),
        "both_first": int(((verdict == 0) & (again == 1)).sum()),
        "both_second": int(((verdict == 1) & (again == 0)).sum()),
    }


def verbosity(probs, examples, targets):
    """What the length of the answers does: {"all": row, "parts": [row]}, fifths of the battles by the log
    length of A minus that of B. In a row "longer_wins" is the share of labels for the longer answer,
    "longer_predicted" its mean probability, "longer_verdicts" the share where it is the likeliest class."""
    difference = length_differences(examples)

    def row(chosen):
        uneven = chosen[difference[chosen] != 0]
        longer = (difference[uneven] < 0).astype(int)
        mean = lambda values: float(values.mean()) if len(values) else None
        return {
            "n": len(chosen),
            "difference": mean(difference[chosen]),
            "accuracy": mean(hits(probs[chosen], targets[chosen])),
            "log_loss": mean(losses(probs[chosen], targets[chosen])),
            "longer_wins": mean(targets[uneven, longer]),
            "longer_predicted": mean(probs[uneven, longer]),
            "longer_verdicts": mean(probs[uneven].argmax(1) == longer),
        }

    order = np.argsort(difference, kind="stable")
    return {"all": row(order), "parts": [row(part) for part in np.array_split(order, 5)]}


def families(probs, examples, targets):
    """Whom the predictions favour: of each model, where names are known, the mean predicted and the observed
    share of wins, and their difference with its 95 % interval."""
    shares = defaultdict(list)  # model -> (predicted, observed) of each of its battles
    for row, example, truth in zip(probs, examples, targets):
        for side, name in enumerate(example["models"] or ()):
            shares[name].append((row[side], truth[side]))
    rows = []
    for name, pairs in sorted(shares.items()):
        predicted, observed = np.mean(pairs, 0).tolist()
        row = {
            "model": name,
            "n": len(pairs),
            "predicted": predicted,
            "observed": observed,
            "residual": predicted - observed,
            "interval": mean_interval([p - y for p, y in pairs]),
        }
        rows.append(row)
    return rows


# ------------------------------------------------------------------------------------------------ ratings
def met(battles):
    """{(model, other): counts (3,) of wins, losses and ties}, each pair once, its names in order."""
    counts = defaultdict(lambda: np.zeros(3))
    for example in battles:
        a, b = example["models"] or ("", "")
        if a != b and example["target"] is not None:
            (truth,) = distributions([example["target"]])
            counts[min(a, b), max(a, b)] += truth if a < b else truth[SWAP]
    return counts


def win_rates(battles, names):
    """(rate (M, M), n (M, M)) of the models named: how often the model of a row beat that of a column, ties
    half and NaN where they never met, and in how many battles."""
    won = np.zeros((len(names), len(names)))
    for pair, (wins, losses, ties) in met(battles).items():
        if {*pair} <= {*names}:
            i, j = map(names.index, pair)
            won[i, j] = wins + ties / 2
            won[j, i] = losses + ties / 2
    n = won + won.T
    with np.errstate(invalid="ignore"):
        return won / n, n


def connected(pairs):
    """The groups of models that battles join, directly or through others, the largest first."""
    groups = []
    for pair in pairs:
        touched = [group for group in groups if group & {*pair}]
        groups = [group for group in groups if group not in touched] + [set().union(pair, *touched)]
    return sorted(map(sorted, groups), key=lambda group: (-len(group), group))


def ratings(battles, bootstraps=200, seed=0):
    """The models by strength: a list for each group that battles connect, of rows, the best first. Between
    groups ratings say nothing, as each has its own mean of 1000. A row has "model", "n", "bradley_terry" and
    "davidson", these two as [rating, low, high] with the 95 % interval of a bootstrap over battles. Half wins
    draw Bradley and Terry's ratings together, the more the more ties."""
    outcomes = met(battles)
    rng = np.random.default_rng(seed)
    groups = []
    for names in connected(outcomes):
        pairs = [pair for pair in outcomes if pair[0] in names]
        counts = np.array([outcomes[pair] for pair in pairs])  # (P, 3)
        differences = np.zeros((len(pairs), len(names)))
        for row, (a, b) in zip(differences, pairs):
            row[names.index(a)] = 1
            row[names.index(b)] = -1
        draws = rng.multinomial(round(counts.sum()), counts.ravel() / counts.sum(), bootstraps)
        samples = np.concatenate([counts[None], draws.reshape(-1, *counts.shape)])  # (1 + bootstraps, P, 3)
        design = davidson(differences)  # (P, 3, M + 1)
        halves = samples[..., :2] + samples[..., 2:] / 2
        columns = {
            "model": names,
            "n": [round(n) for n in np.abs(differences).T @ counts.sum(1)],
            "bradley_terry": rate(design[:, :2, :-1], halves, len(names)),
            "davidson": rate(design, samples, len(names)),
        }
        rows = [dict(zip(columns, cells)) for cells in zip(*columns.values())]
        groups.append(sorted(rows, key=lambda row: -row["davidson"][0]))
    return groups


def rate(design, samples, n):
    """[rating, low, high] of each of n models, fitted to the first of samples (S, P, K) with the interval of
    the others."""
    best = newton(design, samples[0], RIDGE)
    fits = [best, *(newton(design, counts, RIDGE, best) for counts in samples[1:])]
    strengths = np.array(fits)[:, :n]
    points = CENTRE + SCALE * (strengths - strengths.mean(1, keepdims=True))
    interval = np.quantile(points[1:], (0.025, 0.975), axis=0)
    return np.vstack([points[:1], interval]).T.tolist()
