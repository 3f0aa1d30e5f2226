"""The world of reasoning: short problems, each with a worked trace and an answer that can be checked.

    problem = make(np.random.default_rng(0), "story", level=1)
    problem["question"], problem["trace"], problem["answer"]

The traces are made for a very small model. Every step is a copy or a fact from the tables, numbers are split
into tens and units, the same idea always has the same words, and the last words of a trace are the answer.
`hasty_answer` answers the same questions without working: imitation learns from both kinds, and reinforcement
has to tell them apart.

A new family is a function (rng, level) -> (slots, trace, answer), its sentences in SENTENCES and an entry in
FAMILIES. It needs 2,000 different questions at level 1 and 20,000 at level 2: a model soon knows fewer by
heart."""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np

OPEN = 0.1  # share of problems from the family "open", whose answers cannot be checked
HASTY_TRACE = "Quickly: {}."
NAMES = "Ann Ben Cara Dan Eva Finn Gina Hugo Ida Jon Kim Leo".split()
THINGS = "ball book cake card cup hat key pen shell stamp stone toy".split()
ROLES = "baker dancer doctor driver farmer painter sailor singer teacher writer".split()
LETTERS = "b c d e f g h k m n r s".split()  # without letters that are words or signs, such as a and x
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
LENGTHS = dict.fromkeys(MONTHS, 31)
LENGTHS |= dict.fromkeys("April June September November".split(), 30)
LENGTHS["February"] = 28  # no leap years
# large unit, small unit, how many small make a large one, largest number of large ones
UNITS = (
    "hours minutes 60 9, minutes seconds 60 9, days hours 24 9, years months 12 9, weeks days 7 40, "
    "meters centimeters 100 40, dollars cents 100 40"
).split(", ")
# more, less, most, least
ORDERS = (
    "taller shorter tallest shortest, older younger oldest youngest, faster slower fastest slowest"
).split(", ")
GAINS = ("gets {} more.", "finds {} more.", "buys {} more.")
LOSSES = ("loses {}.", "gives away {}.", "sells {}.")
# subjects of the open questions and the model answer about each
SUBJECTS = {
    "music": "it makes people happy",
    "bread": "it is warm and easy to share",
    "snow": "it is white and quiet",
    "sport": "it makes people strong and happy",
    "the sea": "it is deep and blue",
    "the sky": "it is blue and never ends",
    "the moon": "it makes the night white",
}
# The sentences of each family. The last one is for evaluation only: its words all occur in other sentences,
# so only the sentence is new. A family fills its own slots; {name}, {friend} and {things} are there for all.
SENTENCE_TABLE = """
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
SENTENCES = {}
for entry in re.split(r"\n(?=\w)", SENTENCE_TABLE)[1:]:
    name, texts = entry.split(": ", 1)
    SENTENCES[name] = texts.split("\n  ")

# ------------------------------------------------------------------------------------------------ draws
between = lambda rng, low, high: int(rng.integers(low, high + 1))
pick = lambda rng, items: items[rng.integers(len(items))]
sample = lambda rng, items, n: [items[i] for i in rng.permutation(len(items))[:n]]  # n different ones
join = lambda items: ", ".join(map(str, items))


def move_from_end(rng, items, answer):
    """If the answer is the last item, swap it with the first item in half of the cases, so that copying the
    last item pays less."""
    if items[-1] == answer and rng.random() < 0.5:
        items[0], items[-1] = items[-1], items[0]
    return items


def changes(rng, total, n, top):
    """n gains and losses that keep a total between 5 and `top`: (their sentences, their trace, the new total,
    their signed numbers)."""
    sentences = []
    steps = []
    amounts = []
    for _ in range(n):
        most_gain = min(95, top - total)
        most_loss = min(95, total - 5)
        gain = most_gain >= 5 and (most_loss < 5 or rng.random() < 0.5)
        amount = between(rng, 5, most_gain if gain else most_loss)
        sentence = pick(rng, GAINS if gain else LOSSES)
        sentences.append("{name} " + sentence.format(amount))
        steps.append(addition(total, amount) if gain else subtraction(total, amount))
        amounts.append(amount if gain else -amount)
        total += amounts[-1]
    return " ".join(sentences), " ".join(steps), total, amounts


# ------------------------------------------------------------------------------------------------ steps
def chain(*values):
    """An equation of the values; a value that equals the one before it is left out. A pair is written as a
    sum or difference, or as one number where a part is 0."""
    texts = []
    for value in values:
        if isinstance(value, tuple):
            a, b = value
            value = f"{a} {'+' if b > 0 else '-'} {abs(b)}" if a and b else a + b
        texts.append(str(value))
    return " = ".join(text for text, _ in groupby(texts)) + "."


def addition(a, b):
    """47 + 35 = 70 + 12 = 82."""
    tens = (a // 10 + b // 10) * 10
    units = a % 10 + b % 10
    return chain(f"{a} + {b}", (tens, units), a + b)


def subtraction(a, b):
    """300 - 156 = 200 - 56 = 150 - 6 = 144."""
    # hundreds first, then tens, then units; the units may stay negative: 82 - 47 = 40 - 5 = 35
    rest = a - b // 100 * 100
    small = b % 100
    tens = (rest // 10 - small // 10) * 10
    units = rest % 10 - small % 10
    return chain(f"{a} - {b}", (rest, -small), (tens, units), a - b)


def multiplication(a, b):
    """48 x 7 = 280 + 56 = 330 + 6 = 336. Either one factor is a multiple of 10 or b is below 10."""
    tens = a // 10 * 10 * b
    units = a % 10 * b
    # the tens of the second product join the first, so that the last sum only adds a digit
    last = (tens + units // 10 * 10, units % 10) if tens else units
    return chain(f"{a} x {b}", (tens, units), last, a * b)


def division(a, b):
    """112 / 8 = 80 / 8 + 32 / 8 = 10 + 4 = 14."""
    quotient = a // b
    tens = quotient // 10 * 10
    units = quotient % 10
    # with one part only there is nothing to split; a division by 10 is a fact of its own
    if b == 10 or not (tens and units):
        return chain(f"{a} / {b}", quotient)
    return chain(f"{a} / {b}", f"{tens * b} / {b} + {units * b} / {b}", (tens, units), quotient)


# ------------------------------------------------------------------------------------------------ families
# Each is a function (rng, level) -> slots, trace, answer. Draws stay in their order, also those that a level
# does not use: otherwise every seed makes other problems.
def story(rng, level):
    start = between(rng, 12, 90)
    moves, trace, total, _ = changes(rng, start, level, 99)
    return {"start": start, "moves": moves}, trace, total


def product(rng, level):
    a = between(rng, 11, 99)
    b = between(rng, 2, 9)
    moves, trace, total, amounts = changes(rng, a * b, level - 1, 999)
    terms = [pick(rng, (f"{a} times {b}", f"{b} times {a}"))]
    for amount in amounts:
        terms.append(f"plus {amount}" if amount > 0 else f"minus {-amount}")
    # serves two families: rate tells the moves as sentences, product as terms
    slots = {"a": a, "b": b, "moves": moves, "terms": " ".join(terms)}
    return slots, f"{multiplication(a, b)} {trace}", total


def coins(rng, level):
    first, second = sample(rng, THINGS, 2)
    n = between(rng, 2, 5)
    # level 3 buys up to five of them, so one costs less
    price = between(rng, 11, 49 if level == 3 else 95)
    second_price = between(rng, 11, 95)
    goods = f"a {first} at {price} cents"
    total = price
    steps = []
    if level == 3:
        goods = f"{n} {first}s at {price} cents each"
        total = price * n
        steps.append(multiplication(price, n))
    if level > 1:
        goods += f" and a {second} at {second_price} cents"
        steps.append(addition(total, second_price))
        total += second_price
    # the next full dollar, or half a dollar where that is enough
    pay = 50 if total < 50 and rng.random() < 0.5 else total // 100 * 100 + 100
    steps.append(subtraction(pay, total))
    return {"goods": goods, "pay": pay}, " ".join(steps), pay - total


def fraction(rng, level):
    percent = level == 3 and rng.random() < 0.5
    denominator = 10 if percent else between(rng, 2 if level == 1 else 3, 9)
    each = between(rng, 2, 19 if level == 3 else 12)  # things in one part
    numerator = 1 if level == 1 else between(rng, 2, denominator - 1)
    n = each * denominator
    answer = each * numerator
    part = f"{10 * numerator} percent" if percent else f"{numerator}/{denominator}"
    fate = "given away"
    steps = [division(n, denominator)]
    if level > 1:
        steps.append(multiplication(each, numerator))
    if level == 3:
        fate = "left"
        steps.append(subtraction(n, answer))
        answer = n - answer
    return {"n": n, "part": part, "fate": fate}, " ".join(steps), answer


def units(rng, level):
    large, small, size, most = pick(rng, UNITS).split()
    size = int(size)
    n = between(rng, 4 if level == 3 else 2, int(most))
    # level 3 adds two small amounts, which together make at most one large unit
    top = size // 2 if level == 3 else size - 1
    first = between(rng, 2, top)
    second = between(rng, 2, top)
    moved = between(rng, 2, max(n - 2, 2))  # large units of the second amount at level 3
    amount = f"{n} {large}"
    total = n * size
    steps = [f"{large} to {small}: x {size}. {multiplication(max(n, size), min(n, size))}"]
    if level == 2:
        amount += f" and {first} {small}"
        steps.append(addition(total, first))
        total += first
    if level == 3:
        amount = f"{n - moved} {large} and {first} {small} plus {moved} {large} and {second} {small}"
        both = first + second
        steps = [addition(n - moved, moved), *steps, addition(first, second), addition(total, both)]
        total += both
    return {"amount": amount, "small": small}, " ".join(steps), total


def clock(rng, level):
    # only level 3 may pass midnight
    hour = between(rng, 12, 23) if level == 3 else between(rng, 1, 12)
    minute = between(rng, 0, 59)
    hours = (0, between(rng, 2, 9), between(rng, 10, 19))[level - 1]
    minutes = between(rng, 5, 59)
    duration = f"{minutes} minutes"
    terms = [hour]
    if hours:
        duration = f"{hours} hours and {duration}"
        terms.append(hours)
    total = minute + minutes
    steps = [addition(minute, minutes)]
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
    month = pick(rng, MONTHS)
    day = between(rng, 1, 20 if level == 1 else 28)
    left = LENGTHS[month] - day
    # level 1 stays in the month, level 2 ends in the next, level 3 goes further
    low, high = ((2, left), (left + 1, left + 28), (40, 65))[level - 1]
    n = between(rng, low, high)
    slots = {"date": f"{month} {day}", "n": n}
    steps = [addition(day, n)]
    total = day + n
    while total > LENGTHS[month]:
        steps.append(f"{month} {LENGTHS[month]}: {subtraction(total, LENGTHS[month])}")
        total -= LENGTHS[month]
        month = MONTHS[(MONTHS.index(month) + 1) % 12]
    return slots, f"{' '.join(steps)} {month} {LENGTHS[month]}: {month} {total}.", f"{month} {total}"


def weekday(rng, level):
    start = between(rng, 0, 6)
    month = pick(rng, MONTHS)
    low, high = ((2, 13), (14, 69), (70, 365))[level - 1]
    n = between(rng, low, high)
    # the date beside the day has no effect on the answer
    slots = {"day": f"{DAYS[start]}, {month} {between(rng, 1, LENGTHS[month])}", "n": n}
    rest = n
    steps = []
    for size in (70, 7) if level == 3 else (7,):
        steps.append(chain(f"{rest} - {rest // size * size}", rest % size))
        rest %= size
    walk = join(f"{k} {DAYS[(start + k) % 7]}" for k in range(rest + 1))
    return slots, f"{' '.join(steps)} {walk}.", DAYS[(start + rest) % 7]


def largest(rng, level):
    low = 100 if level == 3 else 10
    ask, best = pick(rng, (("largest", max), ("smallest", min)))
    items = sample(rng, range(low, 10 * low), (3, 4, 6)[level - 1])
    items = move_from_end(rng, items, best(items))
    # compared one by one: the best so far, the next item, the better of the two
    records = [*accumulate(items, best)]
    steps = " ".join(f"{a} or {x}: {b}." for a, x, b in zip(records, items[1:], records[1:]))
    return {"ask": ask, "list": join(items)}, f"{ask}: {steps}", records[-1]


def odd(rng, level):
    names = ("even", "odd")
    parity = between(rng, 0, 1)
    low = 100 if level == 3 else 10
    answer = pick(rng, range(low + parity, 10 * low, 2))
    others = sample(rng, range(low + 1 - parity, 10 * low, 2), level + 2)
    items = move_from_end(rng, sample(rng, [answer, *others], level + 3), answer)
    steps = join(f"{x} {names[x % 2]}" for x in items)
    return {"ask": names[parity], "list": join(items)}, f"{steps}. So {answer}.", answer


def sort(rng, level):
    items = sample(rng, range(10, 100), level + 2)
    down = between(rng, 0, 1)
    # insertion sort: each step sorts one item more
    steps = [join(sorted(items[: i + 1], reverse=down)) for i in range(len(items))]
    order = "largest to smallest" if down else "smallest to largest"
    return {"list": join(items), "order": order}, ". ".join(steps) + ".", steps[-1]


def order(rng, level):
    more, less, most, least = pick(rng, ORDERS).split()
    people = sample(rng, NAMES, level + 2)  # in the true order
    # level 3 turns half of the clauses round: "Ben is shorter than Ann."
    turned = rng.random(level + 1) < (0.5 if level == 3 else 0)
    clauses = []
    for turn, a, b in zip(turned, people, people[1:]):
        clauses.append(f"{b} is {less} than {a}." if turn else f"{a} is {more} than {b}.")
    ask, answer = pick(rng, ((most, people[0]), (least, people[-1])))
    slots = {"clauses": " ".join(sample(rng, clauses, len(clauses))), "ask": ask}
    return slots, f"{most} {join(people)} {least}. So {answer}.", answer


def logic(rng, level):
    *path, role, other = sample(rng, ROLES, level + 3)
    verdict = pick(rng, ("yes", "no", "unknown"))
    any_word = pick(rng, ("Every", "No"))
    last_word = {"yes": "Every", "no": "No"}.get(verdict, any_word)
    words = ["Every"] * (level - 1) + [last_word]
    rules = [f"{word} {a} is a {b}." for word, a, b in zip(words, path, path[1:])]
    # a rule about a role that nobody is known to have: nothing follows from it
    beside = f"{pick(rng, ('Every', 'No'))} {role} is a {other}."
    first = f"{{name}} is a {path[0]}."
    goal = path[-1]
    steps = [first, *rules]
    if verdict == "unknown":
        goal = other
        steps.append(f"Nothing about a {goal}.")
    facts = " ".join([first, *sample(rng, [*rules, beside], level + 1)])
    return {"facts": facts, "goal": goal}, f"{' '.join(steps)} So {verdict}.", verdict


def count(rng, level):
    alphabet = sample(rng, LETTERS, 3)
    letters = [alphabet[i] for i in rng.integers(3, size=(5, 8, 12)[level - 1])]
    letter = pick(rng, letters)
    total = letters.count(letter)
    # each letter with the count so far
    steps = join(f"{x} {letters[: i + 1].count(letter)}" for i, x in enumerate(letters))
    return {"letters": " ".join(letters), "letter": letter}, f"{letter}: {steps}. So {total}.", total


def about(rng, level):
    subject = pick(rng, [*SUBJECTS])
    month = pick(rng, MONTHS)
    day = pick(rng, DAYS)
    trace = f"This is about {subject}. What is good: {SUBJECTS[subject]}."
    return {"subject": subject, "when": f"{month} on {day}" if level > 1 else month}, trace, SUBJECTS[subject]


# ------------------------------------------------------------------------------------------------ table
# Functions problem -> wrong answers that look plausible; the right answer may be among them.
def near_numbers(problem):
    """The answer with its last number changed a little; a time stays a time and a date a date."""
    head, last = re.fullmatch(r"(.*?)(\d+)", problem["answer"]).groups()
    digits, top = {"clock": (2, 59), "date": (1, 28)}.get(problem["family"], (1, np.inf))
    values = [int(last) + change for change in (-10, -2, -1, 1, 2, 10)]
    return [f"{head}{value:0{digits}}" for value in values if 0 < value <= top]


def exchanged_neighbours(problem):
    """The list with two neighbours exchanged, for each pair of them."""
    items = problem["answer"].split(", ")
    answers = []
    for i in range(len(items) - 1):
        exchanged = items.copy()
        exchanged[i] = items[i + 1]
        exchanged[i + 1] = items[i]
        answers.append(join(exchanged))
    return answers


numbers_asked = lambda problem: re.findall(r"\d+", problem["question"])
people_asked = lambda problem: [word for word in re.findall(r"\w+", problem["question"]) if word in NAMES]


def near_days(problem):
    i = DAYS.index(problem["answer"])
    return [DAYS[(i + k) % 7] for k in (-2, -1, 1, 2)]


@dataclass
class Family:
    draw: Callable  # (rng, level) -> slots, trace, answer
    kind: str = "number"  # kind of the answer: number, text, list or open
    wrong: Callable = near_numbers  # problem -> wrong answers


FAMILIES = {
    "story": Family(story),
    "rate": Family(product),
    "product": Family(product),
    "coins": Family(coins),
    "fraction": Family(fraction),
    "units": Family(units),
    "clock": Family(clock, "text"),
    "date": Family(date, "text"),
    "weekday": Family(weekday, "text", near_days),
    "largest": Family(largest, wrong=numbers_asked),
    "odd": Family(odd, wrong=numbers_asked),
    "sort": Family(sort, "list", exchanged_neighbours),
    "order": Family(order, "text", people_asked),
    "logic": Family(logic, "text", lambda problem: ["yes", "no", "unknown"]),
    "count": Family(count),
    "open": Family(about, "open", lambda problem: [*SUBJECTS.values()]),
}
CHECKED = [name for name in FAMILIES if name != "open"]


# ------------------------------------------------------------------------------------------------ problems
def make(rng, family=None, level=None, unseen=False):
    """A problem, by default of any family and any level from 1 to 3; with `unseen` in the sentence that
    training never shows."""
    if family is None:
        family = "open" if rng.random() < OPEN else pick(rng, CHECKED)
    level = level or between(rng, 1, 3)
    slots, trace, answer = FAMILIES[family].draw(rng, level)
    slots["name"], slots["friend"] = sample(rng, NAMES, 2)
    slots["things"] = pick(rng, THINGS) + "s"
    *usual, new = SENTENCES[family]

    def fill(text):
        # format twice, as a slot may itself contain {name}; an empty slot leaves a second space
        return " ".join(text.format(**slots).format(**slots).split())

    return {
        "question": fill(new if unseen else pick(rng, usual)),
        "trace": fill(trace),
        "answer": str(answer),
        "family": family,
        "level": level,
        "kind": FAMILIES[family].kind,
    }


def hasty_answer(problem, rng, right=0.35):
    """(trace, answer) without any working: right in a share `right` of the cases, else plausible but
    wrong."""
    answer = problem["answer"]
    if rng.random() >= right:
        candidates = FAMILIES[problem["family"]].wrong(problem)
        answer = pick(rng, [candidate for candidate in candidates if candidate != answer])
    return HASTY_TRACE.format(answer), answer


# Whether a question is kept for evaluation. It depends on the text alone, so no seed can mix the splits.
is_held_out = lambda question: zlib.crc32(question.encode()) % 10 == 0
