"""What a person sees and types: escaping, colour, questions, and how a script ends.

All that a script prints goes through a Screen, which escapes control characters: text from a model, a file,
an endpoint or a player cannot move the cursor, clear the screen or imitate a prompt."""

import itertools
import os
import re
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout

GREEN = "32"  # parameters of ANSI control codes
DIM = "2"
# What passes a Screen as it is: text in a colour of `paint`, and the steps by which tqdm moves its bars.
PLAIN = r"[^\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]*"  # without control characters
PAINTED = rf"\x1b\[(?:(?:32|2)m{PLAIN}|48;5;\d+m  )\x1b\[0m"
NOTHING = r"(?!)"
MOVES = r"^\r|\r$|^(?:\x1b\[A)+$"


class UsageError(ValueError):
    """A wrong call; the message names the flag. Exit code 2, where every other error is exit code 1."""


# ------------------------------------------------------------------------------------------------ showing
def printable(text: str) -> str:
    """Text with its control characters escaped, except line ends."""
    return "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text)


def shows_colours() -> bool:
    """Whether standard output is a terminal and NO_COLOR is unset or empty (no-color.org)."""
    return bool(sys.stdout and sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def paint(text: str, colour: str) -> str:
    """Escaped text, in a colour if shows_colours(). No other function writes control codes."""
    text = printable(text)
    return f"\x1b[{colour}m{text}\x1b[0m" if shows_colours() else text


def unpaint(text: str) -> str:
    """Text without the control codes of `paint`."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


class Screen:
    """A text stream that escapes what is written to it. kept: regex of what passes as it is."""

    def __init__(self, stream, kept: str):
        self.stream = stream
        self.kept = kept

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if not text.isprintable():
            parts = re.split(f"({self.kept})", text)  # every other part matches
            parts[::2] = map(printable, parts[::2])
            text = "".join(parts)
        return self.stream.write(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)


def screen() -> Screen | None:
    """Standard output as a Screen; None if there is no standard output."""
    return sys.stdout and Screen(sys.stdout, PAINTED if shows_colours() else NOTHING)


# ------------------------------------------------------------------------------------------------ asking
def ask(read, show, question: str) -> str | None:
    """Show a question and return the line that a person types, or None at the end of the input or at
    "quit"."""
    show(question)
    line = read()
    return None if line is None or line.strip().lower() in ("quit", "q") else line


def person():
    """(read, show) for the person at the keyboard.

    read() returns the next line, or None at the end of the input. Lines from a pipe are echoed as if somebody
    had typed them. With no person and nothing in the pipe, read is None itself. show(line) prints a line."""
    at_keyboard = sys.stdin is not None and sys.stdin.isatty()
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # a keyboard or a pipe can send bytes that are no UTF-8

    # A pipe is read up to the first line that says something, to learn whether there is one.
    lines = iter(sys.stdin or ())
    begin = []
    while not at_keyboard and not "".join(begin).strip() and (line := next(lines, "")):
        begin.append(line)
    remaining = itertools.chain(begin, lines)

    def read():
        print("> ", end="", flush=True)
        line = next(remaining, None)
        if not at_keyboard:
            print((line or "").rstrip("\n"))
        return line and line.rstrip("\n")

    def show(line, dim=False, end="\n"):
        print(paint(line, DIM) if dim else line, end=end, flush=True, file=screen())

    nobody = not at_keyboard and not "".join(begin).strip()
    return (None if nobody else read), show


# ------------------------------------------------------------------------------------------------ scripts
def check_choice(flag: str, value, known):
    """Raise UsageError if a flag's value is not a known one."""
    if value not in known:
        names = ", ".join(str(name) for name in known if name != "")
        raise UsageError(f"--{flag} {value}: must be one of {names}")


def duration(seconds: float) -> str:
    """A time as '52s', '38m' or '2h05m'."""
    seconds = int(seconds)
    if seconds < 100:
        return f"{seconds}s"
    return f"{seconds // 60}m" if seconds < 6000 else f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def exit_code(script: str, call, advice="") -> int:
    """Run a script's call() and return its exit code: 0 done (or the result of the call), 1 failed, 2 wrong
    call, 130 interrupted (the message ends with the advice).

    Expected errors are printed as one line. Any other error is a bug and keeps its traceback, escaped."""
    with redirect_stdout(screen()):
        with redirect_stderr(sys.stderr and Screen(sys.stderr, MOVES)):
            try:
                return call() or 0
            except UsageError as error:
                print(f"{script}: {error}", file=sys.stderr)
                return 2
            except (ValueError, OSError, FloatingPointError) as error:
                print(f"{script}: {error}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print(f"\n{script}: interrupted" + (f"; {advice}" if advice else ""), file=sys.stderr)
                return 130
            except BaseException:
                sys.excepthook = lambda *error: traceback.print_exception(
                    *error, file=Screen(sys.stderr, NOTHING)
                )
                raise
