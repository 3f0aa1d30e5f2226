"""The world of reasoning: short problems, each with a worked trace and an answer that can be checked.

    problem = make(np.random.default_rng(0), "story", level=1)
    problem["question"], problem["trace"], problem["answer"]

Traces are for a very small model. Every step is a copy or a fact of the tables, numbers come apart into tens
and units, the same idea has the same words everywhere, and the last words of a trace are the answer. `hasty`
answers the same questions without working: imitation learns from both, reinforcement has to tell them apart.

A new family is a function (rng, level) -> (slots, trace, answer), its sentences in SENTENCES and a row of
FAMILIES. It needs 2,000 different questions at level 1 and 20,000 at level 2: fewer are soon all known."""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np

OPEN = 0.1  # share of the family whose answers cannot be checked
HASTY = "Quickly: {}."
NAMES = "Ann Ben Cara Dan Eva Finn Gina Hugo Ida Jon Kim Leo".split()
THINGS = "ball book cake card cup hat key pen shell stamp stone toy".split()
ROLES = "baker dancer doctor driver farmer painter sailor singer teacher writer".split()
LETTERS = "b c d e f g h k m n r s".split()  # without those that are words or signs
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
LENGTHS = dict(zip(MONTHS, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)))  # no leap years
UNITS = (  # large, small, small ones in a large one, most large ones
    "hours minutes 60 9, minutes seconds 60 9, days hours 24 9, years months 12 9, weeks days 7 40, "
    "meters centimeters 100 40, dollars cents 100 40"
).split(", ")
ORDERS = (  # more, less, most, least
    "taller shorter tallest shortest, older younger oldest youngest, faster slower fastest slowest"
).split(", ")
GAINS = ("gets {} more.", "finds {} more.", "buys {} more.")
LOSSES = ("loses {}.", "gives away {}.", "sells {}.")
SUBJECTS = {  # of the open questions, with what there is to say
    "music": "it makes people happy",
    "bread": "it is warm and easy to share",
    "snow": "it is white and quiet",
    "sport": "it makes people strong and happy",
    "the sea": "it is deep and blue",
    "the sky": "it is blue and never ends",
    "the moon": "it makes the night white",
}
# The sentences of each family, the last one for evaluation only: its words stand in usual sentences, so what
# is new is the sentence. Slots are those that the family draws, and {name}, {friend} and {things} for all.
SENTENCES = """
story: {name} has {start} {things}. {moves} How many {things} does {name} have now?
  There are {start} {things} in the box of {name}. {moves} How many {things} are in the box now?
  {name} starts with {start} {things}. {moves} How many {things} are there now?
  {name} has a box with {start} {things}. {moves} What is the number of {things} now?
rate: {name} has {b} boxes with {a} {things} each. {moves} How many {things} does {name} have now?
  There are {a} {things} in each box. {name} has {b} boxes. {moves} How many {things} are there now?
  {name} finds {a} {things} each day for {b} days. {moves} How many {things} does {name} have now?
  {name} starts with {b} boxes. There are {a} {things} in each. {moves} What is the number of {things} now?
product: What is {terms}?
  How much is {terms}?
  Find {terms}.
  What number is {terms}?
coins: {name} buys {goods} and pays with {pay} cents. How many cents does {name} get back?
  {name} has {pay} cents and buys {goods}. How many cents are left?
  {name} pays {pay} cents for {goods}. How many cents does {name} get back?
  {name} starts with {pay} cents and buys {goods}. How many cents does {name} have now?
fraction: {name} has {n} {things} and gives away {part} of them. How many {things} are {fate}?
  There are {n} {things} in the box. {name} gives away {part} of them. How many {things} are {fate}?
  {name} gives away {part} of {n} {things}. How many {things} are {fate}?
  {name} starts with {n} {things} and gives away {part} of them. What is the number of {things} {fate}?
units: {name} needs {amount}. How many {small} does {name} need?
  {name} has {amount}. How many {small} is that?
  {name} writes {amount} in {small}. Which number does {name} write?
  {name} starts with {amount}. What is the number of {small}?
clock: It is {start}. What time is it {duration} later?
  {name} leaves at {start} and comes back {duration} later. What time is it then?
  {name} starts work at {start} and needs {duration}. What time is it then?
  {name} leaves at {start} and needs {duration}. What time is it when {name} comes back?
date: Today is {date}. Which date is it after {n} days?
  {name} leaves on {date} and comes back {n} days later. Which date is it then?
  It is {date}. {name} needs {n} days. Which date is it then?
  {name} leaves on {date} and needs {n} days. Which date is it when {name} comes back?
weekday: Today is {day}. Which day is it after {n} days?
  {name} leaves on {day}, and comes back {n} days later. Which day is it when {name} comes back?
  It is {day}. {name} needs {n} days. Which day is it then?
  {name} leaves on {day}, and needs {n} days. Which day is it when {name} comes back?
largest: Which number is the {ask}: {list}?
  Find the {ask} of {list}.
  {name} writes {list}. Which of them is the {ask}?
  What is the {ask} number of {list}?
odd: Which number is {ask}: {list}?
  Find the {ask} number of {list}.
  {name} writes {list}. Which of them is {ask}?
  What is the {ask} number of {list}?
sort: Sort {list} from {order}.
  Write {list} from {order}.
  {name} sorts {list} from {order}. What does {name} write?
  {name} has {list}. Write them from {order}.
order: {clauses} Who is the {ask}?
  {clauses} Which of them is the {ask}?
  Who is the {ask}? {clauses}
  {clauses} Find the {ask} of them.
logic: {facts} Is {name} a {goal}? Say yes, no or unknown.
  {facts} {friend} asks: is {name} a {goal}? Say yes, no or unknown.
  Say yes, no or unknown: is {name} a {goal}? {facts}
  {facts} Say yes, no or unknown: is {name} a {goal}?
count: How many times is {letter} in {letters}?
  Count the letter {letter} in {letters}.
  {name} writes {letters}. How many times is {letter} in it?
  {name} writes {letters}. Count the letter {letter} in it.
open: {name} asks: what is good about {subject} in {when}?
  What does {name} say about {subject} in {when}?
  {name} writes to {friend} about {subject} in {when}. What does {name} write?
  Say to {name} what is good about {subject} in {when}."""
