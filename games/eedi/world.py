r"""The world of Eedi: maths questions with four answers, each wrong one the work of a known misconception.

    row = question(np.random.default_rng(0), number=0)  # the columns of Eedi's train.csv; ids are of LABELS

A label is an error (`forgets to halve`) in a strand (`measuring shapes`). One label in seven is UNSEEN: never
trained on, while its words occur in other labels. Numbers are small and sentences few, since a very small
model must learn from the numbers which error it was.

A new family is one more call of `add` below. The first line of its text is `subject | construct | form of an
answer`. The other lines are the sentences, or a single expression to work out. Then comes a function from the
values to {"right": answer, error: wrong answer}. It is falsy where the values make no sense, and an answer is
None where an error does not apply. Last come the ranges to draw the values $a, $b, $c and $d from. Where the
answer is a whole number, three SLIPS join the errors. Use errors of other families, make at least 400
questions possible, and take a subject from STRANDS."""

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product, starmap
from math import gcd, isqrt
from statistics import fmean, median
from string import Template

LETTERS = "ABCD"  # the answers of a question
NAMES = "abcd"  # the values in a sentence
ASK = ("What is {}?", "Work out {}.", "Calculate {}.", "Find the value of {}.")  # around a bare expression
# Every error, in words that fit all families that have it.
ERRORS = """
adds: adds instead of multiplying
amount: treats the percentage as an amount
bottom: leaves the bottom number unchanged
circle: uses 360 instead of 180
confuses: confuses mean, median and range
down: rounds down instead of up
cut: leaves out the last digit
early: adds before multiplying
fewer: counts one too few
first: multiplies only the first term
flipped: turns the fraction upside down
halved: halves by mistake
hundred: uses 100 instead of 60
largest: gives the largest number
leaves: leaves out the last number
leftright: works from left to right
mixes: mixes up area and perimeter
more: counts one too many
multiplies: multiplies instead of adding
part: compares with the other part only
plus: adds instead of subtracting
pointless: ignores the decimal point
rest: gives what is left instead
reversed: subtracts in the wrong order
separate: adds the tops and adds the bottoms
side: writes the numbers side by side
slant: uses the sloping side as the height
start: adds the starting amount as well
stops: stops after the first step
subtracts: subtracts instead of adding
takes: subtracts instead of dividing
ten: uses 10 instead of 100
ten more: carries one ten too many
tenfold: gives an answer ten times too large
tenth: gives an answer ten times too small
times: multiplies instead of dividing
twice: uses the first number twice
uncarried: forgets to carry
undivided: forgets to divide
unhalved: forgets to halve
unlike: adds unlike terms
unsigned: ignores the minus sign
unsorted: forgets to put the numbers in order
unsquared: doubles instead of squaring
wholes: reads the decimals as a whole number"""
ERRORS = dict(line.split(": ") for line in ERRORS.strip().splitlines())

# The strands: the words of their labels, and their subjects. A label does not say which family it comes from,
# so it shares its strand with many labels and its error with many others.
STRANDS = """
whole: calculating with whole numbers
  BIDMAS, Rounding and Estimation, Written Division, Squares and Square Roots
negative: calculating with negative numbers
  Adding and Subtracting Negative Numbers, Multiplying and Dividing Negative Numbers
decimals: calculating with decimals
  Adding and Subtracting with Decimals, Multiplying and Dividing with Decimals
fractions: calculating with fractions
  Adding and Subtracting Fractions, Multiplying and Dividing Fractions, Fractions of an Amount
percentages: calculating with percentages
  Percentages of an Amount, Percentage Increase and Decrease, Simple Interest
shapes: measuring shapes
  Area of Simple Shapes, Perimeter, Volume of Prisms
algebra: working with letters
  Laws of Indices, Substitution into Formula, Expanding Single Brackets, Simplifying Expressions, \
Linear Equations
proportion: working with amounts that grow
  Ratio, Linear Sequences, Speed
data: describing a list of numbers
  Averages and Range
measures: working with units
  Time, Length Units
chance: finding a probability
  Probability of Single Events
graphs: finding a gradient
  Gradient of a Line
angles: finding an angle
  Angle Facts"""
