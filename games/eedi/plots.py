"""Pictures of Eedi: `draw` takes what infer.py eval wrote; plots.py is the command."""

from collections import Counter, defaultdict

import numpy as np

from games.eedi.files import PLACES
from games.stats import mean_interval
from pictures import draw_rows, finish, pyplot

WORST, BEST = 20, 15  # subjects that are drawn


def draw(reports, out):
    """Draw evaluations {name: report}: how frequent each label is, how similar labels are to their queries,
    MAP@25 by subject. A colour for each evaluation."""
    figure, axes = pyplot().subplots(1, 3, figsize=(18, 6.5), width_ratios=(4, 5, 5))
    draw_labels(axes[0], reports)
    draw_similarities(axes[1], reports)
    draw_subjects(axes[2], reports)
    for axis in axes:
        axis.grid(alpha=0.3)
    return [finish(figure, out)]


def draw_labels(axis, reports):
    """Draw how many wrong answers each label explains, in the last report."""
    *_, (name, report) = reports.items()
    labels = Counter(record["label"] for record in report["records"]).most_common()
    axis.bar(range(1, len(labels) + 1), [n for _, n in labels], width=1.0, color="C7")
    axis.set(xlabel=f"rank of the label ({len(labels)} labels)", ylabel="wrong answers with this label")
    axis.set_title(f"frequency of labels in {name}", fontsize=10)


def draw_similarities(axis, reports):
    """Draw histograms of the similarity of the right label and of the most similar wrong one."""
    kinds = (("similarity", "-", "right label"), ("hardest", ":", "most similar wrong label"))
    values = {}  # (report, kind) -> a similarity for each query
    for name, report in reports.items():
        for kind, *_ in kinds:
            values[name, kind] = [record[kind] for record in report["records"]]
    everything = np.concatenate([*values.values()])
    bins = np.linspace(everything.min(), everything.max() + 1e-6, 41)
    for i, name in enumerate(reports):
        for kind, style, label in kinds:
            look = {"histtype": "step", "linestyle": style, "linewidth": 1.5, "color": f"C{i}"}
            axis.hist(values[name, kind], bins, label=f"{name}, {label}", **look)
    axis.set(xlabel="similarity to the query", ylabel="queries")
    axis.set_title("right and wrong labels", fontsize=10)
    axis.legend(fontsize=8, loc="upper left")


def draw_subjects(axis, reports):
    """Draw MAP@25 of all reports with 95 % intervals, for the best and the worst subjects of the last one."""
    scores = defaultdict(lambda: defaultdict(list))  # report -> subject -> a score for each query
    for name, report in reports.items():
        for record in report["records"]:
            score = 1 / record["rank"] if record["rank"] <= PLACES else 0.0
            scores[name][record["subject"]].append(score)
    last = scores[name]
    subjects = sorted(last, key=lambda subject: (-np.mean(last[subject]), subject))
    title = "MAP@25 by subject (queries)"
    if len(subjects) > WORST + BEST:
        title += f": the {BEST} best and the {WORST} worst of {len(subjects)}"
        subjects = subjects[:BEST] + subjects[-WORST:]
    tables = []
    for i, (name, by_subject) in enumerate(scores.items()):
        shown = [subject for subject in subjects if subject in by_subject]
        tables.append({s: (np.mean(by_subject[s]), mean_interval(by_subject[s])) for s in shown})
        axis.plot([], [], "o-", color=f"C{i}", label=name)  # its line in the legend
    sizes = {subject: len(last[subject]) for subject in subjects}
    draw_rows(axis, tables, sizes)
    axis.set(xlabel="MAP@25, 95 % intervals", xlim=(-0.02, 1.02))
    axis.set_title(title, fontsize=10)
    axis.legend(fontsize=8)
