"""The Transformer, its cache and mask, and reading and writing of checkpoints."""

import json
import math
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import ENCODERS, SHAPES, tiny_hf
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import model as models
from attention import ALWAYS, visible
from cache import KVCache
from model import Transformer, config_from_hf, load, rotary, rotate, save

families = pytest.mark.parametrize("family", SHAPES)
LLAMA3 = dict(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=1024
)  # a wavelength below 256 stays, one above 1024 is stretched by 8


def random_ids(*shape, seed=0, vocab=300):
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(seed))


def near(actual, expected, tolerance=2e-5):
    assert_close(actual, expected, atol=tolerance, rtol=0)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


# ------------------------------------------------------------------------------------------------ forward
@families
def test_one_token_at_a_time_through_a_growing_cache_equals_no_cache(tiny, family):
    model, ids = tiny(family), random_ids(2, 12)
    cache = KVCache(model.config, rows=2, slots=3)
    steps = [model(ids[:, t : t + 1], cache=cache) for t in range(12)]
    near(torch.cat(steps, dim=1), model(ids))


@families
def test_chunks_through_a_cache_equal_no_cache(tiny, family):
    model, ids = tiny(family), random_ids(2, 12)
    cache = KVCache(model.config, rows=2, slots=3)
    steps = [model(chunk, cache=cache) for chunk in ids.split([5, 1, 6], dim=1)]
    near(torch.cat(steps, dim=1), model(ids))


@families
def test_rows_of_a_ragged_right_padded_batch_equal_each_row_alone(tiny, family):
    model, lengths = tiny(family), [9, 4, 1]
    ids, end = random_ids(3, 9), torch.zeros(3, 9, dtype=torch.long)
    for row, length in enumerate(lengths):
        end[row, :length] = ALWAYS
    causal, masked = model(ids), model(ids, end=end)
    for row, length in enumerate(lengths):
        alone = model(ids[row : row + 1, :length])[0]
        near(causal[row, :length], alone)
        near(masked[row, :length], alone)


@families
def test_rows_of_a_left_padded_batch_equal_each_row_alone(tiny, family):
    model, lengths = tiny(family), [9, 4, 1]
    ids = random_ids(3, 9)
    positions, end = torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long)
    for row, length in enumerate(lengths):
        positions[row, -length:], end[row, -length:] = torch.arange(length), ALWAYS
    batched = model(ids, positions, end)
    assert batched.isfinite().all()
    for row, length in enumerate(lengths):
        near(batched[row, -length:], model(ids[row : row + 1, -length:])[0])


@families
def test_packed_documents_equal_documents_alone(tiny, family):
    model, lengths = tiny(family), [3, 5, 1]
    ids = random_ids(1, 9)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    end = torch.tensor([[3] * 3 + [8] * 5 + [9]])
    packed = model(ids, positions, end)
    alone = [model(document) for document in ids.split(lengths, dim=1)]
    near(packed, torch.cat(alone, dim=1))


@families
def test_a_later_token_changes_nothing_before_it(tiny, family):
    model, ids = tiny(family), random_ids(1, 10)
    changed = ids.clone()
    changed[0, 6] = (ids[0, 6] + 1) % 300
    before, after = model(ids), model(changed)
    near(after[:, :6], before[:, :6], 0)
    assert ((after - before)[0, 6:].abs().amax(-1) > 1e-3).all()


@families
def test_grouped_heads_equal_repeated_keys_and_values(tiny, family):
    grouped, full = tiny(family), tiny(family, num_key_value_heads=4)
    state, times = grouped.state_dict(), 4 // grouped.config.kv_heads
    assert times > 1
    for key, value in state.items():
        if "k_proj" in key or "v_proj" in key:
            heads = value.view(grouped.config.kv_heads, grouped.config.head_dim, *value.shape[1:])
            state[key] = heads.repeat_interleave(times, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    ids = random_ids(2, 9)
    near(grouped(ids), full(ids))


def test_visible_by_hand():
    """Two documents of one row, the second with a dead end at slot 3, and padding; all asked, then the last
    two."""
    end = torch.tensor([[2, 2, 6, 4, 6, 6, 0]])
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0],
            [0, 0, 1, 0, 0, 0, 0],
            [0, 0, 1, 1, 0, 0, 0],
            [0, 0, 1, 0, 1, 0, 0],
            [0, 0, 1, 0, 1, 1, 0],
            [0, 0, 0, 0, 0, 0, 1],
        ]
    ).bool()
    assert visible(end, 7).tolist() == [[expected.tolist()]]
    assert visible(end, 2).tolist() == [[expected[-2:].tolist()]]


