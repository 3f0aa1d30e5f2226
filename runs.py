"""The folder of a run: its log, metrics and checkpoints, each of which is complete or absent.

    runs/20q-1121-1402/  run.json  log.txt  metrics.jsonl  samples.jsonl  eval.json
                         step-500/  a model folder; its state/ holds what resuming needs
                         model -> step-500    best -> step-250

A checkpoint is written under a temporary name, flushed and renamed; only then does the link `model` move to
it, in one atomic step. So model and optimizer never come from different steps. Checkpoints that no link names
are deleted. `resolve` turns the name of a run, a folder or a Hub repository into a folder."""

import math
import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from files import (
    COUNT,
    OBJECT,
    TEXT,
    Kind,
    append,
    check_fields,
    complete_lines,
    json_lines,
    link,
    list_of,
    locked,
    map_of,
    number,
    read_settings,
    regular,
    remove,
    replacing,
    write_json,
    write_text,
)
from games.rows import parse_json
from ranks import split_as, whole
from terminal import UsageError, printable, unpaint

SCALER = {  # the state of torch's GradScaler, all of whose fields are needed
    "scale": number(1e-30, 1e30),
    "growth_factor": number(1, 1e3),
    "backoff_factor": number(0, 1),
    "growth_interval": COUNT,
    "_growth_tracker": COUNT,
}
STATE = {  # of state.json: Progress, and what else `Run.save` writes
    "step": COUNT,
    "best": number(-math.inf, math.inf),
    "worse": COUNT,
    "seconds": number(0, 1e10),
    "scaler": Kind(
        f"an object with {', '.join(SCALER)}",
        lambda x: type(x) is dict and all(SCALER[key].fits(x.get(key)) for key in SCALER),
    ),
    "scalars": map_of(number(-math.inf, math.inf)),
    "tensors": list_of(TEXT),
}

# ------------------------------------------------------------------------------------------------ names
# Files to download from a Hub repository: never its code or pickles, nor other formats of the same weights.
# Folders such as 1_Pooling are wanted, other folders are not.
WANTED = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
UNWANTED = ["[!0-9]*/*", "consolidated*"]


def resolve(name: Path | str, revision: str | None = None) -> Path:
    """The local model folder for a run, a folder or a Hub name. Downloads a Hub repository if needed."""
    path = Path(name)
    name = str(name)
    if (path / "run.json").exists():
        if not (path / "model").exists():
            raise FileNotFoundError(
                f"{path}: this run has no checkpoint yet; the call that began it begins it again"
            )
        return path / "model"
    if name.endswith(".gguf") or any(path.glob("*.gguf")) and not (path / "config.json").exists():
        raise ValueError(f"{name}: GGUF is not read; convert it once, see docs/checkpoints.md")
    if path.is_dir():
        return path
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise FileNotFoundError(f"{name}: no such run or model folder (a Hub name has the form owner/name)")
    from huggingface_hub import snapshot_download  # here, as local names need no Hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = dict(allow_patterns=WANTED, ignore_patterns=UNWANTED)
    try:
        return Path(snapshot_download(name, revision=revision, **patterns))
    except LocalEntryNotFoundError as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise FileNotFoundError(
            f"{name}: not a local folder, not in the Hub cache, and the Hub cannot be reached{offline}"
        ) from error
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"{name}: the Hub refused it: {error}") from error


def read_values(name: Path | str) -> dict:
    """The settings that a run was trained with; {} if the name is not a run's."""
    path = Path(name, "run.json")
    if not path.exists():
        return {}
    values = read_settings(path, {"values": OBJECT}, ["values"])["values"]
    return check_fields(path, values, {"task": TEXT, "loss": TEXT}, ["task"])


# ------------------------------------------------------------------------------------------------ progress
@dataclass
class Progress:
    """What resuming needs besides the weights and the optimizers."""

    step: int = 0  # steps done
    best: float | None = None  # best score of an evaluation during training
    worse: int = 0  # evaluations since that score, which --patience limits
    seconds: float = 0.0  # time spent so far, which --max-minutes limits
    scaler: dict | None = None  # state of the gradient scaler

    def note(self, score: float, lower_is_better: bool) -> bool:
        """Record the score of an evaluation, and return whether it is the best so far."""
        better = self.best is None or (score < self.best if lower_is_better else score > self.best)
        better = better and not math.isnan(score)
        if better:
            self.best = score
            self.worse = 0
        else:
            self.worse += 1
        return better

    def as_state(self) -> dict:
        """The fields to store in a checkpoint, which stores the step itself."""
        state = asdict(self)
        del state["step"]
        return state


