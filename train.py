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
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import data
import lora
import model as models
import objectives
import runs
from agents import Model
from families import config_from_hf, set_labels
from games import TASKS
from games.task import Chat, Label, Pair
from objectives import OBJECTIVES
from recipes import Train, UsageError, parse, restore, values

MAY_CHANGE = (
    "resume device threads steps epochs max_minutes patience eval_every save_every dry_run name runs".split()
)
VALID, NO_EPOCH = 32, 1 << 30  # examples of the validation loss, and an epoch that training never reaches


# ------------------------------------------------------------------------------------------------ set-up
def scratch(cfg, task, labels=None):
    """A new model and the tokenizer for it, both small: (model, tokenizer)."""
    tokenizer = data.train_tokenizer(task.texts(), cfg.vocab)
    config = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "vocab_size": tokenizer.size,
        "hidden_size": cfg.dim,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.dim // cfg.heads,
        "intermediate_size": cfg.mlp_dim,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.control["<|begin|>"],
        "eos_token_id": tokenizer.control["<|end|>"],
        "use_sliding_window": False,
    }
    config = config_from_hf(config)
    if labels:
        set_labels(config, labels)
    return models.Transformer(config).initialise(cfg.seed), tokenizer


def reference_of(cfg, model, device):
    """The model before training, frozen, or None where that is the model without its adapter."""
    if lora.adapters(model):
        return None
    if not (cfg.init or cfg.model):
        raise UsageError(
            f"--loss {cfg.loss} compares with the model before training: it needs --model or --init"
        )
    reference = lora.open_model(cfg.init or cfg.model, device=device, revision=cfg.revision or None)[0]
    if lora.adapters(reference):
        lora.merge_lora(reference)
    return reference.float().requires_grad_(False)


def opened(cfg, task, device, compute, labels=None):
    """(model, tokenizer, write): the model to train, with a classifier of `labels` classes if there are any,
    its trainable parameters marked, and write(folder) to save it."""
    name, base = cfg.resume or cfg.init or cfg.model, ("", None)
    if name:
        frozen = compute if cfg.lora_rank else torch.float32
        model, folder, base = lora.open_model(
            name,
            "",
            frozen,
            device,
            cfg.revision or None,
            labels,
            cfg.seed if labels and not cfg.resume else None,
        )
        tokenizer = data.load_tokenizer(folder, cfg.format, model.config.vocab)
        if lora.adapters(model) and not cfg.resume:
            if cfg.lora_rank:
                raise ValueError(
                    f"{name} is an adapter; merge it first (infer.py merge), or go on with --resume"
                )
            lora.merge_lora(model)
    else:
        folder = None
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
        if (
            weight.requires_grad
        ):  # a classifier beside an adapter: half precision would round small steps away
            weight.data = weight.data.float()

    def write(target):
        if cfg.lora_rank:
            lora.save_lora(model, target, *base)
        else:
            models.save(model, target)
        if folder:
            models.copy_tokenizer(folder, target)
        else:
            tokenizer.save(target)

    return model, tokenizer, write


def optimizers_of(model, cfg):
    """[(optimizer, peak learning rate)]: muon takes the blocks' matrices, adamw the rest, or everything."""
    named = [(key, weight) for key, weight in model.named_parameters() if weight.requires_grad]
    matrices = [weight for key, weight in named if weight.dim() == 2 and key.startswith("layers.")]
    if cfg.optimizer == "muon" and matrices:
        chosen = {id(weight) for weight in matrices}
        rest = [weight for _, weight in named if id(weight) not in chosen]
        muon = torch.optim.Muon(matrices, lr=cfg.muon_lr, weight_decay=cfg.weight_decay)
        pairs = [(muon, cfg.muon_lr)]
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


# ------------------------------------------------------------------------------------------------ one step
def items_of(task, examples, cfg, index, epoch):
    """What example `index` teaches in an epoch."""
    return task.items(examples[index], np.random.default_rng([cfg.seed, epoch, index]))


def rows_of(objective, task, examples, tokenizer, cfg, chosen):
    """objectives.step_rows of chosen examples (index, epoch)."""
    items = [items_of(task, examples, cfg, index, epoch) for index, epoch in chosen]
    return objectives.step_rows(objective, items, tokenizer, cfg)


