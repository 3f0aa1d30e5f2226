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
