"""Objectives: what an item becomes, and that each one trains, on games whose items are made up from a tiny
world."""

import copy
import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import checkpoint
import data
import lora
import losses
import model as models
import objectives
import rollouts
import runs
import train
from files import read_json, write_json
from games import task_class
from games.task import Chat, Contrast, Duel, Episode, Judged, Label, Pair, Ranked, Reply, Rollouts
from objectives import OBJECTIVES
from recipes import Train, parse
from steps import Learner, Place
from tests.facts import KINDS, SMALL, Gives, rng, rows_in

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def flags(world_file, base, expert, tmp_path):
    models = ["--model", str(base), "--expert", str(expert)]
    return [*SMALL, "--world", str(world_file), *models, "--runs", str(tmp_path)]


def before_and_after(folder):
    """The loss on unseen items; where the model plays itself what it missed, or how far it was from the
    expert, in its first and last games."""
    rows = rows_in(folder)
    if "kl" not in rows[0] and "reward" in rows[0]:
        return [sum(row["loss"] for row in part) / 8 for part in (rows[:8], rows[-8:])]
    if "reward" in rows[0]:
        return [1 - sum(row["reward"] for row in part) / 8 for part in (rows[:8], rows[-8:])]
    return [read_json(folder / f"{name}.json")["metrics"]["valid_loss"] for name in ("before", "eval")]


# ------------------------------------------------------------------------------------------------ training
@pytest.mark.parametrize("lora_rank", [0, 4])
@kinds
def test_each_objective_trains(flags, facts, tmp_path, kind, lora_rank):
    facts(kind)
    speed = ["--steps", "30"] if kind in ("dpo", "grpo") else ["--steps", "16", "--lr", "0.006"]
    more = ["--lora-rank", str(lora_rank), "--name", "a", "--warmup", "0"]
    assert train.main([*flags, *more, *speed]) == 0
    before, after = before_and_after(tmp_path / "a")
    assert after < before - 0.02
    if kind == "dpo":
        assert before == pytest.approx(math.log(2), abs=1e-6)
        assert rows_in(tmp_path / "a")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    if kind == "kto":
        assert before == pytest.approx(0.5, abs=1e-6)
    config = checkpoint.open(tmp_path / "a", tokenizer=False).model.config
    labels = {"classify": 2, "davidson": 2, "bradley-terry": 1}.get(kind, 0)
    head = "classes" if labels else {"contrastive": "none"}.get(kind, "lm")
    assert config.head == head and config.labels == labels


@kinds
def test_three_steps_and_three_resumed_are_six(flags, facts, tmp_path, kind):
    facts(kind)
    flags += ["--schedule", "constant", "--save-every", "3"]
    assert train.main([*flags, "--steps", "3", "--name", "b"]) == 0
    assert train.main([*flags, "--steps", "6", "--name", "c"]) == 0
    assert train.main(["--resume", str(tmp_path / "b"), "--steps", "6"]) == 0
    resumed, whole = (rows_in(tmp_path / name) for name in "bc")
    assert [row["loss"] for row in resumed] == [row["loss"] for row in whole]
    if kind == "grpo":
        runs.Run(tmp_path / "c").rewind(2)
        lines = (tmp_path / "c" / "rollouts.jsonl").read_text().splitlines()
        assert {json.loads(line)["step"] for line in lines} == {1, 2}


def test_a_classifier_on_a_half_precision_base_learns_in_float32_and_is_not_made_anew_when_resuming(
    flags, facts, tmp_path, capsys
):
    """Its gradients would be float16 otherwise, which the loss scaler refuses."""
    facts("classify")
    more = ["--lora-rank", "4", "--dtype", "float16", "--steps", "2", "--name", "a"]
    assert train.main([*flags, *more]) == 0
    assert "classifier: classifier.out.weight made anew" in capsys.readouterr().out
    path = tmp_path / "a" / "model" / "adapter_model.safetensors"
    state = load_file(path)
    kept = {key: tensor for key, tensor in state.items() if "score" not in key}
    assert len(kept) < len(state)
    save_file(kept, path)
    assert train.main(["--resume", str(tmp_path / "a"), "--steps", "4"]) == 1
    assert "score.weight is missing" in capsys.readouterr().err


