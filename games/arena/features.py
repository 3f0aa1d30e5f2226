"""A judge of battles without a language model: it weighs style, words and order of the two answers.

The logits of A, B and a tie are Davidson's (games/arena/stats.py). Each feature of A minus that of B has a
weight in d, and so has the first place; what differs in style is tied less often."""

import re
from collections import Counter

import numpy as np

from games.arena.stats import davidson_design, targets_of, texts_of
from games.stats import log_softmax, newton
from terminal import UsageError

STYLES = 6
WORDS = 300  # so many words count, the most frequent ones of the answers
RIDGE = 1.0  # on all weights
WORD_SCALE = 0.1  # makes the ridge on words a hundred times as large

count_words = lambda text: Counter(re.findall(r"\w+", text.lower()))


def style(text, words, asked):
    """The style of an answer, (6,): its length and its numbers of lines, bullets, punctuation marks, and code
    and bold marks, all as logarithms, then the share of the prompt's words that it contains. words, asked:
    what count_words finds in the answer and in the prompt."""
    counts = [
        len(text),
        text.count("\n"),
        len(re.findall(r"^\s*(?:[-*\u2022]|\d+[.)])\s", text, re.M)),
        len(re.findall(r"[.?!,:;]", text)),
        text.count("```") + text.count("**"),
    ]
    overlap = len(asked.keys() & words.keys()) / max(len(asked), 1)
    return np.array([*np.log1p(counts), overlap])


def features(example, words=()):
    """A's features minus B's, (6 + words,): style, then how often each word occurs, as a logarithm. A swap
    changes its sign."""
    prompt, a, b = texts_of(example)
    asked, in_a, in_b = map(count_words, (prompt, a, b))
    counts = np.array([[in_a[word], in_b[word]] for word in words]).reshape(-1, 2)
    a_more, b_more = WORD_SCALE * np.log1p(counts).T
    return np.concatenate([style(a, in_a, asked) - style(b, in_b, asked), a_more - b_more])


class Features:
    """The judge, fitted to battles."""

    def __init__(self, battles):
        if not battles:
            raise UsageError("features: no battles to fit them to; --data needs train.csv as well")
        answers = Counter()  # word -> how many answers have it
        for battle in battles:
            for text in texts_of(battle)[1:]:
                answers.update(count_words(text).keys())
        self.words = [word for word, _ in answers.most_common(WORDS)]
        X = np.array([features(battle, self.words) for battle in battles])
        # scaled but not centred: subtracting a mean would favour one side
        self.scale = np.ones(X.shape[1])
        self.scale[:STYLES] = np.sqrt((X[:, :STYLES] ** 2).mean(0)) + 1e-9
        self.weights = newton(self.design(X), targets_of(battles), RIDGE)

    def design(self, X):
        """The design (N, 3, P) of features X (N, 6 + words)."""
        scaled = X / self.scale
        place = np.ones((len(X), 1))
        distances = np.minimum(np.abs(scaled[:, :STYLES]), 1)  # ties grow rare up to a limit
        return davidson_design(np.hstack([scaled, place]), distances)

    def chances(self, battles):
        """Probabilities of A, B and a tie, (N, 3)."""
        X = np.array([features(battle, self.words) for battle in battles])
        return np.exp(log_softmax(self.design(X) @ self.weights))
