"""Published chat templates: does parlor write what transformers renders, or refuse by name?

    python bench/templates.py FOLDER      # of *.jinja files, such as llama.cpp's models/templates

Ten conversations a template, each as a prompt and with a reply. A template that parlor reads must give the
same text in all of them; RESULTS.md has the counts. transformers renders with its own code, today's date held
at parlor's and enable_thinking=False, as parlor asks. Where a template's finished chat does not go on from
its own prompt (it drops the thought that the prompt begins), parlor's must. Some leave out the thought even
of the last reply, which parlor keeps, as the model is to learn it."""

import argparse
import collections
import json
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from transformers.utils import chat_template_utils  # noqa: E402

import templates  # noqa: E402
from formats import CONTROL, read_format, shape_of  # noqa: E402

END = f"{CONTROL}|</s>"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
THOUGHT = "<think>\nFive and seven, so 12.\n</think>\n\nTwelve."
CONVERSATIONS = [  # contents by turn; the last is the reply. "S:" marks a system message
    ["Hello!", "Hi."],
    ["S:You play twenty questions.", "Is it alive?", "Yes"],
    ["Name a tree.", "Oak", "Another one, please.", "Elm"],
    [
        "S:Answer in one word.",
        "Capital of Japan? 日本の首都",
        "東京",
        "And of Peru?",
        "Lima",
        "Thanks 🐙",
        "Bye",
    ],
    ["S:  Indented rules.\n", "  def f():\n    return 1\n", "\treturn 2  \n", " and now? ", " done \n"],
    ["5 + 7?", THOUGHT, "And twice that?", "24"],
    ["S:Think first.", "5 + 7?", THOUGHT, "Sure?", THOUGHT],
    ["What is <b>bold</b> & 'quoted' \"text\" {{ x }} {% y %}?", "HTML\n\nand\n\nmore: [1]"],
    ["S:Rules:\n1. be brief\n2. be kind", "a", "b", "c", "d", "e", "f", "g", "h"],
    ["S:You are Qwen.", "user assistant system", "Tool: none"],
]


def messages_of(turns):
    """The conversation as messages."""
    system = [{"role": "system", "content": turns[0][2:]}] if turns[0].startswith("S:") else []
    rest = turns[len(system) :]
    return system + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(rest)]


class Clock(chat_template_utils.datetime):
    @classmethod
    def now(cls, tz=None):
        return templates.TODAY


def rendered(template, messages, opened):
    """transformers' text, None where the template raises an error."""
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=opened, enable_thinking=False, **TOKENS
        )
    except Exception:
        return None
    return texts[0]


def ours(form, messages, opened):
    """(text of a conversation, what of it is learned as the last reply), None if parlor refuses it."""
    shapes = []
    hidden = []
    for message in messages:
        shape, texts = shape_of(message["role"], message["content"])
        shapes.append(shape)
        hidden += texts
    try:
        parts = form.layout(tuple(shapes), opened, END)
    except ValueError:
        return None, None
    parts = [(hidden[part] if isinstance(part, int) else part, learned) for part, learned in parts]
    return "".join(text for text, _ in parts), "".join(text for text, learned in parts if learned == 2)


def compare(template, form):
    """(what differs, how many texts were compared, how many were left out by kind)."""
    differ = []
    counts = collections.Counter()
    for turns in CONVERSATIONS:
        messages = messages_of(turns)
        prompt = rendered(template, messages[:-1], True)
        whole = rendered(template, messages, False)
        if prompt is None:
            counts["the template raises an error"] += 1
            continue
        text, _ = ours(form, messages[:-1], True)
        if text is None:
            counts["prompts refused"] += 1
            continue
        counts["prompts"] += 1
        if text != prompt:
            differ.append((turns, "prompt", text, prompt))
        text, reply = ours(form, messages, False)
        if text is None:
            counts["finished chats refused"] += 1
        elif text == whole:
            counts["finished chats"] += 1
        elif "Five" in reply and "Five" not in whole:
            counts["finished chats that lack the thought of the last reply"] += 1
        elif text.startswith(prompt) and text[len(prompt) :].startswith(reply):
            counts["finished chats that do not go on from their own prompt"] += 1
        else:
            differ.append((turns, "finished", text, whole))
    return differ, counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    chat_template_utils.datetime = Clock
    totals = collections.Counter()
    compared = collections.Counter()
    for path in sorted(args.folder.glob("*.jinja")):
        template = path.read_text()
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tokenizer_config.json").write_text(
                json.dumps({**TOKENS, "chat_template": template})
            )
            try:
                form = read_format(Path(folder))
                form.around_reply()
            except ValueError as error:
                reason = re.sub(r"^.*?unknown: |; name one.*", "", str(error), flags=re.DOTALL)
                totals["refused"] += 1
                print(f"refused    {path.stem}: {reason}")
                continue
        differ, counts = compare(template, form)
        compared += counts
        totals["DIFFERENT" if differ else "equal"] += 1
        print(f"{'DIFFERENT' if differ else 'equal':<10} {path.stem} {dict(counts)}")
        if args.verbose:
            for _, kind, ours, theirs in differ[:2]:
                print(f"    {kind}\n      ours   {ours!r}\n      theirs {theirs!r}")
    print(dict(totals), dict(compared))


if __name__ == "__main__":
    main()
