"""What a person sees and types: escaping, colour, questions, and how a script ends.

Nothing that comes from a model, a file or a player reaches a terminal without `printable`."""

import sys

GREEN, DIM, PLAIN = "\x1b[32m", "\x1b[2m", "\x1b[0m"


class UsageError(ValueError):
    """A wrong call, which the message explains by its flag: exit code 2. Every other error is exit code 1."""


def printable(text):
    """Text with its control characters escaped, line ends excepted."""
    return "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text)


def painted(text, colour):
    """Escaped text in a colour."""
    return f"{colour}{printable(text)}{PLAIN}"


def ask(read, show, question):
    """The line that a person types when asked, or None at the end of the input or at "quit"."""
    show(question)
    line = read()
    return None if line is None or line.strip().lower() in ("quit", "q") else line


def person():
    """(read, show) of whoever is at the keyboard: read() gives the next line typed, or None at the end;
    lines that come from a pipe are shown as if they had been typed, and where nobody is there and nothing is
    piped, read is None itself. show(line) prints; painted=True: the line has colours of our own."""
    present = sys.stdin is not None and sys.stdin.isatty()
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # whatever the keyboard sends
    lines = sys.stdin if present else sys.stdin.readlines() if sys.stdin else []
    typed = iter(lines)

    def read():
        print("> ", end="", flush=True)
        line = next(typed, None)
        if not present:
            print(printable((line or "").rstrip("\n")))
        return line and line.rstrip("\n")

    def show(line, painted=False, dim=False, end="\n"):
        line = line if painted else printable(line)
        print(f"{DIM}{line}{PLAIN}" if dim else line, end=end, flush=True)

    nobody = not present and not any(line.strip() for line in lines)
    return (None if nobody else read), show


def check_choice(flag, value, known):
    """Raise UsageError where a flag's value is not one of those known."""
    if value not in known:
        names = ", ".join(str(name) for name in known if name != "")
        raise UsageError(f"--{flag} {value}: must be one of {names}")


def duration(seconds):
    """'52s', '38m' or '2h05m'."""
    seconds = int(seconds)
    if seconds < 100:
        return f"{seconds}s"
    return f"{seconds // 60}m" if seconds < 6000 else f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def exit_code(script, call, advice=""):
    """Run a script's call() and return its exit code: 0 done (or what the call returns), 1 failed, 2 wrong
    call, 130 interrupted. Errors of these kinds are printed as one line; any other is a fault of ours and
    shows where it happened."""
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