class Clock:
    """Times the steps and says when training should end: after --max-minutes, or after --patience evaluations
    in a row without a better score."""

    def __init__(self, cfg, progress: Progress):
        self.cfg = cfg
        self.first_step = progress.step
        self.seconds_before = progress.seconds  # of the run before it was resumed
        self.began = self.step_began = time.time()

    def start_step(self) -> float:
        """Start timing a step. Returns the seconds spent so far, including those before the run was
        resumed."""
        self.step_began = time.time()
        return self.seconds_before + self.step_began - self.began

    def steps_by_time(self, progress: Progress) -> float:
        """The step at which training would stand if --max-minutes alone set the pace; 0 without a limit."""
        budget = self.cfg.max_minutes * 60  # seconds
        return progress.seconds / budget * self.cfg.steps if budget else 0.0

    def reason_to_stop(self, progress: Progress) -> str:
        """Why training should end now, or ""."""
        if self.cfg.max_minutes and self.steps_by_time(progress) >= self.cfg.steps:
            return f"{self.cfg.max_minutes:g} minutes are over"
        return "no better score lately" if 0 < self.cfg.patience <= progress.worse else ""

    def end_step(self, progress: Progress) -> tuple[float, float]:
        """(seconds that the step took, seconds left)."""
        now = time.time()
        seconds_a_step = (now - self.began) / (progress.step - self.first_step)
        left = seconds_a_step * (self.cfg.steps - progress.step)
        if self.cfg.max_minutes:
            left = min(left, self.cfg.max_minutes * 60 - self.seconds_before - now + self.began)
        return now - self.step_began, left


