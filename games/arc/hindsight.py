"""ARC, learning from its own programs: relabelled in hindsight, refined, judged.

Every program that runs is the right answer of the task that it computes. `collected` makes rows of what a
model wrote for a task, with the outputs that each program gives for the shown inputs and for other views of
them; `lesson` makes of a row, and of its siblings for the same task, what a version of the prompt teaches: to
write the program, to refine a sibling into it, to give its output, to tell that from a sibling's. Such rows
know of a task what it shows, and nothing of its tests.

`refine` spends replies on the most promising programs. `prefer` puts answers in order: by elimination with
confidence bounds (is this right, yes or no), or by halving with strengths (which is, this one or that)."""

import ast
import re
import textwrap
import zlib
from collections import Counter

import numpy as np

from games.arc.grids import VIEWS, Frame, legal
from games.arc.prompts import PROMPTS, WORDS
from games.arena.stats import newton
from games.rows import read_rows

WAVE = 4  # refinements of a task between two looks at what became of them
TRUST = 20.0  # how far a program's promise outweighs failures to refine it
CHECKS, MOST = 4, 32  # checks of an open answer in a round, and in all
MATCHES = 8  # of an answer in a round of halving
RIDGE = 1e-2  # on strengths: what never lost has a finite one


def rng_of(task, example, *numbers):
    return np.random.default_rng([task.seed, *numbers, zlib.crc32(example["id"].encode())])


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
            task.drop("programs written twice")
        elif reply["verdict"] not in ("accepted", "wrong"):
            task.drop(f"programs: {reply['verdict']}")
        else:
            replies[reply["source"]] = reply
    count = max(1, task.options.views)
    frames = [Frame.draw(record, rng_of(task, record, 11, j), j % VIEWS) for j in range(1, count)]
    views = [frame.task(record)["train"] for frame in [Frame(), *frames]]
    outputs = iter(task.outputs([(source, {"train": view}) for source in replies for view in views]))
    rows, seen = [], set()
    for source, reply in replies.items():
        told = [relabelled(view, grids) for view, (_, _, grids) in zip(views, outputs)]
        if not any(told):
            task.drop("programs that change nothing, or all into one")
        elif str(told) in seen:
            task.drop("programs that compute what another does")
        elif any(memorised(source, [pair["output"] for pair in pairs]) for pairs in told if pairs):
            task.drop("programs: memorised")
        else:
            seen.add(str(told))
            about = {name: reply[name] for name in ("source", "verdict", "right")}
            rows.append({"id": record["id"], **about, "views": told})
    return rows


def relabelled(pairs, grids):
    """The pairs with a program's own outputs; None where there are none, or nothing to learn from them."""
    if grids is None or all(pair["input"] == grid for pair, grid in zip(pairs, grids)):
        return None
    if len(grids) > 1 and all(grid == grids[0] for grid in grids):
        return None
    return [{"input": pair["input"], "output": grid} for pair, grid in zip(pairs, grids)]


def wrong_answers(task, record):
    """A row for each test whose output is known and to which there are wrong grids."""
    rows = []
    for test, pair in enumerate(record["test"]):
        if task.options.collect_from != "train" or "output" not in pair:
            raise ValueError(
                f"--collect-from: wrong grids need the outputs of the tests, and {record['id']} is not to "
                "train on; programs need none"
            )
        answers = [(reply["answers"] or {test: None})[test] for reply in record["replies"]]
        wrong = {str(grid): grid for grid in answers if grid and grid != pair["output"]}
        if wrong:
            about = {"train": record["train"], "test": [pair]}
            rows.append({"id": record["id"], "task": about, "wrong": list(wrong.values())})
        else:
            task.drop("tests without a wrong answer")
    return rows


