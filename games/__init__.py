"""The games, by the name that --task takes. A game is imported when it is played."""

import importlib

GAMES = {
    "20q": "games.twentyq.task:TwentyQuestions",
    "arc": "games.arc.task:Arc",
    "arena": "games.arena.task:Arena",
    "eedi": "games.eedi.task:Eedi",
    "reasoning": "games.reasoning.task:Reasoning",
}


def task_class(name):
    """The Task class of a name in GAMES; an entry may be a class itself, of a game made elsewhere."""
    entry = GAMES[name]
    if not isinstance(entry, str):
        return entry
    module, _, kind = entry.partition(":")
    return getattr(importlib.import_module(module), kind)


def recipes_of(name):
    """The recipes of a game, from its folder's recipes.py: {name: settings}. Each name begins with that of
    its game."""
    for kind in task_class(name).__mro__:
        folder = kind.__module__.rpartition(".")[0]
        if folder.startswith("games."):
            return importlib.import_module(f"{folder}.recipes").RECIPES
    return {}


# What recipes that train a small model from scratch have in common
SCRATCH = dict(optimizer="muon", lr=3e-3, muon_lr=0.02, schedule="linear")