class Interrupt:
    """Makes Ctrl-C and SIGTERM ask the loop to stop after its step. A second signal, or one after the loop,
    stops at once."""

    def __init__(self):
        self.asked = False
        self.handlers = {}
        for kind in (signal.SIGINT, signal.SIGTERM):
            self.handlers[kind] = signal.signal(kind, self.ask)

    def restore_handlers(self):
        for kind, handler in self.handlers.items():
            signal.signal(kind, handler)

    def ask(self, kind, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step ...", file=sys.stderr)


# ------------------------------------------------------------------------------------------------ the folder
FILES = {"run.json", "log.txt", "metrics.jsonl", "rollouts.jsonl", "samples.jsonl", "before.json"}


def check_name(name: str):
    """Raise UsageError for a name of a run that is no plain folder name."""
    if name and Path(name).name != name or name in ("latest", ".."):  # latest is a link to the newest run
        raise UsageError(f"--name {name}: must be a plain folder name")


def clear_dead_run(folder: Path, argv: list | None):
    """Empty the folder of a run that the same call began, and that has no checkpoint. Raises FileExistsError
    for any other folder."""
    names = {path.name for path in folder.iterdir()}
    # a kill may leave a checkpoint half written, or complete and not linked yet
    remains = {name for name in names if name.endswith(".partial") or name.startswith("step-")}
    begun = read_settings(folder / "run.json", {"argv": list_of(TEXT)}, default={}).get("argv", argv)
    if argv is None or begun != argv or not names - remains <= FILES:
        raise FileExistsError(f"{folder} exists: take another --name, or continue it with --resume {folder}")
    for name in names:
        remove(folder / name)


class Run:
    """The folder of one training run, new or resumed.

    With several ranks only the first one writes. The others are `quiet`; if the model is `sharded`, they help
    the first to gather what it writes."""

    def __init__(self, folder: Path | str, quiet=False, sharded=False):
        self.folder = Path(folder).resolve()
        self.bar = None
        self.quiet = quiet
        self.sharded = sharded
        self.saved = None  # step of the newest checkpoint

    @classmethod
    def new(cls, runs: Path | str, task: str, name="", sharded=False, argv=None, locks=None) -> "Run":
        """Make a new folder in `runs`. Its name defaults to the task and the time.

        argv: the call; if it began a run of this name that was killed before its first checkpoint, the run
        begins again in its folder. locks: an ExitStack that holds the lock of the folder."""
        check_name(name)
        if os.path.lexists(runs) and not Path(runs).is_dir():
            raise NotADirectoryError(f"{runs}: no folder, so no runs can be in it")
        base = Path(runs) / (name or f"{task}-{time.strftime('%m%d-%H%M')}")
        folder = base
        suffix = 2  # for a second run of the same minute
        while True:
            try:
                with ExitStack() as lock:  # which ends here for a folder that is not ours
                    if locks:
                        lock.enter_context(locked(folder))
                    if folder.exists():
                        clear_dead_run(folder, argv)
                    folder.mkdir(parents=True, exist_ok=True)
                    if locks:
                        locks.push(lock.pop_all())
                    return cls(folder, sharded=sharded)
            except (FileExistsError, BlockingIOError):
                if name:
                    raise
            folder = base.with_name(f"{base.name}-{suffix}")
            suffix += 1

    def start_bar(self, total: int, done: int):
        """Show a progress bar over steps. Lines are printed above it."""
        hidden = self.quiet or not os.isatty(2)  # a bar would fill a log file with its redrawn lines
        self.bar = tqdm(total=total, initial=done, disable=hidden, unit="step")

    def print(self, line: str):
        """Print a line to the terminal and to log.txt."""
        if not self.quiet:
            (self.bar or tqdm).write(line)  # print() would break the bar
            self.log(line)

    def log(self, line: str):
        """Append a line to log.txt, escaped and without its colours."""
        if self.quiet:
            return
        append(self.folder / "log.txt", printable(unpaint(line)) + "\n")

    def write(self, name: str, value):
        """Write one of the run's JSON files."""
        if not self.quiet:
            write_json(self.folder / name, value)

    def record(self, name: str, row: dict):
        """Append a row to NAME.jsonl, such as metrics.jsonl."""
        if self.quiet:
            return
        append(self.folder / f"{name}.jsonl", json_lines([row]))

    def rewind(self, step: int):
        """Drop what a kill has left: checkpoints that no link names, and the rows of metrics.jsonl and
        rollouts.jsonl after a step, which a resumed run writes again."""
        if self.quiet:
            return
        self.tidy()
        for name in ("metrics.jsonl", "rollouts.jsonl"):
            path = self.folder / name
            if not os.path.lexists(path):
                continue
            kept_lines = []
            for place, line in enumerate(complete_lines(path)[0], 1):
                row = parse_json(line, path, place)
                check_fields(f"{path}, line {place}", row, {"step": COUNT}, ["step"])
                if row["step"] <= step:
                    kept_lines.append(line + "\n")
            write_text(path, "".join(kept_lines))

    # -------------------------------------------------------------------------------------------- checkpoints
    def save(self, step: int, write_model, optimizers, state: dict):
        """Write the checkpoint of a step.

        write_model(folder) writes the weights, or with None only gathers them. `state` is what else resuming
        needs; `load_state` returns it.

        Raises OSError if saving fails, as on a full disk. The message says what can be resumed: the
        checkpoint before stays as it is."""
        already_saved = self.saved == step  # a step has one result, so it is not written again
        self.saved = step
        if already_saved:
            return
        if self.quiet:
            if self.sharded:  # gathering needs every rank
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
                state = {"step": step, **state, "scalars": scalars, "tensors": sorted(tensors)}
                write_json(partial / "state" / "state.json", state)
            link(self.folder / "model", name)  # from here on, resuming starts at this step
            link(self.folder.parent / "latest", self.folder.name)
        except Exception as error:  # safetensors has its own exception for a full disk
            advice = "no checkpoint was saved before it"
            if (self.folder / "model").exists():
                last = os.readlink(self.folder / "model")
                advice = f"{last} is complete: make room, then continue with --resume {self.folder}"
            raise OSError(f"{self.folder}: saving step {step} failed ({error}); {advice}") from error
        self.tidy()

    def mark_best(self):
        """Mark the newest checkpoint as the best so far."""
        if self.quiet:
            return
        link(self.folder / "best", os.readlink(self.folder / "model"))
        self.tidy()

    def tidy(self):
        """Delete the checkpoints that no link names."""
        links = [self.folder / name for name in ("model", "best")]
        linked = {os.readlink(path) for path in links if path.is_symlink()}
        for path in self.folder.glob("step-*"):
            if path.name not in linked:
                shutil.rmtree(path, ignore_errors=True)

    def load_state(self, optimizers) -> dict:
        """Load the state of the newest checkpoint into the optimizers. Returns the rest, {"step", ...}."""
        folder = self.folder / "model" / "state"
        if not folder.exists():
            raise FileNotFoundError(f"{self.folder}: no checkpoint to resume from")
        state = read_settings(folder / "state.json", STATE, ["step", "scalars"])
        path = regular(folder / "optimizer.safetensors")
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: truncated or damaged ({error})") from error
        if wrong := set(tensors).symmetric_difference(
            state.pop("tensors", tensors)
        ):  # older runs have no list
            raise ValueError(f"{path}: {min(wrong)} is missing, or not of this checkpoint")
        self.saved = state["step"]
        try:
            unpack_state(optimizers, tensors, state.pop("scalars"))
        except (ValueError, LookupError) as error:
            raise ValueError(f"{path}: not the state of these optimizers ({error})") from error
        return state


# A packed state is keyed OPTIMIZER.PARAMETER.KEY, the first two by number: 0.12.exp_avg. Safetensors stores
# tensors only, so the scalars among the values go into state.json.
def pack_state(optimizers):
    """(tensors, scalars): the states of all optimizers, flat, on the CPU and gathered from the ranks."""
    tensors = {}
    scalars = {}
    for i, optimizer in enumerate(optimizers):
        for n, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                if torch.is_tensor(value):
                    tensors[f"{i}.{n}.{key}"] = whole(value).detach().cpu().contiguous()
                else:
                    scalars[f"{i}.{n}.{key}"] = value
    return tensors, scalars


def unpack_state(optimizers, tensors, scalars):
    """Put a packed state into fresh optimizers over the same parameters."""
    for i, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        parameters = dict(enumerate(weights))
        for name, value in {**tensors, **scalars}.items():
            owner, n, key = name.split(".", 2)
            if int(owner) == i:
                weight = parameters[int(n)]
                if torch.is_tensor(value):
                    fits = value.is_floating_point() and value.shape in (weight.shape, ())
                    if not fits:
                        raise ValueError(f"{name} is {value.dtype} {[*value.shape]}, not {[*weight.shape]}")
                state["state"].setdefault(int(n), {})[key] = split_as(weight, value)
        if len({frozenset(values) for values in state["state"].values()}) > 1:
            raise ValueError("some parameters lack a value that others have")
        optimizer.load_state_dict(state)
