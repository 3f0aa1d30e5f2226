"""Train a model to play: python train.py --task 20q

The whole loop stands in train(): examples -> items -> packed rows -> model -> loss -> step -> log, evaluate,
save. A step's examples, their augmentation and its dropout follow from (seed, step); losses are summed and
divided by a weight known before the first backward, so how the work is cut changes nothing (dropout and
NEFTune excepted: they draw by micro-batch)."""

import math
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import processors
from tqdm import tqdm

import data
import lora
import model as models
import objectives
import ranks
import runs
from agents import Classifier, Encoder, Model
from embed import Embedder, load_embedder, save_embedder
from families import config_from_hf, set_labels
from games import task_class
from games.rows import enough
from games.task import Contrast, Duel, Label
from objectives import OBJECTIVES, Learner, batches_of, items_of, step_of
from optim import Muon
from recipes import Train, UsageError, parse, restore, values
from reports import describe, figures
from runs import autocast

MAY_CHANGE = (
    "resume device threads steps epochs max_minutes patience eval_every save_every dry_run name runs "
    "row_tokens micro_tokens".split()
)
VALID, NO_EPOCH = 32, 1 << 30  # examples of the validation loss, and an epoch that training never reaches
WHOLE = 32_768  # slots of a batch, padding counted, whose texts can be learned from only together


# ------------------------------------------------------------------------------------------------ set-up
def scratch(cfg, task, labels=None):
    """A new model and the tokenizer for it, both small: (model, tokenizer). A decoder; with labels an encoder
    and so many classes, or none."""
    tokenizer = data.train_tokenizer(task.texts(), cfg.vocab, task.pieces)
    config = {
        "vocab_size": tokenizer.size,
        "hidden_size": cfg.dim,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "intermediate_size": cfg.mlp_dim,
        "max_position_embeddings": 4096,
        "attention_bias": False,
        "bos_token_id": tokenizer.control["<|begin|>"],
        "eos_token_id": tokenizer.control["<|end|>"],
    }
    decoder = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.dim // cfg.heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    }
    encoder = {
        "model_type": "modernbert",
        "architectures": ["ModernBertModel"],
        "norm_eps": 1e-6,
        "global_rope_theta": 10_000.0,
        "global_attn_every_n_layers": 1,
        "hidden_activation": "gelu",
        "classifier_pooling": "mean",
        **dict.fromkeys(("pad_token_id", "sep_token_id"), tokenizer.control["<|end|>"]),
        "cls_token_id": tokenizer.control["<|begin|>"],
    }
    config = config_from_hf(config | (decoder if labels is None else encoder))
    if labels is not None:
        set_labels(config, labels)
        tokenizer.inner.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A <|end|>",
            pair="<|begin|> $A <|end|> $B <|end|>",
            special_tokens=[(name, tokenizer.control[name]) for name in ("<|begin|>", "<|end|>")],
        )
        tokenizer = data.Tokenizer(tokenizer.inner, data.encoder_format(tokenizer.inner))
    return models.Transformer(config).initialise(cfg.seed), tokenizer


def scratch_embedder(cfg, task):
    """A new encoder whose vectors are the mean of its hidden states, of unit length."""
    model, tokenizer = scratch(cfg, task, 0)
    return Embedder(model, tokenizer.inner, None, cfg.max_tokens, normalise=True)


def reference_of(cfg, model, device):
    """The model before training, frozen, or None where that is the model without its adapter."""
    name = cfg.init or cfg.model
    if lora.adapters(model) and not (models.resolve(name) / "adapter_config.json").exists():
        return None
    if not name:
        raise UsageError(
            f"--loss {cfg.loss} compares with the model before training: it needs --model or --init"
        )
    reference = lora.open_model(name, device=device, revision=cfg.revision or None)[0]
    if lora.adapters(reference):
        lora.merge_lora(reference)
    return reference.float().requires_grad_(False)


