"""The world of 20 Questions: keywords, questions and their truth table, and the player who knows that table.

The table player is teacher, baseline and oracle answerer at once. It keeps a belief over the keywords, takes
every answer to be wrong with probability EPS, and asks what it expects to learn most from."""

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np

from games.rows import lines, read_rows
from games.task import Reply
from games.twentyq.prompts import read_prompt

WORLD = Path(__file__).parent / "world.txt"  # the embedded world
SAVED = "games/twentyq/world.txt", "games/worlds/twentyq.txt"  # ends of its path in runs, today and before
ENTRY = re.compile(r"([^<:|]*)<?([^:|]*):?([^|]*)\|?(.*)")  # name < kinds : tags | other spellings
EPS = 0.1  # the chance that an answer is wrong, as a belief sees it
POOL = 40  # separating questions that the teacher asks
MOST = 400  # recorded questions that a belief may ask: those that were asked about most keywords
FILLERS = set(
    "is it its a an the of or and in to be does do can you word secret keyword item something".split()
)


# ------------------------------------------------------------------------------------------------ worlds
class World:
    """keywords, questions: lists of str; alternates, kinds: keyword -> other right guesses, its kind; chance
    (keywords, questions): P(yes), 1/2 where nobody knows; table: chance > 1/2."""

    def __init__(self, path=WORLD):
        self.keywords, self.questions = [], []
        self.alternates, self.kinds = {}, {}
        self.chance = np.array(self.read(Path(path)), dtype=float)
        if not self.keywords:
            raise ValueError(f"{path}: no keywords")
        self.table = self.chance > 0.5
        self.keyword_index = {plain(word): i for i, word in enumerate(self.keywords)}
        self.question_index = {plain(question): i for i, question in enumerate(self.questions)}

    def read(self, path):
        """The rows of the table in a world file, whose first lines explain its form."""
        section, tags, rows = "", [], []
        tags_of = {}  # kind -> its tags
        for number, line in lines(path, path):
            where = f"{path}, line {number}"
            line = line.split("#")[0].strip()
            if not line:
                continue
            if line.startswith("["):
                section = line
            elif section == "[questions]":
                tag, _, question = line.partition(" ")
                if tag in tags or not question:
                    raise ValueError(f"{where}: expected a new tag and its question, found {line!r}")
                tags.append(tag)
                self.questions.append(question.strip())
            elif section in ("[kinds]", "[keywords]"):
                name, parents, own, alternates = (part.strip() for part in ENTRY.fullmatch(line).groups())
                parents = parents.replace(",", " ").split()
                true = true_tags(where, parents, own.split(), tags_of, tags)
                if section == "[kinds]":
                    tags_of[name] = true
                    continue
                if name in self.alternates:
                    raise ValueError(f"{where}: {name!r} stands there twice")
                self.keywords.append(name)
                self.alternates[name] = stripped(alternates.split(","))
                self.kinds[name] = parents[0] if parents else ""
                rows.append([tag in true for tag in tags])
            else:
                raise ValueError(f"{where}: {line!r} stands outside of [questions], [kinds] and [keywords]")
        return rows

    def answer(self, keyword, question):
        """True, False, or None where the table does not know the keyword or the question."""
        k = self.keyword_index.get(plain(keyword))
        q = self.question_index.get(plain(question))
        return None if k is None or q is None else bool(self.table[k, q])

    @lru_cache(maxsize=8)  # noqa: B019  (one world a process)
    def separating(self, n):
        """The n questions that together tell the keywords apart best, most useful first: question indices.

        Greedy: every pair of keywords starts with weight 1, each chosen question on which a pair differs
        multiplies its weight by 2 sqrt(EPS (1 - EPS)), the bound of Bhattacharyya on confusing them, and the
        next question is the one that separates the most weight."""
        yes = self.table.astype(float)
        no = (self.chance < 0.5).astype(float)
        weight, chosen = 1 - np.eye(len(yes)), []
        for _ in range(min(n, len(self.questions))):
            separated = ((weight @ yes) * no).sum(0)  # (questions,)
            separated[chosen] = -1
            best = int(separated.argmax())
            chosen.append(best)
            differ = np.outer(yes[:, best], no[:, best]).astype(bool)
            weight[differ | differ.T] *= 2 * (EPS * (1 - EPS)) ** 0.5
        return chosen

    def difficulty(self):
        """keyword -> easy, medium or hard: thirds by how many answers set it apart from its nearest other."""
        yes = self.table.astype(float)
        apart = yes @ (1 - yes).T  # (keywords, keywords): questions that are yes for the first alone
        nearest = (apart + apart.T + len(self.questions) * np.eye(len(yes))).min(1)
        low, high = np.quantile(nearest, [1 / 3, 2 / 3])
        names = ["hard" if x <= low else "medium" if x <= high else "easy" for x in nearest]
        return dict(zip(self.keywords, names))


