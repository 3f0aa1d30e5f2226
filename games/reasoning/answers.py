"""The parts of a reply, whether its answer is right, and its rewards.

Read `parse` for the form, `equal` for the answer, then `rewards_of`: the metrics and the reinforcement both
use its rewards."""

import re
import textwrap
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

TAG = re.compile("</?(?:reasoning|answer)>")
LOOSE = re.compile(r"<reasoning>(.*?)</reasoning>.*?<answer>(.*?)</answer>", re.S)
LONGEST_ANSWER = 400  # characters of an answer that is read for more than its text


def table(text):
    """[(pattern, replacement)] from the lines of a table "pattern => replacement"."""
    rules = [line.strip().partition(" =>") for line in text.strip().splitlines()]
    return [(re.compile(pattern), new.strip().replace("' '", " ")) for pattern, _, new in rules]


# Markdown and LaTeX; ' ' is a space, no replacement deletes
RULES = table(r"""
    [\u2010-\u2015\u2212\ufe63\uff0d] => -
    (?<!\w)([*_`]{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w) => \2
    \{,\}|,\\! => ,
    \\\\ => |
    \\[,;: ]|~|\\q?quad(?![a-z]) => ' '
    \\!|\\(?:left|right|[bB]igg?[lr]?|displaystyle)(?![a-zA-Z])|\\[()\[\]] =>
    (?<=\d)\\?[$€£¥₹] => ' '
    (?:\b[A-Z]{1,3})?\\?[$€£¥₹]\s* =>
    \b(?:USD|EUR|GBP|INR|Rs\.?)\s*(?=[-+.\d]) =>
    \\%|\bper ?cent\b => %
    \^?\s*\{?\\circ\}?|° => ' 'degrees' '
    \\(?:text|math)[a-z]*\s*\{([^{}]*)\}|\\mbox\s*\{([^{}]*)\} => ' '\1\2' '
    \\[dtc]?frac\s*(?:\{([^{}]*)\}|(\w))\s*(?:\{([^{}]*)\}|(\w)) => ' '(\1\2)/(\3\4)
    \\sqrt\s*\[(\w+)\]\s*\{([^{}]*)\} => root\1(\2)
    (?:\\sqrt|√)\s*(?:\{([^{}]*)\}|(\w)|(?=\()) => sqrt(\1\2)
    sqrt\(\)\( => sqrt(
    ([\^_])\s*\{([^{}]*)\} => \1(\2)
    ([\^_])\((-?\w+)\) => \1\2
    (?<![\w)/])\(\s*(-?[\w.]+|-?\w*sqrt\([\w.]+\))\s*\)(?=\s*/) => \1
    /\((\d+|[a-zA-Z]|sqrt\(\w+\))\)(?![\w(^]) => /\1
    \\(?:cdot|times)(?![a-z])|[·⋅×] => *
    \\pi(?![a-z])|π => pi
    \\infty|∞ => inf
    \\pm|\+/- => ±
    \\cup => ∪
    \\in(?![a-z]) => ∈
    \\leq?(?![a-z])|<= => ≤
    \\geq?(?![a-z])|>= => ≥
    \\lbrace|\\\{ => {
    \\rbrace|\\\} => }
""")
MARKS = "\"'“”‘’`*_()[]{} "
VARIABLE = r"(?<![^\s,;])[a-z](?:_\w+|\([a-z]\))?\s*[=∈]\s*(?=\S)"
BOX = re.compile(r"\\f?boxed\s*\{([^{}]*)\}")
TERM_RULES = table(r"""
    (?<=[\w)])\*(?=[a-z(]) =>
    (?<![\w)/])\((-?[\w.]+|-?\w*sqrt\([\w.]+\))\)(?![\w(^]) => \1
    /\((\d+|[a-z]|sqrt\(\w+\))\)(?![\w(^]) => /\1
""")
DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
# sign; whole part, numerator and denominator of a fraction; or a decimal number
NUMBER = re.compile(
    rf"(?:([-+])\s*)?(?:(?:({DIGITS})\s+)?({DIGITS})\s*/\s*({DIGITS})(?![.,]?\d)|({DIGITS}(?:\.\d+)?|\.\d+))"
)
UNIT = (
    r"(?:(?:square|cubic)\s+)?(?:[mcdk]?m|in|inch(?:es)?|f(?:oo|ee)?t|yd|yards?|mi|miles?|units?|degrees?|dollars?"
    r"|cents?|%|(?:centi|kilo|milli)?met(?:er|re)s?)"
)
POWER = r"(?:\s*\^\s*[23]|[23²³])"
# "18 - x" and "x - 18" are terms, "is - 18" is a number
SPACED_SIGN = r"(?i)(?<=[\w)])(?<!\bis)\s+[-+]\s+[\d.]|\b[a-z]\s+[-+]\s*[\d.]"
MONTHS = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b"
)
# what makes the number in a text, here \0, something else
NO_NUMBER = re.compile(
    rf"""
    [<>|+^&\\*×÷±²³¹¼-¾⁰-₟⅐-↋←-⇿∀-≇≉-⋿]                  # operators and raised digits, anywhere
    | [a-z_.)\]]\0 | [a-z]\(\s*\0 | \0[(!]                 # x18, No.18, f(18), 18(2), 18!
    | [-+/]\s*\0 | \0\s*[:+] | \0\s*-(?![a-z][a-z]) | \0\s*/(?!\s?[a-z][a-z])  # but 10-year-old, 18/hour
    | \0[a-z](?<![cdghlmpst])\b | \0\s+[bjknqruvwxyz]\b     # 18x, 18 n, but units such as 18m and 18 h
    | \0\s*(?-i:[KMB])\b | \0\s*[ap]\.?m\b                  # 18K, 18 pm
    | \b(?:than|least|most|twice|double)\s+\0
    | \b(?:hundred|thousand|[mbtr]+illion|dozens?|half|and\ a\ quarter|squared|cubed|factorial|plus|minus)\b
    | \b(?:sqrt|root|log|ln|sin|cos|tan|exp|mod|pi)\b
    | \b{MONTHS}\.?\s+\0 | \0(?:st|nd|rd|th)?\s+(?:of\s+)?{MONTHS}
    """,
    re.I | re.X,
)


