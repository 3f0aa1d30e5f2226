"""20 Questions: the rules of a match and the prompts of every seat.

The rules are those of Kaggle's llm_20_questions environment. Past guesses are not shown to the asker:
measured, they cost wins (a player that reads its own wrong guesses learns to trust them)."""

import re
import string
from itertools import takewhile

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
    shorter, longer = sorted((normalise(a), normalise(b)), key=len)
    return shorter == longer or len(shorter) >= 3 and longer in (f"{shorter}s", f"{shorter}es")


def correct(guess, *words):
    """Whether a guess is one of the words that are right."""
    return any(same(guess, word) for word in words)


def names(text, words):
    """Whether a text names one of some keywords: as whole words, by the rule of `same`."""
    spoken = re.findall(r"\w+", text.lower())
    joined = normalise(" ".join(spoken))
    return any(
        same(" ".join(spoken[start:end]), word)
        for word in words
        if normalise(word)[:-2] in joined  # the others need no closer look
        for start in range(len(spoken))
        for end in range(start + 1, start + len(word.split()) + 2)
    )


def count_unnamed(questions, words):
    """How many of the questions come before the first that names one of some keywords."""
    return len(list(takewhile(lambda question: not names(question, words), questions)))


def yes_or_no(text):
    """The environment's reading of an answer: "yes" wherever it occurs, else "no", else None, which
    forfeits."""
    for answer in ("yes", "no"):
        if answer in text.lower():
            return answer
    return None


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


def lesson(conversation, reply):
    """A Chat that teaches a reply."""
    return Chat([*conversation, {"role": "assistant", "content": reply}], learn="last")


def last_line(text):
    """The last line of a text that is not empty, or ""."""
    return (text.strip().splitlines() or [""])[-1].strip()
