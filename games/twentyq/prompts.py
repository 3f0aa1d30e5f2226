"""20 Questions: the rules of a match and the prompts of every seat.

The rules are those of Kaggle's llm_20_questions environment. Past guesses are not shown to the asker:
measured, they cost wins (a player that reads its own wrong guesses learns to trust them)."""

import re
import string

from games.task import Chat

ROUNDS = 20
MAX_QUESTION, MAX_GUESS = 750, 100  # characters

ASKER = "You are playing 20 Questions. Find the keyword with short yes or no questions."
FIRST = "Ask the first question."
GUESS = "What is the keyword?"
ANSWERER = "You are playing 20 Questions. Answer the question about the keyword with yes or no."


# ------------------------------------------------------------------------------------------------ rules
def normalise(text):
    """The environment's form of a guess: lower case without "the" (anywhere, "mother" too), spaces and
    punctuation."""
    text = text.lower().replace("the", "").replace(" ", "")
    return text.translate(str.maketrans("", "", string.punctuation))


def same(a, b):
    """Whether two guesses count as the same word: equal, or equal but for one final s or es if both have 3
    letters."""
    a, b = normalise(a), normalise(b)
    if a == b:
        return True
    if len(a) < 3 or len(b) < 3:
        return False
    return any(
        x.endswith(end) and x.removesuffix(end) == y for x, y in ((a, b), (b, a)) for end in ("s", "es")
    )


def correct(guess, keyword, alternates=()):
    return any(same(guess, word) for word in (keyword, *alternates))


def names(text, words):
    """Whether a text names one of some keywords: as whole words, by the rule of `same`."""
    spoken = re.findall(r"\w+", text.lower())
    whole = normalise(" ".join(spoken))
    near = [word for word in words if normalise(word)[:-2] in whole]  # the rest need no closer look
    return any(
        same(" ".join(spoken[i : i + n]), word)
        for word in near
        for n in range(1, len(word.split()) + 2)
        for i in range(len(spoken) - n + 1)
    )


def unnamed(questions, words):
    """How many of the questions come before the first that names one of some keywords."""
    return next((i for i, question in enumerate(questions) if names(question, words)), len(questions))


def yes_or_no(text):
    """The environment's reading of an answer: "yes" wherever it occurs, else "no", else None, which
    forfeits."""
    text = text.lower()
    return "yes" if "yes" in text else "no" if "no" in text else None


def reward(round_won):
    """The environment's reward for a win in round 1..20 (20 down to 1), or -1 without one (None)."""
    return -1 if round_won is None else ROUNDS + 1 - round_won


# ------------------------------------------------------------------------------------------------ prompts
def ask_prompt(turns):
    """The conversation in which the next question is asked, after turns of (question, answer)."""
    messages = [{"role": "system", "content": ASKER}, {"role": "user", "content": FIRST}]
    for question, answer in turns:
        messages += [{"role": "assistant", "content": question}, {"role": "user", "content": answer}]
    return messages


def guess_prompt(turns):
    """The conversation in which the keyword is guessed, after at least one turn."""
    *messages, last = ask_prompt(turns)
    return [*messages, {"role": "user", "content": f"{last['content']}\n{GUESS}"}]


def answer_prompt(keyword, question):
    return [
        {"role": "system", "content": ANSWERER},
        {"role": "user", "content": f"Keyword: {keyword}\n{question}"},
    ]


def read_prompt(messages):
    """(seat, content) of a conversation made above: "asker" or "guesser" with turns, "answerer" with
    (keyword, question)."""
    last = messages[-1]["content"]
    if messages[0]["content"] == ANSWERER:
        return "answerer", tuple(last.removeprefix("Keyword: ").split("\n", 1))
    contents = [message["content"].split("\n")[0] for message in messages[2:]]
    turns = list(zip(contents[::2], contents[1::2]))
    return ("guesser" if last.endswith(GUESS) else "asker"), turns


def said(messages, reply):
    return Chat([*messages, {"role": "assistant", "content": reply}], learn="last")


def last_line(text):
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else ""