@families
def test_rows_that_are_cut_copied_and_written_over_continue_as_fresh_ones_do(tiny, family):
    model, ids = tiny(family), random_ids(3, 8)
    cache = KVCache(model.config, rows=3, slots=8)
    model(ids, cache=cache)
    cache.copy(0, 2, 5)  # row 2 begins as row 0 does
    rows, keep = [2, 0, 1], [4, 8, 2]
    cache.rows = torch.tensor(rows)
    new = random_ids(3, 2, seed=1)
    hidden = model(new, torch.tensor(keep)[:, None] + torch.arange(2), cache=cache)
    for i, (row, kept) in enumerate(zip((0, 0, 1), keep)):
        fresh = model(torch.cat((ids[row : row + 1, :kept], new[i : i + 1]), dim=1))
        near(model.logits(hidden)[i], model.logits(fresh)[0, -2:])


@families
def test_bfloat16_is_close_to_float32(tiny, family):
    model, ids = tiny(family), random_ids(2, 12)
    full = model.logits(model(ids))
    half = model.to(torch.bfloat16)
    rough = half.logits(half(ids))
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - full).norm() < 0.05 * full.norm()


def test_initialise_depends_on_its_seed_only(tiny):
    first, again, other = (Transformer(config_from_hf(tiny_hf())).initialise(seed) for seed in (1, 1, 2))
    pairs = [(a, b, c) for a, b, c in zip(*(m.parameters() for m in (first, again, other)))]
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not torch.equal(first.embed.weight, other.embed.weight)


def test_a_fresh_model_adds_nothing_to_its_embedding():
    model, ids = Transformer(config_from_hf(tiny_hf())).initialise(0), random_ids(2, 5)
    assert torch.equal(model(ids), model.norm(model.embed(ids)))


# ------------------------------------------------------------------------------------------------ rotary
def test_rotation_by_hand():
    """Pairs are (first half, second half): (1, 0) and (0, 2) turned by their angles; lengths stay."""
    config = config_from_hf(tiny_hf(head_dim=4, rope_theta=100.0))
    turned = rotate(torch.tensor([1.0, 0.0, 0.0, 2.0]), *rotary(config.rope, 4, torch.tensor([[3]])))[0, 0, 0]
    a, b = 3.0, 0.3  # position 3 at frequencies 1 and 100 ** -0.5
    expected = torch.tensor([math.cos(a), -2 * math.sin(b), math.sin(a), 2 * math.cos(b)])
    near(turned, expected, 1e-6)


