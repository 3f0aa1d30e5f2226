"""ARC's files: tasks in, predictions and submissions out.

Tasks are read in three layouts: Kaggle's challenges file, with its solutions file beside it where there is
one; one file of several sets, {"train": {id: task}, "eval": {id: task}}; a folder with a file ID.json for
each task, or with one of the above. A task is {"train": [{"input", "output"}], "test": [{"input"}]}, with
"output" in the tests where it is known."""

from pathlib import Path

from files import read_json
from games.arc.grids import legal, vote

SETS = {"train": ("train", "training"), "test": ("eval", "evaluation", "test")}  # split -> how files name it


# ------------------------------------------------------------------------------------------------ tasks
def read_tasks(source, split):
    """{id: task} of a source, FILE:SET for one set of several; `split` says which set where none is named.
    Raises ValueError or FileNotFoundError naming file, task and pair."""
    name, _, part = (str(source), "", "") if Path(source).exists() else str(source).rpartition(":")
    path = Path(name or source)
    if path.is_dir():
        return read_folder(path, split)
    if not path.is_file():
        raise FileNotFoundError(f"{source}: no such file or folder of tasks")
    tasks = read_object(path)
    words = SETS["train"] + SETS["test"]
    sets = [word for word in words if isinstance(tasks.get(word), dict) and "train" not in tasks[word]]
    if sets or part:
        wanted = [word for word in ([part] if part else SETS[split]) if word in sets]
        if not wanted:
            raise ValueError(f"{path}: no set {part or split!r}; it has {', '.join(sets) or 'one only'}")
        tasks = tasks[wanted[0]]
    tasks = {key: checked_task(task, f"{path}, task {key}") for key, task in tasks.items()}
    solutions = path.with_name(path.name.replace("challenges", "solutions"))
    if solutions != path and solutions.exists():
        return with_solutions(tasks, solutions)
    return tasks


def read_folder(folder, split):
    """The tasks of a folder: those of the set's own folder or file in it, or a task a file."""
    for word in SETS[split]:
        if (folder / word).is_dir():
            return read_tasks(folder / word, split)
    files = [file for file in sorted(folder.glob("*.json")) if "solutions" not in file.name]
    if not files:
        raise FileNotFoundError(f"{folder}: no .json file in this folder")
    sets = [file for file in files if {*SETS[split]}.intersection(file.stem.split("_"))]
    if sets or len(files) == 1:
        return read_tasks((sets or files)[0], split)
    return {file.stem: checked_task(read_json(file), file) for file in files}


def with_solutions(tasks, path):
    """The tasks with the outputs of their tests, from a file {id: [grid of each test]}."""
    for key, grids in read_object(path).items():
        if key not in tasks or not isinstance(grids, list) or len(tasks[key]["test"]) != len(grids):
            raise ValueError(f"{path}: task {key} is not one of the challenges")
        for pair, grid in zip(tasks[key]["test"], grids):
            pair["output"] = grid
    return {key: checked_task(task, f"{path}, task {key}") for key, task in tasks.items()}


def read_object(path):
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected an object, found {type(value).__name__}")
    return value


def checked_task(task, where):
    """The task with its pairs and nothing else. Raises ValueError where it is none."""
    checked = {"train": [], "test": []}
    for part, kept in checked.items():
        pairs = task.get(part) if isinstance(task, dict) else None
        if not isinstance(pairs, list) or not pairs:
            raise ValueError(f"{where}: {part!r} must be a list of pairs")
        for i, pair in enumerate(pairs):
            given = pair if isinstance(pair, dict) else {}
            needed = ("input",) if part == "test" and "output" not in given else ("input", "output")
            for side in needed:
                if not legal(given.get(side)):
                    what = "must be rows of equal length, 1 to 30, of 0 to 9"
                    raise ValueError(f"{where}, {part} pair {i}: {side!r} {what}")
            kept.append({side: given[side] for side in needed})
    return checked


# ------------------------------------------------------------------------------------------------ answers
# of records, {"id", "train", "test", "replies": [{"test": its number or None for all,
# "answers": None or [grid or None of each test], "logp", "tokens", ...}]} (games.arc.task.Arc.attempt)
def answer(reply, test):
    """The grid that a reply gives for a test, [] for none."""
    return (reply["answers"][test] if reply["answers"] else None) or []


def replies_to(record, test):
    return [reply for reply in record["replies"] if reply["test"] in (None, test)]


def answers(record, test):
    """The grids, or [], of the replies to a test."""
    return [answer(reply, test) for reply in replies_to(record, test)]


def ranked(record, test, order=()):
    """The two answers to a test that have most votes; `order` breaks ties."""
    logps = [reply["logp"] / max(1, reply["tokens"]) for reply in replies_to(record, test)]
    return vote(answers(record, test), logps, order)[:2]


def best_answer(record, test):
    """The answer to a test that has most votes, or None."""
    return next(iter(ranked(record, test)), None)


def tests_of(task):
    return range(len(task["test"]))


def predictions(records):
    """{id: [{"attempt_1": grid, ...} for each test]}; an empty list is no answer."""
    found = {}
    for record in records:
        found[record["id"]] = [attempts(answers(record, test)) for test in tests_of(record)]
    return found


def attempts(grids):
    return {f"attempt_{k}": grid for k, grid in enumerate(grids, 1)}


def task_results(records):
    """A row of each reply and test: what was made in which frame, and how likely it was."""
    return [
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
        for record in records
        for reply in record["replies"]
        for test in tests_of(record)
        if reply["test"] in (None, test)
    ]


# ------------------------------------------------------------------------------------------------ submissions
def submission(records):
    """{id: [{"attempt_1", "attempt_2"} for each test]}: the two best of the vote, [] where there is none."""
    found = {}
    for record in records:
        orders = record.get("order") or [()] * len(record["test"])
        found[record["id"]] = [two(ranked(record, test, order)) for test, order in enumerate(orders)]
    return found


def combine(groups, tasks):
    """The submission that predictions, or submissions, make together, a list of groups of them: the attempts
    of a group vote as those of one, and what it leaves open is filled by the next."""
    found = {}
    for key, task in tasks.items():
        found[key] = []
        for test in tests_of(task):
            best = []
            for parts in groups:
                best += vote([grid for part in parts for grid in part[key][test].values()])
            found[key].append(two(distinct(best)))
    return found


def two(grids):
    return attempts([*grids, [], []][:2])


def read_predictions(path, tasks):
    """The predictions in a file, every task and test with its attempts, however many. ValueError says what is
    not so."""
    found = read_object(path)
    missing, unknown = tasks.keys() - found.keys(), found.keys() - tasks.keys()
    if missing or unknown:
        what = f"{len(missing)} tasks are missing" if missing else f"{len(unknown)} tasks are not in the data"
        raise ValueError(f"{path}: {what}, {min(missing or unknown)} among them")
    for key, tests in found.items():
        if not isinstance(tests, list) or len(tests) != len(tasks[key]["test"]):
            raise ValueError(f"{path}, task {key}: must be a list of {len(tasks[key]['test'])} tests")
        for t, attempts in enumerate(tests):
            if not isinstance(attempts, dict):
                raise ValueError(f"{path}, task {key}, test {t}: must be attempts by name")
            for name, grid in attempts.items():
                if grid != [] and not legal(grid):
                    raise ValueError(f"{path}, task {key}, test {t}: {name} is neither a grid nor []")
    return found


def distinct(grids):
    """The different grids, in order; [] is none."""
    return list({str(grid): grid for grid in grids if grid}.values())
