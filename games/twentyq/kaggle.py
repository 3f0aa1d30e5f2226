"""20 Questions as a submission to Kaggle's llm_20_questions: a tar.gz that needs nothing of this repository.

`pack` writes it: MAIN as main.py, the modules that it needs, world, belief and weights. There, main.py hands
every observation to a Client, which plays whatever seat it asks for.

The environment ends a game for all four players where one raises, is late, says nothing, or answers neither
yes nor no; and it crashes where a question is the keyword itself ("Bike path?"). So a Client never raises,
asks in sentences only, and lets the table player speak where the model fails or is late."""

import gzip
import io
import json
import os
import re
import tarfile
import threading
import time
import traceback
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from games.twentyq.prompts import (
    MAX_GUESS,
    MAX_QUESTION,
    answer_prompt,
    ask_prompt,
    guess_prompt,
    last_line,
    yes_or_no,
)
from games.twentyq.task import Options, TwentyQuestions

ACT, RESERVE = 50, 60  # seconds: of an act's 60, and of the bank of 300 that is never planned for
RESCUE = "Is it not alive?"  # where all else failed: a question, and a guess
# an asking verb and what it asks about, or four words after it: no keyword looks like this
ASKS = re.compile(
    r"(?!do it\b)(is|are|was|were|do|does|did|can|could|has|have|had|will|would|should|may|might|must)\s+"
    r"(.*\b(it|they|you|one|there|this|that|keyword|word|thing|object)\b|(\S+\s+){3}\S)",
    re.I,
)


# ------------------------------------------------------------------------------------------------ playing
def as_question(text):
    """The text where it asks in a sentence, else "Is it TEXT?"; nothing stays nothing."""
    return text if not text or ASKS.match(text) else f"Is it {text.rstrip(' ?.!')}?"


class Questions:
    """An agent, every reply of it a question (as_question)."""

    def __init__(self, agent):
        self.agent = agent

    def reply(self, conversations, n=1):
        return [
            [replace(reply, text=as_question(last_line(reply.text))) for reply in replies]
            for replies in self.agent.reply(conversations, n)
        ]


def allowed(observation):
    """Seconds that the model may take for an act: half of what the bank holds beyond its reserve may go."""
    bank = min(float(observation["remainingOverageTime"]), 300.0)
    return ACT + max(0.0, bank - RESERVE) / 2


class Client:
    """Plays from observations. load() makes the agent, in the first act; where that or a reply fails or is
    late the table player speaks. What went wrong is printed to stderr, which Kaggle keeps."""

    def __init__(self, load, options=None):
        self.load, self.agent, self.game = load, None, TwentyQuestions(options or Options())
        self.busy = threading.Lock()  # held by the thread in which the model works

    def act(self, observation):
        """The action, a str. Never raises."""
        for speaks in (self.model_says, self.table_says):
            try:
                return speaks(observation)
            except (Exception, SystemExit):
                traceback.print_exc()
        answers = isinstance(observation, dict) and observation.get("turnType") == "answer"
        return "no" if answers else RESCUE

    def table_says(self, observation):
        return self.says(self.game.table_player(), observation)

    def model_says(self, observation):
        """What the model says, in a thread of its own; TimeoutError where it is late. It then works on in
        vain, and as long as it does all turns are late."""
        seconds, began, reply = allowed(observation), time.monotonic(), Future()
        if not self.busy.acquire(timeout=seconds):
            raise TimeoutError("the model is still busy with an earlier turn")

        def work():
            try:
                self.agent = self.agent or self.game.equipped(self.load())
                reply.set_result(self.says(self.agent, observation))
            except BaseException as error:
                reply.set_exception(error)
            finally:
                self.busy.release()

        threading.Thread(target=work, daemon=True).start()
        return reply.result(began + seconds - time.monotonic())

    def says(self, agent, observation):
        """What an agent says in the seat of an observation; never what it said before where it has another
        idea."""
        turn, questions = observation["turnType"], observation["questions"]
        if turn == "answer":
            reply = agent.reply([answer_prompt(observation["keyword"], questions[-1])])[0][0]
            if not yes_or_no(reply.text):
                raise ValueError(f"neither yes nor no: {reply.text!r}")
            return yes_or_no(reply.text)
        turns = list(zip(questions, observation["answers"]))
        if turn == "ask":
            agent, prompt, made, limit = Questions(agent), ask_prompt(turns), questions, MAX_QUESTION
        elif turn == "guess":
            prompt, made, limit = guess_prompt(turns), observation["guesses"], MAX_GUESS
        else:
            raise ValueError(f"turnType {turn!r} is unknown")
        said = self.game.say(agent, [prompt], [made], False, limit)[0][0].text
        if not said:
            raise ValueError(f"nothing to {turn}")
        return said


