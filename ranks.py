"""The machine: devices, dtypes, memory, and several processes, one a card, started by torchrun.

By default every rank holds the model and takes its share of a step's batches; shard() cuts the model itself.
With one process what is about ranks does nothing."""

import datetime
import os
import sys
from contextlib import nullcontext

import torch
import torch.distributed as dist

from terminal import UsageError


# ------------------------------------------------------------------------------------------------ the machine
def device_of(name):
    """The device of a name; of several ranks each takes the card of its own number."""
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


def dtype_of(name, device):
    """The dtype of matrix products: for "auto" bfloat16 on a device that multiplies it natively, else
    float32."""
    if name != "auto":
        return getattr(torch, name)
    native = False
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if native else torch.float32


def autocast(device, compute):
    """Matrix products in the dtype `compute`, within a with block."""
    return nullcontext() if compute == torch.float32 else torch.autocast(device.type, compute)


def memory_of(device):
    """Bytes that are free on a graphics card, or of main memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# ------------------------------------------------------------------------------------------------ ranks
def join(device):
    """(rank, world): this process's number and how many torchrun started; joins them."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and not dist.is_initialized():
        patience = datetime.timedelta(hours=4)  # the others wait while the first evaluates
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    return (dist.get_rank(), world) if world > 1 else (0, 1)


def leave(code):
    """End the process with an exit code. One of several ranks skips what C++ does at exit, where threads of
    torch.distributed that still run abort it at times (terminate called without an active exception)."""
    if not dist.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def shard(model):
    """Cut every parameter over the ranks (FSDP2): each keeps its part, and its gradient and optimizer state,
    and holds one block at a time whole while it computes. Returns the model, on the ranks' devices."""
    from torch.distributed.device_mesh import init_device_mesh  # takes a second that others need not wait
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for part in (*model.layers, model):
        fully_shard(part, mesh=mesh)
        part.set_gradient_divide_factor(1.0)  # losses are divided by the weight of all ranks already
        part.set_force_sum_reduction_for_comms(True)
    for head in ("logits", "classify"):
        register_fsdp_forward_method(model, head)
    return model


def whole(tensor):
    """A tensor as one rank would have it: where it is sharded all ranks must ask for it together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def split_as(weight, value):
    """A value cut over the ranks as the weight is, where it has its shape."""
    if not hasattr(weight, "full_tensor") or getattr(value, "shape", None) != weight.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)


def summed(*tensors):
    """Add up tensors over all ranks, in place."""
    if dist.is_initialized():
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()
    return tensors


def gathered(value):
    """Every rank's value, in their order: a list."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def agreed(numbers, device):
    """The first rank's numbers on every rank, a list: clocks and scores differ, decisions must not."""
    if not dist.is_initialized():
        return numbers
    tensor = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return tensor.tolist()
