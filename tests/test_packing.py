"""Texts that share a row mean what they mean alone, and the ways to compute attention agree."""

import pytest
import torch
import torch.nn.functional as F
from conftest import ENCODERS, SHAPES
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import flex_attention
from torch.testing import assert_close

import attention
from attention import ALWAYS, band, banded, blocks, dense, visible
from cache import KVCache
from data import collate, pack
from tests.packed import LONG, SLIDING, batch_for, long_documents, model_body, place, rows_of, text, tree

families = pytest.mark.parametrize("family", SHAPES)
everyone = pytest.mark.parametrize("family", [*SHAPES, *ENCODERS])


SINGLES = [[text(n, seed)] for seed, n in enumerate((21, 14, 9, 3, 2))]
FIRST, SECOND = tree(11, 9, 12, 4, 1), tree(7, 15, 2, 10, seed=50)
LAYOUTS = {  # groups of texts that begin alike, and the slots of a row
    "packed": (SINGLES, 100),
    "tree": ([FIRST], 100),
    "packed trees": ([FIRST, SECOND, *SINGLES], 200),
    "packed rows of different length": ([FIRST, SECOND, *SINGLES], 60),
    "long": ([FIRST, SECOND, *SINGLES, [text(70, 90)], [text(50, 91)]], 170),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)
padded = pytest.mark.parametrize("layout", list(LAYOUTS)[-2:])


def batch_of(layout):
    groups, slots = LAYOUTS[layout]
    batch = collate(pack(rows_of(*groups), slots))
    assert (len(batch.ids) > 1) == (layout in ("long", "packed rows of different length"))
    return batch, [ids for group in groups for ids in group]


def logits_by_text(model, batch, texts, end):
    """The logits that predict each text's tokens, in the order of the texts."""
    hidden = model(batch.ids, batch.positions, end).flatten(0, 1)[batch.source]
    order = batch.labels[batch.owner].argsort(stable=True)
    return model.logits(hidden)[order].split([len(ids) - 1 for ids in texts])


def logits_alone(model, texts):
    return [model.logits(model(torch.tensor([ids[:-1]])))[0] for ids in texts]


def summed_loss(logits, texts):
    return sum(F.cross_entropy(x, torch.tensor(ids[1:]), reduction="sum") for x, ids in zip(logits, texts))


def gradients(model, loss):
    parameters = dict(model.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(loss, parameters.values())))


def same_gradients(actual, expected):
    """To 1e-4 of each weight's own; some, like a key's bias, are zero but for rounding."""
    whole = sum(gradient.square().sum() for gradient in expected.values()).sqrt()
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6 * whole, name


def same_as_by_all_scores(model, inputs, monkeypatch):
    """Hidden states of what is no padding, and gradients, are those that `dense` gives under a mask."""
    real = (inputs[2] > 0)[:, :, None] if len(inputs) > 1 else 1
    found = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(attention, "use_flex", lambda config, positions: False)
            monkeypatch.setattr(attention, "band", lambda *args: None)
            monkeypatch.setattr(attention, "texts_of", lambda end: None)
        hidden = model(*inputs) * real
        found.append((hidden, gradients(model_body(model), hidden.square().sum())))
    assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    same_gradients(found[0][1], found[1][1])


# ------------------------------------------------------------------------------------------------ packing
@layouts
@families
def test_texts_in_packed_rows_equal_texts_alone(tiny, family, layout):
    model, (batch, texts) = tiny(family), batch_of(layout)
    assert not model.config.sliding or model.config.reach + 1 < min(batch.length)
    with torch.no_grad():
        packed = logits_by_text(model, batch, texts, batch.end)
        for actual, expected in zip(packed, logits_alone(model, texts)):
            # logits go up to 12; torch's kernels for AVX-512 with bfloat16 leave 1.7e-5, others 1e-5
            assert_close(actual, expected, atol=2e-5, rtol=1e-5)


@padded
@families
def test_gradients_of_packed_rows_are_those_of_the_texts_alone_in_sum(tiny, family, layout):
    model, (batch, texts) = tiny(family), batch_of(layout)
    packed = gradients(model, summed_loss(logits_by_text(model, batch, texts, batch.end), texts))
    same_gradients(packed, gradients(model, summed_loss(logits_alone(model, texts), texts)))