def opened(cfg, task, device, compute, labels=None):
    """(model, tokenizer, write): the model to train, with a classifier of `labels` classes if there are any,
    its trainable parameters marked, and write(folder) to save it. Labels 0 make texts into vectors: the
    tokenizer is then an Embedder."""
    name, base, revision = cfg.resume or cfg.init or cfg.model, ("", None), cfg.revision or None
    if name:
        frozen = compute if cfg.lora_rank else torch.float32
        if labels == 0:
            tokenizer = load_embedder(name, frozen, device, revision, normalise=True)
            tokenizer.cut(cfg.max_tokens)
            model, folder, base = tokenizer.model, None, tokenizer.base
        else:
            seed = cfg.seed if labels and not cfg.resume else None
            model, folder, base = lora.open_model(name, "", frozen, device, revision, labels, seed)
            tokenizer = data.load_tokenizer(folder, cfg.format, model.config.vocab)
        if lora.adapters(model) and not cfg.resume:
            rank = lora.adapters(model)[0][1].rank
            if cfg.lora_rank not in (0, rank):
                raise ValueError(
                    f"{name} is an adapter of rank {rank}: --lora-rank {rank} trains it further, a new one "
                    "needs it merged first (infer.py merge)"
                )
            if not cfg.lora_rank:
                lora.merge_lora(model)
    else:
        folder = None
        if labels == 0:
            tokenizer = scratch_embedder(cfg, task)
            model = tokenizer.model.to(device)
        else:
            model, tokenizer = scratch(cfg, task, labels)
            model.to(device)
        if cfg.lora_rank:
            raise UsageError("--lora-rank needs --model: an adapter goes on a model that is kept")
    if cfg.lora_rank and not lora.adapters(model):
        lora.add_lora(
            model,
            cfg.lora_rank,
            cfg.lora_alpha or None,
            cfg.lora_targets,
            cfg.lora_dropout,
            cfg.rslora,
            cfg.dora,
            cfg.seed,
        )
        model.to(device)
    if cfg.train_only:
        try:
            re.compile(cfg.train_only)
        except re.error as error:
            raise UsageError(f"--train-only {cfg.train_only}: {error}") from error
        for key, weight in model.named_parameters():
            weight.requires_grad_(weight.requires_grad and bool(re.search(cfg.train_only, key)))
        if not any(weight.requires_grad for weight in model.parameters()):
            raise ValueError(
                f"--train-only {cfg.train_only}: no parameter (layers.0.attn.q_proj.weight ...) fits"
            )

    for weight in model.parameters():
        if weight.requires_grad:  # a classifier beside an adapter: half precision rounds small steps away
            weight.data = weight.data.float()

    task.seen = {*task.trained_on(), *(runs.trained_on(folder) if folder else ())}

    def write(target):
        if labels == 0:
            return save_embedder(tokenizer, target)
        if cfg.lora_rank:
            lora.save_lora(model, target, *base)
        else:
            models.save(model, target)
        if target is None:
            return
        if folder:
            models.copy_tokenizer(folder, target)
        else:
            tokenizer.save(target)
        if task.seen:
            runs.write_json(target / "trained.json", sorted(task.seen))

    return model, tokenizer, write


def optimizers_of(model, cfg):
    """[(optimizer, peak learning rate)]: muon takes the blocks' matrices, adamw the rest, or everything."""
    named = [(key, weight) for key, weight in model.named_parameters() if weight.requires_grad]
    matrices = [weight for key, weight in named if weight.dim() == 2 and key.startswith("layers.")]
    if cfg.optimizer == "muon" and matrices:
        chosen = {id(weight) for weight in matrices}
        rest = [weight for _, weight in named if id(weight) not in chosen]
        pairs = [(Muon(matrices, lr=cfg.muon_lr, weight_decay=cfg.weight_decay), cfg.muon_lr)]
    elif cfg.optimizer in ("adamw", "muon"):
        rest, pairs = [weight for _, weight in named], []
    else:
        raise UsageError(f"--optimizer {cfg.optimizer}: must be adamw or muon")
    groups = [
        {"params": [weight for weight in rest if weight.dim() > 1], "weight_decay": cfg.weight_decay},
        {"params": [weight for weight in rest if weight.dim() < 2], "weight_decay": 0.0},
    ]
    if not rest:
        return pairs
    adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=cfg.lr, betas=(cfg.beta1, cfg.beta2))
    return [*pairs, (adamw, cfg.lr)]


