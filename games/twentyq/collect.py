"""Collecting games of 20 Questions: from a teacher at an endpoint, from the table, from a model's own play.

Read the prompts, how replies are cleaned, then the games: `simulated` and `snapshot` are generators that
yield a conversation and are sent the text of the reply, so each reads like one game and `lock_step` plays
many. What is kept of a game are its questions, answers and guesses, from which training makes its own short
prompts (games.twentyq.recorded): candidates, reasoning and hints are in none of them."""

import re
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from games.twentyq import aids, recorded
from games.twentyq.experiments import own_games as own
from games.twentyq.prompts import (
    MAX_GUESS,
    MAX_QUESTION,
    ROUNDS,
    answer_prompt,
    ask_prompt,
    correct,
    guess_prompt,
    last_line,
    names,
    read_prompt,
    unnamed,
)

STRATEGIES = {
    "play": "by games.twentyq.task's own play: answers from the table, --noise, no reply twice in a game",
    "simulate": "candidates, a reasoned pick among them, a reasoned answer, a reasoned guess",
    "hinted": "the same, and from a round of 8 to 13 on the picker is told the keyword",
    "snapshot": "a whole won game in one reply",
    "cheap": "question, answer and guess, one reply each",
    "compare": "as play, and of what a model would say next best in each state, what a belief prefers",
    "facts": "no games: a model's own answers to all questions about the keyword, a world for --belief",
}
OWN = "play", "compare", "facts"  # of a player without a teacher
COMPARED = 6  # replies of a state, where --candidates says nothing
TRIES = 3  # replies without a question, one after the other, that end a game
HINTED = 8, 13  # the hint comes from a round between these on

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


class Prompts:
    """The long prompts, "reasoned" or "cheap"; or the short ones, for players that were trained on them."""

    def __init__(self, style):
        self.short = style == "short"
        self.ends = ENDS.get(style)

    def ask(self, rounds, *more):
        if self.short:
            return ask_prompt([turn[:2] for turn in rounds])
        return conversation(ASKER, history(rounds, guesses=False), ADVICE, *more, self.ends[0])

    def answer(self, rounds, keyword, question):
        if self.short:
            return answer_prompt(keyword, question)
        return conversation(
            ANSWERER, history(rounds), f"Keyword: {keyword}\nQuestion: {question}", self.ends[1]
        )

    def guess(self, rounds):
        if self.short:
            return guess_prompt([turn[:2] for turn in rounds])
        advice = "Guess the keyword. Repeat an earlier guess only in another wording."
        return conversation(ASKER, history(rounds), advice, self.ends[2])


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
def simulated(words, style, hinted):
    """A game that the teacher plays with itself about words, the keyword and its alternates; hinted from that
    round on (0: never)."""
    keyword, *alternates = words
    prompts, rounds, dropped, won, cut = Prompts(style), [], Counter(), False, False
    while len(rounds) < ROUNDS and not won:
        hint = HINT.format(keyword=keyword) if hinted and len(rounds) + 1 >= hinted else ""
        question = yield from picked(prompts, style, rounds, hint, dropped)
        cut = bool(question) and names(question, words)
        if cut or not question:
            dropped["games ended, a question named the keyword" if cut else "games ended, no question"] += 1
            break
        answer = read_answer((yield prompts.answer(rounds, keyword, question)))
        dropped["answers neither yes nor no"] += answer == "unsure"
        rounds.append([question, answer, ""])
        guess = read_guess((yield prompts.guess(rounds)))
        dropped["empty guesses"] += not guess
        rounds[-1][2] = guess
        won = bool(guess) and correct(guess, keyword, alternates)
    return {"rounds": rounds, "won": won, "cut": cut, "dropped": +dropped}


def picked(prompts, style, rounds, hint, dropped):
    """The next question, or "" after TRIES replies without one; candidates come before a reasoned pick."""
    candidates = ""
    if style == "reasoned":
        listed = yield conversation(ASKER, history(rounds, guesses=False), ADVICE, hint, LIST)
        lines = [line.strip() for line in listed.splitlines() if "?" in line]
        candidates = "\n".join(["Candidates:", *lines[:10]])
    for number in range(TRIES):
        again = f"There was no question on the last line of reply {number}." if number else ""
        question = read_question((yield prompts.ask(rounds, candidates, hint, again)))
        if question:
            return question
        dropped["replies without a question"] += 1
    return ""


def snapshot(words):
    """A whole won game, written in one reply; it ends before a line that names the keyword."""
    text = yield conversation(WRITER, TRANSCRIPT.format(keyword=words[0]))
    found = re.findall(r"Question:\s*(.+?\?)\W*Answer:\W*(yes|no)\b", text, re.I)[:ROUNDS]
    rounds = [[read_question(question), answer.lower()] for question, answer in found]
    rounds = [turn for turn in rounds if turn[0]]
    end = unnamed([question for question, _ in rounds], words)
    cut, dropped = end < len(rounds), Counter()
    dropped["snapshots cut where a question names the keyword"] += cut
    dropped["snapshots without a line to learn from"] += not end
    return {"rounds": rounds[:end], "won": end > 0, "cut": cut, "dropped": +dropped}


