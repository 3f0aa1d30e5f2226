"""What 20 Questions teaches: Chats for every phase and round of a fresh game by the teacher, or of a recorded
one, and answers of the table."""

from games.twentyq.prompts import ROUNDS, answer_prompt, ask_prompt, guess_prompt, lesson
from games.twentyq.world import plain


def from_teacher(task, keyword, rng):
    """The lessons of a fresh game that the teacher plays about a keyword, and some cells of the table."""
    options, world, belief = task.options, task.world, task.teacher.restart()
    k = world.keyword_index[plain(keyword)]
    flips = 0.0 if rng.random() < 0.2 else rng.uniform(0, options.flips)
    unsure = 0.15 if rng.random() < options.unsure else 0.0
    turns, chats = [], []
    last = ROUNDS
    while len(turns) < last:
        best = belief.questions()[0]
        chats.append(lesson(ask_prompt(turns), world.questions[best]))
        if len(turns) >= options.opening and rng.random() < options.explore:
            best = int(rng.choice(belief.pool[belief.unasked].tolist() or [best]))
        yes = bool(world.table[k, best]) ^ (rng.random() < flips)
        answer = "unsure" if rng.random() < unsure else "yes" if yes else "no"
        belief.update(best, answer)
        turns.append((world.questions[best], answer))
        guess = belief.guesses()[0]
        # beside the best guess one drawn from the belief: the next best must be worth making too
        drawn = int(rng.choice(len(world.keywords), p=belief.probabilities()))
        chats += [lesson(guess_prompt(turns), world.keywords[taught]) for taught in sorted({guess, drawn})]
        if guess == k:  # a player that has not learned the table yet still needs the rounds that follow
            last = min(last, len(turns) + 2)
    return chats + cells(world, keyword, options.cells, rng)


def from_recorded(game, rng, options, tutor=None):
    """The lessons of a recorded game, which --shuffle may put in random order. tutor: a Belief over recorded
    answers, which teaches guesses and cells."""
    if rng.random() < options.shuffle:
        game = shuffled(game, rng)
    return imitate(game, tutor) + (cells(tutor.world, game["keyword"], options.cells, rng) if tutor else [])


def imitate(game, tutor=None):
    """The lessons of a game that somebody played: its questions (but those asked at random), its answers (but
    flipped ones) as the answerer's, its guesses; the keyword as the last one where it has none. A model's own
    game, or a tutor, teaches with each guess what would have been right. Whoever wrote a snapshot knew the
    keyword from the start: its first question is no lesson, and nobody gave its answers. Of a shuffled game
    only guesses are taught."""
    keyword, turns, strategy = game["keyword"], game["turns"], game.get("strategy", "")
    never = [False] * len(turns)
    flipped, wandered = game.get("flipped", never), game.get("wandered", never)
    guesses = tutor.told(turns) if tutor else game.get("guesses", [""] * (len(turns) - 1) + [keyword])
    right = [keyword] if strategy == "play" or tutor else []
    first_question = {"snapshot": 1, "shuffled": len(turns)}.get(strategy, 0)
    asks, answers, guessed = [], [], []
    for i, (question, answer) in enumerate(turns):
        if i >= first_question and not wandered[i]:
            asks.append(lesson(ask_prompt(turns[:i]), question))
        if strategy not in ("snapshot", "shuffled") and not flipped[i] and answer != "unsure":
            answers.append(lesson(answer_prompt(keyword, question), answer))
        for guess in dict.fromkeys([guesses[i], *right]):
            if guess:
                guessed.append(lesson(guess_prompt(turns[: i + 1]), guess))
    return asks + answers + guessed


def shuffled(game, rng):
    """The game with its turns in random order and its keyword as every guess: what answers tell does not
    depend on when they came, and a player that met its questions at fixed places has yet to learn that."""
    turns = [game["turns"][i] for i in rng.permutation(len(game["turns"]))]
    keyword = game["keyword"]
    return {"keyword": keyword, "turns": turns, "guesses": [keyword] * len(turns), "strategy": "shuffled"}


def cells(world, keyword, n, rng):
    """What a world says of the keyword on n of its questions at random, as the answerer's lessons."""
    k = world.keyword_index.get(plain(keyword))
    if k is None:
        return []
    drawn = rng.choice(len(world.questions), min(n, len(world.questions)), replace=False)
    return [
        lesson(answer_prompt(keyword, world.questions[q]), "yes" if world.table[k, q] else "no")
        for q in drawn
        if world.chance[k, q] != 0.5  # nobody knows
    ]
