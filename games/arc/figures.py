"""The figures of an evaluation on ARC, from the records that Arc.attempt makes."""

from collections import Counter

import numpy as np

from games.arc.files import answers, ranked, tests_of
from games.arc.grids import scores
from games.stats import pass_at, wilson


def summary(records, trained_on):
    """The figures of records whose answers are known: means over the tests of a task, then over tasks
    (grids.scores); solved@k, the chance that of k replies one is right in every test of the task; precision,
    the share of answers that are right; and what became of the replies."""
    known = [record for record in records if all("output" in pair for pair in record["test"])]
    report = {"n": len(known), "metrics": {}, "intervals": {}, "baselines": {}, "curve": {}, "notes": []}
    if known:
        add_solved(report, known)
        add_grids(report, known)
        add_replies(report, known)
    shown = sum(f"shown:{record['id']}" in trained_on for record in records)
    if shown:
        what = "the model learned from what they show, no output of a test"
        report["notes"].append(f"test-time training: of {shown} tasks {what}")
    return report


def add_solved(report, known):
    """solved@k of each kind of task, beside it what programs drawn blindly solve; and the curve over k."""
    n = min(len(answers(record, 0)) for record in known)
    for split in sorted({record["split"] for record in known}):
        part = [record for record in known if record["split"] == split]
        for k in sorted({1, 8, 32, n} & {*range(n + 1)}, reverse=True):
            name, solved = f"solved@{k}{split}", mean(solved_at(record, k) for record in part)
            report["metrics"][name] = solved
            report["intervals"][name] = wilson(solved * len(part), len(part))
            if all("blind" in record for record in part):
                report["baselines"][name] = mean(pass_at(n, min(n, record["blind"]), k) for record in part)
    sizes = {n} | {1 << i for i in range(n.bit_length())}
    report["curve"] = {k: mean(solved_at(record, k) for record in known) for k in sorted(sizes)}


def add_grids(report, known):
    """The means of what is measured of each test grid."""
    for record in known:
        record["grids"] = [grid_figures(record, test) for test in tests_of(record)]
    for name in known[0]["grids"][0]:
        means = [mean(grid[name] for grid in record["grids"]) for record in known]
        report["metrics"][name] = mean(means)


def grid_figures(record, test):
    """The metrics of one test grid of a task."""
    truth = record["test"][test]["output"]
    ranks = {"vote": ranked(record, test)}
    if "order" in record:  # ties of the vote by it, and it alone
        order = record["order"][test]
        ranks |= {"untied": ranked(record, test, order), "judge": order}
    figures = scores(answers(record, test), truth)
    for name, rank in ranks.items():
        for m in (1, 2):
            figures[f"{name}_{m}"] = float(truth in rank[:m])
    return figures


def add_replies(report, known):
    """precision, and the share of each verdict."""
    replies = [(record, reply) for record in known for reply in record["replies"]]
    right = [is_right(record, reply) for record, reply in replies if reply["answers"]]
    if right:
        report["metrics"]["precision"] = mean(right)
        report["intervals"]["precision"] = wilson(sum(right), len(right))
    verdicts = Counter(reply["verdict"] for _, reply in replies)
    for kind, count in verdicts.most_common():
        report["metrics"][f"verdict_{kind}"] = count / len(replies)


def mean(values):
    return float(np.mean(list(values)))


def is_right(record, reply):
    """Whether a reply gives what it must: every test of its task, or the one it was asked about."""
    asked = tests_of(record) if reply["test"] is None else (reply["test"],)
    return bool(reply["answers"]) and all(reply["answers"][t] == record["test"][t]["output"] for t in asked)


def solved_at(record, k):
    """The chance that k replies (to each test, where they differ by test) solve the task."""
    chance = 1.0
    for test in {reply["test"] for reply in record["replies"]}:
        part = [reply for reply in record["replies"] if reply["test"] == test]
        right = sum(is_right(record, reply) for reply in part)
        chance *= pass_at(len(part), right, k)
    return chance
