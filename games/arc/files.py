"""ARC's files: tasks in, predictions and submissions out.

Tasks are read in three layouts: Kaggle's challenges file, with its solutions file beside it where there is
one; one file of several sets, {"train": {id: task}, "eval": {id: task}}; a folder with a file ID.json for
each task, or with one of the above. A task is {"train": [{"input", "output"}], "test": [{"input"}]}, with
"output" in the tests where it is known."""

import json
from pathlib import Path

from games.arc.grids import legal, vote

SETS = {"train": ("train", "training"), "test": ("eval", "evaluation", "test")}  # split -> how files name it


def read_tasks(source, split):
    """{id: task} of a source, FILE:SET for one set of several; `split` says which set where none is named.
    Raises ValueError or FileNotFoundError naming file, task and pair."""
    name, _, part = (str(source), "", "") if Path(source).exists() else str(source).rpartition(":")
    path = Path(name or source)
    if path.is_dir():
        inside = [path / word for word in SETS[split] if (path / word).is_dir()]
        if inside:
            return read_tasks(inside[0], split)
        files = [file for file in sorted(path.glob("*.json")) if "solutions" not in file.name]
        if not files:
            raise FileNotFoundError(f"{path}: no .json file in this folder")
        sets = [file for file in files if any(word in file.stem.split("_") for word in SETS[split])]
        if sets or len(files) == 1:
            return read_tasks((sets or files)[0], split)
        return {file.stem: checked(loaded(file), f"{file}") for file in files}
    if not path.is_file():
        raise FileNotFoundError(f"{source}: no such file or folder of tasks")
    found = loaded(path)
    words = [word for word in SETS["train"] + SETS["test"] if isinstance(found.get(word), dict)]
    inside = [word for word in found if word in words and "train" not in found[word]]
    if inside:
        wanted = [part] if part else [word for word in SETS[split] if word in inside]
        if not wanted or wanted[0] not in inside:
            raise ValueError(f"{path}: no set {part or split!r}; it has {', '.join(inside)}")
        found, part = found[wanted[0]], ""
    if part:
        raise ValueError(f"{path}: one set only, so no {part!r}")
    tasks = {key: checked(task, f"{path}, task {key}") for key, task in found.items()}
    solutions = path.with_name(path.name.replace("challenges", "solutions"))
    if solutions == path or not solutions.exists():
        return tasks
    for key, grids in loaded(solutions).items():
        if key not in tasks or not isinstance(grids, list) or len(tasks[key]["test"]) != len(grids):
            raise ValueError(f"{solutions}: task {key} is not the one in {path.name}")
        for pair, grid in zip(tasks[key]["test"], grids):
            pair["output"] = grid
    return {key: checked(task, f"{solutions}, task {key}") for key, task in tasks.items()}


def loaded(path):
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object, found {type(found).__name__}")
    return found


def checked(task, where):
    """The task, if it is one."""
    for part, sides in (("train", ("input", "output")), ("test", ("input",))):
        pairs = task.get(part) if isinstance(task, dict) else None
        if not isinstance(pairs, list) or not pairs:
            raise ValueError(f"{where}: {part!r} must be a list of pairs")
        for i, pair in enumerate(pairs):
            for side in ("input", "output"):
                if (side in sides and side not in pair) or (side in pair and not legal(pair[side])):
                    raise ValueError(
                        f"{where}, {part} pair {i}: {side!r} must be rows of equal length, 1 to 30, of 0 to 9"
                    )
    return {part: [{k: p[k] for k in ("input", "output") if k in p} for p in task[part]] for part in SETS}


# ------------------------------------------------------------------------------------------------ answers
# of records, {"id", "train", "test", "replies": [{"test": its number or None for all,
# "answers": None or [grid or None of each test], "logp", "tokens", ...}]} (games.arc.task.Arc.attempt)
def attempts(record, test):
    """[(grid or [], (log-probability, tokens))] of the replies for a test."""
    return [
        ((reply["answers"] or {test: None})[test] or [], (reply["logp"], reply["tokens"]))
        for reply in record["replies"]
        if reply["test"] in (None, test)
    ]


def predictions(records):
    """{id: [{"attempt_1": grid, ...} for each test]}; an empty list is no answer."""
    return {
        record["id"]: [
            {f"attempt_{k}": grid for k, (grid, _) in enumerate(attempts(record, test), 1)}
            for test in range(len(record["test"]))
        ]
        for record in records
    }


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
            "grid": (reply["answers"] or {test: None})[test] or [],
            "cumulative_logprob": reply["logp"],
            "n_tokens": reply["tokens"],
        }
        for record in records
        for reply in record["replies"]
        for test in (range(len(record["test"])) if reply["test"] is None else (reply["test"],))
    ]


def submission(records, weighted=False):
    """{id: [{"attempt_1", "attempt_2"} for each test]}: the two best of the vote, [] where there is none."""
    found = {}
    for record in records:
        found[record["id"]] = []
        for test in range(len(record["test"])):
            grids, logps = zip(*attempts(record, test))
            order = record["order"][test] if "order" in record else ()
            found[record["id"]].append(two(vote(grids, 2, logps, weighted, order)))
    return found


def as_submission(found):
    """A submission of predictions with any number of attempts; one of a submission is itself."""
    return {
        key: [two(vote(list(test.values()), 2)) if isinstance(test, dict) else test for test in tests]
        if isinstance(tests, list)
        else tests
        for key, tests in found.items()
    }


def pooled(paths, tasks):
    """The submission that files of predictions, or of submissions, make together: their attempts vote as
    those of one. Each is checked against the tasks."""
    files = {path: loaded(path) for path in paths}
    for path, part in files.items():
        check_submission(as_submission(part), tasks, path)
    together = {}
    for key, tests in tasks.items():
        votes = [
            [grid for part in files.values() for grid in part[key][t].values()]
            for t in range(len(tests["test"]))
        ]
        together[key] = [dict(enumerate(grids)) for grids in votes]
    return as_submission(together)


def two(grids):
    return {f"attempt_{k}": grids[k - 1] if k <= len(grids) else [] for k in (1, 2)}


def check_submission(found, tasks, where):
    """The submission, in which every task and test must have its two attempts. ValueError says what is not
    so."""
    missing, unknown = tasks.keys() - found.keys(), found.keys() - tasks.keys()
    if missing or unknown:
        what = f"{len(missing)} tasks are missing" if missing else f"{len(unknown)} tasks are not in the data"
        raise ValueError(f"{where}: {what}, {min(missing or unknown)} among them")
    for key, tests in found.items():
        if not isinstance(tests, list) or len(tests) != len(tasks[key]["test"]):
            raise ValueError(f"{where}, task {key}: must be a list of {len(tasks[key]['test'])} tests")
        for t, attempts in enumerate(tests):
            if not isinstance(attempts, dict) or set(attempts) != {"attempt_1", "attempt_2"}:
                raise ValueError(f"{where}, task {key}, test {t}: must have attempt_1 and attempt_2, no more")
            for name, grid in attempts.items():
                if grid != [] and not legal(grid):
                    raise ValueError(f"{where}, task {key}, test {t}: {name} is neither a grid nor []")
    return found


def combine(ours, other):
    """Two submissions in one: our attempts first, then what the other answers and we do not."""
    return {
        key: [
            two(distinct([*mine.values(), *theirs.values()])) for mine, theirs in zip(ours[key], other[key])
        ]
        for key in ours
    }


def distinct(grids):
    found = []
    for grid in grids:
        if grid and grid not in found:
            found.append(grid)
    return found