def micro_batches(rows, micro_tokens):
    """Rows in groups of at most micro_tokens slots, padding included."""
    groups = []
    for row in sorted(rows, key=lambda row: len(row.ids), reverse=True):  # a group's first row is its width
        if groups and len(groups[-1][0].ids) * (len(groups[-1]) + 1) <= micro_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def neftune(batch, alpha, dim, device):
    """Uniform noise of alpha / sqrt(T D) for the embeddings, (B, T, D)."""
    B, T = batch["ids"].shape
    return (torch.rand(B, T, dim, device=device) * 2 - 1) * alpha / math.sqrt(T * dim)


def autocast(device, compute):
    return nullcontext() if compute == torch.float32 else torch.autocast(device.type, compute)


def batches_of(groups, device):
    return (data.collate(group, device) for group in groups)


@torch.no_grad()
def valid_loss(model, rows, others, objective, cfg, reference, device, compute):
    """Mean loss over rows, by their weight."""
    groups, other_groups = (micro_batches(some, cfg.micro_tokens) for some in (rows, others))
    with autocast(device, compute):
        z = objectives.gain(model, batches_of(other_groups, device), reference) / max(1, len(others))
        total = sum(float(objective.loss(model, b, cfg, reference, z)) for b in batches_of(groups, device))
    return total / objective.weight(rows)


# ------------------------------------------------------------------------------------------------ reports
def evaluate(task, model, tokenizer, cfg, n, device, compute):
    """task.evaluate on the first n test examples."""
    model.eval()
    agent = Model(model, tokenizer, cfg.max_new, seed=cfg.seed)
    with autocast(device, compute):
        return task.evaluate(task.examples("test")[:n] if n else task.examples("test"), agent)


def activations(run):
    """Bytes that a forward pass, run(), keeps for its backward pass, the parameters left out."""
    kept = {}

    def keep(tensor):
        if not (isinstance(tensor, torch.nn.Parameter) or tensor._base is not None and tensor._base.is_leaf):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(kept.values())


def memory(model, trained, cfg, device, forward):
    """A line on what a step takes: weights, gradients, optimizer state, activations of its largest batch."""
    parts = {
        "weights": sum(weight.nbytes for weight in model.parameters()),
        "gradients": sum(weight.nbytes for weight in trained),
        "optimizer": sum(weight.nbytes for weight in trained) * (1 if cfg.optimizer == "muon" else 2),
        "activations": activations(forward),
    }
    has = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else runs.memory_of_machine()
    text = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in parts.items())
    return f"memory: about {sum(parts.values()) / 2**20:,.0f} of {has / 2**20:,.0f} MB ({text})"


