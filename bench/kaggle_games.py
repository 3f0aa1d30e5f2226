"""Play a submission of 20 Questions in Kaggle's own environment: errors, seconds, wins.

    pip install --no-deps kaggle-environments==1.16.11 && pip install jsonschema requests Flask pandas
    python bench/kaggle_games.py submission.tar.gz --games 100
    python bench/kaggle_games.py submission.tar.gz --games 579 --teams
    python bench/kaggle_games.py submission.tar.gz --games 100 --partner other.tar.gz

The submission is unpacked to a folder and plays from there, in turn: against itself, as either team against
the built-in random players, and alone in each seat among them. Every other such round uses the submission's
own keywords. With --teams it plays as one team, against a random one, about the environment's keywords in
random order, each once. With --partner a second submission answers it, and then asks it, about the same
keyword. Each game loads it anew for each seat. Only the packed parts of parlor are imported. Prints a JSON
object.
"""

import argparse
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


class Games:
    """Plays games and keeps what happened in them."""

    def __init__(self):
        self.rules, self.make = environment()
        self.theirs = []  # (keyword, other spellings)
        for entry in self.rules.keywords_list:
            self.theirs += [(word["keyword"], word["alts"]) for word in entry["words"]]
        self.seconds = []
        self.statuses = set()
        self.actions = 0
        self.rescued = 0
        self.longest = 0.0

    def play(self, word, players):
        """One game about word, (keyword, other spellings), and its last state. players: seat -> main.py; the
        random players have the other seats."""
        self.rules.keyword, self.rules.alts = word
        env = self.make("llm_20_questions")
        began = time.time()
        env.run([str(players[seat]) if seat in players else RANDOM[seat] for seat in range(4)])
        self.seconds.append(time.time() - began)
        self.statuses |= {player.status for player in env.steps[-1]}
        for row in env.logs:
            for log in [row[seat] for seat in players if seat < len(row) and row[seat]]:
                self.longest = max(self.longest, log["duration"])
                self.rescued += bool(log["stderr"])
                self.actions += 1
        return env.steps[-1]

    def figures(self):
        games = len(self.seconds)
        return {
            "games": games,
            "statuses": sorted(self.statuses),
            "actions": self.actions,
            "actions in which the model failed": self.rescued,
            "longest action, seconds": round(self.longest, 2),
            "seconds a game": round(sum(self.seconds) / games, 2),
        }


def every_seat(player, n):
    """Games of a submission in all seats."""
    games = Games()
    sys.path.insert(0, str(player.parent))
    world = importlib.import_module("games.twentyq.world").world_of(*player.parent.glob("given/world*"))
    ours = list(world.alternates.items())
    rng = random.Random(0)
    teams = []  # (whether the keyword was ours, whether the team found it)
    for i in range(n):
        seats = list(SEATS.values())[i % len(SEATS)]
        own = i // len(SEATS) % 2
        random.seed(i)  # for the random players
        last = games.play(rng.choice(ours if own else games.theirs), dict.fromkeys(seats, player))
        for team in ({0, 1}, {2, 3}):
            if team <= seats:
                teams.append((own, last[min(team)].reward > 0))
    found = games.figures()
    for own, name in ((0, "the environment's"), (1, "the submission's")):
        won = [win for kind, win in teams if kind == own]
        found[f"teams of two that found a keyword of {name}"] = f"{sum(won)} of {len(won)}"
    return found


def one_team(pairs, n):
    """Games of teams about the environment's keywords. pairs: name -> (guesser, answerer), main.py files."""
    games = Games()
    words = random.Random(0).sample(games.theirs, min(n, len(games.theirs)))
    rounds = {name: [] for name in pairs}  # of the games in which the team found the keyword
    for i, word in enumerate(words):
        for name, (guesser, answerer) in pairs.items():
            random.seed(i)
            # a win is worth 20 points less one for each round before it
            reward = games.play(word, {0: guesser, 1: answerer})[0].reward
            if reward > 0:
                rounds[name].append(21 - reward)
        print(f"{i + 1} of {len(words)}", end="\r", file=sys.stderr)
    found = games.figures()
    for name, won in rounds.items():
        mean = sum(won) / len(won) if won else float("nan")
        found[name] = f"found {len(won)} of {len(words)} keywords, in round {mean:.1f} on average"
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("submission")
    parser.add_argument("--games", type=int, default=50)
    parser.add_argument("--teams", action="store_true")
    parser.add_argument("--partner")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        players = []
        for archive in filter(None, (options.submission, options.partner)):
            place = Path(folder) / str(len(players))
            with tarfile.open(archive) as tar:
                tar.extractall(place, filter="data")
            players.append(place / "main.py")
        player = players[0]
        if options.partner:
            pairs = {"asked by the submission": players, "asked by the partner": players[::-1]}
            found = one_team(pairs, options.games)
        elif options.teams:
            found = one_team({"alone": (player, player)}, options.games)
        else:
            found = every_seat(player, options.games)
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
