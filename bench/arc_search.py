"""What search for ARC programs solves, and what a model adds by programs that it writes: one table.

    python bench/arc_search.py --data TASKS.json:eval --out FOLDER [--run RUN --n 8]

With --n N the model of --run also writes N programs for each task, which run in the sandbox: the table has a
line for search, one for the replies, and one for both, where the replies vote behind what search finds. The
call goes on where it was stopped: FOLDER/records.jsonl gets a line for each task, and nothing about single
tasks is printed. FOLDER/predictions.json is for infer.py submit, FOLDER/submission.json is its result. --part
1/2 takes every second task by id from the second on, 0/2 the others."""

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import infer
from games.arc import files
from games.arc.figures import within
from games.arc.task import Arc, Options
from games.stats import wilson
from recipes import Infer, parse, take_from_run
from runs import read_values

SIZES = 1, 10, 100, 300, 1000, 3000, 10_000, 30_000, 100_000  # programs tried, for the curve


def open_task(args):
    """The task, and the model of --run or None."""
    flags = dict(data=args.data, search=args.programs, search_seconds=args.seconds)
    if not args.run:
        return Arc(Options(world="wide", **flags)), None
    sampling = ["--n", str(args.n), "--temperature", "1", "--max-new", "200", "--threads", "1"]
    cfg = parse(Infer, ["eval", "--task", "arc", "--run", args.run, *sampling])
    take_from_run(cfg, read_values(args.run))
    for name, value in flags.items():
        setattr(cfg.options, name, value)
    task = Arc(cfg.options, cfg.seed)
    point = infer.open_named(cfg, task)
    task.tests_for(0, point.trained_on)  # refuses tasks that the model was trained on
    return task, infer.agent_of(cfg, point, task)


def examples_of(task, part):
    examples = sorted(task.examples("test"), key=lambda example: example["id"])
    first, step = map(int, part.split("/"))
    return examples[first::step]


def run(args):
    """The records of all tasks. Those of FOLDER/records.jsonl are taken from there."""
    path = Path(args.out, "records.jsonl")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole, _, _ = text.rpartition("\n")  # a kill may leave a part of a line behind
    path.write_text(whole + "\n" * bool(whole), encoding="utf-8")
    done = {row["id"]: row for row in map(json.loads, whole.splitlines())}
    task, player = open_task(args)
    examples = examples_of(task, args.part)[: args.limit or None]
    records = []
    with path.open("a", encoding="utf-8") as file:
        for example in tqdm(examples, unit="task"):
            record = task.record(example)
            if saved := done.get(example["id"]):
                record |= saved
            else:
                if player and task.is_short(record):
                    task.add_replies(task.versions[0], task.questions([record], args.n), player)
                record["search"] = task.search(record)
                row = {name: record[name] for name in ("id", "replies", "search")}
                print(json.dumps(row), file=file, flush=True)
            records.append(record)
    return records


def only(records, part):
    """The records with what search found alone, or with the replies alone."""
    empty = {"replies": []} if part == "search" else {"search": {"found": [], "tried": 0, "seconds": 0.0}}
    return [record | empty for record in records]


def share(wins, n):
    low, high = wilson(wins, n)
    return f"{wins} ({wins / max(n, 1):.1%} [{100 * low:.1f}, {100 * high:.1f}])"


def row_of(arm, records):
    """The line of the first table for an arm. A task is right if all its tests are."""
    n = len(records)
    best = [[files.ranked(record, test) for test in files.tests_of(record)] for record in records]
    first = [within(record, grids, 1) for record, grids in zip(records, best)]
    second = [within(record, grids, 2) for record, grids in zip(records, best)]
    answered = sum(any(grids) for grids in best)
    tried = sum(record["search"]["tried"] for record in records)
    seconds = sum(record["search"]["seconds"] for record in records)
    cells = [arm, str(n), share(sum(first), n), share(sum(second), n)]
    cells += [f"{sum(first)} of {answered}", f"{n - answered}"]
    cells += [f"{tried / max(seconds, 1e-9):,.0f}", f"{seconds / max(n, 1):.1f}"]
    return " | ".join(cells)


def curve_of(records):
    """The tasks that search solves within two answers, by programs tried."""
    cells = []
    for size in SIZES:
        solved = 0
        for record in records:
            grids = [files.searched(record, test, size)[:2] for test in files.tests_of(record)]
            solved += within(record, grids, 2)
        cells.append(str(solved))
    return " | ".join(cells)


def sources_of(records):
    """{what stands behind a first answer: [first answers right, tasks] where all programs found agree, and
    the same where they differ}."""
    sources = {"a program of steps": [[0, 0], [0, 0]], "a table": [[0, 0], [0, 0]]}
    for record in records:
        if found := record["search"]["found"]:
            length = min(len(program["steps"]) for program in found)
            best = [program for program in found if len(program["steps"]) == length]
            name = "a table" if all("table" in program for program in best) else "a program of steps"
            differ = any(program["answers"] != found[0]["answers"] for program in found)
            grids = [files.searched(record, test) for test in files.tests_of(record)]
            count = sources[name][differ]
            count[0] += within(record, grids, 1)
            count[1] += 1
    return sources


def show(arms):
    """Print the tables in Markdown."""
    heads = "arm", "tasks", "solved, 1 answer", "2 answers", "first answers right", "unanswered"
    heads += "programs a second", "seconds a task"
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for arm, records in arms.items():
        print(f"| {row_of(arm, records)} |")
    heads = ["programs tried", *(f"{size:,}" for size in SIZES)]
    print("\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    print(f"| solved by search within two answers | {curve_of(arms['search'])} |")
    print("\n| first answers right, by | all programs agree | they differ |\n|---|---|---|")
    for name, counts in sources_of(arms["search"]).items():
        print(f"| {name} | " + " | ".join(f"{right} of {n}" for right, n in counts) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="tasks, as infer.py eval takes them")
    parser.add_argument("--out", required=True, help="folder of the records")
    parser.add_argument("--run", default="", help="run or model folder that writes programs")
    parser.add_argument("--n", type=int, default=0, help="programs that the model writes for a task")
    parser.add_argument("--programs", type=int, default=50_000, help="most programs of search for a task")
    parser.add_argument("--seconds", type=float, default=4.0, help="... and at most so long")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th task by id, from I on")
    parser.add_argument("--limit", type=int, default=0, help="first tasks only")
    args = parser.parse_args()
    if bool(args.run) != bool(args.n):
        parser.error("--run and --n go together")
    Path(args.out).mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(args, name) for name in ("data", "run", "n", "programs", "seconds", "part")}
    path = Path(args.out, "settings.json")
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        parser.error(f"--out: {path} has other settings; name a new folder, or give the same flags again")
    path.write_text(json.dumps(settings), encoding="utf-8")
    records = run(args)
    arms = {"search": only(records, "search")}
    if args.n:
        arms |= {"replies": only(records, "replies"), "both": records}
    for name, make in (("predictions", files.predictions), ("submission", files.submission)):
        Path(args.out, f"{name}.json").write_text(json.dumps(make(records)), encoding="utf-8")
    show(arms)


if __name__ == "__main__":
    main()
