"""Tensors in safetensors files: those of one file, and which files of a model folder hold its weights."""

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from files import inside, read_json, replacing

INDEX = "model.safetensors.index.json"
FROM_PICKLE = (
    "python -c \"import torch, safetensors.torch as s; w = torch.load('{0}', weights_only=True); "
    "s.save_file({{k: v.clone() for k, v in w.items()}}, '{1}', dict(format='pt'))\""
)


def read_tensors(path):
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: truncated, damaged or missing ({error})") from error


def write_tensors(path, tensors):
    """Write tensors of any device to a file, whole or not at all."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})


def cut_rows(path, name, tensor, weights, groups=1):
    """The parts of a file's tensor that several weights of ours are, one behind the other in each group of
    rows. Raises ValueError where it has another shape than all of them together."""
    heights = [len(weight) for weight in weights]
    shape = (sum(heights), *weights[0].shape[1:])
    if tensor.shape != shape:
        both = f"{tuple(tensor.shape)}, but the config asks for {shape}"
        raise ValueError(f"{path}: {name} has shape {both}")
    parts = tensor.unflatten(0, (groups, -1)).split([height // groups for height in heights], dim=1)
    return [part.flatten(0, 1) for part in parts]


def weight_files(folder):
    """The safetensors files of a model folder, single or sharded."""
    index, single = folder / INDEX, folder / "model.safetensors"
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if weight_map is None:
            raise ValueError(f"{index}: no weight_map")
        return [inside(folder, name) for name in sorted(set(weight_map.values()))]
    if single.exists():
        return [single]
    for path in sorted(folder.glob("*")):
        if path.suffix in (".bin", ".pt", ".pth"):
            raise FileNotFoundError(
                f"{folder}: only pickled weights, which can run code when read; convert them once with\n"
                + FROM_PICKLE.format(path, single)
            )
    raise FileNotFoundError(f"{folder}: no model.safetensors or {INDEX}")