# ------------------------------------------------------------------------------------------------ form
@dataclass
class Parsed:
    reasoning: str = ""
    answer: str = ""
    loose: bool = False  # both pairs of tags occur somewhere
    strict: bool = False  # each tag once, in order, nothing outside, nothing empty


def parse(text):
    """The parts of a reply."""
    match = LOOSE.search(text)
    if not match:
        return Parsed()
    reasoning = match[1].strip()
    answer = match[2].strip()
    # four tags cut a strict reply into five pieces; the first, third and last lie outside the pairs
    pieces = TAG.split(text)
    nothing_outside = len(pieces) == 5 and not "".join(pieces[::2]).strip()
    return Parsed(reasoning, answer, True, bool(nothing_outside and reasoning and answer))


def parse_growing(text):
    """(thoughts, answer) in an unfinished reply so far. What may be the beginning of a tag is held back."""
    head, mark, tail = text.rpartition("<")
    if mark and ">" not in tail:
        text = head
    thoughts, _, rest = text.removeprefix("<reasoning>").partition("</reasoning>")
    answer = rest.partition("<answer>")[2].partition("</answer>")[0]
    return thoughts, answer


def write_reply(reasoning, answer):
    return f"<reasoning>{reasoning}</reasoning>\n<answer>{answer}</answer>"


# ------------------------------------------------------------------------------------------------ answers
def plain(text):
    """A short text without Markdown's emphasis and LaTeX's commands, by RULES: "**Yes**" is "Yes" and
    "\\frac{1}{2}" is "1/2". If exactly one \\boxed{} is in it, only what that holds. A long text stays."""
    if len(text) > LONGEST_ANSWER:
        return text
    for _ in range(20):  # from the innermost braces outwards
        before = text
        for pattern, new in RULES:
            text = pattern.sub(new, text)
        if text == before:
            break
    boxes = BOX.findall(text)
    return boxes[0] if len(boxes) == 1 else text


def read_number(text):
    """The number that a text states, as a Fraction, or None. A currency, a unit, a per cent sign and words
    may surround it, and it may come twice as in "18, that is 18.0". What is a number and what is none:

        -$18 = - 18 = \u221218 = minus 18        2+2, 3 x 4, 2^3, 5 - 3, x - 3, 5!, 3x, sqrt(9), 9(2)
        $1,200.50, 1/2 = .5, 2 1/2 = 2.5    1,2,00, 1 200, 12:12, 3 pm, 1:2, 1/2/2020, May 5, 1.2.3
        18., **18**, $18$, \\boxed{18}       17 or 18, 5 million, 2 dozen, > 5, nan, x2, eighteen
    """
    # an answer is short: no number is looked for in a long text
    if len(text) > 200:
        return None
    text = re.sub(rf"(?i)(\d\s*{UNIT}){POWER}(?!\w)", r"\1", plain(text))
    text = re.sub(r"(?i)\b(?:negative|minus)\s+(?=[\d.])", "-", text).strip("* ")
    values = set()
    for match in NUMBER.finditer(text):
        sign, *groups = match.groups()
        whole, top, bottom, decimal = (Fraction((group or "0").replace(",", "")) for group in groups)
        if match[4]:
            if not bottom:
                return None
            decimal = whole + top / bottom
        values.add(-decimal if sign == "-" else decimal)
    if len(values) != 1 or re.search(SPACED_SIGN, text):
        return None
    rest = NUMBER.sub("\0", text)
    # the same number twice counts once if the text says so: "18, that is 18.0"
    twice = all(re.search(r"=|\bis\b", part) for part in rest.split("\0")[1:-1])
    return values.pop() if twice and not NO_NUMBER.search(rest) else None


def normalise(text):
    """The text in lower case with single spaces, without emphasis and without marks at its ends."""
    text = " ".join(plain(text).casefold().split())
    return text.lstrip(MARKS).rstrip(f"{MARKS}.!?,;:")


