"""The world of 20 Questions: keywords, questions and their truth table, and a player that knows the table.

The table player is the teacher, the baseline and a truthful answerer in one. It keeps a belief over the
keywords, assumes that an answer is wrong with probability EPS, and asks the question from which it expects
the most information."""

import re
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from files import OBJECT, TEXT, check_fields, either, list_of
from games.rows import lines, read_rows
from games.task import Reply
from games.twentyq.prompts import read_prompt

WORLD = Path(__file__).parent / "world.txt"  # the embedded world
LARGE_WORLD = Path(__file__).parent / "kaggle.txt"
# how the paths of our worlds end in saved runs, in this version and in older ones
WORLD_ENDINGS = {
    "games/twentyq/world.txt": WORLD,
    "games/worlds/twentyq.txt": WORLD,
    "games/twentyq/kaggle.txt": LARGE_WORLD,
}
ENTRY = re.compile(r"([^<:|]*)<?([^:|]*):?([^|]*)\|?(.*)")  # name < kinds : tags | other spellings
EPS = 0.1  # chance that an answer is wrong, as a belief assumes
POOL = 40  # separating questions that the teacher may ask, unless --pool says otherwise
SAMPLE = 1000  # keywords at most from which they are chosen
WORDS = either(TEXT, list_of(TEXT))
KEYWORD = {"keyword": TEXT, "alts": WORDS, "alternates": WORDS, "words": list_of(OBJECT)}
MAX_RECORDED = 400  # recorded questions that a belief may ask: those with answers for the most keywords
FILLERS = set(
    "is it its a an the of or and in to be does do can you word secret keyword item something".split()
)


# ------------------------------------------------------------------------------------------------ worlds
class World:
    """The keywords and questions of a world file, and what is true of each keyword.

    keywords, questions: lists of str. alternates: keyword -> other correct guesses. kinds: keyword -> its
    kind. chance (keywords, questions): P(yes), 1/2 where the answer is unknown. table: chance > 1/2."""

    def __init__(self, path=WORLD):
        self.keywords = []
        self.questions = []
        self.alternates = {}
        self.kinds = {}
        self.chance = np.array(self.read(Path(path)), dtype=float)
        if not self.keywords:
            raise ValueError(f"{path}: no keywords")
        self.table = self.chance > 0.5
        self.keyword_index = {plain(word): i for i, word in enumerate(self.keywords)}
        self.question_index = {plain(question): i for i, question in enumerate(self.questions)}

    def read(self, path):
        """The rows of the table in a world file. The first lines of world.txt explain the format."""
        section = ""
        tags = []  # one for each question, in the same order
        tags_of = {}  # kind -> its tags
        rows = []
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
                name, parents, changes, alternates = map(str.strip, ENTRY.fullmatch(line).groups())
                parents = parents.replace(",", " ").split()
                true = true_tags(where, parents, changes.split(), tags_of, tags)
                if section == "[kinds]":
                    tags_of[name] = true
                    continue
                if name in self.alternates or not plain(name):
                    raise ValueError(f"{where}: the keyword {name!r} is empty, or in the file twice")
                self.keywords.append(name)
                self.alternates[name] = strip_all(alternates.split(","))
                self.kinds[name] = parents[0] if parents else ""
                rows.append([tag in true for tag in tags])
            else:
                raise ValueError(f"{where}: {line!r} is outside of [questions], [kinds] and [keywords]")
        return rows

    def answer(self, keyword, question):
        """True or False, or None if the table does not know the keyword or the question."""
        k = self.keyword_index.get(plain(keyword))
        q = self.question_index.get(plain(question))
        return None if k is None or q is None else bool(self.table[k, q])

    def spelling(self, keyword):
        """The world's own spelling of a keyword ("Bike path" -> "bike path"), which a model was trained on.
        A keyword that the world does not know stays as it is."""
        k = self.keyword_index.get(plain(keyword))
        return keyword if k is None else self.keywords[k]

    @lru_cache(maxsize=8)  # noqa: B019  (one world a process)
    def separating(self, n):
        """The n questions that together separate the keywords best, most useful first, as indices.

        The choice is greedy. Every pair of keywords starts with weight 1. Each chosen question multiplies the
        weight of the pairs that it separates by 2 sqrt(EPS (1 - EPS)), the Bhattacharyya bound on confusing
        them. The next question is the one that separates the most remaining weight. Time and memory are
        quadratic in the keywords, so of a long list only every second, third, ... keyword counts."""
        step = len(self.keywords) // SAMPLE + 1
        yes = self.table[::step].astype(float)
        no = (self.chance[::step] < 0.5).astype(float)
        weight = 1 - np.eye(len(yes))  # (keywords, keywords)
        chosen = []
        for _ in range(min(n, len(self.questions))):
            separated = ((weight @ yes) * no).sum(0)  # (questions,)
            separated[chosen] = -1  # never the same question twice
            best = int(separated.argmax())
            chosen.append(best)
            differ = np.outer(yes[:, best], no[:, best]).astype(bool)
            weight[differ | differ.T] *= 2 * (EPS * (1 - EPS)) ** 0.5
        return chosen

    def difficulty(self):
        """keyword -> "easy", "medium" or "hard": thirds of the keywords, by the number of questions that
        separate a keyword from its nearest neighbour."""
        yes = self.table.astype(float)
        apart = yes @ (1 - yes).T  # (keywords, keywords): questions with yes for the first only
        # the large diagonal keeps a keyword from being its own neighbour
        nearest = (apart + apart.T + len(self.questions) * np.eye(len(yes))).min(1)
        thirds = np.searchsorted(np.quantile(nearest, [1 / 3, 2 / 3]), nearest)
        return dict(zip(self.keywords, np.take(["hard", "medium", "easy"], thirds).tolist()))


