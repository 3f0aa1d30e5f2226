"""What 20 Questions teaches: Chats for every phase and round of a fresh game by the teacher, or of a recorded
one, and answers of the table."""

import numpy as np

from games.twentyq.prompts import ROUNDS, answer_prompt, ask_prompt, guess_prompt, lesson
from games.twentyq.world import plain


def from_teacher(task, keyword, rng):
    """The lessons of a fresh game that the teacher plays about a keyword, and some cells of the table.

    Most games are taught with their turns in random order (--shuffle). What an answer tells does not depend
    on when it came, but a model that meets a question always at the same place learns it only there."""
    turns = teacher_game(task, keyword, rng)
    if rng.random() < task.options.shuffle:
        turns = [turns[i] for i in rng.permutation(len(turns))]
    return best_replies(task.teacher, turns, rng) + cells(task.world, keyword, task.options.cells, rng)


def teacher_game(task, keyword, rng):
    """A game that the teacher plays about a keyword: list of (question as its index, answer). Some questions
    are random (--explore), some answers wrong (--flips) or "unsure". The game goes on for two rounds after
    its best guess is right: a player that has not learned the table yet still needs them."""
    options, world, belief = task.options, task.world, task.teacher.restart()
    k = world.keyword_index[plain(keyword)]
    flips = 0.0 if rng.random() < 0.2 else rng.uniform(0, options.flips)
    unsure = 0.15 if rng.random() < options.unsure else 0.0
    turns, last = [], ROUNDS
    while len(turns) < last:
        question = belief.questions()[0]
        if rng.random() < options.explore:
            question = int(rng.choice(belief.pool[belief.unasked].tolist() or [question]))
        yes = bool(world.table[k, question]) ^ (rng.random() < flips)
        answer = "unsure" if rng.random() < unsure else "yes" if yes else "no"
        belief.update(question, answer)
        turns.append((question, answer))
        if belief.guesses()[0] == k:
            last = min(last, len(turns) + 2)
    return turns


def best_replies(belief, turns, rng):
    """Lessons in what a belief would ask before each of some turns, and what it would guess after it. Beside
    the best guess they teach one drawn from the belief: the next best must be worth making too."""
    world, said, chats = belief.restart().world, [], []
    for question, answer in turns:
        chats.append(lesson(ask_prompt(said), world.questions[belief.questions()[0]]))
        belief.update(question, answer)
        said.append((world.questions[question], answer))
        drawn = int(rng.choice(len(world.keywords), p=belief.probabilities()))
        for k in sorted({belief.guesses()[0], drawn}):
            chats.append(lesson(guess_prompt(said), world.keywords[k]))
    return chats


def imitate(game):
    """The lessons of a game that somebody played: its questions (but those asked at random), its answers (but
    flipped ones) as the answerer's, its guesses; the keyword as the last one where it has none. A model's own
    game teaches with each guess what would have been right. Whoever wrote a snapshot knew the
    keyword from the start: its first question is no lesson, and nobody gave its answers."""
    keyword, turns, strategy = game["keyword"], game["turns"], game.get("strategy", "")
    never = [False] * len(turns)
    flipped, wandered = game.get("flipped", never), game.get("wandered", never)
    guesses = game.get("guesses", [""] * (len(turns) - 1) + [keyword])
    right = [keyword] if strategy == "play" else []
    first_question = 1 if strategy == "snapshot" else 0
    asks, answers, guessed = [], [], []
    for i, (question, answer) in enumerate(turns):
        if i >= first_question and not wandered[i]:
            asks.append(lesson(ask_prompt(turns[:i]), question))
        if strategy != "snapshot" and not flipped[i] and answer != "unsure":
            answers.append(lesson(answer_prompt(keyword, question), answer))
        for guess in dict.fromkeys([guesses[i], *right]):
            if guess:
                guessed.append(lesson(guess_prompt(turns[: i + 1]), guess))
    return asks + answers + guessed


def cells(world, keyword, n, rng):
    """What a world says of the keyword on n of its questions, as the answerer's lessons. The answer to half
    of them is yes, where there are so many: of all cells it is to 18 %, which a model learns late."""
    k = world.keyword_index.get(plain(keyword))
    if k is None:
        return []
    chats = []
    for answer, known, share in (
        ("yes", world.chance[k] > 0.5, (n + 1) // 2),
        ("no", world.chance[k] < 0.5, n // 2),
    ):
        questions = np.flatnonzero(known)
        for q in rng.choice(questions, min(share, len(questions)), replace=False):
            chats.append(lesson(answer_prompt(keyword, world.questions[q]), answer))
    return chats
