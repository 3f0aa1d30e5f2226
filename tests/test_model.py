"""The Transformer, its cache and mask, and loading and saving checkpoints."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ENCODERS, RECURRENT, SHAPES, tiny_hf
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import files
import model as models
from attention import visible
from cache import KVCache
from families import config_from_hf
from model import Transformer, load, save

families = pytest.mark.parametrize("family", SHAPES)
LINEAR = {"rope_type": "linear", "factor": 2.0}


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
def test_chunks_of_a_text_through_a_cache_equal_no_cache(tiny, family):
    model, ids = tiny(family), random_ids(2, 12)
    cache = KVCache(model.config, rows=2, slots=12)
    steps = [model(chunk, cache=cache) for chunk in ids.split([5, 1, 6], dim=1)]
    near(torch.cat(steps, dim=1), model(ids))


def test_visible_by_hand():
    """A row of two documents, the second with a dead end at slot 3, and padding; then an encoder."""
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
    assert visible(end, causal=True).tolist() == [[expected.tolist()]]
    first, second, padding = [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]
    seen = visible(torch.tensor([[2, 2, 4, 4, 0]]), causal=False)
    assert seen.int().tolist() == [[[first, first, second, second, padding]]]


@pytest.mark.parametrize("family", [family for family in SHAPES if family not in RECURRENT])
def test_rows_that_are_cut_copied_and_written_over_continue_as_fresh_ones_do(tiny, family):
    model, ids = tiny(family), random_ids(3, 8)
    cache = KVCache(model.config, rows=3, slots=10)
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
    rough = model.to(torch.bfloat16).logits(model(ids))
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


# ------------------------------------------------------------------------------------------------ saving
def tensors(folder):
    """All tensors of a saved folder, as a dict."""
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


def test_a_tied_head_that_is_stored_too_must_equal_the_embedding(tiny, tmp_path):
    save(tiny("qwen2"), tmp_path)
    embedding = tensors(tmp_path)["model.embed_tokens.weight"]
    rewrite(tmp_path, lambda state: state.update({"lm_head.weight": embedding.clone()}))
    again = load(tmp_path)
    assert again.head.weight is again.embed.weight
    rewrite(tmp_path, lambda state: state.update({"lm_head.weight": embedding + 1e-3}))
    with pytest.raises(ValueError, match="ties head and embedding"):
        load(tmp_path)


def test_saving_keeps_what_the_config_file_said(tiny, tmp_path):
    save(tiny(bos_token_id=7, rope_scaling=LINEAR), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    expected = tiny_hf(bos_token_id=7, rope_scaling=LINEAR)
    assert written == expected | {"torch_dtype": "float32"}


def test_the_dtype_is_the_files_unless_chosen(tiny, tmp_path):
    model = tiny()
    save(model.to(torch.bfloat16), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert {weight.dtype for weight in load(tmp_path).parameters()} == {torch.bfloat16}
    chosen = load(tmp_path, dtype=torch.float32)
    assert not chosen.training
    assert {weight.dtype for weight in chosen.parameters()} == {torch.float32}
    assert torch.equal(chosen.embed.weight, model.embed.weight.float())


def test_saving_that_fails_leaves_what_was_there(tiny, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    monkeypatch.setattr(models, "SHARD_BYTES", 10_000)
    monkeypatch.setattr(files.json, "dumps", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(tiny(seed=1), saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_saving_whole_over_shards_loads_the_new_weights(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(models, "SHARD_BYTES", 10_000)
        save(tiny(seed=0), tmp_path)
    new = tiny(seed=1)
    save(new, tmp_path)
    assert torch.equal(load(tmp_path).embed.weight, new.embed.weight)


# ------------------------------------------------------------------------------------------------ errors


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
    with pytest.raises(FileNotFoundError, match=gone.name):
        load(tmp_path)


def test_a_missing_embedding_of_a_tied_model_is_named(tiny, tmp_path):
    save(tiny("qwen2"), tmp_path)
    rewrite(tmp_path, lambda state: state.pop("model.embed_tokens.weight"))
    with pytest.raises(ValueError, match=r"model\.embed_tokens\.weight is missing"):
        load(tmp_path)


MLP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop(MLP), r"model\.layers\.1\.mlp\.up_proj\.weight is missing"),
        (lambda state: state.update({f"{MLP}.bias": torch.ones(48)}), r"up_proj\.weight\.bias .*not part of"),
        (lambda state: state.update({MLP: torch.ones(48, 31)}), r"weight has shape \(48, 31\).*\(48, 32\)"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_a_tensor_that_does_not_fit_is_named(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(ValueError, match=message):
        load(saved)


def test_an_index_cannot_lead_out_of_its_folder(tiny, saved, tmp_path):
    save(tiny(), tmp_path)
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"\.\./model\.safetensors"):
        load(saved)


@pytest.mark.parametrize(
    "file, renamed, message",
    [
        ("model.safetensors", "pytorch_model.bin", "only pickled weights(?s:.)*weights_only=True"),
        ("model.safetensors", "other", r"no model\.safetensors"),
        ("config.json", "other", r"config\.json: no such file"),
    ],
)
def test_a_missing_file_is_named(saved, file, renamed, message):
    (saved / file).rename(saved / renamed)
    with pytest.raises(FileNotFoundError, match=message):
        load(saved)


@pytest.mark.parametrize("shards", [1, 2])
def test_the_advice_for_pickles_converts_all_shards_and_nothing_else(tiny, saved, shards):
    state = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    for shard in range(shards):
        name = f"pytorch_model-{shard}.bin" if shards > 1 else "model.bin"
        torch.save({key: state[key] for key in list(state)[shard::shards]}, saved / name)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"):
        torch.save({"x": torch.zeros(1)}, saved / name)
    with pytest.raises(FileNotFoundError) as error:
        load(saved)
    command = str(error.value).split("\n")[1]
    if shards > 1:
        subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    else:  # the same in this process, which has imported torch already
        python, flag, code = shlex.split(command)
        assert (python, flag) == ("python", "-c")
        exec(code, {})
    assert_close(load(saved).state_dict(), dict(tiny().state_dict()), atol=0, rtol=0)


def test_loading_draws_no_random_numbers_to_throw_away(tiny, saved, monkeypatch):
    """torch would import its compiler for those of tensors that have only a shape."""
    expected = dict(tiny().state_dict())
    for name in ("uniform_", "normal_"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a random weight"))
    assert_close(load(saved).state_dict(), expected, atol=0, rtol=0)


def test_a_folder_with_a_trainers_pickles_alone_has_no_weights(saved):
    (saved / "model.safetensors").rename(saved / "optimizer.pt")
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load(saved)


def test_a_damaged_config_is_named(saved):
    (saved / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match=r"config\.json: not valid JSON"):
        load(saved)


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
    held = sum(x.nbytes for x in cache.keys + cache.values) / 1e6  # states take the same for any length
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
