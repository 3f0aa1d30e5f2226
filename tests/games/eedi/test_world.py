"""The world of Eedi: every wrong answer has one explanation, labels share their words, some are unseen."""

import itertools
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from games.eedi.world import (
    ERRORS,
    FAMILIES,
    LABELS,
    LETTERS,
    NAMES,
    OWNERS,
    STRAND_OF,
    STRANDS,
    SUBJECTS,
    all_answers,
    clear_errors,
    held_out,
    is_unseen,
    question,
)

IDS = range(len(LABELS))
OPTION = [f"Answer{letter}Text" for letter in LETTERS]
LABEL = [f"Misconception{letter}Id" for letter in LETTERS]
COLUMNS = ["QuestionId", "ConstructId", "ConstructName", "SubjectId", "SubjectName", "CorrectAnswer"]
COLUMNS += ["QuestionText", *OPTION, *LABEL]


@pytest.fixture(scope="module")
def rows():
    """{unseen: 6000 rows}"""
    return {unseen: draws(6000, unseen=unseen) for unseen in (False, True)}


def draws(n, seed=0, unseen=False):
    rng = np.random.default_rng(seed)
    return [question(rng, i, unseen) for i in range(n)]


def labels_of(row):
    """The labels of the wrong answers."""
    return [row[name] for name in LABEL if row[name] is not None]


def answers_of(row):
    """All answers of the question's family, worked out from the numbers in its text."""
    family = FAMILIES[row["ConstructId"]]
    names = NAMES[: len(family.ranges)]
    for sentence in family.sentences:
        marked = re.escape(sentence.substitute({name: f"@{name}@" for name in names}))
        pattern = re.sub("@(.)@", r"(?P<\1>\\d+)", marked)
        if found := re.fullmatch(pattern, row["QuestionText"]):
            return all_answers(family, [int(found[name]) for name in names])
    raise AssertionError(row)


