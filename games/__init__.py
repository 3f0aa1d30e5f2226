"""The games by the name that --task takes. A game's module is imported only when somebody plays it."""

import importlib

GAMES = {
    "20q": "games.twentyq.task:TwentyQuestions",
    "arc": "games.arc.task:Arc",
    "arena": "games.arena.task:Arena",
    "eedi": "games.eedi.task:Eedi",
    "reasoning": "games.reasoning.task:Reasoning",
}


def task_class(name):
    """The Task class of a game in GAMES. An entry is "module:class", or the class itself for a game that
    somebody else's script adds to the table."""
    entry = GAMES[name]
    if not isinstance(entry, str):
        return entry
    module, _, class_name = entry.partition(":")
    return getattr(importlib.import_module(module), class_name)


def recipes_of(name):
    """The recipes of a game as {name: settings}, from recipes.py in its folder. The name of a recipe begins
    with the name of its game."""
    # A game from elsewhere that inherits from one of ours takes over its recipes.
    for kind in task_class(name).__mro__:
        folder = kind.__module__.rpartition(".")[0]
        if folder.startswith("games."):
            return importlib.import_module(f"{folder}.recipes").RECIPES
    return {}


# The settings that all recipes for a small model from scratch share.
SCRATCH = dict(optimizer="muon", lr=3e-3, muon_lr=0.02, schedule="linear")
