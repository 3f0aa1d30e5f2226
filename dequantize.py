"""Reading quantised files: their matrices become plain ones at load, one at a time.

Read are bitsandbytes (4 and 8 bits), FP8 with a scale for each block, compressed-tensors (FP8, int8, and 4 or
8 bits packed in int32), GPTQ and AWQ. What a file's own program does besides is left out: it rounds the
inputs of layers to 8 bits, and we do not.

Shapes: O outputs and I inputs of a layer, G groups of inputs that share a scale."""

import json
from functools import partial

import torch
from torch import Tensor

from files import FLAG, TEXT, by_key, check_fields, list_of, number, one_of, whole
from quantized import unpack_nibbles

SIZE = whole(1, 1 << 20)
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where output i of eight lies in an int32
# the names of the tensors that a matrix consists of, behind that of its layer
PARTS = (
    "weight weight_scale weight_scale_inv weight_zero_point weight_packed weight_shape weight_g_idx "
    "input_scale activation_scale qweight qzeros scales g_idx SCB weight_format weight.absmax "
    "weight.quant_map weight.nested_absmax weight.nested_quant_map weight.quant_state.bitsandbytes__nf4 "
    "weight.quant_state.bitsandbytes__fp4"
).split()


# ------------------------------------------------------------------------------------------------ the forms
def unpack(packed: Tensor, bits: int) -> Tensor:
    """The unsigned numbers in int32, from the lowest bits up: (N, n) -> (N, n * 32 / bits), uint8."""
    octets = packed.contiguous().view(torch.uint8)
    return octets if bits == 8 else torch.stack([octets & 15, octets >> 4], -1).flatten(-2)


