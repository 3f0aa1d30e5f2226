"""Agent Alpha: finding the keyword of 20 Questions by its spelling, with a partner who knows the protocol.

Alpha first asks "Is it Agent Alpha?". A partner who says yes answers by rule (contest/rules.py), and each
answer to "Does the keyword precede ..." halves what is left of a list of words: 18 rounds are enough for
100,000. With anybody else, and when the words have run out (the keyword is none of them, or the partner only
pretended), Alpha plays as the agent it is made of, which never sees the turns spent on the protocol. All that
a player here says follows from the conversation. The protocol is that of Kaggle's llm_20_questions, published
there by loh-maa."""

import re
import zlib
from bisect import bisect_left
from pathlib import Path

import numpy as np

from games.rows import lines
from games.twentyq.contest.rules import HANDSHAKE, PRECEDES, answer_by_rule
from games.twentyq.match import Around
from games.twentyq.prompts import ask_prompt, guess_prompt

ASKED = re.compile(re.escape(PRECEDES).replace(re.escape("{}"), '([^"]+)'))
LINE = re.compile(r'([^"\t]+)(?:\t(\d*\.?\d+))?')  # of a file of words
EVEN = 0.5  # share of the prior that all words have in common: a rare word then costs one question more


def read_words(path):
    """(words, weights) of a file: a word a line and, after a tab, how often it occurs. Without these numbers
    a list in alphabetical order has equal weights, and any other the most frequent words first: the n-th has
    1 / n (Zipf's law)."""
    if not Path(path).exists():
        raise FileNotFoundError(f"--alpha-words {path}: no such file")
    words, weights = [], []
    for number, line in lines(Path(path), path):
        if not line.strip():
            continue
        found = LINE.fullmatch(line.strip())
        if found:
            words.append(found[1].lower())
            weights += [float(weight) for weight in found.groups()[1:] if weight]
        if not found or weights[-1:] == [0] or len(weights) not in (0, len(words)):
            raise ValueError(
                f"{path}, line {number}: needs a word without quotes and, as all lines or none, a tab and a "
                f"number above 0, found {line.strip()!r}"
            )
    if not words:
        raise ValueError(f"{path}: no words")
    if not weights:
        in_order = words == sorted(words)
        weights = [1 if in_order else 1 / (i + 1) for i in range(len(words))]
    return words, weights


class Ruled(Around):
    """Half an Alpha: answers what a rule decides, and leaves the rest, asking included, to its agent."""

    def own(self, seat, content, n):
        answer = answer_by_rule(*content) if seat == "answerer" else None
        return [answer] if answer else []


class Alpha(Ruled):
    """Both seats of the protocol, over an agent for all that it does not say.

    words: list of str, looked up in lower case; weights: how likely each is the keyword, by default equal;
    control: whether to ask first what every Alpha denies, which unmasks half of those who say anything."""

    def __init__(self, agent, words, weights=None, control=False):
        super().__init__(agent)
        self.control = control
        weights = [1] * len(words) if weights is None else weights
        likely = dict(sorted(zip(map(str.lower, words), weights)))
        self.words, prior = list(likely), np.array(list(likely.values()), float)
        self.prior = (1 - EVEN) * prior / prior.sum() + EVEN / len(prior)

    def left(self, turns):
        """(prior, places) after some turns: the probability of each word, 0 of those that were guessed, and
        the places of the words that can still be it, of none where the partner is no Alpha. After each turn
        but the last the likeliest of these was guessed, and wrong."""
        prior, low, high = self.prior.copy(), 0, len(self.prior)
        if turns[0] != (HANDSHAKE, "yes"):
            return prior, np.array([], int)
        for number, (question, answer) in enumerate(turns):
            if number and low < high:
                prior[low + prior[low:high].argmax()] = 0
            if found := ASKED.fullmatch(question):
                place = bisect_left(self.words, found[1])
                low, high = (low, min(high, place)) if answer == "yes" else (max(low, place), high)
        return prior, low + prior[low:high].nonzero()[0]

    def own(self, seat, content, n):
        if seat == "answerer":
            return super().own(seat, content, n)
        if not content:
            return [HANDSHAKE]
        prior, places = self.left(content)
        if seat == "guesser":
            if not len(places) and not semantic(content):
                places = prior.nonzero()[0]  # nothing is known of the keyword, and its agent was told nothing
            order = np.argsort(-prior[places], kind="stable")[:n]
            return [self.words[place] for place in places[order]]
        if len(places) < 2:
            return []
        if self.control and len(content) == 1:
            return [PRECEDES.format(self.words[0])]
        below = prior[places].cumsum()
        half = int(np.abs(below[:-1] - below[-1] / 2).argmin())
        return [PRECEDES.format(self.words[places[half + 1]])]

    def handed(self, seat, content, conversation):
        if seat == "answerer":
            return conversation
        return (ask_prompt if seat == "asker" else guess_prompt)(semantic(content))


def semantic(turns):
    """The turns that are not about the protocol."""
    return [turn for turn in turns if turn[0] != HANDSHAKE and not ASKED.fullmatch(turn[0])]


def rng_of(*what):
    """A random generator that follows from what was said."""
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


class Pretender(Ruled):
    """A false Alpha: says yes to the handshake, and anything to what rules decide."""

    def own(self, seat, content, n):
        answer = super().own(seat, content, n)
        if not answer or content[1] == HANDSHAKE:
            return answer
        return [str(rng_of(content).choice(["yes", "no"]))]


class Random(Around):
    """Asks, answers and guesses at random."""

    def __init__(self, world):
        super().__init__(None)
        self.ideas = {"asker": world.questions, "guesser": world.keywords, "answerer": ["yes", "no"]}

    def own(self, seat, content, n):
        return [str(text) for text in rng_of(seat, content).permutation(self.ideas[seat])[:n]]


def player(task, kind, agent):
    """The player of a kind over an agent: alpha, half, false, or random over none."""
    if kind == "random":
        return Random(task.world)
    if kind == "alpha":
        path = task.options.alpha_words
        words, weights = read_words(path) if path else (task.world.keywords, None)
        return Alpha(agent, words, weights, task.options.alpha_control)
    return {"half": Ruled, "false": Pretender}[kind](agent)
