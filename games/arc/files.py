"""ARC's files: tasks in, predictions and submissions out.

Tasks are read in four layouts: Kaggle's challenges file, with its solutions file beside it if there is one;
one file of several sets, {"train": {id: task}, "eval": {id: task}}; the file ID.json of one task, as in the
ARC repository; a folder with such a file for each task, or with one of the files above. A task is {"train":
[{"input", "output"}], "test": [{"input"}]}, with "output" in the tests where it is known and not null. A cell
may be written 1.0 for 1, as data sets that were made with numpy have it."""

import itertools
import math
from pathlib import Path

from files import OBJECT, Kind, check_fields, either, list_of, map_of, one_of, read_text
from games.arc.grids import integers, legal, vote
from games.rows import LARGEST_LIST, parse_json

GRID = Kind("rows of equal length, 1 to 30, of integers from 0 to 9", legal)
BOTH = {"input", "output"}
PREDICTED = list_of(map_of(either(one_of([]), GRID)))  # of a task: for each test its attempts by name


def pairs_of(*sides):
    """The Kind of a list of pairs, each with one of these sets of sides."""
    fits = lambda x: map_of(GRID).fits(x) and x.keys() in sides
    return list_of(Kind(f"an object of input and output, {GRID.name}", fits), 1)


PAIRS = pairs_of(BOTH)
TASK = {"train": PAIRS, "test": pairs_of(BOTH, {"input"})}  # as in Kaggle's challenges
LISTS = dict.fromkeys(TASK, list_of(OBJECT, 1))  # what TASK's parts are before their grids are read
# split -> names that files give it
SETS = {"train": ("train", "training"), "test": ("eval", "evaluation", "test")}


# ------------------------------------------------------------------------------------------------ tasks
def read_tasks(source, split):
    """{id: task} of a source. FILE:SET names one set of several; without a name, `split` chooses it. Raises
    ValueError or FileNotFoundError naming file and task."""
    path = Path(source)
    part = ""
    if not path.exists() and ":" in str(source):  # the name of a file may hold a colon too
        name, _, part = str(source).rpartition(":")
        path = Path(name or source)
    if path.is_dir():
        return read_folder(path, split)
    tasks = read_object(path)
    if not part and all(type(tasks.get(name)) is list for name in TASK):
        return {path.stem: checked_task(tasks, path)}

    # A set is an object of tasks. An object that has "train" itself is a task, whose id is one of the words.
    words = SETS["train"] + SETS["test"]
    sets = [word for word in words if isinstance(tasks.get(word), dict) and "train" not in tasks[word]]
    if sets or part:
        words = [part] if part else SETS[split]
        wanted = [word for word in words if word in sets]
        if not wanted:
            raise ValueError(f"{path}: no set {part or split!r}; it has {', '.join(sets) or 'one set only'}")
        tasks = tasks[wanted[0]]

    tasks = checked_tasks(tasks, path)
    # Kaggle: arc-agi_evaluation_challenges.json, arc-agi_evaluation_solutions.json
    solutions = path.with_name(path.name.replace("challenges", "solutions"))
    if solutions != path and solutions.exists():
        return with_solutions(tasks, solutions)
    return tasks


def read_folder(folder, split):
    """The tasks of a folder: from the set's folder or file in it, else from one file for each task."""
    for word in SETS[split]:
        if (folder / word).is_dir():  # as in the ARC repository: data/training, data/evaluation
            return read_tasks(folder / word, split)
    files = [file for file in sorted(folder.glob("*.json")) if "solutions" not in file.name]
    if not files:
        raise FileNotFoundError(f"{folder}: no .json file in this folder")
    # A file of the set by its name, or the only file; else each file is a task.
    sets = [file for file in files if {*SETS[split]}.intersection(file.stem.split("_"))]
    if sets or len(files) == 1:
        return read_tasks((sets or files)[0], split)
    return {file.stem: checked_task(read_object(file), file) for file in files}


def with_solutions(tasks, path):
    """The tasks with the outputs of their tests, from a file {id: [grid of each test]}."""
    for key, grids in read_object(path).items():
        if key not in tasks or not isinstance(grids, list) or len(tasks[key]["test"]) != len(grids):
            raise ValueError(f"{path}: task {key} needs one grid for each of its tests in the challenges")
        for pair, grid in zip(tasks[key]["test"], grids):
            pair["output"] = grid
    return checked_tasks(tasks, path)


def read_object(path):
    return check_fields(path, parse_json(read_text(path, LARGEST_LIST), path), {})


def checked_tasks(tasks, path):
    if not tasks:
        raise ValueError(f"{path}: holds no tasks")
    return {key: checked_task(task, f"{path}, task {key}") for key, task in tasks.items()}


def checked_task(task, where):
    """The task with its pairs and nothing else. Raises ValueError if it is not a task."""
    check_fields(where, task, LISTS, LISTS)
    parts = {}
    for part in TASK:
        places = [f"{where}: {part} pair {number}" for number in range(1, len(task[part]) + 1)]
        parts[part] = [*map(read_pair, task[part], places)]
    for pair in parts["test"]:
        if "output" in pair and pair["output"] is None:  # not known
            del pair["output"]
    return check_fields(where, parts, TASK, TASK)