def block_of_each(n: int, blocks: int, size: int) -> Tensor:
    """The block that each of n rows or columns is in, (n,). All are equal, unless blocks of this size fit."""
    if -(-n // size) != blocks:
        size = n // blocks
    return torch.arange(blocks).repeat_interleave(size)[:n]


def scale(codes, scales, zeros=None, columns=None, size=(1, 1)) -> Tensor:
    """(codes - zeros) * scales, in float32. codes (O, I); scales and zeros have a number for each block of
    rows and columns, or are vectors with one for each row. columns (I,): the block of each column."""
    scales = scales.reshape(len(scales) if scales.dim() else 1, -1)
    rows = block_of_each(len(codes), len(scales), size[0])[:, None]
    if columns is None:
        columns = block_of_each(codes.shape[1], scales.shape[1], size[1])
    matrix = codes.float()
    if zeros is not None:
        matrix -= zeros.reshape(scales.shape)[rows, columns]
    return matrix.mul_(scales.float()[rows, columns])


def scaled(parts, settings):
    """FP8 or int8 of compressed-tensors, and FP8 with blocks."""
    scales = parts.get("weight_scale_inv", parts.get("weight_scale"))
    if not scales.is_floating_point():
        raise ValueError(f"scales in {scales.dtype}")
    size = settings.get("weight_block_size") or (128, 128)
    return scale(parts["weight"], scales, parts.get("weight_zero_point"), size=size)


def packed(parts, settings):
    """4 or 8 bits of compressed-tensors in int32; their zero is in the middle."""
    words = parts["weight_packed"]
    zeros = parts.get("weight_zero_point")
    height, width = parts["weight_shape"].tolist()
    bits = 4 if words.shape[1] == -(-width // 8) else 8
    signed = lambda words: unpack(words, bits).short() - 2 ** (bits - 1)
    if zeros is None and "'symmetric': False" in str(settings):
        raise ValueError("weight_zero_point is missing")
    if zeros is not None and zeros.dtype == torch.int32:  # packed by columns
        zeros = signed(zeros.mT).mT[:height]
    return scale(signed(words)[:, :width], parts["weight_scale"], zeros, parts.get("weight_g_idx"))


def gptq(parts, settings):
    """Packed by columns; zeros are stored less 1, except in its second version."""
    bits = settings["bits"]
    zeros = unpack(parts["qzeros"], bits)
    if "gptq_v2" not in (settings.get("format"), settings.get("checkpoint_format")):
        zeros = zeros + 1 & 2**bits - 1
    columns = parts["g_idx"] if settings.get("desc_act") else parts.get("g_idx")
    return scale(unpack(parts["qweight"].mT, bits), parts["scales"].mT, zeros.mT, columns)


def awq(parts, settings):
    """4 bits packed by rows of (I, O), eight outputs in an order of its own."""
    in_order = lambda words: unpack(words, 4).unflatten(1, (-1, 8))[:, :, AWQ_ORDER].flatten(1).mT
    return scale(in_order(parts["qweight"]), parts["scales"].mT, in_order(parts["qzeros"]))


def nibbles(parts, settings):
    """4 bits of bitsandbytes: entries of a table, times a scale for each block of the flat matrix."""
    (name,) = (name for name in parts if ".quant_state." in name)
    state = check_fields(name, json.loads(bytes(parts[name].tolist())), KINDS, ["blocksize", "shape"])
    scales = parts["weight.absmax"]
    if "nested_offset" in state:  # the scales are such entries, too
        steps = parts["weight.nested_absmax"].repeat_interleave(state["nested_blocksize"])[: len(scales)]
        scales = parts["weight.nested_quant_map"][scales.int()] * steps + state["nested_offset"]
    numbers = unpack_nibbles(parts["weight"].flatten(), parts["weight.quant_map"])
    numbers *= scales.repeat_interleave(state["blocksize"])[: len(numbers)]
    return numbers.view(state["shape"])


def rows(parts, settings):
    """8 bits of bitsandbytes, with each row's largest number."""
    if parts["weight_format"] != 0:
        raise ValueError("not stored row by row")
    return scale(parts["weight"], parts["SCB"] / 127)


METHODS = {  # quant_method -> a part that only its matrices have -> the function that makes one
    "bitsandbytes": {"weight.absmax": nibbles, "SCB": rows},
    "fp8": {"weight_scale_inv": scaled},
    "compressed-tensors": {"weight_packed": packed, "weight_scale": scaled},
    "gptq": {"qweight": gptq},
    "awq": {"qweight": awq},
}
KINDS = by_key(
    {
        one_of(*METHODS): "quant_method",
        one_of(4, 8): "bits",
        FLAG: "desc_act",
        TEXT: "format checkpoint_format",
        one_of("e4m3"): "fmt",
        one_of(None, {}): "transform_config kv_cache_scheme",  # these change more than matrices
        list_of(SIZE, 2): "weight_block_size shape",
        SIZE: "blocksize nested_blocksize",
        number(-1e9, 1e9): "nested_offset",
    }
)
FORMATS = {  # quant_method -> what its keys for the form of its tensors may hold
    "gptq": by_key({one_of("gptq", "gptq_v2"): "format checkpoint_format"}),
    "awq": by_key({one_of("gemm", "GEMM"): "format version", one_of(4): "bits"}),
    "compressed-tensors": by_key(
        {one_of("float-quantized", "int-quantized", "naive-quantized", "pack-quantized"): "format"}
    ),
}


# ------------------------------------------------------------------------------------------------ a file
def plain_tensors(where, places: dict[str, tuple], settings) -> dict[str, tuple]:
    """Key -> (path, function that reads it) of the tensors that a file stands for. places: of those that it
    has; settings: its quantization_config. Layers that the file leaves unquantised stay as they are."""
    where = f"{where}: quantization_config"
    method = check_fields(where, settings, KINDS, ["quant_method"])["quant_method"]
    check_fields(where, settings, FORMATS.get(method, {}))
    plain = dict(places)
    quantised = {}  # behind the others, whose dtype is the model's
    for marker, form in METHODS[method].items():
        for key, (path, _) in places.items():
            if key in plain and key.endswith(f".{marker}"):
                layer = key.removesuffix(marker)
                parts = {part: plain.pop(layer + part) for part in PARTS if layer + part in plain}
                name = f"{layer}weight"
                quantised[name] = path, partial(assemble, path, name, form, parts, settings)
    return plain | quantised


def assemble(path, name, form, parts, settings):
    """The matrix of this name. Raises ValueError that names it where its parts do not fit together."""
    try:
        return form({part: read() for part, (_, read) in parts.items()}, settings)
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
        method = settings["quant_method"]
        raise ValueError(f"{path}: {name} is no quantised matrix of {method} ({error})") from error
