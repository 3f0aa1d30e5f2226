"""Generation, n-best and scoring."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import sampler
from cache import Session
from sampler import generate, invert, n_best, pick, score, truncate
from tests.replies import PROMPTS, STOP, agree, attentive, count, families, samplings, teacher_forced


# ------------------------------------------------------------------------------------------------ not finite
def broken(model):
    with torch.no_grad():
        model.layers[1].mlp.up_proj.weight[3, 5] = torch.nan
    return r"not finite: its weight model\.layers\.1\.mlp\.up_proj\.weight is not"


def overflowing(model):
    with torch.no_grad():
        model.head.weight *= 1e38
    return "not finite: they overflow in torch.float32"


@pytest.mark.parametrize("damage", [broken, overflowing])
def test_numbers_that_are_not_finite_end_the_work_with_what_is_likely(tiny, damage):
    model = tiny()
    why = damage(model)
    for temperature in (0, 1):
        with pytest.raises(ValueError, match=why):
            generate(model, PROMPTS, 4, STOP, temperature)
    with pytest.raises(ValueError, match=why):
        n_best(model, PROMPTS, 2, 4, STOP)
    if damage is broken:
        with pytest.raises(ValueError, match=why):
            score(model, [([5, 6, 7], [0, 1, 1])])


@pytest.mark.parametrize("temperature", [1e-40, 1e-7])
def test_a_temperature_near_zero_is_greedy(tiny, temperature):
    agree(generate(tiny(), PROMPTS, 8, STOP, temperature), generate(tiny(), PROMPTS, 8, STOP, 0))


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
    lengths = [3, 1, 7, 5]  # a limit each
    replies = generate(tiny("llama"), PROMPTS, lengths, [], temperature=0, batch=2)
    assert [len(reply.ids) for reply in replies] == lengths
    assert not any(reply.finished for reply in replies)
    model = tiny()
    shapes = count(model)
    assert [len(reply.ids) for reply in generate(model, PROMPTS, 50, range(300))] == [1] * 4
    assert len(shapes) == 1 and generate(model, [], 3, []) == []  # nothing more is computed


def test_the_same_seeds_repeat_and_others_differ_unless_the_best_is_taken(tiny):
    first, again, other = (generate(tiny(), PROMPTS, 8, [], seeds=[[s]] * 4) for s in (1, 1, 2))
    assert first == again
    assert [reply.ids for reply in first] != [reply.ids for reply in other]
    greedy, best, single = (
        generate(tiny(), PROMPTS, 8, STOP, seeds=[[s]] * 4, **settings)
        for s, settings in enumerate((dict(temperature=0), dict(temperature=0), dict(top_k=1)))
    )
    assert greedy == best == single


@samplings
@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_batch_order_and_neighbours_change_nothing(tiny, family, sampling):
    model, rng = tiny(family), np.random.default_rng(1)
    prompts = [rng.integers(300, size=rng.integers(1, 30)).tolist() for _ in range(12)]
    settings = dict(temperature=sampling["temperature"])
    seeds = [[5, i] for i in range(12)]
    expected = [
        generate(model, [prompt], 7, STOP, seeds=[seed], **settings)[0]
        for prompt, seed in zip(prompts, seeds)
    ]
    assert len({len(reply.ids) for reply in expected}) > 3
    for batch in (1, 3, 12):
        agree(generate(model, prompts, 7, STOP, seeds=seeds, batch=batch, **settings), expected)
    order = rng.permutation(12)
    replies = generate(
        model, [prompts[i] for i in order], 7, STOP, seeds=[seeds[i] for i in order], batch=5, **settings
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


def test_until_ends_a_reply_and_watch_sees_every_token(tiny):
    seen = []
    watch = lambda i, reply: seen.append((i, reply.ids[-1]))
    replies = generate(tiny(), PROMPTS, 9, [], until=lambda ids: sum(ids) > 400, watch=watch)
    for i, reply in enumerate(replies):
        assert sum(reply.ids[:-1]) <= 400 and (sum(reply.ids) > 400) == reply.finished
        assert [token for row, token in seen if row == i] == reply.ids


# ------------------------------------------------------------------------------------------------ pick
PROBS = torch.tensor([[0.1, 0.4, 0.05, 0.25, 0.2], [0.6, 0.05, 0.05, 0.1, 0.2]])


@pytest.mark.parametrize(
    "settings, kept",
    [
        ({}, [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
        (dict(top_k=2), [[1, 3], [0, 4]]),
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
    shares = np.random.default_rng(0).random(n)
    tokens = pick(PROBS[:1].log().expand(n, -1), shares, **settings)
    counts, expected = np.bincount(tokens, minlength=5), n * weights / weights.sum()
    assert (counts[weights == 0] == 0).all()
    alive = weights > 0
    assert ((counts[alive] - expected[alive]) ** 2 / expected[alive]).sum() < 23.5
    edges = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]] * 2)
    assert pick(edges, [0.0, 1 - 2**-53], 1.0).tolist() == [1, 3]


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


@pytest.mark.parametrize(
    "family, stop, n, longest",
    [
        ("llama", [4], 80, 3),  # 31 replies: all of them
        ("qwen3", [0, 3, 4], 27, 3),  # of 39 replies; 9 beams at most
        ("qwen2", [0, 1, 2, 4, 5], 5, 3),  # of 15 replies; n are done at once, better ones may come later
        ("llama", [0, 1, 2, 4, 5], 5, 3),
        ("llama", [1, 2, 4], 6, 1),  # the likeliest stop ids
    ],
)
def test_n_best_equals_brute_force(tiny, family, stop, n, longest):
    """Each prompt of a ragged batch, at widths that no beam search can fail at."""
    model = tiny(family, vocab_size=6)
    for prompt, replies in zip(SMALL, n_best(model, SMALL, n, longest, stop)):
        expected = every_reply(model, prompt, longest, stop)[:n]
        assert [reply.ids for reply in replies] == [ids for ids, _ in expected]
        assert_close([reply.logp for reply in replies], [logp for _, logp in expected], atol=1e-5, rtol=0)
        for reply in replies:
            logps = teacher_forced(model, prompt, reply.ids)
            assert reply.finished
            assert_close(torch.tensor(reply.logps), logps, atol=1e-5, rtol=0)


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


def test_score_reads_a_shared_beginning_once_and_at_most_its_rows_of_at_most_its_tokens(tiny):
    model = tiny()
    shapes = count(model)
    assert score(model, [([7, 1], [0, 0]), ([5, 9], [0, 0])]) == [0, 0]
    shapes.clear()
    score(model, SAMPLES[:1] * 5 + SAMPLES[2:3] * 3)
    assert shapes == [(1, 5)]
    shapes.clear()
    score(model, [([n] * 6, [0, 1, 1, 1, 1, 1]) for n in range(10)], rows=2, max_tokens=12)
    assert shapes == [(2, 10), (2, 10), (1, 10)]


# ------------------------------------------------------------------------------------------------ drafts
LOOP = [5, 9, 200, 31, 4] * 4


def without_drafts(monkeypatch, *arguments, **settings):
    with monkeypatch.context() as patch:
        patch.setattr(sampler, "PAYS", 10)
        return generate(*arguments, **settings)


@attentive
def test_a_reply_read_with_drafts_is_the_same(tiny, monkeypatch, family):
    """A greedy random model soon repeats itself, so many drafts come true. Its reply may end within a draft,
    by a stop token, its limit or `until`. The session then goes on as if there had been no draft."""
    model = tiny(family)
    for settings in (dict(), dict(until=lambda ids: len(ids) > 6 and ids[-1] % 2), dict(stop=STOP)):
        call = [model, [LOOP], 30, settings.pop("stop", [])]
        plain = without_drafts(monkeypatch, *call, temperature=0, **settings)
        session = Session(model)
        shapes = count(model)
        seen = []
        watch = lambda i, reply, seen=seen: seen.append(len(reply.ids))
        agree(generate(*call, temperature=0, session=session, watch=watch, **settings), plain)
        ids = plain[0].ids
        assert seen == [*range(1, len(ids) + 1)]
        if len(ids) == 30:
            assert len(shapes) < 30 and (1, 1 + sampler.FLOAT32_DRAFT) in shapes
        assert session.texts[0] == (LOOP + ids)[: len(LOOP) + len(ids) - 1]
        longer = [LOOP + ids + [17]]
        agree(
            generate(model, longer, 4, [], temperature=0, session=session), generate(model, longer, 4, [], 0)
        )
        del model.forward


def test_drafts_that_do_not_come_true_end_by_themselves():
    """They are tried again once they would have come true."""
    lookup = sampler.Lookup([1, 2, 9, 9, 9] * 2, 3)
    used = []
    for i in range(200):
        used.append(bool(lookup.draft(5)))
        for token in (1, 2, 100 + i) if i < 100 else (1, 2, 3):
            lookup.add(token)
    assert sum(used[:100]) < 20 and not any(used[80:100])
    assert all(used[150:])
