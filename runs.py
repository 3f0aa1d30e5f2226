"""A run's folder: log, metrics, checkpoints that are whole or absent, and how to find the newest.

    runs/20q-1121-1402/  run.json  log.txt  metrics.jsonl  samples.jsonl  eval.json
                         step-500/  a model folder, and in its state/ what resuming needs
                         model -> step-500    best -> step-250

A checkpoint is written under a temporary name, flushed, renamed, and only then does the link `model` move to
it, in one atomic step: model and optimizer can never come from different steps. Checkpoints without a link to
them are deleted. `resolve` turns the name of a run, a folder or a Hub repository into a folder."""

import json
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from files import link, read_json, replacing, write_json, write_text
from ranks import split_as, whole
from terminal import UsageError

# ------------------------------------------------------------------------------------------------ names
# Files of a Hub repository that are downloaded: never its code or pickles, nor other formats of the same
# weights; folders such as 1_Pooling are wanted
WANTED = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
UNWANTED = ["[!0-9]*/*", "consolidated*"]


def resolve(name, revision=None):
    """The local folder of a run, a folder or a Hub name: Path. Downloads what is needed of a Hub
    repository."""
    path, name = Path(name), str(name)
    if (path / "run.json").exists():
        if not (path / "model").exists():
            raise FileNotFoundError(f"{path}: this run has no checkpoint yet")
        return path / "model"
    if path.is_dir():
        return path
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise FileNotFoundError(f"{name}: no such run or model folder (a Hub name has the form owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED)
        )
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: not a local folder, not in the Hub cache, and the Hub cannot be reached"
            + (" (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else "")
        ) from error
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"{name}: the Hub refused it: {error}") from error


def read_values(name):
    """The settings that a run was trained with, {} where the name is not that of a run."""
    path = Path(name, "run.json")
    return read_json(path)["values"] if path.exists() else {}


# ------------------------------------------------------------------------------------------------ progress
@dataclass
class Progress:
    """What resuming needs beside the weights and the optimizers."""

    step: int = 0  # steps done
    best: float | None = None  # the best score of an evaluation during training
    worse: int = 0  # evaluations in a row without a better one
    seconds: float = 0.0  # spent so far, counted under --max-minutes
    scaler: dict | None = None

    def note(self, score, lower_is_better):
        """Note the score of an evaluation; whether it is the best so far."""
        better = self.best is None or (score < self.best if lower_is_better else score > self.best)
        self.best, self.worse = (score, 0) if better else (self.best, self.worse + 1)
        return better

    def saved(self):
        state = asdict(self)
        return {name: state[name] for name in state if name != "step"}


class Clock:
    """The time of steps, and the end of training: by --max-minutes, or after --patience evaluations in a row
    without a better score."""

    def __init__(self, cfg, progress):
        self.cfg, self.first, self.before = cfg, progress.step, progress.seconds
        self.began = self.step_began = time.time()

    def start_step(self):
        """Seconds spent so far, those of the run before it was resumed included."""
        self.step_began = time.time()
        return self.before + self.step_began - self.began

    def steps_gone(self, progress):
        """What the time gone stands for in steps, which need not be a whole number; 0 without a limit."""
        budget = self.cfg.max_minutes * 60
        return progress.seconds / budget * self.cfg.steps if budget else 0.0

    def over(self, progress):
        """Why training ends now, or ""."""
        if self.cfg.max_minutes and self.steps_gone(progress) >= self.cfg.steps:
            return f"{self.cfg.max_minutes:g} minutes are over"
        return "no better score lately" if 0 < self.cfg.patience <= progress.worse else ""

    def end_step(self, progress):
        """(seconds of the step, seconds left)."""
        now = time.time()
        left = (now - self.began) / (progress.step - self.first) * (self.cfg.steps - progress.step)
        if self.cfg.max_minutes:
            left = min(left, self.cfg.max_minutes * 60 - self.before - now + self.began)
        return now - self.step_began, left