class Recorded(World):
    """A world of answers that somebody gave, perhaps a model that was asked everything: JSON lines
    {"keyword", "answers": {question: [times or share of yes, of no]}, "category"?}. All of them are known; a
    belief asks only the MOST frequent questions."""

    def read(self, path):
        self.answers = []  # for each keyword {question: P(yes)}, where that is not 1/2
        times = Counter()  # question -> keywords that it was asked about
        for where, row in read_rows(str(path), "", ("keyword", "answers")):
            keyword, answers = row.get("keyword"), row.get("answers")
            if not (isinstance(keyword, str) and isinstance(answers, dict)):
                raise ValueError(f'{where}: a row needs "keyword", text, and "answers", question: [yes, no]')
            times.update(answers.keys())
            shares = {question: yes_share(where, question, counts) for question, counts in answers.items()}
            self.keywords.append(keyword)
            self.alternates[keyword], self.kinds[keyword] = [], row.get("category", "")
            self.answers.append({question: share for question, share in shares.items() if share != 0.5})
        self.questions = sorted(times, key=lambda question: (-times[question], question))[:MOST]
        return [[shares.get(question, 0.5) for question in self.questions] for shares in self.answers]

    @lru_cache(maxsize=100_000)  # noqa: B019  (one world a process)
    def answer(self, keyword, question):
        """As a World's. A question that nobody asked about the keyword is taken for the most similar one that
        somebody did, if they share half of their words."""
        k = self.keyword_index.get(plain(keyword))
        known = {} if k is None else self.answers[k]
        alike = [(likeness(question, text), share) for text, share in known.items()]
        best, share = max(alike, key=lambda pair: pair[0], default=(0.0, 0.5))
        return share > 0.5 if best >= 0.5 else None


def yes_share(where, question, counts):
    """The share of yes among the answers [yes, no] to a question."""
    match counts:
        case [int() | float() as yes, int() | float() as no] if min(yes, no) >= 0 and yes + no > 0:
            return yes / (yes + no)
    raise ValueError(f"{where}: answers to {question!r} must be [yes, no], not {counts!r}")


def world_file(path):
    """The Path of a world: "" is the embedded one, and so is the embedded one's path elsewhere, as runs of
    older versions and of other checkouts have saved it."""
    path = str(path) or str(WORLD)
    return WORLD if path.endswith(SAVED) and not Path(path).exists() else Path(path)


def world_of(path=""):
    """The World in a file, by default the embedded one; recorded answers where the file holds JSON lines."""
    path = world_file(path)
    return (Recorded if ".jsonl" in path.suffixes else World)(path)


def true_tags(where, parents, own, tags_of, tags):
    """The tags of an entry of a world file: those of its kinds and its own, without those it takes away."""
    true = set()
    for parent in parents:
        if parent not in tags_of:
            raise ValueError(f"{where}: unknown kind {parent!r}")
        true |= tags_of[parent]
    for tag in own:
        name = tag.removeprefix("-")
        if name not in tags:
            raise ValueError(f"{where}: tag {tag!r} has no question")
        true = true | {name} if name == tag else true - {name}
    return true


def read_keywords(path):
    """The keywords of a file as examples {"keyword", "alternates", "category", "difficulty"}: a word a line
    (word | other spellings), rows with a "keyword", or Kaggle's JSON of categories with words."""
    examples = []
    for where, row in keyword_rows(Path(path)):
        if not plain(str(row.get("keyword", ""))):
            raise ValueError(f'{where}: a row needs a "keyword", found {str(row)[:80]}')
        others = row.get("alts") or row.get("alternates") or []
        others = others.split(",") if isinstance(others, str) else others  # a cell of CSV is text
        about = {name: str(row.get(name, "")) for name in ("category", "difficulty")}
        examples.append({"keyword": str(row["keyword"]), "alternates": stripped(others), **about})
    if not examples:
        raise ValueError(f"{path}: no keywords")
    return examples


def keyword_rows(path):
    """Yield (place, row) of each keyword in a file."""
    if path.suffix == ".txt":
        for number, line in lines(path, path):
            keyword, _, others = line.partition("|")
            if line.strip():
                yield f"{path}, line {number}", {"keyword": keyword.strip(), "alts": others}
        return
    for where, row in read_rows(str(path)):
        for word in row.get("words", [{}]):
            yield where, word | row


