"""Agent Alpha: find the keyword of 20 Questions by its spelling, with a partner that knows the protocol.

Alpha first asks "Is it Agent Alpha?". A partner that says yes answers by rule (contest/rules.py), and each
answer to "Does the keyword precede ..." halves the rest of a list of words: 18 rounds are enough for 100,000.
With any other partner, Alpha plays as the agent that it wraps, which never sees the turns of the protocol. It
does the same when no word is left, because the keyword is not in the list or the partner only pretended.
Every reply of a player here depends on the conversation only. The protocol is that of Kaggle's
llm_20_questions, published there by loh-maa."""

import re
import zlib
from bisect import bisect_left
from pathlib import Path

import numpy as np

from games.rows import lines
from games.twentyq.contest.rules import HANDSHAKE, PRECEDES, answer_by_rule
from games.twentyq.match import AgentWrapper
from games.twentyq.prompts import ask_prompt, guess_prompt

BISECTION = re.compile(re.escape(PRECEDES).replace(re.escape("{}"), '([^"]+)'))
WORD_LINE = re.compile(r'([^"\t]+)(?:\t(\d*\.?\d+))?')  # word, tab, frequency
# share of the prior that is spread evenly over all words; at 1/2 a rare word costs at most one more question
EVEN = 0.5


def read_words(path):
    """(words, weights) of a file: a word a line and, after a tab, its frequency.

    If there are no frequencies, a list in alphabetical order has equal weights. Any other list is taken to be
    sorted by frequency, and its n-th word has the weight 1 / n (Zipf's law)."""
    words = []
    weights = []
    for number, line in lines(Path(path), path):
        if not line.strip():
            continue
        entry = WORD_LINE.fullmatch(line.strip())
        if entry:
            words.append(entry[1].lower())
            if entry[2]:
                weights.append(float(entry[2]))
        # a weight of 0, or some lines with a weight and some without
        if not entry or weights[-1:] == [0] or len(weights) not in (0, len(words)):
            raise ValueError(
                f"{path}, line {number}: expected a word without quotes, and in all lines or none a tab and "
                f"a number above 0, found {line.strip()!r}"
            )
    if not words:
        raise ValueError(f"{path}: no words")
    if not weights:
        in_order = words == sorted(words)  # such an order says nothing about frequency
        weights = [1 if in_order else 1 / (i + 1) for i in range(len(words))]
    return words, weights


class Ruled(AgentWrapper):
    """Half an Alpha: answers by rule if a rule decides, and leaves all the rest, such as asking, to its
    agent."""

    def own_texts(self, seat, content, n):
        answer = answer_by_rule(*content) if seat == "answerer" else None
        return [answer] if answer else []


class Alpha(Ruled):
    """Both seats of the protocol, around an agent that says everything else.

    words: list of str, in lower case from here on. weights: how likely each word is the keyword, by default
    equal. control: whether the first question is one that every Alpha must deny; it unmasks half of the
    partners that answer at random."""

    def __init__(self, agent, words, weights=None, control=False):
        super().__init__(agent)
        self.control = control
        weights = [1] * len(words) if weights is None else weights
        # in alphabetical order for bisection; of a word that is there twice the larger weight counts
        weight_of = dict(sorted(zip(map(str.lower, words), weights)))
        self.words = list(weight_of)
        prior = np.array(list(weight_of.values()), float)
        self.prior = (1 - EVEN) * prior / prior.sum() + EVEN / len(prior)

    def remaining(self, turns):
        """(prior, places) after some turns. prior: the probability of each word, 0 after a wrong guess.
        places: the words that can still be the keyword; empty if the partner is no Alpha.

        Nobody tells it its own guesses, so it repeats them: after each turn but the last it guessed the
        likeliest word that was left, and was wrong."""
        prior = self.prior.copy()
        low = 0
        high = len(prior)
        if turns[0] != (HANDSHAKE, "yes"):
            return prior, np.array([], int)
        for number, (question, answer) in enumerate(turns):
            if number and low < high:
                prior[low + prior[low:high].argmax()] = 0
            if bound := BISECTION.fullmatch(question):
                place = bisect_left(self.words, bound[1])
                if answer == "yes":
                    high = min(high, place)
                else:
                    low = max(low, place)
        # a word that was guessed is out, even inside the interval
        return prior, low + prior[low:high].nonzero()[0]

    def own_texts(self, seat, content, n):
        if seat == "answerer":
            return super().own_texts(seat, content, n)
        if not content:
            return [HANDSHAKE]
        prior, places = self.remaining(content)
        if seat == "guesser":
            if not len(places) and not semantic(content):
                # the agent has seen no turn that it could guess from
                places = prior.nonzero()[0]
            order = np.argsort(-prior[places], kind="stable")[:n]
            return [self.words[place] for place in places[order]]
        if len(places) < 2:
            return []  # there is nothing to halve, so the agent asks
        if self.control and len(content) == 1:
            return [PRECEDES.format(self.words[0])]  # no word precedes the first one

        # ask for the word that divides the probability most evenly
        below = prior[places].cumsum()
        half = int(np.abs(below[:-1] - below[-1] / 2).argmin())
        return [PRECEDES.format(self.words[places[half + 1]])]

    def inner_prompt(self, seat, content, conversation):
        if seat == "answerer":
            return conversation
        return (ask_prompt if seat == "asker" else guess_prompt)(semantic(content))


def semantic(turns):
    """The turns that do not belong to the protocol."""
    return [turn for turn in turns if turn[0] != HANDSHAKE and not BISECTION.fullmatch(turn[0])]


def rng_from(*content):
    """A random generator that depends on the content of the conversation only."""
    return np.random.default_rng(zlib.crc32(repr(content).encode()))


class Pretender(Ruled):
    """A false Alpha: says yes to the handshake, and answers spelling questions at random."""

    def own_texts(self, seat, content, n):
        answer = super().own_texts(seat, content, n)
        if not answer or content[1] == HANDSHAKE:
            return answer
        # the same question about the same keyword always gets the same answer
        return [str(rng_from(content).choice(["yes", "no"]))]


class Random(AgentWrapper):
    """Asks, answers and guesses at random."""

    def __init__(self, world):
        super().__init__(None)
        self.choices = {"asker": world.questions, "guesser": world.keywords, "answerer": ["yes", "no"]}

    def own_texts(self, seat, content, n):
        return [str(text) for text in rng_from(seat, content).permutation(self.choices[seat])[:n]]


def player(task, kind, agent):
    """The player of a kind: alpha, half or false around an agent, or random."""
    if kind == "random":
        return Random(task.world)
    if kind == "alpha":
        path = task.options.alpha_words
        words, weights = read_words(path) if path else (task.world.keywords, None)
        return Alpha(agent, words, weights, task.options.alpha_control)
    return {"half": Ruled, "false": Pretender}[kind](agent)
