"""Train a model to play: python train.py --task 20q

Read train() first: examples -> a Step of packed rows -> update -> log, evaluate, save. A step's examples,
their augmentation and its dropout follow from (seed, step); losses are summed and divided by a weight known
before the first backward, so how the work is cut changes nothing (dropout excepted: it draws by
micro-batch)."""

import math
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import checkpoint
import data
import lora
import ranks
from agents import Classifier, Encoder, Model
from files import read_json
from games import task_class
from games.task import Classifies, Contrast, Duel, HasBank, Label, Players, TracksTraining, tests_for
from objectives import OBJECTIVES, make_step, step_number
from optim import optimizers_of, schedule
from ranks import autocast
from recipes import Train, parse, restore, values
from reports import check_enough, describe, figures, table
from runs import Clock, Progress, Run, resolve
from steps import Learner, Place, batches_of
from terminal import UsageError, check_choice, duration, exit_code

MAY_CHANGE = (  # flags of a call with --resume
    *("resume", "device", "threads", "steps", "epochs", "max_minutes", "patience", "eval_every"),
    *("save_every", "dry_run", "name", "runs", "row_tokens", "micro_tokens"),
)
VALID = 32  # examples of the validation loss
NO_EPOCH = 1 << 30  # an epoch that training never reaches
WHOLE_STEP = 32_768  # slots of a batch, padding counted, whose texts can be learned from only together


# ------------------------------------------------------------------------------------------------ set-up
@dataclass
class Machine:
    """Where training runs, and which of several ranks this is."""

    device: torch.device
    compute: torch.dtype  # of matrix products
    rank: int = 0
    world: int = 1
    shard: bool = False  # every rank holds a part of the model, and all play and evaluate together

    @property
    def evaluates(self):
        return self.shard or not self.rank

    def autocast(self):
        return autocast(self.device, self.compute)

    def place(self, number, together=False):
        """The Place of a step; together: all ranks do all of it."""
        return Place(number) if together else Place(number, self.rank, self.world)


@dataclass
class Trained:
    """What an update changes."""

    weights: list  # the parameters that are trained
    optimizers: list
    peaks: list  # the highest learning rate of each optimizer
    scaler: torch.amp.GradScaler  # of the loss, under float16

    def set_rate(self, share):
        """Learning rates for the next update, as a share of their peaks."""
        for optimizer, peak in zip(self.optimizers, self.peaks):
            for group in optimizer.param_groups:
                group["lr"] = peak * share


def check_call(cfg):
    """Raise UsageError where flags are out of their range."""
    for name, least in (("batch", 1), ("group", 2), ("updates", 1)):
        if getattr(cfg, name) < least:
            raise UsageError(f"--{name} must be at least {least}")
    if not cfg.temperature:
        raise UsageError("--temperature must be above 0: equal replies teach nothing")
    if cfg.loss:
        check_choice("loss", cfg.loss, OBJECTIVES)


def join_ranks(cfg):
    """The Machine of this process."""
    device = ranks.device_of(cfg.device)
    compute = ranks.dtype_of(cfg.dtype, device)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    rank, world = ranks.join(device)
    if cfg.shard and (world == 1 or compute == torch.float16 or cfg.optimizer == "muon"):
        raise UsageError("--shard needs torchrun, --dtype float32 or bfloat16, and --optimizer adamw")
    return Machine(device, compute, rank, world, cfg.shard)


def set_sizes(cfg, device, objective):
    """Put sizes for the device where 0 asks for them. On a CPU attention costs the square of a row's length,
    and small batches stay in its cache; but a loss over a whole step reads every text twice where the step is
    more than one batch. None of it changes a number but by rounding."""
    rows, slots = (1, 512) if device.type == "cpu" else (cfg.max_tokens, 8192)
    slots = max(slots, WHOLE_STEP) if objective.whole else slots
    cfg.row_tokens, cfg.micro_tokens = cfg.row_tokens or rows, cfg.micro_tokens or slots


def training_examples(cfg, task):
    examples = task.examples("train")
    check_enough(len(examples), task.dropped, "examples", cfg.keep)
    if not examples:
        raise ValueError("no examples to train on")
    return examples[: cfg.limit] if cfg.limit else examples


