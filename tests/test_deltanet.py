"""Layers with a state: two forms of one rule, and who may enter, copy and leave a state."""

import pytest
import torch
from conftest import tiny_hf
from torch.testing import assert_close

import deltanet
from attention import ALWAYS
from cache import KVCache, Session
from data import collate, share_prefixes
from deltanet import in_chunks, rows_of, token_by_token
from families import config_from_hf
from model import Transformer
from optim import Muon, optimizers_of
from sampler import generate, n_best
from tests.replies import agree, count

FAMILY = "qwen3_5_text"


@pytest.fixture
def model(tiny):
    return tiny(FAMILY)


def ids_of(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 300, (n,), generator=generator).tolist() for n in lengths]


# ------------------------------------------------------------------------------------------------ the rule
def random_inputs(T, seed=0):
    """q, k of length one, v, the logarithm of a decay, a rate, and a memory, for two rows of three heads."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(2, 3, *shape, generator=generator)
    q, k = (torch.nn.functional.normalize(normal(T, 8), dim=-1) for _ in range(2))
    decay = -normal(T, 1).exp()  # some nearly keep all, some nearly forget all
    inputs = [q, k, normal(T, 5), decay, normal(T, 1).sigmoid()]
    memory = normal(8, 5)
    return [x.requires_grad_() for x in inputs], memory.requires_grad_()


@pytest.mark.parametrize(
    "T, chunk", [(1, 64), (7, 64), (64, 64), (65, 64), (150, 64), (23, 5), (20, 5), (9, 1)]
)
def test_chunks_give_what_one_token_after_another_gives(monkeypatch, T, chunk):
    monkeypatch.setattr(deltanet, "CHUNK", chunk)
    inputs, memory = random_inputs(T)
    found = []
    for rule in (token_by_token, lambda *x: in_chunks(*x, torch.zeros(2, T))):
        y, after = rule(inputs, memory)
        loss = (y * torch.arange(5)).sum() + after.square().sum()
        found.append((y, after, *torch.autograd.grad(loss, [*inputs, memory])))
    for one, other in zip(*found):
        assert_close(one, other, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("chunk", [4, 64])
def test_a_text_behind_another_begins_with_nothing(monkeypatch, chunk):
    monkeypatch.setattr(deltanet, "CHUNK", chunk)
    inputs, memory = random_inputs(23)
    text = torch.tensor([0] * 9 + [1] * 3 + [2] * 11).expand(2, 23)
    y, after = in_chunks(inputs, memory * 0, text)
    for start, stop in ((0, 9), (9, 12), (12, 23)):
        alone, last = token_by_token([x[:, :, start:stop] for x in inputs], memory * 0)
        assert_close(y[:, :, start:stop], alone, atol=1e-5, rtol=1e-5)
    assert_close(after, last, atol=1e-5, rtol=1e-5)


def test_a_decay_that_no_float_holds_gives_no_nan():
    inputs, memory = random_inputs(20)
    inputs[3] = (inputs[3].detach() - 200).requires_grad_()
    y, _ = in_chunks(inputs, memory, torch.zeros(2, 20))
    gradients = torch.autograd.grad(y.square().sum(), inputs)
    assert all(x.isfinite().all() for x in (y, *gradients))


# ------------------------------------------------------------------------------------------------ rows
def test_the_tree_in_rows_of():
    row = share_prefixes([([5, 6, 7, 8, 9], [0] * 5), ([5, 6, 7, 2], [0] * 4), ([5, 6, 3, 4], [0] * 4)])
    batch = collate([row])
    text, slots, places, total = rows_of(batch.ids, batch.end)
    assert text.tolist() == [[0, 0, 0, 1, 1, 1, 1]] and slots.tolist() == [0, 1, 2, 0, 1, 3, 4]
    assert places.tolist() == [3, 4, 2, 5, 6] and total == 7


def test_rows_without_a_shared_beginning_stay_as_they_are():
    end = torch.tensor([[2, 2, 5, 5, 5, 0], [0, 0, 6, 6, 6, 6]])
    assert rows_of(end, end) == (end, None, None, 6)


def test_a_mask_of_the_callers_is_refused(model):
    ids = torch.tensor(ids_of(5))
    with pytest.raises(ValueError, match="cannot follow a mask"):
        model(ids, mask=torch.ones(1, 1, 5, 5, dtype=torch.bool))


@torch.no_grad()
@pytest.mark.parametrize("left", [False, True])
def test_padding_is_no_part_of_a_text_whatever_stands_in_it(model, left):
    text, found = ids_of(9), []
    for seed in (1, 2):
        (noise,) = ids_of(7, seed=seed)
        ids = torch.tensor([noise + text[0] if left else text[0] + noise])
        real = torch.tensor([[0] * 7 + [1] * 9 if left else [1] * 9 + [0] * 7])
        hidden = model(ids, (real.cumsum(1) - 1).clamp(min=0), real * ALWAYS)
        found.append(hidden[real > 0])
    assert_close(*found, atol=1e-5, rtol=1e-5)
    assert_close(found[0], model(torch.tensor(text))[0], atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ the cache
def states_of(session, row):
    return [x[row].clone() for pair in session.cache.states.values() for x in pair]


@torch.no_grad()
def test_the_state_of_a_row_is_that_of_its_text_alone(model):
    """After a ragged batch, replies of different length, and rows that compute along."""
    session = Session(model)
    prompts = ids_of(30, 3, 1, 17)
    generate(model, prompts, [2, 9, 5, 7], [], session=session)
    for row, text in enumerate(session.texts):
        cache = KVCache(model.config, 1, 64)
        model(torch.tensor([text]), cache=cache)
        alone = [x[0] for pair in cache.states.values() for x in pair]
        for mine, other in zip(states_of(session, row), alone):
            assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_a_row_that_reads_nothing_keeps_every_bit_of_its_state(model):
    session = Session(model)
    session.reserve(3, 40)
    with torch.no_grad():
        session.prefill(ids_of(9, 4, 6))
        before = states_of(session, 1)
        session.feed({0: 5, 2: 7})
    assert all(map(torch.equal, before, states_of(session, 1)))


def test_states_are_float32_whatever_the_dtype_of_the_model(model):
    session = Session(model.to(torch.bfloat16))
    generate(session.model, ids_of(5), 2, [], session=session)
    assert {x.dtype for x in states_of(session, 0)} == {torch.float32}
    assert session.cache.keys[1].dtype == torch.bfloat16


def test_what_prompts_share_is_read_once_up_to_its_very_end(model):
    (system, *tails) = ids_of(40, 20, 1, 3, 3)
    prompts = [system + tail for tail in tails] + [system + tails[0]]
    shapes = count(model)
    replies = generate(model, prompts, 3, [], temperature=0)
    # the beginning, what is behind it but for the last tokens, these, then two of each reply
    assert shapes[0] == (1, 40) and sum(width for _, width in shapes[1:-3]) == 19
    assert shapes[-3:] == [(5, 1)] * 3
    alone = [generate(model, [prompt], 3, [], temperature=0)[0] for prompt in prompts]
    agree(replies, alone)


def test_a_text_that_leaves_a_row_before_its_end_is_read_again(model):
    session, shapes = Session(model), count(model)
    (prompt,) = ids_of(30)
    reply = generate(model, [prompt], 4, [], session=session, temperature=0)[0]
    shapes.clear()
    longer = prompt + reply.ids + [7, 8]  # three tokens of the reply were read
    generate(model, [longer], 1, [], session=session)
    assert sum(width for _, width in shapes) == 3
    shapes.clear()
    other = generate(model, [longer[:-4] + [9]], 2, [], session=session, temperature=0)
    assert sum(width for _, width in shapes) == len(longer) - 3 + 1
    agree(other, generate(model, [longer[:-4] + [9]], 2, [], temperature=0))


@pytest.mark.parametrize("budget", [None, 1])
def test_beams_have_states_of_their_own_and_leave_those_of_the_rows(model, budget):
    session, prompts = Session(model), ids_of(9, 4, 6)
    expected = [n_best(model, [prompt], 4, 5, [3, 9])[0] for prompt in prompts]
    if budget:
        session.budget = budget
    for _ in range(2):
        for group, other in zip(n_best(model, prompts, 4, 5, [3, 9], session), expected):
            agree(group, other)
    assert [session.cache.states[0][0].shape[0]] == [len(session.texts)] == [1 if budget else 3]
    replies = generate(model, prompts, 4, [], temperature=0, session=session)
    agree(replies, generate(model, prompts, 4, [], temperature=0))


# ------------------------------------------------------------------------------------------------ training
def test_muon_takes_the_matrices_and_not_the_convolution(model):
    from types import SimpleNamespace

    cfg = SimpleNamespace(optimizer="muon", muon_lr=0.02, lr=1e-3, weight_decay=0.1, beta2=0.95)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model(torch.tensor(ids_of(9))).square().sum().backward()
    for optimizer, _ in optimizers_of(model, cfg):
        if isinstance(optimizer, Muon):
            assert {weight.dim() for group in optimizer.param_groups for weight in group["params"]} == {2}
        optimizer.step()
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == before.keys() - {"head.weight"}


def test_recomputed_activations_have_the_same_gradients(model):
    ids, found = torch.tensor(ids_of(70)), []
    for recompute in (False, True):
        model.recompute_activations(recompute)
        loss = model(ids).square().sum()
        parameters = [weight for name, weight in model.named_parameters() if not name.startswith("head")]
        found.append(torch.autograd.grad(loss, parameters))
    assert all(map(torch.equal, *found))


def test_layers_may_all_have_a_state_or_none(tiny):
    for kind in ("linear_attention", "full_attention"):
        model = tiny(FAMILY, layer_types=[kind] * 2)
        replies = generate(model, ids_of(9, 4), 4, [], temperature=0)
        agree(replies, [generate(model, [ids], 4, [], temperature=0)[0] for ids in ids_of(9, 4)])


def test_the_kinds_of_layers_follow_from_an_interval():
    config = config_from_hf(tiny_hf(FAMILY, layer_types=None, num_hidden_layers=7))
    assert config.recurrent == (0, 1, 2, 4, 5, 6)
    assert len(Transformer(config).layers) == 7
