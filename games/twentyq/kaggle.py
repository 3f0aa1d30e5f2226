"""20 Questions as a submission to Kaggle's llm_20_questions: a tar.gz that needs nothing else of this
repository.

`pack` writes it: MAIN as main.py, our modules, the world, a belief and the weights. On Kaggle, main.py passes
every observation to a Client, which plays the seat that the observation asks for.

The environment ends a game for all four players if one of them raises an exception, is late, says nothing, or
answers neither yes nor no. It crashes on a question that is the keyword itself ("Bike path?"). So a Client
never raises, asks in sentences only, and lets the table player speak when the model fails or is late."""

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

from files import inside, read_json, regular, replacing
from games.twentyq.match import AgentWrapper, Request, best_new_replies
from games.twentyq.prompts import answer_prompt, ask_prompt, guess_prompt, last_line, yes_or_no
from games.twentyq.world import WORLD, world_file

ACT = 50  # seconds for an act; the environment allows 60
RESERVE = 60  # seconds of the 300 in the overtime bank that we never plan to use
RESCUE = "Is it not alive?"  # the last resort, as a question and as a guess
# a verb that begins a question and either its subject or four more words: no keyword looks like this
ASKS = re.compile(
    r"(?!do it\b)(is|are|was|were|do|does|did|can|could|has|have|had|will|would|should|may|might|must)\s+"
    r"(.*\b(it|they|you|one|there|this|that|keyword|word|thing|object)\b|(\S+\s+){3}\S)",
    re.I,
)


# ------------------------------------------------------------------------------------------------ playing
def as_question(text):
    """The text if it is a whole question or empty, else "Is it TEXT?"."""
    return text if not text or ASKS.match(text) else f"Is it {text.rstrip(' ?.!')}?"


class Questions(AgentWrapper):
    """An agent whose replies are all turned into questions (as_question)."""

    def reorder(self, seat, content, replies):
        return [replace(reply, text=as_question(last_line(reply.text))) for reply in replies]


def time_limit(observation):
    """The seconds that the model may take for an act: ACT, and half of the bank beyond RESERVE."""
    bank = min(float(observation["remainingOverageTime"]), 300.0)
    return ACT + max(0.0, bank - RESERVE) / 2


class Client:
    """Plays from observations. game: a TwentyQuestions.

    load() makes the agent, in the first act. If that or a reply fails or is late, the table player speaks
    instead. Errors are printed to stderr, which Kaggle keeps."""

    def __init__(self, load, game):
        self.load = load
        self.game = game
        self.agent = None
        self.busy = threading.Lock()  # held by the thread in which the model works

    def act(self, observation):
        """The action for an observation, a str. Never raises."""
        for speak in (self.model_action, self.table_action):
            try:
                return speak(observation)
            except (Exception, SystemExit):
                traceback.print_exc()
        answers = isinstance(observation, dict) and observation.get("turnType") == "answer"
        return "no" if answers else RESCUE

    def table_action(self, observation):
        return self.action(self.game.table_player(), observation)

    def model_action(self, observation):
        """The model's action, from a thread of its own; TimeoutError if it is late. A late thread cannot be
        stopped: until it ends, every later turn is late too."""
        began = time.monotonic()
        seconds = time_limit(observation)
        result = Future()
        if not self.busy.acquire(timeout=seconds):
            raise TimeoutError("the model is still busy with an earlier turn")

        def work():
            try:
                self.agent = self.agent or self.game.equipped(self.load())
                result.set_result(self.action(self.agent, observation))
            except BaseException as error:
                result.set_exception(error)
            finally:
                self.busy.release()

        threading.Thread(target=work, daemon=True).start()
        # minus the time that it waited for an earlier turn
        return result.result(began + seconds - time.monotonic())

    def action(self, agent, observation):
        """An agent's action in the seat of an observation. It repeats an earlier question or guess only if
        it has no new one. ValueError for a reply that would end the game."""
        seat = observation["turnType"]
        questions = observation["questions"]
        if seat == "answer":
            keyword = self.game.world.spelling(observation["keyword"])
            reply = agent.reply([answer_prompt(keyword, questions[-1])])[0][0]
            answer = yes_or_no(reply.text)
            if not answer:
                raise ValueError(f"neither yes nor no: {reply.text!r}")
            return answer
        turns = list(zip(questions, observation["answers"]))
        if seat == "ask":
            agent = Questions(agent)
            request = Request("asker", ask_prompt(turns), questions)
        elif seat == "guess":
            request = Request("guesser", guess_prompt(turns), observation["guesses"])
        else:
            raise ValueError(f"turnType {seat!r} is unknown")
        reply, _ = best_new_replies(agent, [request], self.game.options.tries)[0]
        if not reply.text:
            raise ValueError(f"nothing to {seat}")
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
SOURCES = "*.py", "games/*.py", "games/twentyq/**/*.py", "games/twentyq/world.txt"
PLAY_FLAGS = "tries", "candidates", "pool", "guesses", "think", "protocol", "alpha_control"
FILE_FLAGS = "world", "belief", "alpha_words"  # their values are paths of files to pack
# the files beside the weights that checkpoint.open reads
MODEL_FILES = (
    "config.json generation_config.json tokenizer.json tokenizer_config.json chat_template.jinja"
    " model.safetensors.index.json"
).split()


def pack(out, folder, options, format, settings):
    """Write the submission of the model in `folder` to `out`, completely or not at all. The same model gives
    the same bytes each time.

    options: the game's. format: the name of the chat format, "" if the folder says it. settings: keyword
    arguments of agents.Model."""
    given = {}  # flag -> file
    for name in FILE_FLAGS:
        if path := getattr(options, name):
            given[name] = Path(path)
    given["world"] = world_file(options.world)
    if given["world"] == WORLD:
        del given["world"]  # the embedded world is among the sources
    # the endings tell a file's format
    packed = {name: f"given/{name}{''.join(path.suffixes)}" for name, path in given.items()}
    play = {name: getattr(options, name) for name in PLAY_FLAGS}
    main = MAIN.format(format=format, settings=settings, given=packed, play=play)

    sources = {}  # name in the archive -> file
    for pattern in SOURCES:
        for path in ROOT.glob(pattern):
            sources[path.relative_to(ROOT).as_posix()] = path
    for name, path in given.items():
        sources[packed[name]] = regular(path)
    for path in model_files(Path(folder)):
        sources[f"weights/{path.name}"] = path
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
    """Add an open file to an archive, without its time and owner: they would change the bytes."""
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, os.SEEK_END)
    content.seek(0)
    tar.addfile(entry, content)


def model_files(folder):
    """The files in a model's folder that play needs: list of Paths."""
    index = folder / "model.safetensors.index.json"
    weights = ["model.safetensors"]
    if index.exists():
        weights = read_json(index)["weight_map"].values()  # a name of a shard for each tensor
    beside = [folder / name for name in MODEL_FILES if (folder / name).exists()]
    return [inside(folder, name) for name in sorted(set(weights))] + beside
