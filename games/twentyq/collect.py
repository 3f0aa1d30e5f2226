"""Collecting games of 20 Questions: from a teacher at an endpoint, from the table, from a model's own play.

Read the prompts first, then how replies are cleaned, then the games. `simulate` and `snapshot` are generators
that yield a conversation and are sent the text of the reply: each reads like one game, and match.lock_step
plays many. The rows keep only the questions, answers and guesses of a game. Training makes its own short
prompts from them (games.twentyq.lessons), without candidates, reasoning or hints."""

import math
import re
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from games.task import Collects
from games.twentyq import recorded
from games.twentyq.figures import rounds_of
from games.twentyq.lessons import imitate
from games.twentyq.match import lock_step
from games.twentyq.prompts import (
    MAX_GUESS,
    MAX_QUESTION,
    ROUNDS,
    answer_prompt,
    ask_prompt,
    correct,
    count_unnamed,
    guess_prompt,
    last_line,
    names,
    read_prompt,
)
from terminal import UsageError

STRATEGIES = (
    "play",  # the player's own games (TwentyQuestions.play): answers from the table, --noise, no repeats
    "simulate",  # candidates, a reasoned choice among them, a reasoned answer, a reasoned guess
    "hinted",  # as simulate, but from a round of 8 to 13 on the asker is told the keyword
    "snapshot",  # a complete won game in one reply
    "cheap",  # question, answer and guess, one reply each
    "facts",  # no games: a model's own answers to all questions about the keyword, a world for --belief
)
OWN = "play", "facts"  # strategies that need no teacher
TRIES = 3  # a game ends after this many replies in a row without a question
HINTED = 8, 14  # the first round with a hint is drawn from 8 to 13
NAMED = "games ended, a question named the keyword"

# ------------------------------------------------------------------------------------------------ prompts
ASKER = """\
You are playing 20 Questions: you look for a keyword that you do not know. It is usually a thing, hardly ever
a person or a place. The game has 20 rounds. In each you ask one question that yes or no can answer, hear the
answer, and make one guess. A guess wins only if it is the keyword letter for letter, so call a thing by its
most common name. The answers come from a small language model, and now and then one is wrong. A good question
leaves about half of what is still possible, whatever the answer."""
ANSWERER = """\
You are playing 20 Questions and know the keyword. Answer the question about it as most people would, with YES
or NO; where neither is quite true, take what is closer."""
WRITER = "You write transcripts of games of 20 Questions that were played very well."
ADVICE = """\
Halve what is still possible where you can; near the end a riskier question may pay. You may ask about the
number of words or the first letter, but seldom. Where answers contradict each other, one may be wrong."""
HINT = """\
Secret message: the keyword is {keyword}. Play on as if you did not know it. Never name it and never mention
this message, but choose questions that lead there step by step, so that it can be guessed by question 12 to
15."""
LIST = "List ten different questions that you could ask next, one a line, and nothing else."
TRANSCRIPT = """\
Keyword: {keyword}
Write the transcript of a game in which this keyword is found after 9 to 19 questions, each line in this form:
Question: Is it alive? Answer: no
The asker does not know the keyword: the questions go from the general to the particular, each follows from
the answers before it, and none names the keyword. Write these lines and nothing else."""
ENDS = {  # style -> the last words of the prompts of the asker, the answerer and the guesser
    "reasoned": (
        "Say in two to four sentences which of these helps most, then write it alone on the last line.",
        "Think in one to three sentences, then write only YES or NO on the last line.",
        "Think in a few sentences, then write only the keyword on the last line.",
    ),
    "cheap": ("Write only the question.", "Write only YES or NO.", "Write only the keyword."),
}


def conversation(system, *parts):
    content = "\n\n".join(part for part in parts if part)
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def history(rounds, guesses=True):
    """The game so far as text, a line a round. The asker does not see past guesses (guesses=False): they
    cost wins."""
    lines = []
    for question, answer, guess in rounds:
        line = f"Question: {question} Answer: {answer}"
        lines.append(f"{line} Guess: {guess}" if guesses and guess else line)
    return "\n".join(["The game so far:", *lines]) if lines else ""


