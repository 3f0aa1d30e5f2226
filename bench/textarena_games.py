"""Play TextArena's 20 Questions with a run of ours: questions, one final guess, wins.

    pip install textarena==0.7.4
    python bench/textarena_games.py RUN [--world FILE] [--games 100] [--hardcore]

TextArena's game master is a language model behind a paid endpoint. Here the truth table of the world takes
its place, so only words that the world knows are played; how many of TextArena's words these are is printed.
A player has 20 questions and, unlike on Kaggle, a single guess at the end. Prints a JSON object.
"""

import argparse
import json
import os
import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import textarena
from textarena.envs.TwentyQuestions.env import TwentyQuestionsEnv

import checkpoint
from agents import Model
from games.stats import wilson
from games.twentyq.match import Request, best_new_replies
from games.twentyq.prompts import ROUNDS, ask_prompt, guess_prompt
from games.twentyq.task import Options
from games.twentyq.world import TablePlayer, world_of


def reply(agent, seat, prompt, before=()):
    (best, _), *_ = best_new_replies(agent, [Request(seat, prompt, before)], Options.tries)
    return best.text


def says(world, word, prompt):
    """The table in place of the game master: prompt ends with the question and the options."""
    question = re.findall(r"^Q: (.*)$", prompt, re.M)[-1]
    return {True: "Yes", False: "No", None: "I don't know"}[world.answer(word, question)]


def play(env, agent):
    """Play the game that env was reset to, and return the reward, 1 for a right guess."""
    turns = []
    for _ in range(ROUNDS):
        question = reply(agent, "asker", ask_prompt(turns), [question for question, _ in turns])
        env.step(question)
        _, answer = env.state.game_state["history"][-1]
        turns.append((question, {"Yes": "yes", "No": "no"}.get(answer, "unsure")))
    guess = reply(agent, "guesser", guess_prompt(turns))
    env.step("[{}]".format(re.sub("[^a-zA-Z ]", " ", guess)))  # it reads letters and spaces only
    return env.state.rewards[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", help="a run, a model folder, or table")
    parser.add_argument("--world", default="")
    parser.add_argument("--games", type=int, default=100)
    parser.add_argument("--hardcore", action="store_true")
    options = parser.parse_args()
    world = world_of(options.world)
    if options.run == "table":
        agent = TablePlayer(world)
    else:
        opened = checkpoint.open(options.run)
        agent = Model(opened.model, opened.tokenizer)

    os.environ.setdefault("OPENROUTER_API_KEY", "unused")  # of a client that is never asked
    env = TwentyQuestionsEnv(options.hardcore)
    env.gamemaster = lambda prompt: says(world, env.game_word, prompt)
    words = [(theme, word) for theme, words in env.word_list.items() for word in words]
    known = [entry for entry in words if world.answer(entry[1], world.questions[0]) is not None]
    print(f"textarena {textarena.__version__}: {len(known)} of {len(words)} words are in the world")
    random.Random(0).shuffle(known)
    wins = []
    for theme, word in known[: options.games]:
        env.word_list = {theme: [word]}
        env.reset(num_players=1)
        wins.append(play(env, agent))
    low, high = wilson(sum(wins), len(wins))
    print(json.dumps({"games": len(wins), "wins": sum(wins), "share": [sum(wins) / len(wins), low, high]}))


if __name__ == "__main__":
    main()