def memorised(source, outputs):
    """Whether a program holds a shown output of four cells or more: as a list, as text, or because more than
    two fifths of its 20 or more tokens are digits."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    large = [grid for grid in outputs if len(grid) * len(grid[0]) > 3]
    flat = ["".join(str(cell) for row in grid for cell in row) for grid in large]
    for node in ast.walk(tree):
        if isinstance(node, (ast.List, ast.Tuple, ast.Constant)):
            try:
                found = ast.literal_eval(node)
            except (ValueError, TypeError, MemoryError, RecursionError):
                continue
            digits = re.sub(r"[^0-9]", "", str(found))
            if any(text in digits for text in flat):
                return True
    words = re.findall(r"[0-9]+|[^\W0-9]+|[^\s\w]", source)
    return len(words) >= 20 and sum(word.isdigit() for word in words) > 0.4 * len(words)


def read(task, paths, best, worst):
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
    return [row for rows in groups.values() for row in chosen(task, rows, best, worst)]


def chosen(task, rows, best, worst):
    """Of the programs for one task, equal ones once, those that give most of the shown pairs and those that
    give fewest, 25 and 25 in SOAR (arXiv 2507.14172); each knows the others. Other rows are all taken."""
    different = {str(row.get("source", row.get("wrong"))): row for row in rows}
    order = sorted(different.values(), key=lambda row: -row.get("right", 0))
    if len(order) > best + worst and "source" in order[0]:
        for _ in range(len(order) - best - worst):
            task.drop("programs between the best and the worst of their task")
        order = order[:best] + order[len(order) - worst :]
    return [{**row, "siblings": order, "knows": known_by(row)} for row in order]


def known_by(row):
    """How trained.json calls the task of a row: by its name where a test's output was learned from."""
    return f"shown:{row['id']}" if "source" in row else row["id"]


# ------------------------------------------------------------------------------------------------ teaching
def lesson(row, version, rng):
    """(task, rival) that a row teaches in a version of the prompt: a view of its task, the last pair its
    test, and what else was answered, {"source", "outputs" for all pairs}; None where it teaches none."""
    if "wrong" in row:
        if not version.test or version.asks == "code":
            return None
        frame, wrong = Frame.draw(row["task"], rng), row["wrong"][rng.integers(len(row["wrong"]))]
        return frame.task(row["task"]), {"outputs": [frame.grid(wrong, "output")]}
    places = [place for place, pairs in enumerate(row["views"]) if pairs]
    place = places[rng.integers(len(places))]
    pairs, rival = row["views"][place], None
    others = [other for other in row["siblings"] if other["views"][place] not in (None, pairs)]
    if others:
        other = others[rng.integers(len(others))]
        differ = [i for i, pair in enumerate(pairs) if pair != other["views"][place][i]]
        last = differ[rng.integers(len(differ))]
        order = [*(i for i in range(len(pairs)) if i != last), last]
        pairs = [pairs[i] for i in order]
        rival = {"source": other["source"], "outputs": [other["views"][place][i]["output"] for i in order]}
    elif version.needs_rival:
        return None
    shown = pairs[:-1] if version.test else pairs
    return {"train": shown, "test": pairs[-1:], "source": row["source"]}, rival


def items(task, row, rng):
    """The Chats of one version of the prompt, of those for which the row is good."""
    for i in rng.permutation(len(task.versions)):
        found = lesson(row, task.versions[i], rng)
        if found and (found[0]["train"] or not task.versions[i].test):
            return task.taught(task.versions[i], *found, rng)
    raise ValueError(f"--prompt-version: no version learns from a row of {row['id']}, as from {sorted(row)}")


def lessons(task, examples, records):
    """What test-time training learns from: of prompts for a grid the shown pairs, each as the test of the
    others; of prompts for a program the programs of the records. The outputs of the tests are not in it."""
    if task.versions[0].asks == "output":
        tests = [[{"input": pair["input"]} for pair in example["test"]] for example in examples]
        return [{"id": e["id"], "train": e["train"], "test": test} for e, test in zip(examples, tests)]
    rows, o = {}, task.options
    for record in records:
        rows.setdefault(record["id"], []).extend(task.collected(record))
    return [row for some in rows.values() for row in chosen(task, some, o.best, o.worst)]