def angles_at_one(config):
    """The angles of position 1, those of the model's frequencies: (E / 2,)."""
    cos, sin = rotary(config.rope, config.head_dim, torch.tensor([[1]]))
    return torch.atan2(sin, cos)[0, 0, 0, config.head_dim // 2 :]


def test_llama3_scaling_by_hand():
    """Frequencies 1, 0.1, 0.01, 0.001: kept, kept, blended, divided by the factor."""
    plain = config_from_hf(tiny_hf(head_dim=8))
    scaled = config_from_hf(tiny_hf(head_dim=8, rope_scaling={"rope_type": "llama3", **LLAMA3}))
    assert_close(angles_at_one(plain), torch.tensor([1, 0.1, 0.01, 0.001]), rtol=1e-5, atol=0)
    smooth = (1024 / (2 * math.pi / 0.01) - 1) / (4 - 1)
    assert 0.1 < smooth < 0.9
    expected = torch.tensor([1, 0.1, (1 - smooth) * 0.01 / 8 + smooth * 0.01, 0.001 / 8])
    assert_close(angles_at_one(scaled), expected, rtol=1e-5, atol=0)


def test_linear_scaling_halves_the_angle():
    plain = config_from_hf(tiny_hf())
    scaled = config_from_hf(tiny_hf(rope_scaling={"type": "linear", "factor": 2.0}))
    assert_close(angles_at_one(scaled), angles_at_one(plain) / 2, rtol=1e-5, atol=0)


@families
@pytest.mark.parametrize(
    "scaling", [{}, {"rope_type": "linear", "factor": 2.0}, {"rope_type": "llama3", **LLAMA3}]
)
def test_both_dialects_of_rotary_settings_give_the_same_config(family, scaling):
    old = tiny_hf(family, rope_theta=50_000.0, rope_scaling=scaling or None)
    new = tiny_hf(family, rope_parameters={"rope_type": "default", **scaling, "rope_theta": 50_000.0})
    assert config_from_hf(old) == config_from_hf(new)
    assert config_from_hf(old).rope["rope_theta"] == 50_000
    assert config_from_hf(old).rope["rope_type"] == (scaling.get("rope_type") or "default")


def test_reading_a_config_leaves_the_dict_as_it_was():
    hf = tiny_hf(rope_parameters={"rope_type": "default", "rope_theta": 1000.0})
    before = json.dumps(hf)
    config_from_hf(hf)
    assert json.dumps(hf) == before


# ------------------------------------------------------------------------------------------------ saving
def tensors(folder):
    """All tensors of a saved folder: dict."""
    return {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}


def rewrite(folder, change):
    """Change the tensors of a saved folder in place."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


@pytest.fixture
def saved(tiny, tmp_path):
    """A saved Llama."""
    save(tiny(), tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("shard_bytes", [models.SHARD_BYTES, 10_000], ids=["single", "sharded"])
@pytest.mark.parametrize("tied", [False, True])
@families
def test_load_gives_back_what_was_saved(tiny, tmp_path, monkeypatch, family, tied, shard_bytes):
    monkeypatch.setattr(models, "SHARD_BYTES", shard_bytes)
    model = tiny(family, tie_word_embeddings=tied)
    save(model, tmp_path / "new" / "folder")
    again = load(tmp_path / "new" / "folder")
    files = list((tmp_path / "new" / "folder").glob("*.safetensors"))
    assert (len(files) > 2) == (shard_bytes == 10_000)
    assert model.state_dict().keys() == again.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    ids = random_ids(2, 9)
    assert torch.equal(model.logits(model(ids)), again.logits(again(ids)))


def test_shards_hold_every_tensor_once_as_the_index_says(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "SHARD_BYTES", 10_000)
    model = tiny()
    save(model, tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    found = {key: path.name for path in tmp_path.glob("*.safetensors") for key in load_file(path)}
    assert index["weight_map"] == found and len(found) == len(model.state_dict())
    assert index["metadata"]["total_size"] == sum(w.nbytes for w in model.state_dict().values())
    sizes = [
        [tensor.nbytes for tensor in load_file(path).values()] for path in tmp_path.glob("*.safetensors")
    ]
    assert all(sum(shard) <= 10_000 or len(shard) == 1 for shard in sizes)


def test_a_tied_head_is_not_stored_and_is_tied_again(tiny, tmp_path):
    save(tiny("qwen2"), tmp_path)
    assert "model.embed_tokens.weight" in tensors(tmp_path) and "lm_head.weight" not in tensors(tmp_path)
    again = load(tmp_path)
    assert again.head.weight is again.embed.weight


def test_a_tied_head_that_is_stored_too_is_accepted(tiny, tmp_path):
    save(tiny("qwen2"), tmp_path)
    rewrite(
        tmp_path, lambda state: state.update({"lm_head.weight": state["model.embed_tokens.weight"].clone()})
    )
    again = load(tmp_path)
    assert again.head.weight is again.embed.weight


def test_saving_keeps_what_the_config_file_said(tiny, tmp_path):
    save(tiny(bos_token_id=7, rope_scaling={"rope_type": "llama3", **LLAMA3}), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    expected = tiny_hf(bos_token_id=7, rope_scaling={"rope_type": "llama3", **LLAMA3})
    assert written == expected | {"torch_dtype": "float32"}


def test_the_dtype_is_the_files_unless_chosen(tiny, tmp_path):
    model = tiny()
    save(model.to(torch.bfloat16), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert {weight.dtype for weight in load(tmp_path).parameters()} == {torch.bfloat16}
    chosen = load(tmp_path, dtype=torch.float32)
    assert {weight.dtype for weight in chosen.parameters()} == {torch.float32}
    assert torch.equal(chosen.embed.weight, model.embed.weight.float())


def test_a_loaded_model_is_in_eval_mode(saved):
    assert not load(saved).training


def test_saving_whole_over_shards_loads_the_new_weights(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(models, "SHARD_BYTES", 10_000)
        save(tiny(seed=0), tmp_path)
    new = tiny(seed=1)
    save(new, tmp_path)
    assert torch.equal(load(tmp_path).embed.weight, new.embed.weight)


def test_buffers_of_old_checkpoints_are_passed_over(saved):
    rewrite(saved, lambda s: s.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    load(saved)


# ------------------------------------------------------------------------------------------------ errors
def test_an_unknown_model_type_lists_the_supported_ones():
    with pytest.raises(ValueError, match="'gpt2' is not supported; supported are llama, mistral, qwen2"):
        config_from_hf(tiny_hf(model_type="gpt2"))


@pytest.mark.parametrize("field", ["rope_scaling", "rope_parameters"])
def test_an_unknown_rope_type_is_named(field):
    with pytest.raises(
        ValueError, match="'yarn' is not supported; supported are default, linear, dynamic, llama3"
    ):
        config_from_hf(tiny_hf(**{field: {"rope_type": "yarn", "factor": 4.0}}))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(num_key_value_heads=3), "4 heads are no multiple of 3"),
        (dict(partial_rotary_factor=0.5), "partial_rotary_factor 0.5 is not supported"),
        (dict(quantization_config={"bits": 4}), "quantization_config .* is not supported"),
        (dict(intermediate_size=None), "intermediate_size missing"),
    ],
)
def test_a_config_that_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        config_from_hf(tiny_hf(**changes), "here/config.json")


def test_an_unknown_activation_is_named(saved):
    path = saved / "config.json"
    path.write_text(path.read_text().replace('"hidden_size"', '"hidden_act": "relu6", "hidden_size"'))
    with pytest.raises(ValueError, match="config.json: activation 'relu6' is not one of silu, gelu"):
        load(saved)


@pytest.mark.parametrize("left", [0.9, 0.0], ids=["cut in the data", "empty"])
def test_a_truncated_file_is_named(saved, left):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    with pytest.raises(ValueError, match=r"model\.safetensors: truncated"):
        load(saved)


def test_a_missing_shard_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "SHARD_BYTES", 10_000)
    save(tiny(), tmp_path)
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(ValueError, match=gone.name):
        load(tmp_path)


def test_a_missing_tensor_is_named(saved):
    rewrite(saved, lambda state: state.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        load(saved)


def test_a_missing_embedding_of_a_tied_model_is_named(tiny, tmp_path):
    save(tiny("qwen2"), tmp_path)
    rewrite(tmp_path, lambda state: state.update({"lm_head.weight": state.pop("model.embed_tokens.weight")}))
    with pytest.raises(ValueError, match=r"model\.embed_tokens\.weight is missing"):
        load(tmp_path)


def test_an_unexpected_tensor_is_named(saved):
    rewrite(saved, lambda state: state.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}))
    with pytest.raises(ValueError, match=r"model\.layers\.0\.self_attn\.q_proj\.bias .*not part of this"):
        load(saved)


def test_a_wrong_shape_is_reported_with_both_shapes(saved):
    rewrite(saved, lambda state: state.update({"model.layers.0.mlp.up_proj.weight": torch.ones(48, 31)}))
    with pytest.raises(ValueError, match=r"mlp\.up_proj\.weight has shape \(48, 31\).*\(48, 32\)"):
        load(saved)


def test_an_index_cannot_lead_out_of_its_folder(tiny, saved, tmp_path):
    save(tiny(), tmp_path)
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"\.\./model\.safetensors"):
        load(saved)


def test_pickled_weights_are_refused(saved):
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="only pickled weights(?s:.)*weights_only=True"):
        load(saved)


def test_no_weights_at_all_are_an_error(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load(saved)


def test_a_folder_without_config_is_an_error(saved):
    (saved / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"saved: no config\.json"):
        load(saved)


def test_a_damaged_config_is_named(saved):
    (saved / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match=r"config\.json: not valid JSON"):
        load(saved)


def test_a_tied_head_that_differs_from_the_embedding_is_an_error(tiny, tmp_path):
    save(tiny("qwen2"), tmp_path)
    rewrite(
        tmp_path, lambda state: state.update({"lm_head.weight": state["model.embed_tokens.weight"] + 1e-3})
    )
    with pytest.raises(ValueError, match="ties head and embedding"):
        load(tmp_path)


# ------------------------------------------------------------------------------------------------ names
def test_a_run_stands_for_its_checkpoint(tiny, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        load(str(tmp_path))
    save(tiny(), tmp_path / "model")
    assert torch.equal(load(str(tmp_path)).embed.weight, tiny().embed.weight)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_that_is_not_there_is_an_error(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(kind(tmp_path / "nowhere"))


def test_a_name_of_the_hub_without_network_is_an_error_that_says_so():
    with pytest.raises(FileNotFoundError, match="someone/something-that-is-not-here: .*Hub"):
        load("someone/something-that-is-not-here")


@pytest.fixture
def hub(monkeypatch):
    """Folders by Hub name, and the calls made for them."""
    folders, calls = {}, []

    def snapshot_download(name, **options):
        calls.append((name, options))
        return str(folders[name])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return folders, calls


def test_a_name_of_the_hub_is_fetched_at_its_revision(hub, saved, tiny):
    folders, calls = hub
    folders["owner/name"] = saved
    model = load("owner/name", revision="abc")
    assert torch.equal(model.embed.weight, tiny().embed.weight)
    assert [(name, options["revision"]) for name, options in calls] == [("owner/name", "abc")]


@pytest.mark.parametrize(
    "file, wanted",
    [
        ("config.json", True),
        ("model-00001-of-00002.safetensors", True),
        ("tokenizer.json", True),
        ("chat_template.jinja", True),  # where newer checkpoints keep their chat format
        ("pytorch_model.bin", False),
        ("consolidated.00.pth", False),
        ("training_args.pt", False),
        ("optimizer.pkl", False),
        ("modeling.py", False),
    ],
)
def test_neither_pickles_nor_code_are_fetched_from_the_hub(hub, saved, file, wanted):
    folders, calls = hub
    folders["owner/name"] = saved
    load("owner/name")
    assert wanted == any(Path(file).match(pattern) for pattern in calls[0][1]["allow_patterns"])


# ------------------------------------------------------------------------------------------------ summary
@pytest.mark.parametrize("family", [*SHAPES, *ENCODERS])
def test_the_summary_of_a_folder_says_what_it_holds(tiny, tmp_path, capsys, family):
    model = tiny(family)
    save(model, tmp_path)
    assert models.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"family     {family}" in printed
    assert f"parameters {sum(weight.numel() for weight in model.parameters()):,}" in printed
    assert ("sliding" in printed) == bool(model.config.sliding)
    cache = KVCache(model.config, 1, 1000, dtype=torch.bfloat16)
    held = sum(x.nbytes for x in cache.keys + cache.values) / 1e6
    assert (f"cache      {held:,.1f} MB per 1,000 tokens" in printed) == model.config.causal


@pytest.mark.parametrize("argv, code", [([], 2), (["--help"], 2), (["no/such/folder"], 1)])
def test_a_wrong_call_of_the_summary_says_so(argv, code, capsys):
    assert models.main(argv) == code
    assert "model.py" in capsys.readouterr().err


LOADING = """
import re, sys, torch, model
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
weights = [weight.sum() for weight in model.load(sys.argv[1]).parameters()]  # reads every byte
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures with /proc")
@pytest.mark.slow
def test_loading_takes_about_the_memory_of_the_weights(tiny, tmp_path):
    model = tiny(vocab_size=200_000, hidden_size=1024, intermediate_size=1024).to(torch.bfloat16)
    save(model, tmp_path)
    size = sum(weight.nbytes for weight in model.parameters())
    del model
    command = [sys.executable, "-c", LOADING, str(tmp_path)]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(models.__file__).parent, check=True
    )
    assert 0.8 * size < int(run.stdout) < 1.3 * size
