"""The world of the arena: battles between made-up models, decided by a judge whose law is known.

    for row in battles(seed=0, n=1000):
        row["prompt"], row["response_a"], row["winner_model_a"], row["probs"]

A row has the columns of the competition's train.csv, so it is read like real data, and two more: "probs", the
chances of A, B and a tie from which the winner was drawn, and "fair", the chances if the judge ignored the
order. The judge sees only the texts, so a model that reads the texts can reach these chances. The lowest log
loss that anyone can have is their mean entropy.

An answer is made of sentences with two nouns each: both on the topic, both vague, or both from another topic.
The name of a topic is not among its nouns, so a model must learn which words belong together. `worth` says
what the judge likes. A judge with a bias also prefers the answer that it reads first, whatever its merit."""

import json
import math

import numpy as np

BIAS = 1.2  # added to the judge's difference: the odds of A against B grow by e^1.2, or 3.3
SHARPNESS = 1.3  # turns a difference in worth into a difference of logits
TIES = 1.8  # Davidson's weight of a tie: a third of all battles are ties

# what the judge likes, per unit of each
ON_TOPIC = 3.0
LONG = 0.5
BULLETS = 0.3
REFUSED = -1.5

HEDGED = 0.75  # share of the sentences off the topic that are vague; the rest are about another topic
SHORT = 0.25  # share of prompts that ask for a short answer
TWO_TURNS = 0.15  # share of battles with a second turn
MAX_SENTENCES = 8  # in an answer

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
# share of sentences on the topic, mean number of sentences, chance of bullets, chance of a refusal
MODELS = {
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
pick_two = lambda rng, items: [items[i] for i in rng.permutation(len(items))[:2]]  # never the same twice


# ------------------------------------------------------------------------------------------------ a battle
def question(rng, topic, turn):
    """(prompt, whether it asks for a short answer). The second turn begins with "now"."""
    short = bool(rng.random() < SHORT)
    return "now " * turn + "in short, " * short + pick(rng, PROMPTS).format(topic), short


def answer(rng, topic, model):
    """What a model says about a topic: (text, number of sentences, share of them on the topic, whether they
    are bullets, whether it is a refusal)."""
    mean_skill, mean_length, bullet_chance, refusal_chance = MODELS[model]
    if rng.random() < refusal_chance:
        return REFUSAL, 1, 0.0, False, True
    n = int(np.clip(round(rng.normal(mean_length, 1.5)), 1, MAX_SENTENCES))
    # no answer is exactly as good as its model is on average
    skill = rng.normal(mean_skill, 0.25)
    bullets = bool(rng.random() < bullet_chance)
    on_topic = rng.random(n) < skill
    other_topics = [other for other in TOPICS if other != topic]
    sentences = []
    for hit in on_topic:
        if hit:
            nouns = TOPICS[topic]
        elif rng.random() < HEDGED:
            nouns = HEDGES
        else:
            nouns = TOPICS[pick(rng, other_topics)]
        first, second = pick_two(rng, nouns)
        sentences.append(f"{first} {pick(rng, VERBS)} {second}.")
    text = "- " + "\n- ".join(sentences) if bullets else " ".join(sentences)
    return text, n, float(on_topic.mean()), bullets, False


def worth(short, n, on_topic, bullets, refused):
    """The worth of an answer to the judge, who likes long answers unless the prompt asks for a short one."""
    length = (-LONG if short else LONG) * math.log(n)
    return ON_TOPIC * on_topic + length + BULLETS * bullets + REFUSED * refused


def chances(difference):
    """[P(A), P(B), P(tie)] in Davidson's model: the softmax of (d / 2, -d / 2, ln ties)."""
    weights = np.exp([difference / 2, -difference / 2, math.log(TIES)])
    return (weights / weights.sum()).tolist()


def battles(seed, n, bias=BIAS, stream=0):
    """n rows; row i is a function of (seed, stream, i), and its texts do not depend on the bias."""
    rows = []
    for i in range(n):
        rng = np.random.default_rng((seed, stream, i))
        models = pick_two(rng, [*MODELS])
        topics = pick_two(rng, [*TOPICS])
        turns = 2 if rng.random() < TWO_TURNS else 1
        prompts = []
        answers = ([], [])  # of A and of B, a text for each turn
        worths = ([], [])
        for turn, topic in enumerate(topics[:turns]):
            prompt, short = question(rng, topic, turn)
            prompts.append(prompt)
            for side, model in enumerate(models):
                text, *traits = answer(rng, topic, model)
                answers[side].append(text)
                worths[side].append(worth(short, *traits))

        # one verdict on all turns
        difference = SHARPNESS * float(np.mean(worths[0]) - np.mean(worths[1]))
        probs = chances(difference + bias)
        winner = int((rng.random() > np.cumsum(probs)[:2]).sum())

        row = {"id": f"{seed}-{stream}-{i}", "model_a": models[0], "model_b": models[1]}
        row["prompt"] = json.dumps(prompts)
        for side, texts in zip("ab", answers):
            row[f"response_{side}"] = json.dumps(texts)
        for k, name in enumerate(("model_a", "model_b", "tie")):
            row[f"winner_{name}"] = int(winner == k)
        row["probs"] = probs
        row["fair"] = chances(difference)
        rows.append(row)
    return rows
