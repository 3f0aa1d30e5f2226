"""ARC, learning from its own programs: relabelled in hindsight.

Every program that runs is the right answer of the task that it computes. `collected` makes rows of what a
model wrote for a task, with the outputs that each program gives for the shown inputs and for other views of
them; `lesson` makes of a row, and of its siblings for the same task, what a version of the prompt teaches: to
write the program, to refine a sibling into it, to give its output, to tell that from a sibling's. Such rows
know of a task what it shows, and nothing of its tests."""

from games.arc.files import answers, distinct
from games.arc.grids import VIEWS, Frame, legal
from games.arc.judging import memorised
from games.rows import read_rows
from terminal import UsageError

INPUTS = 4  # the shown inputs as they are, and in so many views less one, to run programs on
KEPT = 25  # best programs of a task to learn from, by shown pairs that they give, and as many worst (SOAR,
# arXiv 2507.14172)


# ------------------------------------------------------------------------------------------------ collecting
def collected(task, record):
    """Rows of what the replies to one example teach; what teaches nothing is counted by reason.

    Of programs: {"id", "source", "verdict", "right": shown pairs that it gives, "views": for each of several
    views of the inputs a list of pairs with the program's own outputs, or None}. Of grids, which need the
    test's output: {"id", "task", "wrong": grids}."""
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
    frames = [Frame.draw(record, task.rng_of(record, 11, j), j % VIEWS) for j in range(1, INPUTS)]
    views = [frame.task(record)["train"] for frame in [Frame(), *frames]]
    outputs = iter(task.runner.outputs([(source, view) for source in replies for view in views]))
    rows = {}
    for source, reply in replies.items():
        told = [relabelled(view, grids) for view, (_, _, grids) in zip(views, outputs)]
        if not any(told):
            task.dropped["programs that change nothing, or all into one"] += 1
        elif str(told) in rows:
            task.dropped["programs that compute what another does"] += 1
        elif any(memorised(source, pairs) for pairs in told if pairs):
            task.dropped["programs: memorised"] += 1
        else:
            about = {name: reply[name] for name in ("source", "verdict", "right")}
            rows[str(told)] = {"id": record["id"], **about, "views": told}
    return list(rows.values())


def relabelled(pairs, grids):
    """The pairs with a program's own outputs; None where there are none, or nothing to learn from them."""
    if grids is None or len(grids) > 1 and all(grid == grids[0] for grid in grids):
        return None
    changed = [{"input": pair["input"], "output": grid} for pair, grid in zip(pairs, grids)]
    return changed if any(pair["input"] != pair["output"] for pair in changed) else None


def wrong_answers(task, record):
    """A row for each test whose output is known and to which there are wrong grids."""
    rows = []
    for test, pair in enumerate(record["test"]):
        if task.options.collect_from != "train" or "output" not in pair:
            raise UsageError(
                f"--collect-from: wrong grids need the outputs of the tests, and {record['id']} is not to "
                "train on; programs need none"
            )
        wrong = [grid for grid in distinct(answers(record, test)) if grid != pair["output"]]
        if wrong:
            about = {"train": record["train"], "test": [pair]}
            rows.append({"id": record["id"], "task": about, "wrong": wrong})
        else:
            task.dropped["tests without a wrong answer"] += 1
    return rows


def read(task, paths):
    """The examples that files of rows make, those of one task together and chosen. Raises ValueError naming
    file and line."""
    groups = {}
    for path in paths:
        for where, row in read_rows(path):
            try:
                views = row["views"] if "source" in row else [row["task"]["train"] + row["task"]["test"]]
                grids = [grid for pairs in views if pairs for pair in pairs for grid in pair.values()]
                if not all(map(legal, [*grids, *row.get("wrong", [])])) or not grids:
                    raise ValueError("no grids")
                groups.setdefault(str(row["id"]), []).append(row)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise ValueError(f"{where}: not a row that collect wrote ({error!r})") from error
    return [row for rows in groups.values() for row in choose(task, rows)]


def choose(task, rows):
    """Of the programs for one task, equal ones once, those that give most of the shown pairs and those that
    give fewest; each knows the others. Other rows are all taken. "knows": how trained.json calls the task of
    a row, by its name alone where a test's output was learned from."""
    different = {str(row.get("source", row.get("wrong"))): row for row in rows}
    order = sorted(different.values(), key=lambda row: -row.get("right", 0))
    between = len(order) - 2 * KEPT
    if between > 0 and "source" in order[0]:
        task.dropped["programs between the best and the worst of their task"] += between
        order = order[:KEPT] + order[-KEPT:]
    shown = lambda row: "shown:" if "source" in row else ""
    return [{**row, "siblings": order, "knows": f"{shown(row)}{row['id']}"} for row in order]


# ------------------------------------------------------------------------------------------------ teaching
def items(task, row, rng):
    """The Chats of one version of the prompt, of those for which the row is good."""
    for i in rng.permutation(len(task.versions)):
        taught = lesson(row, task.versions[i], rng)
        if taught:
            return task.taught(task.versions[i], *taught, rng)
    raise UsageError(f"--prompt-version: no version learns from a row of {row['id']}, as from {sorted(row)}")


def lesson(row, version, rng):
    """(task, rival) that a row teaches in a version of the prompt: a view of its task, the last pair its
    test, and what else was answered, {"source", "outputs" for all pairs}; None where it teaches nothing."""
    if "wrong" in row:
        if not version.test or version.asks == "code":
            return None
        frame = Frame.draw(row["task"], rng)
        wrong = row["wrong"][rng.integers(len(row["wrong"]))]
        return frame.task(row["task"]), {"outputs": [frame.grid(wrong)]}
    places = [place for place, pairs in enumerate(row["views"]) if pairs]
    place = places[rng.integers(len(places))]
    pairs, rival = row["views"][place], None
    others = [other for other in row["siblings"] if other["views"][place] not in (None, pairs)]
    if others:
        other = others[rng.integers(len(others))]
        theirs = other["views"][place]
        differ = [i for i, pair in enumerate(pairs) if pair != theirs[i]]
        last = differ[rng.integers(len(differ))]
        to_end = lambda some: [*some[:last], *some[last + 1 :], some[last]]
        pairs = to_end(pairs)
        rival = {"source": other["source"], "outputs": [pair["output"] for pair in to_end(theirs)]}
    elif version.needs_rival:
        return None
    shown = pairs[:-1] if version.test else pairs
    return ({"train": shown, "test": pairs[-1:], "source": row["source"]}, rival) if shown else None


def lessons(task, examples, records):
    """What test-time training learns from: of prompts for a grid the shown pairs, each as the test of the
    others; of prompts for a program the programs of the records. The outputs of the tests are not in it."""
    if task.versions[0].asks == "output":
        return [{"id": example["id"], "train": example["train"], "test": []} for example in examples]
    return [row for record in records for row in choose(task, task.collected(record))]
