"""The figures of an evaluation on ARC, from the records that Arc.attempt makes."""

from collections import Counter, defaultdict
from itertools import compress

import numpy as np

from games.arc.files import answers, ranked, tests_of
from games.arc.grids import scores
from games.stats import pass_at, wilson


def summary(records, trained_on):
    """The figures of the records whose answers are known.

    They are the metrics of grids.scores, as means over the tests of a task and then over tasks; solved@k, the
    chance that one of k replies is right in every test of the task; precision, the share of answers that are
    right; and the share of each verdict."""
    known = []
    for record in records:
        if all("output" in pair for pair in record["test"]):
            known.append(record)
    report = {
        "n": len(known),
        "metrics": {},
        "intervals": {},
        "baselines": {},
        "curve": {},
        "notes": [],
    }
    if known:
        add_solved(report, known)
        add_grids(report, known)
        add_verdicts(report, known)
        if all("search" in record for record in known):
            add_search(report, known)
    shown = sum(f"shown:{record['id']}" in trained_on for record in records)
    if shown:
        report["notes"].append(
            f"test-time training: the model learned from what {shown} tasks show, from no output of a test"
        )
    return report


def add_solved(report, known):
    """Add solved@k of each kind of task, with programs drawn blindly as baseline, and the curve over k."""
    # No k can be larger. A task that is too long for a prompt has no replies and counts as unsolved.
    n = min([len(answers(record, 0)) for record in known if record["replies"]], default=0)
    for split in sorted({record["split"] for record in known}):
        part = [record for record in known if record["split"] == split]
        # The largest k first: the first metric of a report is the main one.
        for k in sorted({1, 8, 32, n} & {*range(n + 1)}, reverse=True):
            name = f"solved@{k}{split}"
            solved = mean_solved(part, k)
            report["metrics"][name] = solved
            report["intervals"][name] = wilson(
                solved * len(part), len(part)
            )  # tasks are the sample, not replies
            if all("blind" in record for record in part):
                chances = [pass_at(n, min(n, record["blind"]), k) for record in part]
                report["baselines"][name] = mean(chances)
    sizes = {n} | {1 << i for i in range(n.bit_length())}  # the powers of two up to n, and n
    report["curve"] = {k: mean_solved(known, k) for k in sorted(sizes) if k}


def add_grids(report, known):
    """Add the means of the metrics of test grids, and put these metrics into the records."""
    for record in known:
        record["grids"] = [grid_figures(record, test) for test in tests_of(record)]
    for name in known[0]["grids"][0]:
        means = []
        for record in known:
            means.append(mean([grid[name] for grid in record["grids"]]))
        report["metrics"][name] = mean(means)


def grid_figures(record, test):
    """The metrics of one test grid of a task. vote_m, untied_m, judge_m: whether the right grid is among the
    first m of the vote, of the vote with its ties broken by a judge, and of the judge's order."""
    truth = record["test"][test]["output"]
    rankings = {"vote": ranked(record, test)}
    if "order" in record:
        order = record["order"][test]
        rankings["untied"] = ranked(record, test, order)
        rankings["judge"] = order
    figures = scores(answers(record, test) or [[]], truth)
    for name, ranking in rankings.items():
        for m in (1, 2):
            figures[f"{name}_{m}"] = float(truth in ranking[:m])
    return figures


def add_verdicts(report, known):
    """Add precision and the share of each verdict."""
    verdicts = Counter()
    right = []  # whether each reply with an answer is right
    for record in known:
        for reply in record["replies"]:
            verdicts[reply["verdict"]] += 1
            if reply["answers"]:
                right.append(is_right(record, reply))
    if right:
        report["metrics"]["precision"] = mean(right)
        report["intervals"]["precision"] = wilson(sum(right), len(right))
    for kind, count in verdicts.most_common():
        report["metrics"][f"verdict_{kind}"] = count / verdicts.total()


def add_search(report, known):
    """Add what search and the replies solve together, by task, where a task is right if all of its tests are.

    top_m: right within the first m answers; top_precision: of the tasks with an answer, those whose first is
    right. bench/arc_search.py has the curve over the number of programs tried."""

    def add(name, values):
        report["metrics"][name] = mean(values)
        report["intervals"][name] = wilson(sum(values), len(values))

    best = [[ranked(record, test) for test in tests_of(record)] for record in known]
    for m in (1, 2):
        add(f"top_{m}", [within(record, grids, m) for record, grids in zip(known, best)])
    answered = [any(grids) for grids in best]
    add("top_answered", answered)
    if any(answered):
        pairs = compress(zip(known, best), answered)
        add("top_precision", [within(record, grids, 1) for record, grids in pairs])

    tried = sum(record["search"]["tried"] for record in known)
    seconds = sum(record["search"]["seconds"] for record in known)
    report["metrics"]["search_programs_a_second"] = tried / max(seconds, 1e-9)
    unguided = sum(not record["replies"] for record in known)
    if unguided:
        report["notes"].append(f"{unguided} tasks do not fit into a prompt: searched without the model")


def within(record, rankings, m):
    """Whether the right grid of every test is among the first m of its ranking."""
    pairs = zip(record["test"], rankings)
    return all(pair["output"] in ranking[:m] for pair, ranking in pairs)


def mean(values):
    return float(np.mean(values))


def mean_solved(records, k):
    return mean([solved_at(record, k) for record in records])


def is_right(record, reply):
    """Whether a reply gives the right grid for every test that it answers: all of its task, or one."""
    if not reply["answers"]:
        return False
    tests = tests_of(record) if reply["test"] is None else (reply["test"],)
    return all(reply["answers"][test] == record["test"][test]["output"] for test in tests)


def solved_at(record, k):
    """The chance that k replies solve the task; k replies to each test, if a reply answers only one. Without
    replies it is 0."""
    if not record["replies"]:
        return 0.0
    right = defaultdict(list)  # test, or None for all -> whether each reply is right
    for reply in record["replies"]:
        right[reply["test"]].append(is_right(record, reply))
    chance = 1.0
    for replies in right.values():
        chance *= pass_at(len(replies), sum(replies), k)
    return chance
