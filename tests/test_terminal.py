"""What reaches the terminal: colours, which one function writes, and nothing else that steers it."""

import io
import re
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

import infer
import model
import plots
import terminal
import train
from games.arc.terminal import side_by_side
from terminal import DIM, GREEN, UsageError, exit_code, paint, person, unpaint

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


# ------------------------------------------------------------------------------------------------ the screen
HOSTILE = "\x1b[2J\x1b]0;title\x07a\rb\x9b31m\x08\u202e\u2028\x1b[31mred\x1b[0m\x1b[8mhidden\x1b[0m"
CONTROL = re.compile(r"[^\n -~]")  # everything but line ends and printable ASCII


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [UsageError, ValueError, OSError, FloatingPointError, None])
def test_what_a_script_prints_cannot_steer_the_terminal(kind, error, monkeypatch):
    """Neither its lines nor the message of its error."""
    stream, _ = replace_output(kind, monkeypatch)
    monkeypatch.setattr(sys, "stderr", type(stream)())

    def call():
        print(HOSTILE)
        sys.stdout.writelines([HOSTILE, "\n"])
        tqdm.write(HOSTILE)
        print(HOSTILE, file=sys.stderr)
        if error:
            raise error(HOSTILE)

    assert exit_code("x.py", call) == {UsageError: 2, None: 0}.get(error, 1)
    for text in (stream.getvalue(), sys.stderr.getvalue()):
        assert "title" in text and not CONTROL.search(text)
    assert sys.stderr.getvalue().count("title") == (2 if error else 1)


def test_the_traceback_of_a_bug_is_escaped_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", None)

    def call():
        raise RuntimeError(HOSTILE)

    with pytest.raises(RuntimeError) as error:
        exit_code("x.py", call)
    sys.excepthook(error.type, error.value, error.tb)
    text = capsys.readouterr().err
    assert "Traceback" in text and "title" in text and not CONTROL.search(text)


def test_streams_are_put_back_when_a_script_ends(capsys):
    before = sys.stdout, sys.stderr
    assert exit_code("x.py", lambda: 7) == 7
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize(
    "main, argv",
    [
        (train.main, ["--task", HOSTILE]),
        (train.main, ["--data", HOSTILE, "--task", "20q"]),
        (train.main, [f"--{HOSTILE}"]),
        (infer.main, ["sample", "--model", f"./{HOSTILE}", "--prompt", "x"]),
        (infer.main, ["eval", "--run", HOSTILE]),
        (infer.main, [HOSTILE]),
        (model.main, [f"./{HOSTILE}"]),
        (plots.main, [HOSTILE]),
    ],
)
def test_names_from_a_call_are_escaped_in_errors(main, argv, capsys):
    assert main(argv) in (1, 2)
    text = capsys.readouterr().err
    assert "title" in text and not CONTROL.search(text)


def test_bars_move_and_colours_of_our_own_show(monkeypatch):
    stream, _ = replace_output("terminal", monkeypatch)
    monkeypatch.setattr(sys, "stderr", Screen())

    def call():
        for _ in tqdm(range(3), mininterval=0):
            tqdm.write(paint("oak", GREEN) + paint("  ", "48;5;208"))
        with tqdm(total=2, position=1):
            pass

    assert exit_code("x.py", call) == 0
    assert stream.getvalue() == "\x1b[32moak\x1b[0m\x1b[48;5;208m  \x1b[0m\n" * 3
    bars = sys.stderr.getvalue()
    assert "\r" in bars and "\x1b[A" in bars and "\\r" not in bars and "\\x1b" not in bars


def test_colours_that_paint_did_not_write_are_escaped(monkeypatch):
    """Colours can hide a text: only those of `paint` pass, and no control code inside them."""
    stream, _ = replace_output("terminal", monkeypatch)
    forged = [
        "\x1b[30;40mhidden\x1b[0m",
        "\x1b[32mopen",
        "\x1b[48;5;15mwhite\x1b[0m",
        "\x1b[32ma\x1b[2Jb\x1b[0m",
    ]
    assert exit_code("x.py", lambda: print(*forged, sep="\n")) == 0
    assert not CONTROL.search(stream.getvalue()) and all(
        word in stream.getvalue() for word in ("hidden", "white")
    )


def test_no_output_at_all_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert exit_code("x.py", lambda: print("oak")) == 0
    assert terminal.screen() is None
