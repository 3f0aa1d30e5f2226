"""Code of the user's in a file that the command line names: a game (--task FILE.py:CLASS), a reward."""

import importlib.util
import sys
import zlib
from pathlib import Path

import games
from terminal import UsageError


def add_own(name: str) -> str:
    """Run the file that --task names, and return the game's name as task_class knows it."""
    from games.task import Task

    path, _, class_name = name.rpartition(":")
    kind = load_code("task", path, "class", class_name)
    if Task not in getattr(kind, "__mro__", ()):
        raise UsageError(f"--task {name}: {class_name} is no class that inherits from games.task.Task")
    name = f"{Path(path)}:{class_name}"
    games.OWN[name] = kind
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
