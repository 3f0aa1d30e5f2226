"""A run's folder: log, metrics, checkpoints that are whole or absent, and how to find the newest.

    runs/20q-1121-1402/  run.json  log.txt  metrics.jsonl  samples.jsonl  eval.json
                         step-500/  a model folder, and in its state/ what resuming needs
                         model -> step-500    best -> step-250

A checkpoint is written under a temporary name, flushed, renamed, and only then does the link `model` move to
it, in one atomic step: model and optimizer can never come from different steps. Checkpoints without a link to
them are deleted."""

import json
import os
import re
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from ranks import split_as, whole


def trained_on(folder):
    """Ids of examples that the model in this folder was trained on, where they count (Task.trained_on)."""
    path = Path(folder) / "trained.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_json(path, value):
    """Write JSON so that a reader sees the old file or the new one."""
    replace_text(path, json.dumps(value, indent=2) + "\n")


def replace_text(path, text):
    """Write a file under a temporary name, flush, rename."""
    partial = Path(f"{path}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def link(name, target):
    """Make or move a symbolic link in one step."""
    partial = Path(f"{name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    os.replace(partial, name)
    folder = os.open(Path(name).parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


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
            raise ValueError(f"--name {name}: must be a plain folder name")
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

    def record(self, name, row):
        """Append a row to metrics.jsonl or samples.jsonl."""
        if self.quiet:
            return
        with open(self.folder / f"{name}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def rewind(self, step):
        """Forget the rows of metrics.jsonl and rollouts.jsonl after a step: a resumed run writes them
        again."""
        paths = [self.folder / name for name in ("metrics.jsonl", "rollouts.jsonl")]
        for path in [path for path in paths if path.exists() and not self.quiet]:
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows was cut by a kill
            kept = [line + "\n" for line in lines if json.loads(line)["step"] <= step]
            replace_text(path, "".join(kept))

    # -------------------------------------------------------------------------------------------- checkpoints
    def save(self, step, write_model, optimizers, best=None, **kept):
        """Checkpoint of a step: write_model(folder) writes the weights (None only gathers them); `state`
        gives best (the score so far) and kept (what else resuming needs) back.

        Raises OSError with the state of things when the disk is full; what was saved before stays as it is.
        """
        name, again = f"step-{step}", self.saved == step  # a step has one result
        self.saved = step
        if again or self.quiet:
            if self.sharded and not again:
                write_model(None)
                pack_state(optimizers)
            return
        partial = self.folder / f"{name}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            write_model(partial)
            (partial / "state").mkdir()
            tensors, scalars = pack_state(optimizers)
            save_file(tensors, partial / "state" / "optimizer.safetensors")
            write_json(
                partial / "state" / "state.json", {"step": step, "best": best, **kept, "scalars": scalars}
            )
            for path in partial.rglob("*"):
                if path.is_file():
                    with open(path, "rb") as file:
                        os.fsync(file.fileno())
            shutil.rmtree(self.folder / name, ignore_errors=True)
            os.replace(partial, self.folder / name)
            link(self.folder / "model", name)
            link(self.folder.parent / "latest", self.folder.name)
        except Exception as error:  # safetensors raises its own kind for a full disk
            shutil.rmtree(partial, ignore_errors=True)
            state = "no checkpoint was saved before it"
            if (self.folder / "model").exists():
                last = os.readlink(self.folder / "model")
                state = f"{last} is whole: make room, then continue with --resume {self.folder}"
            raise OSError(f"{self.folder}: saving step {step} failed ({error}); {state}") from error
        self.tidy()

    def mark_best(self):
        """The newest checkpoint is the best one so far."""
        if self.quiet:
            return
        link(self.folder / "best", os.readlink(self.folder / "model"))
        self.tidy()

    def tidy(self):
        kept = {
            os.readlink(self.folder / name) for name in ("model", "best") if (self.folder / name).is_symlink()
        }
        for old in self.folder.glob("step-*"):
            if old.name not in kept:
                shutil.rmtree(old, ignore_errors=True)

    def state(self):
        """{"step", "best", ...} and the optimizer tensors of the newest checkpoint."""
        folder = self.folder / "model" / "state"
        if not folder.exists():
            raise FileNotFoundError(f"{self.folder}: no checkpoint to resume from")
        try:
            tensors = load_file(folder / "optimizer.safetensors")
        except SafetensorError as error:
            raise ValueError(f"{folder / 'optimizer.safetensors'}: truncated or damaged ({error})") from error
        state = json.loads((folder / "state.json").read_text())
        self.saved = state["step"]
        return state, tensors


def pack_state(optimizers):
    """Optimizer states as flat tensors and scalars, by optimizer, parameter number and key."""
    tensors, scalars = {}, {}
    for o, optimizer in enumerate(optimizers):
        for p, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                kind = tensors if torch.is_tensor(value) else scalars
                kind[f"{o}.{p}.{key}"] = (
                    whole(value).detach().cpu().contiguous() if torch.is_tensor(value) else value
                )
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


def table(after, before=None):
    """Lines that set an evaluation beside the one before training, if given, and its baseline."""

    def cell(result, name):
        value, interval = result["metrics"].get(name), result["intervals"].get(name)
        text = "-" if value is None else f"{value:.3f}"
        return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else f"{text:21}"

    width = max([28, *(len(name) + 1 for name in after["metrics"])])
    lines = [" " * width + (f"{'before':>22}{'after':>22}" if before else " " * 22) + f"{'baseline':>10}"]
    for name in after["metrics"]:
        columns = [cell(result, name) for result in (before, after) if result]
        base = after["baselines"].get(name)
        lines.append(
            f"{name:{width}}"
            + "".join(f"{c:>22}" for c in columns)
            + ("" if base is None else f"{base:>10.3f}")
        )
    return [
        *lines,
        *after.get("notes", []),
        f"n = {after['n']}" + (f" after, {before['n']} before" if before else "") + "; 95 % intervals",
    ]


# ------------------------------------------------------------------------------------------------ the machine
def device_of(name):
    """The device of a name; of several ranks each takes the card of its own number."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch finds no CUDA device here")
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise ValueError(f"--device {name}: {error}") from error
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        return device
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def memory_of_machine():
    """Bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def dtype_of(name, device):
    """The dtype of matrix products: bfloat16 on a device that multiplies it natively, else float32."""
    if name == "auto":
        native = {
            "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
            "cpu": getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False),
        }
        return torch.bfloat16 if native.get(device.type, lambda: False)() else torch.float32
    if name not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype {name}: must be auto, float32, bfloat16 or float16")
    return getattr(torch, name)


def autocast(device, compute):
    """Matrix products in the dtype `compute`, within a with block."""
    return nullcontext() if compute == torch.float32 else torch.autocast(device.type, compute)


def duration(seconds):
    """'52s', '38m' or '2h05m'."""
    seconds = int(seconds)
    if seconds < 100:
        return f"{seconds}s"
    return f"{seconds // 60}m" if seconds < 6000 else f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