# ------------------------------------------------------------------------------------------------ refining
def promise(got, pairs):
    """How near outputs are to those of the shown pairs, 0..1: the better of two means over the pairs, of the
    share of equal cells (0 for another shape) and of the overlap of the shares of colours, which is 1 where
    only places are wrong."""
    cells, colours = [], []
    for grid, pair in zip(got, pairs):
        mine, wanted = np.array(grid), np.array(pair["output"])
        cells.append((mine == wanted).mean() if mine.shape == wanted.shape else 0.0)
        shares = [np.bincount(x.ravel(), minlength=10) / x.size for x in (mine, wanted)]
        colours.append(np.minimum(*shares).sum())
    return float(max(np.mean(cells), np.mean(colours)))


def refine(task, examples, records, agent, n):
    """Spend n replies on each example, WAVE at a time, on its most promising programs. A program is drawn by
    Thompson sampling of Beta(1 + C h, 1 + C (1 - h) + times refined), h its promise and C TRUST, as REx does
    (arXiv 2405.17503). Where there is nothing to refine, or no need to, the first prompt is asked again.

    A prompt that refines sees the program and what it got, and its reply takes the program's place; any other
    is asked what makes the wanted outputs of the outputs it got, and its reply goes behind the program."""
    version = PROMPTS[task.options.refine_prompt]
    times = [Counter() for _ in records]  # how often outputs were refined
    for wave in range(0, n, WAVE):
        asked, plain = [], []
        for i, (example, record) in enumerate(zip(examples, records)):
            rng, tries = rng_of(task, example, 7, len(record["replies"])), {}
            for reply in record["replies"]:
                frame, source = Frame(**reply["frame"]), reply["source"]
                got = task.got.get((example["id"], str(frame), source))
                if got and reply["verdict"] != "memorised":
                    tries.setdefault(str((frame, got)), (frame, source, got))
            seen = {key: frame.task(example) for key, (frame, *_) in tries.items()}
            hopes = {key: TRUST * promise(got, seen[key]["train"]) for key, (*_, got) in tries.items()}
            done = any(reply["verdict"] == "accepted" for reply in record["replies"])
            for _ in range(min(WAVE, n - wave)):
                if done or not tries:
                    plain.append((i, Frame(), None, task.prompt(example), ""))
                    continue
                draws = {key: rng.beta(1 + h, 1 + TRUST - h + times[i][key]) for key, h in hopes.items()}
                best = max(draws, key=draws.get)
                times[i][best] += 1
                frame, source, got = tries[best]
                if version.refines:
                    told = task.fitted(seen[best])
                    more = {"program": source, "got": got[: len(told["train"])]}
                    asked.append((i, frame, None, version.question(told, task.writing, **more), ""))
                else:
                    rest = [{"input": x, "output": p["output"]} for x, p in zip(got, seen[best]["train"])]
                    question = version.question(task.fitted({**seen[best], "train": rest}), task.writing)
                    asked.append((i, frame, None, question, source))
        for prompt, some in ((version, asked), (task.versions[0], plain)):
            if some:
                task.ask(prompt, examples, records, some, agent)


def chained(first, second):
    """The program that gives what a second makes of what a first gives: in one body where both are a function
    that ends in its only return, else with both inside."""
    bodies = [source.partition("\n")[2] for source in (first, second)]
    if all(
        re.fullmatch(r"def task\(grid\):\n(    (?!.*\breturn\b).*\n)*    return .*\n", x)
        for x in (first, second)
    ):
        return "def task(grid):\n" + "    grid = ".join(bodies[0].rsplit("    return ", 1)) + bodies[1]
    parts = [re.sub(r"^def task\b", f"def step_{i}", x, flags=re.M) for i, x in enumerate((first, second), 1)]
    body = textwrap.indent("".join(parts), "    ")
    return f"def task(grid):\n{body}    return step_2(np.array(step_1(grid)))\n"


