"""Pictures of Eedi: `draw` takes what infer.py eval wrote; plots.py is the command."""

from collections import Counter, defaultdict

import numpy as np

from games.stats import mean_interval
from pictures import draw_rows, finish, pyplot

# numbers of subjects that are drawn
WORST = 20
BEST = 15


def draw(reports, out):
    """Draw evaluations {name: report}: how frequent each label is, how similar labels are to their queries,
    MAP@25 or MAP@3 by subject. A colour for each evaluation."""
    figure, axes = pyplot().subplots(1, 3, figsize=(18, 6.5), width_ratios=(4, 5, 5))
    draw_labels(axes[0], *[*reports.items()][-1])
    draw_similarities(axes[1], reports)
    draw_subjects(axes[2], reports)
    for axis in axes:
        axis.grid(alpha=0.3)
    return [finish(figure, out)]


def draw_labels(axis, name, report):
    """Draw how many wrong answers each label explains, the most frequent labels first."""
    counts = Counter(record["label"] for record in report["records"])
    n = len(counts)
    heights = sorted(counts.values(), reverse=True)
    axis.bar(range(1, n + 1), heights, width=1.0, color="C7")
    axis.set(xlabel=f"rank of the label ({n} labels)", ylabel="wrong answers with this label")
    axis.set_title(f"frequency of labels in {name}", fontsize=10)


def draw_similarities(axis, reports):
    """Draw histograms of the similarity of the right label and of the most similar wrong one."""
    values = []
    looks = []
    for i, (name, report) in enumerate(reports.items()):
        for field, style, label in (
            ("similarity", "-", "right label"),
            ("hardest", ":", "most similar wrong label"),
        ):
            similarities = np.array([record[field] for record in report["records"]])
            values.append(similarities[np.isfinite(similarities)])
            looks.append({"linestyle": style, "color": f"C{i}", "label": f"{name}, {label}"})

    # The same bins for all, so that their heights compare.
    everything = np.concatenate(values)
    bins = np.linspace(everything.min(), everything.max() + 1e-6, 41)
    for similarities, look in zip(values, looks):
        axis.hist(similarities, bins, histtype="step", linewidth=1.5, **look)
    axis.set(xlabel="similarity to the query", ylabel="queries")
    axis.set_title("right and wrong labels", fontsize=10)
    axis.legend(fontsize=8, loc="upper left")


def draw_subjects(axis, reports):
    """Draw the metric of all reports with 95 % intervals, by the best and worst subjects of the last one."""
    scores = defaultdict(lambda: defaultdict(list))  # report -> subject -> a score for each query
    for name, report in reports.items():
        metric = next(iter(report["metrics"]))  # map@25, or map@3 of MAP
        places = int(metric.partition("@")[2])
        for record in report["records"]:
            score = 1 / record["rank"] if record["rank"] <= places else 0.0
            scores[name][record["subject"]].append(score)

    last = scores[name]
    subjects = sorted(last, key=lambda subject: (-np.mean(last[subject]), subject))
    title = f"{metric.upper()} by subject (queries)"
    if len(subjects) > WORST + BEST:
        title += f": the {BEST} best and the {WORST} worst of {len(subjects)}"
        subjects = subjects[:BEST] + subjects[-WORST:]

    tables = []
    for i, (name, by_subject) in enumerate(scores.items()):
        table = {}
        for subject in subjects:
            if subject in by_subject:  # another evaluation may lack it
                values = by_subject[subject]
                table[subject] = np.mean(values), mean_interval(values)
        tables.append(table)
        axis.plot([], [], "o-", color=f"C{i}", label=name)  # its line in the legend
    sizes = {subject: len(last[subject]) for subject in subjects}
    draw_rows(axis, tables, sizes)
    axis.set(xlabel=f"{metric.upper()}, 95 % intervals", xlim=(-0.02, 1.02))
    axis.set_title(title, fontsize=10)
    axis.legend(fontsize=8)
