"""The arena's statistics: scores of predictions, a model of six hand-made features, biases, ratings.

Probabilities are (N, 3) in the order A, B, tie; targets are class indices or distributions over the three.
Every model here is a softmax over logits that are linear in its parameters, and `newton` fits them all:

    Davidson            logits (d / 2, -d / 2, c), d the difference of two strengths, c the pull of ties
    Bradley and Terry   the first two of them, a tie counting as half a win for either
    features            Davidson's, whose d is a weighted sum of differences of features

(Davidson 1970: P(tie) = nu sqrt(P(A) P(B)), from which the logits follow with c = ln nu.)"""

import re
from collections import defaultdict

import numpy as np

SWAP = [1, 0, 2]
SCALE, CENTRE = 400 / np.log(10), 1000  # of ratings: 400 points are odds of ten to one
RIDGE = 1e-3  # on strengths: gives a model that never lost a rating that is finite


# ------------------------------------------------------------------------------------------------ scores
def distributions(targets):
    """Targets of either kind as (N, 3)."""
    return np.array([np.eye(3)[t] if np.ndim(t) == 0 else t for t in targets], float).reshape(-1, 3)


def losses(probs, targets):
    """The log loss of each battle, (N,), with probabilities clipped at 1e-15."""
    return -(distributions(targets) * np.log(np.clip(probs, 1e-15, 1))).sum(1)


def hits(probs, targets):
    """Whether the likeliest class is right, (N,)."""
    return np.argmax(probs, 1) == distributions(targets).argmax(1)


log_loss = lambda probs, targets: float(losses(probs, targets).mean())
accuracy = lambda probs, targets: float(hits(probs, targets).mean())


def mean_interval(values, z=1.96):
    """The 95 % interval of a mean of independent values, by the normal approximation: (low, high), or None of
    a single value."""
    if len(values) < 2:
        return None
    centre, spread = np.mean(values), z * np.std(values, ddof=1) / len(values) ** 0.5
    return float(centre - spread), float(centre + spread)


def reliability(predicted, observed, bins=15):
    """The bins of equal width that are not empty: [{"n", "predicted", "observed"}], means of both (N,)."""
    which = np.minimum((predicted * bins).astype(int), bins - 1)
    parts = [(predicted[which == k], observed[which == k]) for k in np.unique(which)]
    return [{"n": len(p), "predicted": float(p.mean()), "observed": float(y.mean())} for p, y in parts]


def calibration(probs, targets, bins=15):
    """{"ece", "brier", "reliability": {"top", "a", "b", "tie"}}: the expected calibration error of the
    likeliest class (arXiv 1706.04599), Brier's score summed over the classes, from 0 to 2, and tables."""
    probs, truth = np.asarray(probs, float), distributions(targets)
    tables = {"top": reliability(probs.max(1), hits(probs, targets), bins)}
    tables |= {name: reliability(probs[:, k], truth[:, k], bins) for k, name in enumerate(("a", "b", "tie"))}
    gaps = [row["n"] * abs(row["predicted"] - row["observed"]) for row in tables["top"]]
    brier = float(((probs - truth) ** 2).sum(1).mean())
    return {"ece": sum(gaps) / len(probs), "brier": brier, "reliability": tables}


# ------------------------------------------------------------------------------------------------ fits
def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def newton(design, counts, ridge, x=None, steps=100):
    """The parameters x (P,) that minimise ridge / 2 |x|^2 - sum(counts log softmax(design @ x)), which is
    convex. design: (N, K, P); counts: (N, K), how often each of K outcomes was seen; x: where to start."""
    width = design.shape[-1]
    flat, total = design.reshape(-1, width), counts.sum(1, keepdims=True)
    value = lambda x: ridge / 2 * x @ x - (counts * log_softmax(design @ x)).sum()
    x = np.zeros(width) if x is None else x
    best = value(x)
    for _ in range(steps):
        expected = total * np.exp(log_softmax(design @ x))  # (N, K)
        mean = np.einsum("nk,nkp->np", expected, design)  # times total
        gradient = flat.T @ (expected - counts).ravel() + ridge * x
        hessian = flat.T @ (expected.reshape(-1, 1) * flat) - mean.T @ (mean / np.maximum(total, 1e-9))
        step = np.linalg.solve(hessian + ridge * np.eye(width), gradient)
        while np.abs(step).max() > 1e-7 and value(x - step) > best:
            step = step / 2  # Newton's step is too long where the sum is far from a parabola
        if np.abs(step).max() <= 1e-7:
            break
        x = x - step
        best = value(x)
    return x


