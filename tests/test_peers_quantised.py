"""Quantised files that other libraries wrote, read here and by them: pytest -m peers. Each part needs
transformers and the library at hand."""

import pytest
import torch
from torch.testing import assert_close

import model as models

pytestmark = pytest.mark.peers
transformers = pytest.importorskip("transformers")
IDS = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0))
SIZES = dict(hidden_size=128, intermediate_size=192, architectures=["LlamaForCausalLM"])


@pytest.fixture
def plain(tiny, tmp_path):
    """The folder of a model to quantise."""
    models.save(tiny("llama", **SIZES), tmp_path / "plain")
    return tmp_path / "plain"


def same(folder, theirs, atol=2e-4):
    """Ours, opened from the folder, gives the logits of theirs."""
    ours = models.load(folder, torch.float32)
    with torch.no_grad():
        found = ours.logits(ours(IDS))
        assert_close(found, theirs(IDS).logits.float(), atol=atol, rtol=1e-4)
    return found


def differs(found, plain):
    model = models.load(plain)
    with torch.no_grad():
        assert (found - model.logits(model(IDS))).abs().max() > 1e-3


@pytest.mark.parametrize("kind, nested", [("nf4", False), ("nf4", True), ("fp4", True)])
def test_four_bits_of_bitsandbytes(plain, tmp_path, kind, nested):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=nested,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=config, dtype=torch.float32, device_map="cpu"
    )
    theirs.save_pretrained(tmp_path / "quantised")
    ours = models.load(tmp_path / "quantised", torch.float32)  # their product itself may round to bfloat16
    assert_close(ours.head.weight, theirs.lm_head.weight)
    for block, other in zip(ours.layers, theirs.model.layers):
        weight = other.mlp.up_proj.weight
        matrix = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        assert_close(block.mlp.up_proj.weight, matrix, atol=1e-6, rtol=1e-6)


def test_eight_bits_of_bitsandbytes(plain, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=config, dtype=torch.float32, device_map="cpu"
    )
    theirs.save_pretrained(tmp_path / "quantised")
    ours = models.load(tmp_path / "quantised", torch.float32)
    layer = theirs.model.layers[1].mlp.up_proj
    weight = bitsandbytes.functional.int8_vectorwise_dequant(layer.weight.data, layer.weight.SCB)
    assert_close(ours.layers[1].mlp.up_proj.weight, weight)


WEIGHTS = {
    "pack-4-symmetric": dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32),
    "pack-4-asymmetric": dict(num_bits=4, type="int", symmetric=False, strategy="group", group_size=64),
    "pack-8-channel": dict(num_bits=8, type="int", symmetric=True, strategy="channel"),
    "float-channel": dict(num_bits=8, type="float", symmetric=True, strategy="channel"),
    "float-tensor": dict(num_bits=8, type="float", symmetric=True, strategy="tensor"),
    "float-block": dict(
        num_bits=8, type="float", symmetric=True, strategy="block", block_structure=[128, 128]
    ),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_compressed_tensors(plain, tmp_path, kind):
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from compressed_tensors.quantization.utils import calculate_qparams

    theirs = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    group = {"targets": ["Linear"], "weights": WEIGHTS[kind]}
    if kind.startswith("float"):
        group["input_activations"] = dict(
            num_bits=8, type="float", symmetric=True, strategy="token", dynamic=True
        )
    config = QuantizationConfig(config_groups={"group_0": group}, ignore=["lm_head"])
    apply_quantization_config(theirs, config)
    for module in theirs.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is None:
            continue
        weight, scales = module.weight.data, module.weight_scale.view(len(module.weight_scale), -1)
        height, width = (-(-n // blocks) for n, blocks in zip(weight.shape, scales.shape))
        if kind == "float-block":
            height = width = 128
        padded = torch.zeros(len(scales) * height, scales.shape[1] * width)
        padded[: len(weight), : weight.shape[1]] = weight
        blocks = padded.view(len(scales), height, scales.shape[1], width)
        low, high = (
            side.view(module.weight_scale.shape) for side in (blocks.amin((1, 3)), blocks.amax((1, 3)))
        )
        fresh, zeros = calculate_qparams(low, high, scheme.weights)
        module.weight_scale.data.copy_(fresh)
        if hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data.copy_(zeros)
    compressor = ModelCompressor.from_pretrained_model(theirs)
    compressor.compress_model(theirs)
    theirs.save_pretrained(tmp_path / "quantised")
    compressor.update_config(tmp_path / "quantised")
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "quantised",
        dtype=torch.float32,
        quantization_config=transformers.CompressedTensorsConfig(run_compressed=False),
    )
    for module in again.modules():
        if hasattr(module, "quantization_enabled"):
            module.quantization_enabled = False  # of the inputs
    differs(same(tmp_path / "quantised", again), plain)