def list_items(text):
    """The items of a list as numbers or texts, in order. Brackets around it and commas may be any."""
    items = []
    for part in re.split(r",|;|\band\b|\s", plain(text)):
        item = read_number(part)
        items.append(normalise(part) if item is None else item)
    return tuple(item for item in items if item != "")


def depths(text):
    """For each character, how many brackets are open behind it."""
    return [*accumulate((mark in "([{") - (mark in ")]}") for mark in text)]


def split_outside(text, marks):
    """The parts of a text between marks that stand outside all brackets."""
    cuts = [i for i, depth in enumerate(depths(text)) if depth == 0 and text[i] in marks]
    return [text[start + 1 : end].strip() for start, end in zip([-1, *cuts], [*cuts, len(text)])]


def read_math(text):
    """An answer as MATH has them, in a form that is equal for equal answers, or None. By rules, never run:

        x = 5, 5\\text{ cm}, 5.0, \\$5        the number 5; 0.5, \\frac12, 1/2 and 50/100 are one number
        \\{1, 2\\} = \\{2, 1\\}               sets; so are roots (2 or 1) and unions of intervals
        (1, 2), [1, 2), [1, 2]             points and intervals, in order and with their brackets
        1 \\pm \\sqrt{2}                      the two roots 1 + sqrt(2) and 1 - sqrt(2)
        \\frac{\\sqrt{3}}{2} = sqrt(3)/2      the same signs, spelled otherwise; terms of a sum in any order
        \\text{Evelyn}, (A) = A              texts without case

    Nothing is calculated: \\sqrt{8} is not 2\\sqrt{2}, as a question's own term must not answer it."""
    text = re.sub(r"\s+(?:and|or)\s+", ",", plain(text).casefold()).strip().rstrip(". ")
    both = lambda match: ",".join(match[0].replace("±", sign) for sign in "+-")
    text = re.sub(r"[^,;{}\[\]]+±[^,;{}\[\]]+", both, text)
    # of one variable only: x = 1, y = 2 is not x = 2, y = 1
    if len(set(re.findall(VARIABLE, text))) == 1:
        text = re.sub(VARIABLE, "", text)
    return read_form(text) if len(text) <= LONGEST_ANSWER else None


def read_form(text):
    """The form of a text that `plain` has been over, or of a part of it; None if it says nothing."""
    if not re.search(r"[\w∅]", text):
        return None
    parts = split_outside(text, "∪")
    if len(parts) > 1:
        return "union", frozenset(map(read_form, parts))
    if text[0] in "([{" and 0 not in depths(text)[:-1]:
        items = tuple(map(read_form, split_outside(text[1:-1], ",;")))
        if text[0] == "{":
            return "set", frozenset(items)
        return (text[0], *items, text[-1]) if len(items) > 1 else items[0]
    number = None if re.search(r"\d[a-z]\b|=", text) else read_number(text)
    if number is not None:
        return number
    parts = split_outside(text, ",;")
    if len(parts) > 1:
        return "roots", frozenset(map(read_form, parts))
    return read_term(re.sub(rf"\s+{UNIT}{POWER}?$", "", text))


def read_term(text):
    """An expression or a word without spaces, needless brackets and signs of products, its terms sorted."""
    text = re.sub(r"\s+", "", text).replace("**", "^")
    for pattern, new in TERM_RULES:
        text = pattern.sub(new, text)
    if re.search(r"[=<>≤≥]", text):
        return text
    text = re.sub(r"(?<=[\w)])-", "+-", text)
    return "+".join(sorted(filter(None, split_outside(text, "+"))))


def read_code(answer):
    """The Python code in an answer: what its first fence holds, closed or not, or else all of it."""
    fence = re.search(r"```[^\n`]*\n(.*?)(?:```|\Z)", answer.replace("\r\n", "\n"), re.S)
    return textwrap.dedent(fence[1] if fence else answer).strip()


def value_of(answer, kind):
    """What an answer says, equal for equal answers and with a hash; None if it says nothing. kind: that of
    its row."""
    readers = {"number": read_number, "list": list_items, "math": read_math, "code": read_code}
    value = readers.get(kind, normalise)(answer)
    return None if value in ("", ()) else value


def equal(answer, truth, kind):
    """Whether an answer equals the true one: as a number, as a list in order, as MATH writes, or as text."""
    value = value_of(answer, kind)
    # an empty answer is never right, even if the truth is empty too
    return value is not None and value == value_of(truth, kind)


# ------------------------------------------------------------------------------------------------ rewards
def rewards_of(kind, good, right):
    """{name: 0..1}: the rewards that apply to a row of this kind. good: the reply is strict and the model
    ended it itself. right: how right its answer is, for code the share of the unit tests that it passes."""
    # the form is paid even if the answer is wrong; a right answer in a bad form is not paid
    rewards = {"format": float(good)}
    if kind != "open":
        rewards["tests" if kind == "code" else "exact"] = float(right) if good else 0.0
    return rewards