def describe(say, objective, cfg, model, tokenizer, task, examples, rows, dropped):
    """Say what people get wrong, before the first step."""
    weights = list(model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    chosen = {name: value for name, value in values(cfg).items() if name in cfg.origin and value != ""}
    say(", ".join(f"{name}={value}" for name, value in chosen.items()))
    reasons = ", ".join(f"{count} {reason}" for reason, count in task.dropped.items()) or "none"
    say(f"examples: {len(examples)} kept; dropped: {reasons}")
    whole = sum(weight.numel() for weight in weights)
    if model.fresh:
        say(f"classifier: {', '.join(sorted(model.fresh))} made anew, the checkpoint has none")
    say(f"parameters: {trained:,} trained of {whole:,}; vocabulary {tokenizer.size:,}")
    say(f"steps: {cfg.steps} of {cfg.batch} examples, {cfg.steps * cfg.batch / len(examples):.2f} epochs")
    slots = sum(len(row.ids) for row in rows)
    unit = {Chat: "tokens", Label: "labels", Pair: "pairs"}.get(objective.item, "replies")
    learned = f"{objective.weight(rows):,} {unit} learned"
    say(f"first step: {slots:,} tokens with prefixes shared, {learned}; {dropped} too long, dropped")
    items = items_of(task, examples, cfg, *data.indices(cfg.seed, 0, cfg.batch, len(examples))[0])
    say(f"first example: {len(items)} items")
    for item in items[: cfg.show]:
        say(objectives.shown(item, tokenizer, cfg))


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
    if cfg.batch < 1:
        raise UsageError("--batch must be at least 1")
    if cfg.schedule not in SCHEDULES:
        raise UsageError(f"--schedule {cfg.schedule}: must be one of {', '.join(SCHEDULES)}")
    device = runs.device_of(cfg.device)
    compute = runs.dtype_of(cfg.dtype, device)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    task = TASKS[cfg.task](cfg.options, cfg.seed)
    examples = task.examples("train")
    examples = examples[: cfg.limit] if cfg.limit else examples
    if not examples:
        raise ValueError(f"no examples to train on (dropped: {task.dropped or 'none'})")
    if (cfg.loss or task.loss) not in OBJECTIVES:
        raise UsageError(f"--loss {cfg.loss}: unknown (known: {', '.join(OBJECTIVES)})")
    objective = OBJECTIVES[cfg.loss or task.loss]
    labels = task.labels if objective.item is Label else None
    model, tokenizer, write = opened(cfg, task, device, compute, labels)
    reference = reference_of(cfg, model, device) if objective.reference else None
    model.recompute = cfg.checkpointing
    pairs = optimizers_of(model, cfg)
    optimizers = [optimizer for optimizer, _ in pairs]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    cfg.steps = cfg.steps or max(1, round(cfg.epochs * len(examples) / cfg.batch))

    def prepare(step):
        chosen = data.indices(cfg.seed, step, cfg.batch, len(examples))
        return rows_of(objective, task, examples, tokenizer, cfg, chosen)

    rows, others, dropped = prepare(0)
    if not rows:
        raise ValueError(f"every sample of the first step is longer than --max-tokens {cfg.max_tokens}")
    valid = task.examples("valid")
    places = np.random.default_rng([cfg.seed, 22]).permutation(len(valid))[:VALID]
    valid_rows = rows_of(objective, task, valid, tokenizer, cfg, [(int(i), NO_EPOCH) for i in places])[:2]

    def measured(n):
        result = evaluate(task, model, tokenizer, cfg, n, device, compute)
        if valid_rows[0]:
            found = valid_loss(model, *valid_rows, objective, cfg, reference, device, compute)
            result["metrics"]["valid_loss"] = found
        model.train()
        return result

    def forward():
        with autocast(device, compute):
            batch = data.collate(micro_batches(rows, cfg.micro_tokens)[0], device)
            return objective.loss(model.train(), batch, cfg, reference)

    if cfg.dry_run:
        describe(print, objective, cfg, model, tokenizer, task, examples, rows, dropped)
        print(memory(model, trained, cfg, device, forward))
        return 0
    rank, world = runs.ranks(device)
    if rank:
        run = runs.Run(cfg.resume or cfg.runs, quiet=True)
    else:
        run = runs.Run(cfg.resume) if cfg.resume else runs.Run.new(cfg.runs, cfg.task, cfg.name)
    describe(run.print, objective, cfg, model, tokenizer, task, examples, rows, dropped)
    run.print(memory(model, trained, cfg, device, forward))
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
    if not (rank or cfg.resume):
        before = measured(cfg.eval_few)
        before.pop("records")
        runs.write_json(run.folder / "before.json", before)
    run.print(f"run folder: {run.folder}")

    stop = Interrupt()
    run.bar = tqdm(total=cfg.steps, initial=start, disable=bool(rank) or not sys.stderr.isatty(), unit="step")
    ahead = ThreadPoolExecutor(1)
    waiting = ahead.submit(prepare, start)
    began, left_out, budget, before_now = time.time(), 0, cfg.max_minutes * 60, kept.get("seconds", 0.0)
    for step in range(start, cfg.steps):
        clock, gone = time.time(), 0.0
        if budget:
            kept["seconds"] = before_now + clock - began
            (kept["seconds"],) = runs.agreed([kept["seconds"]], device)
            gone = kept["seconds"] / budget * cfg.steps  # what the time gone stands for, in steps
        if gone >= cfg.steps or (cfg.patience and kept.get("worse", 0) >= cfg.patience):
            why = f"{cfg.max_minutes:g} minutes are over" if gone >= cfg.steps else "no better score lately"
            run.print(f"{why}: training ends after step {step}")
            run.save(step, write, optimizers, **kept)
            break
        rows, others, dropped = waiting.result()
        left_out += dropped
        if step + 1 < cfg.steps:
            waiting = ahead.submit(prepare, step + 1)  # the next step's rows, while this one computes
        seeds = np.random.SeedSequence([cfg.seed, step, rank] if rank else [cfg.seed, step])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        weight = max(1, objective.weight(rows))  # of all ranks, known before the first backward
        groups, other_groups = (micro_batches(some, cfg.micro_tokens)[rank::world] for some in (rows, others))
        z, stats = 0.0, torch.zeros(2, device=device)  # loss, ranks asked to stop
        if others:
            with autocast(device, compute):
                z = objectives.gain(model, batches_of(other_groups, device), reference)
            z = runs.summed(z)[0] / len(others)
        for batch in batches_of(groups, device):
            noise = neftune(batch, cfg.neftune, model.config.dim, device) if cfg.neftune else None
            with autocast(device, compute):
                loss = objective.loss(model, batch, cfg, reference, z, noise) / weight
            scaler.scale(loss).backward()
            stats[0] += loss.detach()
        stats[1] = stop.asked
        if world > 1:
            for parameter in trained:  # a rank may have had no rows
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        runs.summed(stats, *(parameter.grad for parameter in trained if world > 1))
        total, asked = stats.tolist()
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(trained, cfg.clip or math.inf))
        skipped = scaler.is_enabled() and not math.isfinite(norm) and scaler.get_scale() > 1
        if not math.isfinite(total) or not (math.isfinite(norm) or skipped):
            run.save(step, write, optimizers, **kept)
            chosen = [i for i, _ in data.indices(cfg.seed, step, cfg.batch, len(examples))]
            grads = [(key, w.grad) for key, w in model.named_parameters() if w.grad is not None]
            first = next((key for key, grad in grads if not grad.isfinite().all()), "the loss")
            raise FloatingPointError(
                f"step {step + 1}: loss {total}, gradient norm {norm}, first in {first}, on the examples "
                f"{chosen}; step {step} is saved"
            )
        share = schedule(max(step, gone), cfg)
        for optimizer, peak in pairs:
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        scaler.update()
        if scaler.is_enabled():
            kept["scaler"] = scaler.state_dict()

        done, slots = step + 1, sum(len(row.ids) for row in rows)
        speed, left = (
            slots / (time.time() - clock),
            (time.time() - began) / (done - start) * (cfg.steps - done),
        )
        left = min(left, budget - before_now - time.time() + began) if budget else left
        line = f"step {done}/{cfg.steps} | loss {total:.4f} | lr {cfg.lr * share:.1e} | grad {norm:.2f}"
        line += f" | tok/s {speed:,.0f} | eta {runs.duration(left)}"
        (run.print if done % max(1, cfg.steps // 20) == 0 else run.log)(line)
        row = {"step": done, "loss": total, "lr": cfg.lr * share, "grad": norm, "tok/s": speed}
        row |= {"tokens": slots, "learned": weight, "dropped": dropped}
        run.record("metrics", row | ({"skipped": skipped} if scaler.is_enabled() else {}))
        run.bar.update()
        better = False
        if cfg.eval_every and done % cfg.eval_every == 0 and done < cfg.steps:
            score = 0.0
            if not rank:
                metrics = measured(cfg.eval_few)["metrics"]
                shown = ", ".join(f"{k} {v:.3f}" for k, v in metrics.items() if v is not None)
                run.print(f"step {done}: {shown}")
                run.record("metrics", {"step": done, "eval": metrics})
                score = next(iter(metrics.values()))  # a task's first metric is its main one
            (score,) = runs.agreed([score], device)
            better = kept["best"] is None or score > kept["best"]
            kept |= {"best": score, "worse": 0} if better else {"worse": kept.get("worse", 0) + 1}
        asked = (
            asked if world > 1 else stop.asked
        )  # the ranks stop together, after the step they told each other
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

    if rank:
        return 0
    after = measured(cfg.eval_n)
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
    sys.exit(main())