def played(task, games, agent):
    """Games by task.play, --n of a keyword: each at one of the --noise shares, by (seed, keyword, number);
    with the aids that flags name, or compared."""
    keys = [[zlib.crc32(keyword.encode()), number] for keyword, number in games]
    noise = [float(np.random.default_rng([task.seed, 23, *key]).choice(task.noises)) for key in keys]
    examples, how = [{"keyword": keyword} for keyword, _ in games], {"noise": noise}
    how |= {"seeds": [[task.seed, *key] for key in keys], "wander": task.options.wander}
    if task.options.strategy == "compare":
        k = task.options.candidates or COMPARED
        yield from enumerate({"rows": rows} for rows in own.compared(task, agent, examples, k, **how))
        return
    for place, episode in enumerate(task.play(examples, task.equipped(agent), **how)):
        turns, words = episode.turns, task.words(games[place][0])
        end = unnamed([turn["question"] for turn in turns], words)
        cut = end < len(turns)
        yield (
            place,
            {
                "rounds": [[turn["question"], turn["answer"], turn["guess"]] for turn in turns[:end]],
                "won": episode.reward > 0 and not cut,
                "cut": cut,
                "noise": noise[place],
                "flipped": [turn["flipped"] for turn in turns[:end]],
                "wandered": [turn["wandered"] for turn in turns[:end]],
                "dropped": {"games ended, a question named the keyword": 1} if cut else {},
            },
        )


def lock_step(games, agent):
    """Play generators of conversations side by side: (place, what the game returned) of each as it ends."""
    waiting = {place: next(game) for place, game in enumerate(games)}
    while waiting:
        replies = agent.reply(list(waiting.values()))
        for place, (reply, *_) in zip(list(waiting), replies):
            try:
                waiting[place] = games[place].send(reply.text)
            except StopIteration as end:
                del waiting[place]
                yield place, end.value


# ------------------------------------------------------------------------------------------------ collecting
def checked(task):
    """The style of the prompts that --teacher and --strategy make. ValueError where these do not go
    together."""
    name, strategy = task.options.teacher, task.options.strategy
    trained = name in task.players or Path(name, "run.json").exists()  # on the short prompts
    if strategy not in STRATEGIES:
        raise ValueError(f"--strategy {strategy}: unknown (known: {', '.join(STRATEGIES)})")
    why = ""
    if strategy in OWN and name.startswith(("http://", "https://")):
        why = "the table answers, who knows its own questions only; an endpoint takes the other strategies"
    elif strategy not in OWN and not name:
        why = "goes with a --teacher; what a --run or --model plays itself is --strategy play"
    elif strategy == "facts" and name in task.players:
        why = "asks a model; what the table knows is in --world"
    elif strategy in ("simulate", "hinted", "snapshot") and trained:
        why = f"{name} knows the short prompts of the game only, with which go play and cheap"
    if why:
        raise ValueError(f"--strategy {strategy}: {why}")
    return "short" if trained else "cheap" if strategy == "cheap" else "reasoned"


def collect(task, examples, agent):
    """The games of TwentyQuestions.attempt."""
    style, strategy, seed = checked(task), task.options.strategy, task.seed
    teacher = task.options.teacher_model or task.options.teacher
    numbered = [(example["keyword"], number) for example in examples for number in range(task.n)]
    if strategy == "facts":
        yield from ((i, {"rows": [aids.facts(task, agent, example)]}) for i, example in enumerate(examples))
        return
    if strategy in OWN:
        ended = played(task, numbered, agent)
    else:
        games = []
        for keyword, number in numbered:
            words = task.words(keyword)
            rng = np.random.default_rng([seed, 22, zlib.crc32(keyword.encode()), number])
            hinted = int(rng.integers(HINTED[0], HINTED[1] + 1)) if strategy == "hinted" else 0
            whole = strategy == "snapshot"
            games.append(snapshot(words) if whole else simulated(words, style, hinted))
        ended = lock_step(games, agent)
    found = [{} for _ in examples]
    for place, game in ended:
        keyword, number = numbered[place]
        about = {"keyword": keyword, "number": number, "strategy": strategy, "teacher": teacher}
        i = place // task.n
        found[i][number] = about | game
        if len(found[i]) == task.n:
            games = [found[i][number] for number in sorted(found[i])]
            rows = [row for game in games for row in game.get("rows", ())]
            yield i, {"rows": rows} if strategy == "compare" else {"games": games}


def tally(task, records):
    """What was collected: games, the samples that training makes of them, what was dropped, by reason."""
    games = [game for record in records for game in record.get("games", ())]
    if not games:
        return []
    rows = [row for record in records for row in task.collected(record)]
    dropped, seats, task.dropped = Counter(), Counter(), {}
    for game in games:
        dropped.update(game["dropped"])
    for row in rows:
        game = recorded.read(task, "a collected game", row)
        for chat in recorded.imitated(game) if game else ():
            seats[read_prompt(chat.messages[:-1])[0]] += 1
    counts = lambda found: ", ".join(f"{count:,} {name}" for name, count in found.items()) or "none"
    return [
        f"games: {len(games):,}, {sum(game['won'] for game in games):,} won",
        f"samples: {seats['asker']:,} ask, {seats['answerer']:,} answer, {seats['guesser']:,} guess",
        f"dropped in collecting: {counts(dropped)}; by training: {counts(task.dropped)}",
    ]
