"""The arena's statistics: scores of predictions, mixtures of them, biases, ratings.

Probabilities and targets are (N, 3) in the order A, B, tie; `distributions` turns class indices into targets.
Every model here is a softmax over logits that are linear in its parameters (games.stats.newton fits them):

    Davidson            logits (d / 2, -d / 2, c): d is the difference of two strengths, c the pull of ties
    Bradley and Terry   the first two of these logits; a tie counts as half a win for each side
    features            Davidson's, where d is a weighted sum of differences of features (features.py)
    mix                 logarithms of other predictions, each with a weight

(Davidson 1970: P(tie) = nu sqrt(P(A) P(B)), from which the logits follow with c = ln nu.)"""

from collections import defaultdict

import numpy as np

from games.arena.files import SWAP
from games.stats import SCALE, log_softmax, newton, wilson

CENTRE = 1000  # mean rating
RIDGE = 1e-3  # on strengths, for a finite rating of a model that never lost, and on the weights of a mixture
BINS = 15  # of equal width, in reliability tables


# ------------------------------------------------------------------------------------------------ scores
def distributions(targets):
    """Targets as (N, 3); each of them is a class index or a distribution."""
    rows = [np.eye(3)[target] if np.ndim(target) == 0 else target for target in targets]
    # the shape matters where there are no targets
    return np.array(rows, float).reshape(-1, 3)


def targets_of(examples):
    """The targets of battles as (N, 3)."""
    return distributions([example["target"] for example in examples])


def losses(probs, targets):
    """The log loss of each battle, (N,), with probabilities clipped at 1e-15."""
    return -(targets * np.log(np.clip(probs, 1e-15, 1))).sum(1)


def hits(probs, targets):
    """Whether the likeliest class is right, (N,)."""
    return probs.argmax(1) == targets.argmax(1)


def reliability(predicted, observed):
    """A row for each bin that is not empty: [{"n", "predicted", "observed"}], the means of both (N,)."""
    # a probability of 1 belongs to the last bin
    bins = np.minimum((predicted * BINS).astype(int), BINS - 1)
    rows = []
    for k in np.unique(bins):
        inside = bins == k
        rows.append(
            {
                "n": int(inside.sum()),
                "predicted": float(predicted[inside].mean()),
                "observed": float(observed[inside].mean()),
            }
        )
    return rows


def calibration(probs, targets):
    """{"ece", "brier", "reliability": {"top", "a", "b", "tie"}}: the expected calibration error of the
    likeliest class (arXiv 1706.04599), the Brier score summed over the classes, from 0 to 2, and the
    reliability tables of the likeliest and of each class."""
    probs = probs.astype(float)
    tables = {"top": reliability(probs.max(1), hits(probs, targets))}
    for k, name in enumerate(("a", "b", "tie")):
        tables[name] = reliability(probs[:, k], targets[:, k])
    gaps = [row["n"] * abs(row["predicted"] - row["observed"]) for row in tables["top"]]
    squares = ((probs - targets) ** 2).sum(1)  # (N,)
    return {
        "ece": sum(gaps) / len(probs),
        "brier": float(squares.mean()),
        "reliability": tables,
    }


# ------------------------------------------------------------------------------------------------ fits
def texts_of(example):
    """[prompt, a, b], the turns of each joined into one text."""
    return ["\n".join(turns) for turns in zip(*example["turns"])]


def length_differences(examples):
    """The log length of A minus that of B, (N,)."""
    lengths = [(len(a), len(b)) for _, a, b in map(texts_of, examples)]
    a, b = np.log1p(lengths).T  # (N,) each
    return a - b


def davidson_design(differences, *causes):
    """The design (N, 3, P + 1 + Q) of the logits (d / 2, -d / 2, c + causes @ v). The parameters are the
    weights of the differences (N, P) in d, then c, then v, the weights of other causes of ties (N, Q)."""
    ties = np.hstack([np.ones((len(differences), 1)), *causes])
    half = differences / 2
    first = np.hstack([half, 0 * ties])
    neither = np.hstack([0 * half, ties])
    return np.stack([first, -first, neither], 1)


def mix(known, targets, predicted):
    """Probabilities (M, 3) from several predictions, a list of (M, 3). Their logarithms, the first place and
    a tie have weights in the logits, those that fit the targets (N, 3) of other battles, for which the same
    sources predicted `known`."""

    def design(predictions):
        logs = np.log(np.clip(predictions, 1e-15, 1))  # (sources, N, 3)
        return np.concatenate([np.moveaxis(logs, 0, 2), davidson_design(np.ones((logs.shape[1], 1)))], 2)

    weights = newton(design(known), targets, RIDGE)
    return np.exp(log_softmax(design(predicted) @ weights))


