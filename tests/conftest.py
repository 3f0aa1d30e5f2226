"""Shared by all tests: one thread, no network, and everything tiny: a world, its tokenizer, random models."""

import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402

import data  # noqa: E402
from families import config_from_hf  # noqa: E402
from games import GAMES  # noqa: E402
from games.sandbox import sandbox  # noqa: E402
from games.twentyq.task import Options, TwentyQuestions  # noqa: E402
from model import Transformer  # noqa: E402

torch.set_num_threads(1)

WORLD = """
[questions]
alive      Is it alive?
animal     Is it an animal?
flies      Can it fly?
big        Is it bigger than a person?
metal      Is it made of metal?
edible     Can you eat it?
[kinds]
living : alive
animal < living : animal
[keywords]
eagle < animal : flies
mouse < animal
elephant < animal : big
oak < living : big | oak tree
apple < living : edible | apples, red apple
spoon : metal
plane : metal flies big
stone :
"""

ENCODERS = {
    "bert": dict(),
    "xlm-roberta": dict(type_vocab_size=1),
    "eurobert": dict(num_key_value_heads=2, pad_token_id=0),
    "modernbert": dict(local_attention=8, global_attn_every_n_layers=2, pad_token_id=0),
}
SHAPES = {  # one small config.json of each family, with the fields that make it differ
    "llama": dict(num_key_value_heads=2, rms_norm_eps=1e-5),
    "mistral": dict(num_key_value_heads=2, sliding_window=6),
    "qwen2": dict(num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": dict(num_key_value_heads=1, head_dim=16),
    "gemma": dict(num_key_value_heads=1, head_dim=16),
    "gemma2": dict(num_key_value_heads=2, head_dim=16, sliding_window=6, query_pre_attn_scalar=24),
    "gemma3_text": dict(
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=6,
        query_pre_attn_scalar=24,
        sliding_window_pattern=2,
        rope_local_base_freq=100.0,
    ),
    "phi3": dict(num_key_value_heads=2, pad_token_id=0, partial_rotary_factor=0.5),
    "olmo2": dict(num_key_value_heads=2, pad_token_id=0),
    "olmo3": dict(
        num_key_value_heads=2,
        pad_token_id=0,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention"],
        rope_theta=500_000.0,
        rope_scaling={"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32},
    ),
    "ministral3": dict(
        num_key_value_heads=2,
        head_dim=16,
        pad_token_id=0,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 16.0,
            "original_max_position_embeddings": 5,
            "llama_4_scaling_beta": 0.1,
        },
    ),
    "granitemoehybrid": dict(
        num_key_value_heads=2,
        num_local_experts=0,
        shared_intermediate_size=40,
        layer_types=["full_attention"] * 2,
        residual_multiplier=0.4,
        attention_multiplier=0.3,
        mamba_n_heads=4,
    ),
    "granite": dict(
        num_key_value_heads=2,
        embedding_multiplier=3.0,
        residual_multiplier=0.4,
        attention_multiplier=0.2,
        logits_scaling=2.0,
    ),
    "smollm3": dict(num_key_value_heads=1, pad_token_id=0, no_rope_layer_interval=2),
    "qwen3_5_text": dict(
        rms_norm_eps=0.3,  # less would scale up a state's answers that are nearly zero, rounding errors too
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=0,
        layer_types=["linear_attention", "full_attention"],
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=6,
        linear_conv_kernel_dim=3,
    ),
}

RECURRENT = {"qwen3_5_text"}  # families in which some layers keep a state in place of keys and values


def tiny_hf(family="llama", **changes):
    """A config.json of two small layers."""
    common = dict(
        model_type=family,
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    return common | (SHAPES | ENCODERS)[family] | changes


def tiny_model(family="llama", seed=0, **changes):
    """A random model at a scale at which mistakes show: no zero branch, norms and biases away from one and
    zero."""
    model = Transformer(config_from_hf(tiny_hf(family, **changes)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            fresh = torch.empty(weight.shape).normal_(0, 1, generator=generator)
            weight.copy_(0.3 + 0.5 * fresh if weight.dim() == 1 else fresh * 1.5 / weight.shape[1] ** 0.5)
    return model.eval()


@pytest.fixture
def at_most_20_seconds():
    """A test that hangs ends in an error that no test expects."""

    def stop(*_):
        raise AssertionError("still running after 20 seconds")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.fixture(autouse=True, scope="session")
def unsynced():
    """Nothing waits for the disk, whose power no test cuts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def kept_sandboxes():
    """ARC's calls share the sandboxes of equal settings, each of which takes half a second to start. A fork
    starts its own, as two processes must not talk to one."""
    kept = {}

    def opened(*settings):
        key = (os.getpid(), sandbox.CHILD, repr(settings))
        if key not in kept or not kept[key].workers:  # closed
            kept[key] = sandbox.Sandbox(*settings)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("games.arc.judging.Sandbox", opened)
        yield
    for box in kept.values():
        box.close()


@pytest.fixture
def tiny():
    return tiny_model


@pytest.fixture(scope="session")
def world_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "tiny.txt"
    path.write_text(WORLD)
    return path


@pytest.fixture
def task(world_file):
    return TwentyQuestions(Options(world=str(world_file), cells=2, noise="0,0.1"))


@pytest.fixture(scope="session")
def tokenizer(world_file):
    return data.train_tokenizer(TwentyQuestions(Options(world=str(world_file))).texts(), 400)


@pytest.fixture
def facts(monkeypatch):
    """facts(loss) makes the game 20q give items for that loss (tests/facts.py)."""
    from tests.facts import Facts

    def choose(loss):
        monkeypatch.setattr(Facts, "loss", loss)
        monkeypatch.setitem(GAMES, "20q", Facts)

    return choose


@pytest.fixture(scope="session")
def base(world_file, tmp_path_factory):
    """The folder of a small decoder with random weights."""
    from tests.facts import save_small_model

    return save_small_model(world_file, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def expert(world_file, tmp_path_factory):
    """The folder of a model with other weights than `base` and the same tokenizer."""
    from tests.facts import save_small_model

    return save_small_model(world_file, tmp_path_factory.mktemp("expert"), seed=1)
