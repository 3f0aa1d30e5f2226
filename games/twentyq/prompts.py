"""20 Questions: the rules of a match and the prompts of every seat.

The rules are those of Kaggle's llm_20_questions environment. The asker does not see past guesses, because
they cost wins in our measurements: a player that reads its own wrong guesses learns to trust them."""

import re
import string

from games.task import Chat

ROUNDS = 20
MAX_QUESTION = 750  # characters, as in the environment
MAX_GUESS = 100

# models are trained on exactly these texts, so a change would make their runs play worse
ASKER = "You are playing 20 Questions. Find the keyword with short yes or no questions."
FIRST = "Ask the first question."
GUESS = "What is the keyword?"
ANSWERER = "You are playing 20 Questions. Answer the question about the keyword with yes or no."


# ------------------------------------------------------------------------------------------------ rules
def normalise(text):
    """The environment's form of a guess: lower case, without spaces, punctuation and "the" (even inside a
    word: "mother" becomes "mor")."""
    text = text.lower().replace("the", "").replace(" ", "")
    return text.translate(str.maketrans("", "", string.punctuation))


def same(a, b):
    """Whether two guesses count as the same word: equal, or equal apart from a final s or es where the
    shorter one has at least 3 letters."""
    shorter, longer = sorted((normalise(a), normalise(b)), key=len)
    return shorter == longer or len(shorter) >= 3 and longer in (f"{shorter}s", f"{shorter}es")


def correct(guess, *words):
    """Whether a guess counts as one of the correct words."""
    return any(same(guess, word) for word in words)


def names(text, words):
    """Whether a text names one of the keywords in `words`: as whole words, by the rule of `same`."""
    spoken = re.findall(r"\w+", text.lower())
    joined = normalise(" ".join(spoken))
    for word in words:
        # a quick test that rejects nearly every text; the last two letters may be a plural's
        if normalise(word)[:-2] not in joined:
            continue
        for start in range(len(spoken)):
            # one word more than the keyword has: "ice-cream" is two in a text, and "icecream" one
            for end in range(start + 1, start + len(word.split()) + 2):
                if same(" ".join(spoken[start:end]), word):
                    return True
    return False


def count_unnamed(questions, words):
    """The number of questions before the first one that names a keyword."""
    for i, question in enumerate(questions):
        if names(question, words):
            return i
    return len(questions)


def yes_or_no(text):
    """The environment's reading of an answer: "yes" if the text contains it anywhere, else "no", else None,
    which loses the game."""
    for answer in ("yes", "no"):
        if answer in text.lower():
            return answer
    return None


# ------------------------------------------------------------------------------------------------ prompts
def ask_prompt(turns):
    """The conversation that asks for the next question, after turns of (question, answer)."""
    messages = [{"role": "system", "content": ASKER}, {"role": "user", "content": FIRST}]
    for question, answer in turns:
        messages += [{"role": "assistant", "content": question}, {"role": "user", "content": answer}]
    return messages


def guess_prompt(turns):
    """The conversation that asks for a guess, after at least one turn."""
    *messages, last = ask_prompt(turns)
    return [*messages, {"role": "user", "content": f"{last['content']}\n{GUESS}"}]


def answer_prompt(keyword, question):
    return [
        {"role": "system", "content": ANSWERER},
        {"role": "user", "content": f"Keyword: {keyword}\n{question}"},
    ]


def read_prompt(messages):
    """The inverse of the functions above: (seat, content) of a conversation. The content is the turns for
    "asker" and "guesser", and (keyword, question) for "answerer"."""
    last = messages[-1]["content"]
    if messages[0]["content"] == ANSWERER:
        return "answerer", tuple(last.removeprefix("Keyword: ").split("\n", 1))
    # after the system prompt and FIRST, questions and answers alternate; GUESS has a line of its own
    contents = [message["content"].split("\n")[0] for message in messages[2:]]
    turns = list(zip(contents[::2], contents[1::2]))
    return ("guesser" if last.endswith(GUESS) else "asker"), turns


def lesson(conversation, reply):
    """A Chat that teaches one reply to a conversation."""
    return Chat([*conversation, {"role": "assistant", "content": reply}], learn="last")


def last_line(text):
    """The last non-empty line of a text, or ""."""
    return (text.strip().splitlines() or [""])[-1].strip()
