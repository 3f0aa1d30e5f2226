"""Collecting games of 20 Questions: from a teacher at an endpoint, from the table, from a model's own play.

Read the prompts, how replies are cleaned, then the games: `simulate` and `snapshot` are generators that yield
a conversation and are sent the text of the reply, so each reads like one game, and match.lock_step plays
many. What is kept of a game are its questions, answers and guesses, from which training makes its own short
prompts (games.twentyq.lessons): candidates, reasoning and hints are in none of them."""

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
    "play",  # by games.twentyq.task's own play: answers from the table, --noise, no reply twice in a game
    "simulate",  # candidates, a reasoned pick among them, a reasoned answer, a reasoned guess
    "hinted",  # the same, and from a round of 8 to 13 on the picker is told the keyword
    "snapshot",  # a whole won game in one reply
    "cheap",  # question, answer and guess, one reply each
    "compare",  # as play, and of what a model would say next best in each state, what a belief prefers
    "facts",  # no games: a model's own answers to all questions about the keyword, a world for --belief
)
OWN = "play", "compare", "facts"  # of a player without a teacher
COMPARED = 6  # replies of a state, where --candidates says nothing
TRIES = 3  # replies without a question, one after the other, that end a game
HINTED = 8, 14  # the hint comes from a round of 8 to 13 on
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
ENDS = {  # what is asked for: of the asker, the answerer, the guesser
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
    """What was said so far, a line a round. Past guesses are for whoever answers or guesses, not asks."""
    lines = [
        f"Question: {question} Answer: {answer}" + (f" Guess: {guess}" if guesses and guess else "")
        for question, answer, guess in rounds
    ]
    return "\n".join(["The game so far:", *lines]) if lines else ""


def ask(style, rounds, *more):
    """The conversation in which the next question is asked; "short" is the one of training."""
    if style == "short":
        return ask_prompt([turn[:2] for turn in rounds])
    return conversation(ASKER, history(rounds, guesses=False), ADVICE, *more, ENDS[style][0])


def answer(style, rounds, keyword, question):
    if style == "short":
        return answer_prompt(keyword, question)
    asked = f"Keyword: {keyword}\nQuestion: {question}"
    return conversation(ANSWERER, history(rounds), asked, ENDS[style][1])


def guess(style, rounds):
    if style == "short":
        return guess_prompt([turn[:2] for turn in rounds])
    advice = "Guess the keyword. Repeat an earlier guess only in another wording."
    return conversation(ASKER, history(rounds), advice, ENDS[style][2])


# ------------------------------------------------------------------------------------------------ replies
REASONING = r"^(?:(?:given|based on)\b[^,:?]*[,:])?"  # what may come before a question or guess on its line
LEADS = REASONING + r"(?:[^:?]*\b(?:question|ask|pick|choice|choose)\b[^:?]*:)?[\W\d]*"
GUESS_LEADS = REASONING + r"(?:.*\b(?:guess|keyword|answer)\b)?(?:[\W_]|(?:is|it(?:'s)?|that|an?|the)\b)*"


def read_question(text):
    """The question on the last line of a reply, without numbers, quotes and what leads up to it, or ""."""
    line = last_line(text)
    line = re.sub(LEADS, "", line[: line.rfind("?") + 1], flags=re.I)
    if not 1 < len(line) <= MAX_QUESTION or "secret message" in line.lower():
        return ""
    return line[0].upper() + line[1:]


def read_answer(text):
    """yes, no, or unsure where the last line says neither or both: a no that nobody said would be learned."""
    said = set(re.findall(r"\b(?:yes|no)\b", last_line(text).lower()))
    return said.pop() if len(said) == 1 else "unsure"


def read_guess(text):
    """The keyword on the last line of a reply: letters, digits, spaces and hyphens, in lower case, or ""."""
    line = re.sub(GUESS_LEADS, "", re.sub(r"\(.*?\)", "", last_line(text).lower()))
    line = " ".join(re.sub(r"[^\w\s-]", "", line).split())
    return line if len(line) <= MAX_GUESS else ""


# ------------------------------------------------------------------------------------------------ games
def simulate(words, style, hinted):
    """A game that the teacher plays with itself about words, the keyword and its alternates; hinted from that
    round on (0: never). Returns (row, what was dropped by reason), as the other games here do."""
    rounds, dropped = [], Counter()
    won = cut = False
    while len(rounds) < ROUNDS and not won:
        hint = HINT.format(keyword=words[0]) if hinted and len(rounds) + 1 >= hinted else ""
        question = yield from pick_question(style, rounds, hint, dropped)
        cut = names(question, words)
        if cut or not question:
            dropped[NAMED if cut else "games ended, no question"] += 1
            break
        said = read_answer((yield answer(style, rounds, words[0], question)))
        dropped["answers neither yes nor no"] += said == "unsure"
        rounds.append([question, said, ""])
        guessed = rounds[-1][2] = read_guess((yield guess(style, rounds)))
        dropped["empty guesses"] += not guessed
        won = bool(guessed) and correct(guessed, *words)
    return {"rounds": rounds, "won": won, "cut": cut}, +dropped


def pick_question(style, rounds, hint, dropped):
    """The next question, or "" after TRIES replies without one; candidates come before a reasoned pick."""
    candidates = ""
    if style == "reasoned":
        listed = yield conversation(ASKER, history(rounds, guesses=False), ADVICE, hint, LIST)
        lines = [line.strip() for line in listed.splitlines() if "?" in line]
        candidates = "\n".join(["Candidates:", *lines[:10]])
    for number in range(TRIES):
        again = f"There was no question on the last line of reply {number}." if number else ""
        question = read_question((yield ask(style, rounds, candidates, hint, again)))
        if question:
            break
        dropped["replies without a question"] += 1
    return question


def snapshot(words):
    """A whole won game, written in one reply; it ends before a line that names the keyword."""
    text = yield conversation(WRITER, TRANSCRIPT.format(keyword=words[0]))
    lines = re.findall(r"Question:\s*(.+?\?)\W*Answer:\W*(yes|no)\b", text, re.I)[:ROUNDS]
    rounds = [[read_question(question), said.lower()] for question, said in lines]
    rounds = [turn for turn in rounds if turn[0]]
    end = count_unnamed([question for question, _ in rounds], words)
    cut = end < len(rounds)
    dropped = Counter()
    dropped["snapshots cut where a question names the keyword"] += cut
    dropped["snapshots without a line to learn from"] += not end
    return {"rounds": rounds[:end], "won": end > 0, "cut": cut}, +dropped


def teacher_game(task, style, about):
    """The generator of a game by --strategy; what is random in it follows from (seed, keyword, number).
    Returns (rows, what was dropped)."""
    words, strategy = task.words(about), task.options.strategy
    if strategy == "snapshot":
        row, dropped = yield from snapshot(words)
    else:
        rng = np.random.default_rng([task.seed, 22, *key_of(about)])
        hinted = int(rng.integers(*HINTED)) if strategy == "hinted" else 0
        row, dropped = yield from simulate(words, style, hinted)
    return [about | row] if row["rounds"] else [], dropped


def key_of(about):
    """What the random numbers of a game follow from, beside the seed."""
    return zlib.crc32(about["keyword"].encode()), about["number"]


def own_game(task, episode, noise):
    """(rows, what was dropped) of a game of task.play; it ends before a question that names the keyword."""
    end = count_unnamed([turn["question"] for turn in episode.turns], task.words(episode.example))
    cut, turns = end < len(episode.turns), episode.turns[:end]
    row = episode.example | {
        "rounds": rounds_of(turns),
        "won": episode.reward > 0 and not cut,
        "cut": cut,
        "noise": noise,
        "flipped": [turn["flipped"] for turn in turns],
        "wandered": [turn["wandered"] for turn in turns],
    }
    return [row] if turns else [], {NAMED: 1} if cut else {}


def facts(task, agent, keyword):
    """The row of a keyword for --belief or --world (games.twentyq.world.Recorded): the share that an agent,
    as answerer, gives to yes for every question of the world."""
    questions = task.world.questions
    prompts = [answer_prompt(keyword, question) for question in questions]
    answers = {}
    for question, (yes, no) in zip(questions, agent.choose(prompts, ["yes", "no"])):
        share = 1 / (1 + math.exp(min(no - yes, 700)))
        answers[question] = [round(share, 4), round(1 - share, 4)]
    return {"keyword": keyword, "answers": answers}


# ------------------------------------------------------------------------------------------------ collecting
def style_of(task):
    """The style of the prompts that --teacher and --strategy make: reasoned, cheap, or short for players that
    were trained on the short ones. UsageError where the two do not go together."""
    name, strategy = task.options.teacher, task.options.strategy
    trained = name in task.own_agents or Path(name, "run.json").exists()
    why = ""
    if strategy in OWN and name.startswith(("http://", "https://")):
        why = "the table answers, who knows its own questions only; an endpoint takes the other strategies"
    elif strategy not in OWN and not name:
        why = "goes with a --teacher; what a --run or --model plays itself is --strategy play"
    elif strategy == "facts" and name in task.own_agents:
        why = "asks a model; what the table knows is in --world"
    elif strategy in ("simulate", "hinted", "snapshot") and trained:
        why = f"{name} knows the short prompts of the game only, with which go play and cheap"
    if why:
        raise UsageError(f"--strategy {strategy}: {why}")
    return "short" if trained else "cheap" if strategy == "cheap" else "reasoned"


def play_games(task, games, player):
    """Yield (place, (rows, what was dropped)) of each of some games, {"keyword", "number", ...}, as it
    ends."""
    style, options = style_of(task), task.options

    def speak(waiting):
        return [reply.text for reply, *_ in player.reply(list(waiting.values()))]

    if options.strategy not in OWN:
        yield from lock_step([teacher_game(task, style, about) for about in games], speak)
        return
    if options.strategy == "facts":
        yield from enumerate(([facts(task, player, about["keyword"])], {}) for about in games)
        return
    settings = {
        "noise": [
            float(np.random.default_rng([task.seed, 23, *key_of(about)]).choice(task.noises))
            for about in games
        ],
        "seeds": [[task.seed, *key_of(about)] for about in games],
        "wander": options.wander,
    }
    if options.strategy == "compare":
        from games.twentyq.experiments.own_games import compare

        compared = compare(task, player, games, options.candidates or COMPARED, **settings)
        yield from enumerate((rows, {}) for rows in compared)
        return
    episodes = task.play(games, task.equipped(player), **settings)
    yield from enumerate(own_game(task, *played) for played in zip(episodes, settings["noise"]))


class CollectsGames(Collects):
    """What TwentyQuestions does for infer.py collect."""

    def attempt(self, examples, players):
        """The games to collect, players.n of each keyword: (place, {"rows", "dropped": what was, of each
        game}) when the last of a keyword has ended."""
        options = self.options
        about = {"strategy": options.strategy, "teacher": options.teacher_model or options.teacher}
        n = 1 if options.strategy == "facts" else players.n
        games = []
        for example in examples:
            games += [{"keyword": example["keyword"], "number": number, **about} for number in range(n)]
        ended = {}  # by place
        for place, game in play_games(self, games, players.player):
            ended[place] = game
            example = place // n
            of_example = [ended[i] for i in range(example * n, example * n + n) if i in ended]
            if len(of_example) == n:
                rows = [row for rows, _ in of_example for row in rows]
                yield example, {"rows": rows, "dropped": [dropped for _, dropped in of_example]}

    def collected(self, record):
        """The rows of a record, for --data or --belief."""
        return record["rows"]

    def tally(self, records):
        """What was collected: games, the samples that training makes of them, what was dropped, by reason."""
        if self.options.strategy in ("compare", "facts"):
            return []
        games, rows, collecting, seats = 0, [], Counter(), Counter()
        for record in records:
            rows += record["rows"]
            games += len(record["dropped"])
            for dropped in record["dropped"]:
                collecting.update(dropped)
        self.dropped.clear()
        for row in rows:
            game = recorded.read(self, "a collected game", row)
            seats.update(read_prompt(chat.messages[:-1])[0] for chat in (imitate(game) if game else ()))
        listed = lambda counts: ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
        return [
            f"games: {games:,}, {sum(row['won'] for row in rows):,} won",
            f"samples: {seats['asker']:,} ask, {seats['answerer']:,} answer, {seats['guesser']:,} guess",
            f"dropped in collecting: {listed(collecting)}; by training: {listed(self.dropped)}",
        ]
