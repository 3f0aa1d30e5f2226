r"""The world of Eedi: maths questions with four answers, each wrong one the work of a known misconception.

    row = question(np.random.default_rng(0), number=0)  # the columns of Eedi's train.csv; ids are of LABELS

A label is an error (`forgets to halve`) in a strand (`measuring shapes`), so the words of labels that are
never trained on are known from others: a seventh of all, UNSEEN. Numbers are small and sentences few: a
very small model is to learn from the numbers which error it was.

A new family is one call of `add` below. Its text holds subject, construct and the form of an answer, then the
sentences, or just an expression to work out. Then come the values to draw, and a function from them to the
right answer and the wrong ones by error: falsy where they make no sense, None for an error that does not
apply. Three SLIPS join them where the answer is a whole number. Use errors of other families, and have at
least 400 questions; the subject must be in STRANDS."""

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import gcd, isqrt
from statistics import fmean, median
from string import Template

LETTERS = "ABCD"
ASK = ("What is {}?", "Work out {}.", "Calculate {}.", "Find the value of {}.")  # of a bare expression
JOIN = ("{error} when {situation}", "{error} while {situation}", "when {situation}, {error}")  # by wording
# Every error in three wordings, each of which has to fit all situations that the error is met in.
ERRORS = """
adds: adds instead of multiplying | finds the sum instead of the product | uses plus in place of times
amount: treats the percentage as an amount | uses the percentage itself as a number | reads percent as units
bottom: leaves the bottom number unchanged | keeps the first bottom number | does not change the bottom number
circle: uses 360 instead of 180 | works with a total of 360 and not 180 | starts from 360 and not from 180
confuses: confuses mean, median and range | finds another average than asked | takes the wrong kind of average
down: rounds down instead of up | does not round up | goes down to the lower number
cut: leaves out the last digit | drops the last digit | forgets the digit at the end
early: adds before multiplying | does the addition before the multiplication | multiplies after adding
fewer: counts one too few | is one short | stops counting one too early
first: multiplies only the first term | does not multiply the second term | leaves the second term as it is
flipped: turns the fraction upside down | swaps the top and the bottom number | has top and bottom swapped
halved: halves by mistake | divides by two for no reason | takes half where it should not
hundred: uses 100 instead of 60 | counts 100 minutes in an hour | works with 100 minutes and not 60
largest: gives the largest number | takes the largest of the numbers | answers with the largest value
leaves: leaves out the last number | does not use the last number | forgets about the last number
leftright: works from left to right | takes the operations in the order written | calculates as it is read
mixes: mixes up area and perimeter | confuses area and perimeter | takes area and perimeter for each other
more: counts one too many | goes one too far | stops counting one too late
multiplies: multiplies instead of adding | finds the product instead of the sum | uses times in place of plus
part: compares with the other part only | divides by the other part and not the whole | takes one part for all
plus: adds instead of subtracting | finds the sum instead of the difference | uses plus in place of minus
pointless: ignores the decimal point | leaves out the decimal point | works as if there were no decimal point
rest: gives what is left instead | finds the part that is left over | answers with the rest
reversed: subtracts in the wrong order | swaps the two numbers of a subtraction | takes away the wrong one
separate: adds the tops and adds the bottoms | adds top and bottom numbers separately | sums tops and bottoms
side: writes the numbers side by side | puts the digits next to each other | joins the digits to one number
slant: uses the sloping side as the height | takes the side for the height | reads the side as the height
start: adds the starting amount as well | also adds the amount at the start | counts the first amount too
stops: stops after the first step | gives the result of the first step | does only the first step
subtracts: subtracts instead of adding | finds the difference instead of the sum | uses minus in place of plus
takes: subtracts instead of dividing | finds the difference and does not divide | takes away instead
ten: uses 10 instead of 100 | works with 10 and not 100 | takes 10 where it should be 100
ten more: carries one ten too many | carries a ten that is not there | has one ten too many
tenfold: gives an answer ten times too large | is a factor of 10 too high | has one zero or place too many
tenth: gives an answer ten times too small | is too small by a factor of ten | has one place too few
times: multiplies instead of dividing | finds the product instead of sharing | multiplies and does not divide
twice: uses the first number twice | takes the first number two times | puts the first number for the second
uncarried: forgets to carry | does not carry | leaves out what is carried
undivided: forgets to divide | does not divide | leaves out the division
unhalved: forgets to halve | does not halve | leaves out the division by two
unlike: adds unlike terms | puts unlike terms together | adds terms that are not alike
unsigned: ignores the minus sign | leaves out the minus sign | reads minus as plus
unsorted: forgets to put the numbers in order | does not sort the numbers | takes the numbers as they stand
unsquared: doubles instead of squaring | multiplies by two instead of squaring | takes the square for a double
wholes: reads the decimals as a whole number | treats decimals as a whole number | reads the point as a gap"""
ERRORS = dict(line.split(": ") for line in ERRORS.strip().splitlines())
ERRORS = {error: wordings.split(" | ") for error, wordings in ERRORS.items()}