def test_preferences_need_their_items_and_a_model_to_compare_with(flags, facts, capsys):
    facts("dpo")
    assert train.main([*flags, "--loss", "sft", "--steps", "1"]) == 1
    assert "learns from Chat items, and the task gives Pair" in capsys.readouterr().err
    assert train.main([*flags, "--model", "", "--steps", "1"]) == 2
    assert "needs --model or --init" in capsys.readouterr().err


@kinds
def test_how_the_work_is_cut_changes_nothing(flags, facts, tmp_path, kind):
    facts(kind)
    losses_, norms = [], []
    for name, slots, width in (("a", "8192", "1"), ("b", "100", "1"), ("c", "512", "400")):
        more = ["--micro-tokens", slots, "--row-tokens", width]
        assert train.main([*flags, "--steps", "2", "--name", name, *more]) == 0
        losses_.append([row["loss"] for row in rows_in(tmp_path / name)])
        norms.append([row["grad"] for row in rows_in(tmp_path / name)])
    for cut in (1, 2):
        assert losses_[0] == pytest.approx(losses_[cut], rel=1e-5, abs=1e-6)
        assert norms[0] == pytest.approx(norms[cut], rel=1e-4)


# ------------------------------------------------------------------------------------------------ layouts
@pytest.fixture
def opened(base):
    return models.load(base), data.load_tokenizer(base)


def step_of(kind, learner, *examples):
    """The Step of examples, each a list of items."""
    return OBJECTIVES[kind].step(learner, Gives(), [(items, rng()) for items in examples], Place())


def items(kind, n=5):
    """n pairs or judged replies of different lengths, each to a prompt of its own."""
    texts = ["yes", "no, it is not", "Is it alive?", "metal", "oak tree"]
    prompts = [[{"role": "user", "content": f"Keyword: {text}"}] for text in texts]
    if kind in ("dpo", "simpo"):
        return [Pair(prompts[i], texts[i], texts[i - 1]) for i in range(n)]
    return [Judged(prompts[i], texts[i], i % 2 == 0) for i in range(n)]


def learner_of(opened, *flags, **more):
    return Learner(*opened, parse(Train, ["--max-tokens", "400", "--row-tokens", "400", *flags]), **more)


def batches(rows):
    """Collated in two halves, as an objective's `before` asks for them."""
    return [data.collate(part) for part in (rows[:2], rows[2:]) if part]


def alone(model, tokenizer, messages, reply):
    ids, mask = tokenizer.render([*messages, {"role": "assistant", "content": reply}])
    logp = model.logits(model(torch.tensor([ids])))[0].log_softmax(-1)
    return sum(logp[t - 1, ids[t]] for t in range(len(ids)) if mask[t])


@torch.no_grad()
def test_packed_pairs_have_the_log_probabilities_of_their_replies_alone(opened):
    (row,) = step_of("dpo", learner_of(opened), items("dpo")).rows  # packed into one
    found = objectives.reply_logp(opened[0], data.collate([row])).view(-1, 2)
    replies = [(pair.messages, reply) for pair in items("dpo") for reply in (pair.chosen, pair.rejected)]
    expected = torch.stack([alone(*opened, *reply) for reply in replies]).view(-1, 2)
    # rows are packed in an order of their own
    order = [scores[:, 0].argsort() for scores in (found, expected)]
    assert_close(found[order[0]], expected[order[1]], atol=1e-4, rtol=0)


@torch.no_grad()
def test_ktos_z_is_the_mean_gain_of_replies_put_to_other_prompts(opened):
    model, tokenizer = opened
    reference = copy.deepcopy(model)
    for weight in reference.parameters():
        weight.mul_(1.1)
    learner = learner_of(opened, reference=reference)
    step = step_of("kto", learner, items("kto"))
    objectives.kto_before(learner, step, batches, lambda tensor: None)
    judged = items("kto")
    swapped = [(at.messages, said.reply) for at, said in zip(judged[1:] + judged[:1], judged)]
    gains = [alone(model, tokenizer, *reply) - alone(reference, tokenizer, *reply) for reply in swapped]
    assert_close(step.z, torch.stack(gains).mean(), atol=1e-4, rtol=0)
    step = step_of("kto", learner, items("kto", 1))  # which has no other prompt to be put to
    objectives.kto_before(learner, step, batches, lambda tensor: None)
    assert len(step.rows) == 1 and step.z == 0


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto"])
def test_what_is_too_long_is_left_out_whole_and_counted(opened, kind):
    long, short = "word " * 60, "oak"
    messages = {text: [{"role": "user", "content": text}] for text in (long, short)}
    made = {
        "sft": [Chat([*messages[text], {"role": "assistant", "content": "yes"}]) for text in messages],
        "dpo": [Pair(messages[text], "yes", "no") for text in messages],
        "kto": [Judged(messages[text], "yes", True) for text in (long, short, short)],
    }[kind]
    step = step_of(kind, learner_of(opened, "--max-tokens", "30"), made)
    assert step.left_out == 1 and step.weight > 0 and step.rows