# ------------------------------------------------------------------------------------------------ packing
MAIN = '''"""A player of llm_20_questions, packed by parlor: python infer.py submit --task 20q"""

import sys
from pathlib import Path

# Kaggle executes this text without a __file__, and takes the last callable in it for the agent
OWN = Path(sys._getframe().f_code.co_filename).resolve().parent
FOLDER = OWN if (OWN / "games").exists() else Path("/kaggle_simulations/agent")
sys.path.insert(0, str(FOLDER))

from games.twentyq.kaggle import Client, Options


def load():
    import torch

    import model as models
    from agents import Model
    from data import load_tokenizer
    from cache import fuse

    folder, device = str(FOLDER / "weights"), "cuda" if torch.cuda.is_available() else "cpu"
    model = models.load(folder, torch.float32 if device == "cpu" else None, device)
    tokenizer = load_tokenizer(folder, {format!r}, model.config.vocab)
    return Model(fuse(model), tokenizer, **{settings})


given = {{name: str(FOLDER / path) for name, path in {given}.items()}}
client = Client(load, Options(**given, **{play}))


def agent(observation, configuration=None):
    return client.act(observation)
'''
OURS = (
    "agents.py attention.py data.py cache.py families.py losses.py model.py ranks.py sampler.py"
    " games/__init__.py games/rows.py games/task.py games/twentyq/__init__.py games/twentyq/task.py"
    " games/twentyq/aids.py games/twentyq/figures.py games/twentyq/kaggle.py games/twentyq/prompts.py"
    " games/twentyq/recorded.py games/twentyq/world.py games/twentyq/contest/__init__.py"
    " games/twentyq/contest/alpha.py games/twentyq/contest/rules.py games/twentyq/experiments/__init__.py"
    " games/twentyq/experiments/own_games.py"
).split()
PLAY = "tries", "candidates", "guesses", "think", "protocol"  # flags that it plays by
GIVEN = "world", "belief", "alpha_words"  # and those that name files
BESIDE = (  # the weights, what model.load and data.load_tokenizer read
    "config.json generation_config.json tokenizer.json tokenizer_config.json chat_template.jinja"
    " model.safetensors.index.json"
).split()


def pack(out, folder, options, format, settings):
    """Write the submission of the model in `folder` to `out`, whole or not at all: the same bytes each time.

    options: the game's; format: the name of the chat format, "" where the folder says it; settings: of the
    agent, the keywords of agents.Model."""
    root, folder = Path(__file__).parents[2], Path(folder)
    index = folder / "model.safetensors.index.json"
    weights = {"model.safetensors"}
    if index.exists():
        weights = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    beside = [name for name in BESIDE if (folder / name).exists()]
    given = {name: Path(getattr(options, name)) for name in GIVEN if getattr(options, name)}
    packed = {name: f"given/{name}{''.join(path.suffixes)}" for name, path in given.items()}
    play = {name: getattr(options, name) for name in PLAY}
    main = MAIN.format(format=format, settings=settings, given=packed, play=play)
    files = {name: root / name for name in OURS} | {packed[name]: path for name, path in given.items()}
    files |= {f"weights/{name}": folder / name for name in (*weights, *beside)}
    files |= {"main.py": main.encode()}
    partial = Path(f"{out}.partial")
    try:
        with open(partial, "wb") as file:
            # level 1: weights hardly shrink
            with gzip.GzipFile("", "wb", 1, file, mtime=0) as zipped, tarfile.open(None, "w", zipped) as tar:
                for name, source in sorted(files.items()):
                    entry = tarfile.TarInfo(name)  # which has no time and no owner
                    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as content:
                        entry.size = content.seek(0, os.SEEK_END)
                        content.seek(0)
                        tar.addfile(entry, content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, out)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
