"""Tensors in safetensors files: reading, writing, and which files of a model folder hold its weights."""

import re
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from files import TEXT, inside, map_of, read_settings, regular, replacing

INDEX = "model.safetensors.index.json"  # which shard holds which tensor
# weights_only refuses pickles that run code; clone(), because safetensors refuses tensors that share memory
FROM_PICKLE = (
    'python -c "import torch, safetensors.torch as s; '
    "w = [torch.load(f, weights_only=True) for f in {0}]; "
    "s.save_file({{k: v.clone().contiguous() for part in w for k, v in part.items()}}, '{1}', "
    "dict(format='pt'))\""
)
PICKLED = r"(pytorch_model|model|consolidated|weights).*\.(bin|pt|pth)"  # not optimizer.pt and the like


def open_tensors(path: Path, device="cpu"):
    """A safetensors file with keys() and get_tensor(key). Raises FileNotFoundError, or ValueError for a file
    that is damaged."""
    try:
        return safe_open(regular(path), framework="pt", device=str(device))
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated or damaged ({error}); download or copy it again") from error


def read_tensor(path: Path, key: str, device="cpu") -> Tensor:
    """One tensor of a file, which a CPU maps for it: the pages are let go with the tensor."""
    return open_tensors(path, device).get_tensor(key)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file."""
    file = open_tensors(path)
    return {key: file.get_tensor(key) for key in file.keys()}


def write_tensors(path: Path, tensors: dict[str, Tensor]):
    """Write tensors, from any device, to a file: all of them or none."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(tensors, partial, metadata={"format": "pt"})  # transformers checks it
        except SafetensorError as error:  # its own exception for a full disk
            raise OSError(f"{path}: not written ({error})") from error


class Unfilled(TorchFunctionMode):
    """A context in which modules draw no random numbers for their new weights."""

    def __torch_function__(self, function, types, arguments=(), named=None):
        if getattr(function, "__module__", "") == "torch.nn.init":
            return arguments[0] if arguments else named["tensor"]
        return function(*arguments, **(named or {}))


@contextmanager
def shapes_only():
    """A context in which modules have shapes and no numbers, whatever their size, for weights that come from
    a file. To fill them, torch would import its compiler, which takes a second."""
    with torch.device("meta"), Unfilled():
        yield


def cut_rows(path: Path, name: str, tensor: Tensor, weights: list[Tensor], groups=1) -> list[Tensor]:
    """Cut a tensor of a file by rows into the parts for several weights of ours, which it holds stacked.
    Raises ValueError where its shape is not that of the stack, or its dtype none of a model.

    With groups it holds group after group, and in each a part of every weight: for q of 4 rows, k and v of 2,
    and 2 groups, its rows are q q k v q q k v."""
    if not tensor.is_floating_point() or tensor.itemsize < 2:  # numbers that mean nothing without a scale
        raise ValueError(
            f"{path}: {name} holds {tensor.dtype}; quantised weights need a scale, see dequantize.py"
        )
    heights = [len(weight) for weight in weights]
    shape = (sum(heights), *weights[0].shape[1:])
    if tensor.shape != shape:
        raise ValueError(f"{path}: {name} has shape {tuple(tensor.shape)}, but the config asks for {shape}")
    # (groups, rows of a group, ...), every group cut at the same heights
    parts = tensor.unflatten(0, (groups, -1)).split([height // groups for height in heights], dim=1)
    return [part.flatten(0, 1) for part in parts]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights of a model folder: one file, or the shards of its index. An
    index beside the one file, which it does not name, is left over from earlier shards."""
    index = folder / INDEX
    single = folder / "model.safetensors"
    if index.exists():
        weight_map = read_settings(index, {"weight_map": map_of(TEXT)}, ["weight_map"])["weight_map"]
        shards = [inside(folder, name) for name in sorted(set(weight_map.values()) or {single.name})]
        if single in shards or not single.exists():
            return shards
    if single.exists():
        return [single]
    weights = [str(path) for path in sorted(folder.glob("*")) if re.fullmatch(PICKLED, path.name)]
    if weights:
        raise FileNotFoundError(
            f"{folder}: only pickled weights, which can run code when read; convert them once with\n"
            + FROM_PICKLE.format(weights, single)
        )
    raise FileNotFoundError(f"{folder}: no model.safetensors or {INDEX}")


def tensors_of(folder: Path, config, family, device="cpu") -> dict[str, tuple]:
    """Usual name -> (path, function that reads it) of each tensor of a model folder, without those that the
    family ignores. Raises ValueError if they are not enough for the config's layers."""
    places = {}
    for path in weight_files(folder):
        for key in open_tensors(path).keys():
            places[key] = path, partial(read_tensor, path, key, device)
    settings = config.hf.get("quantization_config")
    if settings is not None:
        from dequantize import plain_tensors

        places = plain_tensors(folder / "config.json", places, settings)
    tensors = {name: places[key] for key, name in family.usual_names(places).items()}
    layers = {part.split(".")[1] for part in map(family.our_name, tensors) if part.startswith("layers.")}
    if config.layers > len(layers):  # thousands would take minutes to build
        raise ValueError(
            f"{folder}: num_hidden_layers is {config.layers}, but the files hold {len(layers)} layers"
        )
    return tensors


def fresh_weight(key: str, shape, generator: torch.Generator) -> Tensor:
    """A classifier weight that the checkpoint lacks. Matrices are normal with std 1/sqrt(D), cut off at two
    standard deviations."""
    weight = torch.full(shape, 0.0 if key.endswith("bias") else 1.0)
    if weight.dim() == 2:
        std = weight.shape[1] ** -0.5
        torch.nn.init.trunc_normal_(weight, 0, std, -2 * std, 2 * std, generator=generator)
    return weight


def tie(state, folder):
    """Give head and embedding one matrix, whichever of them the file holds."""
    pair = [state[key] for key in ("embed.weight", "head.weight") if key in state]
    if pair:
        if not torch.equal(pair[0], pair[-1].to(pair[0])):
            raise ValueError(
                f"{folder}: config.json ties head and embedding, but the file holds two different ones"
            )
        state["embed.weight"] = state["head.weight"] = pair[0]