# ------------------------------------------------------------------------------------------------ the folder
class Run:
    """The folder of one training run, new or resumed. Of several ranks only the first writes: the others are
    `quiet`, and help it to gather what is to be written where the model is `sharded`."""

    def __init__(self, folder, quiet=False, sharded=False):
        self.folder, self.bar, self.quiet, self.sharded = Path(folder).resolve(), None, quiet, sharded
        self.saved = None  # the step of the newest checkpoint

    @classmethod
    def new(cls, runs, task, name="", sharded=False):
        """Make a folder that does not exist yet."""
        if name and (Path(name).name != name or name == "latest"):
            raise UsageError(f"--name {name}: must be a plain folder name")
        base = Path(runs) / (name or f"{task}-{time.strftime('%m%d-%H%M')}")
        folder, number = base, 2
        while folder.exists():
            if name:
                raise FileExistsError(
                    f"{folder} exists: take another --name, or continue it with --resume {folder}"
                )
            folder, number = base.with_name(f"{base.name}-{number}"), number + 1
        folder.mkdir(parents=True)
        return cls(folder, sharded=sharded)

    def start_bar(self, total, done):
        """A progress bar over steps; lines are printed above it."""
        hidden = self.quiet or not os.isatty(2)
        self.bar = tqdm(total=total, initial=done, disable=hidden, unit="step")

    def print(self, line):
        """To the terminal and log.txt."""
        if not self.quiet:
            (self.bar or tqdm).write(line)
            self.log(line)

    def log(self, line):
        if self.quiet:
            return
        with open(self.folder / "log.txt", "a", encoding="utf-8") as file:
            file.write(re.sub(r"\x1b\[\d*m", "", line) + "\n")

    def write(self, name, value):
        """Write one of the run's JSON files."""
        if not self.quiet:
            write_json(self.folder / name, value)

    def record(self, name, row):
        """Append a row to metrics.jsonl or samples.jsonl."""
        if self.quiet:
            return
        with open(self.folder / f"{name}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def rewind(self, step):
        """Forget the rows of metrics.jsonl and rollouts.jsonl after a step: a resumed run writes them
        again."""
        for name in ("metrics.jsonl", "rollouts.jsonl"):
            path = self.folder / name
            if self.quiet or not path.exists():
                continue
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows was cut by a kill
            kept = [line + "\n" for line in lines if json.loads(line)["step"] <= step]
            write_text(path, "".join(kept))

    # -------------------------------------------------------------------------------------------- checkpoints
    def save(self, step, write_model, optimizers, state):
        """Checkpoint of a step: write_model(folder) writes the weights (None only gathers them), and `state`
        is what else resuming needs, which `load_state` gives back.

        Raises OSError with the state of things when the disk is full; what was saved before stays as it is.
        """
        again = self.saved == step  # a step has one result
        self.saved = step
        if again or self.quiet:
            if self.sharded and not again:
                write_model(None)
                pack_state(optimizers)
            return
        name = f"step-{step}"
        try:
            with replacing(self.folder / name) as partial:
                write_model(partial)
                (partial / "state").mkdir()
                tensors, scalars = pack_state(optimizers)
                save_file(tensors, partial / "state" / "optimizer.safetensors")
                write_json(partial / "state" / "state.json", {"step": step, **state, "scalars": scalars})
            link(self.folder / "model", name)
            link(self.folder.parent / "latest", self.folder.name)
        except Exception as error:  # safetensors raises its own kind for a full disk
            advice = "no checkpoint was saved before it"
            if (self.folder / "model").exists():
                last = os.readlink(self.folder / "model")
                advice = f"{last} is whole: make room, then continue with --resume {self.folder}"
            raise OSError(f"{self.folder}: saving step {step} failed ({error}); {advice}") from error
        self.tidy()

    def mark_best(self):
        """The newest checkpoint is the best one so far."""
        if self.quiet:
            return
        link(self.folder / "best", os.readlink(self.folder / "model"))
        self.tidy()

    def tidy(self):
        """Delete the checkpoints that no link names."""
        links = [self.folder / name for name in ("model", "best")]
        kept = {os.readlink(path) for path in links if path.is_symlink()}
        for old in self.folder.glob("step-*"):
            if old.name not in kept:
                shutil.rmtree(old, ignore_errors=True)

    def load_state(self, optimizers):
        """The state of the newest checkpoint, {"step", ...}; its optimizers' state goes back into these."""
        folder = self.folder / "model" / "state"
        if not folder.exists():
            raise FileNotFoundError(f"{self.folder}: no checkpoint to resume from")
        try:
            tensors = load_file(folder / "optimizer.safetensors")
        except SafetensorError as error:
            raise ValueError(f"{folder / 'optimizer.safetensors'}: truncated or damaged ({error})") from error
        state = read_json(folder / "state.json")
        self.saved = state["step"]
        unpack_state(optimizers, tensors, state.pop("scalars"))
        return state


def pack_state(optimizers):
    """Optimizer states as flat tensors and scalars, by optimizer, parameter number and key."""
    tensors, scalars = {}, {}
    for o, optimizer in enumerate(optimizers):
        for p, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                if torch.is_tensor(value):
                    tensors[f"{o}.{p}.{key}"] = whole(value).detach().cpu().contiguous()
                else:
                    scalars[f"{o}.{p}.{key}"] = value
    return tensors, scalars


def unpack_state(optimizers, tensors, scalars):
    """Put a packed state back into fresh optimizers over the same parameters."""
    for o, optimizer in enumerate(optimizers):
        packed = optimizer.state_dict()
        parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
        for name, value in {**tensors, **scalars}.items():
            number, p, key = name.split(".", 2)
            if int(number) == o:
                packed["state"].setdefault(int(p), {})[key] = split_as(parameters[int(p)], value)
        optimizer.load_state_dict(packed)