# ------------------------------------------------------------------------------------------------ labels
def test_labels_are_different_sentences_that_families_share():
    assert len(FAMILIES) >= 28 and len({family.construct for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert len(family.labels) >= 4 and len(family.sentences) >= 3
        for error, i in family.labels.items():
            assert OWNERS[i] == (STRAND_OF[family.subject], error)
    assert {i for family in FAMILIES for i in family.labels.values()} == {*IDS}
    assert {strand for strand, _ in OWNERS} == {*STRANDS} == {*STRAND_OF.values()}
    assert len({text.casefold() for text in LABELS}) == len(LABELS) >= 110
    for text in LABELS:
        assert text == " ".join(text.split()) and text[0].isupper() and not re.search("[{}|$]", text)
    families = Counter(error for family in FAMILIES for error in family.labels)
    assert {*families} == {*ERRORS}
    assert sum(n >= 3 for n in families.values()) >= 0.75 * len(families)


def test_one_label_in_seven_is_unseen_and_its_words_are_not():
    """Two seen labels in other strands have the error of an unseen label; its strand is seen, too."""
    unseen, seen = ([i for i in IDS if is_unseen(i) == x] for x in (True, False))
    assert abs(len(unseen) / len(LABELS) - 1 / 7) < 0.01 and len({OWNERS[i][0] for i in unseen}) > 8
    for i in unseen:
        assert sum(OWNERS[i][1] == OWNERS[j][1] for j in seen) >= 2, LABELS[i]
    assert all(sum(not is_unseen(i) for i in family.labels.values()) >= 3 for family in FAMILIES)
    words = lambda labels: {word for i in labels for word in LABELS[i].lower().split()}
    assert words(unseen) <= words(seen)


# ------------------------------------------------------------------------------------------------ rows
def test_rows_have_the_columns_of_eedi(rows):
    for number, row in enumerate(rows[True]):
        family = FAMILIES[row["ConstructId"]]
        assert [*row] == COLUMNS and row["QuestionId"] == number
        assert row["ConstructName"] == family.construct
        assert row["SubjectName"] == SUBJECTS[row["SubjectId"]] == family.subject
        for text in (row[name] for name in ("QuestionText", *OPTION)):
            assert text == text.strip() and "None" not in text and not re.search(r"\$|\d\.\d{4}|e\+", text)
            assert text.count(r"\(") == text.count(r"\)") and text.count("{") == text.count("}")
    counts = Counter(row["CorrectAnswer"] for row in rows[True])
    assert min(counts.values()) > 0.22 * len(rows[True])


def test_the_right_answer_has_no_label_and_every_wrong_one_has_one_explanation(rows):
    """An error that is not shown may lead to the right answer, but never to a wrong answer that is shown. In
    training this holds for the unseen errors, too."""
    for unseen, row in [(unseen, row) for unseen, found in rows.items() for row in found]:
        family = FAMILIES[row["ConstructId"]]
        answers = answers_of(row)
        given = [answers.get(error) for error in ("right", *family.labels)]
        assert len({row[name] for name in OPTION}) == 4
        assert row[f"Misconception{row['CorrectAnswer']}Id"] is None
        assert len(labels_of(row)) == 3 and {*labels_of(row)} <= {*family.labels.values()}
        assert unseen or not any(map(is_unseen, labels_of(row)))
        for option, label in zip(OPTION, LABEL):
            error = "right" if row[label] is None else OWNERS[row[label]][1]
            assert answers[error] == row[option]
            assert error == "right" or given.count(row[option]) == 1, row


def test_every_label_is_shown_often(rows):
    for unseen, found in rows.items():
        shown = Counter(label for row in found for label in labels_of(row))
        assert {*shown} == {i for i in IDS if unseen or not is_unseen(i)}
        assert min(shown.values()) >= 25, min(shown, key=shown.get)
        assert sum(n >= 60 for n in shown.values()) >= 0.9 * len(shown)


def test_families_have_at_least_400_questions():
    """Counts the questions of training; the same values in another sentence are another question."""
    for family in FAMILIES:
        some = itertools.product(*family.ranges)
        fit = (values for values in some if len(clear_errors(family, all_answers(family, values))) >= 3)
        n = len({*itertools.islice(fit, 140)}) * len({x.template for x in family.sentences})
        assert n >= 400, (family.construct, n)


def test_questions_are_functions_of_the_generator(rows):
    assert draws(50, seed=3) == draws(50, seed=3) != draws(50, seed=4)
    assert draws(100) == rows[False][:100]
    shares = Counter(row["ConstructId"] for row in rows[False])
    assert len(shares) == len(FAMILIES) and max(shares.values()) < 2 * min(shares.values())


def test_a_tenth_of_the_questions_is_held_out(rows):
    texts = {row["QuestionText"] for row in rows[False] + rows[True]}
    assert 0.09 < np.mean([held_out(text) for text in texts]) < 0.11


# ------------------------------------------------------------------------------------------------ answers
# fmt: off
HAND = [  # beginning of a construct, values, and answers worked out by hand
    ("Carry out an addition and", (2, 3, 4), dict(right="14", leftright="20", adds="9", leaves="5")),
    ("Add a positive", (7, 3), dict(right="-4", unsigned="10", reversed="4", subtracts="-10")),
    ("Add two decimals", (3, 7, 2, 6), dict(right="6.3", uncarried="5.3", wholes="5.13", pointless="63")),
    ("Add two fractions", (3, 5, 1, 2), dict(right=r"\( \frac{11}{10} \)", bottom=r"\( \frac{4}{5} \)")),
    ("Multiply two fractions", (2, 5, 3, 7),
     dict(right=r"\( \frac{6}{35} \)", flipped=r"\( \frac{14}{15} \)")),
    ("Calculate a percentage", (30, 60), dict(right="18", ten="180", rest="42", tenth="1.8", start="78")),
    ("Increase an amount", (20, 50), dict(right="£60", stops="£10", amount="£70", subtracts="£40")),
    ("Calculate the area of a triangle", (6, 4, 5), dict(right="12 square cm", slant="15 square cm")),
    ("Multiply two powers", (3, 5),
     dict(right="\\( x^{8} \\)", side="\\( x^{35} \\)", leaves="\\( x^{3} \\)")),
    ("Expand a single", (3, 2, 5),
     dict(right=r"\( 6x - 15 \)", first=r"\( 6x - 5 \)", unsigned=r"\( 6x + 15 \)")),
    ("Solve a linear", (3, 4, 19),
     dict(right=r"\( x = 5 \)", undivided=r"\( x = 15 \)", takes=r"\( x = 12 \)")),
    ("Share an amount", (20, 2, 3), dict(right="8", rest="12", stops="4", takes="15")),
    ("Find the median", (9, 2, 3, 6), dict(right="4.5", unsorted="2.5", unhalved="9", largest="9")),
    ("Add a number of minutes", (3, 45, 30),
     dict(right="4:15", uncarried="3:15", hundred="3:75", more="5:15")),
    ("Convert from metres", (3, 7),
     dict(right="370 cm", wholes="307 cm", tenth="37 cm", pointless="3700 cm")),
    ("Find the gradient", (1, 2, 4, 7), dict(right=r"\( \frac{5}{3} \)", reversed=r"\( \frac{-5}{3} \)")),
]
# fmt: on


@pytest.mark.parametrize("start, values, expected", HAND, ids=[x[0] for x in HAND])
def test_answers_worked_out_by_hand(start, values, expected):
    (family,) = [x for x in FAMILIES if x.construct.startswith(start)]
    answers = all_answers(family, values)
    assert {error: answers[error] for error in expected} == expected


# The right answers again, as numbers, from nothing but the text of the question.
ints = lambda text: [int(x) for x in re.findall(r"\d+", text)]
decimals = lambda text: [Fraction(x) for x in re.findall(r"\d+\.\d+|\d+", text)]


def number(text):
    """The number in an answer, without units."""
    if found := re.search(r"\\frac{(-?\d+)}{(\d+)}", text):
        return Fraction(int(found[1]), int(found[2]))
    return Fraction(re.search(r"-?\d+(\.\d+)?", text)[0])


def sequence(text):
    first, step, n = (ints(text)[i] for i in ((1, 2, 0) if text.startswith("What") else (0, 1, 2)))
    return first + step * (n - 1)


def percent(text):
    rate = int(re.search(r"(\d+) ?\\?%", text)[1])
    (amount,) = [x for x in ints(text) if x != rate] or [rate]
    return amount, Fraction(rate, 100)


def substituted(text):
    a, power, b = re.search(r"(\d+)x(\^2)? \+ (\d+)", text).groups()
    return int(a) * int(re.search(r"x = (\d+)", text)[1]) ** (2 if power else 1) + int(b)


def speed(text):
    return Fraction(60 * int(re.search(r"(\d+) km\b", text)[1]), int(re.search(r"(\d+) minutes", text)[1]))


SOLVERS = {
    "Carry out an addition": lambda text: ints(text)[0] + ints(text)[1] * ints(text)[2],
    "Carry out a calculation with a power": lambda text: ints(text)[0] + ints(text)[1] ** ints(text)[2],
    "Multiply a decimal": lambda text: decimals(text)[0] * decimals(text)[1],
    "Add two decimals": lambda text: sum(decimals(text)),
    "Add two fractions": lambda text: Fraction(*ints(text)[:2]) + Fraction(*ints(text)[2:]),
    "Multiply two fractions": lambda text: Fraction(*ints(text)[:2]) * Fraction(*ints(text)[2:]),
    "Add a positive number": lambda text: ints(text)[1] - ints(text)[0],
    "Multiply a bracket": lambda text: -ints(text)[0] * sum(ints(text)[1:]),
    "Interpret the remainder": lambda text: -(-max(ints(text)) // min(ints(text))),
    "Calculate a percentage": lambda text: percent(text)[0] * percent(text)[1],
    "Increase an amount": lambda text: percent(text)[0] * (1 + percent(text)[1]),
    "Calculate the volume": lambda text: np.prod(ints(text)),
    "Calculate with the square root": lambda text: ints(text)[0] ** 0.5 + ints(text)[1],
    "Calculate the simple interest": lambda text: Fraction(np.prod(ints(text)).item(), 100),
    "Calculate the area of a rectangle": lambda text: np.prod(ints(text)),
    "Calculate the area of a triangle": lambda text: Fraction(ints(text)[0] * ints(text)[1], 2),
    "Calculate the perimeter": lambda text: 2 * sum(ints(text)),
    "Substitute a number into a linear": substituted,
    "Substitute a number into an expression": substituted,
    "Calculate a speed": speed,
    "Find the gradient": lambda text: Fraction(ints(text)[3] - ints(text)[1], ints(text)[2] - ints(text)[0]),
    "Calculate the probability": lambda text: Fraction(ints(text)[0], sum(ints(text))),
    "Solve a linear equation": lambda text: Fraction(ints(text)[2] - ints(text)[1], ints(text)[0]),
    "Find a given term": sequence,
    "Calculate the mean": lambda text: Fraction(sum(ints(text)), len(ints(text))),
    "Find the median": lambda text: Fraction(sum(sorted(ints(text))[1:3]), 2),
    "Find the range": lambda text: sorted(ints(text))[-1] - sorted(ints(text))[0],
    "Convert from metres": lambda text: decimals(text)[0] * 100,
    "Find a missing angle in a triangle": lambda text: 180 - sum(ints(text)),
}


@pytest.mark.parametrize("start", SOLVERS)
def test_right_answers_are_those_of_the_question(start, rows):
    found = [row for row in rows[True] if row["ConstructName"].startswith(start)]
    assert len(found) > 80
    for row in found:
        right = row[f"Answer{row['CorrectAnswer']}Text"]
        assert number(right) == SOLVERS[start](row["QuestionText"]), row
