"""A run's folder: log, metrics, checkpoints that are whole or absent, and how to find the newest.

    runs/20q-1121-1402/  run.json  log.txt  metrics.jsonl  samples.jsonl  eval.json
                         step-500/  a model folder, and in its state/ what resuming needs
                         model -> step-500    best -> step-250

A checkpoint is written under a temporary name, flushed, renamed, and only then does the link `model` move to
it, in one atomic step: model and optimizer can never come from different steps. Checkpoints without a link to
them are deleted."""

import datetime
import json
import os
import re
import shutil
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm


def write_json(path, value):
    """Write JSON to a temporary name, flush, rename: a reader sees the old file or the new one."""
    partial = Path(f"{path}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
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
    `quiet`."""

    def __init__(self, folder, quiet=False):
        self.folder, self.bar, self.quiet = Path(folder).resolve(), None, quiet

    @classmethod
    def new(cls, runs, task, name=""):
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
        return cls(folder)

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
        """Forget the rows of metrics.jsonl after a step: a resumed run writes them again."""
        if self.quiet:
            return
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        path.write_text(
            "".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step),
            encoding="utf-8",
        )

    # -------------------------------------------------------------------------------------------- checkpoints
    def save(self, step, write_model, optimizers, best=None, **kept):
        """Checkpoint of a step: write_model(folder) writes the weights; `state` gives best (the score so far)
        and kept (what else resuming needs) back.

        Raises OSError with the state of things when the disk is full; what was saved before stays as it is.
        """
        name = f"step-{step}"
        if self.quiet or (self.folder / "model").resolve() == self.folder / name:
            return  # saved already, and a step has one result
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
        return json.loads((folder / "state.json").read_text()), tensors


def pack_state(optimizers):
    """Optimizer states as flat tensors and scalars, by optimizer, parameter number and key."""
    tensors, scalars = {}, {}
    for o, optimizer in enumerate(optimizers):
        for p, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                kind = tensors if torch.is_tensor(value) else scalars
                kind[f"{o}.{p}.{key}"] = (
                    value.detach().cpu().contiguous() if torch.is_tensor(value) else value
                )
    return tensors, scalars


def unpack_state(optimizers, tensors, scalars):
    """Put a packed state back into fresh optimizers over the same parameters."""
    for o, optimizer in enumerate(optimizers):
        whole = optimizer.state_dict()
        for name, value in {**tensors, **scalars}.items():
            number, p, key = name.split(".", 2)
            if int(number) == o:
                whole["state"].setdefault(int(p), {})[key] = value
        optimizer.load_state_dict(whole)


def table(after, before=None):
    """Lines that set an evaluation beside the one before training, if given, and its baseline."""

    def cell(result, name):
        value, interval = result["metrics"].get(name), result["intervals"].get(name)
        text = "-" if value is None else f"{value:.3f}"
        return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else f"{text:21}"

    lines = [
        f"{'':28}{'before':>22}{'after':>22}{'baseline':>10}"
        if before
        else f"{'':28}{'':>22}{'baseline':>10}"
    ]
    for name in after["metrics"]:
        columns = [cell(result, name) for result in (before, after) if result]
        base = after["baselines"].get(name)
        lines.append(
            f"{name:28}" + "".join(f"{c:>22}" for c in columns) + ("" if base is None else f"{base:>10.3f}")
        )
    return [
        *lines,
        f"n = {after['n']}" + (f" after, {before['n']} before" if before else "") + "; 95 % intervals",
    ]


# ------------------------------------------------------------------------------------------------ ranks
def ranks(device):
    """(rank, world): this process's number and how many torchrun started; joins them."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and not dist.is_initialized():
        patience = datetime.timedelta(hours=4)  # the others wait while the first evaluates
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    return (dist.get_rank(), world) if world > 1 else (0, 1)


def summed(*tensors):
    """Add up tensors over all ranks, in place."""
    if dist.is_initialized():
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()
    return tensors


def agreed(numbers, device):
    """The first rank's numbers on every rank, a list: clocks and scores differ, decisions must not."""
    if not dist.is_initialized():
        return numbers
    tensor = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return tensor.tolist()


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


def duration(seconds):
    """'52s', '38m' or '2h05m'."""
    seconds = int(seconds)
    if seconds < 100:
        return f"{seconds}s"
    return f"{seconds // 60}m" if seconds < 6000 else f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