def test_a_text_that_is_classified_is_shortened_and_counted(opened):
    messages = [[{"role": "user", "content": text}] for text in ("word " * 60, "oak")]
    learner = learner_of(opened, "--max-tokens", "30")
    step = step_of("classify", learner, [Label(one, 1) for one in messages])
    assert step.weight == 2 and step.left_out == 0 and step.report == {"cut": 0.5}
    assert 20 < len(step.rows[0].ids) <= 30 and step.rows[1].ids == opened[1].prompt(messages[1])


@pytest.mark.parametrize("family", ["qwen3", "bert", "modernbert"])
@torch.no_grad()
def test_classifying_a_padded_batch_equals_each_text_alone(tiny, tmp_path, family):
    models.save(tiny(family), tmp_path)
    model = models.load(tmp_path, head=3, seed=0)
    texts = [[5, 6, 7, 8, 9], [5, 9], [4, 4, 4]]
    rows = [data.text_row(ids, label) for ids, label in zip(texts, (0, 2, 1))]
    found, right = objectives.classify_loss(Learner(model, None, None), data.collate(rows), None)
    logits, labels = torch.cat([model.classify(model(torch.tensor([ids]))) for ids in texts]), (0, 2, 1)
    assert_close(found, losses.classify(logits, torch.tensor(labels)).sum(), atol=1e-5, rtol=1e-5)
    assert right == sum(best == label for best, label in zip(logits.argmax(-1).tolist(), labels))
    assert (logits.amax(0) - logits.amin(0)).max() > 0.01


