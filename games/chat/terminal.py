"""A chat in the terminal: python infer.py play --task chat --model DIR

Replies appear as they grow. A line that begins with one of COMMANDS is done, any other is said to the model.
Ctrl-C ends a reply, which then counts as it is, and not the program."""

import re

from files import new_file, write_rows
from terminal import printable

COMMANDS = """\
/undo          take back the last message and its reply
/again         another reply to the last message
/system TEXT   set the system prompt; without a text there is none
/save FILE     write the chat to a new file, as a row for --data
/quit          end, as Ctrl-D does"""


class Dialogue:
    """A chat of a person with an agent. show(line, dim, end) prints, see terminal.person."""

    def __init__(self, player, show, system=""):
        self.player = player
        self.show = show
        self.system = system
        self.messages = []  # without the system prompt

    def conversation(self) -> list:
        return [{"role": "system", "content": self.system}] * bool(self.system) + self.messages

    def say(self, text: str):
        """Say something, and show the reply as it grows."""
        self.messages.append({"role": "user", "content": text})
        shown = ""

        def watch(_, text):
            nonlocal shown
            text = text.rstrip("\ufffd")  # a character whose last bytes are still to come
            self.show(printable(text[len(shown) :]), end="")
            shown = text

        try:
            ((reply,),) = self.player.reply([self.conversation()], watch=watch)
            text = reply.text
        except KeyboardInterrupt:
            self.player.forget()  # a pass that was cut short may have left half of its cache
            text = shown
        self.show(printable(text[len(shown) :]))
        self.messages.append({"role": "assistant", "content": text})

    def command(self, name: str, text: str):
        """Do what one of COMMANDS says."""
        answer = COMMANDS
        if name == "/system":
            self.system = text
            answer = "set" if text else "there is no system prompt"
        elif name == "/save":
            try:
                write_rows(new_file(text or "."), [{"messages": self.conversation()}])
                answer = f"written: {text}"
            except OSError as error:
                answer = f"not written: {error}"
        elif name in ("/undo", "/again"):
            answer = "nothing was said yet"
            if self.messages:
                answer = self.messages[-2]["content"]
                del self.messages[-2:]
                if name == "/again":
                    return self.say(answer)
                answer = f"taken back: {answer}"
        self.show(answer, dim=True)


def talk(dialogue: Dialogue, read) -> list | None:
    """Talk until the end of the input. Returns the chat as rows, or None if nothing was said."""
    interrupted = False
    while True:
        try:
            line = read()
        except KeyboardInterrupt:
            if interrupted:  # twice in a row
                raise
            interrupted = True
            dialogue.show("\n(/quit or Ctrl-D ends the chat)", dim=True)
            continue
        interrupted = False
        name, _, text = (line or "").strip().partition(" ")
        if line is None or name == "/quit":
            return [{"messages": dialogue.conversation()}] if dialogue.messages else None
        if re.fullmatch(r"/\w+", name):
            dialogue.command(name, text.strip())
        elif name:
            dialogue.say(line)
