"""The world of chat: short conversations whose answers can be checked.

    for chat in chats("train", seed=0, n=100):
        chat["messages"], chat["family"]

Every reply follows from what was said before: words are repeated, turned round, sorted, counted, written in
capitals; a question is answered from sentences that were given; a name is remembered over a few turns; and a
system prompt says how to answer. Two steps may be asked for at once, or one after the other. Some pairs of
steps (UNSEEN) occur in no training conversation, so that tests can ask for steps that the model knows in an
order that it never saw."""

import json
import zlib

import numpy as np

WORDS = """
apple arm bag ball bed bell bird boat book bread bus cake car cat chair coat cow cup day desk dog door duck
egg eye farm fire fish flag fork fox gate girl goat hand hat hill horse house ice key king lake lamp leaf
milk moon mouse nest night nose owl pan pen pig rain ring road rose sea ship shoe snow sun tea tent tree
wall wind wolf
""".split()
NAMES = "Ann Ben Cara Dan Eva Finn Gina Hugo Ida Jon Kim Leo Mia Nick Olga Paul".split()
COLOURS = "black blue brown green grey pink red white yellow".split()
THINGS = "bag ball bell boat book cake car chair coat cup desk flag hat key lamp pen ring shoe tent".split()
MOST = 5  # words in a list
LOUD = "Answer in capitals."

# step -> (how it is asked for, what it makes of a list of words)
STEPS = {
    "repeat": ("repeat them", lambda words: words),
    "backwards": ("say them backwards", lambda words: words[::-1]),
    "sort": ("sort them", sorted),
    "capitals": ("write them in capitals", lambda words: [word.upper() for word in words]),
    "twice": ("say each of them twice", lambda words: [word for word in words for _ in range(2)]),
    "ends": ("keep the first and the last", lambda words: [words[0], words[-1]]),
}
# pairs of steps for tests only; each step is in other pairs, at both places
UNSEEN = [
    ("sort", "capitals"),
    ("backwards", "ends"),
    ("twice", "backwards"),
    ("capitals", "twice"),
    ("ends", "sort"),
]
SEEN = [(a, b) for a in STEPS for b in STEPS if a != b and "repeat" not in (a, b) and (a, b) not in UNSEEN]
LISTS = ("{Step}: {words}.", "Here are some words: {words}. {Step}.", "{words}: {step}, please.")

# ------------------------------------------------------------------------------------------------ draws
pick = lambda rng, items: items[rng.integers(len(items))]
sample = lambda rng, items, n: [items[i] for i in rng.permutation(len(items))[:n]]  # n different ones
capital = lambda text: text[0].upper() + text[1:]


def ask(rng, step, words):
    """A sentence that asks for a step, or for two of them ("sort them, then say them backwards")."""
    return pick(rng, LISTS).format(step=step, Step=capital(step), words=" ".join(words))


def some_words(rng, least=2):
    return sample(rng, WORDS, int(rng.integers(least, MOST + 1)))


def another_word(rng, words):
    return pick(rng, [word for word in WORDS if word not in words])


# ------------------------------------------------------------------------------------------------ families
# Each is a function rng -> texts of the user and the assistant in turn.
def one_step(rng):
    words = some_words(rng)
    phrase, apply = pick(rng, [*STEPS.values()])
    return [ask(rng, phrase, words), " ".join(apply(words))]


def two_steps(rng, pairs=SEEN):
    words = some_words(rng)
    (first, apply), (second, apply_next) = [STEPS[name] for name in pick(rng, pairs)]
    return [ask(rng, f"{first}, then {second}", words), " ".join(apply_next(apply(words)))]


def new_pair(rng):
    """Two steps in an order that training never shows."""
    return two_steps(rng, UNSEEN)


def next_step(rng):
    """The second step is asked for when the first is done."""
    words = some_words(rng)
    (first, apply), (second, apply_next) = [STEPS[name] for name in pick(rng, SEEN)]
    done = apply(words)
    return [ask(rng, first, words), " ".join(done), f"Now {second}.", " ".join(apply_next(done))]


def count(rng):
    words = some_words(rng, 1)
    return [ask(rng, "count them", words), str(len(words))]


def which(rng):
    """The first or the last word, or whether a word is there."""
    words = some_words(rng)
    kind = pick(rng, ("first", "last", "there"))
    if kind == "there":
        word = pick(rng, words) if rng.random() < 0.5 else another_word(rng, words)
        return [ask(rng, f"is {word} there", words), "yes" if word in words else "no"]
    return [ask(rng, f"which is the {kind}", words), words[0 if kind == "first" else -1]]


def replace(rng):
    words = some_words(rng)
    old = pick(rng, words)
    new = another_word(rng, words)
    step = f"say {new} for {old}"
    return [ask(rng, step, words), " ".join(new if word == old else word for word in words)]


def facts(rng):
    """Two or three sentences, and a question that one of them answers."""
    n = int(rng.integers(2, 4))
    owners = sample(rng, NAMES, n)
    colours = sample(rng, COLOURS, n)
    things = sample(rng, THINGS, n)
    told = [f"{who} has a {colour} {thing}." for who, colour, thing in zip(owners, colours, things)]
    i = int(rng.integers(n))
    question, answer = pick(
        rng,
        (
            (f"Who has the {things[i]}?", owners[i]),
            (f"What colour is the {things[i]}?", colours[i]),
            (f"What does {owners[i]} have?", f"a {colours[i]} {things[i]}"),
        ),
    )
    return [f"{' '.join(told)} {question}", answer]


def remember(rng):
    """A name, something else, and the name again."""
    name = pick(rng, NAMES)
    between = pick(rng, (one_step, count, facts))(rng) if rng.random() < 0.7 else []
    return [f"My name is {name}.", f"Hello, {name}!", *between, "What is my name?", name]


FAMILIES = {
    "one step": one_step,
    "two steps": two_steps,
    "next step": next_step,
    "count": count,
    "which": which,
    "replace": replace,
    "facts": facts,
    "remember": remember,
}
LOUD_SHARE = 0.15  # conversations whose system prompt asks for capitals


def make(rng, new=False) -> dict:
    """{"messages", "prompt", "completion", "family"} of a conversation that ends in a reply; with new=True it
    asks for a new pair of steps."""
    family = "new pair" if new else pick(rng, [*FAMILIES])
    texts = new_pair(rng) if new else FAMILIES[family](rng)
    messages = []
    if rng.random() < LOUD_SHARE:
        messages.append({"role": "system", "content": LOUD})
        texts[1::2] = [text.upper() for text in texts[1::2]]
    for i, text in enumerate(texts):
        messages.append({"role": ("user", "assistant")[i % 2], "content": text})
    chat = {"messages": messages, "prompt": messages[:-1], "completion": messages[-1]["content"]}
    return chat | {"family": family}


def chats(split: str, seed: int, n: int) -> list:
    """The chats of a split. Chat i depends on (seed, split, i) alone; a quarter of the test chats ask for a
    new pair of steps, and none is among the training chats of any seed."""
    made = []
    for i in range(n):
        rng = np.random.default_rng([seed, ("train", "valid", "test").index(split), i])
        while True:
            chat = make(rng, new=split == "test" and i % 4 == 3)
            if is_held_out(chat) == (split != "train"):
                break
        made.append(chat)
    return made


def is_held_out(chat: dict) -> bool:
    """Whether a conversation is kept for evaluation. It depends on the texts alone, so no seed can mix the
    splits."""
    return zlib.crc32(json.dumps(chat["prompt"]).encode()) % 10 == 0
