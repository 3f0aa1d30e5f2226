"""The agents: a Model on top of the sampler, and the Journal of their replies."""

import copy

import pytest
import torch
from torch.testing import assert_close

from agents import Classifier, Journal, Model
from games.task import Reply
from sampler import generate
from tests.replies import agree, count, teacher_forced

# ------------------------------------------------------------------------------------------------ a model
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
    first, again, other = (agent(temperature=1, seed=seed) for seed in (1, 1, 2))
    groups = first.reply([TALKS[0]] * 2, n=3)
    assert again.reply([TALKS[0]] * 2, n=3) == groups
    texts = [tuple(reply.ids) for group in groups for reply in group]
    assert len(set(texts)) == 6
    assert other.reply([TALKS[0]] * 2, n=3) != groups
    assert first.reply([TALKS[0]] * 2, n=3) != groups
    first.start_part(64)
    again = first.reply([TALKS[0]] * 2, n=3)
    assert [tuple(reply.ids) for group in again for reply in group] == texts


def test_several_replies_at_temperature_zero_are_the_likeliest_best_first(agent):
    agent = agent()
    agent.tokenizer.stop_ids = list(range(0, agent.tokenizer.size, 3))
    groups = agent.reply(TALKS, n=4)
    for group in groups:
        assert isinstance(group[0], Reply) and len(group) == 4
        assert [reply.logp for reply in group] == sorted((reply.logp for reply in group), reverse=True)
        assert len({tuple(reply.ids) for reply in group}) == 4


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


@pytest.mark.parametrize("labels", [1, 3])
def test_a_single_score_counts_as_log_odds_and_several_exclude_each_other(tiny, tokenizer, labels):
    hf = dict(architectures=["LlamaForSequenceClassification"], num_labels=labels)
    agent = Classifier(tiny(vocab_size=tokenizer.size, **hf), tokenizer)
    with torch.no_grad():  # the largest saturates in float32, but the order must stay
        agent.model.classifier.out.weight *= 25 / agent.scores(TALKS).abs().max()
    scores = agent.scores(TALKS)
    chances = torch.tensor(agent.classify(TALKS))
    assert_close(chances.sum(1), torch.ones_like(chances[:, 0]))
    if labels == 1:
        assert_close(chances[:, 1], scores[:, 0].double().sigmoid())
        assert float(scores.abs().max()) > 17 and len(set(chances[:, 1].tolist())) == len(TALKS)
    else:
        assert_close(chances, scores.softmax(-1))


def test_a_classifier_with_a_weight_that_is_not_finite_says_so(tiny, tokenizer):
    hf = dict(architectures=["LlamaForSequenceClassification"], num_labels=2, vocab_size=tokenizer.size)
    agent = Classifier(tiny(**hf), tokenizer)
    with torch.no_grad():
        agent.model.classifier.out.weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"its weight score\.weight is not"):
        agent.classify(TALKS)


def test_a_conversation_that_ends_with_a_reply_is_read_up_to_its_end(tokenizer):
    talk = [TALKS[1][0], {"role": "assistant", "content": "No."}]
    row, _ = tokenizer.fit_row(talk, 99, 0)
    assert row.ids == tokenizer.render(talk)[0] and row.ids[-1] == tokenizer.control["<|end|>"]


# ------------------------------------------------------------------------------------------------ the journal
def test_a_journal_goes_on_where_it_was_cut_off(tmp_path):
    path, settings = tmp_path / "new" / "rows.part", {"n": 2, "names": ("a", "b")}
    Journal(path, settings).add([{"row": 0, "text": "\u00e9"}, {"row": 3}])
    whole = path.read_bytes()
    for cut in range(1, 6):
        path.write_bytes(whole[:-cut] if cut > 1 else whole + b'{"r')
        journal = Journal(path, settings)
        assert list(journal.rows) == ([0, 3] if cut == 1 else [0])
        journal.add([{"row": 3}])
        assert path.read_bytes() == whole + (whole.split(b"\n")[1] + b"\n" if cut == 1 else b"")
    assert Journal("", settings).rows == {}


@pytest.mark.parametrize(
    "content, why",
    [
        ('{"row": 0, "settings": {"n": 3}}\n', "made with n 3, now 2"),
        ('{"row": 0}\n', "made with n None, now 2"),
        ('{\n  "row": 0\n}\n', "not a journal"),
        ("my notes", "not a journal"),
        ('{"row": 0, ]\n', "line 1: not valid JSON"),
    ],
)
def test_a_file_that_is_no_journal_of_this_call_is_left_alone(tmp_path, content, why):
    path = tmp_path / "rows.part"
    path.write_text(content)
    with pytest.raises(ValueError, match=why):
        Journal(path, {"n": 2})
    assert path.read_text() == content