SENTENCES = dict(part.split(": ", 1) for part in re.split(r"\n(?=\w)", SENTENCES)[1:])
SENTENCES = {name: text.split("\n  ") for name, text in SENTENCES.items()}

# ------------------------------------------------------------------------------------------------ draws
between = lambda rng, low, high: int(rng.integers(low, high + 1))
pick = lambda rng, items: items[rng.integers(len(items))]
sample = lambda rng, items, n: [items[i] for i in rng.permutation(len(items))[:n]]  # n different ones
listed = lambda items: ", ".join(map(str, items))


def aside(rng, items, answer):
    """The items with the answer last only half as often as by chance: to copy what stands last pays less."""
    if items[-1] == answer and rng.random() < 0.5:
        items[0], items[-1] = items[-1], items[0]
    return items


def changes(rng, total, n, top):
    """(sentences, trace, new total, signed numbers) of n gains and losses that keep it from 5 to top."""
    told, steps, found = [], [], []
    for _ in range(n):
        more, less = min(95, top - total), min(95, total - 5)
        gain = more >= 5 and (less < 5 or rng.random() < 0.5)
        x, verbs = between(rng, 5, more if gain else less), GAINS if gain else LOSSES
        told.append("{name} " + pick(rng, verbs).format(x))
        steps.append(plus(total, x) if gain else minus(total, x))
        found.append(x if gain else -x)
        total += found[-1]
    return " ".join(told), " ".join(steps), total, found


# ------------------------------------------------------------------------------------------------ steps
def chain(*values):
    """An equation, without what repeats the value before it; a pair is of tens and units to be added."""
    texts = []
    for x in values:
        if isinstance(x, tuple):
            x = f"{x[0]} {'+' if x[1] > 0 else '-'} {abs(x[1])}" if all(x) else sum(x)
        texts.append(str(x))
    return " = ".join(text for text, _ in groupby(texts)) + "."


