"""The world of 20 Questions: keywords, questions and their truth table, and the player who knows that table.

The table player is teacher, baseline and oracle answerer at once. It keeps a belief over the keywords, takes
every answer to be wrong with probability EPS, and asks what it expects to learn most from."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from games.task import Reply

WORLD = Path(__file__).parent / "worlds" / "twentyq.txt"
EPS = 0.1  # chance that an answer is wrong, in the belief


class World:
    """keywords, questions: lists of str; alternates: keyword -> other right guesses; table (keywords,
    questions) bool."""

    def __init__(self, path=WORLD):
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such world file")
        self.keywords, self.questions, self.alternates = [], [], {}
        tags, kinds, rows, section = {}, {}, [], ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line = line.split("#")[0].strip()
            where = f"{path}, line {number}"
            if not line:
                continue
            if line.startswith("["):
                section = line
            elif section == "[questions]":
                tag, _, question = line.partition(" ")
                if tag in tags or not question:
                    raise ValueError(f"{where}: expected a new tag and its question, found {line!r}")
                tags[tag] = len(tags)
                self.questions.append(question.strip())
            elif section in ("[kinds]", "[keywords]"):
                line, _, alternates = line.partition("|")
                head, _, own = line.partition(":")
                name, _, parents = head.partition("<")
                name, have = name.strip(), set()
                for parent in parents.replace(",", " ").split():
                    if parent not in kinds:
                        raise ValueError(f"{where}: unknown kind {parent!r}")
                    have |= kinds[parent]
                for tag in own.split():
                    if tag.lstrip("-") not in tags:
                        raise ValueError(f"{where}: tag {tag!r} has no question")
                    (have.discard if tag[0] == "-" else have.add)(tag.lstrip("-"))
                if section == "[kinds]":
                    kinds[name] = have
                    continue
                if name in self.alternates:
                    raise ValueError(f"{where}: {name!r} stands there twice")
                self.keywords.append(name)
                self.alternates[name] = [word.strip() for word in alternates.split(",") if word.strip()]
                rows.append([tag in have for tag in tags])
            else:
                raise ValueError(f"{where}: {line!r} stands outside of [questions], [kinds] and [keywords]")
        if not rows:
            raise ValueError(f"{path}: no keywords")
        self.table = np.array(rows, dtype=bool)  # (keywords, 0) of a mere list of keywords
        self.keyword_index = {plain(word): i for i, word in enumerate(self.keywords)}
        self.question_index = {plain(question): i for i, question in enumerate(self.questions)}

    def answer(self, keyword, question):
        """True, False, or None where the table does not know the keyword or the question."""
        k, q = self.keyword_index.get(plain(keyword)), self.question_index.get(plain(question))
        return None if k is None or q is None else bool(self.table[k, q])

    @lru_cache(maxsize=8)  # noqa: B019  (one world a process)
    def separating(self, n):
        """The n questions that together tell the keywords apart best, most useful first: question indices.

        Greedy: every pair of keywords starts with weight 1, each chosen question on which a pair differs
        multiplies its weight by 2 sqrt(EPS (1 - EPS)), the bound of Bhattacharyya on confusing them, and the
        next question is the one that separates the most weight."""
        yes = self.table.astype(float)
        weight, chosen = 1 - np.eye(len(yes)), []
        for _ in range(min(n, len(self.questions))):
            separated = ((weight @ yes) * (1 - yes)).sum(0)  # (questions,)
            separated[chosen] = -1
            best = int(separated.argmax())
            chosen.append(best)
            differ = self.table[:, best, None] != self.table[None, :, best]
            weight = np.where(differ, weight * 2 * (EPS * (1 - EPS)) ** 0.5, weight)
        return chosen


@lru_cache(maxsize=100_000)
def plain(text):
    """Case, spaces and punctuation folded away: how the table looks up what somebody typed."""
    return "".join(c for c in text.lower() if c.isalnum())


class Belief:
    """A probability for each keyword after the answers so far, and the question that would teach most about
    it."""

    def __init__(self, world, pool=0, opening=0):
        self.world = world
        self.pool = np.array(world.separating(pool or len(world.questions)), dtype=int)
        self.opening = opening  # the first questions, asked in fixed order
        likely = np.where(world.table, 1 - EPS, EPS)  # P(yes | keyword), (keywords, questions)
        self.log_yes, self.log_no = np.log(likely), np.log(1 - likely)
        self.yes = likely[:, self.pool]
        self.restart()

    def restart(self):
        self.logp = np.zeros(len(self.world.keywords))
        self.asked = []
        self.unasked = np.ones(len(self.pool), dtype=bool)  # by place in the pool
        return self

    def update(self, question, answer):
        """Take in the answer, "yes", "no" or "unsure", to a question, given by its index."""
        if answer not in ("yes", "no", "unsure"):
            raise ValueError(f"an answer must be yes, no or unsure, not {answer!r}")
        if answer != "unsure":
            self.logp += (self.log_yes if answer == "yes" else self.log_no)[:, question]
        self.asked.append(question)
        self.unasked &= self.pool != question

    def probabilities(self):
        p = np.exp(self.logp - self.logp.max())
        return p / p.sum()

    def questions(self, n=1):
        """The n best questions, by index: the opening first, then by expected information gain.

        With the same EPS for every cell, the gain grows as P(yes) under the belief nears 1/2.
        """
        first = int(self.unasked.argmax())
        if n == 1 and len(self.asked) < self.opening and self.unasked[first]:
            return [int(self.pool[first])]
        gain = -np.abs(self.probabilities() @ self.yes - 0.5)
        gain[~self.unasked] = -np.inf
        if len(self.asked) < self.opening:
            gain[first] = 1
        return self.pool[np.argsort(-gain, kind="stable")[:n]].tolist()

    def guesses(self, n=1):
        """The n likeliest keywords, by index."""
        if n == 1:
            return [int(self.logp.argmax())]
        return np.argsort(-self.logp, kind="stable")[:n].tolist()


class TablePlayer:
    """The table as an agent: reads a conversation of games.twentyq and replies from the belief, in any
    seat."""

    def __init__(self, game, world, pool=0, opening=0):
        self.game, self.world, self.belief = game, world, Belief(world, pool, opening)

    def reply(self, conversations, n=1):
        return [[Reply(text) for text in self.texts(conversation, n)] for conversation in conversations]

    def texts(self, conversation, n):
        seat, content = self.game.read(conversation)
        if seat == "answerer":
            return ["yes" if self.world.answer(*content) else "no"]
        self.belief.restart()
        for question, answer in content:
            index = self.world.question_index.get(plain(question))
            if index is not None:
                self.belief.update(index, answer)
        if seat == "guesser":
            return [self.world.keywords[k] for k in self.belief.guesses(n)]
        return [self.world.questions[q] for q in self.belief.questions(n)]
