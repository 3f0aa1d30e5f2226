"""Generation, n-best and scoring, with and without a reused cache; and the Model agent on top."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from conftest import SHAPES
from torch.testing import assert_close

import attention
import cache
import sampler
from agents import Model
from cache import KVCache, fuse
from games.task import Reply
from lora import add_lora
from sampler import Session, common, generate, invert, n_best, pick, score, truncate

families = pytest.mark.parametrize("family", SHAPES)
STOP = list(range(0, 300, 8))
PROMPTS = [[5, 9, 200, 31], [7], [5, 9, 200, 31, 4, 4, 18, 90, 2], [250, 3]]
SAMPLING = [dict(temperature=0.0), dict(temperature=1.3, seeds=[[3, row] for row in range(4)])]
samplings = pytest.mark.parametrize("sampling", SAMPLING, ids=["greedy", "sampled"])


@torch.no_grad()
def teacher_forced(model, prompt, ids):
    """Log-probability of each of ids after prompt, without a cache: (len(ids),)."""
    logps = model.logits(model(torch.tensor([[*prompt, *ids]]))).log_softmax(-1)[0]
    return logps[len(prompt) - 1 : -1].gather(1, torch.tensor(ids)[:, None])[:, 0]


def agree(replies, expected):
    """Assert that replies are the same tokens, with log-probabilities equal to 1e-5."""
    assert [reply.ids for reply in replies] == [reply.ids for reply in expected]
    assert [reply.finished for reply in replies] == [reply.finished for reply in expected]
    for reply, other in zip(replies, expected):
        assert_close(reply.logps, other.logps, atol=1e-5, rtol=0)


def count(model):
    """A list that from now on takes the shape (B, T) of everything that model reads."""
    shapes, forward = [], model.forward

    def counted(ids, *rest, **named):
        shapes.append(tuple(ids.shape))
        return forward(ids, *rest, **named)

    model.forward = counted
    return shapes


# ------------------------------------------------------------------------------------------------ speed
@pytest.mark.parametrize("threads", [1, 2])
@families
def test_a_fused_model_samples_the_same(tiny, family, threads):
    """One prompt and several, greedy, sampled, n-best and scores; for two threads matrices lie in blocks."""
    model = tiny(family)
    torch.set_num_threads(threads)
    fused = fuse(copy.deepcopy(model))
    assert fused.layers[0].mlp.down_proj.weight.dim() == (2 if threads == 1 else 3)
    for sampling in SAMPLING:
        agree(*(generate(net, PROMPTS, 10, STOP, **sampling) for net in (fused, model)))
    agree(*(generate(net, PROMPTS[2:3], 10, STOP, temperature=0) for net in (fused, model)))
    agree(*(n_best(net, PROMPTS[:2], 3, 5, STOP)[1] for net in (fused, model)))
    samples = [(prompt, [0, *[1] * (len(prompt) - 1)]) for prompt in PROMPTS]
    assert_close(*(score(net, samples) for net in (fused, model)), atol=1e-5, rtol=0)
    torch.set_num_threads(1)


def test_only_a_merged_model_can_be_fused(tiny):
    with pytest.raises(ValueError, match="merge the adapter first"):
        fuse(add_lora(tiny("llama"), 2))


@families
def test_a_beginning_that_all_rows_share_is_read_once_a_step(tiny, family, monkeypatch):
    """Equal replies, and the keys of the beginning are looked at in one row only."""
    model, opening, taken = tiny(family), list(range(3, 23)), []
    prompts = [opening + prompt for prompt in PROMPTS]
    expected = [generate(model, prompts, 10, STOP, **sampling) for sampling in SAMPLING]
    cascaded = attention.cascaded
    monkeypatch.setattr(attention, "cascaded", lambda *a, n: taken.append(n) or cascaded(*a, n=n))
    monkeypatch.setattr(sampler, "SHARED", (2, 8))
    for sampling, replies in zip(SAMPLING, expected):
        agree(generate(model, prompts, 10, STOP, **sampling), replies)
    windows = model.config.sliding and all(model.config.sliding)  # no layer looks that far
    assert not taken if windows else min(taken) == len(opening)


@pytest.mark.parametrize("graphed", [False, True])
@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_windows_are_all_that_sliding_layers_keep(tiny, family, graphed, monkeypatch):
    """Long prompts, read in parts; a conversation that grows; one that goes back to before what is kept, and
    one to within it; rows that enter late and are swapped. The same replies from a cache that keeps all."""
    model, rng = tiny(family, max_position_embeddings=512), np.random.default_rng(0)
    session, whole, reach = Session(model), Session(model), model.config.reach
    session.graphed = graphed
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda step, inputs: step)
    monkeypatch.setattr(sampler, "KEYS", 8)
    base = rng.integers(1, 300, size=90).tolist()
    long, short = base[:70], base[:9]
    grown = [text + rng.integers(1, 300, size=30).tolist() for text in (long, short)]
    turns = [[long, short, base], grown, [base[:40], grown[0]], [grown[1] + [5], long[:-3] + [7, 8], [9]]]
    for turn, prompts in enumerate(turns):
        settings = dict(temperature=turn % 2, seeds=[turn, 5, 6][: len(prompts)], batch=2)
        found = []
        for slack, kept in ((6, session), (1 << 20, whole)):
            monkeypatch.setattr(cache, "SLACK", slack)
            monkeypatch.setattr(sampler, "SLACK", slack)
            found.append(generate(model, prompts, [25, 14, 30][: len(prompts)], [], session=kept, **settings))
        agree(*found)
    assert whole.cache.near is None and max(session.cache.bases) > 50
    widths = {layer.shape[2] for layer in session.cache.keys}
    full = {whole.cache.keys[0].shape[2]} if not all(model.config.sliding) else set()
    assert widths == {reach + 7} | full
    agree(n_best(model, [long], 2, 4, [], session)[0], n_best(model, [long], 2, 4, [])[0])


def test_a_window_that_still_holds_enough_is_used_again(tiny, monkeypatch):
    monkeypatch.setattr(cache, "SLACK", 8)
    monkeypatch.setattr(sampler, "SLACK", 8)
    model = tiny("mistral")
    session, text = Session(model), list(range(1, 60))
    generate(model, [text], 8, [], session=session)
    shapes = count(model)
    generate(model, [session.texts[0] + [3, 4]], 1, [], session=session)
    assert shapes == [(1, 2)]
    assert not session.cache.reaches(0, 20)


@families
def test_steps_of_few_shapes_for_cuda_graphs(tiny, family, monkeypatch):
    """Without a GPU, the functions that would be captured: the same replies from steps of few shapes, also
    when a session goes on."""
    shapes = []

    def capture(step, inputs):
        shapes.append(tuple(inputs[0].shape))
        return step

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    monkeypatch.setattr(sampler, "KEYS", 8)
    model = tiny(family)
    session = Session(model)
    session.graphed = True
    for sampling in SAMPLING:
        for prompts in (PROMPTS, PROMPTS[:3], PROMPTS[1:2]):
            named = sampling | {"seeds": list(range(len(prompts)))}
            agree(
                generate(model, prompts, 12, STOP, session=session, **named),
                generate(model, prompts, 12, STOP, **named),
            )
    assert {B for B, _ in shapes} <= {1, 2, 4} and 2 < len(shapes) <= 12


def test_the_inverse_of_the_cumulative_distribution_in_blocks():
    """Against one long float64 sum; nothing of probability 0 is drawn, not even at the ends."""
    probs = torch.rand(6, 1000, generator=torch.Generator().manual_seed(0)).mul_(8).exp_()
    probs[:, ::3] = 0
    probs[3] = 0
    probs[3, 700] = 1e-30
    for share in (0.0, 0.1, 0.5, 0.777, 0.999999, 1 - 2**-53):
        uniform = torch.full((6,), share, dtype=torch.float64)
        tokens = invert(probs, uniform, block=64)[:, 0]
        cumulative = probs.double().cumsum(1)
        expected = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
        assert (probs[torch.arange(6), tokens] > 0).all() and tokens[3] == 700
        if share < 0.99:
            assert torch.equal(tokens, expected)


def test_each_prompt_has_its_own_length(tiny):
    lengths = [3, 1, 7, 5]
    replies = generate(tiny("llama"), PROMPTS, lengths, [], temperature=0, batch=2)
    assert [len(reply.ids) for reply in replies] == lengths
    assert not any(reply.finished for reply in replies)


# ------------------------------------------------------------------------------------------------ generate
@families
def test_greedy_equals_argmax_over_the_whole_text_each_time(tiny, family):
    model = tiny(family)
    for prompt, reply in zip(PROMPTS, generate(model, PROMPTS, 10, STOP, temperature=0)):
        ids = []
        while len(ids) < 10 and not (ids and ids[-1] in STOP):
            with torch.no_grad():
                ids.append(int(model.logits(model(torch.tensor([prompt + ids])))[0, -1].argmax()))
        assert reply.ids == ids


@samplings
@families
def test_a_ragged_batch_equals_each_prompt_alone(tiny, family, sampling):
    model = tiny(family)
    together = generate(model, PROMPTS, 12, STOP, **sampling)
    assert len({len(reply.ids) for reply in together}) > 1
    for row, prompt in enumerate(PROMPTS):
        alone = dict(sampling, seeds=sampling["seeds"][row : row + 1]) if "seeds" in sampling else sampling
        agree(generate(model, [prompt], 12, STOP, **alone), together[row : row + 1])


@samplings
@families
def test_log_probabilities_are_the_models_own(tiny, family, sampling):
    """At temperature 1 and untruncated, whatever was used to sample."""
    model = tiny(family)
    replies = generate(model, PROMPTS, 12, STOP, top_k=20, top_p=0.9, **sampling)
    for prompt, reply in zip(PROMPTS, replies):
        expected = teacher_forced(model, prompt, reply.ids)
        assert_close(torch.tensor(reply.logps), expected, atol=1e-5, rtol=0)
        assert reply.logp == sum(reply.logps)


def test_a_reply_ends_with_its_first_stop_id_or_at_the_limit(tiny):
    prompts = [[n] for n in range(40)]
    replies = generate(tiny(), prompts, 8, STOP)
    assert {reply.finished for reply in replies} == {True, False}
    for reply in replies:
        assert reply.finished == (reply.ids[-1] in STOP)
        assert not set(reply.ids[:-1]) & set(STOP)
        assert len(reply.ids) == len(reply.logps) and (reply.finished or len(reply.ids) == 8)
    assert any(reply.finished and len(reply.ids) < 8 for reply in replies)


def test_nothing_more_is_computed_once_all_replies_ended(tiny):
    model = tiny()
    shapes = count(model)
    replies = generate(model, PROMPTS, 50, range(300))
    assert [len(reply.ids) for reply in replies] == [1] * 4
    assert len(shapes) == 1


def test_temperature_zero_ignores_seeds(tiny):
    first, second = (generate(tiny(), PROMPTS, 8, STOP, 0, seeds=[s] * 4) for s in (1, 2))
    assert first == second


def test_the_same_seeds_repeat_and_others_differ(tiny):
    first, again, other = (generate(tiny(), PROMPTS, 8, [], seeds=[[s]] * 4) for s in (1, 1, 2))
    assert first == again
    assert [reply.ids for reply in first] != [reply.ids for reply in other]


def test_top_k_of_one_is_greedy(tiny):
    greedy = generate(tiny(), PROMPTS, 8, STOP, temperature=0)
    assert generate(tiny(), PROMPTS, 8, STOP, temperature=1.5, top_k=1) == greedy


def test_samples_follow_the_models_distribution(tiny):
    """One prompt, many seeds: the chi-square statistic of 10 tokens, whose 99.99 % quantile is 33.7."""
    model = tiny(vocab_size=10)
    replies = generate(model, [[3, 1]] * 3000, 1, [], seeds=range(3000))
    counts = np.bincount([reply.ids[0] for reply in replies], minlength=10)
    with torch.no_grad():
        expected = 3000 * model.logits(model(torch.tensor([[3, 1]])))[0, -1].softmax(-1).numpy()
    assert ((counts - expected) ** 2 / expected).sum() < 33.7


# ------------------------------------------------------------------------------------------------ pick
PROBS = torch.tensor([[0.1, 0.4, 0.05, 0.25, 0.2], [0.6, 0.05, 0.05, 0.1, 0.2]])


@pytest.mark.parametrize(
    "settings, kept",
    [
        (dict(), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
        (dict(top_k=2), [[1, 3], [0, 4]]),
        (dict(top_k=5), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
        (dict(top_k=9), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
        (dict(top_p=0.5), [[1, 3], [0]]),
        (dict(top_p=0.7), [[1, 3, 4], [0, 4]]),
        (dict(top_p=0.01), [[1], [0]]),
        (dict(top_p=0.0), [[1], [0]]),
        (dict(min_p=0.45), [[1, 3, 4], [0]]),
        (dict(min_p=1.0), [[1], [0]]),
        (dict(top_k=3, top_p=0.7), [[1, 3], [0, 4]]),  # 0.7 of the 0.85 or 0.9 that top_k leaves
        (dict(top_p=0.9, min_p=0.3), [[1, 3, 4], [0, 4]]),
    ],
)
def test_truncate_keeps_the_right_tokens_as_they_are(settings, kept):
    result = truncate(PROBS, **settings)
    for row, tokens in enumerate(kept):
        expected = torch.zeros(5)
        expected[tokens] = PROBS[row, tokens]
        assert result[row].tolist() == expected.tolist()


@pytest.mark.parametrize(
    "settings, weights",
    [
        (dict(temperature=1.0), [0.1, 0.4, 0.05, 0.25, 0.2]),
        (dict(temperature=0.5), [0.01, 0.16, 0.0025, 0.0625, 0.04]),
        (dict(temperature=1.0, top_k=3), [0, 0.4, 0, 0.25, 0.2]),
        (dict(temperature=2.0, top_k=2), [0, 0.4**0.5, 0, 0.25**0.5, 0]),
    ],
)
def test_pick_follows_the_distribution(settings, weights):
    """The chi-square statistic of at most 5 tokens, whose 99.99 % quantile is 23.5."""
    n, weights = 20_000, np.array(weights)
    uniform = torch.from_numpy(np.random.default_rng(0).random(n))
    tokens, drawn = pick(PROBS[:1].log().expand(n, -1), uniform, **settings)
    assert_close(drawn.exp().double(), torch.tensor(weights / weights.sum())[tokens], atol=1e-6, rtol=0)
    counts, expected = np.bincount(tokens, minlength=5), n * weights / weights.sum()
    assert (counts[weights == 0] == 0).all()
    alive = weights > 0
    assert ((counts[alive] - expected[alive]) ** 2 / expected[alive]).sum() < 23.5


def test_pick_at_the_edges_takes_tokens_of_some_probability():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]] * 2)
    uniform = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert pick(logits, uniform, 1.0)[0].tolist() == [1, 3]


# ------------------------------------------------------------------------------------------------ sessions
@samplings
@families
def test_a_growing_conversation_gives_the_same_replies_as_a_fresh_start(tiny, family, sampling):
    model, prompts = tiny(family), PROMPTS
    session = Session(model)
    for turn in range(4):
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


@samplings
@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_batch_order_and_neighbours_change_nothing(tiny, family, sampling):
    model, rng = tiny(family), np.random.default_rng(1)
    prompts = [rng.integers(300, size=rng.integers(1, 30)).tolist() for _ in range(20)]
    settings = dict(temperature=sampling["temperature"])
    seeds = [[5, i] for i in range(20)]
    expected = [
        generate(model, [prompt], 9, STOP, seeds=[seed], **settings)[0]
        for prompt, seed in zip(prompts, seeds)
    ]
    assert len({len(reply.ids) for reply in expected}) > 3
    for batch in (1, 3, 20):
        agree(generate(model, prompts, 9, STOP, seeds=seeds, batch=batch, **settings), expected)
    order = rng.permutation(20)
    replies = generate(
        model, [prompts[i] for i in order], 9, STOP, seeds=[seeds[i] for i in order], batch=7, **settings
    )
    agree(replies, [expected[i] for i in order])


def test_rows_that_end_make_room_and_gaps_are_closed(tiny):
    """No more rows than asked for, and few that compute for nothing."""
    model, rng = tiny(), np.random.default_rng(2)
    prompts = [rng.integers(300, size=4).tolist() for _ in range(40)]
    shapes = count(model)
    replies = generate(model, prompts, 12, STOP, batch=8)
    steps = [rows for rows, width in shapes if width == 1]
    assert max(steps) <= 8 and len(replies) == 40 and all(reply.ids for reply in replies)
    assert sum(steps) <= 1.5 * sum(len(reply.ids) - 1 for reply in replies)


def test_a_session_stays_within_its_budget_and_forgets_what_was_used_least(tiny):
    model, rng = tiny(), np.random.default_rng(3)
    token = 2 * 4 * sum(x.shape[1] * x.shape[3] for x in KVCache(model.config, 1, 1).keys)
    session = Session(model, budget=4 * 64 * token)
    for _ in range(6):
        prompts = [rng.integers(300, size=rng.integers(20, 50)).tolist() for _ in range(9)]
        agree(generate(model, prompts, 5, STOP, session=session), generate(model, prompts, 5, STOP))
        held = sum(x.nbytes for x in (*session.cache.keys, *session.cache.values))
        assert held <= session.budget and len(session.texts) >= 3
    kept = prompts[-1]
    shapes = count(model)
    generate(model, [kept + [1]], 1, [], session=session)
    assert shapes[0][1] < len(kept)


def test_a_prompt_longer_than_the_budget_is_read_all_the_same(tiny):
    model = tiny()
    (reply,) = generate(model, [list(range(100))], 3, [], session=Session(model, budget=1), temperature=0)
    agree([reply], generate(model, [list(range(100))], 3, [], temperature=0))


def test_no_prompts_give_no_replies(tiny):
    assert generate(tiny(), [], 3, []) == []


# ------------------------------------------------------------------------------------------------ control
def test_drawn_log_probabilities_are_those_of_the_truncated_distribution(tiny):
    model, settings = tiny("qwen3"), dict(temperature=0.7, top_k=20, top_p=0.9, min_p=0.01)
    for prompt, reply in zip(PROMPTS, generate(model, PROMPTS, 8, [], **settings)):
        logits = model.logits(model(torch.tensor([prompt + reply.ids])))[0, len(prompt) - 1 : -1]
        probs = truncate((logits / 0.7).softmax(-1), top_k=20, top_p=0.9, min_p=0.01)
        probs = probs / probs.sum(-1, keepdim=True)
        expected = probs.gather(1, torch.tensor(reply.ids)[:, None])[:, 0].log()
        assert_close(torch.tensor(reply.drawn_logps), expected, atol=1e-5, rtol=0)
        assert max(reply.drawn_logps) < 0


def test_a_processor_decides_what_may_come_and_sees_what_came(tiny):
    def odd_after_even(logits, replies):
        for row, reply in zip(logits, replies):
            row[len(reply.ids) % 2 :: 2] = -torch.inf
        return logits

    for reply in generate(tiny(), PROMPTS, 6, [], process=odd_after_even):
        assert [token % 2 for token in reply.ids] == [1, 0, 1, 0, 1, 0]


def test_until_ends_a_reply_and_watch_sees_every_token(tiny):
    seen = []
    replies = generate(
        tiny(),
        PROMPTS,
        9,
        [],
        until=lambda ids: sum(ids) > 400,
        watch=lambda i, reply: seen.append((i, reply.ids[-1])),
    )
    for i, reply in enumerate(replies):
        assert sum(reply.ids[:-1]) <= 400 and (sum(reply.ids) > 400) == reply.finished
        assert [token for row, token in seen if row == i] == reply.ids


@pytest.mark.parametrize(
    "a, b, n", [([], [], 0), ([1], [], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 3, 3], 1), ([2], [1], 0)]
)
def test_common_counts_the_shared_beginning(a, b, n):
    assert common(a, b) == common(b, a) == n


# ------------------------------------------------------------------------------------------------ n-best
SMALL = [[3, 1, 0], [2], [5, 5, 1, 2]]


def every_reply(model, prompt, max_new, stop):
    """All finished replies by brute force, best first: list of (ids, logp)."""
    others = [token for token in range(model.config.vocab) if token not in stop]
    replies = []
    for length in range(max_new):
        for beginning in product(others, repeat=length):
            for last in stop:
                ids = [*beginning, last]
                replies.append((ids, float(teacher_forced(model, prompt, ids).sum())))
    return sorted(replies, key=lambda reply: -reply[1])


def same_replies(replies, expected):
    assert [reply.ids for reply in replies] == [ids for ids, _ in expected]
    assert_close([reply.logp for reply in replies], [logp for _, logp in expected], atol=1e-5, rtol=0)
    assert all(reply.finished for reply in replies)


@pytest.mark.parametrize(
    "family, stop, n",
    [
        ("llama", [4], 80),  # 31 replies: all of them
        ("qwen3", [0, 3, 4], 27),  # of 39 replies; 9 beams at most
        ("qwen2", [0, 1, 2, 4, 5], 5),  # of 15 replies; n are done at once, better ones may come later
        ("llama", [0, 1, 2, 4, 5], 5),
    ],
)
def test_n_best_equals_brute_force(tiny, family, stop, n):
    """Each prompt of a ragged batch, at widths that no beam search can fail at."""
    model = tiny(family, vocab_size=6)
    for prompt, replies in zip(SMALL, n_best(model, SMALL, n, 3, stop)):
        expected = every_reply(model, prompt, 3, stop)
        assert len(replies) == min(n, len(expected))
        same_replies(replies, expected[:n])


def test_n_best_of_one_token_are_the_likeliest_stop_ids(tiny):
    model = tiny(vocab_size=6)
    for prompt, replies in zip(SMALL, n_best(model, SMALL, 6, 1, [1, 2, 4])):
        same_replies(replies, every_reply(model, prompt, 1, [1, 2, 4]))


def test_n_best_log_probabilities_are_per_token(tiny):
    model = tiny(vocab_size=6)
    for prompt, replies in zip(SMALL, n_best(model, SMALL, 5, 6, [4])):
        assert len(replies) == 5
        for reply in replies:
            expected = teacher_forced(model, prompt, reply.ids)
            assert_close(torch.tensor(reply.logps), expected, atol=1e-5, rtol=0)


def test_n_best_in_a_session_equals_n_best_alone_and_leaves_the_session_as_it_was(tiny):
    model = tiny(vocab_size=6)
    session = Session(model)
    replies = generate(model, SMALL, 3, [], temperature=0, session=session)
    prompts = [prompt + reply.ids for prompt, reply in zip(SMALL, replies)]
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


# ------------------------------------------------------------------------------------------------ score
SAMPLES = [
    ([5, 9, 200, 31, 7, 8], [0, 0, 0, 0, 1, 1]),
    ([7, 1], [0, 1]),
    ([5, 9, 200, 31, 7, 9], [0, 0, 0, 1, 0, 1]),
    ([5, 9, 200, 31], [0, 1, 0, 1]),
    ([5, 9, 200, 31, 7, 8], [0, 0, 0, 0, 1, 1]),
    ([250, 3, 4, 4, 18, 90, 2], [0, 0, 0, 1, 1, 1, 1]),
]


@pytest.mark.parametrize("limits", [{}, dict(rows=1, max_tokens=1), dict(rows=2, max_tokens=8)])
@families
def test_score_equals_each_sample_alone(tiny, family, limits):
    model = tiny(family)
    expected = []
    for ids, mask in SAMPLES:
        logps = teacher_forced(model, ids[:1], ids[1:]).tolist()
        expected.append(sum(logp for logp, learned in zip(logps, mask[1:]) if learned))
    assert_close(score(model, SAMPLES, **limits), expected, atol=1e-5, rtol=1e-6)


def test_samples_without_a_learned_token_score_zero(tiny):
    assert score(tiny(), [([7, 1], [0, 0]), ([5, 9], [0, 0])]) == [0, 0]


def test_score_reads_a_shared_beginning_once(tiny):
    model = tiny()
    shapes = count(model)
    score(model, SAMPLES[:1] * 5 + SAMPLES[2:3] * 3)
    assert shapes == [(1, 5)]


def test_score_reads_at_most_its_rows_of_at_most_its_tokens(tiny):
    model = tiny()
    shapes = count(model)
    score(model, [([n] * 6, [0, 1, 1, 1, 1, 1]) for n in range(10)], rows=2, max_tokens=12)
    assert shapes == [(2, 10), (2, 10), (1, 10)]


# ------------------------------------------------------------------------------------------------ the agent
TALKS = [
    [{"role": "system", "content": "Play."}, {"role": "user", "content": "Is it alive?"}],
    [{"role": "user", "content": "Ask the first question."}],
]
CHOICES = ["yes", "no", "Is it alive?"]


@pytest.fixture
def agent(tiny, tokenizer):
    """A maker of Model agents over one tiny model."""
    model = tiny(vocab_size=tokenizer.size)
    return lambda **settings: Model(model, copy.copy(tokenizer), 8, **settings)


def test_choose_gives_the_probability_of_each_whole_reply(agent, tokenizer):
    agent = agent()
    scores = agent.choose(TALKS, CHOICES)
    for talk, row in zip(TALKS, scores):
        prompt, end = tokenizer.prompt(talk), tokenizer.control["<|end|>"]
        replies = [[*tokenizer.encode(choice), end] for choice in CHOICES]
        expected = [float(teacher_forced(agent.model, prompt, ids).sum()) for ids in replies]
        assert_close(row, expected, atol=1e-5, rtol=1e-6)


def test_the_greedy_agent_says_what_its_model_finds_likeliest(agent, tokenizer):
    agent = agent()
    replies = [group[0] for group in agent.reply(TALKS)]
    prompts = [tokenizer.prompt(talk) for talk in TALKS]
    agree(replies, generate(agent.model, prompts, 8, tokenizer.stop_ids, temperature=0))
    assert [reply.text for reply in replies] == [tokenizer.decode(reply.ids) for reply in replies]


def test_an_agents_samples_depend_on_seed_call_row_and_sample(agent):
    first, again, other = (
        agent(temperature=1, seed=1),
        agent(temperature=1, seed=1),
        agent(temperature=1, seed=2),
    )
    groups = first.reply([TALKS[0]] * 2, n=3)
    assert again.reply([TALKS[0]] * 2, n=3) == groups
    texts = [tuple(reply.ids) for group in groups for reply in group]
    assert len(set(texts)) == 6
    assert other.reply([TALKS[0]] * 2, n=3) != groups
    assert first.reply([TALKS[0]] * 2, n=3) != groups


def test_several_replies_at_temperature_zero_are_the_likeliest_best_first(agent):
    agent = agent()
    agent.tokenizer.stop_ids = list(range(0, agent.tokenizer.size, 3))
    groups = agent.reply(TALKS, n=4)
    for group in groups:
        assert isinstance(group[0], Reply) and len(group) == 4
        assert [reply.logp for reply in group] == sorted((reply.logp for reply in group), reverse=True)
        assert len({tuple(reply.ids) for reply in group}) == 4


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_reply_can_be_held_to_choices_of_several_tokens(agent, temperature):
    choices = ["yes", "no", "no, it is not", "Is it alive?"]
    agent = agent(temperature=temperature)
    agent.max_new = 30
    groups = agent.reply(TALKS, 6 if temperature else 1, choices=choices)
    texts = [reply.text for group in groups for reply in group]
    assert set(texts) <= set(choices) and all(reply.finished for group in groups for reply in group)
    if temperature:
        assert len(set(texts)) > 1
    reply = groups[0][0]
    expected = teacher_forced(agent.model, reply.prompt, reply.ids)
    assert_close(torch.tensor(reply.logps), expected, atol=1e-5, rtol=0)  # the model's own all the same


def test_a_reply_goes_on_from_its_beginning_and_ends_before_a_string(agent):
    agent, seen = agent(), []
    agent.max_new = 12
    plain = agent.reply(TALKS[:1])[0][0].text
    begun = agent.reply(TALKS[:1], begin=plain[:3], watch=lambda i, text: seen.append(text))[0][0]
    assert begun.text.startswith(plain[:3]) and seen[-1] == begun.text and len(seen) == len(begun.ids)
    end = plain[4:6]
    cut = agent.reply(TALKS[:1], until=[end])[0][0]
    assert cut.text == plain.partition(end)[0] and cut.finished


def test_an_agent_keeps_its_cache_over_the_turns_of_a_game(agent):
    agent = agent()
    shapes, talks = count(agent.model), TALKS
    for turn in range(3):
        shapes.clear()
        replies = agent.reply(talks)
        if turn:
            assert shapes[0][1] < 0.6 * max(len(agent.tokenizer.prompt(talk)) for talk in talks)
        talks = [
            [*talk, {"role": "assistant", "content": group[0].text}, {"role": "user", "content": "yes"}]
            for talk, group in zip(talks, replies)
        ]
