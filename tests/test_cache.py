"""A session never reads a token twice, and replies from it are those of a fresh start."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import attention
import cache
from cache import KVCache, Session
from sampler import generate, n_best
from tests.replies import PROMPTS, SAMPLING, STOP, agree, attentive, count, families, samplings


# ------------------------------------------------------------------------------------------------ sessions
@samplings
@families
def test_a_growing_conversation_gives_the_same_replies_as_a_fresh_start(tiny, family, sampling):
    model, prompts = tiny(family), PROMPTS
    session = Session(model)
    for turn in range(3):
        replies = generate(model, prompts, 6, STOP, session=session, **sampling)
        agree(replies, generate(model, prompts, 6, STOP, **sampling))
        prompts = [
            prompt + reply.ids + [20 + turn] * (1 + row)
            for row, (prompt, reply) in enumerate(zip(prompts, replies))
        ]


def test_a_session_only_reads_what_is_new(tiny):
    model = tiny()
    session, shapes = Session(model), count(model)
    replies = generate(model, PROMPTS, 4, [], session=session)
    assert shapes == [(4, 9), (4, 1), (4, 1), (4, 1)]
    shapes.clear()
    prompts = [prompt + reply.ids + [20, 21] for prompt, reply in zip(PROMPTS, replies)]
    generate(model, prompts, 4, [], session=session)
    assert shapes == [(4, 3), (4, 1), (4, 1), (4, 1)]  # the last sampled token was not read yet
    shapes.clear()
    generate(model, [prompts[2], prompts[0]], 1, [], session=session)
    assert shapes == [(2, 1)]


def changed(prompts, rng):
    """Prompts after a random event: grown, cut, rewritten at the end, rows dropped, reordered, doubled or
    new."""
    event = rng.integers(6)
    if event == 0:
        return [prompt[: max(1, len(prompt) - rng.integers(4))] for prompt in prompts]
    if event == 1:
        return [prompt[:-1] + rng.integers(300, size=3).tolist() for prompt in prompts]
    if event == 2:
        return [prompts[row] for row in rng.permutation(len(prompts))[: max(1, len(prompts) - 1)]]
    if event == 3:
        return [prompts[row] for row in rng.integers(len(prompts), size=4)]
    if event == 4:
        return prompts + [rng.integers(300, size=rng.integers(1, 9)).tolist()]
    return [prompt + rng.integers(300, size=rng.integers(0, 40)).tolist() for prompt in prompts]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_its_rows_a_session_replies_as_a_fresh_start(tiny, seed):
    model, rng, prompts = tiny("qwen3"), np.random.default_rng(seed), PROMPTS
    session = Session(model)
    for _ in range(15):
        replies = generate(model, prompts, 3, STOP, temperature=0, session=session)
        agree(replies, generate(model, prompts, 3, STOP, temperature=0))
        prompts = [prompt + reply.ids for prompt, reply in zip(prompts, replies)]
        prompts = changed(prompts, rng)


def test_samples_of_one_prompt_read_it_once(tiny):
    model, prompt = tiny("qwen3"), list(range(20, 60))
    shapes = count(model)
    replies = generate(model, [prompt] * 8, 5, [])
    assert shapes[:2] == [(1, 40), (7, 1)] and shapes[2:] == [(8, 1)] * 4
    alone = [generate(model, [prompt], 5, [], seeds=[i])[0] for i in range(8)]
    agree(replies, alone)
    assert len({tuple(reply.ids) for reply in replies}) > 4


def test_what_prompts_share_is_read_once_also_across_calls(tiny):
    model, system = tiny("qwen3"), list(range(20, 60))
    prompts = [
        [*system, *group, *tail] for group in (range(70, 150), range(150, 230)) for tail in ([1], [2], [3])
    ]
    session, shapes = Session(model), count(model)
    replies = generate(model, prompts, 2, [], session=session)
    assert sum(rows * width for rows, width in shapes[:-1]) == 121 + 81 + 4
    shapes.clear()
    more = [[*system, *range(70, 150), 1, 5], [*system, 8]]
    again = generate(model, more, 1, [], session=session)
    assert sum(rows * width for rows, width in shapes) <= 4
    agree(replies, generate(model, prompts, 2, []))
    agree(again, [generate(model, [prompt], 1, [], seeds=[i])[0] for i, prompt in enumerate(more)])


def test_a_session_stays_within_its_budget_and_forgets_what_was_used_least(tiny):
    model, rng = tiny(), np.random.default_rng(3)
    token = 2 * 4 * sum(x.shape[1] * x.shape[3] for x in KVCache(model.config, 1, 1).keys)
    session = Session(model)
    session.budget = 4 * 64 * token
    for _ in range(6):
        prompts = [rng.integers(300, size=rng.integers(20, 50)).tolist() for _ in range(9)]
        agree(generate(model, prompts, 5, STOP, session=session), generate(model, prompts, 5, STOP))
        held = sum(x.nbytes for x in (*session.cache.keys, *session.cache.values))
        assert held <= session.budget and len(session.texts) >= 3
    kept = prompts[-1]
    shapes = count(model)
    generate(model, [kept + [1]], 1, [], session=session)
    assert shapes[0][1] < len(kept)
    session, long = Session(model), [list(range(100))]
    session.budget = 1  # too little for a single text, which is read all the same
    agree(
        generate(model, long, 3, [], session=session, temperature=0),
        generate(model, long, 3, [], temperature=0),
    )


SHORT = [[3, 1, 0], [2], [5, 5, 1, 2]]


def test_n_best_in_a_session_equals_n_best_alone_and_leaves_the_session_as_it_was(tiny):
    model = tiny(vocab_size=6)
    session = Session(model)
    replies = generate(model, SHORT, 3, [], temperature=0, session=session)
    prompts = [prompt + reply.ids for prompt, reply in zip(SHORT, replies)]
    shapes = count(model)
    inside = n_best(model, prompts, 5, 4, [4], session)
    assert shapes[0] == (3, 1)
    assert sorted(session.texts) == sorted(prompts)
    shapes.clear()
    agree(
        generate(model, prompts, 3, [], temperature=0, session=session),
        generate(model, prompts, 3, [], temperature=0),
    )
    assert shapes[0] == (3, 1)
    for group, other in zip(inside, n_best(model, prompts, 5, 4, [4])):
        agree(group, other)


# ------------------------------------------------------------------------------------------------ lengths
LONGROPE = {"type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]}
LONGROPE = dict(partial_rotary_factor=1.0, original_max_position_embeddings=12, rope_scaling=LONGROPE)
DYNAMIC = dict(rope_scaling={"type": "dynamic", "factor": 2.0}, max_position_embeddings=8)


@torch.no_grad()
def read_anew(model, prompt, ids):
    """Log-probability of each of ids after prompt, where all before it is read as one text."""
    texts = [prompt + ids[:t] for t in range(len(ids))]
    logits = [model.logits(model(torch.tensor([text])))[0, -1] for text in texts]
    return [float(x.log_softmax(-1)[token]) for x, token in zip(logits, ids)]


def test_a_text_that_outgrows_the_original_context_means_what_it_means_anew(tiny, monkeypatch):
    """Conversations that grow past 12 tokens in a prompt or in a reply, some sharing a beginning with those
    on the other side of that length, and some that go back."""
    monkeypatch.setattr(cache, "SHARED_ROWS", 2)
    monkeypatch.setattr(cache, "SHARED_TOKENS", 1)
    model, rng = tiny("phi3", **LONGROPE), np.random.default_rng(0)
    session = Session(model)
    prompts = [list(range(20, 20 + n)) for n in (3, 9, 9, 11, 12, 13, 20)]
    for _ in range(6):
        replies = generate(model, prompts, 5, [], temperature=0, session=session)
        for prompt, reply in zip(prompts, replies):
            assert_close(reply.logps, read_anew(model, prompt, reply.ids), atol=1e-5, rtol=0)
        prompts = [prompt + reply.ids for prompt, reply in zip(prompts, replies)]
        prompts = [prompt[: rng.integers(3, 18)] if rng.random() < 0.4 else prompt for prompt in prompts]


@pytest.mark.parametrize("family, settings", [("phi3", LONGROPE), ("llama", DYNAMIC)])
def test_padding_does_not_count_as_length(tiny, family, settings):
    model = tiny(family, **settings)
    prompts = [list(range(20 * n, 21 * n)) for n in (10, 11, 12, 14)]  # which share nothing
    for prompt, reply in zip(prompts, generate(model, prompts, 1, [], temperature=0)):
        assert_close(reply.logps, read_anew(model, prompt, reply.ids), atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------ windows
@pytest.mark.parametrize("graphed", [False, True])
@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text", "olmo3"])
def test_windows_are_all_that_sliding_layers_keep(tiny, family, graphed, monkeypatch):
    """Long prompts, read in parts; a conversation that grows; one that goes back to before what is kept, and
    one to within it; rows that enter late and are swapped. The same replies from a cache that keeps all."""
    model, rng = tiny(family, max_position_embeddings=512), np.random.default_rng(0)
    session, whole, reach = Session(model), Session(model), model.config.reach
    session.graphed = graphed
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda step, inputs: step)
    monkeypatch.setattr(cache, "GRAPH_KEYS", 8)
    base = rng.integers(1, 300, size=70).tolist()
    long, short = base[:50], base[:9]
    grown = [text + rng.integers(1, 300, size=15).tolist() for text in (long, short)]
    turns = [[long, short, base], grown, [base[:30], grown[0]], [grown[1] + [5], long[:-3] + [7, 8], [9]]]
    for turn, prompts in enumerate(turns):
        settings = dict(temperature=turn % 2, seeds=[turn, 5, 6][: len(prompts)], batch=2)
        found = []
        for slack, kept in ((6, session), (1 << 20, whole)):
            monkeypatch.setattr(cache, "SLACK", slack)
            found.append(generate(model, prompts, [12, 7, 16][: len(prompts)], [], session=kept, **settings))
        agree(*found)
    assert whole.cache.near is None and max(session.cache.bases) > 20
    widths = {layer.shape[2] for layer in session.cache.keys}
    full = {whole.cache.keys[0].shape[2]} if not all(model.config.sliding) else set()
    assert widths == {reach + 7} | full
    agree(n_best(model, [long], 2, 4, [], session)[0], n_best(model, [long], 2, 4, [])[0])


def test_a_window_that_still_holds_enough_is_used_again(tiny, monkeypatch):
    monkeypatch.setattr(cache, "SLACK", 8)
    model = tiny("mistral")
    session, text = Session(model), list(range(1, 60))
    generate(model, [text], 8, [], session=session)
    shapes = count(model)
    generate(model, [session.texts[0] + [3, 4]], 1, [], session=session)
    assert shapes == [(1, 2)]
    assert not session.cache.can_continue(0, 20)


def test_the_windows_of_the_example_in_cache(monkeypatch):
    monkeypatch.setattr(cache, "SLACK", 3)
    config = SimpleNamespace(reach=2, sliding=[True], layers=1, kv_heads=1, head_dim=1, recurrent=())
    windows = KVCache(config, rows=2, slots=20, windows=True)
    lengths = [0, 0]
    for new in ([3, 1], [2, 1], [1, 1]):  # tokens that each row reads
        windows.slide([(row, lengths[row], lengths[row] + new[row]) for row in range(2)])
        positions = torch.tensor(lengths)[:, None] + torch.arange(max(new))
        windows.open(positions)
        held = torch.where(torch.arange(max(new)) < torch.tensor(new)[:, None], positions, -1)  # -1: padding
        windows.append(0, held[:, None, :, None].float(), held[:, None, :, None].float())
        lengths = [n + more for n, more in zip(lengths, new)]
        if new == [2, 1]:
            assert windows.keys[0][:, 0, :, 0].tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, -1, 0, 0, 0]]
    assert windows.bases == [3, 0]
    assert windows.keys[0][:, 0, :, 0].tolist() == [[3, 4, 5, 3, 4, 0], [0, 1, 2, 0, 0, 0]]


# ------------------------------------------------------------------------------------------------ speed
@attentive
def test_steps_of_few_shapes_for_cuda_graphs(tiny, family, monkeypatch):
    """Without a GPU, the functions that would be captured: the same replies from steps of few shapes, also
    when a session goes on."""
    shapes = []

    def capture(step, inputs):
        shapes.append(tuple(inputs[0].shape))
        return step

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    monkeypatch.setattr(cache, "GRAPH_KEYS", 8)
    model = tiny(family)
    session = Session(model)
    session.graphed = True
    for sampling in SAMPLING:
        for prompts in (PROMPTS, PROMPTS[:3], PROMPTS[1:2]):
            named = sampling | {"seeds": list(range(len(prompts)))}
            agree(
                generate(model, prompts, 8, STOP, session=session, **named),
                generate(model, prompts, 8, STOP, **named),
            )
    assert {B for B, _ in shapes} <= {1, 2, 4} and 2 < len(shapes) <= 12


@families
def test_a_beginning_that_all_rows_share_is_read_once_a_step(tiny, family, monkeypatch):
    """Equal replies, and the keys of the beginning are looked at in one row only."""
    model, opening, taken = tiny(family), list(range(3, 23)), []
    prompts = [opening + prompt for prompt in PROMPTS]
    expected = [generate(model, prompts, 10, STOP, **sampling) for sampling in SAMPLING]
    cascaded = attention.cascaded
    monkeypatch.setattr(attention, "cascaded", lambda *a, n: taken.append(n) or cascaded(*a, n=n))
    monkeypatch.setattr(cache, "SHARED_ROWS", 2)
    monkeypatch.setattr(cache, "SHARED_TOKENS", 8)
    for sampling, replies in zip(SAMPLING, expected):
        agree(generate(model, prompts, 10, STOP, **sampling), replies)
    windows = model.config.sliding and all(model.config.sliding)  # no layer looks that far
    assert not taken if windows else min(taken) == len(opening)