class Recorded(World):
    """A world of recorded answers, such as those of a model that was asked every question.

    The file holds JSON lines {"keyword", "answers": {question: [yes, no]}, "category"?}, where yes and no are
    counts or shares. The world knows all of these answers; a belief asks only the MAX_RECORDED most frequent
    questions."""

    def read(self, path):
        self.answers = []  # for each keyword {question: P(yes)}, without ties
        frequency = Counter()  # question -> number of keywords with an answer to it
        for where, row in read_rows(str(path)):
            keyword = row.get("keyword")
            answers = row.get("answers")
            if not (isinstance(keyword, str) and isinstance(answers, dict)):
                raise ValueError(f'{where}: a row needs "keyword", text, and "answers", question: [yes, no]')
            frequency.update(answers.keys())
            self.keywords.append(keyword)
            self.alternates[keyword] = []
            self.kinds[keyword] = str(row.get("category") or "")
            shares = {}
            for question, counts in answers.items():
                share = yes_share(where, question, counts)
                if share != 0.5:
                    shares[question] = share
            self.answers.append(shares)
        self.questions = sorted(frequency, key=lambda question: (-frequency[question], question))
        del self.questions[MAX_RECORDED:]
        rows = []
        for shares in self.answers:
            rows.append([shares.get(question, 0.5) for question in self.questions])
        return rows

    @lru_cache(maxsize=100_000)  # noqa: B019  (one world a process)
    def answer(self, keyword, question):
        """As in World. A question without an answer for the keyword borrows the answer of the most similar
        question that has one, if the two share half of their words."""
        k = self.keyword_index.get(plain(keyword))
        known = {} if k is None else self.answers[k]
        similar = [(similarity(question, text), share) for text, share in known.items()]
        best, share = max(similar, key=lambda pair: pair[0], default=(0.0, 0.5))
        return share > 0.5 if best >= 0.5 else None


def yes_share(where, question, counts):
    """The share of yes in the answers [yes, no] to a question."""
    match counts:
        case [int() | float() as yes, int() | float() as no]:
            if 0 <= yes < 1e300 and 0 <= no < 1e300 and yes + no > 0:
                return yes / (yes + no)
    raise ValueError(f"{where}: answers to {question!r} must be [yes, no], not {counts!r}")