def read_pair(pair, where):
    """The pair with integers as cells. Raises ValueError that names a cell which is no whole number."""
    sides = {}
    for side, grid in pair.items():
        try:
            sides[side] = integers(grid)
        except ValueError as error:
            raise ValueError(f"{where}, {side}, {error}") from error
    return sides


# ------------------------------------------------------------------------------------------------ answers
# From records, as Arc.attempt makes them: {"id", "train", "test", "replies": [{"test": the index of its test,
# or None for all tests, "answers": None or [a grid or None for each test], "logp", "tokens", ...}], and with
# --search "search": {"found": [{"steps", "answers", "tried", ...}], ...}}
def answer(reply, test):
    """A reply's grid for a test, or []."""
    return (reply["answers"][test] if reply["answers"] else None) or []


def replies_to(record, test):
    return [reply for reply in record["replies"] if reply["test"] in (None, test)]


def answers(record, test):
    """The grids, or [], of the replies to a test."""
    return [answer(reply, test) for reply in replies_to(record, test)]


def searched(record, test, tried=math.inf):
    """The different answers of the programs that search found among the first `tried`: those of the shortest
    programs first, which vote."""
    lengths = {}
    for program in record.get("search", {}).get("found", ()):
        if program["tried"] <= tried:
            lengths.setdefault(len(program["steps"]), []).append(program["answers"][test])
    return distinct(itertools.chain(*[vote(lengths[length]) for length in sorted(lengths)]))


def ranked(record, test, order=()):
    """The two best answers to a test. Those of search come first, shorter programs before longer ones: their
    steps were made for such tasks. The rest goes by the votes of the replies."""
    return distinct([*searched(record, test), *voted(record, test, order)])[:2]


def voted(record, test, order=()):
    """The different answers of the replies to a test by their votes; `order` breaks ties."""
    # By token, because the log-probability of a reply falls with its length.
    logps = [reply["logp"] / max(1, reply["tokens"]) for reply in replies_to(record, test)]
    return vote(answers(record, test), logps, order)


def best_answer(record, test):
    """The answer to a test that has most votes, or None."""
    return next(iter(ranked(record, test)), None)


def tests_of(task):
    return range(len(task["test"]))


def predictions(records):
    """{id: [{"search_1": grid, ..., "attempt_1": grid, ...} for each test]}; an empty list is no answer.

    The answers of search come before all votes. The attempts stand in the order of the vote, so that a later
    vote breaks its ties in the same way."""
    tests = {}
    for record in records:
        tests[record["id"]] = []
        for test, order in enumerate(orders_of(record)):
            best = [*voted(record, test, order), []]
            grids = sorted(answers(record, test), key=best.index)
            tests[record["id"]].append(named(searched(record, test), "search") | named(grids))
    return tests


def named(grids, name="attempt"):
    return {f"{name}_{k}": grid for k, grid in enumerate(grids, 1)}


def orders_of(record):
    """For each test the answers in the order of a judge, which is there with --ties only."""
    return record.get("order") or [()] * len(record["test"])


def task_results(records):
    """A row for each reply and test: what the model wrote in which frame, and how likely it was."""
    rows = []
    for record in records:
        for reply in record["replies"]:
            for test in tests_of(record) if reply["test"] is None else (reply["test"],):
                rows.append(
                    {
                        "task_id": record["id"],
                        "idx": test,
                        "data_augmentation": reply["frame"],
                        "response": reply["source"],
                        "verdict": reply["verdict"],
                        "message": reply["message"],
                        "grid": answer(reply, test),
                        "cumulative_logprob": reply["logp"],
                        "n_tokens": reply["tokens"],
                    }
                )
    return rows


# ------------------------------------------------------------------------------------------------ submissions
def submission(records):
    """{id: [{"attempt_1", "attempt_2"} for each test]}: the two best of the vote, [] where there is none."""
    tests = {}
    for record in records:
        orders = enumerate(orders_of(record))
        tests[record["id"]] = [two(ranked(record, test, order)) for test, order in orders]
    return tests


def combine(groups, tasks):
    """The submission made from groups of predictions or submissions. In a group the answers of search come
    first, then the attempts by their common vote; the next group fills what is left open."""
    combined = {}
    for key, task in tasks.items():
        combined[key] = []
        for test in tests_of(task):
            best = []
            for group in groups:
                found = []
                grids = []
                for prediction in group:
                    for name, grid in prediction[key][test].items():
                        (found if name.startswith("search_") else grids).append(grid)
                best += [*found, *vote(grids)]
            combined[key].append(two(distinct(best)))
    return combined


def two(grids):
    return named([*grids, [], []][:2])


def read_predictions(path, tasks):
    """The predictions in a file: every task and test with its attempts, however many. Raises ValueError
    naming what is wrong."""
    predicted = read_object(path)
    if unknown := predicted.keys() - tasks.keys():
        raise ValueError(f"{path}: {len(unknown)} tasks are not in the data, {min(unknown)} among them")
    for key, task in tasks.items():
        check_fields(f"{path}, task", predicted, {key: PREDICTED}, [key])
        if len(predicted[key]) != len(task["test"]):
            raise ValueError(f"{path}, task {key}: must be a list of {len(task['test'])} tests")
    return predicted


def distinct(grids):
    """The different grids in their order, without []."""
    return list({str(grid): grid for grid in grids if grid}.values())