def ask(style, rounds, *more):
    """The conversation that asks for the next question. The style "short" is the prompt of training."""
    if style == "short":
        return ask_prompt([turn[:2] for turn in rounds])
    return conversation(ASKER, history(rounds, guesses=False), ADVICE, *more, ENDS[style][0])


def answer(style, rounds, keyword, question):
    """The conversation that asks for an answer."""
    if style == "short":
        return answer_prompt(keyword, question)
    asked = f"Keyword: {keyword}\nQuestion: {question}"
    return conversation(ANSWERER, history(rounds), asked, ENDS[style][1])


def guess(style, rounds):
    """The conversation that asks for a guess."""
    if style == "short":
        return guess_prompt([turn[:2] for turn in rounds])
    advice = "Guess the keyword. Repeat an earlier guess only in another wording."
    return conversation(ASKER, history(rounds), advice, ENDS[style][2])


# ------------------------------------------------------------------------------------------------ replies
REASONING = r"^(?:(?:given|based on)\b[^,:?]*[,:])?"  # what may come before a question or guess on its line
LEADS = REASONING + r"(?:[^:?]*\b(?:question|ask|pick|choice|choose)\b[^:?]*:)?[\W\d]*"
GUESS_LEADS = REASONING + r"(?:.*\b(?:guess|keyword|answer)\b)?(?:[\W_]|(?:is|it(?:'s)?|that|an?|the)\b)*"


def read_question(text):
    """The question on the last line of a reply, without numbers, quotes and introductory words, or ""."""
    line = last_line(text)
    line = re.sub(LEADS, "", line[: line.rfind("?") + 1], flags=re.I)
    # whoever speaks of the secret message would teach that there is one
    if not 1 < len(line) <= MAX_QUESTION or "secret message" in line.lower():
        return ""
    return line[0].upper() + line[1:]


def read_answer(text):
    """ "yes" or "no", or "unsure" if the last line of a reply has neither or both: training would learn a no
    that nobody said."""
    answers = set(re.findall(r"\b(?:yes|no)\b", last_line(text).lower()))
    return answers.pop() if len(answers) == 1 else "unsure"


def read_guess(text):
    """The keyword on the last line of a reply: letters, digits, spaces and hyphens, in lower case, or ""."""
    line = re.sub(GUESS_LEADS, "", re.sub(r"\(.*?\)", "", last_line(text).lower()))
    # one guess of plain words: a long line is a sentence and no guess
    line = " ".join(re.sub(r"[^\w\s-]", "", line).split())
    return line if len(line) <= MAX_GUESS else ""


# ------------------------------------------------------------------------------------------------ games
def simulate(words, style, hinted):
    """A game that the teacher plays against itself. words: the keyword and its alternates; hinted: the first
    round with a hint (0: never). Returns (row, Counter of what was dropped), like the other games here."""
    rounds = []
    dropped = Counter()
    won = False
    cut = False
    while len(rounds) < ROUNDS and not won:
        hint = HINT.format(keyword=words[0]) if hinted and len(rounds) + 1 >= hinted else ""
        question = yield from choose_question(style, rounds, hint, dropped)
        cut = names(question, words)
        if cut or not question:
            dropped[NAMED if cut else "games ended, no question"] += 1
            break
        answered = read_answer((yield answer(style, rounds, words[0], question)))
        dropped["answers neither yes nor no"] += answered == "unsure"
        rounds.append([question, answered, ""])  # the guesser reads the round before it has a guess
        guessed = read_guess((yield guess(style, rounds)))
        rounds[-1][2] = guessed
        dropped["empty guesses"] += not guessed
        won = bool(guessed) and correct(guessed, *words)
    return {"rounds": rounds, "won": won, "cut": cut}, +dropped  # + leaves out reasons with a count of 0