@pytest.mark.parametrize("target", [0, [0.5, 0.2, 0.3]])
def test_a_duel_is_the_softmax_of_davidsons_model_and_blind_to_the_order(base, tmp_path, target):
    """Loss and gradients are those of all rows at once however the step is cut, and those of the duel in the
    other order."""
    model = models.load(base, head=2, seed=1)
    learner = learner_of((model, data.load_tokenizer(base)))
    sides = [[{"role": "user", "content": text}] for text in ("oak " * 9, "elm", "it can fly")]
    turn = {0: 1}.get(target) if target == 0 else [target[1], target[0], target[2]]
    duels = [Duel(sides[0], sides[1], target), Duel(sides[2], sides[0], 2)]
    step, other = (
        step_of("davidson", learner, some) for some in (duels, [Duel(sides[1], sides[0], turn), duels[1]])
    )
    scores = torch.cat([model.classify(model(torch.tensor([row.ids]))) for row in step.rows])
    worth, tie = scores[::2, 0] - scores[1::2, 0], scores[::2, 1] + scores[1::2, 1]
    logp = torch.stack([worth / 2, -worth / 2, tie], 1).log_softmax(1)
    wanted = torch.tensor([target if isinstance(target, list) else [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    total, expected = gradients(learner, step, 4, OBJECTIVES["davidson"])
    assert step.slope is None and total == pytest.approx(-(wanted * logp).sum().item(), rel=1e-5)
    for one, cut in ((step, 1), (step, 3), (other, 3)):
        again, found = gradients(learner, one, cut, OBJECTIVES["davidson"])
        assert again == pytest.approx(total, rel=1e-5)
        for a, b in zip(found, expected):
            assert_close(a, b, atol=1e-5 * float(b.abs().max()) + 1e-7, rtol=1e-4)


def test_a_reward_model_reads_whole_chats_and_learns_from_the_difference_of_its_scores(base):
    """Loss and gradients are those of all rows at once however the step is cut."""
    model = models.load(base, head=1, seed=1)
    tokenizer = data.load_tokenizer(base)
    learner = learner_of((model, tokenizer))
    asked = {"role": "user", "content": "oak"}
    chats = [[asked, {"role": "assistant", "content": text}] for text in ("a tree " * 5, "no", "metal")]
    pairs = [Ranked(chats[0], chats[1]), Ranked(chats[2], chats[0])]
    step = step_of("bradley-terry", learner, pairs)
    assert [row.ids for row in step.rows[:2]] == [tokenizer.render(chat)[0] for chat in chats[:2]]
    scores = torch.cat([model.classify(model(torch.tensor([row.ids]))) for row in step.rows])  # (4, 1)
    wanted = -(scores[::2] - scores[1::2]).sigmoid().log().sum().item()
    total, expected = gradients(learner, step, 4, OBJECTIVES["bradley-terry"])
    assert total == pytest.approx(wanted, rel=1e-5)
    for cut in (1, 3):
        again, found = gradients(learner, step, cut, OBJECTIVES["bradley-terry"])
        assert again == pytest.approx(total, rel=1e-5)
        for a, b in zip(found, expected):
            assert_close(a, b, atol=1e-5 * float(b.abs().max()) + 1e-7, rtol=1e-4)


# ------------------------------------------------------------------------------------------------ contrastive
def contrasts():
    """Four questions about two labels: two of them share a label with positives worded differently."""
    texts = [("oak", "tree", 0), ("elm tree", "a tree", 0), ("spoon", "metal", 1), ("plane", "it can fly", 2)]
    return [Contrast(query, positive, ["stone", positive + "?"], label) for query, positive, label in texts]


@pytest.fixture
def embeds(base):
    """embeds(flags, bank) makes a Learner of vectors."""

    def make(*flags, bank=()):
        point = checkpoint.open(base, "none", normalise=True)
        return Learner(point.model, None, parse(Train, [*flags]), point.embedder, bank=list(bank))

    return make


def gradients(learner, step, cut, objective=OBJECTIVES["contrastive"]):
    """Loss and the gradient of every trained weight, the step's rows cut into batches of `cut` rows."""
    model = learner.model
    model.zero_grad(set_to_none=True)

    def batches(rows):
        for n in range(0, len(rows), cut):
            torch.manual_seed(n)
            yield data.collate(rows[n : n + cut])

    step.slope = None
    objective.before(learner, step, batches, lambda tensor: None)
    total = 0.0
    for batch in batches(step.rows):
        loss, *_ = objective.loss(learner, batch, step)
        loss.backward()
        total += loss.item()
    return total, [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


@pytest.mark.parametrize(
    "bank", [[], ["tree", "metal", "it can fly", "stone", "alive"]], ids=["batch", "bank"]
)
def test_cached_gradients_are_those_of_the_whole_step(embeds, bank):
    learner = embeds(*(["--bank"] if bank else []), bank=bank)
    step = step_of("contrastive", learner, contrasts())
    whole, expected = gradients(learner, step, len(step.rows))
    assert step.slope is None and max(grad.abs().max() for grad in expected) > 1e-3
    for cut in (1, 3):
        total, found = gradients(learner, step, cut)
        assert step.slope is not None and total == pytest.approx(whole, rel=1e-5)
        for a, b in zip(found, expected):
            assert_close(a, b, atol=1e-5 * float(b.abs().max()) + 1e-7, rtol=1e-4)


def test_the_numbers_of_the_example_of_the_gradient_cache():
    w = torch.tensor(2.0, requires_grad=True)
    before, loss = objectives.whole_step_functions(
        lambda learner, batch: w * batch.ids,
        lambda learner: 1,
        lambda learner, o, step: [torch.cat([o.prod()[None], torch.zeros(2)])],
    )
    learner = SimpleNamespace(model=SimpleNamespace(device="cpu"))
    step = objectives.WholeStep([data.text_row([x], [i]) for i, x in enumerate((1, 3, 2))])
    before(learner, step, batches, lambda tensor: None)
    assert step.slope.flatten().tolist() == [24, 8, 12]
    parts = [loss(learner, batch, step)[0] for batch in batches(step.rows)]
    assert sum(parts).item() == 48
    assert [torch.autograd.grad(part, w)[0].item() for part in parts] == [48, 24]


def test_both_passes_of_the_gradient_cache_see_the_same_dropout(embeds):
    """A pass that dropped other numbers than the one before would learn from gradients of other vectors."""
    learner = embeds()
    lora.add_lora(learner.model, 4, dropout=0.5)
    with torch.no_grad():
        for _, layer in lora.adapters(learner.model):
            layer.lora_B.normal_(generator=torch.Generator().manual_seed(0))
    learner.model.train()
    step = step_of("contrastive", learner, contrasts())
    seen = []

    def vectors(learner, batch):
        seen.append(objectives.text_vectors(learner, batch))
        return seen[-1]

    before, loss = objectives.whole_step_functions(
        vectors, lambda learner: learner.embedder.width, objectives.contrast
    )
    gradients(learner, step, 3, replace(OBJECTIVES["contrastive"], before=before, loss=loss))
    assert len(seen) % 2 == 0
    for first, second in zip(seen[: len(seen) // 2], seen[len(seen) // 2 :]):
        assert_close(first, second.detach(), atol=0, rtol=0)


def test_each_text_is_embedded_once_and_equal_labels_are_masked(embeds):
    learner = embeds()
    items = contrasts()
    step = step_of("contrastive", learner, items, items[:1])
    assert len(step.rows) == 4 + 4 + 1 + 4  # queries, positives, "stone", positives with a question mark
    assert step.weight == 5
    assert step.positive.tolist() == [0, 1, 2, 3, 0] and step.query_label.tolist() == [0, 0, 1, 2, 0]
    labels = step.candidate_label.tolist()
    assert labels[:4] == [0, 0, 1, 2] and len(set(labels[4:])) == 5
    assert step.report["masked"] == pytest.approx(3 / (5 * 8))  # each question about trees has one twin
    step = step_of("contrastive", learner, [replace(item, label_id=None) for item in items])
    assert step.report["masked"] == 0 and len(set(step.candidate_label.tolist())) == 9


def test_against_the_bank_the_candidates_are_all_labels(embeds):
    bank = ["tree", "metal", "it can fly", "stone", "tree"]
    learner = embeds("--bank", bank=bank)
    step = step_of("contrastive", learner, contrasts())
    texts = [row.ids for row in step.rows]
    tokens = [ids for ids, _ in learner.embedder.tokens(bank)]
    candidates = [texts[n] for n in step.candidate.tolist()]
    assert sorted(candidates) == sorted(tokens[:4])  # two labels with the same text are one candidate
    own = [candidates[i] for i in step.positive.tolist()]
    assert own == [tokens[item.label_id] for item in contrasts()]


def test_a_contrastive_run_opens_in_both_forms_and_its_vectors_learned(flags, facts, tmp_path):
    """From scratch an encoder, from a checkpoint with an adapter that one; both are folders to embed with."""
    facts("contrastive")
    alone = [flag for i, flag in enumerate(flags) if "--model" not in (flag, flags[i - 1])]
    for name, given in (("new", alone), ("lora", [*flags, "--lora-rank", "4"])):
        more = ["--recipe", "20q-model", "--steps", "40", "--bank", "--warmup", "0", "--name", name]
        assert train.main([*given, *more]) == 0
        embedder = checkpoint.open(tmp_path / name, "none").embedder
        task = task_class("20q")(parse(Train, flags).options)
        questions = embedder.embed(task.world.questions)
        queries = embedder.embed([f"eagle: {question}" for question in task.world.questions])
        assert_close(questions.norm(dim=1), torch.ones(len(questions)))
        assert (queries @ questions.T).argmax(1).tolist() == list(range(len(questions)))


def test_simpo_compares_the_mean_log_probabilities_of_the_tokens_of_the_replies(opened):
    learner = learner_of(opened, "--beta", "3", "--lead", "0.4")
    step = step_of("simpo", learner, items("simpo"))
    loss, right, gap = objectives.simpo_loss(learner, data.collate(step.rows), step)
    expected = []
    for pair in items("simpo"):
        means = []
        for text in (pair.chosen, pair.rejected):
            _, mask = opened[1].render([*pair.messages, {"role": "assistant", "content": text}])
            means.append(alone(*opened, pair.messages, text).item() / sum(mask))
        expected.append(means[0] - means[1])
    losses_ = [math.log1p(math.exp(0.4 - 3 * difference)) for difference in expected]
    assert loss.item() == pytest.approx(sum(losses_), rel=1e-4)
    assert gap.item() == pytest.approx(sum(expected), rel=1e-3, abs=1e-4)
    assert right.item() == sum(difference > 0 for difference in expected)


# ------------------------------------------------------------------------------------------------ reward
class Said(Rollouts):
    """A game of one reply each, which were said before: what rollout_step lays out can be foretold."""

    def __init__(self, replies, rewards):
        self.replies, self.rewards = replies, rewards

    def rollout(self, examples, agent):
        return [
            Episode(example, [], [reply], reward, {"score": reward})
            for example, reply, reward in zip(examples, self.replies, self.rewards)
        ]


def reply(prompt, ids, finished=True):
    return Reply("", list(ids), finished=finished, prompt=list(prompt))


def rolled(opened, *flags):
    """Two examples of two games: the first group differs in reward, one of its replies is cut; the second
    does not."""
    replies = [
        reply([1, 5], [7, 8, 2]),
        reply([1, 5], [7, 9, 9, 9], False),
        reply([1, 6], [3]),
        reply([1, 6], [4]),
    ]
    task, learner = Said(replies, [1.0, 0.0, 0.5, 0.5]), learner_of(opened, "--group", "2", *flags)
    return learner, rollouts.rollout_step(learner, task, [({"x": 0}, rng()), ({"x": 1}, rng())], Place())


def test_groups_without_spread_cut_replies_and_long_games_are_left_out_and_counted(opened):
    _, step = rolled(opened)
    assert step.report["zero_spread"] == 0.5 and step.report["truncated"] == 0.25
    assert (
        step.report["reward"] == 0.5 and step.report["length"] == 9 / 4 and step.report["score/score"] == 0.5
    )
    (row,) = step.rows
    assert row.target == [7, 8, 2] and step.weight == 3
    assert row.labels[0] == pytest.approx([0.5 / (0.5**0.5 + 1e-4), 1.0])
    _, step = rolled(opened, "--no-mask-truncated", "--no-scale-rewards")
    (row,) = step.rows
    assert sorted(row.labels) == [[-0.5, 1.0], [0.5, 1.0]] and step.weight == 7
    assert row.ids == [1, 5, 7, 8, 9, 9]  # the prompt and what the replies share are computed once
    _, step = rolled(opened, "--max-tokens", "4")
    assert step.rows == [] and step.left_out == 1


@pytest.mark.parametrize("how", ["token", "sequence", "constant"])
def test_losses_are_normalised_by_token_by_reply_or_by_the_longest_reply(opened, how):
    """On policy the loss of a token is minus its reply's advantage: the sums can be written down."""
    flags = ["--no-mask-truncated", "--no-scale-rewards", "--max-new", "10", "--normalise", how]
    learner, step = rolled(opened, *flags)
    loss, _, clipped = rollouts.grpo_loss(learner, data.collate(step.rows), step)
    expected = {"token": (-0.5 * 3 + 0.5 * 4) / 7, "sequence": 0.0, "constant": (-0.5 * 3 + 0.5 * 4) / 20}[
        how
    ]
    assert loss.item() / step.weight == pytest.approx(expected, abs=1e-6) and clipped == 0


def test_the_policy_gradient_is_that_of_the_plain_formula(opened):
    learner, step = rolled(opened, "--no-mask-truncated", "--temperature", "0.7")
    model = learner.model
    rollouts.grpo_loss(learner, data.collate(step.rows), step)[0].backward()
    found = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    advantage = losses.advantages(torch.tensor([[1.0, 0.0]]))[0]
    for weight, ids in zip(advantage, ([1, 5, 7, 8, 2], [1, 5, 7, 9, 9, 9])):
        logp = (model.logits(model(torch.tensor([ids])))[0] / 0.7).log_softmax(-1)
        (-weight * sum(logp[t - 1, ids[t]] for t in range(2, len(ids)))).backward()
    for a, weight in zip(found, model.parameters()):
        assert_close(a, weight.grad, atol=1e-5, rtol=1e-4)


def test_the_divergence_from_the_model_before_is_zero_at_first_and_pulls_back(opened):
    model, tokenizer = opened
    reference = copy.deepcopy(model)
    learner, step = rolled(opened, "--kl", "0.5")
    learner.reference = reference
    assert rollouts.grpo_loss(learner, data.collate(step.rows), step)[1] == 0
    with torch.no_grad():
        for weight in reference.parameters():
            weight.mul_(1.3)
    plain, kl, _ = rollouts.grpo_loss(
        replace(learner, cfg=replace(learner.cfg, kl=0.0)), data.collate(step.rows), step
    )
    assert kl == 0
    loss, kl, _ = rollouts.grpo_loss(learner, data.collate(step.rows), step)
    assert kl > 0.01 and (loss - plain).item() == pytest.approx(0.5 * kl.item(), rel=1e-4)


def test_several_updates_are_held_to_the_probabilities_that_were_sampled_from(flags, facts, tmp_path):
    facts("grpo")
    more = ["--steps", "4", "--updates", "3", "--lr", "0.02", "--warmup", "0", "--no-scale-rewards"]
    assert train.main([*flags, *more, "--group", "16", "--name", "a"]) == 0
    rows = [row for row in rows_in(tmp_path / "a") if row["tokens"]]
    assert max(row["clipped"] for row in rows) > 0.01
    assert train.main([*flags, *more, "--group", "16", "--name", "b", "--updates", "1"]) == 0
    assert max(row["clipped"] for row in rows_in(tmp_path / "b")) == 0


# ------------------------------------------------------------------------------------------------ an expert
def test_distillation_is_the_divergence_at_each_token_that_the_student_sampled(opened, expert):
    """All games count, whatever they were worth, and each as if it were alone."""
    learner, _ = rolled(opened)
    teacher = models.load(expert).requires_grad_(False)
    learner = replace(learner, cfg=replace(learner.cfg, loss="distil"), reference=teacher)
    task = Said([reply([1, 5], [7, 8, 2]), reply([1, 6], [3, 2])], [0.5, 0.5])
    learner.cfg.group = 1
    step = rollouts.rollout_step(learner, task, [({"x": 0}, rng()), ({"x": 1}, rng())], Place())
    (loss,) = rollouts.distil_loss(learner, data.collate(step.rows), step)
    loss.backward()
    found = [weight.grad.clone() for weight in learner.model.parameters()]
    learner.model.zero_grad()
    total = 0
    for ids in ([1, 5, 7, 8, 2], [1, 6, 3, 2]):
        ours, theirs = (
            one.logits(one(torch.tensor([ids])))[0, 1:-1].log_softmax(-1) for one in (learner.model, teacher)
        )
        total = total + (ours.exp() * (ours - theirs)).sum()
    total.backward()
    assert step.weight == 5 and loss.item() == pytest.approx(total.item(), rel=1e-4) and loss.item() > 0.1
    for gradient, weight in zip(found, learner.model.parameters()):
        assert_close(gradient, weight.grad, atol=1e-5, rtol=1e-3)


def test_an_expert_is_needed_and_reads_the_same_tokens(flags, facts, base, tiny, tmp_path, capsys):
    facts("distil")
    assert train.main([*flags, "--steps", "1", "--expert", ""]) == 2
    assert "--loss distil needs --expert" in capsys.readouterr().err
    cfg = parse(Train, [*SMALL])
    other = checkpoint.from_scratch(cfg, ["a b c d"] * 4, r"\s")
    other.save(tmp_path / "other")
    assert train.main([*flags, "--steps", "1", "--expert", str(tmp_path / "other")]) == 1
    assert "has another tokenizer" in capsys.readouterr().err
    for name in ("student", "same"):  # a template that is none of ours, twice
        shutil.copytree(base, tmp_path / name)
        config = read_json(tmp_path / name / "tokenizer_config.json")
        config["chat_template"] += "{# of others #}"
        write_json(tmp_path / name / "tokenizer_config.json", config)
    student = [*flags, "--model", str(tmp_path / "student"), "--steps", "1", "--dry-run", "--expert"]
    assert train.main([*student, str(tmp_path / "same")]) == 0
    assert train.main([*student, str(base)]) == 1
    assert "has another chat format" in capsys.readouterr().err
    facts("classify")
    assert train.main([*flags, "--steps", "1", "--name", "classes"]) == 0
    facts("distil")
    assert train.main([*flags, "--steps", "1", "--expert", str(tmp_path / "classes")]) == 1
    assert "predicts no tokens" in capsys.readouterr().err
    facts("grpo")
    assert train.main([*flags, "--steps", "1", "--group", "1"]) == 2
    assert "--group must be at least 2" in capsys.readouterr().err