def head_for(objective, task):
    """The head that a model needs for an objective (checkpoint.open)."""
    if objective.item is Label and not isinstance(task, Classifies):
        raise UsageError("--loss classify: this game has no classes")
    if objective.item is Label:
        return task.labels
    return {Duel: 2, Contrast: "none"}.get(objective.item, "own")


def open_checkpoint(cfg, task, head, home, compute):
    """The Checkpoint to train, on the device `home`, its trainable parameters marked and in float32."""
    name = cfg.resume or cfg.init or cfg.model
    if name:
        point = checkpoint.open(
            name,
            head,
            dtype=compute if cfg.lora_rank else torch.float32,
            device=home,
            revision=cfg.revision or None,
            format=cfg.format,
            seed=cfg.seed if isinstance(head, int) and not cfg.resume else None,
            normalise=True,
        )
        if point.embedder:
            point.embedder.cut(cfg.max_tokens)
        if lora.adapters(point.model) and not cfg.resume:
            keep_or_merge(cfg, name, point.model)
    else:
        if cfg.lora_rank:
            raise UsageError("--lora-rank needs --model: an adapter goes on a model that is kept")
        point = checkpoint.from_scratch(cfg, task.texts(), task.pre_tokens, head, cfg.seed, cfg.max_tokens)
        point.model.to(home)
    if cfg.lora_rank and not lora.adapters(point.model):
        settings = (cfg.lora_targets, cfg.lora_dropout, cfg.rslora, cfg.dora, cfg.seed)
        lora.add_lora(point.model, cfg.lora_rank, cfg.lora_alpha or None, *settings)
        point.model.to(home)
    if cfg.train_only:
        freeze_others(point.model, cfg.train_only)
    for weight in point.model.parameters():
        if weight.requires_grad:  # a classifier beside an adapter: half precision rounds small steps away
            weight.data = weight.data.float()
    return point


def keep_or_merge(cfg, name, model):
    """Train an adapter further, or merge it where the weights themselves are trained."""
    rank = lora.adapters(model)[0][1].rank
    if cfg.lora_rank not in (0, rank):
        raise ValueError(
            f"{name} is an adapter of rank {rank}: --lora-rank {rank} trains it further, a new one "
            "needs it merged first (infer.py merge)"
        )
    if not cfg.lora_rank:
        lora.merge_lora(model)


def freeze_others(model, pattern):
    """Train only parameters whose name the regular expression finds."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--train-only {pattern}: {error}") from error
    for key, weight in model.named_parameters():
        weight.requires_grad_(weight.requires_grad and bool(re.search(pattern, key)))
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UsageError(f"--train-only {pattern}: no parameter (layers.0.attn.q_proj.weight ...) fits")


def open_reference(cfg, model, device):
    """The model before training, frozen, or None where that is the model without its adapter."""
    name = cfg.init or cfg.model
    if lora.adapters(model) and not (resolve(name) / "adapter_config.json").exists():
        return None
    if not name:
        raise UsageError(
            f"--loss {cfg.loss} compares with the model before training: it needs --model or --init"
        )
    reference = checkpoint.open(name, device=device, revision=cfg.revision or None, tokenizer=False).model
    if lora.adapters(reference):
        lora.merge_lora(reference)
    return reference.float().requires_grad_(False)


def open_learner(cfg, task, objective, machine):
    """(Learner, Checkpoint) of a run."""
    home = "cpu" if cfg.shard else machine.device
    point = open_checkpoint(cfg, task, head_for(objective, task), home, machine.compute)
    reference = open_reference(cfg, point.model, home) if objective.reference(cfg) else None
    for model in (point.model, reference) if cfg.shard else ():
        if model is not None:
            ranks.shard(model)
    if cfg.bank and not isinstance(task, HasBank):
        raise UsageError("--bank: this game has no labels that are known beforehand")
    bank = task.bank() if cfg.bank else []
    point.model.recompute_activations(cfg.checkpointing)
    return Learner(point.model, point.tokenizer, cfg, point.embedder, reference, bank), point


def resume_settings(cfg):
    """The settings of the run to resume; flags of this call may change only MAY_CHANGE of them."""
    saved = read_json(Path(cfg.resume) / "run.json")["values"]
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


# ------------------------------------------------------------------------------------------------ measures
@torch.no_grad()
def valid_loss(objective, learner, step, machine):
    """Mean loss of a step's rows, by their weight."""
    batches = partial(batches_of, learner=learner)
    with machine.autocast():
        if objective.before:
            objective.before(learner, step, batches, lambda tensor: None)
        total = sum(float(objective.loss(learner, batch, step)[0]) for batch in batches(step.rows))
    return total / step.weight