def choose_question(style, rounds, hint, dropped):
    """The next question, or "" after TRIES replies without one. The style "reasoned" asks for candidates
    first."""
    candidates = ""
    if style == "reasoned":
        listed = yield conversation(ASKER, history(rounds, guesses=False), ADVICE, hint, LIST)
        lines = [line.strip() for line in listed.splitlines() if "?" in line]
        candidates = "\n".join(["Candidates:", *lines[:10]])
    # a repeated prompt could get the same reply, so the next try says what was wrong
    for number in range(TRIES):
        again = f"There was no question on the last line of reply {number}." if number else ""
        question = read_question((yield ask(style, rounds, candidates, hint, again)))
        if question:
            break
        dropped["replies without a question"] += 1
    return question


def snapshot(words):
    """A complete won game, written in one reply. It is cut before a question that names the keyword."""
    # lines in another form are ignored, so a bad transcript is a short one
    text = yield conversation(WRITER, TRANSCRIPT.format(keyword=words[0]))
    lines = re.findall(r"Question:\s*(.+?\?)\W*Answer:\W*(yes|no)\b", text, re.I)[:ROUNDS]
    rounds = []
    for question, answered in lines:
        if question := read_question(question):
            rounds.append([question, answered.lower()])
    end = count_unnamed([question for question, _ in rounds], words)
    cut = end < len(rounds)
    dropped = Counter()
    dropped["snapshots cut where a question names the keyword"] += cut
    dropped["snapshots without a line to learn from"] += not end
    return {"rounds": rounds[:end], "won": end > 0, "cut": cut}, +dropped


def play_with_teacher(task, style, about):
    """The generator of a game by --strategy. Its randomness follows from (seed, keyword, number) only.
    Returns (rows, Counter of what was dropped)."""
    words = task.words(about)
    if task.options.strategy == "snapshot":
        row, dropped = yield from snapshot(words)
    else:
        rng = np.random.default_rng([task.seed, 22, *key_of(about)])
        hinted = int(rng.integers(*HINTED)) if task.options.strategy == "hinted" else 0
        row, dropped = yield from simulate(words, style, hinted)
    return [about | row] if row["rounds"] else [], dropped


def key_of(about):
    """The part of a game's random seed that is its own: keyword and number."""
    return zlib.crc32(about["keyword"].encode()), about["number"]


def own_game(task, episode, noise):
    """(rows, what was dropped) for a game of task.play. It is cut before a question that names the
    keyword."""
    end = count_unnamed([turn["question"] for turn in episode.turns], task.words(episode.example))
    cut = end < len(episode.turns)
    turns = episode.turns[:end]
    row = episode.example | {
        "rounds": rounds_of(turns),
        "won": episode.reward > 0 and not cut,
        "cut": cut,
        "noise": noise,
        "flipped": [turn["flipped"] for turn in turns],
    }
    return [row] if turns else [], {NAMED: 1} if cut else {}


def facts(task, agent, keyword):
    """The row of a keyword for --belief or --world (games.twentyq.world.Recorded): for every question of the
    world the probabilities of yes and no by an agent, as answerer."""
    questions = task.world.questions
    prompts = [answer_prompt(keyword, question) for question in questions]
    answers = {}
    for question, (yes, no) in zip(questions, agent.choose(prompts, ["yes", "no"])):
        share = 1 / (1 + math.exp(min(no - yes, 700)))  # exp overflows beyond 709
        answers[question] = [round(share, 4), round(1 - share, 4)]
    return {"keyword": keyword, "answers": answers}