# ------------------------------------------------------------------------------------------------ texts
def stripped(words):
    """Words without the spaces around them, and without empty ones."""
    return [word.strip() for word in words if word.strip()]


def letters_and_digits(text):
    """The runs of letters and digits in a text, in lower case: list of str."""
    return re.findall(r"[^\W_]+", text.lower())


@lru_cache(maxsize=100_000)
def gist(question):
    """The words of a question that say what it asks."""
    return frozenset(letters_and_digits(question)) - FILLERS


def likeness(question, other):
    """The share of the words of two questions that both have."""
    words, others = gist(question), gist(other)
    return len(words & others) / (len(words | others) or 1)


@lru_cache(maxsize=100_000)
def plain(text):
    """Case, spaces and punctuation folded away: how the table looks up what somebody typed."""
    return "".join(letters_and_digits(text))


# ------------------------------------------------------------------------------------------------ belief
def entropy(p):
    """Bits of yes-or-no answers with chances p."""
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


class Belief:
    """A probability for each keyword after the answers so far, and the question that would teach most about
    it. pool: how many questions it may ask, 0 takes all."""

    def __init__(self, world, pool=0):
        self.world = world
        size = len(world.questions)  # which to put in order takes too long where there are many keywords
        order = world.separating(pool or size) if pool or len(world.keywords) <= 1000 else range(size)
        self.pool = np.array(order, dtype=int)  # empty for a mere list of keywords
        likely = EPS + (1 - 2 * EPS) * world.chance  # P(yes | keyword), (keywords, questions)
        self.log_yes, self.log_no = np.log(likely), np.log(1 - likely)
        self.yes = likely[:, self.pool]
        self.doubt = entropy(self.yes)
        self.restart()

    def restart(self):
        self.logp = np.zeros(len(self.world.keywords))
        self.unasked = np.ones(len(self.pool), dtype=bool)  # by place in the pool
        return self

    def update(self, question, answer):
        """Take in the answer, "yes", "no" or "unsure", to a question, given by its index."""
        if answer not in ("yes", "no", "unsure"):
            raise ValueError(f"an answer must be yes, no or unsure, not {answer!r}")
        if answer != "unsure":
            self.logp += (self.log_yes if answer == "yes" else self.log_no)[:, question]
        self.unasked &= self.pool != question

    def learn(self, question, answer):
        """Take in the answer to a question, given by its text, if the world knows it."""
        index = self.world.question_index.get(plain(question))
        if index is not None:
            self.update(index, answer)

    def after(self, turns):
        """This belief anew, after turns of (question, answer); questions that the world lacks are passed
        over."""
        self.restart()
        for turn in turns:
            self.learn(*turn)
        return self

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
        was asked before."""
        return np.where(self.unasked, self.information(), 0.0)

    def worth_of(self, texts):
        """The gains of some questions, 0 for one that is not in the pool."""
        gain_of = dict(zip(self.pool.tolist(), self.gains().tolist()))
        return [gain_of.get(self.world.question_index.get(plain(text)), 0.0) for text in texts]

    def questions(self, n=1):
        """The n questions of most gain, by index."""
        gains = self.gains().round(9)  # so that equals come in the pool's order
        return self.pool[np.argsort(-gains, kind="stable")[:n]].tolist()

    def odds_of(self, texts, base=np.e):
        """The logarithm of the chance of each of some guesses; an unknown one has the least of all."""
        p = np.log(np.maximum(self.probabilities(), 1e-12)) / np.log(base)
        places = [self.world.keyword_index.get(plain(text)) for text in texts]
        return [float(p.min() if place is None else p[place]) for place in places]

    def guesses(self, n=1):
        """The n likeliest keywords, by index."""
        return np.argsort(-self.logp, kind="stable")[:n].tolist()


class TablePlayer:
    """The table as an agent: reads a conversation of the game (prompts.py) and replies from the belief."""

    def __init__(self, world):
        self.world, self.belief = world, Belief(world)

    def reply(self, conversations, n=1):
        return [list(map(Reply, self.texts(conversation, n))) for conversation in conversations]

    def texts(self, conversation, n):
        """What it says to a conversation, best first: list of str."""
        seat, content = read_prompt(conversation)
        if seat == "answerer":
            return ["yes" if self.world.answer(*content) else "no"]
        belief = self.belief.after(content)
        if seat == "guesser":
            return [self.world.keywords[k] for k in belief.guesses(n)]
        return [self.world.questions[q] for q in belief.questions(n)]