def evaluate(task, learner, n, trained_on, machine):
    """task.evaluate on the first n test examples."""
    cfg, model = learner.cfg, learner.model.eval()
    if learner.embedder:
        agent = Encoder(learner.embedder)
    elif model.config.labels:
        agent = Classifier(model, learner.tokenizer, cfg.max_tokens)
    else:
        agent = Model(model, learner.tokenizer, cfg.max_new, task.evaluation.temperature, seed=cfg.seed)
    players = Players(agent, n=cfg.eval_replies or task.evaluation.n, trained_on=trained_on)
    with machine.autocast():
        return task.evaluate(tests_for(task, n, trained_on), players)


# ------------------------------------------------------------------------------------------------ a step
@dataclass
class Update:
    """What an update of the weights did."""

    sums: list  # the figures named by objective.names, over the whole step
    norm: float  # of the gradient
    skipped: bool  # float16: the gradient overflowed, and the scale of the loss falls
    asked: bool  # somebody asked a rank to stop


def update(objective, learner, step, place, trained, machine, asked):
    """Forward, backward, reduce, clip, step. Raises FloatingPointError, which names the first tensor that is
    not finite, before anything is changed."""
    weight = max(1, step.weight)  # of all ranks
    sums = torch.zeros(len(objective.names) + 1, device=machine.device)
    for batch in batches_of(step.rows, learner, place):
        with machine.autocast():
            found = objective.loss(learner, batch, step)  # sums over the batch
        share = (0 if batch.filler else 1) / weight
        trained.scaler.scale(found[0] * share).backward()
        sums[:-1] += torch.stack([value.detach().float() for value in found]) * share
    sums[-1] = asked
    if machine.world > 1 and not machine.shard:
        for parameter in trained.weights:  # a rank may have had no rows
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        ranks.summed(*(parameter.grad for parameter in trained.weights))
    ranks.summed(sums)
    *sums, asked = sums.tolist()
    if not step.rows:
        return Update(sums, 0.0, False, asked)
    for optimizer in trained.optimizers:
        trained.scaler.unscale_(optimizer)
    clip = learner.cfg.clip or math.inf
    norm = float(ranks.whole(torch.nn.utils.clip_grad_norm_(trained.weights, clip)))
    skipped = trained.scaler.is_enabled() and not math.isfinite(norm) and trained.scaler.get_scale() > 1
    if not math.isfinite(sums[0]) or not (math.isfinite(norm) or skipped):
        raise FloatingPointError(
            f"loss {sums[0]}, gradient norm {norm}, first in {first_broken(learner.model)}"
        )
    for optimizer in trained.optimizers:
        trained.scaler.step(optimizer)
        optimizer.zero_grad(set_to_none=True)
    trained.scaler.update()
    return Update(sums, norm, skipped, asked)


def first_broken(model):
    """The name of the first tensor whose gradient is not finite."""
    for key, weight in model.named_parameters():
        if weight.grad is not None and not ranks.whole(weight.grad).isfinite().all():
            return key
    return "the loss"