lines = STRANDS.strip().splitlines()  # a strand and its subjects take turns
STRANDS = dict(line.split(": ") for line in lines[::2])
STRAND_OF = {}  # subject -> strand
for strand, subjects in zip(STRANDS, lines[1::2]):
    STRAND_OF |= dict.fromkeys(subjects.strip().split(", "), strand)


@dataclass(eq=False)
class Family:
    """Questions of one construct that differ in their numbers and sentences."""

    subject: str
    construct: str
    form: str  # format string of an answer
    sentences: list  # question templates
    ranges: list  # what to draw each value from, in the order $a, $b, ...
    solve: Callable  # values -> {"right": answer, error: answer}
    slips: list  # more errors, from SLIPS
    labels: dict  # {error: label id}


FAMILIES = []
LABEL_IDS = {}  # (strand, error) -> label id


def add(text, solve, *ranges):
    """Append a family to FAMILIES; the docstring of this file explains the arguments."""
    head, *sentences = (line.strip() for line in text.splitlines())
    subject, construct, form = head.split(" | ")
    if len(sentences) == 1:
        sentences = [ask.format(*sentences) for ask in ASK]

    # The last values that make sense show which slips fit: a slip must give an answer that is not there yet.
    *_, answers = filter(None, starmap(solve, product(*ranges)))
    right = answers["right"]
    taken = [None, *answers.values()]
    fitting = []
    if is_whole(right):
        fitting = [name for name in SLIPS if name not in answers and SLIPS[name](right) not in taken]
    # Three of them, but not the same three in every family.
    start = 2 * len(FAMILIES) % max(1, len(fitting))
    slips = (fitting[start:] + fitting[:start])[:3]

    strand = STRAND_OF[subject]
    labels = {}
    for error in [*answers, *slips][1:]:  # the first is "right"
        labels[error] = LABEL_IDS.setdefault((strand, error), len(LABEL_IDS))
    sentences = [Template(sentence) for sentence in sentences]
    FAMILIES.append(Family(subject, construct, form, sentences, ranges, solve, slips, labels))


is_whole = lambda x: isinstance(x, (int, float)) and x == int(x)
SLIPS = {  # errors that can happen to any whole number: name -> the wrong answer
    "more": lambda x: x + 1,
    "fewer": lambda x: x - 1,
    "tenfold": lambda x: 10 * x,
    "ten more": lambda x: x + 10 if x > 9 else None,
    "cut": lambda x: x // 10 if x > 9 and x % 10 else None,
}


# ------------------------------------------------------------------------------------------------ families
def over(top, bottom):
    """A fraction in LaTeX, or None if it can be cancelled, so that different texts are different numbers."""
    return rf"\frac{{{top}}}{{{bottom}}}" if gcd(top, bottom) == 1 < bottom else None


beside = lambda a, b: int(f"{a}{b}")  # the two numbers side by side
evenly = lambda x: len({*x}) == len(x) and sum(x) % len(x) == 0  # all different, and their mean is whole
DIGIT = range(2, 10)
SMALL = range(2, 17)
ANGLE = range(20, 81, 5)

# A table, laid out by hand: one answer per line. A condition before `dict` says which values make sense.
# fmt: off
add(r"""BIDMAS | Carry out an addition and a multiplication in the correct order | {}
    \( $a + $b \times $c \)""",
    lambda a, b, c: dict(
        right=a + b * c,
        leftright=(a + b) * c,
        leaves=a + b,
        adds=a + b + c,
        stops=b * c),
    range(2, 13), DIGIT, DIGIT)
add(r"""BIDMAS | Carry out a calculation with a power in the correct order | {}
    \( $a + $b^2 \)""",
    lambda a, b: dict(
        right=a + b * b,
        stops=b * b,
        unsquared=a + 2 * b,
        leftright=(a + b) ** 2,
        side=a + beside(b, 2)),
    SMALL, range(3, 10))
