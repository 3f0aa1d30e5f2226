"""The user's chats: rows as other tools write them become examples of a few forms.

Some columns of a row show its form (JSON lines, CSV, Parquet, a folder or a Hub data set: games/rows.py):

    {"messages"}                          a chat, [{"role", "content"}, ...]
    {"conversations"}                     ShareGPT's, [{"from", "value"}, ...]
    {"prompt", "completion"}              a prompt and the reply to learn
    {"prompt", "completion", "label"}     a reply, and whether it is good
    {"prompt", "chosen", "rejected"}      a preferred reply and another
    {"chosen", "rejected"}                two chats that begin alike, as lists
    {"prompt"}                            a prompt, for rewards of the user's
    {"text"}                              a text without turns, of which every token is learned

Prompts and replies are texts or lists of messages (games.rows.read_messages). Examples have the same columns,
with prompts as lists and replies as texts, and keep what else is in their rows, for rewards; one with
messages has its last reply as a completion as well."""

import json

from files import TEXT, check_fields
from games.rows import Refused, read_messages, read_rows, refuse

# columns that show a form -> the losses that learn from it, the usual one first; forms with more telling
# columns come first, as a row may have the columns of several
SAMPLED = "grpo", "distil"  # these need only prompts
FORMS = {
    ("chosen", "rejected"): ("dpo", "simpo", "kto", "sft", *SAMPLED),
    ("messages",): ("sft", *SAMPLED),
    ("conversations",): ("sft", *SAMPLED),
    ("prompt", "completion", "label"): ("kto", *SAMPLED),
    ("prompt", "completion"): ("sft", *SAMPLED),
    ("text",): ("sft",),
    ("prompt",): SAMPLED,
}
COLUMNS = {"system"}.union(*FORMS) - {"label"}
LABELS = {"true": True, "1": True, "false": False, "0": False}


class BadRow(ValueError):
    """A row that teaches nothing. Its message is the reason by which such rows are counted."""


def read_chats(source, rows, split, expected, dropped, system="", drop_refused=False):
    """Yield the examples of the good rows of a source; `dropped`, a Counter, counts the others by reason.
    system: the system prompt of those that have none.

    Raises ValueError, with the place, for a row of another form than the expected one, for what is no chat,
    and, unless drop_refused, for a row that asks for more than we can do."""
    for where, row in read_rows(source, rows, (), split):
        form = form_of(where, row)
        if form != expected:
            raise ValueError(f"{where}: {', '.join(form)}, where rows before have {', '.join(expected)}")
        try:
            refuse(where, row)
            example = read_example(where, row | {"system": row.get("system") or system}, form)
        except Refused as error:
            if not drop_refused:
                raise ValueError(f"{error}; --on-bad-row drop leaves them out") from error
            dropped[error.what] += 1
        except BadRow as error:
            dropped[str(error)] += 1
        else:
            others = {name: row[name] for name in row if name not in COLUMNS and row[name] is not None}
            # a date, as Parquet has it, becomes a text
            yield json.loads(json.dumps(others, default=str)) | example


def form_at(source, rows="", split="train"):
    """(where, form) of the first row of a source."""
    where, row = next(read_rows(source, rows, (), split))
    return where, form_of(where, row)


def form_of(where, row):
    """The form of a row, a key of FORMS; a column that is null counts as missing."""
    for form in FORMS:
        if all(row.get(name) is not None for name in form):
            return form
    known = "; ".join(map(", ".join, FORMS))
    raise ValueError(f"{where}: the columns {', '.join(map(repr, row))} match none of: {known}")


def read_example(where, row, form):
    """The columns of a form as an example has them. Raises BadRow."""
    if form == ("text",):
        example = {"text": check_fields(where, row, {"text": TEXT})["text"]}
        texts = example.values()
    elif form[0] in ("messages", "conversations"):
        messages = read_messages(where, row, *form)
        roles = [message["role"] for message in messages]
        if "assistant" not in roles or roles[roles[0] == "system"] != "user":
            raise BadRow("without a prompt and a reply to it")
        at = len(roles) - 1 - roles[::-1].index("assistant")
        texts = [message["content"] for message in messages if message["role"] == "assistant"]
        example = {"messages": messages, "prompt": messages[:at], "completion": texts[-1]}
    else:
        example = read_replies(where, row, form)
        texts = [example[name] for name in form if name not in ("prompt", "label")]
    if not all(text.strip() for text in texts):
        raise BadRow("with an empty text or reply")
    return example


def read_replies(where, row, form):
    """A prompt and replies to it. Some rows give the prompt only in the chats that end in the replies, some
    there as well."""
    prompt = read_messages(where, row, "prompt") if row.get("prompt") is not None else []
    replies = {}
    for name in form:
        if name in ("prompt", "label"):
            continue
        chat = read_messages(where, row, name)
        *before, last = chat if prompt and prompt[-1] in chat else prompt + chat
        if name == "chosen":
            prompt = before
        if before != prompt or last["role"] != "assistant":
            raise BadRow("with other turns than a prompt and a reply")
        replies[name] = last["content"]
    if not prompt or prompt[-1]["role"] != "user":
        raise Refused(where, "without a prompt that ends with the user's message")
    if len({*replies.values()}) < len(replies):
        raise BadRow("with the same reply chosen and rejected")
    if "label" in form:
        replies["label"] = LABELS.get(str(row["label"]).lower())  # CSV has only texts
        if replies["label"] is None:
            raise ValueError(f"{where}: label is {row['label']!r}, expected true or false")
    return {"prompt": prompt, **replies}