def sized(cfg, device, objective):
    """Put sizes for the device where 0 asks for them. On a CPU attention costs the square of a row's length,
    and small batches stay in its cache; but a loss over a whole step reads every text twice where the step is
    more than one batch. None of it changes a number but by rounding."""
    rows, slots = (1, 512) if device.type == "cpu" else (cfg.max_tokens, 8192)
    slots = max(slots, WHOLE) if objective.whole else slots
    cfg.row_tokens, cfg.micro_tokens = cfg.row_tokens or rows, cfg.micro_tokens or slots


SCHEDULES = {  # shape by the share of the steps that is left, from 1 to 0
    "linear": lambda left: left,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
    "constant": lambda left: 1.0,
}


def schedule(step, cfg):
    """Learning rate of a step, counted from 0, as a share of the peak. Under --max-minutes step is what the
    time gone stands for, which need not be a whole number."""
    warmup = max(1, round(cfg.warmup * cfg.steps))
    if step < warmup:
        return min(1.0, (step + 1) / warmup)
    left = 1 - (step - warmup) / max(1, cfg.steps - warmup)
    return cfg.final_lr + (1 - cfg.final_lr) * SCHEDULES[cfg.schedule](left)


# ------------------------------------------------------------------------------------------------ measures
@torch.no_grad()
def valid_loss(objective, learner, step, device, compute):
    """Mean loss of a step's rows, by their weight."""
    batches = partial(batches_of, learner=learner)
    with autocast(device, compute):
        if objective.before:
            step.known = objective.before(learner, step, batches, lambda tensor: None)
        return sum(float(objective.loss(learner, b, step)[0]) for b in batches(step.rows)) / step.weight


def evaluate(task, learner, n, device, compute):
    """task.evaluate on the first n test examples."""
    cfg, model, tokenizer = learner.cfg, learner.model.eval(), learner.tokenizer
    if isinstance(tokenizer, Embedder):
        agent = Encoder(tokenizer)
    elif model.config.labels:
        agent = Classifier(model, tokenizer, cfg.max_tokens)
    else:
        agent = Model(model, tokenizer, cfg.max_new, task.temperature, seed=cfg.seed)
    examples = task.examples("test")
    with autocast(device, compute):
        return task.evaluate(task.unseen(examples[:n] if n else examples), agent)


# ------------------------------------------------------------------------------------------------ main
def resumed(cfg):
    """The settings of the run to resume; flags of this call may change only MAY_CHANGE of them."""
    saved = models.read_json(Path(cfg.resume) / "run.json")["values"]
    given = {name: value for name, value in values(cfg).items() if cfg.origin.get(name) == "flag"}
    changed = [
        f"{name} was {saved.get(name)!r}, now {value!r}"
        for name, value in given.items()
        if name not in MAY_CHANGE and saved.get(name) != value
    ]
    if changed:
        raise UsageError(f"--resume {cfg.resume} with other settings: {'; '.join(changed)}")
    if "epochs" in given and "steps" not in given:
        given["steps"] = 0
    return restore(Train, saved | given)


