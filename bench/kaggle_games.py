"""Play a submission of 20 Questions in Kaggle's own environment: errors, seconds, wins.

    pip install --no-deps kaggle-environments==1.16.11 && pip install jsonschema requests Flask pandas
    python bench/kaggle_games.py submission.tar.gz [GAMES]

The submission is unpacked to a folder and plays from there, in turn: against itself, as either team against
the built-in random players, and alone in each seat among them. Every other such round uses the submission's
own keywords. Each game loads it anew for each seat. Only the packed parts of parlor are imported. Prints a
JSON object.
"""

import importlib
import json
import random
import sys
import tarfile
import tempfile
import time
import types
from pathlib import Path

RANDOM = ["random_guesser", "random_answerer"] * 2
SEATS = {"all": {0, 1, 2, 3}, "team 1": {0, 1}, "team 2": {2, 3}, **{f"seat {i}": {i} for i in range(4)}}


def environment():
    """(the environment's module, make). An empty module stands in for transformers, whose players do not
    play."""
    peers = types.ModuleType("transformers")
    peers.T5Tokenizer = peers.T5ForConditionalGeneration = None
    sys.modules["transformers"] = peers
    make = importlib.import_module("kaggle_environments").make
    return importlib.import_module("kaggle_environments.envs.llm_20_questions.llm_20_questions"), make


def play(folder, games):
    """Play games with the submission in a folder and return what happened: dict."""
    rules, make = environment()
    sys.path.insert(0, str(folder))
    world = importlib.import_module("games.twentyq.world").world_of(*folder.glob("given/world*"))
    theirs = [(word["keyword"], word["alts"]) for entry in rules.keywords_list for word in entry["words"]]
    ours = list(world.alternates.items())
    rng, seconds, teams, longest = random.Random(0), [], [], 0.0
    statuses, rescued, actions = set(), 0, 0
    for i in range(games):
        seats = list(SEATS.values())[i % len(SEATS)]
        own = i // len(SEATS) % 2
        random.seed(i)  # for the random players
        rules.keyword, rules.alts = rng.choice(ours if own else theirs)
        env, began = make("llm_20_questions"), time.time()
        env.run([str(folder / "main.py") if seat in seats else RANDOM[seat] for seat in range(4)])
        seconds.append(time.time() - began)
        statuses |= {player.status for player in env.steps[-1]}
        logs = [row[seat] for row in env.logs for seat in seats if seat < len(row) and row[seat]]
        longest = max(longest, *(log["duration"] for log in logs))
        rescued += sum(bool(log["stderr"]) for log in logs)
        actions += len(logs)
        for team in ({0, 1}, {2, 3}):
            if team <= seats:
                teams.append((own, env.steps[-1][min(team)].reward > 0))
    found = {
        "games": games,
        "statuses": sorted(statuses),
        "actions": actions,
        "actions in which the model failed": rescued,
        "longest action, seconds": round(longest, 2),
        "seconds a game": round(sum(seconds) / games, 2),
    }
    for own, name in ((0, "the environment's"), (1, "the submission's")):
        won = [win for kind, win in teams if kind == own]
        found[f"teams of two that found a keyword of {name}"] = f"{sum(won)} of {len(won)}"
    return found


def main(archive, games="50"):
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        print(json.dumps(play(Path(folder), int(games)), indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