def plus(a, b):
    """47 + 35 = 70 + 12 = 82."""
    return chain(f"{a} + {b}", ((a // 10 + b // 10) * 10, a % 10 + b % 10), a + b)


def minus(a, b):
    """300 - 156 = 200 - 56 = 150 - 6 = 144."""
    c, d = a - b // 100 * 100, b % 100
    return chain(f"{a} - {b}", (c, -d), ((c // 10 - d // 10) * 10, c % 10 - d % 10), a - b)


def times(a, b):
    """48 x 7 = 280 + 56 = 330 + 6 = 336. One of the two is round, or b below 10."""
    tens, units = a // 10 * 10 * b, a % 10 * b
    return chain(f"{a} x {b}", (tens, units), (tens + units // 10 * 10, units % 10) if tens else units, a * b)


def divided(a, b):
    """112 / 8 = 80 / 8 + 32 / 8 = 10 + 4 = 14."""
    tens, units = a // b // 10 * 10, a // b % 10
    if b == 10 or not tens or not units:
        return chain(f"{a} / {b}", a // b)
    return chain(f"{a} / {b}", f"{tens * b} / {b} + {units * b} / {b}", (tens, units), a // b)


# ------------------------------------------------------------------------------------------------ families
# (rng, level) -> slots, trace, answer
def story(rng, level):
    start = between(rng, 12, 90)
    moves, trace, total, _ = changes(rng, start, level, 99)
    return {"start": start, "moves": moves}, trace, total


def product(rng, level):
    a, b = between(rng, 11, 99), between(rng, 2, 9)
    moves, trace, total, found = changes(rng, a * b, level - 1, 999)
    terms = [pick(rng, (f"{a} times {b}", f"{b} times {a}"))]
    terms += [f"plus {x}" if x > 0 else f"minus {-x}" for x in found]
    return {"a": a, "b": b, "moves": moves, "terms": " ".join(terms)}, f"{times(a, b)} {trace}", total


def coins(rng, level):
    first, second = sample(rng, THINGS, 2)
    n, a, b = between(rng, 2, 5), between(rng, 11, 49 if level == 3 else 95), between(rng, 11, 95)
    goods = f"a {first} at {a} cents"
    total = a
    steps = []
    if level == 3:
        goods = f"{n} {first}s at {a} cents each"
        total = a * n
        steps.append(times(a, n))
    if level > 1:
        goods += f" and a {second} at {b} cents"
        steps.append(plus(total, b))
        total += b
    pay = 50 if total < 50 and rng.random() < 0.5 else total // 100 * 100 + 100
    return {"goods": goods, "pay": pay}, " ".join([*steps, minus(pay, total)]), pay - total


def fraction(rng, level):
    percent = level == 3 and rng.random() < 0.5
    k = 10 if percent else between(rng, 2 if level == 1 else 3, 9)
    each = between(rng, 2, 19 if level == 3 else 12)
    j = 1 if level == 1 else between(rng, 2, k - 1)
    n = each * k
    answer = each * j
    part = f"{10 * j} percent" if percent else f"{j}/{k}"
    fate = "given away"
    steps = [divided(n, k)]
    if level > 1:
        steps.append(times(each, j))
    if level == 3:
        fate = "left"
        steps.append(minus(n, answer))
        answer = n - answer
    return {"n": n, "part": part, "fate": fate}, " ".join(steps), answer


def units(rng, level):
    large, small, size, most = pick(rng, UNITS).split()
    size, most = int(size), int(most)
    n, top = between(rng, 4 if level == 3 else 2, most), size // 2 if level == 3 else size - 1
    m, extra, more = between(rng, 2, top), between(rng, 2, top), between(rng, 2, max(n - 2, 2))
    amount = f"{n} {large}"
    total = n * size
    steps = [f"{large} to {small}: x {size}. {times(max(n, size), min(n, size))}"]
    if level == 2:
        amount += f" and {m} {small}"
        steps.append(plus(total, m))
        total += m
    if level == 3:
        amount = f"{n - more} {large} and {m} {small} plus {more} {large} and {extra} {small}"
        steps = [plus(n - more, more), *steps, plus(m, extra), plus(total, m + extra)]
        total += m + extra
    return {"amount": amount, "small": small}, " ".join(steps), total


def clock(rng, level):
    hour, minute = between(rng, *((1, 12), (1, 12), (12, 23))[level - 1]), between(rng, 0, 59)
    hours, minutes = (0, between(rng, 2, 9), between(rng, 10, 19))[level - 1], between(rng, 5, 59)
    duration = f"{minutes} minutes"
    terms = [hour]
    if hours:
        duration = f"{hours} hours and {duration}"
        terms.append(hours)
    total = minute + minutes
    steps = [plus(minute, minutes)]
    if total >= 60:
        steps.append(f"{total} - 60 = {total - 60}.")
        terms.append(1)
    last = sum(terms)
    if len(terms) > 1:
        steps.append(f"{' + '.join(map(str, terms))} = {last}.")
    if last >= 24:
        steps.append(f"{last} - 24 = {last - 24}.")
    end = f"{last % 24}:{total % 60:02}"
    return {"start": f"{hour}:{minute:02}", "duration": duration}, f"{' '.join(steps)} So {end}.", end


def date(rng, level):
    month, day = pick(rng, MONTHS), between(rng, 1, 20 if level == 1 else 28)
    left = LENGTHS[month] - day
    n = between(rng, *((2, left), (left + 1, left + 28), (40, 65))[level - 1])
    slots, steps, total = {"date": f"{month} {day}", "n": n}, [plus(day, n)], day + n
    while total > LENGTHS[month]:
        steps.append(f"{month} {LENGTHS[month]}: {minus(total, LENGTHS[month])}")
        total, month = total - LENGTHS[month], MONTHS[(MONTHS.index(month) + 1) % 12]
    return slots, f"{' '.join(steps)} {month} {LENGTHS[month]}: {month} {total}.", f"{month} {total}"


def weekday(rng, level):
    i, month = between(rng, 0, 6), pick(rng, MONTHS)
    n = rest = between(rng, *((2, 13), (14, 69), (70, 365))[level - 1])
    slots, steps = {"day": f"{DAYS[i]}, {month} {between(rng, 1, LENGTHS[month])}", "n": n}, []
    for size in (70, 7) if level == 3 else (7,):
        steps.append(chain(f"{rest} - {rest // size * size}", rest % size))
        rest %= size
    walk = listed(f"{k} {DAYS[(i + k) % 7]}" for k in range(rest + 1))
    return slots, f"{' '.join(steps)} {walk}.", DAYS[(i + rest) % 7]


def largest(rng, level):
    low, (ask, best) = 100 if level == 3 else 10, pick(rng, (("largest", max), ("smallest", min)))
    items = sample(rng, range(low, 10 * low), (3, 4, 6)[level - 1])
    items = aside(rng, items, best(items))
    kept = [*accumulate(items, best)]
    steps = " ".join(f"{a} or {x}: {b}." for a, x, b in zip(kept, items[1:], kept[1:]))
    return {"ask": ask, "list": listed(items)}, f"{ask}: {steps}", kept[-1]


def odd(rng, level):
    names, ask, low = ("even", "odd"), between(rng, 0, 1), 100 if level == 3 else 10
    one = pick(rng, range(low + ask, 10 * low, 2))
    others = sample(rng, range(low + 1 - ask, 10 * low, 2), level + 2)
    items = aside(rng, sample(rng, [one, *others], level + 3), one)
    trace = f"{listed(f'{x} {names[x % 2]}' for x in items)}. So {one}."
    return {"ask": names[ask], "list": listed(items)}, trace, one


def sort(rng, level):
    items, down = sample(rng, range(10, 100), level + 2), between(rng, 0, 1)
    steps = [listed(sorted(items[: i + 1], reverse=down)) for i in range(len(items))]  # each with one more
    order = "largest to smallest" if down else "smallest to largest"
    return {"list": listed(items), "order": order}, ". ".join(steps) + ".", steps[-1]


def order(rng, level):
    more, less, most, least = pick(rng, ORDERS).split()
    people = sample(rng, NAMES, level + 2)
    turned = rng.random(level + 1) < (0.5 if level == 3 else 0)
    pairs = zip(turned, people, people[1:])
    clauses = [f"{b} is {less} than {a}." if turn else f"{a} is {more} than {b}." for turn, a, b in pairs]
    ask, answer = pick(rng, ((most, people[0]), (least, people[-1])))
    slots = {"clauses": " ".join(sample(rng, clauses, len(clauses))), "ask": ask}
    return slots, f"{most} {listed(people)} {least}. So {answer}.", answer


def logic(rng, level):
    *path, x, y = sample(rng, ROLES, level + 3)
    verdict, any_word = pick(rng, ("yes", "no", "unknown")), pick(rng, ("Every", "No"))
    words = ["Every"] * (level - 1) + [{"yes": "Every", "no": "No"}.get(verdict, any_word)]
    rules = [f"{word} {a} is a {b}." for word, a, b in zip(words, path, path[1:])]
    beside = f"{pick(rng, ('Every', 'No'))} {x} is a {y}."  # no word on one who is not known to be an x
    first = f"{{name}} is a {path[0]}."
    goal = path[-1]
    steps = [first, *rules]
    if verdict == "unknown":
        goal = y
        steps.append(f"Nothing about a {goal}.")
    facts = " ".join([first, *sample(rng, [*rules, beside], level + 1)])
    return {"facts": facts, "goal": goal}, f"{' '.join(steps)} So {verdict}.", verdict


def count(rng, level):
    used = sample(rng, LETTERS, 3)
    letters = [used[i] for i in rng.integers(3, size=(5, 8, 12)[level - 1])]
    letter = pick(rng, letters)
    total = letters.count(letter)
    steps = listed(f"{x} {letters[: i + 1].count(letter)}" for i, x in enumerate(letters))
    return {"letters": " ".join(letters), "letter": letter}, f"{letter}: {steps}. So {total}.", total


def about(rng, level):
    subject, month, day = pick(rng, [*SUBJECTS]), pick(rng, MONTHS), pick(rng, DAYS)
    trace = f"This is about {subject}. What is good: {SUBJECTS[subject]}."
    return {"subject": subject, "when": f"{month} on {day}" if level > 1 else month}, trace, SUBJECTS[subject]


# ------------------------------------------------------------------------------------------------ table
# problem -> wrong answers that one might give; the right one may be among them
def near(problem):
    """The last number of the answer changed a little; times and dates stay such."""
    head, last = re.fullmatch(r"(.*?)(\d+)", problem["answer"]).groups()
    digits, top = {"clock": (2, 59), "date": (1, 28)}.get(problem["family"], (1, np.inf))
    values = [int(last) + d for d in (-10, -2, -1, 1, 2, 10)]
    return [f"{head}{x:0{digits}}" for x in values if 0 < x <= top]


def swapped(problem):
    """Two neighbours in the other order."""
    items = problem["answer"].split(", ")
    return [listed([*items[:i], items[i + 1], items[i], *items[i + 2 :]]) for i in range(len(items) - 1)]


number = lambda problem: re.findall(r"\d+", problem["question"])
person = lambda problem: [x for x in re.findall(r"\w+", problem["question"]) if x in NAMES]
neighbour = lambda problem: [DAYS[(DAYS.index(problem["answer"]) + d) % 7] for d in (-2, -1, 1, 2)]


@dataclass
class Family:
    draw: Callable  # (rng, level) -> slots, trace, answer
    kind: str = "number"  # of the answer: or "text", "list", "open"
    wrong: Callable = near  # problem -> answers


FAMILIES = {
    "story": Family(story),
    "rate": Family(product),
    "product": Family(product),
    "coins": Family(coins),
    "fraction": Family(fraction),
    "units": Family(units),
    "clock": Family(clock, "text"),
    "date": Family(date, "text"),
    "weekday": Family(weekday, "text", neighbour),
    "largest": Family(largest, wrong=number),
    "odd": Family(odd, wrong=number),
    "sort": Family(sort, "list", swapped),
    "order": Family(order, "text", person),
    "logic": Family(logic, "text", lambda problem: ["yes", "no", "unknown"]),
    "count": Family(count),
    "open": Family(about, "open", lambda problem: [*SUBJECTS.values()]),
}
CHECKED = [name for name in FAMILIES if name != "open"]


# ------------------------------------------------------------------------------------------------ problems
def make(rng, family=None, level=None, unseen=False):
    """A problem, by default of any family and any level from 1 to 3; `unseen`: as training never puts it."""
    if family is None:
        family = "open" if rng.random() < OPEN else pick(rng, CHECKED)
    one, level = FAMILIES[family], level or between(rng, 1, 3)
    slots, trace, answer = one.draw(rng, level)
    slots["name"], slots["friend"], slots["things"] = *sample(rng, NAMES, 2), pick(rng, THINGS) + "s"
    *usual, new = SENTENCES[family]
    # twice, as slots may hold {name} themselves, and without the space that an empty one leaves
    fill = lambda text: " ".join(text.format(**slots).format(**slots).split())
    problem = {"question": fill(new if unseen else pick(rng, usual)), "trace": fill(trace)}
    return problem | {"answer": str(answer), "family": family, "level": level, "kind": one.kind}


def hasty(problem, rng, right=0.35):
    """(trace, answer) of one who does not work it out: right for the share `right`, else plausibly wrong."""
    answer = problem["answer"]
    if rng.random() >= right:
        answer = pick(rng, [x for x in FAMILIES[problem["family"]].wrong(problem) if x != answer])
    return HASTY.format(answer), answer


# Is the question kept for evaluation? A function of its text, so that no seed can mix the two.
held_out = lambda question: zlib.crc32(question.encode()) % 10 == 0
