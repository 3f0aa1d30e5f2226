"""Renders chat templates as transformers does (chat_template_utils.py), in jinja2's sandbox.

A template is a program of whoever made the checkpoint: a loop may never end, a text may fill the memory. So
`check` tries a foreign one in a process of its own, under limits, before `render` is used on it here."""

import datetime
import json
import subprocess
import sys
from contextlib import suppress
from functools import partial

MEMORY = 1 << 30  # bytes of address space
SECONDS = 5  # of processor time; the clock may show six times as many on a busy machine
LARGEST_TEMPLATE = 1 << 18  # characters; published ones have at most some twenty thousand
LARGEST_TEXT = 1 << 20  # characters of a rendered chat
TODAY = datetime.datetime(2024, 7, 26)  # for templates that ask: Llama 3.1's default, in training and in use


def compile_template(source: str):
    """A jinja2 template, with the functions and tags that transformers gives to chat templates."""
    from jinja2 import TemplateError, ext, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """{% generation %} marks what is learned, and writes nothing."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)

    def raise_exception(message):
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": TODAY.strftime}
    return environment.from_string(source)


def render(template, tokens: dict, messages: list, opened: bool) -> str:
    """The text of a chat. tokens: the texts of bos_token, eos_token and the like. opened: whether a reply is
    to come. No thoughts unless the template insists, since games ask for an answer.

    Raises ValueError with the template's own error."""
    settings = dict(tokens, add_generation_prompt=opened, tools=None, documents=None, enable_thinking=False)
    try:
        return template.render(settings, messages=messages)
    except MemoryError:
        raise
    except Exception as error:  # whatever a template does wrong
        raise ValueError(f"{type(error).__name__}: {error}"[:200]) from None


def check(source: str, tokens: dict, chats: list):
    """Raise ValueError if a template does not compile, or does not end within the limits on all chats
    (messages, opened). A template may refuse some of them."""
    if len(source) > LARGEST_TEMPLATE:
        raise ValueError(f"longer than {LARGEST_TEMPLATE:,} characters, which no chat template is")
    job = json.dumps([sys.path, SECONDS, source, tokens, chats])
    try:
        child = subprocess.run(
            [sys.executable, "-I", __file__], input=job.encode(), capture_output=True, timeout=6 * SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"no end within {6 * SECONDS} s") from None
    if child.returncode:
        reason = child.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ValueError(reason[:200] or f"it reached a limit (signal {-child.returncode})")


def main():
    """The process that `check` starts."""
    paths, seconds, source, tokens, chats = json.load(sys.stdin)
    sys.path += filter(None, paths)  # jinja2 may lie where python -I does not look
    with suppress(ImportError):  # Windows: the clock is the only limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    template = compile_template(source)
    for messages, opened in chats:
        with suppress(ValueError):
            if len(render(template, tokens, messages, opened)) > LARGEST_TEXT:
                sys.exit("it writes too much")


if __name__ == "__main__":
    main()
