"""Learning from the model's own ARC programs, relabelled in hindsight.

Every program that runs is the right answer to the task that it computes. `collected` turns the programs that
a model wrote for a task into rows, with the outputs of each program for the shown inputs and for other views
of them. `lesson` turns a row, and its siblings for the same task, into what a version of the prompt teaches:
to write the program, to refine a sibling into it, to give its output, or to tell its output from a sibling's.
Such rows hold what a task shows and nothing about its tests."""

from collections import defaultdict

from files import COUNT, TEXT, check_fields, either, list_of, map_of, one_of
from games.arc.files import GRID, PAIRS, answers, checked_task, distinct
from games.arc.grids import VIEWS, Frame
from games.arc.judging import memorised
from games.rows import read_rows
from terminal import UsageError

# The fields of a row from a file; null stands for a view on which the program failed.
PROGRAM = {
    "id": TEXT,
    "source": TEXT,
    "verdict": TEXT,
    "right": COUNT,
    "views": list_of(either(one_of(None), PAIRS), 1),
}
WRONG = {"id": TEXT, "task": map_of(PAIRS), "wrong": list_of(GRID, 1)}
INPUTS = 4  # sets of inputs that each program runs on: the shown inputs, and three other views of them
KEPT = 25  # so many of the best programs of a task, by right shown pairs, and of the worst (arXiv 2507.14172)


# ------------------------------------------------------------------------------------------------ collecting
def collected(task, record):
    """The rows from the replies to one example. Replies that teach nothing are counted in task.dropped.

    The row of a program: {"id", "source", "verdict", "right": number of right shown pairs, "views": for each
    view of the inputs a list of pairs with the program's own confirmed outputs, or None}. The row of wrong
    grids, which needs the test's output: {"id", "task", "wrong": grids}."""
    if task.versions[0].asks != "code":
        return wrong_answers(task, record)
    replies = {}
    for reply in record["replies"]:
        if reply["source"] in replies:
            task.dropped["programs written twice"] += 1
        elif reply["verdict"] not in ("accepted", "wrong"):
            task.dropped[f"programs: {reply['verdict']}"] += 1
        else:
            replies[reply["source"]] = reply

    views = [record["train"]]
    for j in range(1, INPUTS):
        frame = Frame.draw(record, task.rng_of(record, 11, j), j % VIEWS)
        views.append(frame.task(record)["train"])

    rows = {}  # text of the relabelled views -> row: a program that computes the same makes no other row
    for source, outputs in confirm(task.runner, replies, views):
        reply = replies[source]
        relabelled = list(map(relabel, views, outputs))
        key = str(relabelled)
        if not any(relabelled):
            task.dropped["programs without an effect, with one output for all inputs, or unstable"] += 1
        elif key in rows:
            task.dropped["programs that compute the same as another"] += 1
        elif any(memorised(source, pairs) for pairs in relabelled if pairs):
            task.dropped["programs: memorised"] += 1
        else:
            rows[key] = {
                "id": record["id"],
                "source": source,
                "verdict": reply["verdict"],
                "right": reply["right"],
                "views": relabelled,
            }
    return list(rows.values())


def confirm(runner, sources, views):
    """Yield (program, its outputs for each view, or None where it gives no grids; none for an unstable one).
    A row is learned from, so these come from `Sandbox.confirm`: beside other programs, an output can be
    another program's doing."""
    together = sum(views, [])
    size = len(views[0])  # all views have as many pairs
    results = runner.outputs([(source, together) for source in sources], "confirm")
    for source, (kind, _, grids) in zip(sources, results):
        if grids:
            outputs = [grids[i : i + size] for i in range(0, len(together), size)]
        else:  # it may fail for one view only; an unstable program could be stable for one by luck
            apart = [(source, view) for view in views if kind != "unstable"]
            outputs = [grids for _, _, grids in runner.outputs(apart, "confirm")]
        yield source, outputs


def relabel(pairs, grids):
    """The pairs with a program's own outputs. None if there are no outputs, if all of them are equal, or if
    each equals its input: these teach nothing."""
    if grids is None or len(grids) > 1 and all(grid == grids[0] for grid in grids):
        return None
    pairs = [{"input": pair["input"], "output": grid} for pair, grid in zip(pairs, grids)]
    return pairs if any(pair["input"] != pair["output"] for pair in pairs) else None