def davidson(differences, ties=None):
    """The design (N, 3, P + 1 + Q) of logits (d / 2, -d / 2, c + ties @ v): the parameters are the weights of
    the differences (N, P) in d, then c, then v, the weights of what else makes ties (N, Q)."""
    ties = np.ones((len(differences), 1)) if ties is None else np.insert(ties, 0, 1, axis=1)
    half, rest = differences / 2, 0 * ties
    return np.stack([np.hstack(pair) for pair in ((half, rest), (-half, rest), (0 * half, ties))], 1)


# ------------------------------------------------------------------------------------------------ features
FEATURES = {  # of an answer: text, words of the prompt -> number; a battle has the differences A - B
    "length": lambda text, words: np.log1p(len(text)),
    "lines": lambda text, words: np.log1p(text.count("\n")),
    "bullets": lambda text, words: np.log1p(len(re.findall(r"^\s*(?:[-*\u2022]|\d+[.)])\s", text, re.M))),
    "punctuation": lambda text, words: np.log1p(len(re.findall(r"[.?!,:;]", text))),
    "code and bold": lambda text, words: np.log1p(text.count("```") + text.count("**")),
    "overlap": lambda text, words: len(words & words_of(text)) / max(len(words), 1),
}

words_of = lambda text: {*re.findall(r"\w+", text.lower())}


def texts_of(example):
    """[prompt, a, b] with all turns in one text each."""
    return ["\n".join(parts) for parts in zip(*example["turns"])]


def features(example):
    """Differences A - B of the FEATURES, (6,): swapping turns their sign."""
    prompt, a, b = texts_of(example)
    words = words_of(prompt)
    return np.array([measure(a, words) - measure(b, words) for measure in FEATURES.values()])


def by_features(X, scale):
    """Davidson's design (N, 3, 13) of features (N, 6): what differs in style is also no tie."""
    return davidson(X / scale, np.minimum(np.abs(X / scale), 1))


def fit_features(X, targets, ridge=1.0):
    """What style alone tells of a battle, from features X (N, 6): a model for `predict`."""
    scale = np.sqrt((X**2).mean(0)) + 1e-9  # but no mean is taken off: that would favour a side
    return scale, newton(by_features(X, scale), distributions(targets), ridge)


def predict(model, X):
    """Probabilities (N, 3) of features (N, 6); those of -X are the same with A and B exchanged."""
    scale, parameters = model
    return np.exp(log_softmax(by_features(X, scale) @ parameters))


# ------------------------------------------------------------------------------------------------ biases
def position(probs, swapped_probs, targets):
    """What the order of the answers does. swapped_probs (N, 3) are of the swapped battles, A being what stood
    first there. "gap" is mean P(A) - P(B), to be compared with that of the labels; "flips" the share of the
    verdicts that change; "asymmetry" how much of the probability moves; "both_first" and "both_second" count
    the verdicts for a place whoever stands in it."""
    probs, back = np.asarray(probs), np.asarray(swapped_probs)[:, SWAP]
    verdict, again = probs.argmax(1), back.argmax(1)
    gap = lambda shares: float((shares[:, 0] - shares[:, 1]).mean())
    return {
        "gap": gap(probs),
        "gap_of_labels": gap(distributions(targets)),
        "flips": float((verdict != again).mean()),
        "asymmetry": float(np.abs(probs - back).sum(1).mean() / 2),
        "both_first": int(((verdict == 0) & (again == 1)).sum()),
        "both_second": int(((verdict == 1) & (again == 0)).sum()),
    }


def verbosity(probs, examples, targets, parts=5):
    """What the length of the answers does: {"all": row, "parts": [row]}, the parts of equal size by the log
    length of A minus that of B. In a row "longer_wins" is the share of labels for the longer answer,
    "longer_predicted" its mean probability, "longer_verdicts" the share where it is the likeliest class."""
    probs, truth = np.asarray(probs), distributions(targets)
    lengths = [[np.log1p(len(text)) for text in texts_of(example)[1:]] for example in examples]
    difference = np.subtract(*np.array(lengths).T)

    def row(chosen):
        uneven = chosen[difference[chosen] != 0]
        longer = (difference[uneven] < 0).astype(int)
        mean = lambda values: float(values.mean()) if len(values) else None
        return {
            "n": len(chosen),
            "difference": mean(difference[chosen]),
            "accuracy": mean(hits(probs[chosen], truth[chosen])),
            "log_loss": mean(losses(probs[chosen], truth[chosen])),
            "longer_wins": mean(truth[uneven, longer]),
            "longer_predicted": mean(probs[uneven, longer]),
            "longer_verdicts": mean(probs[uneven].argmax(1) == longer),
        }

    order = np.argsort(difference, kind="stable")
    return {"all": row(order), "parts": [row(part) for part in np.array_split(order, parts)]}


