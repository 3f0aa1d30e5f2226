"""Pictures of what infer.py eval wrote about Eedi."""

from collections import Counter, defaultdict

import numpy as np

from games.eedi.files import PLACES
from pictures import finish, pyplot


def draw(reports, out):
    """Draw evaluations {name: report}: how often each label comes, how similar labels are to their queries,
    MAP@25 by subject."""
    figure, axes = pyplot().subplots(1, 3, figsize=(18, 6))
    draw_labels(axes[0], reports)
    draw_similarities(axes[1], reports)
    draw_subjects(axes[2], reports)
    for axis in axes:
        axis.grid(alpha=0.3)
    return [finish(figure, out)]


def draw_labels(axis, reports):
    """How often each label is right, in the last report."""
    last = [*reports.values()][-1]
    labels = Counter(record["label"] for record in last["records"]).most_common()
    axis.bar(range(1, len(labels) + 1), [n for _, n in labels], width=1.0)
    axis.set(xlabel=f"labels, the most frequent first ({len(labels)})", ylabel="wrong answers")


def draw_similarities(axis, reports):
    """Right labels and the hardest wrong ones."""
    bins = np.linspace(-1, 1, 81)
    for number, (name, report) in enumerate(reports.items()):
        for kind, style, what in (("similarity", "-", "right label"), ("hardest", ":", "hardest wrong one")):
            values = [record[kind] for record in report["records"]]
            look = {"histtype": "step", "linestyle": style, "color": f"C{number}"}
            axis.hist(values, bins, label=f"{name}, {what}", **look)
    axis.set(xlabel="similarity to the query", ylabel="queries")
    axis.legend(fontsize=7, loc="upper left")


def draw_subjects(axis, reports):
    """The subjects that the last report is worst at, and the best, with all reports' MAP@25."""
    scores = defaultdict(lambda: defaultdict(list))  # report -> subject -> a score of each query
    for name, report in reports.items():
        for record in report["records"]:
            score = 1 / record["rank"] if record["rank"] <= PLACES else 0.0
            scores[name][record["subject"]].append(score)
    last = scores[name]
    subjects = sorted(last, key=lambda subject: (np.mean(last[subject]), subject))
    subjects = subjects[:20] + subjects[max(20, len(subjects) - 15) :]
    for number, (name, found) in enumerate(scores.items()):
        means = [np.mean(found[subject] or [0.0]) for subject in subjects]
        axis.plot(means, range(len(subjects)), "o", color=f"C{number}", markersize=4, label=name)
    labels = [f"{subject[:38]} ({len(last[subject])})" for subject in subjects]
    axis.set_yticks(range(len(subjects)), labels, fontsize=6)
    axis.set(xlabel="MAP@25 by subject (number of queries)", xlim=(-0.02, 1.02))
    axis.legend(fontsize=7)