def wrong_answers(task, record):
    """A row for each test with wrong answers. Raises UsageError if the output of a test is not known."""
    rows = []
    for test, pair in enumerate(record["test"]):
        if task.options.collect_from != "train" or "output" not in pair:
            raise UsageError(
                "--collect-from: wrong grids need training tasks with the outputs of their tests, and "
                f"{record['id']} is none; versions of the prompt that ask for programs do not need them"
            )
        wrong = [grid for grid in distinct(answers(record, test)) if grid != pair["output"]]
        if wrong:
            shown = {"train": record["train"], "test": [pair]}
            rows.append({"id": record["id"], "task": shown, "wrong": wrong})
        else:
            task.dropped["tests without a wrong answer"] += 1
    return rows


def read(task, paths):
    """The examples from files of rows: the rows of each task together, as `choose` takes them. Raises
    ValueError naming file and line."""
    groups = defaultdict(list)  # id of a task -> its rows, from all files
    for path in paths:
        for where, row in read_rows(path):
            kinds = PROGRAM if "source" in row else WRONG
            check_fields(where, row, kinds, kinds)
            if "task" in kinds:
                checked_task(row["task"], where)
            groups[row["id"], "source" in row].append({name: row[name] for name in kinds})
    examples = []
    for rows in groups.values():
        examples += choose(task, rows)
    return examples


def choose(task, rows):
    """The rows of one task to learn from, each with the others as its "siblings".

    Equal rows are taken once. Of the programs, the KEPT that give most of the shown pairs and the KEPT that
    give fewest are taken; rows of wrong grids are all taken. "knows" is the name of the task in
    trained.json: its id alone if a row holds a test's output, else with "shown:" before it."""
    # Programs differ by their text, other rows by their wrong grids.
    different = {str(row.get("source", row.get("wrong"))): row for row in rows}
    ranking = sorted(different.values(), key=lambda row: -row.get("right", 0))
    between = len(ranking) - 2 * KEPT
    if between > 0 and "source" in ranking[0]:
        task.dropped["programs between the best and the worst of their task"] += between
        ranking = ranking[:KEPT] + ranking[-KEPT:]
    examples = []
    for row in ranking:
        knows = ("shown:" if "source" in row else "") + str(row["id"])
        examples.append({**row, "siblings": ranking, "knows": knows})
    return examples


# ------------------------------------------------------------------------------------------------ teaching
def items(task, row, rng):
    """The Chats of a random version of the prompt, among those that the row can teach."""
    for i in rng.permutation(len(task.versions)):
        version = task.versions[i]
        content = lesson(row, version, rng)
        if content:
            return task.chats(version, *content, rng)
    raise UsageError(
        f"--prompt-version: no version learns from a row of {row['id']}, which has {sorted(row)}"
    )


def lesson(row, version, rng):
    """(task, rival) for a version of the prompt to teach from a row; None if the row teaches it nothing.

    task: a random view of the row, whose last pair is the test; rival: another answer to it, {"source",
    "outputs" for all pairs}, or None."""
    if "wrong" in row:
        if not version.test or version.asks == "code":
            return None
        frame = Frame.draw(row["task"], rng)  # the task has the truth, the rival is one of the wrong grids
        wrong = row["wrong"][rng.integers(len(row["wrong"]))]
        return frame.task(row["task"]), {"outputs": [frame.grid(wrong)]}

    views = [view for view, pairs in enumerate(row["views"]) if pairs]
    if not views:
        return None
    view = views[rng.integers(len(views))]
    pairs = row["views"][view]
    rival = None
    # Siblings with other outputs: not the row itself, nor a program that ran on other views only.
    others = []
    for other in row["siblings"]:
        for theirs in other["views"][view : view + 1]:  # a row from a file may have fewer views
            if theirs and theirs != pairs and len(theirs) == len(pairs):
                others.append((other, theirs))
    if others:
        other, theirs = others[rng.integers(len(others))]
        # The test must be a pair for which the two programs differ: a rival's answer to it is wrong.
        differing = [i for i, pair in enumerate(pairs) if pair != theirs[i]]
        last = differing[rng.integers(len(differing))]
        to_end = lambda values: [*values[:last], *values[last + 1 :], values[last]]
        pairs = to_end(pairs)
        outputs = [pair["output"] for pair in to_end(theirs)]
        rival = {"source": other["source"], "outputs": outputs}
    elif version.needs_rival:
        return None

    # A version that shows a test input must not show its output as well.
    shown = pairs[:-1] if version.test else pairs
    if not shown:
        return None
    return {"train": shown, "test": pairs[-1:], "source": row["source"]}, rival


def lessons(task, examples, records):
    """The examples for test-time training; none of them holds the output of a test.

    A prompt that asks for a grid learns from the shown pairs, each in turn as the test of the others; one
    that asks for a program learns from the programs of the records."""
    if task.versions[0].asks == "output":
        return [{"id": example["id"], "train": example["train"], "test": []} for example in examples]
    rows = []
    for record in records:
        rows += choose(task, task.collected(record))
    return rows
