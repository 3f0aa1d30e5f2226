"""The world of the arena: battles between made-up models, decided by a judge whose law is known.

    for row in battles(seed=0, n=1000): row["prompt"], row["response_a"], row["winner_model_a"], row["probs"]

A row has the columns of the competition's train.csv, so it takes the same way as real data, and two more:
"probs", the chances of A, B and a tie that the winner was drawn from, and "fair", what they were if the judge
did not mind the order. The judge looks at nothing but the texts, so a reader of the texts can reach these
chances, and the least log loss that anyone can have is their mean entropy.

An answer is sentences of two nouns: both of the topic, both vague, or both of another topic. Names of topics
are not among the nouns, so what belongs together has to be learnt. `worth` says what the judge likes; with a
bias it also likes what it reads first, which is no merit of the answer."""

import json
import math

import numpy as np

BIAS = 1.2  # added to the judge's difference: the odds of A against B grow by e^1.2, or 3.3
SHARP = 1.3  # how much of a difference in worth the judge sees
TIES = 1.8  # Davidson's weight of a tie, with which a third of all battles are ties
ON_TOPIC, LONG, BULLETS, REFUSED = 3.0, 0.5, 0.3, -1.5  # what the judge likes, per unit of each
HEDGED = 0.75  # share of the sentences off the topic that are vague; the others are about another topic
SHORT, TWO_TURNS = 0.25, 0.15  # shares: of prompts that ask for short answers, of battles with a second turn
MOST = 8  # sentences in an answer

TOPICS = {
    "sea": "wave salt fish harbor tide shell sailor boat coral whale",
    "forest": "oak moss deer fern owl path mushroom squirrel pine leaf",
    "kitchen": "pan knife oven soup flour spoon onion butter cook plate",
    "concert": "drum flute singer melody choir violin stage rhythm applause piano",
    "farm": "cow barn tractor wheat hen field plow farmer goat hay",
    "city": "tram bridge tower street crowd market subway shop square corner",
    "winter": "snow ice sled scarf frost skate icicle glove storm blanket",
    "school": "pupil chalk lesson teacher pencil desk book recess exam notebook",
}
TOPICS = {topic: nouns.split() for topic, nouns in TOPICS.items()}
HEDGES = "something people things reasons ways stuff cases somebody matters parts".split()
VERBS = "needs brings meets makes follows holds changes finds keeps shows".split()
PROMPTS = (
    "tell me about the {}.",
    "what do you know about the {}?",
    "describe the {}.",
    "say something about the {}.",
)
REFUSAL = "sorry, i can not help with that."
MODELS = {  # share of sentences on the topic, mean number of sentences, chance of bullets, of a refusal
    "alder": (0.85, 5.0, 0.5, 0.0),
    "bramble": (0.8, 4.0, 0.1, 0.0),
    "cinder": (0.75, 6.0, 0.6, 0.02),
    "dapple": (0.65, 4.5, 0.3, 0.02),
    "ember": (0.45, 3.5, 0.0, 0.04),
    "fennel": (0.35, 5.5, 0.4, 0.06),
    "gorse": (0.3, 3.0, 0.2, 0.12),
    "hazel": (0.25, 4.0, 0.1, 0.12),
}

pick = lambda rng, items: items[rng.integers(len(items))]
pick_two = lambda rng, items: [items[i] for i in rng.permutation(len(items))[:2]]  # different ones


# ------------------------------------------------------------------------------------------------ a battle
def question(rng, topic, later):
    """(prompt, whether it asks for a short answer)."""
    short = bool(rng.random() < SHORT)
    return "now " * later + "in short, " * short + pick(rng, PROMPTS).format(topic), short


def answer(rng, topic, model):
    """(text, sentences, share of them on the topic, bullets, refused) of a model on a topic."""
    skill, length, bullets, refusals = MODELS[model]
    if rng.random() < refusals:
        return REFUSAL, 1, 0.0, False, True
    n = int(np.clip(round(rng.normal(length, 1.5)), 1, MOST))
    skill, bullets = rng.normal(skill, 0.25), bool(rng.random() < bullets)
    hits, sentences = rng.random(n) < skill, []
    for hit in hits:
        nouns = TOPICS[topic]
        if not hit:
            others = [other for other in TOPICS if other != topic]
            nouns = HEDGES if rng.random() < HEDGED else TOPICS[pick(rng, others)]
        first, second = pick_two(rng, nouns)
        sentences.append(f"{first} {pick(rng, VERBS)} {second}.")
    text = "\n".join(f"- {sentence}" for sentence in sentences) if bullets else " ".join(sentences)
    return text, n, float(hits.mean()), bullets, False


def worth(short, n, on_topic, bullets, refused):
    """Of an answer to the judge, who likes long answers unless the prompt asks for short ones."""
    length = (-LONG if short else LONG) * math.log(n)
    return ON_TOPIC * on_topic + length + BULLETS * bullets + REFUSED * refused


def chances(difference):
    """[P(A), P(B), P(tie)] of Davidson's model: softmax of (d / 2, -d / 2, ln ties)."""
    weights = np.exp([difference / 2, -difference / 2, math.log(TIES)])
    return (weights / weights.sum()).tolist()


def battles(seed, n, bias=BIAS, stream=0):
    """n rows; row i is a function of (seed, stream, i), and its texts do not depend on the bias."""
    rows = []
    for i in range(n):
        rng = np.random.default_rng((seed, stream, i))
        pair = pick_two(rng, [*MODELS])
        topics = pick_two(rng, [*TOPICS])
        topics = topics[: 1 + (rng.random() < TWO_TURNS)]
        prompts, answers, worths = [], ([], []), ([], [])
        for later, topic in enumerate(topics):
            prompt, short = question(rng, topic, later)
            prompts.append(prompt)
            for side, model in enumerate(pair):
                text, *traits = answer(rng, topic, model)
                answers[side].append(text)
                worths[side].append(worth(short, *traits))
        difference = SHARP * float(np.mean(worths[0]) - np.mean(worths[1]))  # one verdict on all turns
        probs = chances(difference + bias)
        winner = int((rng.random() > np.cumsum(probs)[:2]).sum())
        rows.append(
            {"id": f"{seed}-{stream}-{i}", "model_a": pair[0], "model_b": pair[1]}
            | {"prompt": json.dumps(prompts)}
            | {f"response_{side}": json.dumps(texts) for side, texts in zip("ab", answers)}
            | {f"winner_{name}": int(winner == k) for k, name in enumerate(("model_a", "model_b", "tie"))}
            | {"probs": probs, "fair": chances(difference)}
        )
    return rows