def log_step(run, cfg, objective, step, done, result, rate, seconds, left):
    """A step in metrics.jsonl and log.txt, and now and then on the terminal."""
    slots = sum(len(row.ids) for row in step.rows)
    line = f"step {done}/{cfg.steps} | loss {result.sums[0]:.4f} | lr {rate:.1e} | grad {result.norm:.2f}"
    for name, value in zip(objective.names[1:], result.sums[1:]):
        line += f" | {name} {value:.3f}"
    line += f" | tok/s {slots / seconds:,.0f} | eta {duration(left)}"
    (run.print if done % max(1, cfg.steps // 20) == 0 else run.log)(line)
    row = {"step": done, **dict(zip(objective.names, result.sums)), "lr": rate, "grad": result.norm}
    row |= {"tok/s": slots / seconds, "tokens": slots, "learned": step.weight, "dropped": step.left_out}
    run.record("metrics", row | step.report)
    for sample in step.samples:
        run.record("rollouts", {"step": done, **sample})


# ------------------------------------------------------------------------------------------------ the loop
def train(cfg, argv):
    """One run, from its settings to its table; the exit code."""
    check_call(cfg)
    objective = OBJECTIVES[cfg.loss or task_class(cfg.task).loss]
    machine = join_ranks(cfg)
    set_sizes(cfg, machine.device, objective)
    task = task_class(cfg.task)(cfg.options, cfg.seed, objective.item)
    examples = training_examples(cfg, task)
    learner, point = open_learner(cfg, task, objective, machine)
    cfg.steps = cfg.steps or max(1, round(cfg.epochs * len(examples) / cfg.batch))
    optimizers, peaks = zip(*optimizers_of(learner.model, cfg))
    scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.compute == torch.float16)
    weights = [weight for weight in learner.model.parameters() if weight.requires_grad]
    trained = Trained(weights, optimizers, peaks, scaler)
    seen = point.trained_on | (set(task.trained_on()) if isinstance(task, TracksTraining) else set())
    save_model = partial(point.save, trained_on=seen)

    def prepare(number):
        """What step `number` learns from; games are played by the model as it is now."""
        with machine.autocast():
            return step_number(objective, learner, task, examples, machine.place(number, cfg.shard))

    step = prepare(0)
    valid = validation_step(cfg, objective, learner, task)

    def measure(n):
        result = evaluate(task, learner, n, seen, machine)
        if valid and valid.rows:
            result["metrics"]["valid_loss"] = valid_loss(objective, learner, valid, machine)
        learner.model.train()
        return result

    about = describe(objective, learner, task, examples, step, machine.device, machine.compute)
    if cfg.dry_run:
        print("\n".join(about))
        return 0
    run = open_run(cfg, machine)
    for line in about:
        run.print(line)
    progress = Progress()
    if cfg.resume:
        progress = resume(run, trained)
    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    run.write("run.json", {"values": values(cfg), "argv": argv, "versions": versions})
    if cfg.resume:
        before = read_json(run.folder / "before.json")
    elif machine.evaluates:
        before = measure(cfg.eval_few)
        before.pop("records")
        run.write("before.json", before)
    run.print(f"run folder: {run.folder}")

    save = lambda: run.save(progress.step, save_model, optimizers, progress.saved())
    stop = Interrupt()
    run.start_bar(cfg.steps, progress.step)
    clock = Clock(cfg, progress)
    epoch = EpochMeans(cfg, objective, len(examples))
    ahead = ThreadPoolExecutor(1)
    waiting = ahead.submit(prepare, progress.step) if objective.item else None
    began, left_out = time.time(), 0
    while progress.step < cfg.steps:
        number, place = progress.step, machine.place(progress.step)
        seconds = clock.start_step()
        if cfg.max_minutes:
            (progress.seconds,) = ranks.agreed([seconds], machine.device)
        if why := clock.over(progress):
            run.print(f"{why}: training ends after step {number}")
            save()
            break
        if waiting:
            step = waiting.result()
            if number + 1 < cfg.steps:  # the next step's rows, while this one computes
                waiting = ahead.submit(prepare, number + 1)
        elif number:
            step = prepare(number)
        left_out += step.left_out
        rate = schedule(max(number, clock.steps_gone(progress)), cfg)
        trained.set_rate(rate)
        if objective.before and step.rows:
            with machine.autocast():
                batches = partial(batches_of, learner=learner, place=place)
                objective.before(learner, step, batches, ranks.summed)
        try:
            for _ in range(cfg.updates if objective.item is None else 1):
                result = update(objective, learner, step, place, trained, machine, stop.asked)
        except FloatingPointError as error:
            save()
            chosen = [i for i, _ in data.indices(cfg.seed, number, cfg.batch, len(examples))]
            raise FloatingPointError(
                f"step {number + 1}: {error}, on the examples {chosen}; step {number} is saved"
            ) from error
        if scaler.is_enabled():
            progress.scaler = scaler.state_dict()
            step.report["skipped"] = result.skipped
        progress.step += 1
        log_step(run, cfg, objective, step, progress.step, result, cfg.lr * rate, *clock.end_step(progress))
        if means := epoch.add(progress.step, result.sums):
            run.print(means)
        run.bar.update()
        better = False
        if cfg.eval_every and progress.step % cfg.eval_every == 0 and progress.step < cfg.steps:
            score = 0.0
            if machine.evaluates:
                metrics = measure(cfg.eval_few)["metrics"]
                run.print(f"step {progress.step}: {figures(metrics)}")
                run.record("metrics", {"step": progress.step, "eval": metrics})
                score = next(iter(metrics.values()), 0.0)  # a task's first metric is its main one
            (score,) = ranks.agreed([score], machine.device)
            better = progress.note(score, task.evaluation.lower_is_better)
        # several ranks stop together, after the step in which they told each other
        asked = stop.asked if machine.world == 1 else result.asked
        due = cfg.save_every and progress.step % cfg.save_every == 0
        if better or asked or due or progress.step == cfg.steps:
            save()
        if better:
            run.mark_best()
        if asked:
            run.print(
                f"stopped after step {progress.step}, saved; go on with: "
                f"python train.py --resume {run.folder}"
            )
            return 130
    run.bar.close()
    stop.over()
    if left_out:
        run.print(f"{left_out} samples longer than --max-tokens {cfg.max_tokens} were left out")
    if machine.evaluates:
        after = measure(cfg.eval_n)
        report(run, cfg, before, after)
    run.print(f"trained in {duration(time.time() - began)}; play: python infer.py --run {run.folder}")
    return 0


def validation_step(cfg, objective, learner, task):
    """A Step of some validation examples, or None where there are none."""
    valid = task.examples("valid") if objective.item else []
    places = np.random.default_rng([cfg.seed, 22]).permutation(len(valid))[:VALID]
    chosen = [(int(i), NO_EPOCH) for i in places]
    return make_step(objective, learner, task, valid, chosen, Place()) if chosen else None


def open_run(cfg, machine):
    if machine.rank or cfg.resume:
        return Run(cfg.resume or cfg.runs, bool(machine.rank), cfg.shard)
    return Run.new(cfg.runs, cfg.task, cfg.name, cfg.shard)


def resume(run, trained):
    """The Progress of a run that is gone on with; its optimizers get their state."""
    state = run.load_state(trained.optimizers)
    progress = Progress(**{name: state[name] for name in asdict(Progress()) if name in state})
    if progress.scaler:
        trained.scaler.load_state_dict(progress.scaler)
    run.rewind(progress.step)
    run.print(f"resumed after step {progress.step}")
    return progress


def report(run, cfg, before, after):
    """Write and print what the evaluation after training found."""
    if run.quiet:
        return
    (run.folder / "samples.jsonl").unlink(missing_ok=True)
    for record in after.pop("records"):
        run.record("samples", record)
    run.write("eval.json", {"format": 1, "task": cfg.task, "seed": cfg.seed, **after})
    for line in table(after, before):
        run.print(line)


class EpochMeans:
    """The mean figures of an epoch's steps, for objectives that report an accuracy."""

    def __init__(self, cfg, objective, n):
        self.batch, self.names, self.n, self.sums = cfg.batch, objective.names, n, []

    def add(self, done, sums):
        """Note a step's figures; a line about them where it ended an epoch."""
        self.sums.append(sums)
        epoch, epoch_before = (steps * self.batch // self.n for steps in (done, done - 1))
        if "accuracy" not in self.names or epoch == epoch_before:
            return ""
        means = dict(zip(self.names, np.mean(self.sums, 0).tolist()))
        self.sums.clear()
        return f"epoch {epoch}, in training: {figures(means)}"


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


def run_call(argv):
    cfg = parse(Train, argv)
    if cfg.resume:
        cfg = resume_settings(cfg)
    try:
        return train(cfg, argv)
    except torch.OutOfMemoryError as error:
        less = "smaller --micro-tokens or --max-tokens, --checkpointing, --dtype bfloat16, --lora-rank 16"
        raise ValueError(f"{error}\nout of memory; what takes less: {less}") from error


def main(argv=None):
    """Exit codes: 0 done, 1 failed, 2 wrong call, 130 interrupted (saved)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    return exit_code("train.py", lambda: run_call(argv), "what was saved goes on with --resume RUN")


if __name__ == "__main__":
    ranks.leave(main())
