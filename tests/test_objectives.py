"""Objectives: what an item becomes, and that each one trains, on games whose items are made up from a tiny
world."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import data
import lora
import losses
import model as models
import objectives
import runs
import train
from embed import load_embedder
from games import GAMES, task_class
from games.task import Chat, Contrast, Duel, Episode, Judged, Label, Pair, Reply, Task
from games.twentyq.prompts import answer_prompt
from games.twentyq.task import TwentyQuestions
from objectives import OBJECTIVES, Learner, step_of
from recipes import Train, parse

SMALL = (
    "--dim 32 --layers 1 --heads 2 --kv-heads 2 --mlp-dim 32 --vocab 400 --eval-n 2 --eval-few 2 --batch 4 "
    "--noise 0 --no-greedy --max-new 4 --threads 1 --dtype float32 --device cpu --optimizer adamw --lr 0.003 "
    "--no-mask-truncated"
).split()
KINDS = ["sft", "classify", "davidson", "contrastive", "dpo", "kto", "grpo"]
kinds = pytest.mark.parametrize("kind", KINDS)


class Facts(TwentyQuestions):
    """Whether something holds of a keyword, as items of any kind; `kind` is set by a fixture."""

    kind, labels = "sft", 2

    def __init__(self, options=None, seed=0):
        super().__init__(options, seed)
        self.loss = self.kind

    def items(self, example, rng):
        k, made = self.world.keyword_index[example["keyword"]], []
        for q in rng.choice(len(self.world.questions), 2, replace=False):
            question, other = (self.world.questions[i % len(self.world.questions)] for i in (q, q + 1))
            messages, true = answer_prompt(example["keyword"], question), bool(self.world.table[k, q])
            right, wrong = ("yes, it is so", "no") if true else ("no", "yes, it is so")
            made.append(
                {
                    "sft": Chat([*messages, {"role": "assistant", "content": right}]),
                    "classify": Label(messages, int(true)),
                    "davidson": Duel(messages, answer_prompt(example["keyword"], other), 1 - int(true)),
                    "dpo": Pair(messages, right, wrong),
                    "kto": Judged(messages, right if len(made) else wrong, bool(made)),
                    "contrastive": Contrast(f"{example['keyword']}: {question}", question, [other], int(q)),
                }[self.kind]
            )
        return made

    def bank(self):
        return self.world.questions

    def prompt(self, example):
        return answer_prompt(example["keyword"], self.world.questions[0])

    def score(self, example, reply):
        return {"score": float("a" in reply), "short": float(len(reply) < 8)}

    def rollout(self, examples, agent):
        return Task.play(self, examples, agent)

    def evaluate(self, examples, agent):
        return dict(n=len(examples), metrics={"none": 0.0}, intervals={}, baselines={}, records=[])


@pytest.fixture
def facts(monkeypatch):
    """facts(kind) makes the game 20q give items of that kind."""

    def choose(kind):
        monkeypatch.setattr(Facts, "kind", kind)
        monkeypatch.setitem(GAMES, "20q", Facts)

    return choose


@pytest.fixture(scope="module")
def base(world_file, tmp_path_factory):
    """A small decoder with random weights and a tokenizer, as a folder."""
    folder = tmp_path_factory.mktemp("base")
    cfg = parse(Train, [*SMALL, "--world", str(world_file)])
    model, tokenizer = train.scratch(cfg, TwentyQuestions(cfg.options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.empty(weight.shape).normal_(0, 0.1, generator=generator))
    models.save(model, folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture
def flags(world_file, base, tmp_path):
    return [*SMALL, "--world", str(world_file), "--model", str(base), "--runs", str(tmp_path)]


def rows_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def before_and_after(folder):
    """The loss on unseen items; where the model plays itself what it missed in its first and last games."""
    rows = rows_in(folder)
    if "reward" in rows[0]:
        return [1 - sum(row["reward"] for row in part) / 8 for part in (rows[:8], rows[-8:])]
    return [models.read_json(folder / f"{name}.json")["metrics"]["valid_loss"] for name in ("before", "eval")]


# ------------------------------------------------------------------------------------------------ training
@pytest.mark.parametrize("lora_rank", [0, 4])
@kinds
def test_each_objective_trains(flags, facts, tmp_path, kind, lora_rank):
    facts(kind)
    more = ["--lora-rank", str(lora_rank), "--steps", "30", "--name", "a", "--warmup", "0"]
    assert train.main([*flags, *more]) == 0
    before, after = before_and_after(tmp_path / "a")
    assert after < before - 0.02
    if kind == "dpo":
        assert before == pytest.approx(math.log(2), abs=1e-6)
        assert rows_in(tmp_path / "a")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    if kind == "kto":
        assert before == pytest.approx(0.5, abs=1e-6)
    model, _, _ = lora.open_model(str(tmp_path / "a"))
    assert model.config.labels == {"classify": 2, "davidson": 2, "contrastive": 0}.get(kind)


@kinds
def test_three_steps_and_three_resumed_are_six(flags, facts, tmp_path, kind):
    facts(kind)
    assert train.main([*flags, "--steps", "6", "--save-every", "3", "--name", "a"]) == 0
    assert train.main([*flags, "--steps", "3", "--schedule", "constant", "--name", "b"]) == 0
    assert train.main([*flags, "--steps", "6", "--schedule", "constant", "--name", "c"]) == 0
    assert train.main(["--resume", str(tmp_path / "b"), "--steps", "6"]) == 0
    resumed, whole = (rows_in(tmp_path / name) for name in "bc")
    assert [row["loss"] for row in resumed] == [row["loss"] for row in whole]


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


def test_a_classifier_beside_a_half_precision_base_is_trained_in_float32(flags, facts, tmp_path, capsys):
    """Its gradients would be float16 otherwise, which the loss scaler refuses."""
    facts("classify")
    more = ["--lora-rank", "4", "--dtype", "float16", "--steps", "4", "--name", "a"]
    assert train.main([*flags, *more]) == 0
    assert "classifier: classifier.out.weight made anew" in capsys.readouterr().out


def test_a_run_whose_classifier_is_gone_does_not_resume_with_another(flags, facts, tmp_path, capsys):
    facts("classify")
    assert train.main([*flags, "--steps", "2", "--name", "a"]) == 0
    path = tmp_path / "a" / "model" / "model.safetensors"
    state = load_file(path)
    del state["score.weight"]
    save_file(state, path)
    assert train.main(["--resume", str(tmp_path / "a"), "--steps", "4"]) == 1
    assert "score.weight is missing" in capsys.readouterr().err


def test_a_loss_of_another_item_is_an_error_that_names_both(flags, facts, capsys):
    facts("dpo")
    assert train.main([*flags, "--loss", "sft", "--steps", "1"]) == 1
    assert "learns from Chat items, and the task gives Pair" in capsys.readouterr().err


def test_preferences_without_a_model_to_compare_with_are_a_wrong_call(flags, facts, capsys):
    facts("dpo")
    flags = [flag for i, flag in enumerate(flags) if "--model" not in (flag, flags[i - 1])]
    assert train.main([*flags, "--steps", "1"]) == 2
    assert "needs --model or --init" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ layouts
@pytest.fixture
def opened(base):
    return models.load(base), data.load_tokenizer(base)


def items(kind, n=5):
    """n pairs or judged replies of different lengths, each to a prompt of its own."""
    texts = ["yes", "no, it is not", "Is it alive?", "metal", "oak tree"]
    prompts = [[{"role": "user", "content": f"Keyword: {text}"}] for text in texts]
    if kind == "dpo":
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
    (row,) = step_of(OBJECTIVES["dpo"], learner_of(opened), [items("dpo")]).rows  # packed into one
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
    step = step_of(OBJECTIVES["kto"], learner, [items("kto")])
    z = objectives.kto_before(learner, step, batches, lambda tensor: None)
    judged = items("kto")
    swapped = [(at.messages, said.reply) for at, said in zip(judged[1:] + judged[:1], judged)]
    gains = [alone(model, tokenizer, *reply) - alone(reference, tokenizer, *reply) for reply in swapped]
    assert_close(z, torch.stack(gains).mean(), atol=1e-4, rtol=0)


def test_a_single_judged_reply_has_no_other_prompt_to_be_put_to(opened):
    learner = learner_of(opened)
    step = step_of(OBJECTIVES["kto"], learner, [items("kto", 1)])
    assert len(step.rows) == 1 and objectives.kto_before(learner, step, batches, lambda tensor: None) == 0


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto"])
def test_what_is_too_long_is_left_out_whole_and_counted(opened, kind):
    long, short = "word " * 60, "oak"
    messages = {text: [{"role": "user", "content": text}] for text in (long, short)}
    made = {
        "sft": [Chat([*messages[text], {"role": "assistant", "content": "yes"}]) for text in messages],
        "dpo": [Pair(messages[text], "yes", "no") for text in messages],
        "kto": [Judged(messages[text], "yes", True) for text in (long, short, short)],
    }[kind]
    step = step_of(OBJECTIVES[kind], learner_of(opened, "--max-tokens", "30"), [made])
    assert step.left_out == 1 and step.weight > 0 and step.rows


def test_a_text_that_is_classified_is_shortened_and_counted(opened):
    messages = [[{"role": "user", "content": text}] for text in ("word " * 60, "oak")]
    learner = learner_of(opened, "--max-tokens", "30")
    step = step_of(OBJECTIVES["classify"], learner, [[Label(one, 1) for one in messages]])
    assert step.weight == 2 and step.left_out == 0 and step.report == {"cut": 0.5}
    assert 20 < len(step.rows[0].ids) <= 30 and step.rows[1].ids == opened[1].prompt(messages[1])


@pytest.mark.parametrize("family", ["qwen3", "bert", "modernbert"])
@torch.no_grad()
def test_classifying_a_padded_batch_equals_each_text_alone(tiny, tmp_path, family):
    models.save(tiny(family), tmp_path)
    model = models.load(tmp_path, labels=3, seed=0)
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
    model = models.load(base, labels=2, seed=1)
    learner = learner_of((model, data.load_tokenizer(base)))
    sides = [[{"role": "user", "content": text}] for text in ("oak " * 9, "elm", "it can fly")]
    turn = {0: 1}.get(target) if target == 0 else [target[1], target[0], target[2]]
    duels = [Duel(sides[0], sides[1], target), Duel(sides[2], sides[0], 2)]
    step, other = (
        step_of(OBJECTIVES["davidson"], learner, [some])
        for some in (duels, [Duel(sides[1], sides[0], turn), duels[1]])
    )
    scores = torch.cat([model.classify(model(torch.tensor([row.ids]))) for row in step.rows])
    worth, tie = scores[::2, 0] - scores[1::2, 0], scores[::2, 1] + scores[1::2, 1]
    logp = torch.stack([worth / 2, -worth / 2, tie], 1).log_softmax(1)
    wanted = torch.tensor([target if isinstance(target, list) else [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    total, expected = gradients(learner, step, 4, "duel")
    assert step.known is None and total == pytest.approx(-float((wanted * logp).sum()), rel=1e-5)
    for one, cut in ((step, 1), (step, 3), (other, 3)):
        again, found = gradients(learner, one, cut, "duel")
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
    """embeds(flags, bank) makes a Learner whose tokenizer is an Embedder."""

    def make(*flags, bank=()):
        embedder = load_embedder(base, normalise=True)
        return Learner(embedder.model, embedder, parse(Train, [*flags]), bank=list(bank))

    return make


def gradients(learner, step, cut, kind="contrast"):
    """Loss and the gradient of every trained weight, the step's rows cut into batches of `cut` rows."""
    model = learner.model
    model.zero_grad(set_to_none=True)

    def batches(rows):
        for n in range(0, len(rows), cut):
            torch.manual_seed(n)
            yield data.collate(rows[n : n + cut])

    objective = OBJECTIVES[{"contrast": "contrastive", "duel": "davidson"}[kind]]
    step.known = objective.before(learner, step, batches, lambda tensor: None)
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
    step = step_of(OBJECTIVES["contrastive"], learner, [contrasts()])
    whole, expected = gradients(learner, step, len(step.rows))
    assert step.known is None and max(grad.abs().max() for grad in expected) > 1e-3
    for cut in (1, 3):
        total, found = gradients(learner, step, cut)
        assert step.known is not None and total == pytest.approx(whole, rel=1e-5)
        for a, b in zip(found, expected):
            assert_close(a, b, atol=1e-5 * float(b.abs().max()) + 1e-7, rtol=1e-4)