def world_file(path):
    """The Path of a world. "" means the embedded one. A path that one of our worlds had in another checkout
    or an older version means that world, because runs have saved it."""
    path = Path(path or WORLD)
    for ending, ours in WORLD_ENDINGS.items():
        if path.as_posix().endswith(ending) and not path.exists():
            return ours
    return path


def world_of(path=""):
    """The World in a file, by default the embedded one. JSON lines are recorded answers."""
    path = world_file(path)
    if path == WORLD:
        return embedded()
    return (Recorded if ".jsonl" in path.suffixes else World)(path)


@cache
def embedded():
    """The embedded World, read once a process."""
    return World()


def true_tags(where, parents, changes, tags_of, tags):
    """The set of tags of an entry of a world file: the tags of its kinds, plus those that it adds ("tag"),
    minus those that it removes ("-tag")."""
    true = set()
    for parent in parents:
        if parent not in tags_of:
            raise ValueError(f"{where}: unknown kind {parent!r}")
        true |= tags_of[parent]
    for change in changes:
        tag = change.removeprefix("-")
        if tag not in tags:
            raise ValueError(f"{where}: tag {change!r} has no question")
        if tag == change:
            true.add(tag)
        else:
            true.discard(tag)
    return true


def read_keywords(path):
    """The keywords of a file as examples {"keyword", "alternates", "category", "difficulty"}.

    The file has one word a line (word | other spellings), or rows with a "keyword", or it is Kaggle's JSON of
    categories with words."""
    examples = []
    for where, row in keyword_rows(Path(path)):
        if not plain(row.get("keyword") or ""):
            raise ValueError(f'{where}: a row needs a "keyword", found {str(row)[:80]}')
        alternates = row.get("alts") or row.get("alternates") or []
        if isinstance(alternates, str):
            alternates = alternates.split(",")  # a cell of a CSV file is text
        example = {"keyword": row["keyword"], "alternates": strip_all(alternates)}
        for name in ("category", "difficulty"):
            example[name] = str(row.get(name) or "")
        examples.append(example)
    if not examples:
        raise ValueError(f"{path}: no keywords")
    return examples


def keyword_rows(path):
    """Yield (place in the file, row) for each keyword."""
    if path.suffix == ".txt":
        for number, line in lines(path, path):
            keyword, _, others = line.partition("|")
            if line.strip():
                yield f"{path}, line {number}", {"keyword": keyword.strip(), "alts": others}
        return
    for where, row in read_rows(str(path)):
        # in Kaggle's JSON a row is a category; a row without "words" is a keyword itself
        check_fields(where, row, KEYWORD)
        for word in row.get("words") or [{}]:
            yield where, check_fields(where, word | row, KEYWORD)


# ------------------------------------------------------------------------------------------------ texts
def strip_all(words):
    """The words without surrounding spaces; empty ones are left out."""
    return [word.strip() for word in words if word.strip()]


def letters_and_digits(text):
    """The runs of letters and digits in a text, in lower case: list of str."""
    return re.findall(r"[^\W_]+", text.lower())


@lru_cache(maxsize=100_000)
def content_words(question):
    """The words of a question that carry its meaning."""
    return frozenset(letters_and_digits(question)) - FILLERS


def similarity(question, other):
    """The share of the content words of two questions that both contain (Jaccard index)."""
    words = content_words(question)
    others = content_words(other)
    return len(words & others) / (len(words | others) or 1)


@lru_cache(maxsize=100_000)
def plain(text):
    """The text without case, spaces and punctuation. The table looks up what somebody typed in this form."""
    return "".join(letters_and_digits(text))


# ------------------------------------------------------------------------------------------------ belief
def entropy(p):
    """The entropy in bits of yes-or-no answers with P(yes) = p."""
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def largest(values, n):
    """The indices of the n largest values, of equal ones the first."""
    if n == 1:
        return values.argmax(keepdims=True)  # much faster than to sort them all
    return np.argsort(-values, kind="stable")[:n]