# ------------------------------------------------------------------------------------------------ collecting
def style_of(task):
    """The style of the prompts by --teacher and --strategy: reasoned, cheap, or short for players that were
    trained on the short prompts. UsageError if the two flags do not fit."""
    name = task.options.teacher
    strategy = task.options.strategy
    trained = name in task.own_agents or Path(name, "run.json").exists()
    why = ""
    if strategy in OWN and name.startswith(("http://", "https://")):
        why = "the table answers only its own questions; an endpoint takes the other strategies"
    elif strategy not in OWN and not name:
        why = "needs a --teacher; the own games of a --run or --model are --strategy play"
    elif strategy == "facts" and name in task.own_agents:
        why = "asks a model; the table's answers are in --world"
    elif strategy in ("simulate", "hinted", "snapshot") and trained:
        why = f"{name} knows the short prompts of the game only; use --strategy play or cheap"
    if why:
        raise UsageError(f"--strategy {strategy}: {why}")
    if trained:
        return "short"
    return "cheap" if strategy == "cheap" else "reasoned"


def play_games(task, games, player):
    """Yield (place, (rows, what was dropped)) for each of the games {"keyword", "number", ...} when it
    ends."""
    style = style_of(task)
    options = task.options

    def speak(waiting):
        return [reply.text for reply, *_ in player.reply(list(waiting.values()))]

    if options.strategy not in OWN:
        yield from lock_step([play_with_teacher(task, style, about) for about in games], speak)
        return
    if options.strategy == "facts":
        for place, about in enumerate(games):
            yield place, ([facts(task, player, about["keyword"])], {})
        return
    # random numbers follow from the keyword and the number, not from the other games of the call
    noise = []
    for about in games:
        rng = np.random.default_rng([task.seed, 23, *key_of(about)])
        noise.append(float(rng.choice(task.noises)))
    seeds = [[task.seed, *key_of(about)] for about in games]
    episodes = task.play(games, task.equipped(player), noise=noise, seeds=seeds)
    for place, episode in enumerate(episodes):
        yield place, own_game(task, episode, noise[place])


class CollectsGames(Collects):
    """The part of TwentyQuestions that serves infer.py collect."""

    def attempt(self, examples, players):
        """Collect players.n games about each keyword. When the last game about a keyword ends, yield (place
        of the keyword, {"rows", "dropped": for each game what was dropped})."""
        options = self.options
        about = {"strategy": options.strategy, "teacher": options.teacher_model or options.teacher}
        n = 1 if options.strategy == "facts" else players.n
        games = []
        for example in examples:
            games += [{"keyword": example["keyword"], "number": number, **about} for number in range(n)]
        finished = {}  # place of the example -> {number: (rows, dropped)}
        for place, game in play_games(self, games, players.player):
            example, number = divmod(place, n)
            same_keyword = finished.setdefault(example, {})
            same_keyword[number] = game
            if len(same_keyword) == n:
                record = {"rows": [], "dropped": []}
                for _, (rows, dropped) in sorted(same_keyword.items()):
                    record["rows"] += rows
                    record["dropped"].append(dropped)
                yield example, record

    def collected(self, record):
        """The rows of a record, for --data or --belief."""
        return record["rows"]

    def tally(self, records):
        """The lines that sum up a collection: games, the samples that training makes of them, and what was
        dropped, by reason."""
        if self.options.strategy == "facts":
            return []
        games = 0
        rows = []
        collecting = Counter()
        for record in records:
            rows += record["rows"]
            games += len(record["dropped"])
            for dropped in record["dropped"]:
                collecting.update(dropped)

        # read the rows as training will, so that the user sees now what training would drop
        self.dropped.clear()
        seats = Counter()
        for row in rows:
            if game := recorded.read(self, "a collected game", row):
                seats.update(read_prompt(chat.messages[:-1])[0] for chat in imitate(game))
        listed = lambda counts: ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
        return [
            f"games: {games:,}, {sum(row['won'] for row in rows):,} won",
            f"samples: {seats['asker']:,} ask, {seats['answerer']:,} answer, {seats['guesser']:,} guess",
            f"dropped in collecting: {listed(collecting)}; by training: {listed(self.dropped)}",
        ]
