"""20 Questions with a person in the terminal: the model asks (seat asker) or answers (seat answerer).

`read` gives the next line that the person typed, or None at the end of input; `show` prints a line. A person
may type anything at any time. If the program does not understand a line, it says so and asks again."""

import math

import numpy as np

from games.twentyq.figures import bits
from games.twentyq.match import Request, best_new_replies
from games.twentyq.prompts import (
    MAX_GUESS,
    MAX_QUESTION,
    ROUNDS,
    answer_prompt,
    ask_prompt,
    correct,
    guess_prompt,
    last_line,
)
from games.twentyq.recorded import read_rounds
from games.twentyq.world import Belief, plain
from terminal import ask

# meaning -> what a person may type for it, in the form of world.plain
MEANINGS = {
    "yes": "y yes yeah yep yup sure ok".split(),
    "no": "n no nope nah".split(),
    "unsure": "u unsure maybe idk dontknow idontknow sometimes".split(),
    "right": "right correct yesitis thatsit".split(),
    "quit": "q quit exit".split(),
    "top": ["top"],
    "undo": ["undo"],
    "hint": ["hint"],
    "help": ["help"],
}
HELP = "Type y, n or u (unsure), 'right' if my guess is correct, 'top' for my best guesses, 'undo' or 'quit'."
SHOWN_KEYWORDS = 3  # of a belief


def meaning_of(line):
    """The meaning of a typed line: a key of MEANINGS, or "" if it has none. The end of input means "quit"."""
    if line is None:
        return "quit"
    for meaning, words in MEANINGS.items():
        if plain(line) in words:
            return meaning
    return ""


def listen(read, show, question, meanings, help=HELP):
    """Ask a person until the meaning of the reply is one of `meanings`, and return it."""
    while (meaning := meaning_of(ask(read, show, question))) not in meanings:
        question = f"I did not understand that. {help}"
    return meaning


def take_back(rounds, show):
    show(f"Taken back: {' '.join(rounds.pop()[:2])}" if rounds else "There is nothing to take back.")


def game_rows(keyword, rounds, won=False):
    """A game as rows for --data and --replay; no row if no round was played."""
    return [{"keyword": keyword, "rounds": rounds, "won": won}] if rounds else []


# ------------------------------------------------------------------------------------------ the model asks
def model_asks(task, agent, read, show):
    """The person thinks of a keyword and answers. Returns the game as rows. Its keyword is the right guess,
    or what the person named at the end, or ""."""

    def speak(seat, prompt, before):
        request = Request(seat, prompt, before)
        reply, _ = best_new_replies(agent, [request], task.options.tries)[0]
        return reply.text

    show(f"Think of a thing. I ask {ROUNDS} questions and guess after each. {HELP}")
    rounds = []  # [question, answer, guess]
    while len(rounds) < ROUNDS:
        turns = [(question, answer) for question, answer, _ in rounds]  # anew, after an undo too
        question = speak("asker", ask_prompt(turns), [asked for asked, _ in turns])
        meaning = listen(read, show, f"\nRound {len(rounds) + 1}: {question}", MEANINGS)
        if meaning == "quit":
            show("Goodbye.")
            return game_rows("", rounds)
        if meaning == "right" and rounds:
            break
        if meaning in ("yes", "no", "unsure"):
            turns.append((question, meaning))
            guess = speak("guesser", guess_prompt(turns), [guessed for *_, guessed in rounds])
            rounds.append([question, meaning, guess])
            show(f"I guess: {guess}. (Type 'right' if that is it.)")
        elif meaning == "undo":
            take_back(rounds, show)
        elif meaning == "top":
            show_top(agent, turns, show)
        else:  # help and hint, and "right" before the first guess
            show(HELP)
    else:
        # every other guess is judged at the next question; the last one has none
        last = "\nThat was my last guess. Was it right? (y/n)"
        meaning = listen(read, show, last, ("yes", "no", "right", "quit"), "Type y or n.")

    if meaning in ("yes", "right"):
        show(f"Found after {len(rounds)} answers: {rounds[-1][2]}.")
        return game_rows(rounds[-1][2], rounds, True)
    keyword = (ask(read, show, "I give up. What was it?") or "").strip()
    # which answers misled the model can be said of a keyword of the world only
    for word in task.world.keywords:
        if correct(keyword, *task.words({"keyword": word})):
            show_errors(task.world, word, turns, "You said", show)
    return game_rows(keyword, rounds)


def show_top(agent, turns, show):
    """Show the agent's best guesses, with their probabilities if they come from a model."""
    if not turns:
        show("You have not answered a question yet.")
        return
    for reply in agent.reply([guess_prompt(turns)], 5)[0]:
        # a belief's guesses have no log-probabilities
        chance = f"{math.exp(reply.logp):6.1%}" if reply.logps else ""
        show(f"  {chance}  {last_line(reply.text)}")


