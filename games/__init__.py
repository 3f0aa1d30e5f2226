"""The games by the name that --task takes, and the user's own, "FILE.py:CLASS". A game's module is imported
only when somebody plays it; a file of the user's is run only when the command line names it."""

import importlib
import importlib.util
import sys
import zlib
from pathlib import Path

from terminal import UsageError

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


def add_own(name: str) -> str:
    """Run the file that --task names, and return the game's name as task_class knows it."""
    from games.task import Task

    path, _, class_name = name.rpartition(":")
    kind = load_code("task", path, "class", class_name)
    if Task not in getattr(kind, "__mro__", ()):
        raise UsageError(f"--task {name}: {class_name} is no class that inherits from games.task.Task")
    name = f"{Path(path)}:{class_name}"
    OWN[name] = kind
    return name


def load_code(flag: str, path: str, what: str, name: str):
    """The function or class of this name in a file of the user's Python code, which is run with all rights of
    the program: its path must come from the command line."""
    if not Path(path).is_file():
        raise UsageError(f"--{flag} {path}: no such file")
    module_name = f"user_{zlib.crc32(path.encode())}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and inspect look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"--{flag} {path}: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, name, None)):
        raise UsageError(f"--{flag} {path}: has no {what} {name}")
    return getattr(module, name)


def short_name(name: str) -> str:
    """The name of a game in its recipes and in the names of runs: of FILE.py:CLASS the class's in lower
    case."""
    return name.rpartition(":")[2].lower()


def task_class(name):
    """The Task class of a game in GAMES or OWN. An entry is "module:class", or the class itself for a game
    that somebody else's script adds to the table. Raises UsageError for a file of the user's that a run
    names and the command line does not."""
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