def test_both_passes_of_the_gradient_cache_see_the_same_dropout(embeds):
    """A pass that dropped other numbers than the one before would learn from gradients of other vectors."""
    learner = embeds()
    lora.add_lora(learner.model, 4, dropout=0.5)
    with torch.no_grad():
        for _, layer in lora.adapters(learner.model):
            layer.lora_B.normal_(generator=torch.Generator().manual_seed(0))
    learner.model.train()
    step = step_of(OBJECTIVES["contrastive"], learner, [contrasts()])
    seen, vectors_of = [], objectives.vectors_of

    def spied(learner, batch):
        seen.append(vectors_of(learner, batch))
        return seen[-1]

    objectives.vectors_of = spied
    try:
        gradients(learner, step, 3)
    finally:
        objectives.vectors_of = vectors_of
    assert len(seen) % 2 == 0
    for first, second in zip(seen[: len(seen) // 2], seen[len(seen) // 2 :]):
        assert_close(first, second.detach(), atol=0, rtol=0)


def test_each_text_is_embedded_once_and_equal_labels_are_masked(embeds):
    learner = embeds()
    items = contrasts()
    step = step_of(OBJECTIVES["contrastive"], learner, [items, items[:1]])
    assert len(step.rows) == 4 + 4 + 1 + 4  # queries, positives, "stone", positives with a question mark
    assert step.weight == 5
    plan = {name: value.tolist() for name, value in step.plan.items()}
    assert plan["own"] == [0, 1, 2, 3, 0] and plan["query_label"] == [0, 0, 1, 2, 0]
    assert plan["candidate_label"][:4] == [0, 0, 1, 2] and len(set(plan["candidate_label"][4:])) == 5
    assert step.report["masked"] == pytest.approx(3 / (5 * 8))  # each question about trees has one twin


def test_texts_without_labels_are_twins_of_none(embeds):
    step = step_of(
        OBJECTIVES["contrastive"], embeds(), [[replace(item, label_id=None) for item in contrasts()]]
    )
    assert step.report["masked"] == 0 and len(set(step.plan["candidate_label"].tolist())) == 9


def test_against_the_bank_the_candidates_are_all_labels(embeds):
    bank = ["tree", "metal", "it can fly", "stone", "tree"]
    learner = embeds("--bank", bank=bank)
    step = step_of(OBJECTIVES["contrastive"], learner, [contrasts()])
    texts = [row.ids for row in step.rows]
    tokens = [ids for ids, _ in learner.tokenizer.tokens(bank)]
    candidates = [texts[n] for n in step.plan["candidate"].tolist()]
    assert sorted(candidates) == sorted(tokens[:4])  # two labels with the same text are one candidate
    own = [candidates[i] for i in step.plan["own"].tolist()]
    assert own == [tokens[item.label_id] for item in contrasts()]


@pytest.mark.parametrize("cut", [3, 100])
def test_a_teacher_moves_the_scores_of_a_querys_own_texts_towards_its_own(embeds, cut):
    """With --distil the loss grows by the divergence over each query's own texts, however the step is cut."""
    items = [replace(item, scores=[2.0, 0.0, 1.0]) for item in contrasts()]
    items[0] = replace(items[0], negatives=["stone"], scores=[2.0, 0.0])
    plain, taught = (embeds("--distil", str(weight)) for weight in (0.0, 0.5))
    totals = [
        gradients(one, step_of(OBJECTIVES["contrastive"], one, [items]), cut)[0] for one in (plain, taught)
    ]
    embedder, gaps = taught.tokenizer, 0.0
    for item in items:
        vectors = embedder.embed([item.query, item.positive, *item.negatives])
        scores = (vectors[1:] @ vectors[0])[None] / taught.cfg.tau
        gaps += float(losses.distil(scores, torch.tensor([item.scores])))
    assert gaps > 0.1 and totals[1] - totals[0] == pytest.approx(0.5 * gaps, rel=1e-3)
    with pytest.raises(ValueError, match="--distil: these rows hold no scores"):
        step_of(OBJECTIVES["contrastive"], taught, [contrasts()])


def test_a_contrastive_run_opens_in_both_forms_and_its_vectors_learned(flags, facts, tmp_path):
    """From scratch an encoder, from a checkpoint with an adapter that one; both are folders to embed with."""
    facts("contrastive")
    alone = [flag for i, flag in enumerate(flags) if "--model" not in (flag, flags[i - 1])]
    for name, given in (("new", alone), ("lora", [*flags, "--lora-rank", "4"])):
        more = ["--recipe", "20q-model", "--steps", "20", "--bank", "--warmup", "0", "--name", name]
        assert train.main([*given, *more]) == 0
        embedder = load_embedder(tmp_path / name)
        task = task_class("20q")(parse(Train, flags).options)
        questions = embedder.embed(task.world.questions)
        queries = embedder.embed([f"eagle: {question}" for question in task.world.questions])
        assert_close(questions.norm(dim=1), torch.ones(len(questions)))
        assert (queries @ questions.T).argmax(1).tolist() == list(range(len(questions)))


# ------------------------------------------------------------------------------------------------ reward
class Said:
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
    return learner, objectives.rollout_step(learner, task, [{"x": 0}, {"x": 1}], [0])


def test_groups_without_spread_and_replies_that_were_cut_are_left_out_and_counted(opened):
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


@pytest.mark.parametrize("how", ["token", "sequence", "constant"])
def test_losses_are_normalised_by_token_by_reply_or_by_the_longest_reply(opened, how):
    """On policy the loss of a token is minus its reply's advantage: the sums can be written down."""
    flags = ["--no-mask-truncated", "--no-scale-rewards", "--max-new", "10", "--normalise", how]
    learner, step = rolled(opened, *flags)
    loss, _, clipped = objectives.grpo_loss(learner, data.collate(step.rows), step)
    expected = {"token": (-0.5 * 3 + 0.5 * 4) / 7, "sequence": 0.0, "constant": (-0.5 * 3 + 0.5 * 4) / 20}[
        how
    ]
    assert loss.item() / step.weight == pytest.approx(expected, abs=1e-6) and clipped == 0


def test_too_long_games_are_left_out_and_counted(opened):
    _, step = rolled(opened, "--max-tokens", "4")
    assert step.rows == [] and step.left_out == 1


def test_the_policy_gradient_is_that_of_the_plain_formula(opened):
    learner, step = rolled(opened, "--no-mask-truncated", "--temperature", "0.7")
    model = learner.model
    objectives.grpo_loss(learner, data.collate(step.rows), step)[0].backward()
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
    assert objectives.grpo_loss(learner, data.collate(step.rows), step)[1] == 0
    with torch.no_grad():
        for weight in reference.parameters():
            weight.mul_(1.3)
    plain, kl, _ = objectives.grpo_loss(
        replace(learner, cfg=replace(learner.cfg, kl=0.0)), data.collate(step.rows), step
    )
    assert kl == 0
    loss, kl, _ = objectives.grpo_loss(learner, data.collate(step.rows), step)
    assert kl > 0.01 and (loss - plain).item() == pytest.approx(0.5 * kl.item(), rel=1e-4)


def test_several_updates_are_held_to_the_probabilities_that_were_sampled_from(flags, facts, tmp_path):
    facts("grpo")
    more = ["--steps", "4", "--updates", "3", "--lr", "0.02", "--warmup", "0", "--no-scale-rewards"]
    assert train.main([*flags, *more, "--group", "16", "--name", "a"]) == 0
    rows = [row for row in rows_in(tmp_path / "a") if row["tokens"]]
    assert max(row["clipped"] for row in rows) > 0.01
    assert train.main([*flags, *more, "--group", "16", "--name", "b", "--updates", "1"]) == 0
    assert max(row["clipped"] for row in rows_in(tmp_path / "b")) == 0


def test_rollouts_of_a_resumed_run_are_written_once(flags, facts, tmp_path):
    facts("grpo")
    assert train.main([*flags, "--steps", "4", "--save-every", "2", "--name", "a"]) == 0
    path = tmp_path / "a" / "rollouts.jsonl"
    whole = path.read_text()
    assert {json.loads(line)["step"] for line in whole.splitlines()} == {1, 2, 3, 4}
    run = runs.Run(tmp_path / "a")
    run.rewind(2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()][-1] == 2
