"""20 Questions with a person: the model asks (seat asker opposite you) or answers, in the terminal.

`read` gives the next line somebody typed, or None at the end of input; `show` prints a line. A player may
type anything at any time; what is not understood is explained and asked again."""

import math

import numpy as np

from games.task import typed
from games.twentyq.contest.rules import answer_by_rule
from games.twentyq.figures import bits
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
from games.twentyq.world import Belief, plain

YES = {"y", "yes", "yeah", "yep", "yup", "ja", "true", "1", "sure", "ok"}
NO = {"n", "no", "nope", "nah", "nein", "false", "0"}
UNSURE = {"u", "unsure", "maybe", "idk", "dontknow", "idontknow", "sometimes", "unknown", "skip"}
RIGHT = {"right", "correct", "yesitis", "thatsit", "win", "bingo"}
HELP = "Type y, n or u (unsure); 'right' if my guess is it; 'top' for my best guesses, 'undo', 'quit'."
SHOWN = 3  # keywords of a belief


def understood(line):
    """The meaning of a typed line: yes, no, unsure, right, a command, or "" for none."""
    word = plain(line)
    for meaning, words in (
        ("yes", YES),
        ("no", NO),
        ("unsure", UNSURE),
        ("right", RIGHT),
        ("quit", {"q", "quit", "exit"}),
    ):
        if word in words:
            return meaning
    return word if word in ("top", "undo", "help", "list", "hint") else ""


def best_new(agent, prompt, taken, n=6):
    """The agent's likeliest replies to a prompt that are not taken yet: list of Replies, best first."""
    for width in (n, ROUNDS + n):
        replies = agent.reply([prompt], width)[0]
        new = [
            reply for reply in replies if last_line(reply.text) and plain(last_line(reply.text)) not in taken
        ]
        if new:
            return new
    return replies


def model_asks(task, agent, read, show):
    """The person thinks of a keyword and answers. Returns the game as a row, with the keyword that was found
    or told, else ""."""

    def played(keyword="", won=False):
        rounds = [[*turn, guess] for turn, guess in zip(turns, guesses)]
        return [{"keyword": keyword, "rounds": rounds, "won": won}] if rounds else []

    show(f"Think of a thing. I ask {ROUNDS} questions and guess after each. {HELP}")
    turns, guesses = [], []
    while len(turns) < ROUNDS:
        taken = {plain(question) for question, _ in turns}
        question = last_line(best_new(agent, ask_prompt(turns), taken)[0].text)
        show(f"\nRound {len(turns) + 1}: {question}")
        meaning = listen(read, show, HELP)
        if meaning in (None, "quit"):
            show("Goodbye.")
            return played()
        if meaning == "right" and guesses:
            show(f"Found after {len(turns)} answers: {guesses[-1]}.")
            return played(guesses[-1], True)
        if meaning == "undo":
            if turns:
                gone = turns.pop()
                guesses.pop()
                show(f"Taken back: {gone[0]} {gone[1]}")
            else:
                show("There is no answer to take back.")
        elif meaning == "top":
            show_top(agent, turns, show)
        elif meaning in ("yes", "no", "unsure"):
            turns.append((question, meaning))
            taken = {plain(guess) for guess in guesses}
            guesses.append(last_line(best_new(agent, guess_prompt(turns), taken)[0].text))
            show(f"I guess: {guesses[-1]}. (Type 'right' if that is it.)")
        else:
            show(HELP)
    show("\nThat was my last guess. Was it right? (y/n)")
    if listen(read, show, "Type y or n.") in ("yes", "right"):
        show("Found in the last round.")
        return played(guesses[-1], True)
    show("I give up. What was it?")
    keyword = (read() or "").strip()
    if keyword:
        for line in missed(task, agent, keyword, turns):
            show(line)
    return played(keyword)


def listen(read, show, hint):
    """The meaning of the next line that has one; None at the end of input."""
    while (line := read()) is not None:
        if meaning := understood(line):
            return meaning
        show(f"I did not understand that. {hint}")
    return None


def show_top(agent, turns, show):
    if not turns:
        show("I have no answer to go by yet.")
        return
    for reply in agent.reply([guess_prompt(turns)], 5)[0]:
        show(f"  {math.exp(reply.logp):6.1%}  {last_line(reply.text)}")


def missed(task, agent, keyword, turns):
    """Lines that say what it would have taken to find the keyword."""
    world = task.world
    known = next((w for w in world.keywords if correct(keyword, w, world.alternates[w])), None)
    logp = agent.choose([guess_prompt(turns)], [known or keyword])[0][0]
    yield f"I gave {known or keyword} a chance of {math.exp(logp):.2%} at the end."
    if known is None:
        yield f"My world of {len(world.keywords)} keywords does not hold it, so I could hardly find it."
        return
    facts = {True: "yes", False: "no"}
    truth = {question: facts.get(world.answer(known, question), answer) for question, answer in turns}
    wrong = [(question, answer) for question, answer in turns if answer not in ("unsure", truth[question])]
    for question, answer in wrong:
        yield f"You said {answer} to '{question}'; my facts say {truth[question]}."
    belief = Belief(world).after(turns)
    rivals = [k for k in belief.guesses(4) if world.keywords[k] != known]
    k = world.keyword_index[plain(known)]
    rank = int((belief.logp > belief.logp[k] + 1e-9).sum()) + 1
    chance = belief.probabilities()[k]
    yield f"By your answers it is number {rank} of all I know, with a chance of {chance:.1%}."
    apart = np.flatnonzero(world.table[k] != world.table[rivals[0]])
    new = [q for q in apart if q not in belief.asked]
    if new:
        yield (
            f"An answer to '{world.questions[new[0]]}' would have told it from {world.keywords[rivals[0]]}; "
            f"{len(new)} questions of mine would."
        )


