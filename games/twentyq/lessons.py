"""What 20 Questions teaches: Chats for every phase and round of a game, and answers from the table.

The game is a fresh one of the teacher or a recorded one."""

import numpy as np

from games.twentyq.prompts import ROUNDS, answer_prompt, ask_prompt, guess_prompt, lesson
from games.twentyq.world import plain


def from_teacher(task, keyword, rng):
    """The lessons of a fresh game of the teacher about a keyword, and some cells of the table.

    Most games are taught with their turns in random order (--shuffle). The information in an answer does not
    depend on its position, but a model that always meets a question in the same position learns it only
    there."""
    if not task.world.questions:
        raise ValueError(f"--world {task.options.world}: has no questions to teach")
    turns = teacher_game(task, keyword, rng)
    if rng.random() < task.options.shuffle:
        turns = [turns[i] for i in rng.permutation(len(turns))]
    return best_replies(task.teacher, turns, rng) + cells(task.world, keyword, task.options.cells, rng)


def teacher_game(task, keyword, rng):
    """A game of the teacher about a keyword: list of (index of the question, answer).

    Some questions are random (--explore), and some answers are wrong (--flips) or "unsure". The game goes on
    for two rounds after the belief's best guess is right: a player that has not learned the table yet still
    needs them."""
    options = task.options
    belief = task.teacher.restart()
    k = task.world.keyword_index[plain(keyword)]
    # a fifth of the games has only right answers; the others differ in how noisy they are
    flips = 0.0 if rng.random() < 0.2 else rng.uniform(0, options.flips)
    unsure = 0.15 if rng.random() < options.unsure else 0.0

    turns = []
    last = ROUNDS  # moves forward when the belief guesses right
    while len(turns) < last:
        question = belief.questions()[0]
        if rng.random() < options.explore:
            # after all questions of a small world, the best one comes again
            question = int(rng.choice(belief.pool[belief.unasked].tolist() or [question]))
        yes = bool(task.world.table[k, question]) ^ (rng.random() < flips)
        answer = "yes" if yes else "no"
        if rng.random() < unsure:
            answer = "unsure"
        belief.update(question, answer)
        turns.append((question, answer))
        if belief.guesses()[0] == k:
            last = min(last, len(turns) + 2)
    return turns


def best_replies(belief, turns, rng):
    """Lessons in the belief's best question before each turn and its best guess after it.

    A second guess is drawn from the belief, so that the model's runner-up is a sensible guess too: the
    runner-up replaces a guess that was already made."""
    world = belief.restart().world
    played = []  # turns so far, as texts
    chats = []
    for question, answer in turns:
        chats.append(lesson(ask_prompt(played), world.questions[belief.questions()[0]]))
        belief.update(question, answer)
        played.append((world.questions[question], answer))
        # one lesson if the drawn guess is the best one
        drawn = int(rng.choice(len(world.keywords), p=belief.probabilities()))
        for k in sorted({belief.guesses()[0], drawn}):
            chats.append(lesson(guess_prompt(played), world.keywords[k]))
    return chats


def imitate(game):
    """The lessons of a recorded game: its questions, its answers (for the answerer) and its guesses.

    Flipped answers are left out. A game without guesses teaches the keyword as its last
    guess. The model's own game (strategy "play") teaches the keyword beside each guess. The writer of a
    snapshot knew the keyword from the start: its first question is no lesson, and nobody gave its answers."""
    keyword = game["keyword"]
    turns = game["turns"]
    strategy = game.get("strategy")
    flipped = game.get("flipped", [False] * len(turns))
    guesses = game.get("guesses", [""] * (len(turns) - 1) + [keyword])
    corrections = [keyword] if strategy == "play" else []
    first_question = 1 if strategy == "snapshot" else 0

    ask_lessons = []
    answer_lessons = []
    guess_lessons = []
    for i, (question, answer) in enumerate(turns):
        if i >= first_question:
            ask_lessons.append(lesson(ask_prompt(turns[:i]), question))
        if strategy != "snapshot" and not flipped[i] and answer != "unsure":
            answer_lessons.append(lesson(answer_prompt(keyword, question), answer))
        for guess in dict.fromkeys([guesses[i], *corrections]):  # a right guess counts once
            if guess:
                guess_lessons.append(lesson(guess_prompt(turns[: i + 1]), guess))
    return ask_lessons + answer_lessons + guess_lessons


def cells(world, keyword, n, rng):
    """Lessons for the answerer: the world's answers to n questions about the keyword.

    Half of the answers are yes, if there are enough of them. In the whole table 18 % are yes, and a model
    learns such a rare answer late."""
    k = world.keyword_index.get(plain(keyword))
    if k is None:
        return []
    chats = []
    for answer, known, size in (
        ("yes", world.chance[k] > 0.5, (n + 1) // 2),
        ("no", world.chance[k] < 0.5, n // 2),
    ):
        questions = np.flatnonzero(known)  # cells with P(yes) = 1/2 are in neither half
        for q in rng.choice(questions, min(size, len(questions)), replace=False):
            chats.append(lesson(answer_prompt(keyword, world.questions[q]), answer))
    return chats
