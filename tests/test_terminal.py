"""Colours: where they appear, and that one function writes them all."""

import io
import re
import sys
from pathlib import Path

import pytest

from games.arc.terminal import side_by_side
from terminal import DIM, GREEN, paint, person, unpaint

ROOT = Path(__file__).parent.parent


class Screen(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self):
        return True


KINDS = ["pipe", "terminal", "NO_COLOR", "empty NO_COLOR"]


def replace_output(kind, monkeypatch):
    """(new standard output of this kind, whether it may hold colours)."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if "NO_COLOR" in kind:
        monkeypatch.setenv("NO_COLOR", "" if "empty" in kind else "1")
    stream = io.StringIO() if kind == "pipe" else Screen()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return stream, kind in ("terminal", "empty NO_COLOR")


@pytest.mark.parametrize("kind", KINDS)
def test_colours_appear_on_a_terminal_only_and_never_under_no_color(kind, monkeypatch):
    stream, has_colours = replace_output(kind, monkeypatch)
    assert paint("oak", GREEN) == ("\x1b[32moak\x1b[0m" if has_colours else "oak")
    _, show = person()
    show("thinking", dim=True, end="")
    show("answer")
    assert stream.getvalue() == ("\x1b[2mthinking\x1b[0manswer\n" if has_colours else "thinkinganswer\n")


@pytest.mark.parametrize("kind", KINDS)
def test_control_codes_in_a_text_are_escaped_in_colour_or_without(kind, monkeypatch):
    stream, _ = replace_output(kind, monkeypatch)
    _, show = person()
    for colours in ({}, {"dim": True}):
        show("\x1b[2J\x07oak", **colours)
    assert unpaint(stream.getvalue()) == "\\x1b[2J\\x07oak\n" * 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_grids_of_arc_show_digits_where_they_show_no_colours(kind, monkeypatch):
    _, has_colours = replace_output(kind, monkeypatch)
    lines = side_by_side([[[1, 2]], [[3], [4]], None])
    if has_colours:
        assert [line.count("\x1b[48;5;") for line in lines] == [3, 1]
    else:
        assert lines == ["1 2     3     ? ", "        4       "]


def test_no_output_at_all_has_no_colours(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert paint("oak", DIM) == "oak"


def test_unpaint_removes_every_code_that_paint_writes(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Screen())
    monkeypatch.delenv("NO_COLOR", raising=False)
    painted = [paint("oak", colour) for colour in (GREEN, DIM, "48;5;208")]
    assert all("\x1b" in text for text in painted) and [unpaint(text) for text in painted] == ["oak"] * 3


def test_control_codes_stand_in_one_file():
    """In any spelling that Python reads."""
    escapes = re.compile(r"\x1b|\\x1b|\\033|\\u001b|\\N\{ESC|chr\((27|0x1b)\)", re.I)
    places = [*ROOT.glob("*.py"), *ROOT.glob("games/**/*.py"), *ROOT.glob("bench/**/*.py")]
    found = [path.name for path in places if escapes.search(path.read_text(encoding="utf-8"))]
    assert found == ["terminal.py"]
