"""The machine: devices, dtypes, memory, and ranks, the processes that torchrun starts, one for each card.

By default every rank holds the whole model and takes its share of a step's batches; shard() cuts the model
itself. In a single process the functions about ranks do nothing."""

import datetime
import functools
import math
import os
import sys
import time
from contextlib import nullcontext

import torch
import torch.distributed as dist

from terminal import UsageError


# ------------------------------------------------------------------------------------------------ the machine
def device_of(name: str) -> torch.device:
    """The device that --device names. With "auto" each rank takes the card of its own number."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch finds no CUDA device here")
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise UsageError(f"--device {name}: {error}") from error
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        return device
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products that --dtype names. With "auto" it is bfloat16 on a device that multiplies
    it natively, and float32 elsewhere."""
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if is_native(torch.bfloat16, device) else torch.float32


@functools.cache
def is_native(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device multiplies a half precision clearly faster than float32."""
    if device.type == "cuda":  # all that torch runs on multiply float16
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Measured, in a few ms, as the processor's flags do not tell: with AVX-512 BF16 an EPYC multiplies
    # bfloat16 2.3 times as fast as float32, and a Xeon half as fast. The best of five tries counts, so that
    # other work on the machine does not.
    a = torch.ones(64, 768)
    b = torch.ones(768, 768)
    halves = a.to(dtype), b.to(dtype)
    single = half = math.inf
    for _ in range(5):
        single = min(single, seconds(torch.mm, a, b))
        half = min(half, seconds(torch.mm, *halves))
        if half > 30 * single:  # float16, where it is emulated
            break
    return half * 1.3 < single


def seconds(function, *arguments) -> float:
    """The time that a call takes."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def dtype_for(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype in which to use weights that a file holds in `dtype`, by --dtype auto of infer.py: half
    precision stays on a device that multiplies it natively; elsewhere it becomes float16 on a card, float32
    on a processor."""
    if dtype == torch.float32 or device.type == "mps" or is_native(dtype, device):
        return dtype
    return torch.float16 if device.type == "cuda" else torch.float32


def autocast(device: torch.device, compute: torch.dtype):
    """A context in which matrix products are computed in the dtype `compute`."""
    return nullcontext() if compute == torch.float32 else torch.autocast(device.type, compute)


def memory_of(device: torch.device) -> int:
    """Free bytes on a graphics card, or all bytes of main memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# ------------------------------------------------------------------------------------------------ ranks
def join(device: torch.device) -> tuple[int, int]:
    """Connect this process with those that torchrun started. Returns (rank, world): its number, and how many
    there are."""
    world = count()
    if world == 1:
        return 0, 1
    if not dist.is_initialized():
        patience = datetime.timedelta(hours=4)  # the other ranks wait while the first one evaluates
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    return dist.get_rank(), world


def count() -> int:
    """How many processes torchrun started; before `join`, too."""
    return int(os.environ.get("WORLD_SIZE", 1))


def here() -> tuple[int, int]:
    """(rank, world) after `join`, (0, 1) without other ranks."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_first() -> bool:
    """Whether this is the first rank; before `join`, too."""
    return os.environ.get("RANK", "0") == "0"


def leave(code):
    """End the process with an exit code.

    A rank skips the clean-up of C++ at exit: threads of torch.distributed that are still running sometimes
    abort it ("terminate called without an active exception")."""
    if not dist.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def shard(model):
    """Cut every parameter over the ranks (FSDP2) and return the model, on the ranks' devices.

    Each rank keeps its part of every parameter, gradient and optimizer state. While it computes, it holds one
    whole block at a time."""
    from torch.distributed.device_mesh import init_device_mesh  # imported here because it takes a second
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for part in (*model.layers, model):
        fully_shard(part, mesh=mesh)
        part.set_gradient_divide_factor(1.0)  # losses are already divided by the weight of all ranks
        part.set_force_sum_reduction_for_comms(True)
    for head in ("logits", "classify"):  # methods besides forward() that read sharded weights
        register_fsdp_forward_method(model, head)
    return model


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be sharded. All ranks must call this together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def split_as(weight, value):
    """A value, cut over the ranks like the weight if it is a tensor of the same shape."""
    if not hasattr(weight, "full_tensor") or getattr(value, "shape", None) != weight.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)


def sum_over_ranks(*tensors):
    """Add up each tensor over all ranks, in place."""
    if dist.is_initialized():
        # All sums start before the first wait, so they overlap.
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()


def gather(value) -> list:
    """The values of all ranks, in the order of the ranks."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def from_first_rank(numbers: list, device: torch.device) -> list:
    """The first rank's numbers, on every rank. Clocks and scores differ between ranks, decisions must not."""
    if not dist.is_initialized():
        return numbers
    tensor = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return tensor.tolist()