def families(probs, examples, targets):
    """Whom the predictions favour: of each model, where names are known, the mean predicted and the observed
    share of wins, and their difference with its 95 % interval."""
    shares = defaultdict(list)  # model -> (predicted, observed) of each of its battles
    for row, example, truth in zip(probs, examples, distributions(targets)):
        for side, name in enumerate(example["models"] or ()):
            shares[name].append((row[side], truth[side]))
    rows = []
    for name, pairs in sorted(shares.items()):
        predicted, observed = np.mean(pairs, 0).tolist()
        row = {"model": name, "n": len(pairs), "predicted": predicted, "observed": observed}
        residuals = [p - y for p, y in pairs]
        rows.append(row | {"residual": predicted - observed, "interval": mean_interval(residuals)})
    return rows


def bias(probs, swapped_probs, examples, targets):
    """{"position", "verbosity", "families"}: the three tables above."""
    found = {"position": position(probs, swapped_probs, targets)}
    found["verbosity"] = verbosity(probs, examples, targets)
    return found | {"families": families(probs, examples, targets)}


# ------------------------------------------------------------------------------------------------ ratings
def met(battles):
    """{(model, other): counts (3,) of wins, losses and ties}, each pair once, its names in order."""
    found = defaultdict(lambda: np.zeros(3))
    for example in battles:
        a, b = example["models"] or ("", "")
        if a != b and example["target"] is not None:
            (truth,) = distributions([example["target"]])
            found[min(a, b), max(a, b)] += truth if a < b else truth[SWAP]
    return dict(found)


def win_rates(battles):
    """(models, rate (M, M), n (M, M)): how often the model of a row beat that of a column, ties half and NaN
    where they never met, and in how many battles."""
    found = met(battles)
    names = sorted({name for pair in found for name in pair})
    rate, n = np.full((len(names),) * 2, np.nan), np.zeros((len(names),) * 2)
    for pair, (wins, lost, ties) in found.items():
        i, j = map(names.index, pair)
        n[i, j] = n[j, i] = total = wins + lost + ties
        rate[i, j], rate[j, i] = (wins + ties / 2) / total, (lost + ties / 2) / total
    return names, rate, n


def connected(pairs):
    """The groups of models that battles join, directly or through others, the largest first."""
    groups = []
    for pair in pairs:
        touched = [group for group in groups if group & {*pair}]
        groups = [group for group in groups if group not in touched] + [set().union(pair, *touched)]
    return sorted(map(sorted, groups), key=lambda group: (-len(group), group))


def ratings(battles, bootstraps=200, seed=0):
    """The models by strength: [{"models": [row, best first], "ties": Davidson's nu}], a part for each group
    that battles connect. Between groups ratings say nothing, as each has its own mean of 1000. A row has
    "model", "n", "bradley_terry" and "davidson", these two as [rating, low, high] with the 95 % interval of a
    bootstrap over battles. Half wins draw Bradley and Terry's ratings together, the more the more ties."""
    found, rng, parts = met(battles), np.random.default_rng(seed), []
    for names in connected(found):
        pairs = [pair for pair in found if pair[0] in names]
        differences = np.array([[(name == a) - (name == b) for name in names] for a, b in pairs], float)
        design, counts = (
            davidson(differences),
            np.array([found[pair] for pair in pairs]),
        )  # (P, 3, M + 1), (P, 3)
        draws = rng.multinomial(round(counts.sum()), counts.ravel() / counts.sum(), bootstraps)
        seen = np.concatenate([counts[None], draws.reshape(-1, *counts.shape)])  # (1 + bootstraps, P, 3)
        halves = seen[..., :2] + seen[..., 2:] / 2
        fought = np.abs(differences).T @ counts.sum(1)
        rows = [{"model": name, "n": round(n)} for name, n in zip(names, fought)]
        fitted = ("bradley_terry", design[:, :2, :-1], halves), ("davidson", design, seen)
        for name, part, each in fitted:
            best = newton(part, each[0], RIDGE)
            fits = np.array([best, *(newton(part, one, RIDGE, best) for one in each[1:])])[:, : len(names)]
            fits = CENTRE + SCALE * (fits - fits.mean(1, keepdims=True))
            interval = np.quantile(fits[1:], (0.025, 0.975), axis=0)
            for row, triple in zip(rows, np.vstack([fits[:1], interval]).T.tolist()):
                row[name] = triple
        rows.sort(key=lambda row: -row["davidson"][0])
        parts.append({"models": rows, "ties": float(np.exp(best[-1]))})
    return parts