# ------------------------------------------------------------------------------------------------ judging
def eliminate(n, z=1.96):
    """Put n answers in order by checks, the best first: the seed's verifier. A generator that yields the
    answers to check, each as often as it is named, and is sent whether each was found right.

    An open answer gets CHECKS checks a round, up to MOST in all, and is open while its share of yes, p, is
    not z standard errors away from that of one of the two best; p of 0 or 1 counts as 1 of one check more."""
    yes, count, waiting = np.zeros(n), np.zeros(n), list(range(n))
    while waiting:
        checks = [i for i in waiting for _ in range(CHECKS)]
        for i, right in zip(checks, (yield checks)):
            yes[i], count[i] = yes[i] + right, count[i] + 1
        share, pure = yes / count, (yes == 0) | (yes == count)
        p = np.where(pure, 1 / (count + 1), share)
        error = np.sqrt(p * (1 - p) / (count + pure))
        gap = abs(share[:, None] - share) - z * np.hypot(error[:, None], error)  # (n, n)
        top = np.argsort(-share, kind="stable")[:2]
        waiting = [i for i in range(n) if count[i] < MOST and (gap[i, top[top != i]] < 0).any()]
    return np.argsort(-share, kind="stable").tolist()


def halve(n, rng):
    """Put n answers in order by matches, the best first: the seed's selector, successive halving. A generator
    that yields pairs of answers and is sent whether the first of each won.

    In a round each answer left meets MATCHES others of a shuffled ring, at growing distance; the upper half
    by strength, from all matches so far, stays until one is left."""
    left, out, wins = list(range(n)), [], Counter()
    while len(left) > 1:
        ring, size = rng.permutation(left).tolist(), len(left)
        shifts = [1 + r % (size - 1) for r in range(MATCHES // 2)]
        pairs = [(ring[i], ring[(i + shift) % size]) for shift in shifts for i in range(size)]
        wins.update((a, b) if first else (b, a) for (a, b), first in zip(pairs, (yield pairs)))
        worth = strengths(n, wins)
        left.sort(key=lambda i: -worth[i])
        left, out = left[: size // 2], left[size // 2 :] + out
    return left + out


def strengths(n, wins):
    """Strengths (n,) by Bradley and Terry, P(a beats b) = 1 / (1 + exp(s_b - s_a)), of {(a, b): how often a
    beat b}. The seed's iteration finds the same maximum; the ridge gives who never lost a finite one."""
    pairs, one = np.array(list(wins)), np.eye(n)
    design = (one[pairs[:, 0]] - one[pairs[:, 1]])[:, None] * np.array([[0.5], [-0.5]])  # (N, 2, n)
    counts = np.array([[count, 0] for count in wins.values()], float)
    return newton(design, counts, RIDGE)


def prefer(task, examples, records, agent):
    """Give each record an "order": of each test the answers, the preferred first, by --ties."""
    version, words = PROMPTS[task.options.ties], WORDS[PROMPTS[task.options.ties].asks]
    contests = []
    for example, record in zip(examples, records):
        record["order"] = [task.answers(record, test) for test in range(len(record["test"]))]
        for test, grids in enumerate(record["order"]):
            if len(grids) > 1:
                rng = rng_of(task, example, 13, test)
                game = eliminate(len(grids)) if version.asks == "verdict" else halve(len(grids), rng)
                contests.append((example, record, test, grids, rng, game))
    waiting = {k: next(contest[-1]) for k, contest in enumerate(contests)}
    while waiting:
        prompts, places = [], []
        for k, wanted in waiting.items():
            example, _, test, grids, rng, _ = contests[k]
            for one in wanted:
                shown = [one] if version.asks == "verdict" else list(one)
                swap = len(shown) > 1 and rng.random() < 0.5
                frame = Frame.draw(example, rng)
                answers = [frame.grid(grids[i], "output") for i in (shown[::-1] if swap else shown)]
                told = task.fitted(frame.task(example))
                prompts.append(version.question(told, task.writing, test, answers=answers))
                places.append((k, swap))
        said = (task.grader or agent).choose(prompts, words)
        verdicts = {}
        for (k, swap), (first, second) in zip(places, said):
            verdicts.setdefault(k, []).append((first > second) != swap)
        for k, found in verdicts.items():
            _, record, test, grids, _, game = contests[k]
            try:
                waiting[k] = game.send(found)
            except StopIteration as end:
                record["order"][test] = [grids[i] for i in end.value]
                del waiting[k]