# The strand of each subject, and what a label says of it in three wordings: not which family it is, so that a
# label is one of many with its strand, and one of many with its error.
STRANDS = """
whole: BIDMAS, Rounding and Estimation, Written Division, Squares and Square Roots
  calculating with whole numbers | working with whole numbers | doing arithmetic with whole numbers
negative: Adding and Subtracting Negative Numbers, Multiplying and Dividing Negative Numbers
  calculating with negative numbers | working below zero | doing arithmetic with numbers below zero
decimals: Adding and Subtracting with Decimals, Multiplying and Dividing with Decimals
  calculating with decimals | working with decimals | doing arithmetic with decimal numbers
fractions: Adding and Subtracting Fractions, Multiplying and Dividing Fractions, Fractions of an Amount
  calculating with fractions | working with fractions | doing arithmetic with fractions
percentages: Percentages of an Amount, Percentage Increase and Decrease, Simple Interest
  calculating with percentages | working with percentages | finding or using a percentage
shapes: Area of Simple Shapes, Perimeter, Volume of Prisms
  measuring shapes | finding lengths, areas or volumes | working out the size of a shape
algebra: Laws of Indices, Substitution into Formula, Expanding Single Brackets, Simplifying Expressions,
    Linear Equations
  working with letters | doing algebra | calculating with unknown numbers
proportion: Ratio, Linear Sequences, Speed
  working with amounts that grow | using a rate or a pattern | finding how amounts go together
data: Averages and Range
  describing a list of numbers | working with data | summing up data
measures: Time, Length Units
  working with units | using units of measure | calculating with measures
chance: Probability of Single Events
  finding a probability | working out how likely something is | calculating a chance
graphs: Gradient of a Line
  finding a gradient | working out how steep a line is | reading a graph
angles: Angle Facts
  finding an angle | working with angles | working out an angle"""
STRANDS = [line.strip() for line in STRANDS.replace(",\n   ", ",").strip().splitlines()]
STRAND_OF = {name: line.split(": ")[0] for line in STRANDS[::2] for name in line.split(": ")[1].split(", ")}
STRANDS = {line.split(": ")[0]: words.split(" | ") for line, words in zip(STRANDS[::2], STRANDS[1::2])}


@dataclass(eq=False)
class Family:
    subject: str
    construct: str
    form: str  # of an answer, with a place for each of its values
    strand: str  # of STRANDS
    sentences: list
    ranges: dict  # {name: values to draw from}
    solve: Callable  # values drawn -> {"right": answer, error: answer}
    slips: list  # further errors, of SLIPS
    labels: dict  # {error: id}


FAMILIES = []
PLACES = {}  # (strand, error) -> id of the label


def add(text, ranges, solve):
    head, *sentences = (line.strip() for line in text.splitlines())
    subject, construct, form = head.split(" | ")
    if len(sentences) == 1:
        sentences = [ask.format(*sentences) for ask in ASK]
    answers = list(filter(None, (solve(*values) for values in product(*ranges.values()))))[-1]
    slips = [name for name in SLIPS if name not in answers] if whole(answers["right"]) else []
    slips = [name for name in slips if SLIPS[name](answers["right"]) not in [*answers.values(), None]]
    slips = [slips[(2 * len(FAMILIES) + i) % len(slips)] for i in range(min(3, len(slips)))]
    errors, strand = [*answers, *slips][1:], STRAND_OF[subject]
    labels = {error: PLACES.setdefault((strand, error), len(PLACES)) for error in errors}
    sentences = [Template(sentence) for sentence in sentences]
    FAMILIES.append(Family(subject, construct, form, strand, sentences, ranges, solve, slips, labels))