def train(cfg, argv):
    """One run, from its settings to its table; the exit code."""
    for name, least in (("batch", 1), ("group", 2), ("updates", 1)):
        if getattr(cfg, name) < least:
            raise UsageError(f"--{name} must be at least {least}")
    for name, known in (("schedule", SCHEDULES), ("normalise", objectives.NORMALISE)):
        if getattr(cfg, name) not in known:
            raise UsageError(f"--{name} {getattr(cfg, name)}: must be one of {', '.join(known)}")
    if not cfg.temperature:
        raise UsageError("--temperature must be above 0: equal replies teach nothing")
    device = runs.device_of(cfg.device)
    compute = runs.dtype_of(cfg.dtype, device)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    task = task_class(cfg.task)(cfg.options, cfg.seed)
    task.n = cfg.eval_replies or task.n
    if (cfg.loss or task.loss) not in OBJECTIVES:
        raise UsageError(f"--loss {cfg.loss}: unknown (known: {', '.join(OBJECTIVES)})")
    objective = OBJECTIVES[cfg.loss or task.loss]
    task.item = objective.item
    sized(cfg, device, objective)
    examples = task.examples("train")
    enough(len(examples), task.dropped, "examples", cfg.keep)
    if not examples:
        raise ValueError("no examples to train on")
    examples = examples[: cfg.limit] if cfg.limit else examples
    if cfg.neftune and not objective.noise:
        raise UsageError(f"--neftune: --loss {cfg.loss or task.loss} learns without noise")
    rank, world = ranks.join(device)
    if cfg.shard and (world == 1 or compute == torch.float16 or cfg.optimizer == "muon"):
        raise UsageError("--shard needs torchrun, --dtype float32 or bfloat16, and --optimizer adamw")
    labels, home = (
        {Label: task.labels, Duel: 2, Contrast: 0}.get(objective.item),
        "cpu" if cfg.shard else device,
    )
    model, tokenizer, write = opened(cfg, task, home, compute, labels)
    reference = reference_of(cfg, model, home) if objective.reference(cfg) else None
    for whole in (model, reference) if cfg.shard else ():
        if whole is not None:
            ranks.shard(whole)
    # what is sharded can only be played and evaluated by all ranks together, each doing all of it
    alone, part = (False, (0, 1)) if cfg.shard else (bool(rank), (rank, world))
    learner = Learner(model, tokenizer, cfg, reference, task.bank() if cfg.bank else [])
    if labels is None:
        task.length = lambda chat: len(tokenizer.render(chat.messages, chat.learn)[0])
        task.max_tokens = cfg.max_tokens
    model.recompute = cfg.checkpointing
    pairs = optimizers_of(model, cfg)
    optimizers = [optimizer for optimizer, _ in pairs]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    cfg.steps = cfg.steps or max(1, round(cfg.epochs * len(examples) / cfg.batch))

    def prepare(number):
        """What step `number` learns from."""
        chosen = data.indices(cfg.seed, number, cfg.batch, len(examples))
        if objective.item:
            items = [items_of(task, examples, cfg, *one) for one in chosen]
            return step_of(objective, learner, items)
        played = [examples[i] for i, _ in chosen]
        with autocast(device, compute):  # by the model as it is now
            return objective.step(learner, task, played, [cfg.seed, number], *part)

    first = prepare(0)
    valid = task.examples("valid") if objective.item else []
    places = np.random.default_rng([cfg.seed, 22]).permutation(len(valid))[:VALID]
    items = [items_of(task, valid, cfg, int(i), NO_EPOCH) for i in places]
    valid = step_of(objective, learner, items) if items else None

    def measured(n):
        result = evaluate(task, learner, n, device, compute)
        if valid and valid.rows:
            result["metrics"]["valid_loss"] = valid_loss(objective, learner, valid, device, compute)
        model.train()
        return result

    about = describe(objective, learner, task, examples, first, device, compute)
    if cfg.dry_run:
        print("\n".join(about))
        return 0
    if rank or cfg.resume:
        run = runs.Run(cfg.resume or cfg.runs, bool(rank), cfg.shard)
    else:
        run = runs.Run.new(cfg.runs, cfg.task, cfg.name, cfg.shard)
    for line in about:
        run.print(line)
    if cfg.resume:
        state, tensors = run.state()
        start = state["step"]
        runs.unpack_state(optimizers, tensors, state["scalars"])
        before = models.read_json(run.folder / "before.json")
        run.rewind(start)
        run.print(f"resumed after step {start}")
    else:
        start, state = 0, {"best": None}
    kept = {"best": state["best"]} | {name: state[name] for name in ("worse", "seconds") if name in state}
    scaler = torch.amp.GradScaler(device.type, enabled=compute == torch.float16)
    if "scaler" in state:
        scaler.load_state_dict(state["scaler"])
    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    if not rank:
        runs.write_json(run.folder / "run.json", {"values": values(cfg), "argv": argv, "versions": versions})
    if not (alone or cfg.resume):
        before = measured(cfg.eval_few)
        before.pop("records")
        if not rank:
            runs.write_json(run.folder / "before.json", before)
    run.print(f"run folder: {run.folder}")

    stop = Interrupt()
    run.bar = tqdm(total=cfg.steps, initial=start, disable=bool(rank) or not sys.stderr.isatty(), unit="step")
    ahead = ThreadPoolExecutor(1)
    waiting = ahead.submit(prepare, start) if objective.item else None
    tally = []  # values of the steps of an epoch
    began, left_out, budget, before_now = time.time(), 0, cfg.max_minutes * 60, kept.get("seconds", 0.0)
    for number in range(start, cfg.steps):
        clock, gone = time.time(), 0.0
        if budget:
            kept["seconds"] = before_now + clock - began
            (kept["seconds"],) = ranks.agreed([kept["seconds"]], device)
            gone = kept["seconds"] / budget * cfg.steps  # what the time gone stands for, in steps
        if gone >= cfg.steps or (cfg.patience and kept.get("worse", 0) >= cfg.patience):
            why = f"{cfg.max_minutes:g} minutes are over" if gone >= cfg.steps else "no better score lately"
            run.print(f"{why}: training ends after step {number}")
            run.save(number, write, optimizers, **kept)
            break
        step = waiting.result() if waiting else prepare(number) if number else first
        left_out += step.left_out
        if waiting and number + 1 < cfg.steps:
            waiting = ahead.submit(prepare, number + 1)  # the next step's rows, while this one computes
        batches = partial(batches_of, learner=learner, number=number, rank=rank, world=world)
        share, weight = schedule(max(number, gone), cfg), max(1, step.weight)  # of all ranks
        for optimizer, peak in pairs:
            for group in optimizer.param_groups:
                group["lr"] = peak * share
        if objective.before and step.rows:
            with autocast(device, compute):
                step.known = objective.before(learner, step, batches, ranks.summed)
        for _ in range(cfg.updates if objective.item is None else 1):
            sums = torch.zeros(len(objective.names) + 1, device=device)  # the last: ranks asked to stop
            for batch in batches(step.rows):
                with autocast(device, compute):
                    found = objective.loss(learner, batch, step)  # sums over the batch
                counts = (0 if batch["filler"] else 1) / weight
                scaler.scale(found[0] * counts).backward()
                sums[:-1] += torch.stack([value.detach().float() for value in found]) * counts
            sums[-1] = stop.asked
            if world > 1 and not cfg.shard:
                for parameter in trained:  # a rank may have had no rows
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                ranks.summed(*(parameter.grad for parameter in trained))
            ranks.summed(sums)
            *shown, asked = sums.tolist()
            if not step.rows:
                norm, skipped = 0.0, False
                break
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
            norm = float(ranks.whole(torch.nn.utils.clip_grad_norm_(trained, cfg.clip or math.inf)))
            skipped = scaler.is_enabled() and not math.isfinite(norm) and scaler.get_scale() > 1
            if not math.isfinite(shown[0]) or not (math.isfinite(norm) or skipped):
                run.save(number, write, optimizers, **kept)
                chosen = [i for i, _ in data.indices(cfg.seed, number, cfg.batch, len(examples))]
                grads = [(key, w.grad) for key, w in model.named_parameters() if w.grad is not None]
                broken = [key for key, grad in grads if not ranks.whole(grad).isfinite().all()]
                culprit = [*broken, "the loss"][0]
                raise FloatingPointError(
                    f"step {number + 1}: loss {shown[0]}, gradient norm {norm}, first in {culprit}, on the "
                    f"examples {chosen}; step {number} is saved"
                )
            for optimizer in optimizers:
                scaler.step(optimizer)
                optimizer.zero_grad(set_to_none=True)
            scaler.update()
        if scaler.is_enabled():
            kept["scaler"] = scaler.state_dict()

        done, slots, spent = number + 1, sum(len(row.ids) for row in step.rows), time.time() - clock
        left = (time.time() - began) / (done - start) * (cfg.steps - done)
        left = min(left, budget - before_now - time.time() + began) if budget else left
        line = f"step {done}/{cfg.steps} | loss {shown[0]:.4f} | lr {cfg.lr * share:.1e} | grad {norm:.2f}"
        line += "".join(f" | {name} {value:.3f}" for name, value in zip(objective.names[1:], shown[1:]))
        line += f" | tok/s {slots / spent:,.0f} | eta {runs.duration(left)}"
        (run.print if done % max(1, cfg.steps // 20) == 0 else run.log)(line)
        row = {"step": done, **dict(zip(objective.names, shown)), "lr": cfg.lr * share, "grad": norm}
        row |= {"tok/s": slots / spent, "tokens": slots, "learned": step.weight, "dropped": step.left_out}
        run.record("metrics", row | step.report | ({"skipped": skipped} if scaler.is_enabled() else {}))
        for sample in step.samples:
            run.record("rollouts", {"step": done, **sample})
        tally.append(shown)
        epoch, before_it = (n * cfg.batch // len(examples) for n in (done, number))
        if "accuracy" in objective.names and epoch > before_it:
            means = dict(zip(objective.names, np.mean(tally, 0).tolist()))
            run.print(f"epoch {epoch}, in training: {figures(means)}")
            tally.clear()
        run.bar.update()
        better = False
        if cfg.eval_every and done % cfg.eval_every == 0 and done < cfg.steps:
            score = 0.0
            if not alone:
                metrics = measured(cfg.eval_few)["metrics"]
                run.print(f"step {done}: {figures(metrics)}")
                run.record("metrics", {"step": done, "eval": metrics})
                score = next(iter(metrics.values()), 0.0)  # a task's first metric is its main one
            (score,) = ranks.agreed([score], device)
            better = kept["best"] is None or (score < kept["best"] if task.lower else score > kept["best"])
            kept |= {"best": score, "worse": 0} if better else {"worse": kept.get("worse", 0) + 1}
        if world == 1:
            asked = stop.asked  # several ranks stop together, after the step in which they told each other
        if better or done == cfg.steps or asked or (cfg.save_every and done % cfg.save_every == 0):
            run.save(done, write, optimizers, **kept)
        if better:
            run.mark_best()
        if asked:
            run.print(f"stopped after step {done}, saved; go on with: python train.py --resume {run.folder}")
            return 130
    run.bar.close()
    stop.over()
    if left_out:
        run.print(f"{left_out} samples longer than --max-tokens {cfg.max_tokens} were left out")

    after = None if alone else measured(cfg.eval_n)
    if rank:
        return 0
    (run.folder / "samples.jsonl").unlink(missing_ok=True)
    for record in after.pop("records"):
        run.record("samples", record)
    runs.write_json(run.folder / "eval.json", {"format": 1, "task": cfg.task, "seed": cfg.seed, **after})
    for line in runs.table(after, before):
        run.print(line)
    run.print(f"trained in {runs.duration(time.time() - began)}; play: python infer.py --run {run.folder}")
    return 0


class Interrupt:
    """Ctrl-C and SIGTERM ask the loop to stop after its step; a second one, or one after the loop, stops at
    once."""

    def __init__(self):
        self.asked = False
        self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def over(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step ...", file=sys.stderr)


def main(argv=None):
    """Exit codes: 0 done, 1 failed, 2 wrong call, 130 interrupted (saved)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        cfg = parse(Train, argv)
        if cfg.resume:
            cfg = resumed(cfg)
        return train(cfg, argv)
    except UsageError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train.py: interrupted; what was saved goes on with --resume RUN", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError as error:
        less = "smaller --micro-tokens or --max-tokens, --checkpointing, --dtype bfloat16, --lora-rank 16"
        print(f"train.py: {error}\nout of memory; what takes less: {less}", file=sys.stderr)
        return 1
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2 if str(error).startswith("--") else 1


if __name__ == "__main__":
    ranks.leave(main())
