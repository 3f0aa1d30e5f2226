"""Low-rank adapters: their arithmetic, their switch, and PEFT's file format."""

import json

import pytest
import torch
from conftest import ENCODERS, SHAPES
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import checkpoint
import model as models
from families import FAMILIES
from lora import adapters, add_lora, load_lora, merge_lora, save_lora, without_lora

families = pytest.mark.parametrize("family", SHAPES)
kinds = pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
IDS = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0))
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def outputs(model):
    with torch.no_grad():
        return model.logits(model(IDS))


def shake(model, seed=0):
    """Set random A and B, large enough to change the outputs clearly. Returns the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapters(model):
            for weight in (layer.lora_A, layer.lora_B):
                weight.normal_(0, 0.2, generator=generator)
            if layer.magnitude is not None:
                layer.magnitude.mul_(1.5)
    return model


@pytest.fixture
def saved(tiny, tmp_path):
    """A folder with a full model in base/ and an adapter for it in adapter/."""
    models.save(tiny(), tmp_path / "base")
    save_lora(shake(add_lora(tiny(), rank=2)), tmp_path / "adapter", tmp_path / "base")
    return tmp_path


def rewrite(folder, change):
    """Change the tensors of a saved adapter in place."""
    state = load_file(folder / "adapter_model.safetensors")
    change(state)
    save_file(state, folder / "adapter_model.safetensors")


# ------------------------------------------------------------------------------------------------ arithmetic
@kinds
@families
def test_a_fresh_adapter_changes_nothing(tiny, family, dora):
    model = add_lora(tiny(family), rank=2, dora=dora)
    linears = [part for part in tiny(family).layers.modules() if isinstance(part, torch.nn.Linear)]
    assert len(adapters(model)) == len(linears)
    assert all(layer.lora_A.abs().max() > 0 for _, layer in adapters(model))
    assert_close(outputs(model), outputs(tiny(family)), atol=2e-5 * dora, rtol=2e-5 * dora)


@kinds
@families
def test_merged_equals_unmerged(tiny, family, dora):
    model = shake(add_lora(tiny(family), rank=2, dora=dora))
    before = outputs(model)
    assert (before - outputs(tiny(family))).abs().max() > 0.1
    merged = merge_lora(model)
    assert_close(outputs(merged), before, atol=2e-5, rtol=2e-5)
    assert merged.state_dict().keys() == tiny(family).state_dict().keys()
    assert all(weight.requires_grad for weight in merged.parameters())


@pytest.mark.parametrize(
    "settings, scale",
    [
        (dict(rank=4), 2.0),
        (dict(rank=4, alpha=6), 1.5),
        (dict(rank=4, alpha=6, rank_stabilised=True), 3.0),
    ],
)
def test_the_update_is_scaled_by_alpha_over_rank_or_its_root(tiny, settings, scale):
    model, base = shake(add_lora(tiny(), **settings)), tiny()
    merge = merge_lora(shake(add_lora(tiny(), **settings)))
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    layer, plain = model.layers[1].mlp.up_proj, base.layers[1].mlp.up_proj
    delta = scale * layer.lora_B @ layer.lora_A
    assert_close(layer(x), plain(x) + x @ delta.T)
    assert_close(merge.layers[1].mlp.up_proj.weight, plain.weight + delta)


def test_only_the_adapters_own_weights_are_trained(tiny):
    model = add_lora(tiny(), rank=2, targets="q_proj,up_proj")
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    layers = [f"layers.{i}.{name}" for i in range(2) for name in ("attn.q_proj", "mlp.up_proj")]
    assert trained == {f"{layer}.lora_{side}" for layer in layers for side in "AB"}


def test_the_adapter_of_a_bfloat16_model_is_float32_and_its_output_bfloat16(tiny):
    model = shake(add_lora(tiny().to(torch.bfloat16), rank=2))
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert outputs(model).dtype == torch.bfloat16
    assert merge_lora(model).layers[0].attn.q_proj.weight.dtype == torch.bfloat16


def test_the_first_a_depends_on_the_seed_only(tiny):
    first, again, other = (add_lora(tiny(seed=s), rank=2, seed=seed) for s, seed in ((0, 1), (5, 1), (0, 2)))
    a, b, c = (model.layers[1].mlp.up_proj.lora_A for model in (first, again, other))
    assert torch.equal(a, b) and not torch.equal(a, c)


# ------------------------------------------------------------------------------------------------ switches
@families
def test_without_lora_is_the_base_and_only_inside_the_block(tiny, family):
    model = shake(add_lora(tiny(family), rank=2))
    with_it = outputs(model)
    with pytest.raises(KeyError), without_lora(model):
        assert torch.equal(outputs(model), outputs(tiny(family)))
        raise KeyError
    assert torch.equal(outputs(model), with_it)


def test_dropout_acts_on_the_update_in_training_only(tiny, tmp_path):
    save_lora(add_lora(tiny().eval(), rank=2, dropout=0.5), tmp_path, "somewhere")
    assert not any(layer.training for layer in load_lora(tiny().eval(), tmp_path).modules())
    model = shake(add_lora(tiny(), rank=2, dropout=0.5))
    plain = shake(add_lora(tiny(), rank=2))
    assert torch.equal(outputs(model.eval()), outputs(plain))
    assert torch.equal(outputs(plain.train()), outputs(plain.eval()))
    torch.manual_seed(0)
    first, second = outputs(model.train()), outputs(model)
    assert not torch.equal(first, second)
    with without_lora(model):
        assert torch.equal(outputs(model), outputs(tiny()))


# ------------------------------------------------------------------------------------------------ files
@families
@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(alpha=3, targets="k_proj,down_proj", rank_stabilised=True),
        dict(targets="q_proj,up_proj", dora=True),
    ],
)
def test_load_lora_gives_back_what_was_saved(tiny, tmp_path, family, settings):
    model = shake(add_lora(tiny(family), rank=2, **settings))
    save_lora(model, tmp_path / "new" / "folder", "somewhere")
    again = load_lora(tiny(family), tmp_path / "new" / "folder")
    if FAMILIES[family].fused:  # fused into one layer there: the same update with the summed rank
        return assert_close(outputs(again), outputs(model), atol=2e-5, rtol=2e-5)
    assert torch.equal(outputs(again), outputs(model))
    ours, theirs = dict(adapters(model)), dict(adapters(again))
    assert ours.keys() == theirs.keys()
    for name, layer in ours.items():
        assert torch.equal(layer.lora_A, theirs[name].lora_A)
        assert torch.equal(layer.lora_B, theirs[name].lora_B)


def test_an_adapter_saved_again_keeps_its_settings(saved, tiny):
    settings = dict(rank=2, alpha=3, targets="k_proj,down_proj", dropout=0.25, rank_stabilised=True)
    save_lora(add_lora(tiny(), **settings), saved / "first", "somewhere")
    save_lora(load_lora(tiny(), saved / "first"), saved / "second", "somewhere")
    first, second = (json.loads((saved / n / "adapter_config.json").read_text()) for n in ("first", "second"))
    for config in (first, second):
        config["target_modules"] = sorted(config["target_modules"])
    assert first == second


def test_the_files_are_those_of_peft(tiny, tmp_path):
    model = add_lora(tiny(), rank=2, alpha=3, targets="q_proj,down_proj", rank_stabilised=True)
    save_lora(model, tmp_path, "owner/base")
    state = load_file(tmp_path / "adapter_model.safetensors")
    layers = [f"layers.{i}.{name}" for i in range(2) for name in ("self_attn.q_proj", "mlp.down_proj")]
    assert FIRST in state and state[FIRST].shape == (2, 32)
    assert set(state) == {f"base_model.model.model.{x}.lora_{side}.weight" for x in layers for side in "AB"}
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    expected = {
        "peft_type": "LORA",
        "base_model_name_or_path": "owner/base",
        "r": 2,
        "lora_alpha": 3,
        "use_rslora": True,
        "target_modules": ["down_proj", "q_proj"],
    }
    assert {key: config[key] for key in expected} == expected


# ------------------------------------------------------------------------------------------------ DoRA, heads
def test_dora_scales_the_rows_of_the_sum_to_learned_lengths(tiny):
    layer = shake(add_lora(tiny("qwen2"), rank=2, dora=True)).layers[0].attn.q_proj
    with torch.no_grad():
        layer.magnitude.mul_(torch.linspace(0.5, 2, 32))
    weight = layer.base.weight + layer.scale * layer.lora_B @ layer.lora_A
    weight = weight / weight.norm(dim=1, keepdim=True) * layer.magnitude[:, None]
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    assert_close(layer(x), x @ weight.T + layer.base.bias)


def classified(model):
    with torch.no_grad():
        return model.classify(model(IDS))


@pytest.mark.parametrize("family", [*SHAPES, *ENCODERS])
def test_a_trained_classifier_travels_with_its_adapter(tiny, tmp_path, family):
    models.save(tiny(family, architectures=["Model"]), tmp_path / "base")
    model = shake(add_lora(models.load(tmp_path / "base", head=3, seed=1), rank=2))
    heads = [key for key, weight in model.named_parameters() if weight.requires_grad and "lora" not in key]
    assert "classifier.out.weight" in heads and all(key.startswith("classifier.") for key in heads)
    save_lora(model, tmp_path / "adapter", tmp_path / "base")
    again = checkpoint.open(tmp_path / "adapter", tokenizer=False).model
    assert_close(classified(again), classified(model), atol=2e-5, rtol=2e-5)
    assert classified(again).shape == (2, 3)


@pytest.mark.parametrize("gone", ["bert.pooler.dense.weight", "classifier.weight", ""])
def test_a_classifier_that_is_missing_is_never_made_up(tiny, tmp_path, gone):
    """Neither a part of it nor, with an empty name, everything that is not an update."""
    models.save(tiny("bert"), tmp_path / "base")
    model = add_lora(models.load(tmp_path / "base", head=3, seed=1), rank=2)
    save_lora(model, tmp_path / "adapter", tmp_path / "base")

    def remove(state):
        for key in [key for key in state if gone in key and "lora" not in key]:
            del state[key]

    rewrite(tmp_path / "adapter", remove)
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"modules_to_save": None}))
    with pytest.raises(ValueError, match=f"{gone or 'classifier'}.* is missing"):
        checkpoint.open(tmp_path / "adapter", tokenizer=False)


@pytest.mark.parametrize("name", ["alpha_pattern", "rank_pattern"])
def test_a_pattern_for_one_layer_survives_saving(saved, tiny, name):
    """It must not be saved under a last name that other layers share."""
    model = add_lora(tiny(), rank=2, alpha=3)
    layer = model.layers[1].attn.v_proj
    if name == "alpha_pattern":
        layer.scale *= 8
    else:
        layer.rank = 5
        layer.lora_A = torch.nn.Parameter(torch.empty(5, 32))
        layer.lora_B = torch.nn.Parameter(torch.empty(16, 5))
    shake(model)
    save_lora(model, saved / "first", "somewhere")
    config = json.loads((saved / "first" / "adapter_config.json").read_text())
    assert [*config[name]] == ["model.layers.1.self_attn.v_proj"]
    again = load_lora(tiny(), saved / "first")
    assert torch.equal(outputs(again), outputs(model))


@pytest.mark.parametrize(
    "settings", [dict(layers_to_transform=[1]), dict(exclude_modules=["layers.0"])], ids=str
)
def test_layers_without_an_adapter_are_taken_from_the_tensors(saved, tiny, settings):
    def remove(state):
        for key in [key for key in state if "layers.0" in key]:
            del state[key]

    path = saved / "adapter" / "adapter_config.json"
    rewrite(saved / "adapter", remove)
    with pytest.raises(ValueError, match="is missing"):
        load_lora(tiny(), saved / "adapter")
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    model = load_lora(tiny(), saved / "adapter")
    assert {name.split(".")[1] for name, _ in adapters(model)} == {"1"}


# ------------------------------------------------------------------------------------------------ errors
def test_a_target_that_no_layer_has_and_a_second_adapter_are_refused(tiny):
    with pytest.raises(ValueError, match="no linear layer is called 'proj'"):
        add_lora(tiny(), rank=2, targets="q_proj,proj")
    with pytest.raises(ValueError, match="has an adapter already"):
        add_lora(add_lora(tiny(), rank=2), rank=2)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop(FIRST), r"layers\.0\.self_attn\.q_proj\.lora_A\.weight is missing"),
        (
            lambda state: state.update({FIRST: torch.ones(3, 32)}),
            r"q_proj\.lora_A\.weight has shape \(3, 32\), but the config asks for \(2, 32\)",
        ),
        (
            lambda state: state.update({FIRST.replace("layers.0", "layers.2"): torch.ones(2, 32)}),
            r"model\.layers\.2\.self_attn\.q_proj\.lora_A\.weight is not part of this model",
        ),
        (
            lambda state: state.update({FIRST.replace("lora_A", "lora_C"): torch.ones(2, 32)}),
            r"q_proj\.lora_C\.weight is not part of this model",
        ),
    ],
    ids=["missing", "shape", "layer", "name"],
)
def test_a_tensor_that_does_not_fit_is_named(saved, tiny, change, message):
    rewrite(saved / "adapter", change)
    with pytest.raises(ValueError, match=message):
        load_lora(tiny(), saved / "adapter")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(use_dora=True), "lora_magnitude_vector is missing"),
        (dict(bias="all"), "bias is 'all', expected 'none'"),
        (dict(peft_type="LOHA"), "peft_type is 'LOHA', expected 'LORA'"),
        (dict(init_lora_weights="pissa"), "init_lora_weights is 'pissa'.*path_initial_model_for"),
        (dict(alora_invocation_tokens=[200, 5]), r"alora_invocation_tokens is \[200, 5\]"),
        (dict(a_key_of_tomorrow=0.5), "a_key_of_tomorrow is 0.5"),
        (dict(task_type="TOKEN_CLS"), "task_type is 'TOKEN_CLS'"),
        (dict(modules_to_save=["embed_tokens"]), "model.embed_tokens.weight is missing"),
        (dict(target_modules=".*_proj|lm_head"), "lm_head.lora_A.weight is missing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_an_adapter_promises_and_does_not_hold_is_an_error(saved, tiny, change, message):
    path = saved / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load_lora(tiny(), saved / "adapter")