add(r"""Adding and Subtracting Negative Numbers | Add a positive number to a negative number | {}
    \( -$a + $b \)""",
    lambda a, b: dict(
        right=b - a,
        unsigned=a + b,
        reversed=a - b,
        subtracts=-a - b,
        more=b - a + 1,
        fewer=b - a - 1),
    range(2, 16), range(2, 16))
add(r"""Multiplying and Dividing Negative Numbers | Multiply a bracket by a negative number | {}
    \( -$a \times ($b + $c) \)""",
    lambda a, b, c: dict(
        right=-a * (b + c),
        unsigned=a * (b + c),
        first=-a * b + c,
        adds=b + c - a,
        stops=b + c),
    range(2, 7), DIGIT, DIGIT)
add(r"""Adding and Subtracting with Decimals | Add two decimals with one decimal place | {:g}
    \( $a.$b + $c.$d \)""",
    # The tenths have a carry to forget, and the difference is positive.
    lambda a, b, c, d: a > c and b + d > 10 and dict(
        right=a + c + (b + d) / 10,
        subtracts=a - c + (b - d) / 10,
        wholes=a + c + (b + d) / 100,
        pointless=10 * (a + c) + b + d,
        uncarried=a + c + (b + d - 10) / 10),
    DIGIT, DIGIT, range(1, 9), DIGIT)
add(r"""Multiplying and Dividing with Decimals | Multiply a decimal by a whole number | {:g}
    \( $a.$b \times $c \)""",
    # The tenths have a carry to forget, and the right answer is no whole number.
    lambda a, b, c: b * c > 10 and b * c % 10 and dict(
        right=(a + b / 10) * c,
        pointless=(10 * a + b) * c,
        wholes=a * c + b * c / 100,
        uncarried=a * c + b * c % 10 / 10,
        tenth=(a + b / 10) * c / 10,
        adds=a + b / 10 + c),
    range(1, 10), DIGIT, range(3, 10))
add(r"""Adding and Subtracting Fractions | Add two fractions with different denominators | \( {} \)
    \( \frac{$a}{$b} + \frac{$c}{$d} \)""",
    # Proper fractions, the larger one first, and nothing can be cancelled in any answer.
    lambda a, b, c, d: c / d < a / b < 1
        and gcd(a * c, b * d) == gcd(b, d) == gcd(a + c, b * (b + d)) == 1 and dict(
        right=over(a * d + b * c, b * d),
        separate=over(a + c, b + d),
        multiplies=over(a * c, b * d),
        bottom=over(a + c, b),
        subtracts=over(a * d - b * c, b * d)),
    range(1, 11), range(2, 14), range(1, 11), range(2, 14))
add(r"""Multiplying and Dividing Fractions | Multiply two fractions | \( {} \)
    \( \frac{$a}{$b} \times \frac{$c}{$d} \)""",
    # Proper fractions, and nothing can be cancelled in any answer.
    lambda a, b, c, d: a < b and c < d
        and gcd(a * c, b * d) == gcd(a, c) == gcd(b, d) == gcd(a + c, b + d) == 1 and dict(
        right=over(a * c, b * d),
        separate=over(a + c, b + d),
        bottom=over(a * c, b),
        flipped=over(a * d, b * c),
        adds=over(a * d + b * c, b * d)),
    range(1, 10), range(2, 12), DIGIT, range(2, 12))