class Belief:
    """A probability for each keyword, given the answers so far, and the most informative next question.

    pool: how many questions it may ask; 0 means all."""

    def __init__(self, world, pool=0):
        self.world = world
        order = range(len(world.questions))
        # all questions of a long list take too long to order
        if pool or len(world.keywords) <= SAMPLE:
            order = world.separating(pool or len(order))
        self.pool = np.array(order, dtype=int)  # empty if the world is only a list of keywords
        likely = EPS + (1 - 2 * EPS) * world.chance  # P(yes | keyword), (keywords, questions)
        self.log_yes = np.log(likely).T.copy()  # (questions, keywords): a question's row lies together
        self.log_no = np.log(1 - likely).T.copy()
        self.yes = likely[:, self.pool]
        self.doubt = entropy(self.yes)
        self.restart()

    def restart(self):
        self.logp = np.zeros(len(self.world.keywords))  # up to a constant
        self.unasked = np.ones(len(self.pool), dtype=bool)  # by place in the pool
        return self

    def update(self, question, answer):
        """Update on the answer "yes", "no" or "unsure" to a question, given by its index."""
        if answer not in ("yes", "no", "unsure"):
            raise ValueError(f"an answer must be yes, no or unsure, not {answer!r}")
        if answer != "unsure":
            likelihood = self.log_yes if answer == "yes" else self.log_no
            self.logp += likelihood[question]
        self.unasked &= self.pool != question

    def learn(self, question, answer):
        """Update on the answer to a question, given by its text, if the world knows the question."""
        index = self.world.question_index.get(plain(question))
        if index is not None:
            self.update(index, answer)

    def after(self, turns):
        """This belief, restarted and updated on turns of (question, answer). Questions that the world does
        not know are skipped."""
        self.restart()
        for turn in turns:
            self.learn(*turn)
        return self

    def probabilities(self):
        p = np.exp(self.logp - self.logp.max())
        return p / p.sum()

    def information(self):
        """The expected information of each question in the pool about the keyword, in bits, (pool,): the
        mutual information of keyword and answer."""
        p = self.probabilities()
        return entropy(p @ self.yes) - p @ self.doubt

    def gains(self):
        """The value of each question in the pool now, (pool,): its information, or 0 if it was asked
        before."""
        return np.where(self.unasked, self.information(), 0.0)

    def worth_of(self, texts):
        """The gains of questions given by their texts, 0 for a question outside of the pool."""
        gain_of = dict(zip(self.pool.tolist(), self.gains().tolist()))
        return [gain_of.get(self.world.question_index.get(plain(text)), 0.0) for text in texts]

    def questions(self, n=1):
        """The indices of the n questions with the largest gains."""
        gains = self.gains().round(9)  # equal gains must tie exactly, so that the pool's order decides
        return self.pool[largest(gains, n)].tolist()

    def log_chances(self, texts):
        """The logarithm of the probability of each guess. A guess that is not in the world gets the lowest
        value of all keywords."""
        logs = np.log(np.maximum(self.probabilities(), 1e-12))
        places = [self.world.keyword_index.get(plain(text)) for text in texts]
        return [float(logs.min() if place is None else logs[place]) for place in places]

    def guesses(self, n=1):
        """The indices of the n most likely keywords."""
        return largest(self.logp, n).tolist()


class TablePlayer:
    """The table as an agent: it reads a conversation of the game (prompts.py) and replies from its belief."""

    def __init__(self, world):
        self.world = world
        self.belief = Belief(world)

    def reply(self, conversations, n=1):
        return [list(map(Reply, self.texts(conversation, n))) for conversation in conversations]

    def texts(self, conversation, n):
        """Its n best replies to a conversation, best first: list of str. As answerer it has one."""
        seat, content = read_prompt(conversation)
        if seat == "answerer":
            return ["yes" if self.world.answer(*content) else "no"]
        belief = self.belief.after(content)
        if seat == "guesser":
            return [self.world.keywords[k] for k in belief.guesses(n)]
        return [self.world.questions[q] for q in belief.questions(n)]
