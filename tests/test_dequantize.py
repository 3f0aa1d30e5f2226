"""Quantised files: matrices that are written here from each format's definition are read as they were meant,
and what is not read is refused by name."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import model as models
from dequantize import METHODS, plain_tensors

O, I = 40, 256  # noqa: E741


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def integers(*shape, below, seed=0):
    return torch.randint(below, shape, generator=rng(seed))


def numbers(*shape, seed=0):
    return torch.rand(shape, generator=rng(seed)) * 0.1 + 0.01


def word(values, bits):
    """Numbers in one int32, the first in the lowest bits."""
    total = sum(int(value) << (bits * place) for place, value in enumerate(values))
    return total - (1 << 32) if total >= 1 << 31 else total


def pack_rows(codes, bits):
    """(N, n) -> (N, n * bits / 32) int32, padded with zeros."""
    size = 32 // bits
    rows = [row.tolist() + [0] * (-len(row) % size) for row in codes]
    return torch.tensor(
        [[word(row[i : i + size], bits) for i in range(0, len(row), size)] for row in rows], dtype=torch.int32
    )


# ------------------------------------------------------------------------------------------------ the formats
# Each gives (tensors of a layer, quantization_config, the matrix), by loops over single numbers where that
# says more than indexing.
def gptq(bits, version, act_order, key="checkpoint_format"):
    groups = 4
    codes = integers(O, I, below=2**bits)
    zeros = integers(O, groups, below=2**bits, seed=1)
    scales = numbers(O, groups).half()
    index = torch.arange(I) // (I // groups)
    if act_order:
        index = index[torch.randperm(I, generator=rng())]
    matrix = torch.empty(O, I)
    for i in range(I):
        matrix[:, i] = scales[:, index[i]].float() * (codes[:, i] - zeros[:, index[i]])
    stored = zeros if version == "gptq_v2" else (zeros - 1) % 2**bits
    tensors = {
        "qweight": pack_rows(codes, bits).T.contiguous(),
        "qzeros": pack_rows(stored.T, bits),
        "scales": scales.T.contiguous(),
        "g_idx": index.int(),
    }
    config = dict(quant_method="gptq", bits=bits, group_size=I // groups, desc_act=act_order, sym=False)
    return tensors, config | {key: version}, matrix


def awq():
    groups = 4
    codes = integers(I, O, below=16)
    zeros = integers(groups, O, below=16, seed=1)
    scales = numbers(groups, O).half()
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # the output that each 4 bits of an int32 are for

    def shuffled(values):
        return torch.cat([block[:, order] for block in values.split(8, dim=1)], 1)

    matrix = torch.empty(O, I)
    for i in range(I):
        group = i // (I // groups)
        matrix[:, i] = scales[group].float() * (codes[i] - zeros[group])
    tensors = {
        "qweight": pack_rows(shuffled(codes), 4),
        "qzeros": pack_rows(shuffled(zeros), 4),
        "scales": scales,
    }
    return (
        tensors,
        dict(quant_method="awq", bits=4, group_size=I // groups, zero_point=True, version="gemm"),
        matrix,
    )


def packed_integers(bits, symmetric, groups, act_order=False, zeros_packed=True):
    codes = integers(O, I, below=2**bits) - 2 ** (bits - 1)
    zeros = integers(O, groups, below=2**bits, seed=1) - 2 ** (bits - 1)
    scales = numbers(O, groups).bfloat16()
    index = torch.arange(I) // (I // groups)
    tensors = {
        "weight_packed": pack_rows(codes + 2 ** (bits - 1), bits),
        "weight_scale": scales,
        "weight_shape": torch.tensor([O, I]),
    }
    if act_order:
        index = index[torch.randperm(I, generator=rng())]
        tensors["weight_g_idx"] = index.int()
    if symmetric:
        zeros = torch.zeros_like(zeros)
    elif zeros_packed:
        tensors["weight_zero_point"] = pack_rows((zeros + 2 ** (bits - 1)).T, bits).T.contiguous()
    else:
        tensors["weight_zero_point"] = zeros.to(torch.int8)
    matrix = torch.empty(O, I)
    for i in range(I):
        matrix[:, i] = scales[:, index[i]].float() * (codes[:, i] - zeros[:, index[i]])
    return tensors, compressed("pack-quantized", symmetric), matrix


def compressed(form, symmetric=True):
    weights = dict(num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=64)
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    return dict(
        quant_method="compressed-tensors",
        format=form,
        config_groups=groups,
        ignore=["lm_head"],
        kv_cache_scheme=None,
    )


def compressed_scale(kind, dtype):
    shape = {"tensor": (1,), "channel": (O, 1), "group": (O, 4), "block": (1, 2)}[kind]
    scales = numbers(*shape)
    if dtype == torch.int8:
        weight = (integers(O, I, below=255) - 127).to(dtype)
    else:
        weight = torch.randn(O, I, generator=rng()).to(dtype)
    matrix = torch.empty(O, I)
    for o in range(O):
        for i in range(I):
            scale = (
                scales[0]
                if kind == "tensor"
                else scales[o if kind != "block" else o // 128, i * shape[1] // I]
            )
            matrix[o, i] = weight[o, i].float() * scale
    form = "int-quantized" if dtype == torch.int8 else "float-quantized"
    return {"weight": weight, "weight_scale": scales, "input_scale": numbers(1)}, compressed(form), matrix


def fp8(block):
    weight = torch.randn(O, I, generator=rng()).to(torch.float8_e4m3fn)
    config = dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=block)
    if block is None:
        scale = torch.tensor(0.37)
        tensors = {"weight": weight, "weight_scale_inv": scale, "activation_scale": torch.tensor(2.0)}
        return tensors, config, weight.float() * scale
    down, across = block
    scales = numbers(math.ceil(O / down), math.ceil(I / across))
    matrix = torch.empty(O, I)
    for o in range(O):
        for i in range(I):
            matrix[o, i] = weight[o, i].float() * scales[o // down, i // across]
    return {"weight": weight, "weight_scale_inv": scales}, config, matrix


def bnb4(kind, nested):
    table = torch.linspace(-1, 1, 16) ** 3 if kind == "nf4" else torch.linspace(-1, 1, 16)
    codes = integers(O * I, below=16)
    lengths = numbers(O * I // 64)
    tensors = {"weight.absmax": lengths, "weight.quant_map": table}
    state = dict(quant_type=kind, blocksize=64, dtype="bfloat16", shape=[O, I])
    if nested:
        steps = numbers(math.ceil(len(lengths) / 256), seed=3)
        entries = torch.linspace(-1, 1, 256) ** 3
        small = integers(len(lengths), below=256, seed=4)
        lengths = torch.stack([entries[small[n]] * steps[n // 256] + 0.25 for n in range(len(small))])
        tensors |= {
            "weight.absmax": small.to(torch.uint8),
            "weight.nested_absmax": steps,
            "weight.nested_quant_map": entries,
        }
        state |= dict(nested_blocksize=256, nested_dtype="float32", nested_offset=0.25)
    tensors[f"weight.quant_state.bitsandbytes__{kind}"] = torch.tensor(
        list(json.dumps(state).encode()), dtype=torch.uint8
    )
    tensors["weight"] = torch.tensor([16 * int(a) + int(b) for a, b in codes.view(-1, 2)], dtype=torch.uint8)[
        :, None
    ]
    matrix = torch.stack([table[code] * lengths[n // 64] for n, code in enumerate(codes)]).view(O, I)
    return tensors, dict(quant_method="bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type=kind), matrix


def bnb8():
    weight = (integers(O, I, below=255) - 127).to(torch.int8)
    largest = numbers(O)
    tensors = {"weight": weight, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    config = dict(quant_method="bitsandbytes", load_in_8bit=True, llm_int8_skip_modules=["lm_head"])
    return tensors, config, weight.float() * largest[:, None] / 127


FORMS = {
    "gptq": (gptq, 4, "gptq", False),
    "gptq-act-order": (gptq, 4, "gptq", True),
    "gptq-8": (gptq, 8, "gptq", True),
    "gptq-v2": (gptq, 4, "gptq_v2", False),
    "gptq-v2-8": (gptq, 8, "gptq_v2", False, "format"),
    "awq": (awq,),
    "packed-4": (packed_integers, 4, True, 4),
    "packed-8": (packed_integers, 8, True, 4),
    "packed-4-channel": (packed_integers, 4, True, 1),
    "packed-4-zeros": (packed_integers, 4, False, 4),
    "packed-8-zeros": (packed_integers, 8, False, 4),
    "packed-8-plain-zeros": (packed_integers, 8, False, 4, False, False),
    "packed-4-act-order": (packed_integers, 4, False, 4, True),
    "int8-channel": (compressed_scale, "channel", torch.int8),
    "fp8-tensor": (compressed_scale, "tensor", torch.float8_e4m3fn),
    "fp8-channel": (compressed_scale, "channel", torch.float8_e4m3fn),
    "fp8-group": (compressed_scale, "group", torch.float8_e4m3fn),
    "fp8-block-of-128": (compressed_scale, "block", torch.float8_e4m3fn),
    "fp8": (fp8, (128, 128)),
    "fp8-ragged": (fp8, (16, 128)),
    "fp8-scalar": (fp8, None),
    "bnb-nf4": (bnb4, "nf4", False),
    "bnb-nf4-nested": (bnb4, "nf4", True),
    "bnb-fp4": (bnb4, "fp4", False),
    "bnb-int8": (bnb8,),
}


def made(form):
    function, *arguments = FORMS[form]
    tensors, config, matrix = function(*arguments)
    return tensors, json.loads(json.dumps(config)), matrix


def read(tensors, config, layer="layer"):
    """{name: tensor} of a file with these tensors of a layer."""
    places = {f"{layer}.{part}": ("file", lambda tensor=tensor: tensor) for part, tensor in tensors.items()}
    return {key: get() for key, (_, get) in plain_tensors("config.json", places, config).items()}


@pytest.mark.parametrize("form", FORMS)
def test_a_matrix_is_read_as_its_format_defines_it(form):
    tensors, config, matrix = made(form)
    bias = numbers(O)
    found = read(tensors | {"bias": bias}, config)
    assert found.keys() == {"layer.weight", "layer.bias"} and found["layer.bias"] is bias
    assert_close(found["layer.weight"], matrix, atol=1e-6, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ whole files
def quantised_folder(tiny, folder, form="fp8"):
    """A model in a folder whose block matrices are quantised, and the plain model that it stands for."""
    plain = tiny(hidden_size=256, intermediate_size=O, num_attention_heads=4, num_key_value_heads=4)
    with torch.no_grad():
        for block in plain.layers:
            block.mlp.up_proj.weight.copy_(made(form)[2])
    models.save(plain, folder)
    tensors, config, _ = made(form)
    state = load_file(folder / "model.safetensors")
    for layer in range(2):
        name = f"model.layers.{layer}.mlp.up_proj"
        del state[f"{name}.weight"]
        state |= {f"{name}.{part}": tensor.clone().contiguous() for part, tensor in tensors.items()}
    write(folder, state, config)
    return plain


def write(folder, state=None, config=None):
    """Replace the tensors or the quantization_config of a folder."""
    if state is not None:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    if config is not None:
        hf = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(hf | {"quantization_config": config}))


IDS = torch.randint(300, (2, 9), generator=rng())


def logits(model):
    with torch.no_grad():
        return model.logits(model(IDS))


@pytest.mark.parametrize("form", ["gptq", "fp8-ragged"])
def test_a_quantised_folder_opens_as_the_model_that_it_stands_for(tiny, tmp_path, form):
    plain = quantised_folder(tiny, tmp_path / "quantised", form)
    model = models.load(tmp_path / "quantised")
    assert_close(logits(model), logits(plain), atol=1e-4, rtol=1e-4)
    models.save(model, tmp_path / "saved")  # as a plain folder
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    assert torch.equal(logits(models.load(tmp_path / "saved")), logits(model))
    again = models.load(tmp_path / "quantised", quantize="int8")  # packed again
    assert_close(again.layers[1].mlp.up_proj.weight, made(form)[2], atol=0.01, rtol=0)
    half = models.load(tmp_path / "quantised", torch.bfloat16)
    assert half.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16


def test_the_text_half_of_a_larger_file_may_be_quantised(tiny, tmp_path):
    quantised_folder(tiny, tmp_path, "fp8-scalar")
    inner = json.loads((tmp_path / "config.json").read_text())
    quantization = inner.pop("quantization_config")
    outer = {"model_type": "mistral3", "text_config": inner | {"model_type": "mistral"}}
    for hf in (outer | {"quantization_config": quantization}, outer):
        if hf is outer:
            hf["text_config"]["quantization_config"] = quantization
        (tmp_path / "config.json").write_text(json.dumps(hf))
        model = models.load(tmp_path)
        assert_close(model.layers[0].mlp.up_proj.weight, made("fp8-scalar")[2])


def test_tensors_that_remain_are_named(tiny, tmp_path):
    quantised_folder(tiny, tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.up_proj"
    cases = {
        "float8_e4m3fn": {f"{name}.weight_scale_inv": None},  # no scale
        f"{name}.weight is no quantised matrix of fp8": {f"{name}.weight_scale_inv": torch.ones(3, 7)},
        "weight_bitmask": {f"{name}.weight_bitmask": torch.ones(3)},
        f"{name}.weight has shape": {f"{name}.weight": whole[f"{name}.weight"][:, :128].contiguous()},
    }
    for message, changes in cases.items():
        state = {key: tensor for key, tensor in (whole | changes).items() if tensor is not None}
        write(tmp_path, state)
        with pytest.raises(ValueError, match=message):
            models.load(tmp_path)


@pytest.mark.parametrize(
    "config, word",
    [
        ({}, "quant_method is missing"),
        ({"bits": 4}, "quant_method is missing"),
        ({"quant_method": "hqq"}, "quant_method is 'hqq'"),
        ({"quant_method": ["fp8"]}, "quant_method is"),
        ({"quant_method": "gptq", "bits": 3}, "bits is 3"),
        ({"quant_method": "gptq", "bits": "4"}, "bits is '4'"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
        ({"quant_method": "gptq", "bits": 4, "format": "bitblas"}, "format is 'bitblas'"),
        ({"quant_method": "awq", "bits": 8, "version": "gemm"}, "bits is 8"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "version is 'gemv'"),
        ({"quant_method": "awq", "bits": 4, "format": "llm-awq"}, "format is 'llm-awq'"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size is"),
        ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "weight_block_size is"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt is 'e5m2'"),
        (compressed("nvfp4-pack-quantized"), "format is 'nvfp4"),
        (compressed("pack-quantized") | {"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme is"),
        (compressed("pack-quantized") | {"transform_config": {"config_groups": {}}}, "transform_config is"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tiny, tmp_path, config, word):
    models.save(tiny(), tmp_path)
    write(tmp_path, config=config)
    with pytest.raises(ValueError, match=f"config.json: quantization_config.*{word}"):
        models.load(tmp_path)


@pytest.mark.parametrize(
    "form", ["gptq-act-order", "awq", "packed-4-zeros", "fp8", "bnb-nf4-nested", "bnb-int8"]
)
def test_a_part_that_is_missing_or_of_another_size_names_the_layer(form):
    tensors, config, _ = made(form)
    for part in tensors:
        for changed in (None, tensors[part].flatten()[1:], torch.zeros(0)):
            state = {key: tensor for key, tensor in tensors.items() if key != part}
            if changed is not None:
                state[part] = changed
            try:
                read(state, config)
            except ValueError as error:
                assert "file: layer.weight is no quantised matrix of" in str(error)
            else:  # then load misses the weight, or finds parts that it does not know
                assert part in METHODS[config["quant_method"]]