whole = lambda x: isinstance(x, (int, float)) and x == int(x)
SLIPS = {  # errors that any whole number can be the victim of, by what becomes of it; a family has three
    "more": lambda x: x + 1,
    "fewer": lambda x: x - 1,
    "tenfold": lambda x: 10 * x,
    "ten more": lambda x: x + 10 if x > 9 else None,
    "cut": lambda x: x // 10 if x > 9 and x % 10 else None,
}


# ------------------------------------------------------------------------------------------------ families
def over(top, bottom):
    """A fraction, None if it can be cancelled: so that different texts are different numbers."""
    return rf"\frac{{{top}}}{{{bottom}}}" if gcd(top, bottom) == 1 < bottom else None


beside = lambda a, b: int(f"{a}{b}")

# A table, laid out by hand.
# fmt: off
add(r"""BIDMAS | Carry out an addition and a multiplication in the correct order | {}
    \( $a + $b \times $c \)""", dict(a=range(2, 13), b=range(2, 10), c=range(2, 10)),
    lambda a, b, c: dict(right=a + b * c, leftright=(a + b) * c, leaves=a + b, adds=a + b + c, stops=b * c))
add(r"""BIDMAS | Carry out a calculation with a power in the correct order | {}
    \( $a + $b^2 \)""", dict(a=range(2, 17), b=range(3, 10)),
    lambda a, b: dict(
        right=a + b * b, stops=b * b, unsquared=a + 2 * b, leftright=(a + b) ** 2, side=a + beside(b, 2)))
add(r"""Adding and Subtracting Negative Numbers | Add a positive number to a negative number | {}
    \( -$a + $b \)""", dict(a=range(2, 16), b=range(2, 16)),
    lambda a, b: dict(
        right=b - a, unsigned=a + b, reversed=a - b, subtracts=-a - b, more=b - a + 1, fewer=b - a - 1))
add(r"""Multiplying and Dividing Negative Numbers | Multiply a bracket by a negative number | {}
    \( -$a \times ($b + $c) \)""", dict(a=range(2, 7), b=range(2, 10), c=range(2, 10)),
    lambda a, b, c: dict(
        right=-a * (b + c), unsigned=a * (b + c), first=-a * b + c, adds=b + c - a, stops=b + c))
add(r"""Adding and Subtracting with Decimals | Add two decimals with one decimal place | {:g}
    \( $a.$b + $c.$d \)""", dict(a=range(2, 10), b=range(2, 10), c=range(1, 9), d=range(2, 10)),
    lambda a, b, c, d: a > c and b + d > 10 and dict(
        right=a + c + (b + d) / 10, subtracts=a - c + (b - d) / 10, wholes=a + c + (b + d) / 100,
        pointless=10 * (a + c) + b + d, uncarried=a + c + (b + d - 10) / 10))
add(r"""Multiplying and Dividing with Decimals | Multiply a decimal by a whole number | {:g}
    \( $a.$b \times $c \)""", dict(a=range(1, 10), b=range(2, 10), c=range(3, 10)),
    lambda a, b, c: b * c > 10 and b * c % 10 and dict(
        right=(a + b / 10) * c, pointless=(10 * a + b) * c, wholes=a * c + b * c / 100,
        uncarried=a * c + b * c % 10 / 10, tenth=(a + b / 10) * c / 10, adds=a + b / 10 + c))
add(r"""Adding and Subtracting Fractions | Add two fractions with different denominators | \( {} \)
    \( \frac{$a}{$b} + \frac{$c}{$d} \)""",
    dict(a=range(1, 11), b=range(2, 14), c=range(1, 11), d=range(2, 14)),
    lambda a, b, c, d: c / d < a / b < 1
        and gcd(a * c, b * d) == gcd(b, d) == gcd(a + c, b * (b + d)) == 1 and dict(
        right=over(a * d + b * c, b * d), separate=over(a + c, b + d), multiplies=over(a * c, b * d),
        bottom=over(a + c, b), subtracts=over(a * d - b * c, b * d)))