add(r"""Fractions of an Amount | Calculate a fraction of an amount | {}
    \( \frac{$a}{$b} \) of \( $c \)""",
    # Lowest terms, at least two parts left, and an amount that b divides.
    lambda a, b, c: gcd(a, b) == 1 and a < b - 1 and c % b == 0 and dict(
        right=c // b * a,
        undivided=c * a,
        stops=c // b,
        rest=c - c // b * a,
        start=c + c // b * a),
    range(2, 8), range(4, 11), range(12, 73))
add(r"""Rounding and Estimation | Estimate a sum by rounding each number to the nearest 10 | {:g}
    Estimate \( $a + $b \) by rounding each number to the nearest 10.
    Round each number to the nearest 10 to estimate \( $a + $b \).
    What is \( $a + $b \), with each number rounded to the nearest 10?""",
    # Both numbers are rounded up, and their difference is at least ten.
    lambda a, b: a % 10 > 4 < b % 10 and a > b + 9 and dict(
        right=(a // 10 + b // 10 + 2) * 10,
        down=(a // 10 + b // 10) * 10,
        subtracts=(a // 10 - b // 10) * 10,
        tenth=a // 10 + b // 10 + 2,
        more=(a // 10 + b // 10 + 3) * 10),
    range(35, 90), range(15, 60))
add(r"""Written Division | Interpret the remainder of a division in context | {}
    $a pupils go on a trip. Each bus has $b seats. How many buses are needed?
    A bus has $b seats. How many buses are needed for $a pupils?
    $a pupils travel in buses with $b seats each. What is the number of buses needed?""",
    # A few pupils are left over and need one more bus.
    lambda a, b: a % b and dict(
        right=a // b + 1,
        down=a // b,
        rest=a % b,
        times=a * b,
        takes=a - b),
    range(20, 100), range(4, 13))
add(r"""Percentages of an Amount | Calculate a percentage of an amount | {:g}
    \( $a \% \) of \( $b \)""",
    lambda a, b: a * b % 100 == 0 and dict(
        right=a * b / 100,
        ten=a * b / 10,
        tenth=a * b / 1000,
        start=b + a * b / 100,
        rest=b - a * b / 100,
        amount=a),
    (5, 15, 20, 25, 30, 40, 60, 70, 75, 80, 90), range(10, 201, 10))
add(r"""Percentage Increase and Decrease | Increase an amount by a percentage | £{:g}
    A coat costs £$b. The price goes up by $a%. What is the new price?
    Increase £$b by $a%.
    What is £$b after an increase of $a%?
    The price of a bike is £$b. What is the price after a $a% increase?""",
    lambda a, b: a * b % 100 == 0 and dict(
        right=b + a * b / 100,
        ten=b + a * b / 10,
        amount=b + a,
        stops=a * b / 100,
        subtracts=b - a * b / 100),
    (5, 10, 15, 20, 25, 30, 40, 60, 70, 80), range(20, 301, 10))
add(r"""Simple Interest | Calculate the simple interest on an amount | £{:g}
    £$a earns simple interest of $b% each year. How much interest is earned in $c years?
    How much simple interest is paid on £$a at $b% each year for $c years?
    Find the simple interest on £$a at a rate of $b% each year for $c years.""",
    lambda a, b, c: dict(
        right=a * b * c / 100,
        ten=a * b * c / 10,
        amount=b * c,
        stops=a * b / 100,
        start=a + a * b * c / 100),
    range(200, 901, 100), DIGIT, range(2, 7))
add(r"""Area of Simple Shapes | Calculate the area of a rectangle from its length and width | {:g} square cm
    A rectangle is $a cm long and $b cm wide. What is its area?
    What is the area of a rectangle with a length of $a cm and a width of $b cm?
    A rectangle has a length of $a cm and a width of $b cm. Work out its area.""",
    lambda a, b: a > b and dict(
        right=a * b,
        mixes=2 * (a + b),
        adds=a + b,
        halved=a * b / 2,
        twice=a * a),
    range(4, 25), range(3, 16))
add(r"""Perimeter | Calculate the perimeter of a rectangle from its length and width | {} cm
    A rectangle is $a cm long and $b cm wide. What is its perimeter?
    What is the perimeter of a rectangle with a length of $a cm and a width of $b cm?
    A rectangle has a length of $a cm and a width of $b cm. Work out its perimeter.""",
    lambda a, b: a > b and dict(
        right=2 * (a + b),
        mixes=a * b,
        first=2 * a + b,
        stops=a + b,
        twice=4 * a),
    range(4, 25), range(3, 16))
add(r"""Area of Simple Shapes | Calculate the area of a triangle from its base and height | {:g} square cm
    A triangle has a base of $a cm, a height of $b cm and two sides of $c cm. What is its area?
    What is the area of a triangle with base $a cm, height $b cm and two sides of $c cm?
    A triangle is $a cm wide and $b cm high, with two sides of $c cm. Work out its area.""",
    # The sloping side is a little longer than the height.
    lambda a, b, c: b < c < b + 5 and dict(
        right=a * b / 2,
        unhalved=a * b,
        slant=a * c / 2,
        adds=a + b,
        mixes=a + 2 * c),
    range(4, 17, 2), range(3, 15), range(4, 19))
add(r"""Volume of Prisms | Calculate the volume of a cuboid from its three sides | {:g} cubic cm
    A cuboid is $a cm long, $b cm wide and $c cm high. What is its volume?
    What is the volume of a cuboid with sides of $a cm, $b cm and $c cm?
    The sides of a cuboid are $a cm, $b cm and $c cm. Work out its volume.""",
    lambda a, b, c: dict(
        right=a * b * c,
        adds=a + b + c,
        leaves=a * b,
        early=(a + b) * c,
        halved=a * b * c / 2),
    range(2, 8), range(2, 8), range(3, 9))
add(r"""Squares and Square Roots | Calculate with the square root of a square number | {:g}
    \( \sqrt{$a} + $b \)""",
    lambda a, b: dict(
        right=isqrt(a) + b,
        multiplies=isqrt(a) * b,
        halved=a / 2 + b,
        stops=isqrt(a),
        subtracts=isqrt(a) - b),
    (16, 25, 36, 49, 64, 81, 100, 121, 144), range(2, 16))
add(r"""Laws of Indices | Multiply two powers with the same base | \( x^{{{}}} \)
    Simplify \( x^{$a} \times x^{$b} \).
    Write \( x^{$a} \times x^{$b} \) as a single power.
    Which power of \( x \) is \( x^{$a} \times x^{$b} \)?""",
    lambda a, b: dict(
        right=a + b,
        multiplies=a * b,
        subtracts=a - b,
        leaves=a,
        side=beside(a, b)),
    range(2, 14), range(2, 14))
add(r"""Substitution into Formula | Substitute a number into a linear expression | {}
    What is the value of \( ${a}x + $b \) when \( x = $c \)?
    Find the value of \( ${a}x + $b \) if \( x = $c \).
    Substitute \( x = $c \) into \( ${a}x + $b \).""",
    lambda a, b, c: dict(
        right=a * c + b,
        side=beside(a, c) + b,
        adds=a + c + b,
        early=a * (c + b),
        unlike=(a + b) * c),
    DIGIT, DIGIT, DIGIT)
add(r"""Substitution into Formula | Substitute a number into an expression with a square | {}
    What is the value of \( ${a}x^2 + $b \) when \( x = $c \)?
    Find the value of \( ${a}x^2 + $b \) if \( x = $c \).
    Substitute \( x = $c \) into \( ${a}x^2 + $b \).""",
    lambda a, b, c: dict(
        right=a * c * c + b,
        leftright=(a * c) ** 2 + b,
        unsquared=2 * a * c + b,
        adds=a + c * c + b,
        unlike=(a + b) * c * c),
    range(2, 6), DIGIT, range(3, 8))
add(r"""Expanding Single Brackets | Expand a single bracket with a subtraction | \( {} \)
    Expand \( $a(${b}x - $c) \).
    Multiply out \( $a(${b}x - $c) \).
    Write \( $a(${b}x - $c) \) without brackets.""",
    lambda a, b, c: dict(
        right=f"{a * b}x - {a * c}",
        first=f"{a * b}x - {c}",
        unsigned=f"{a * b}x + {a * c}",
        adds=f"{a + b}x - {a + c}",
        stops=f"{a * b}x"),
    range(2, 7), range(2, 7), DIGIT)
add(r"""Simplifying Expressions | Collect like terms in one variable | \( {} \)
    Simplify \( ${a}x + $b + ${c}x \).
    Collect like terms: \( ${a}x + $b + ${c}x \).
    Write \( ${a}x + $b + ${c}x \) as simply as possible.""",
    # A difference of 1 would be written x, not 1x.
    lambda a, b, c: a > c + 1 and dict(
        right=f"{a + c}x + {b}",
        unlike=f"{a + b + c}x",
        multiplies=f"{a * c}x + {b}",
        subtracts=f"{a - c}x + {b}",
        leaves=f"{a}x + {b}"),
    range(4, 11), DIGIT, range(2, 9))
add(r"""Linear Equations | Solve a linear equation in two steps | \( x = {} \)
    Solve \( ${a}x + $b = $c \).
    What is \( x \) if \( ${a}x + $b = $c \)?
    Find the value of \( x \): \( ${a}x + $b = $c \).""",
    # The solution is a whole number above 1.
    lambda a, b, c: c > b + a and (c - b) % a == 0 and dict(
        right=(c - b) // a,
        undivided=c - b,
        times=(c - b) * a,
        reversed=(b - c) // a,
        takes=c - b - a),
    range(2, 8), range(2, 13), range(8, 50))
add(r"""Ratio | Share an amount in a given ratio | {}
    $a sweets are shared in the ratio $b : $c. How many are in the first share?
    Share $a sweets in the ratio $b : $c. How many does the first person get?
    Ann and Ben share $a sweets in the ratio $b : $c. How many does Ann get?
    What is the first share if $a sweets are shared in the ratio $b : $c?""",
    # Lowest terms, and each part of the ratio is a whole number of sweets.
    lambda a, b, c: gcd(b, c) == 1 and a % (b + c) == 0 and dict(
        right=a // (b + c) * b,
        stops=a // (b + c),
        rest=a // (b + c) * c,
        undivided=a * b,
        takes=a - b - c,
        adds=a // (b + c) + b),
    range(15, 100), range(2, 7), range(2, 7))
add(r"""Linear Sequences | Find a given term of a linear sequence | {}
    A sequence starts with $a and goes up by $b each time. What is term number $c?
    The first term of a sequence is $a. The rule is add $b. What is term number $c?
    What is term number $c of a sequence that starts with $a and goes up in steps of $b?""",
    lambda a, b, c: dict(
        right=a + (c - 1) * b,
        more=a + c * b,
        fewer=a + (c - 2) * b,
        adds=a + b + c,
        early=(a + b) * (c - 1)),
    range(2, 13), range(3, 10), range(4, 10))
add(r"""Averages and Range | Calculate the mean of a list of numbers | {:g}
    What is the mean of $a, $b and $c?
    Find the mean of these numbers: $a, $b, $c.
    Work out the mean of $a, $b and $c.""",
    lambda *x: evenly(x) and dict(
        right=fmean(x),
        undivided=sum(x),
        largest=max(x),
        confuses=median(x),
        leaves=fmean(x[:2])),
    *3 * [range(2, 19)])
add(r"""Averages and Range | Find the median of a list of numbers | {:g}
    What is the median of $a, $b, $c and $d?
    Find the median of these numbers: $a, $b, $c, $d.
    Work out the median of $a, $b, $c and $d.""",
    # The mean, and the middle of the unsorted list, must be other numbers than the median.
    lambda *x: evenly(x) and len({median(x), fmean(x), fmean(x[1:3])}) == 3 and dict(
        right=median(x),
        unhalved=2 * median(x),
        unsorted=fmean(x[1:3]),
        largest=max(x),
        confuses=fmean(x)),
    SMALL, SMALL, SMALL, SMALL)
add(r"""Averages and Range | Find the range of a list of numbers | {:g}
    What is the range of $a, $b, $c and $d?
    Find the range of these numbers: $a, $b, $c, $d.
    Work out the range of $a, $b, $c and $d.""",
    lambda *x: evenly(x) and dict(
        right=max(x) - min(x),
        plus=max(x) + min(x),
        unsorted=abs(x[-1] - x[0]),
        largest=max(x),
        confuses=fmean(x)),
    SMALL, SMALL, SMALL, SMALL)
add(r"""Time | Add a number of minutes to a time | {}:{:02}
    A film starts at $a:$b and lasts $c minutes. When does it end?
    It is $a:$b. What time is it $c minutes later?
    A lesson of $c minutes starts at $a:$b. When does it end?""",
    # Past the hour; from 100 minutes on, the error `hundred` would carry as well.
    lambda a, b, c: 60 < b + c < 100 and dict(
        right=(a + 1, b + c - 60),
        uncarried=(a, b + c - 60),
        subtracts=divmod(60 * a + b - c, 60),
        hundred=(a, b + c),
        more=(a + 2, b + c - 60)),
    range(2, 11), range(15, 60, 5), range(10, 60, 5))
add(r"""Length Units | Convert from metres to centimetres | {} cm
    A rope is $a.$b m long. How long is it in cm?
    Convert $a.$b m to cm.
    How many cm are $a.$b m?""",
    lambda a, b: dict(
        right=100 * a + 10 * b,
        tenth=10 * a + b,
        wholes=100 * a + b,
        stops=100 * a,
        pointless=1000 * a + 100 * b),
    range(2, 20), range(1, 10))
add(r"""Probability of Single Events | Calculate the probability of a single event | \( {} \)
    A bag has $a red and $b blue counters. One is taken at random. What is the probability that it is red?
    What is the probability to take a red counter from a bag with $a red and $b blue counters?
    There are $a red and $b blue counters in a bag. Find the probability of taking a red one.""",
    lambda a, b: dict(
        right=over(a, a + b),
        fewer=over(a - 1, a + b),
        flipped=over(a + b, a),
        part=over(a, b),
        rest=over(b, a + b)),
    range(3, 20), range(2, 20))
add(r"""Gradient of a Line | Find the gradient of a line from two points on it | \( {} \)
    What is the gradient of the line through \( ($a, $b) \) and \( ($c, $d) \)?
    Find the gradient of the line from \( ($a, $b) \) to \( ($c, $d) \).
    A line goes through \( ($a, $b) \) and \( ($c, $d) \). What is its gradient?""",
    # The line rises.
    lambda a, b, c, d: c > a and d > b and dict(
        right=over(d - b, c - a),
        flipped=over(c - a, d - b),
        undivided=d - b,
        reversed=over(b - d, c - a),
        plus=over(d + b, c + a)),
    range(1, 6), range(1, 6), range(3, 11), range(3, 11))
add(r"""Speed | Calculate a speed from a distance and a time in minutes | {:g} km/h
    A train travels $a km in $b minutes. What is its speed in km/h?
    What is the speed in km/h of a car that travels $a km in $b minutes?
    A bus takes $b minutes for $a km. Work out its speed in km/h.""",
    lambda a, b: dict(
        right=60 * a / b,
        hundred=100 * a / b,
        undivided=60 * a,
        times=a * b,
        stops=60 / b),
    range(2, 41), (5, 20, 25, 40, 50))
add(r"""Angle Facts | Find a missing angle in a triangle | \( {}^\circ \)
    Two angles of a triangle are \( $a^\circ \) and \( $b^\circ \). What is the third angle?
    A triangle has angles of \( $a^\circ \) and \( $b^\circ \). Work out the other angle.
    What is the third angle of a triangle with angles \( $a^\circ \) and \( $b^\circ \)?""",
    # With equal angles, the error `twice` would be right.
    lambda a, b: a != b and dict(
        right=180 - a - b,
        circle=360 - a - b,
        stops=a + b,
        leaves=180 - a,
        twice=180 - 2 * a),
    ANGLE, ANGLE)
add(r"""Angle Facts | Find a missing angle on a straight line | \( {:g}^\circ \)
    Angles of \( $a^\circ \), \( $b^\circ \) and two equal angles are on a line. How large are the equal ones?
    Two equal angles are on a straight line with \( $a^\circ \) and \( $b^\circ \). Find one of them.
    On a line are \( $a^\circ \), \( $b^\circ \) and two equal angles. Work out one of the equal angles.""",
    lambda a, b: a != b and dict(
        right=(180 - a - b) / 2,
        unhalved=180 - a - b,
        circle=(360 - a - b) / 2,
        leaves=(180 - a) / 2,
        plus=(180 - a + b) / 2),
    ANGLE, ANGLE)
# fmt: on


# ------------------------------------------------------------------------------------------------ labels
# The labels that are never trained on, as strand and error. Their errors are trained on in other strands.
UNSEEN = """
whole fewer, whole cut, whole adds, negative tenfold, negative stops, decimals subtracts, fractions ten more,
fractions undivided, percentages cut, percentages ten more, shapes tenfold, shapes stops, algebra cut,
algebra fewer, algebra first, proportion ten more, proportion rest, data tenfold, measures ten more,
graphs flipped, angles more"""
UNSEEN = {tuple(label.split(maxsplit=1)) for label in UNSEEN.split(",")}
SUBJECTS = [*dict.fromkeys(family.subject for family in FAMILIES)]
OWNERS = [*LABEL_IDS]  # (strand, error) of each label
LABELS = [f"{ERRORS[error]} when {STRANDS[strand]}".capitalize() for strand, error in OWNERS]


def is_unseen(label):
    """Whether no training question has this label."""
    return OWNERS[label] in UNSEEN


# ------------------------------------------------------------------------------------------------ questions
pick = lambda rng, items: items[rng.integers(len(items))]
sample = lambda rng, items, n: [items[i] for i in rng.permutation(len(items))[:n]]  # n different items


def all_answers(family, values):
    """The answers as text, {"right" or error: text}, or {} if the values make no sense."""
    answers = family.solve(*values)
    if not answers or answers["right"] is None:
        return {}
    right = answers["right"]
    if is_whole(right):
        answers = answers | {name: SLIPS[name](right) for name in family.slips}
    texts = {}
    for error, answer in answers.items():
        if answer is not None:
            parts = answer if isinstance(answer, tuple) else (answer,)  # a time has two numbers
            texts[error] = family.form.format(*parts)
    return texts


def clear_errors(family, answers, unseen=False):
    """The errors whose answers no other error gives, so that each of these answers has one explanation.
    unseen: also those whose labels are never trained on."""
    # get() gives None for an error that does not apply; None is no answer, so it is counted 0 times.
    counts = Counter(answers.values())
    errors = [error for error in family.labels if counts[answers.get(error)] == 1]
    return [error for error in errors if unseen or not is_unseen(family.labels[error])]


def question(rng, number, unseen=False):
    """A row with id `number`, of a random family. unseen: wrong answers may also have labels that training
    never shows."""
    family = pick(rng, FAMILIES)
    errors = []
    while len(errors) < 3:
        values = [pick(rng, choices) for choices in family.ranges]
        answers = all_answers(family, values)
        errors = clear_errors(family, answers, unseen)
    shown = sample(rng, ["right", *sample(rng, errors, 3)], 4)  # in the order of LETTERS
    row = {
        "QuestionId": number,
        "ConstructId": FAMILIES.index(family),
        "ConstructName": family.construct,
        "SubjectId": SUBJECTS.index(family.subject),
        "SubjectName": family.subject,
        "CorrectAnswer": LETTERS[shown.index("right")],
        "QuestionText": pick(rng, family.sentences).substitute(dict(zip(NAMES, values))),
    }
    row |= {f"Answer{letter}Text": answers[error] for letter, error in zip(LETTERS, shown)}
    return row | {
        f"Misconception{letter}Id": family.labels.get(error) for letter, error in zip(LETTERS, shown)
    }


def held_out(text):
    """Whether a question is kept for evaluation. Only its text decides, so no seed can train on it."""
    return zlib.crc32(text.encode()) % 10 == 0
