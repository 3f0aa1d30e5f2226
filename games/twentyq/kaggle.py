"""20 Questions as a submission to Kaggle's llm_20_questions: a tar.gz that needs nothing of this repository.

`pack` writes it: MAIN as main.py, our modules, the world, a belief and the weights. There, main.py hands
every observation to a Client, which plays whatever seat it asks for.

The environment ends a game for all four players where one raises, is late, says nothing, or answers neither
yes nor no; and it crashes where a question is the keyword itself ("Bike path?"). So a Client never raises,
asks in sentences only, and lets the table player speak where the model fails or is late."""

import gzip
import io
import os
import re
import tarfile
import threading
import time
import traceback
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from files import inside, read_json, replacing
from games.twentyq.match import Around, Request, best_new
from games.twentyq.prompts import answer_prompt, ask_prompt, guess_prompt, last_line, yes_or_no
from games.twentyq.world import WORLD, world_file

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


class Questions(Around):
    """An agent, every reply of it a question (as_question)."""

    def order(self, seat, content, replies):
        return [replace(reply, text=as_question(last_line(reply.text))) for reply in replies]


def allowed(observation):
    """Seconds that the model may take for an act: half of what the bank holds beyond its reserve may go."""
    bank = min(float(observation["remainingOverageTime"]), 300.0)
    return ACT + max(0.0, bank - RESERVE) / 2


class Client:
    """Plays from observations. load() makes the agent, in the first act; where that or a reply fails or is
    late the table player speaks. What went wrong is printed to stderr, which Kaggle keeps. game: a
    TwentyQuestions."""

    def __init__(self, load, game):
        self.load, self.game = load, game
        self.agent = None
        self.busy = threading.Lock()  # held by the thread in which the model works

    def act(self, observation):
        """The action, a str. Never raises."""
        for speak in (self.model_says, self.table_says):
            try:
                return speak(observation)
            except (Exception, SystemExit):
                traceback.print_exc()
        answers = isinstance(observation, dict) and observation.get("turnType") == "answer"
        return "no" if answers else RESCUE

    def table_says(self, observation):
        return self.says(self.game.table_player(), observation)

    def model_says(self, observation):
        """What the model says, in a thread of its own; TimeoutError where it is late. It then works on in
        vain, and as long as it does all turns are late."""
        seconds, began = allowed(observation), time.monotonic()
        action = Future()
        if not self.busy.acquire(timeout=seconds):
            raise TimeoutError("the model is still busy with an earlier turn")

        def work():
            try:
                self.agent = self.agent or self.game.equipped(self.load())
                action.set_result(self.says(self.agent, observation))
            except BaseException as error:
                action.set_exception(error)
            finally:
                self.busy.release()

        threading.Thread(target=work, daemon=True).start()
        return action.result(began + seconds - time.monotonic())

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
            agent, request = Questions(agent), Request("asker", ask_prompt(turns), questions)
        elif turn == "guess":
            request = Request("guesser", guess_prompt(turns), observation["guesses"])
        else:
            raise ValueError(f"turnType {turn!r} is unknown")
        reply, _ = best_new(agent, [request], self.game.options.tries)[0]
        if not reply.text:
            raise ValueError(f"nothing to {turn}")
        return reply.text


# ------------------------------------------------------------------------------------------------ packing
MAIN = '''"""A player of llm_20_questions, packed by parlor: python infer.py submit --task 20q"""

import sys
from pathlib import Path

# Kaggle executes this text without a __file__, and takes the last callable in it for the agent
OWN = Path(sys._getframe().f_code.co_filename).resolve().parent
FOLDER = OWN if (OWN / "games").exists() else Path("/kaggle_simulations/agent")
sys.path.insert(0, str(FOLDER))

from games.twentyq.kaggle import Client
from games.twentyq.task import Options, TwentyQuestions


def load():
    import torch

    import checkpoint
    from agents import Model
    from fused import fuse

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float32 if device == "cpu" else None
    opened = checkpoint.open(str(FOLDER / "weights"), dtype=dtype, device=device, format={format!r})
    return Model(fuse(opened.model), opened.tokenizer, **{settings})


given = {{name: str(FOLDER / path) for name, path in {given}.items()}}
client = Client(load, TwentyQuestions(Options(**given, **{play})))


def agent(observation, configuration=None):
    return client.act(observation)
'''
ROOT = Path(__file__).parents[2]
OURS = "*.py", "games/*.py", "games/twentyq/**/*.py", "games/twentyq/world.txt"
PLAY = "tries", "candidates", "guesses", "think", "protocol", "alpha_control"  # flags it plays by
GIVEN = "world", "belief", "alpha_words"  # flags that name files
BESIDE = (  # files beside the weights that checkpoint.open reads
    "config.json generation_config.json tokenizer.json tokenizer_config.json chat_template.jinja"
    " model.safetensors.index.json"
).split()


def pack(out, folder, options, format, settings):
    """Write the submission of the model in `folder` to `out`, whole or not at all: the same bytes each time.

    options: the game's; format: the name of the chat format, "" where the folder says it; settings: of the
    agent, the keywords of agents.Model."""
    given = {name: Path(getattr(options, name)) for name in GIVEN if getattr(options, name)}
    if world_file(options.world) == WORLD:
        given.pop("world", None)
    packed = {name: f"given/{name}{''.join(path.suffixes)}" for name, path in given.items()}
    play = {name: getattr(options, name) for name in PLAY}
    main = MAIN.format(format=format, settings=settings, given=packed, play=play)

    sources = {path.relative_to(ROOT).as_posix(): path for pattern in OURS for path in ROOT.glob(pattern)}
    sources |= {packed[name]: path for name, path in given.items()}
    sources |= {f"weights/{path.name}": path for path in model_files(Path(folder))}
    with (
        replacing(out) as partial,
        open(partial, "wb") as file,
        gzip.GzipFile("", "wb", 1, file, mtime=0) as zipped,  # level 1: weights hardly shrink
        tarfile.open(None, "w", zipped) as tar,
    ):
        add(tar, "main.py", io.BytesIO(main.encode()))
        for name in sorted(sources):
            with open(sources[name], "rb") as content:
                add(tar, name, content)


def add(tar, name, content):
    """Add an open file to an archive, without its time and owner."""
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, os.SEEK_END)
    content.seek(0)
    tar.addfile(entry, content)


def model_files(folder):
    """The files of a model's folder that play needs: list of Paths."""
    index = folder / "model.safetensors.index.json"
    weights = read_json(index)["weight_map"].values() if index.exists() else ["model.safetensors"]
    beside = [folder / name for name in BESIDE if (folder / name).exists()]
    return [inside(folder, name) for name in sorted(set(weights))] + beside
