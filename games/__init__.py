"""The games by the name that --task takes, and the user's own, "FILE.py:CLASS". A game's module is imported
only when somebody plays it; a file of the user's is run only when the command line names it (own.py).

The sandbox's processes import this file too. They should know few names of libraries, because a program that
uses one runs alone: so it imports little."""

import importlib
import sys

GAMES = {
    "20q": "games.twentyq.task:TwentyQuestions",
    "arc": "games.arc.task:Arc",
    "arena": "games.arena.task:Arena",
    "chat": "games.chat.task:Talk",
    "eedi": "games.eedi.task:Eedi",
    "reasoning": "games.reasoning.task:Reasoning",
}
OWN = {}  # "FILE.py:CLASS" -> the class, for the files that this call names


def is_own(name: str) -> bool:
    """Whether this is the name of a game of the user's."""
    return ".py:" in name


def short_name(name: str) -> str:
    """The name of a game in its recipes and in the names of runs: of FILE.py:CLASS the class's in lower
    case."""
    return name.rpartition(":")[2].lower()


def task_class(name):
    """The Task class of a game in GAMES or OWN. An entry is "module:class", or the class itself for a game
    that somebody else's script adds to the table. Raises UsageError for a file of the user's that a run
    names and the command line does not."""
    from terminal import UsageError

    entry = OWN.get(name) or GAMES.get(name)
    if not entry and is_own(name):
        raise UsageError(f"this run executes a file of code; name it again: --task {name}")
    if not entry:
        raise UsageError(f"--task {name}: must be one of {', '.join(GAMES)}")
    if not isinstance(entry, str):
        return entry
    module, _, class_name = entry.partition(":")
    return getattr(importlib.import_module(module), class_name)


def recipes_of(name):
    """The recipes of a game as {name: settings}, from recipes.py in its folder, or RECIPES in the user's
    file. The name of a recipe begins with the name of its game (short_name)."""
    # A game from elsewhere that inherits from one of ours takes over its recipes.
    for kind in task_class(name).__mro__:
        if recipes := getattr(sys.modules[kind.__module__], "RECIPES", None):
            return recipes
        folder = kind.__module__.rpartition(".")[0]
        if folder.startswith("games."):
            return importlib.import_module(f"{folder}.recipes").RECIPES
    return {}


# The settings that all recipes for a small model from scratch share.
SCRATCH = dict(optimizer="muon", lr=3e-3, muon_lr=0.02, schedule="linear")