def show_errors(world, keyword, turns, who, show):
    """Show the answers that contradict the table."""
    for question, answer in turns:
        truth = world.answer(keyword, question)
        if truth is None or answer == "unsure":
            continue
        right = "yes" if truth else "no"
        if answer != right:
            show(f"{who} {answer} to '{question}'; the facts say {right}.")


# ------------------------------------------------------------------------------------------ the model answers
def model_answers(task, agent, read, show, seed):
    """The person asks and guesses; the model knows the keyword. Returns the game as rows."""
    world = task.world
    keyword = world.keywords[int(np.random.default_rng(seed).integers(len(world.keywords)))]
    show(
        f"I have a keyword. Ask up to {ROUNDS} yes-or-no questions, and guess after each answer "
        "(Enter skips the guess). 'hint' tells you what I would ask and guess, 'undo' takes a round back, "
        "'quit' ends the game."
    )
    rounds = []  # [question, answer, guess]
    won = False
    while len(rounds) < ROUNDS and not won:
        line = ask(read, show, f"\nRound {len(rounds) + 1}, your question:")
        meaning = meaning_of(line)
        if meaning == "quit":
            break
        if meaning == "hint":
            # the hint knows only what the person knows
            belief = Belief(world).after([turn[:2] for turn in rounds])
            show(f"  ask: {world.questions[belief.questions()[0]]}")
            show(f"  likely: {likely_keywords(belief)}")
        elif meaning == "undo":
            take_back(rounds, show)
        elif meaning or len(plain(line)) < 3:  # such as "yes", "?" or an empty line
            show("Please ask a question, such as 'Is it alive?'.")
        else:
            question, answer = answer_question(world, agent, keyword, line.strip()[:MAX_QUESTION], show)
            guess = ask(read, show, "Your guess:")
            if meaning_of(guess) == "quit":
                break
            guess = guess.strip()[:MAX_GUESS]
            rounds.append([question, answer, guess])
            won = correct(guess, keyword, *world.alternates[keyword])
            if guess and not won:  # Enter is no guess
                show("No.")

    if won:
        show(f"Right, in round {len(rounds)}: {keyword}. Kaggle's reward: {ROUNDS + 1 - len(rounds)}.")
    else:
        show(f"It was: {keyword}.")
    show_errors(world, keyword, [turn[:2] for turn in rounds], "I said", show)
    return game_rows(keyword, rounds, won)


def answer_question(world, agent, keyword, question, show):
    """Answer a person's question and show the answer. Returns (question, answer). A question of the world is
    replaced by the world's wording, because that is what the model was trained on."""
    from games.twentyq.contest.rules import answer_by_rule

    index = world.question_index.get(plain(question))
    if index is not None:
        question = world.questions[index]
    if answer := answer_by_rule(keyword, question):
        show(f"{answer} (by its spelling)")
        return question, answer
    yes, no = agent.choose([answer_prompt(keyword, question)], ["yes", "no"])[0]
    answer = "yes" if yes > no else "no"
    sure = 1 / (1 + math.exp(-abs(yes - no)))  # its share of the probability of both answers
    doubt = "; I never learned this question, so do not trust me" if index is None else ""
    show(f"{answer} ({sure:.0%} sure){doubt}")
    return question, answer


# ------------------------------------------------------------------------------------------ finished games
def likely_keywords(belief):
    """The most likely keywords of a belief and their probabilities, as text."""
    chances = belief.probabilities()
    return ", ".join(f"{belief.world.keywords[k]} {chances[k]:.0%}" for k in belief.guesses(SHOWN_KEYWORDS))


def replay(task, rows, read, show):
    """Show recorded games round by round, and wait for Enter between two games if a person is there.

    Each round shows the question and its expected information, the answer, and the most likely keywords of a
    belief over the world after it."""
    belief = Belief(task.world)
    for number, (where, row) in enumerate(rows):
        keyword, turns, guesses = read_rounds(where, row)
        try:
            gains = bits(belief, turns)
        except ValueError as error:  # an answer that no belief can learn
            raise ValueError(f"{where}: {error}") from error
        if number and read and ask(read, show, "\nEnter shows the next game, quit ends.") is None:
            return
        end = "recorded"
        if "won" in row:
            end = "won" if row["won"] else "not won"
        show(f"{keyword}, {end}")
        for i, (turn, gain) in enumerate(zip(turns, gains)):
            worth = "unknown" if gain is None else f"{gain:.2f} bits"
            show(f"{i + 1:2}. {' '.join(turn)}  ({worth}) -> {''.join(guesses[i : i + 1])}")
            show(f"      {likely_keywords(belief.after(turns[: i + 1]))}")


def show_game(episode, show):
    """Show a finished game."""
    for number, turn in enumerate(episode.turns, 1):
        show(f"{number:2}. {turn['question']} {turn['answer']} -> {turn['guess']}")
    keyword = episode.example["keyword"]
    if episode.reward > 0:
        show(f"Found {keyword} in round {len(episode.turns)}.")
    else:
        show(f"Not found: {keyword}.")