@pytest.mark.parametrize(
    "family, changes",
    [*((family, {}) for family in ENCODERS), ("gemma3_text", dict(use_bidirectional_attention=True))],
)
def test_documents_in_an_encoder_row_equal_documents_alone(tiny, family, changes):
    model, texts = tiny(family, **changes), [text(n, n) for n in (90, 30, 50, 1)]
    batch = collate(pack(rows_of(*[[ids + [0]] for ids in texts]), 175))  # the last token is no input
    assert len(batch.ids) == 1 and batch.ids.shape[1] >= LONG
    ends = [0, *batch.end[0].unique().tolist()]
    with torch.no_grad():
        packed = model(batch.ids, batch.positions, batch.end)[0]
        for start, stop in zip(ends, ends[1:]):
            alone = model(batch.ids[:, start:stop])[0]
            assert_close(packed[start:stop], alone, atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ the band
def documents(T, *lengths, left=0):
    """positions and end (1, T) of documents one after another, with padding before and behind."""
    positions, end = torch.zeros(1, T, dtype=torch.long), torch.zeros(1, T, dtype=torch.long)
    for n in lengths:
        positions[0, left : left + n], end[0, left : left + n] = torch.arange(n), left + n
        left += n
    return positions, end


T = 270  # no whole number of blocks
STRAIGHT = {
    "whole": documents(T, T),
    "padded right": documents(T, 150),
    "padded left": documents(T, 150, left=80),
    "packed": documents(T, 100, 3, 1, 90, 76),
    "packed and padded": documents(T, 64, 1, 70, 5, left=9),
}
STRAIGHT["endless"] = STRAIGHT["padded right"][0], (STRAIGHT["padded right"][1] > 0) * ALWAYS
CROOKED = {
    "tree": place(collate(rows_of(tree(40, 60, 60, 60)))),
    "a place is skipped": (torch.arange(T)[None] + (torch.arange(T) > 99), torch.full((1, T), ALWAYS)),
    "packed without end": (STRAIGHT["packed"][0], None),
    "numbered documents": (torch.arange(T)[None], torch.arange(T)[None] // 100 + 1),
    "a gap": (STRAIGHT["packed"][0], STRAIGHT["packed"][1] * (torch.arange(T) % 50 > 0)),
}


def random_qkv(heads, groups, T, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, n, T, 8, generator=generator) for n in (heads, groups, groups)]


def near_mask(positions, end, reach, causal):
    near = (positions[:, :, None] - positions[:, None, :]).abs()[:, None] <= reach
    return near & visible(end, causal)


@pytest.mark.parametrize("reach, heads, groups, softcap", [(5, 4, 2, None), (33, 3, 3, 5.0), (20, 4, 1, 5.0)])
@pytest.mark.parametrize("causal", [True, False], ids=["decoder", "encoder"])
@pytest.mark.parametrize("case", STRAIGHT)
def test_the_band_equals_all_scores_under_a_mask(case, causal, reach, heads, groups, softcap):
    positions, end = STRAIGHT[case]
    q, k, v = (tensor.requires_grad_() for tensor in random_qkv(heads, groups, T))
    real, weight = (end > 0)[:, None, :, None], random_qkv(heads, groups, T, seed=1)[0]
    found = []
    for attend, mask in (
        (dense, near_mask(positions, end, reach, causal)),
        (banded, band(positions, end, reach, causal)),
    ):
        x = attend(q, k, v, mask, causal, 0.3, softcap) * real
        found.append([x, *torch.autograd.grad((x * weight).sum(), (q, k, v))])
    for actual, expected in zip(*found):
        assert_close(actual, expected, atol=1e-5, rtol=0)


def test_the_picture_in_band(monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 2)
    mask = band(torch.arange(8)[None], None, 2, True)  # (1, n, 1, w, S)
    inner = [[1, 1, 1, 0], [0, 1, 1, 1]]
    assert mask[0, :, 0].int().tolist() == [[[0, 0, 1, 0], [0, 0, 1, 1]], inner, inner, inner]


@pytest.mark.parametrize("case", CROOKED)
def test_there_is_no_band_where_slots_are_not_positions(case):
    positions, end = CROOKED[case]
    assert band(positions, end, 5, True) is None
    assert case == "tree" or band(positions, end, 5, False) is None  # an encoder has no trees


def test_there_is_no_band_for_short_rows():
    positions, end = documents(T, T)
    assert band(positions, end, 20, True) is not None and band(positions, end, 200, True) is None
    assert band(positions[:, :100], end[:, :100], 20, True) is None


@pytest.fixture
def calls(monkeypatch):
    """How often each way to compute attention was taken."""
    found = dict(dense=0, banded=0, flexed=0)

    def counted(name, way):
        def call(*args):
            found[name] += 1
            return way(*args)

        return call

    for name in found:
        monkeypatch.setattr(attention, name, counted(name, getattr(attention, name)))
    return found


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("family", SLIDING)
def test_a_model_with_the_band_equals_one_without(tiny, monkeypatch, calls, family, plain, recompute):
    model = tiny(family)
    model.recompute_activations(recompute)
    same_as_by_all_scores(model, long_documents()[: 1 if plain else 3], monkeypatch)
    assert calls["banded"]


@pytest.mark.parametrize("family", SLIDING[:-1])
def test_padding_behind_rows_without_end_is_no_obstacle_to_the_band(tiny, calls, family):
    """What collate makes of plain texts of different length: end is None, and padding is at position 0."""
    model, lengths = tiny(family), (190, 150)
    batch = collate(rows_of(*[[text(n, n)] for n in lengths]))
    assert batch.end is None
    with torch.no_grad():
        together = model(batch.ids, batch.positions)
        assert calls["banded"]
        for row, n in enumerate(lengths):
            alone = model(batch.ids[row : row + 1, : n - 1])[0]
            assert_close(together[row, : n - 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", SLIDING[:-1])
def test_a_cache_takes_the_band_for_a_beginning_alone_and_agrees(tiny, calls, family):
    model, ids = tiny(family), torch.tensor([text(LONG, 0)])
    with torch.no_grad():
        cache = KVCache(model.config, rows=1, slots=LONG)
        first = model(ids[:, : LONG - 3], cache=cache)
        taken = calls["banded"]
        assert taken
        cached = torch.cat((first, model(ids[:, LONG - 3 :], cache=cache)), dim=1)
        assert calls["banded"] == taken
        assert_close(model(ids), cached, atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ texts
APART = {  # lengths of the texts of an encoder's rows, one a row; LONG tokens in all are enough for a band
    "long": (150, 90, 31, 1),
    "equal": (70, 70, 70),
    "short, without a band": (20, 9, 4),
    "no longer than the reach": (5, 3, 5),
    "one": (170,),
    "an empty row": (100, 0, 80),
}
apart = pytest.mark.parametrize("lengths", APART.values(), ids=APART)


def one_a_row(lengths, left=0, right=0):
    """ids, positions and end of a row for each text, with that much padding on both sides of the longest."""
    width = left + max(lengths) + right
    found = torch.zeros(3, len(lengths), width, dtype=torch.long)
    for row, n in enumerate(lengths):
        ids = torch.tensor(text(n, row), dtype=torch.long)
        found[:, row, left : left + n] = torch.stack((ids, torch.arange(n), torch.full((n,), left + n)))
    return found


@apart
@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_without_padding_equals_one_with_all_scores(tiny, monkeypatch, calls, family, lengths):
    model = tiny(family)
    same_as_by_all_scores(model, one_a_row(lengths), monkeypatch)
    assert calls["banded"] == (sum(model.config.sliding or [0]) if sum(lengths) >= LONG else 0)


@pytest.mark.parametrize("family", ["mistral", "modernbert"])
def test_no_mask_of_all_scores_is_made_where_none_is_needed(tiny, monkeypatch, family):
    """Where all layers slide, and of texts without padding."""
    monkeypatch.setattr(attention, "visible", lambda *args: pytest.fail("a mask (B, 1, T, S)"))
    tiny(family)(*(long_documents() if family == "mistral" else one_a_row(APART["long"])))


# ------------------------------------------------------------------------------------------------ the kernel
@pytest.fixture
def flex(monkeypatch):
    """A GPU's way on a CPU: the same functions, uncompiled, which is slow and correct. torch refuses
    gradients there, though its reference computes them."""
    monkeypatch.setattr(attention, "use_flex", lambda config, positions: True)
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)  # which is for this
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *args: None)


@everyone
def test_the_kernels_rule_equals_a_mask(tiny, flex, calls, monkeypatch, family):
    model = tiny(family)
    same_as_by_all_scores(model, batch_for(model), monkeypatch)
    assert calls["flexed"] == calls["dense"] == model.config.layers - len(model.config.recurrent)


def test_blocks_that_are_computed_again_have_the_same_gradients(tiny, flex, monkeypatch):
    """Uncompiled they would not, so this compiles as a GPU does, up to the kernel."""
    model = tiny("gemma2")
    inputs, found = batch_for(model), []
    compiled = torch.compile(attention.flex_attention, backend="aot_eager")
    monkeypatch.setattr(attention, "flex_attention", compiled)
    for recompute in (True, False):
        model.recompute_activations(recompute)
        hidden = model(*inputs) * (inputs[2] > 0)[:, :, None]
        found.append(gradients(model_body(model), hidden.square().sum()))
    same_gradients(*found)


@everyone
def test_plain_rows_need_the_kernel_for_windows_and_caps_only(tiny, flex, calls, monkeypatch, family):
    model = tiny(family)
    ids = batch_for(model)[0]
    with torch.no_grad():
        hidden = model(ids)
        layers, capped = model.config.layers, model.config.softcap is not None
        assert calls["flexed"] == (layers if capped else sum(model.config.sliding))
        monkeypatch.setattr(attention, "use_flex", lambda config, positions: False)
        assert_close(hidden, model(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["decoder", "encoder"])
@pytest.mark.parametrize("reach", [1, 129, ALWAYS])
def test_the_kernels_list_of_blocks_leaves_out_only_what_nobody_sees(causal, reach):
    rows = [documents(1000, *lengths) for lengths in ((1000,), (130, 400, 300, 170), (500, 10), (7,))]
    if causal:
        trees = collate(pack(rows_of(tree(300, 200, 200), tree(20, 90, 90, seed=9)), 1000))
        rows.append([F.pad(tensor, (0, 1000 - tensor.shape[1])) for tensor in place(trees)])
    positions, end = (torch.cat(part) for part in zip(*rows))
    mask = blocks(positions, end, reach, causal)
    listed = mask.to_dense()[:, 0] > 0  # (B, 8, 8)
    expected = near_mask(positions, end, reach, causal)[:, 0]
    read = expected & ((end > 0)[:, :, None] | torch.eye(1000, dtype=torch.bool))  # padding's own is not
    wanted = F.pad(read, (0, 24, 0, 24)).view(len(rows), 8, 128, 8, 128).any(4).any(2)
    assert (listed >= wanted).all()
    assert listed[1].sum() <= 1.5 * wanted[1].sum()  # and most of the rest
    i, j = torch.arange(1000)[:, None], torch.arange(1000)
    assert torch.equal(mask.mask_mod(torch.arange(len(rows))[:, None, None], 0, i, j), expected)


def test_a_kernel_serves_other_lengths_windows_and_scales(flex, monkeypatch):
    """A number in a rule would be compiled in, and refused when it varies: so they are tensors."""
    counter = CompileCounter()
    compiled = torch.compile(attention.flex_attention, backend=counter)

    def watched(*args, score_mod, block_mask, **kwargs):
        for rule in (score_mod, block_mask.mask_mod):
            for cell in rule.__closure__:
                assert isinstance(cell.cell_contents, (torch.Tensor, bool))
        return compiled(*args, score_mod=score_mod, block_mask=block_mask, **kwargs)

    monkeypatch.setattr(attention, "flex_attention", watched)
    for T, reach, scale, softcap in ((140, 5, 0.3, 5.0), (300, ALWAYS, 0.4, 6.0), (450, 9, 0.5, 7.0)):
        positions, end = documents(T, 100, T - 100)
        q, k, v = random_qkv(4, 2, T)
        expected = dense(q, k, v, near_mask(positions, end, reach, True), True, scale, softcap)
        actual = attention.flexed(q, k, v, blocks(positions, end, reach, True), True, scale, softcap)
        assert_close(actual, expected, atol=1e-5, rtol=0)
    assert counter.frame_count <= 2  # one for the first length, one for all others