add(r"""Multiplying and Dividing Fractions | Multiply two fractions | \( {} \)
    \( \frac{$a}{$b} \times \frac{$c}{$d} \)""",
    dict(a=range(1, 10), b=range(2, 12), c=range(2, 10), d=range(2, 12)),
    lambda a, b, c, d: a < b and c < d
        and gcd(a * c, b * d) == gcd(a, c) == gcd(b, d) == gcd(a + c, b + d) == 1 and dict(
        right=over(a * c, b * d), separate=over(a + c, b + d), bottom=over(a * c, b),
        flipped=over(a * d, b * c), adds=over(a * d + b * c, b * d)))
add(r"""Fractions of an Amount | Calculate a fraction of an amount | {}
    \( \frac{$a}{$b} \) of \( $c \)""", dict(a=range(2, 8), b=range(4, 11), c=range(12, 73)),
    lambda a, b, c: gcd(a, b) == 1 and a < b - 1 and c % b == 0 and dict(
        right=c // b * a, undivided=c * a, stops=c // b, rest=c - c // b * a, start=c + c // b * a))
add(r"""Rounding and Estimation | Estimate a sum by rounding each number to the nearest 10 | {:g}
    Estimate \( $a + $b \) by rounding each number to the nearest 10.
    Round each number to the nearest 10 to estimate \( $a + $b \).
    What is \( $a + $b \), with each number rounded to the nearest 10?""",
    dict(a=range(35, 90), b=range(15, 60)),
    lambda a, b: a % 10 > 4 < b % 10 and a > b + 9 and dict(
        right=(a // 10 + b // 10 + 2) * 10, down=(a // 10 + b // 10) * 10,
        subtracts=(a // 10 - b // 10) * 10, tenth=a // 10 + b // 10 + 2, more=(a // 10 + b // 10 + 3) * 10))
add(r"""Written Division | Interpret the remainder of a division in context | {}
    $a pupils go on a trip. Each bus has $b seats. How many buses are needed?
    A bus has $b seats. How many buses are needed for $a pupils?
    $a pupils travel in buses with $b seats each. What is the number of buses needed?""",
    dict(a=range(20, 100), b=range(4, 13)),
    lambda a, b: a % b and dict(right=a // b + 1, down=a // b, rest=a % b, times=a * b, takes=a - b))
add(r"""Percentages of an Amount | Calculate a percentage of an amount | {:g}
    \( $a \% \) of \( $b \)""", dict(a=(5, 15, 20, 25, 30, 40, 60, 70, 75, 80, 90), b=range(10, 201, 10)),
    lambda a, b: a * b % 100 == 0 and dict(
        right=a * b / 100, ten=a * b / 10, tenth=a * b / 1000, start=b + a * b / 100, rest=b - a * b / 100,
        amount=a))
add(r"""Percentage Increase and Decrease | Increase an amount by a percentage | £{:g}
    A coat costs £$b. The price goes up by $a%. What is the new price?
    Increase £$b by $a%.
    What is £$b after an increase of $a%?
    The price of a bike is £$b. What is the price after a $a% increase?""",
    dict(a=(5, 10, 15, 20, 25, 30, 40, 60, 70, 80), b=range(20, 301, 10)),
    lambda a, b: a * b % 100 == 0 and dict(
        right=b + a * b / 100, ten=b + a * b / 10, amount=b + a, stops=a * b / 100,
        subtracts=b - a * b / 100))
add(r"""Simple Interest | Calculate the simple interest on an amount | £{:g}
    £$a earns simple interest of $b% each year. How much interest is earned in $c years?
    How much simple interest is paid on £$a at $b% each year for $c years?
    Find the simple interest on £$a at a rate of $b% each year for $c years.""",
    dict(a=range(200, 901, 100), b=range(2, 10), c=range(2, 7)),
    lambda a, b, c: dict(
        right=a * b * c / 100, ten=a * b * c / 10, amount=b * c, stops=a * b / 100,
        start=a + a * b * c / 100))
add(r"""Area of Simple Shapes | Calculate the area of a rectangle from its length and width | {:g} square cm
    A rectangle is $a cm long and $b cm wide. What is its area?
    What is the area of a rectangle with a length of $a cm and a width of $b cm?
    A rectangle has a length of $a cm and a width of $b cm. Work out its area.""",
    dict(a=range(4, 25), b=range(3, 16)),
    lambda a, b: a > b and dict(right=a * b, mixes=2 * (a + b), adds=a + b, halved=a * b / 2, twice=a * a))
add(r"""Perimeter | Calculate the perimeter of a rectangle from its length and width | {} cm
    A rectangle is $a cm long and $b cm wide. What is its perimeter?
    What is the perimeter of a rectangle with a length of $a cm and a width of $b cm?
    A rectangle has a length of $a cm and a width of $b cm. Work out its perimeter.""",
    dict(a=range(4, 25), b=range(3, 16)),
    lambda a, b: a > b and dict(right=2 * (a + b), mixes=a * b, first=2 * a + b, stops=a + b, twice=4 * a))
add(r"""Area of Simple Shapes | Calculate the area of a triangle from its base and height | {:g} square cm
    A triangle has a base of $a cm, a height of $b cm and two sides of $c cm. What is its area?
    What is the area of a triangle with base $a cm, height $b cm and two sides of $c cm?
    A triangle is $a cm wide and $b cm high, with two sides of $c cm. Work out its area.""",
    dict(a=range(4, 17, 2), b=range(3, 15), c=range(4, 19)),
    lambda a, b, c: b < c < b + 5 and dict(
        right=a * b / 2, unhalved=a * b, slant=a * c / 2, adds=a + b, mixes=a + 2 * c))
add(r"""Volume of Prisms | Calculate the volume of a cuboid from its three sides | {:g} cubic cm
    A cuboid is $a cm long, $b cm wide and $c cm high. What is its volume?
    What is the volume of a cuboid with sides of $a cm, $b cm and $c cm?
    The sides of a cuboid are $a cm, $b cm and $c cm. Work out its volume.""",
    dict(a=range(2, 8), b=range(2, 8), c=range(3, 9)),
    lambda a, b, c: dict(
        right=a * b * c, adds=a + b + c, leaves=a * b, early=(a + b) * c, halved=a * b * c / 2))
add(r"""Squares and Square Roots | Calculate with the square root of a square number | {:g}
    \( \sqrt{$a} + $b \)""", dict(a=(16, 25, 36, 49, 64, 81, 100, 121, 144), b=range(2, 16)),
    lambda a, b: dict(
        right=isqrt(a) + b, multiplies=isqrt(a) * b, halved=a / 2 + b, stops=isqrt(a),
        subtracts=isqrt(a) - b))
add(r"""Laws of Indices | Multiply two powers with the same base | \( x^{{{}}} \)
    Simplify \( x^{$a} \times x^{$b} \).
    Write \( x^{$a} \times x^{$b} \) as a single power.
    Which power of \( x \) is \( x^{$a} \times x^{$b} \)?""", dict(a=range(2, 14), b=range(2, 14)),
    lambda a, b: dict(right=a + b, multiplies=a * b, subtracts=a - b, leaves=a, side=beside(a, b)))
add(r"""Substitution into Formula | Substitute a number into a linear expression | {}
    What is the value of \( ${a}x + $b \) when \( x = $c \)?
    Find the value of \( ${a}x + $b \) if \( x = $c \).
    Substitute \( x = $c \) into \( ${a}x + $b \).""", dict(a=range(2, 10), b=range(2, 10), c=range(2, 10)),
    lambda a, b, c: dict(
        right=a * c + b, side=beside(a, c) + b, adds=a + c + b, early=a * (c + b), unlike=(a + b) * c))
add(r"""Substitution into Formula | Substitute a number into an expression with a square | {}
    What is the value of \( ${a}x^2 + $b \) when \( x = $c \)?
    Find the value of \( ${a}x^2 + $b \) if \( x = $c \).
    Substitute \( x = $c \) into \( ${a}x^2 + $b \).""", dict(a=range(2, 6), b=range(2, 10), c=range(3, 8)),
    lambda a, b, c: dict(
        right=a * c * c + b, leftright=(a * c) ** 2 + b, unsquared=2 * a * c + b, adds=a + c * c + b,
        unlike=(a + b) * c * c))
add(r"""Expanding Single Brackets | Expand a single bracket with a subtraction | \( {} \)
    Expand \( $a(${b}x - $c) \).
    Multiply out \( $a(${b}x - $c) \).
    Write \( $a(${b}x - $c) \) without brackets.""", dict(a=range(2, 7), b=range(2, 7), c=range(2, 10)),
    lambda a, b, c: dict(
        right=f"{a * b}x - {a * c}", first=f"{a * b}x - {c}", unsigned=f"{a * b}x + {a * c}",
        adds=f"{a + b}x - {a + c}", stops=f"{a * b}x"))
add(r"""Simplifying Expressions | Collect like terms in one variable | \( {} \)
    Simplify \( ${a}x + $b + ${c}x \).
    Collect like terms: \( ${a}x + $b + ${c}x \).
    Write \( ${a}x + $b + ${c}x \) as simply as possible.""",
    dict(a=range(4, 11), b=range(2, 10), c=range(2, 9)),
    lambda a, b, c: a > c + 1 and dict(
        right=f"{a + c}x + {b}", unlike=f"{a + b + c}x", multiplies=f"{a * c}x + {b}",
        subtracts=f"{a - c}x + {b}", leaves=f"{a}x + {b}"))
add(r"""Linear Equations | Solve a linear equation in two steps | \( x = {} \)
    Solve \( ${a}x + $b = $c \).
    What is \( x \) if \( ${a}x + $b = $c \)?
    Find the value of \( x \): \( ${a}x + $b = $c \).""", dict(a=range(2, 8), b=range(2, 13), c=range(8, 50)),
    lambda a, b, c: c > b + a and (c - b) % a == 0 and dict(
        right=(c - b) // a, undivided=c - b, times=(c - b) * a, reversed=(b - c) // a, takes=c - b - a))
add(r"""Ratio | Share an amount in a given ratio | {}
    $a sweets are shared in the ratio $b : $c. How many are in the first share?
    Share $a sweets in the ratio $b : $c. How many does the first person get?
    Ann and Ben share $a sweets in the ratio $b : $c. How many does Ann get?
    What is the first share if $a sweets are shared in the ratio $b : $c?""",
    dict(a=range(15, 100), b=range(2, 7), c=range(2, 7)),
    lambda a, b, c: gcd(b, c) == 1 and a % (b + c) == 0 and dict(
        right=a // (b + c) * b, stops=a // (b + c), rest=a // (b + c) * c, undivided=a * b, takes=a - b - c,
        adds=a // (b + c) + b))
add(r"""Linear Sequences | Find a given term of a linear sequence | {}
    A sequence starts with $a and goes up by $b each time. What is term number $c?
    The first term of a sequence is $a. The rule is add $b. What is term number $c?
    What is term number $c of a sequence that starts with $a and goes up in steps of $b?""",
    dict(a=range(2, 13), b=range(3, 10), c=range(4, 10)),
    lambda a, b, c: dict(
        right=a + (c - 1) * b, more=a + c * b, fewer=a + (c - 2) * b, adds=a + b + c,
        early=(a + b) * (c - 1)))
add(r"""Averages and Range | Calculate the mean of a list of numbers | {:g}
    What is the mean of $a, $b and $c?
    Find the mean of these numbers: $a, $b, $c.
    Work out the mean of $a, $b and $c.""", dict(a=range(2, 19), b=range(2, 19), c=range(2, 19)),
    lambda *x: sum(x) % 3 == 0 and len({*x}) == 3 and dict(
        right=fmean(x), undivided=sum(x), largest=max(x), confuses=median(x), leaves=fmean(x[:2])))
add(r"""Averages and Range | Find the median of a list of numbers | {:g}
    What is the median of $a, $b, $c and $d?
    Find the median of these numbers: $a, $b, $c, $d.
    Work out the median of $a, $b, $c and $d.""",
    dict(a=range(2, 17), b=range(2, 17), c=range(2, 17), d=range(2, 17)),
    lambda *x: sum(x) % 4 == 0 and len({*x}) == 4 and len({median(x), fmean(x), fmean(x[1:3])}) == 3 and dict(
        right=median(x), unhalved=2 * median(x), unsorted=fmean(x[1:3]), largest=max(x), confuses=fmean(x)))
add(r"""Averages and Range | Find the range of a list of numbers | {:g}
    What is the range of $a, $b, $c and $d?
    Find the range of these numbers: $a, $b, $c, $d.
    Work out the range of $a, $b, $c and $d.""",
    dict(a=range(2, 17), b=range(2, 17), c=range(2, 17), d=range(2, 17)),
    lambda *x: sum(x) % 4 == 0 and len({*x}) == 4 and dict(
        right=max(x) - min(x), plus=max(x) + min(x), unsorted=abs(x[-1] - x[0]), largest=max(x),
        confuses=fmean(x)))
add(r"""Time | Add a number of minutes to a time | {}:{:02}
    A film starts at $a:$b and lasts $c minutes. When does it end?
    It is $a:$b. What time is it $c minutes later?
    A lesson of $c minutes starts at $a:$b. When does it end?""",
    dict(a=range(2, 11), b=range(15, 60, 5), c=range(10, 60, 5)),
    lambda a, b, c: 60 < b + c < 100 and dict(
        right=(a + 1, b + c - 60), uncarried=(a, b + c - 60), subtracts=divmod(60 * a + b - c, 60),
        hundred=(a, b + c), more=(a + 2, b + c - 60)))
add(r"""Length Units | Convert from metres to centimetres | {} cm
    A rope is $a.$b m long. How long is it in cm?
    Convert $a.$b m to cm.
    How many cm are $a.$b m?""", dict(a=range(2, 20), b=range(1, 10)),
    lambda a, b: dict(
        right=100 * a + 10 * b, tenth=10 * a + b, wholes=100 * a + b, stops=100 * a,
        pointless=1000 * a + 100 * b))
add(r"""Probability of Single Events | Calculate the probability of a single event | \( {} \)
    A bag has $a red and $b blue counters. One is taken at random. What is the probability that it is red?
    What is the probability to take a red counter from a bag with $a red and $b blue counters?
    There are $a red and $b blue counters in a bag. Find the probability of taking a red one.""",
    dict(a=range(3, 20), b=range(2, 20)),
    lambda a, b: dict(
        right=over(a, a + b), fewer=over(a - 1, a + b), flipped=over(a + b, a), part=over(a, b),
        rest=over(b, a + b)))
add(r"""Gradient of a Line | Find the gradient of a line from two points on it | \( {} \)
    What is the gradient of the line through \( ($a, $b) \) and \( ($c, $d) \)?
    Find the gradient of the line from \( ($a, $b) \) to \( ($c, $d) \).
    A line goes through \( ($a, $b) \) and \( ($c, $d) \). What is its gradient?""",
    dict(a=range(1, 6), b=range(1, 6), c=range(3, 11), d=range(3, 11)),
    lambda a, b, c, d: c > a and d > b and dict(
        right=over(d - b, c - a), flipped=over(c - a, d - b), undivided=d - b, reversed=over(b - d, c - a),
        plus=over(d + b, c + a)))
add(r"""Speed | Calculate a speed from a distance and a time in minutes | {:g} km/h
    A train travels $a km in $b minutes. What is its speed in km/h?
    What is the speed in km/h of a car that travels $a km in $b minutes?
    A bus takes $b minutes for $a km. Work out its speed in km/h.""",
    dict(a=range(2, 41), b=(5, 20, 25, 40, 50)),
    lambda a, b: dict(right=60 * a / b, hundred=100 * a / b, undivided=60 * a, times=a * b, stops=60 / b))
add(r"""Angle Facts | Find a missing angle in a triangle | \( {}^\circ \)
    Two angles of a triangle are \( $a^\circ \) and \( $b^\circ \). What is the third angle?
    A triangle has angles of \( $a^\circ \) and \( $b^\circ \). Work out the other angle.
    What is the third angle of a triangle with angles \( $a^\circ \) and \( $b^\circ \)?""",
    dict(a=range(20, 81, 5), b=range(20, 81, 5)),
    lambda a, b: a != b and dict(
        right=180 - a - b, circle=360 - a - b, stops=a + b, leaves=180 - a, twice=180 - 2 * a))
add(r"""Angle Facts | Find a missing angle on a straight line | \( {:g}^\circ \)
    Angles of \( $a^\circ \), \( $b^\circ \) and two equal angles are on a line. How large are the equal ones?
    Two equal angles are on a straight line with \( $a^\circ \) and \( $b^\circ \). Find one of them.
    On a line are \( $a^\circ \), \( $b^\circ \) and two equal angles. Work out one of the equal angles.""",
    dict(a=range(20, 81, 5), b=range(20, 81, 5)),
    lambda a, b: a != b and dict(
        right=(180 - a - b) / 2, unhalved=180 - a - b, circle=(360 - a - b) / 2, leaves=(180 - a) / 2,
        plus=(180 - a + b) / 2))
# fmt: on


# ------------------------------------------------------------------------------------------------ labels
UNSEEN = """
whole fewer, whole cut, whole adds, negative tenfold, negative stops, decimals subtracts, fractions ten more,
fractions undivided, percentages cut, percentages ten more, shapes tenfold, shapes stops, algebra cut,
algebra fewer, algebra first, proportion ten more, proportion rest, data tenfold, measures ten more,
graphs flipped, angles more"""
UNSEEN = {tuple(words.split(maxsplit=1)) for words in UNSEEN.split(",")}  # never trained on; their errors are
SUBJECTS = [*dict.fromkeys(family.subject for family in FAMILIES)]

OWNERS = [*PLACES]
strand_of = lambda label: OWNERS[label][0]
error_of = lambda label: OWNERS[label][1]
is_unseen = lambda label: OWNERS[label] in UNSEEN


def paraphrase(label, k):
    """A label in another wording, k = 1 or 2; with k = 0 the label itself."""
    strand, error = OWNERS[label]
    text = JOIN[k].format(error=ERRORS[error][k], situation=STRANDS[strand][k])
    return text[0].upper() + text[1:]


LABELS = [paraphrase(label, 0) for label in range(len(OWNERS))]

# ------------------------------------------------------------------------------------------------ questions
pick = lambda rng, items: items[rng.integers(len(items))]
sample = lambda rng, items, n: [items[i] for i in rng.permutation(len(items))[:n]]  # n different ones


def solved(family, values):
    """The answers as texts, "right" and by error; None where the values make no sense."""
    answers = family.solve(*values)
    if not answers or answers["right"] is None:
        return None
    right = answers["right"]
    answers = answers | {name: SLIPS[name](right) for name in family.slips if whole(right)}
    write = lambda x: family.form.format(*x) if isinstance(x, tuple) else family.form.format(x)
    return {error: write(x) for error, x in answers.items() if x is not None}


def clear(family, answers, unseen=False):
    """The labels whose answers nothing else gives: each of these answers has one explanation."""
    given = Counter(answers.values())  # 0 of None, the answer of an error that does not apply
    once = [label for error, label in family.labels.items() if given[answers.get(error)] == 1]
    return [label for label in once if unseen or not is_unseen(label)]


def question(rng, number, unseen=False):
    """A row with id `number`, of any family; `unseen`: also with the labels that training never shows."""
    family, labels = pick(rng, FAMILIES), []
    while len(labels) < 3:
        values = [pick(rng, choices) for choices in family.ranges.values()]
        answers = solved(family, values)
        labels = clear(family, answers, unseen) if answers else []
    shown = [("right", None), *((error_of(label), label) for label in sample(rng, labels, 3))]
    shown = dict(zip(LETTERS, sample(rng, shown, 4)))
    return {
        "QuestionId": number,
        "ConstructId": FAMILIES.index(family),
        "ConstructName": family.construct,
        "SubjectId": SUBJECTS.index(family.subject),
        "SubjectName": family.subject,
        "CorrectAnswer": next(letter for letter, (error, _) in shown.items() if error == "right"),
        "QuestionText": pick(rng, family.sentences).substitute(dict(zip(family.ranges, values))),
        **{f"Answer{letter}Text": answers[error] for letter, (error, _) in shown.items()},
        **{f"Misconception{letter}Id": label for letter, (_, label) in shown.items()},
    }


# Is the question kept for evaluation? A function of its text, so that no seed can mix the two.
held_out = lambda text: zlib.crc32(text.encode()) % 10 == 0
