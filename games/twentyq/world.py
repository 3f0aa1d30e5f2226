"""The world of 20 Questions: keywords, questions and their truth table, and the player who knows that table.

The table player is teacher, baseline and oracle answerer at once. It keeps a belief over the keywords, takes
every answer to be wrong with probability EPS, and asks what it expects to learn most from."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from games.rows import read_rows
from games.task import Reply

WORLD = Path(__file__).parent / "world.txt"
EPS = 0.1  # chance that an answer is wrong, in the belief
MOST = 400  # of recorded questions, those that a belief may ask: asked about most keywords
FILLERS = set(
    "is it its a an the of or and in to be does do can you word secret keyword item something".split()
)


class World:
    """keywords, questions: lists of str; alternates, kinds: keyword -> other right guesses, its kind; chance
    (keywords, questions): P(yes), 1/2 where nobody knows; table: chance > 1/2."""

    def __init__(self, path=WORLD):
        self.keywords, self.questions, self.alternates, self.kinds = [], [], {}, {}
        self.chance = np.array(self.read(Path(path)), dtype=float)
        if not self.keywords:
            raise ValueError(f"{path}: no keywords")
        self.table = self.chance > 0.5
        self.keyword_index = {plain(word): i for i, word in enumerate(self.keywords)}
        self.question_index = {plain(question): i for i, question in enumerate(self.questions)}

    def read(self, path):
        """The rows of the table of a world file."""
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such world file")
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
                self.kinds[name] = (parents.replace(",", " ").split() or [""])[0]
                rows.append([tag in have for tag in tags])
            else:
                raise ValueError(f"{where}: {line!r} stands outside of [questions], [kinds] and [keywords]")
        return rows

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
        yes, no = (self.chance > 0.5).astype(float), (self.chance < 0.5).astype(float)
        weight, chosen = 1 - np.eye(len(yes)), []
        for _ in range(min(n, len(self.questions))):
            separated = ((weight @ yes) * no).sum(0)  # (questions,)
            separated[chosen] = -1
            best = int(separated.argmax())
            chosen.append(best)
            differ = np.outer(yes[:, best], no[:, best]).astype(bool)
            weight = np.where(differ | differ.T, weight * 2 * (EPS * (1 - EPS)) ** 0.5, weight)
        return chosen

    def difficulty(self):
        """keyword -> easy, medium or hard: thirds by how many answers set it apart from its nearest other."""
        yes = self.table.astype(float)
        apart = yes @ (1 - yes).T + (1 - yes) @ yes.T + len(self.questions) * np.eye(len(yes))
        nearest = apart.min(1)
        low, high = np.quantile(nearest, [1 / 3, 2 / 3])
        names = ["hard" if x <= low else "medium" if x <= high else "easy" for x in nearest]
        return dict(zip(self.keywords, names))


class Recorded(World):
    """A world of answers that somebody gave, perhaps a model that was asked everything: JSON lines
    {"keyword", "answers": {question: [times or share of yes, of no]}, "category"?}. All of them are known; a
    belief asks only the MOST frequent questions."""

    def read(self, path):
        self.answers, times = [], {}  # of each keyword: {question: P(yes)}
        for where, row in read_rows(str(path), "", ("keyword", "answers")):
            keyword, answers = row.get("keyword"), row.get("answers")
            if not (isinstance(keyword, str) and isinstance(answers, dict)):
                raise ValueError(f'{where}: a row needs "keyword", text, and "answers", question: [yes, no]')
            for question, counts in answers.items():
                numbers = isinstance(counts, list) and all(isinstance(x, (int, float)) for x in counts)
                if not numbers or len(counts) != 2 or min(counts) < 0 or sum(counts) <= 0:
                    raise ValueError(f"{where}: answers to {question!r} must be [yes, no], not {counts!r}")
                times[question] = times.get(question, 0) + 1
            self.keywords.append(keyword)
            self.alternates[keyword], self.kinds[keyword] = [], row.get("category", "")
            self.answers.append({question: yes / (yes + no) for question, (yes, no) in answers.items()})
        self.questions = sorted(times, key=lambda question: (-times[question], question))[:MOST]
        return [[shares.get(question, 0.5) for question in self.questions] for shares in self.answers]

    @lru_cache(maxsize=100_000)  # noqa: B019  (one world a process)
    def answer(self, keyword, question):
        """As a World's. A question that nobody asked about the keyword is taken for the most similar one that
        somebody did, if they share half of their words."""
        k, asked = self.keyword_index.get(plain(keyword)), gist(question)
        known = (
            {text: share for text, share in self.answers[k].items() if share != 0.5} if k is not None else {}
        )
        like = {text: len(asked & gist(text)) / (len(asked | gist(text)) or 1) for text in known}
        best = max(like, key=like.get, default=None)
        return None if best is None or like[best] < 0.5 else known[best] > 0.5


def read_keywords(path):
    """The keywords of a file as examples {"keyword", "alternates", "category", "difficulty"}: a word a line
    (word | other spellings), rows with a "keyword", or Kaggle's JSON of categories with words."""
    path = Path(path)
    if path.suffix == ".txt":
        parts = [
            line.partition("|") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
        rows = [(path, {"keyword": word.strip(), "alts": other}) for word, _, other in parts]
    elif path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [(path, word | part) for part in found for word in part.get("words", [{}])]
    else:
        rows = read_rows(str(path), "", ("keyword",))
    examples = []
    for where, row in rows:
        if not (isinstance(row.get("keyword"), str) and plain(row["keyword"])):
            raise ValueError(f'{where}: a row needs a "keyword", found {str(row)[:80]}')
        others = row.get("alts") or row.get("alternates") or []
        others = others.split(",") if isinstance(others, str) else others  # of CSV, whose cells are text
        alternates = [word.strip() for word in others if word.strip()]
        about = {name: str(row.get(name, "")) for name in ("category", "difficulty")}
        examples.append({"keyword": row["keyword"], "alternates": alternates, **about})
    if not examples:
        raise ValueError(f"{path}: no keywords")
    return examples


def world_of(path):
    """The World in a file: recorded answers where it holds JSON lines."""
    return (Recorded if ".jsonl" in Path(path).suffixes else World)(path)


@lru_cache(maxsize=100_000)
def gist(question):
    """The words of a question that say what it asks."""
    words = "".join(c if c.isalnum() else " " for c in question.lower()).split()
    return frozenset(words) - FILLERS


@lru_cache(maxsize=100_000)
def plain(text):
    """Case, spaces and punctuation folded away: how the table looks up what somebody typed."""
    return "".join(c for c in text.lower() if c.isalnum())


def entropy(p):
    """Bits of yes-or-no answers with chances p."""
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


class Belief:
    """A probability for each keyword after the answers so far, and the question that would teach most about
    it."""

    def __init__(self, world, pool=0, opening=0):
        self.world = world
        size = len(world.questions)  # which to put in order takes too long where there are many keywords
        order = world.separating(pool or size) if pool or len(world.keywords) <= 1000 else range(size)
        self.pool = np.array(order, dtype=int)  # empty for a mere list of keywords
        self.opening = opening  # the first questions, asked in fixed order
        likely = EPS + (1 - 2 * EPS) * world.chance  # P(yes | keyword), (keywords, questions)
        self.log_yes, self.log_no = np.log(likely), np.log(1 - likely)
        self.yes = likely[:, self.pool]
        self.doubt = entropy(self.yes)
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

    def after(self, turns):
        """This belief anew, after turns of (question, answer); questions that the world lacks are passed
        over."""
        self.restart()
        for question, answer in turns:
            self.learn(question, answer)
        return self

    def told(self, turns):
        """The best guess after each of some turns: list of keywords."""
        self.restart()
        best = []
        for question, answer in turns:
            self.learn(question, answer)
            best.append(self.world.keywords[self.guesses()[0]])
        return best

    def learn(self, question, answer):
        """Take in the answer to a question, given by its text, if the world knows it."""
        index = self.world.question_index.get(plain(question))
        if index is not None:
            self.update(index, answer)

    def probabilities(self):
        p = np.exp(self.logp - self.logp.max())
        return p / p.sum()

    def information(self):
        """Bits that each question of the pool is expected to tell about the keyword, (pool,): the mutual
        information of keyword and answer."""
        p = self.probabilities()
        return entropy(p @ self.yes) - p @ self.doubt

    def gains(self):
        """What each question of the pool is worth now, (pool,): the bits that it is expected to tell, 0 if it
        was asked, and 1, the most that an answer can tell, for the next one of the opening."""
        gain = np.where(self.unasked, self.information(), 0.0)
        if len(self.asked) < self.opening:
            gain[self.unasked.argmax()] = 1.0
        return gain

    def worth_of(self, texts):
        """The gains of some questions, 0 for one that is not in the pool."""
        gain = self.gains()
        places = [
            np.flatnonzero(self.pool == self.world.question_index.get(plain(text), -1)) for text in texts
        ]
        return [float(gain[place[0]]) if len(place) else 0.0 for place in places]

    def questions(self, n=1):
        """The n questions of most gain, by index."""
        gain = self.gains().round(9)  # so that equals come in the pool's order
        return self.pool[np.argsort(-gain, kind="stable")[:n]].tolist()

    def odds_of(self, texts, base=np.e):
        """The logarithm of the chance of each of some guesses; an unknown one has the least of all."""
        p = np.log(np.maximum(self.probabilities(), 1e-12)) / np.log(base)
        places = [self.world.keyword_index.get(plain(text)) for text in texts]
        return [float(p.min() if place is None else p[place]) for place in places]

    def guesses(self, n=1):
        """The n likeliest keywords, by index."""
        if n == 1:
            return [int(self.logp.argmax())]
        return np.argsort(-self.logp, kind="stable")[:n].tolist()


class TablePlayer:
    """The table as an agent: reads a conversation of games.twentyq.task and replies from the belief, in any
    seat."""

    def __init__(self, game, world, pool=0, opening=0):
        self.game, self.world, self.belief = game, world, Belief(world, pool, opening)

    def reply(self, conversations, n=1):
        return [[Reply(text) for text in self.texts(conversation, n)] for conversation in conversations]

    def texts(self, conversation, n):
        seat, content = self.game.read(conversation)
        if seat == "answerer":
            return ["yes" if self.world.answer(*content) else "no"]
        belief = self.belief.after(content)
        if seat == "guesser":
            return [self.world.keywords[k] for k in belief.guesses(n)]
        return [self.world.questions[q] for q in belief.questions(n)]
