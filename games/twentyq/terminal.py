"""20 Questions with a person: the model asks (seat asker opposite you) or answers, in the terminal.

`read` gives the next line somebody typed, or None at the end of input; `show` prints a line. A player may
type anything at any time; what is not understood is explained and asked again."""

import math

import numpy as np

from games.twentyq.figures import bits
from games.twentyq.match import Request, best_new
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
HELP = "Type y, n or u (unsure); 'right' if my guess is it; 'top' for my best guesses, 'undo', 'quit'."
SHOWN = 3  # keywords of a belief


def understood(line):
    """The meaning of a typed line, a key of MEANINGS, or "" for none; of None, the end of input, "quit"."""
    if line is None:
        return "quit"
    return next((meaning for meaning, words in MEANINGS.items() if plain(line) in words), "")


def listen(read, show, question, meanings, help=HELP):
    """What a person means who is asked a question, and asked again until it is one of some meanings."""
    while (meaning := understood(ask(read, show, question))) not in meanings:
        question = f"I did not understand that. {help}"
    return meaning


def take_back(rounds, show):
    show(f"Taken back: {' '.join(rounds.pop()[:2])}" if rounds else "There is nothing to take back.")


def kept(keyword, rounds, won=False):
    """A game as rows for --data and --replay; none where nothing was played."""
    return [{"keyword": keyword, "rounds": rounds, "won": won}] if rounds else []


# ------------------------------------------------------------------------------------------------ it asks
def model_asks(task, agent, read, show):
    """The person thinks of a keyword and answers. Returns the game as a row, with the keyword that was found
    or told, else ""."""

    def say(seat, prompt, before):
        return best_new(agent, [Request(seat, prompt, before)], task.options.tries)[0][0].text

    show(f"Think of a thing. I ask {ROUNDS} questions and guess after each. {HELP}")
    rounds, meaning = [], ""  # of rounds [question, answer, guess]
    while len(rounds) < ROUNDS:
        turns = [(question, answer) for question, answer, _ in rounds]
        question = say("asker", ask_prompt(turns), [asked for asked, _ in turns])
        meaning = listen(read, show, f"\nRound {len(rounds) + 1}: {question}", MEANINGS)
        if meaning == "quit":
            show("Goodbye.")
            return kept("", rounds)
        if meaning == "right" and rounds:
            break
        if meaning in ("yes", "no", "unsure"):
            turns.append((question, meaning))
            guess = say("guesser", guess_prompt(turns), [guessed for *_, guessed in rounds])
            rounds.append([question, meaning, guess])
            show(f"I guess: {guess}. (Type 'right' if that is it.)")
        elif meaning == "undo":
            take_back(rounds, show)
        elif meaning == "top":
            show_top(agent, turns, show)
        else:
            show(HELP)
    else:
        last = "\nThat was my last guess. Was it right? (y/n)"
        meaning = listen(read, show, last, ("yes", "no", "right", "quit"), "Type y or n.")
    if meaning in ("yes", "right"):
        show(f"Found after {len(rounds)} answers: {rounds[-1][2]}.")
        return kept(rounds[-1][2], rounds, True)
    keyword = (ask(read, show, "I give up. What was it?") or "").strip()
    for word in task.world.keywords:
        if correct(keyword, *task.words({"keyword": word})):
            show_errors(task.world, word, turns, "You said", show)
    return kept(keyword, rounds)


def show_top(agent, turns, show):
    """The agent's best guesses, with their chances where they are a model's."""
    if not turns:
        show("I have no answer to go by yet.")
        return
    for reply in agent.reply([guess_prompt(turns)], 5)[0]:
        chance = f"{math.exp(reply.logp):6.1%}" if reply.logps else ""
        show(f"  {chance}  {last_line(reply.text)}")


def show_errors(world, keyword, turns, who, show):
    """The answers that are not those of the table."""
    for question, answer in turns:
        truth = world.answer(keyword, question)
        if truth is not None and answer not in ("unsure", "yes" if truth else "no"):
            show(f"{who} {answer} to '{question}'; the facts say {'yes' if truth else 'no'}.")