def mix_halves(targets, predicted):
    """`mix` for battles with targets (N, 3): every other battle by the weights that fit the rest."""
    predicted = np.array(predicted)
    mixed = np.empty_like(targets)
    for k in range(2):
        mixed[k::2] = mix(predicted[:, 1 - k :: 2], targets[1 - k :: 2], predicted[:, k::2])
    return mixed


def fit_tie(gaps, targets):
    """Davidson's c with the greatest likelihood for battles between strengths of these differences, (N,), by
    bisection: the mean of P(tie) then is the share of ties in the targets (N, 3). No ties count as half a
    tie."""
    share = max(targets[:, 2].mean(), 0.5 / len(targets))
    low = -100.0
    high = 100.0
    for _ in range(60):
        middle = (low + high) / 2
        logits = np.stack([gaps / 2, -gaps / 2, np.full_like(gaps, middle)], 1)
        if np.exp(log_softmax(logits))[:, 2].mean() < share:
            low = middle
        else:
            high = middle
    return middle


# ------------------------------------------------------------------------------------------------ biases
def position(probs, back, targets):
    """The effect of the order of the answers. `back` (N, 3) holds the predictions for the swapped battles,
    with A and B exchanged again.

    "gap" is the mean of P(A) - P(B), to compare with "gap_of_labels"; "flips" is the share of verdicts that
    change with the order; "asymmetry" is the mean share of the probability that moves; "both_first" and
    "both_second" count the battles where both verdicts are for the same place, whichever answer is there."""
    verdict = probs.argmax(1)
    swapped_verdict = back.argmax(1)
    changed = verdict != swapped_verdict  # (N,)
    moved = np.abs(probs - back).sum(1)  # (N,), from 0 to 2
    both_first = (verdict == 0) & (swapped_verdict == 1)
    both_second = (verdict == 1) & (swapped_verdict == 0)
    gap = lambda shares: float((shares[:, 0] - shares[:, 1]).mean())
    return {
        "gap": gap(probs),
        "gap_of_labels": gap(targets),
        "flips": float(changed.mean()),
        "asymmetry": float(moved.mean() / 2),
        "both_first": int(both_first.sum()),
        "both_second": int(both_second.sum()),
    }


def verbosity(probs, examples, targets):
    """The effect of the length of the answers: {"all": row, "parts": [row]}, where the parts are fifths of
    the battles by the log length of A minus that of B.

    In a row "longer_wins" is the share of labels for the longer answer, "longer_predicted" its mean
    probability, "longer_verdicts" the share of battles where it is the likeliest class."""
    difference = length_differences(examples)

    def summarise(chosen):
        # battles of equal length have no longer answer
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
    return {"all": summarise(order), "parts": [*map(summarise, np.array_split(order, 5))]}


def families(probs, examples, targets):
    """Which models the predictions favour. For each model whose name is known: its mean predicted and its
    observed share of wins, and their difference with the 95 % interval that follows from Wilson's interval of
    the observed share."""
    shares = defaultdict(list)  # model -> (predicted, observed) of each of its battles
    for predicted, example, observed in zip(probs, examples, targets):
        for side, name in enumerate(example["models"] or ()):
            shares[name].append((predicted[side], observed[side]))
    rows = []
    for name, pairs in sorted(shares.items()):
        predicted, observed = np.mean(pairs, 0).tolist()
        low, high = wilson(observed * len(pairs), len(pairs))
        rows.append(
            {
                "model": name,
                "n": len(pairs),
                "predicted": predicted,
                "observed": observed,
                "residual": predicted - observed,
                "interval": (predicted - high, predicted - low),
            }
        )
    return rows


# ------------------------------------------------------------------------------------------------ ratings
def count_outcomes(battles):
    """{(model, other): counts (3,) of wins, losses and ties}, each pair once, its names in order."""
    counts = defaultdict(lambda: np.zeros(3))
    for example in battles:
        a, b = example["models"] or ("", "")
        if a != b and example["target"] is not None:
            (truth,) = targets_of([example])
            if a < b:
                counts[a, b] += truth
            else:
                counts[b, a] += truth[SWAP]
    return counts