def model_answers(task, agent, read, show, seed):
    """The person asks and guesses; the model knows the keyword. Returns the game as a row."""
    world = task.world
    keyword = world.keywords[int(np.random.default_rng(seed).integers(len(world.keywords)))]
    show(
        f"I have a keyword. Ask up to {ROUNDS} yes or no questions, and guess after each answer "
        "(Enter skips the guess). 'hint' says what I would ask and guess, 'list' shows questions I know "
        "well, 'undo' takes a round back, 'quit' ends."
    )
    rounds, shown = [], 0
    while len(rounds) < ROUNDS:
        show(f"\nRound {len(rounds) + 1}, your question:")
        line = read()
        meaning = understood(line) if line is not None else "quit"
        if meaning == "quit":
            break
        if meaning == "list":
            order = world.separating(len(world.questions))
            for q in order[shown : shown + 10]:
                show(f"  {world.questions[q]}")
            shown = (shown + 10) % len(order)
            continue
        if meaning == "hint":
            show_hint(Belief(world).after([turn[:2] for turn in rounds]), show)
            continue
        if meaning == "undo":
            show(f"Taken back: {rounds.pop()[0]}" if rounds else "There is no round to take back.")
            continue
        question = line.strip()[:MAX_QUESTION]
        if meaning or len(plain(question)) < 3:
            show("Please ask a question, such as 'Is it alive?'.")
            continue
        known = plain(question) in world.question_index
        if known:  # as the model has seen it written
            question = world.questions[world.question_index[plain(question)]]
        if answer := answer_by_rule(keyword, question):
            show(f"{answer} (by its spelling)")
        else:
            yes, no = agent.choose([answer_prompt(keyword, question)], ["yes", "no"])[0]
            sure = 1 / (1 + math.exp(-abs(yes - no)))
            answer = "yes" if yes > no else "no"
            doubt = "" if known else "; I never learned this question, so do not trust me"
            show(f"{answer} ({sure:.0%} sure){doubt}")
        show("Your guess:")
        guess = (read() or "").strip()[:MAX_GUESS]
        if understood(guess) == "quit":
            break
        rounds.append((question, answer, guess))
        if guess and correct(guess, keyword, world.alternates[keyword]):
            show(f"Right, in round {len(rounds)}: {keyword}. Kaggle's reward: {ROUNDS + 1 - len(rounds)}.")
            break
        if guess:
            show("No.")
    won = bool(rounds) and correct(rounds[-1][2], keyword, world.alternates[keyword])
    if not won:
        show(f"It was: {keyword}.")
    for question, answer, _ in rounds:
        if (truth := world.answer(keyword, question)) is not None and truth != (answer == "yes"):
            show(f"I was wrong about '{question}': {'yes' if truth else 'no'}.")
    return [{"keyword": keyword, "rounds": [list(turn) for turn in rounds], "won": won}] if rounds else []


def show_hint(belief, show):
    """The question that would tell the person most, and the likeliest keywords."""
    world = belief.world
    show(f"  ask: {world.questions[belief.questions()[0]]}")
    show(f"  likely: {likeliest(belief)}")


def likeliest(belief):
    p = belief.probabilities()
    return ", ".join(f"{belief.world.keywords[k]} {p[k]:.0%}" for k in belief.guesses(SHOWN))


def replay(task, rows, read, show):
    """Show recorded games round by round, a key for the next one where somebody is there: what was asked,
    what it was expected to tell, and what a belief over the world makes of the answers."""
    belief = Belief(task.world)
    for number, (where, row) in enumerate(rows):
        if not (isinstance(row.get("rounds"), list) and isinstance(row.get("keyword"), str)):
            raise ValueError(f'{where}: a game needs a "keyword" and "rounds"')
        if number and read and (typed(read, show, "\nEnter shows the next game, quit ends.") is None):
            return
        show(f"{row['keyword']}, {'won' if row.get('won') else 'not won' if 'won' in row else 'recorded'}")
        turns = [dict(zip(("question", "answer", "guess"), turn)) for turn in row["rounds"]]
        for i, (turn, gain) in enumerate(zip(turns, bits(belief, turns)), 1):
            told = "  (unknown)" if gain is None else f"  ({gain:.2f} bits)"
            show(f"{i:2}. {turn['question']} {turn['answer']}{told} -> {turn.get('guess', '')}")
            show(f"      {likeliest(belief.after([(t['question'], t['answer']) for t in turns[:i]]))}")


def show_game(episode, show):
    """Print a finished game."""
    for number, turn in enumerate(episode.turns, 1):
        show(f"{number:2}. {turn['question']} {turn['answer']} -> {turn['guess']}")
    keyword = episode.example["keyword"]
    show(
        f"Found {keyword} in round {len(episode.turns)}." if episode.reward > 0 else f"Not found: {keyword}."
    )