# ------------------------------------------------------------------------------------------------ it answers
def model_answers(task, agent, read, show, seed):
    """The person asks and guesses; the model knows the keyword. Returns the game as a row."""
    world = task.world
    keyword = world.keywords[int(np.random.default_rng(seed).integers(len(world.keywords)))]
    show(
        f"I have a keyword. Ask up to {ROUNDS} yes or no questions, and guess after each answer "
        "(Enter skips the guess). 'hint' says what I would ask and guess, 'undo' takes a round back, "
        "'quit' ends."
    )
    rounds, won = [], False  # [question, answer, guess]
    while len(rounds) < ROUNDS and not won:
        line = ask(read, show, f"\nRound {len(rounds) + 1}, your question:")
        meaning = understood(line)
        if meaning == "quit":
            break
        if meaning == "hint":
            belief = Belief(world).after([turn[:2] for turn in rounds])
            show(f"  ask: {world.questions[belief.questions()[0]]}")
            show(f"  likely: {likeliest(belief)}")
        elif meaning == "undo":
            take_back(rounds, show)
        elif meaning or len(plain(line)) < 3:
            show("Please ask a question, such as 'Is it alive?'.")
        else:
            question, answer = answered(world, agent, keyword, line.strip()[:MAX_QUESTION], show)
            guess = ask(read, show, "Your guess:")
            if understood(guess) == "quit":
                break
            rounds.append([question, answer, guess.strip()[:MAX_GUESS]])
            won = correct(rounds[-1][2], keyword, *world.alternates[keyword])
            if guess.strip() and not won:
                show("No.")
    if won:
        show(f"Right, in round {len(rounds)}: {keyword}. Kaggle's reward: {ROUNDS + 1 - len(rounds)}.")
    else:
        show(f"It was: {keyword}.")
    show_errors(world, keyword, [turn[:2] for turn in rounds], "I said", show)
    return kept(keyword, rounds, won)


def answered(world, agent, keyword, question, show):
    """(question, answer): a question as the model has seen it written, where it has, and its answer, which is
    shown."""
    from games.twentyq.contest.rules import answer_by_rule

    index = world.question_index.get(plain(question))
    question = question if index is None else world.questions[index]
    if answer := answer_by_rule(keyword, question):
        show(f"{answer} (by its spelling)")
        return question, answer
    yes, no = agent.choose([answer_prompt(keyword, question)], ["yes", "no"])[0]
    answer = "yes" if yes > no else "no"
    sure = 1 / (1 + math.exp(-abs(yes - no)))
    doubt = "; I never learned this question, so do not trust me" if index is None else ""
    show(f"{answer} ({sure:.0%} sure){doubt}")
    return question, answer


# ------------------------------------------------------------------------------------------------ looking on
def likeliest(belief):
    chances = belief.probabilities()
    return ", ".join(f"{belief.world.keywords[k]} {chances[k]:.0%}" for k in belief.guesses(SHOWN))


def replay(task, rows, read, show):
    """Show recorded games round by round, a key for the next one where somebody is there: what was asked,
    what it was expected to tell, and what a belief over the world makes of the answers."""
    belief = Belief(task.world)
    for number, (where, row) in enumerate(rows):
        keyword, turns, guesses = read_rounds(where, row)
        if number and read and ask(read, show, "\nEnter shows the next game, quit ends.") is None:
            return
        end = "won" if row.get("won") else "not won" if "won" in row else "recorded"
        show(f"{keyword}, {end}")
        told = bits(belief, turns)
        for i, (turn, gain) in enumerate(zip(turns, told)):
            worth = "unknown" if gain is None else f"{gain:.2f} bits"
            show(f"{i + 1:2}. {' '.join(turn)}  ({worth}) -> {''.join(guesses[i : i + 1])}")
            show(f"      {likeliest(belief.after(turns[: i + 1]))}")


def show_game(episode, show):
    """Print a finished game."""
    for number, turn in enumerate(episode.turns, 1):
        show(f"{number:2}. {turn['question']} {turn['answer']} -> {turn['guess']}")
    keyword = episode.example["keyword"]
    found = f"Found {keyword} in round {len(episode.turns)}."
    show(found if episode.reward > 0 else f"Not found: {keyword}.")