def win_rates(battles, names):
    """(rate (M, M), n (M, M)): how often the model of a row beat the model of a column, and in how many
    battles they met. A tie is half a win; the rate is NaN where they never met."""
    won = np.zeros((len(names), len(names)))
    for pair, (wins, losses, ties) in count_outcomes(battles).items():
        if {*pair} <= {*names}:
            i, j = map(names.index, pair)
            won[i, j] = wins + ties / 2
            won[j, i] = losses + ties / 2
    n = won + won.T
    with np.errstate(invalid="ignore"):
        return won / n, n


def connected_groups(pairs):
    """The groups of models that are connected by battles, directly or through others, largest first."""
    groups = []
    for pair in pairs:
        # a pair joins the groups that it touches, at most two, into one
        merged = {*pair}
        apart = []
        for group in groups:
            if group & merged:
                merged |= group
            else:
                apart.append(group)
        groups = [*apart, merged]
    return sorted(map(sorted, groups), key=lambda group: (-len(group), group))


def ratings(battles, bootstraps=200, seed=0):
    """The models by strength: for each group that battles connect a list of rows, best first. Ratings of
    different groups cannot be compared, as each group has its own mean of 1000.

    A row has "model", "n", "bradley_terry" and "davidson", these two as [rating, low, high] with a 95 %
    interval. As ties are half wins for Bradley and Terry, their ratings lie closer together the more ties
    there are.

    The interval comes from a Bayesian bootstrap: fits to counts drawn from a gamma distribution (Newton and
    Raftery 1994, doi 10.1111/j.2517-6161.1994.tb01956.x). The battles alone would give no width to a model
    that always won, or to a single battle. So half a battle of each outcome is added, divided among the
    opponents of a model. Between two models this is Jeffreys' interval (Brown, Cai and DasGupta 2001, doi
    10.1214/ss/1009213286)."""
    outcomes = count_outcomes(battles)
    rng = np.random.default_rng(seed)
    groups = []
    for names in connected_groups(outcomes):
        pairs = [pair for pair in outcomes if pair[0] in names]
        counts = np.array([outcomes[pair] for pair in pairs])  # (P, 3)
        differences = np.zeros((len(pairs), len(names)))
        for i, (a, b) in enumerate(pairs):
            differences[i, names.index(a)] = 1
            differences[i, names.index(b)] = -1

        # the counts as they are, then those of each bootstrap
        met = np.abs(differences)  # (P, M)
        opponents = (met * met.sum(0)).max(1, keepdims=True)  # (P, 1): of the model that has more
        ties_occur = counts[:, 2].any()
        prior = np.array([0.5, 0.5, 0.5 * ties_occur]) / opponents  # (P, 3)
        draws = rng.gamma(counts + prior, size=(bootstraps, *counts.shape))
        samples = np.concatenate([counts[None], draws])  # (1 + bootstraps, P, 3)

        design = davidson_design(differences)  # (P, 3, M + 1)
        half_wins = samples[..., :2] + samples[..., 2:] / 2
        # without the row and the column of ties the design is Bradley and Terry's
        bradley_terry = fit_ratings(design[:, :2, :-1], half_wins, len(names))
        davidson = fit_ratings(design, samples, len(names))
        sizes = met.T @ counts.sum(1)  # (M,): battles of each model
        rows = []
        for i, name in enumerate(names):
            rows.append(
                {
                    "model": name,
                    "n": round(sizes[i]),
                    "bradley_terry": bradley_terry[i],
                    "davidson": davidson[i],
                }
            )
        groups.append(sorted(rows, key=lambda row: -row["davidson"][0]))
    return groups


def fit_ratings(design, samples, n):
    """[rating, low, high] of each of n models: the rating is fitted to the first of the samples (S, P, K),
    the interval to the others."""
    best = newton(design, samples[0], RIDGE)
    # each bootstrap starts from the fit to all battles, which is near its own
    fits = [best]
    for counts in samples[1:]:
        fits.append(newton(design, counts, RIDGE, best))
    strengths = np.array(fits)[:, :n]  # (S, n), without Davidson's pull of ties
    centred = strengths - strengths.mean(1, keepdims=True)
    points = CENTRE + SCALE * centred
    low, high = np.quantile(points[1:], (0.025, 0.975), axis=0)  # (n,) each
    best = points[0]  # of a model that always won it may lie above the draws, in which it also loses
    return np.stack([best, np.minimum(low, best), np.maximum(high, best)], 1).tolist()
