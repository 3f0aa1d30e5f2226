"""Train a model to play: python train.py --task 20q

Read train() first: examples -> a Step of packed rows -> update -> log, evaluate, save.

The examples of a step, their augmentation and the dropout follow from (seed, step). Losses are summed and
divided by a weight that is known before the first backward pass, so the result does not depend on how the
work is cut into micro-batches and ranks. The one exception is dropout, which draws for each micro-batch."""

import math
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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
from card import Origin
from files import locked
from games import short_name, task_class
from games.task import (
    Classifies,
    Contrast,
    Duel,
    HasBank,
    Label,
    Players,
    Ranked,
    TracksTraining,
    read_report,
    tests_for,
)
from objectives import OBJECTIVES, make_step, step_at
from optim import optimizers_of, schedule
from ranks import autocast
from recipes import Train, parse, refuse_code, restore, values
from references import open_judge, open_reference
from reports import check_enough, describe, figures, table
from runs import Clock, Interrupt, Progress, Run, check_name, read_values
from steps import Learner, Place, Step, batches_of
from terminal import UsageError, check_choice, duration, exit_code

MAY_CHANGE = (  # flags that a call with --resume may set to another value
    *("resume", "device", "threads", "verbose", "steps", "epochs", "max_minutes", "patience", "eval_every"),
    *("save_every", "dry_run", "name", "runs", "row_tokens", "micro_tokens"),
)
VALID = 32  # examples for the validation loss
NO_EPOCH = 1 << 30  # an epoch that training never reaches, so its augmentation is never learned
WHOLE_STEP = 32_768  # slots of a micro-batch, with padding, if the loss compares all texts of a step


# ------------------------------------------------------------------------------------------------ set-up
@dataclass
class Machine:
    """The device that training runs on, and the rank of this process."""

    device: torch.device
    compute: torch.dtype  # of matrix products
    rank: int = 0
    world: int = 1  # number of ranks
    shard: bool = False  # each rank holds a part of the model, so all of them play and evaluate together

    @property
    def evaluates(self):
        return self.shard or not self.rank

    def autocast(self):
        return autocast(self.device, self.compute)

    def place(self, number: int, together=False) -> Place:
        """The Place of a step. With together, every rank does all of its work."""
        return Place(number) if together else Place(number, self.rank, self.world)


@dataclass
class Trained:
    """Everything that an update changes."""

    weights: list  # the trainable parameters
    optimizers: list
    peaks: list  # the peak learning rate of each optimizer
    scaler: torch.amp.GradScaler  # scales the loss under float16, whose small gradients would become 0

    def set_rate(self, share: float):
        """Set the learning rates of the next update, as a share of their peaks."""
        for optimizer, peak in zip(self.optimizers, self.peaks):
            for group in optimizer.param_groups:
                group["lr"] = peak * share


def check_call(cfg: Train):
    """Raise UsageError for values that no field of Train can rule out by itself."""
    cfg.loss = cfg.loss or task_class(cfg.task).loss
    check_choice("loss", cfg.loss, OBJECTIVES)
    for name, least in (("batch", 1), ("group", 1 + (cfg.loss == "grpo")), ("updates", 1)):
        if getattr(cfg, name) < least:
            raise UsageError(f"--{name} must be at least {least}")
    if cfg.quantize and not cfg.lora_rank:
        raise UsageError("--quantize needs --lora-rank: no weight is trained in so few bits")
    if not cfg.temperature:
        raise UsageError("--temperature must be above 0: equal replies teach nothing")


def join_ranks(cfg: Train) -> Machine:
    """Connect this process with the other ranks, if there are any."""
    device = ranks.device_of(cfg.device)
    compute = ranks.dtype_of(cfg.dtype, device)
    cfg.dtype = str(compute).removeprefix("torch.")  # which --resume keeps, on whatever machine
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    rank, world = ranks.join(device)
    if cfg.shard and (world == 1 or compute == torch.float16 or cfg.optimizer == "muon"):
        raise UsageError("--shard needs torchrun, --dtype float32 or bfloat16, and --optimizer adamw")
    return Machine(device, compute, rank, world, cfg.shard)


def set_sizes(cfg: Train, device: torch.device, objective):
    """Replace --row-tokens 0 and --micro-tokens 0 by good sizes for the device. They change results only by
    rounding."""
    # On a CPU attention costs the square of a row's length, and a small batch stays in the cache.
    row_tokens, micro_tokens = (1, 512) if device.type == "cpu" else (cfg.max_tokens, 8192)
    if objective.whole_step:  # a step in several batches would read every text twice
        micro_tokens = max(micro_tokens, WHOLE_STEP)
    cfg.row_tokens = cfg.row_tokens or row_tokens
    cfg.micro_tokens = cfg.micro_tokens or micro_tokens


def training_examples(cfg: Train, task) -> list:
    examples = task.examples("train")
    check_enough(len(examples), task.dropped, "examples", cfg.keep)
    if not examples:
        raise ValueError("no examples to train on")
    return examples[: cfg.limit] if cfg.limit else examples


def head_for(objective, task) -> int | str:
    """The head that an objective needs, as checkpoint.open expects it."""
    if objective.item is Label and not isinstance(task, Classifies):
        raise UsageError("--loss classify: this game has no classes")
    if objective.item is Label:
        return task.labels
    return {Duel: 2, Ranked: 1, Contrast: "none"}.get(objective.item, "own")


def open_checkpoint(cfg: Train, task, head, home, compute) -> checkpoint.Checkpoint:
    """The Checkpoint to train, on the device `home`. Its trainable parameters are marked and in float32."""
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
            quantize=cfg.quantize,
        )
        if point.embedder:
            point.embedder.cut(cfg.max_tokens)
        if lora.adapters(point.model) and not cfg.resume:
            keep_or_merge(cfg, name, point.model)
    else:
        if cfg.lora_rank:
            raise UsageError("--lora-rank needs --model: an adapter needs a trained model below it")
        point = checkpoint.from_scratch(cfg, task.texts(), task.pre_tokens, head, cfg.seed, cfg.max_tokens)
        point.model.to(home)
    if cfg.lora_rank and not lora.adapters(point.model):
        lora.add_lora(
            point.model,
            cfg.lora_rank,
            cfg.lora_alpha or None,
            cfg.lora_targets,
            cfg.lora_dropout,
            cfg.rslora,
            cfg.dora,
            cfg.seed,
        )
        point.model.to(home)
    if cfg.train_only:
        freeze_others(point.model, cfg.train_only)
    for weight in point.model.parameters():
        if weight.requires_grad:  # half precision would round small steps away (a classifier on an adapter)
            weight.data = weight.data.float()
    return point


def keep_or_merge(cfg: Train, name: str, model):
    """Keep the adapter of a model to train it further, or merge it if the weights themselves are trained."""
    rank = lora.adapters(model)[0][1].rank
    if cfg.lora_rank not in (0, rank):
        raise ValueError(
            f"{name} is an adapter of rank {rank}: train it further with --lora-rank {rank}, or merge it "
            "before you train a new one (infer.py merge)"
        )
    if not cfg.lora_rank:
        lora.merge_lora(model)


def freeze_others(model, pattern: str):
    """Freeze all parameters whose name does not match the regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--train-only {pattern}: {error}") from error
    for key, weight in model.named_parameters():
        weight.requires_grad_(weight.requires_grad and bool(re.search(pattern, key)))
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UsageError(f"--train-only {pattern}: matches no parameter (layers.0.attn.q_proj.weight ...)")


def open_learner(cfg: Train, task, objective, machine: Machine) -> tuple:
    """The Learner of a run, and the Checkpoint that it began with."""
    home = "cpu" if cfg.shard else machine.device  # a model to shard may be too large for one card
    point = open_checkpoint(cfg, task, head_for(objective, task), home, machine.compute)
    reference = open_reference(cfg, point, home) if objective.reference(cfg) else None
    for model in (point.model, reference) if cfg.shard else ():
        if model is not None:
            ranks.shard(model)
    if cfg.bank and not isinstance(task, HasBank):
        raise UsageError("--bank: this game has no fixed set of labels")
    bank = task.bank() if cfg.bank else []
    point.model.recompute_activations(cfg.checkpointing)
    judge = open_judge(cfg, task, machine) if objective.item is None else None
    return Learner(point.model, point.tokenizer, cfg, point.embedder, reference, bank, judge), point


def resume_settings(cfg: Train) -> Train:
    """The settings of the run to resume. Flags of this call replace those in MAY_CHANGE; any other change
    raises UsageError."""
    saved = read_values(cfg.resume)
    if not saved:
        raise FileNotFoundError(f"{cfg.resume}: not a run (it has no run.json)")
    given = {name: value for name, value in values(cfg).items() if cfg.origin.get(name) == "flag"}
    refuse_code(saved, given)
    changes = []
    for name, value in given.items():
        if name not in MAY_CHANGE and saved.get(name) != value:
            changes.append(f"{name} was {saved.get(name)!r}, now {value!r}")
    if changes:
        raise UsageError(f"--resume {cfg.resume} with other settings: {'; '.join(changes)}")
    if "epochs" in given and "steps" not in given:
        given["steps"] = 0  # else the steps of the saved run would win
    return restore(Train, saved | given)


# ------------------------------------------------------------------------------------------------ measures
@torch.no_grad()
def valid_loss(objective, learner: Learner, step: Step, machine: Machine) -> float:
    """The weighted mean loss of a step's rows."""
    batches = partial(batches_of, learner=learner)
    with machine.autocast():
        if objective.before:
            objective.before(learner, step, batches, lambda tensor: None)
        total = sum(float(objective.loss(learner, batch, step)[0]) for batch in batches(step.rows))
    return total / step.weight


def evaluate(task, learner: Learner, n: int, trained_on: set, machine: Machine) -> dict:
    """task.evaluate() for the model in training, on the first n test examples."""
    cfg = learner.cfg
    model = learner.model.eval()
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
    """The result of an update of the weights."""

    sums: list  # a figure for each name in objective.names, over the whole step
    norm: float  # of the gradient
    skipped: bool  # under float16 the gradient overflowed; the scaler lowers the scale of the loss
    stop_asked: bool  # some rank was asked to stop


def update(objective, learner: Learner, step: Step, place, trained, machine, stop_asked) -> Update:
    """Forward, backward, reduce, clip, step.

    Raises FloatingPointError before anything is changed, with the name of the first tensor that is not
    finite."""
    weight = max(1, step.weight)  # of all ranks
    sums = torch.zeros(len(objective.names) + 1, device=machine.device)
    for batch in batches_of(step.rows, learner, place):
        with machine.autocast():
            batch_sums = objective.loss(learner, batch, step)  # the loss first
        factor = (0 if batch.filler else 1) / weight
        trained.scaler.scale(batch_sums[0] * factor).backward()
        sums[:-1] += torch.stack([value.detach().float() for value in batch_sums]) * factor
    trained.scaler.scale(sums)  # of no use but that a rank without rows has a scale as well
    sums[-1] = stop_asked  # travels with the figures, so all ranks learn of it in the same step

    if machine.world > 1 and not machine.shard:
        for parameter in trained.weights:
            if parameter.grad is None:  # this rank had no rows, but the sum needs a tensor from each
                parameter.grad = torch.zeros_like(parameter)
        ranks.sum_over_ranks(*(parameter.grad for parameter in trained.weights))
    ranks.sum_over_ranks(sums)
    *sums, stop_asked = sums.tolist()
    if not step.rows:
        return Update(sums, 0.0, False, stop_asked)

    for optimizer in trained.optimizers:
        trained.scaler.unscale_(optimizer)
    clip = learner.cfg.clip or math.inf
    norm = float(ranks.whole(torch.nn.utils.clip_grad_norm_(trained.weights, clip)))
    # A scaled gradient may overflow under float16: the scaler then skips the step. At scale 1 it is an error.
    skipped = trained.scaler.is_enabled() and not math.isfinite(norm) and trained.scaler.get_scale() > 1
    if not math.isfinite(sums[0]) or not (math.isfinite(norm) or skipped):
        raise FloatingPointError(
            f"loss {sums[0]}, gradient norm {norm}, first in {first_broken(learner.model)}"
        )

    for optimizer in trained.optimizers:
        trained.scaler.step(optimizer)
        optimizer.zero_grad(set_to_none=True)
    trained.scaler.update()
    return Update(sums, norm, skipped, stop_asked)


def first_broken(model) -> str:
    """The name of the first tensor whose gradient is not finite."""
    for key, weight in model.named_parameters():
        if weight.grad is not None and not ranks.whole(weight.grad).isfinite().all():
            return key
    return "the loss"


def log_step(run, cfg, objective, step, done, result, rate, seconds, left):
    """Write a step to metrics.jsonl and log.txt, and about twenty steps of a run to the terminal."""
    slots = sum(len(row.ids) for row in step.rows)
    line = f"step {done}/{cfg.steps} | loss {result.sums[0]:.4f} | lr {rate:.1e} | grad {result.norm:.2f}"
    for name, value in zip(objective.names[1:], result.sums[1:]):
        line += f" | {name} {value:.3f}"
    line += f" | tok/s {slots / seconds:,.0f} | eta {duration(left)}"
    show = run.print if done % max(1, cfg.steps // 20) == 0 else run.log
    show(line)

    figures_of_step = {
        "step": done,
        **dict(zip(objective.names, result.sums)),
        "lr": rate,
        "grad": result.norm,
        "tok/s": slots / seconds,
        "tokens": slots,
        "learned": step.weight,
        "dropped": step.left_out,
        **step.report,
    }
    run.record("metrics", figures_of_step)
    for sample in step.samples:
        run.record("rollouts", {"step": done, **sample})


# ------------------------------------------------------------------------------------------------ the loop
def train(cfg: Train, argv: list, locks: ExitStack) -> int:
    """One run, from the settings to the table of results. Returns the exit code. locks: holds the lock of the
    run's folder until the end."""
    check_call(cfg)
    objective = OBJECTIVES[cfg.loss]
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
    # Ids of the examples in all trainings of this model, so that none of them is ever used as a test.
    trained_on = point.trained_on | (set(task.trained_on()) if isinstance(task, TracksTraining) else set())
    origin = Origin(["train.py", *argv], cfg.task, cfg.seed)
    save_model = partial(point.save, trained_on=trained_on, origin=origin)

    def prepare(number):
        """The Step of this number. Its games, if it has any, are played by the model as it is now."""
        with machine.autocast():
            return step_at(objective, learner, task, examples, machine.place(number, cfg.shard))

    step = prepare(0)
    valid = validation_step(cfg, objective, learner, task)

    def measure(n):
        result = evaluate(task, learner, n, trained_on, machine)
        if valid and valid.rows:
            result["metrics"]["valid_loss"] = valid_loss(objective, learner, valid, machine)
        learner.model.train()
        return result

    description = describe(objective, learner, task, examples, step, machine.device, machine.compute)
    if cfg.dry_run:
        print("\n".join(description))
        return 0

    run = open_run(cfg, machine, argv, locks)
    for line in description:
        run.print(line)
    progress = resume(run, trained) if cfg.resume else Progress()
    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    run.write("run.json", {"values": values(cfg), "argv": argv, "versions": versions})
    before = evaluate_before(cfg, run, measure) if machine.evaluates else {}
    run.print(f"run folder: {run.folder}")

    save = lambda: run.save(progress.step, save_model, optimizers, progress.as_state())
    stop = Interrupt()
    run.start_bar(cfg.steps, progress.step)
    clock = Clock(cfg, progress)
    epoch = EpochMeans(cfg, objective, len(examples))
    # A step made from items needs no model, so a thread prepares it while the step before is computed.
    worker = ThreadPoolExecutor(1)
    next_step = worker.submit(prepare, progress.step) if objective.item else None
    began = time.time()
    left_out = 0
    while progress.step < cfg.steps:
        number = progress.step
        place = machine.place(number)
        seconds = clock.start_step()
        if cfg.max_minutes:
            (progress.seconds,) = ranks.from_first_rank([seconds], machine.device)
        if reason := clock.reason_to_stop(progress):
            run.print(f"{reason}: training ends after step {number}")
            save()
            break

        # The data of this step. Step 0 was prepared above.
        if next_step:
            step = next_step.result()
            if number + 1 < cfg.steps:
                next_step = worker.submit(prepare, number + 1)
        elif number:
            step = prepare(number)
        left_out += step.left_out

        # The update.
        rate = schedule(max(number, clock.steps_by_time(progress)), cfg)
        trained.set_rate(rate)
        if objective.before and step.rows:
            with machine.autocast():
                batches = partial(batches_of, learner=learner, place=place)
                objective.before(learner, step, batches, ranks.sum_over_ranks)
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

        # The log, and an evaluation now and then.
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
            (score,) = ranks.from_first_rank([score], machine.device)
            better = progress.note(score, task.evaluation.lower_is_better)

        # Several ranks must stop after the same step, so they go by what the update told all of them.
        stop_asked = stop.asked if machine.world == 1 else result.stop_asked
        due = cfg.save_every and progress.step % cfg.save_every == 0
        if better or stop_asked or due or progress.step == cfg.steps:
            save()
        if better:
            run.mark_best()
        if stop_asked:
            run.print(
                f"stopped after step {progress.step}, saved; continue with: "
                f"python train.py --resume {run.folder}"
            )
            return 130

    run.bar.close()
    stop.restore_handlers()
    if left_out:
        run.print(f"{left_out} samples longer than --max-tokens {cfg.max_tokens} were left out")
    if machine.evaluates:
        after = measure(cfg.eval_n)
        report(run, cfg, before, after, point, origin)
    run.print(f"trained in {duration(time.time() - began)}; play: python infer.py --run {run.folder}")
    return 0


def validation_step(cfg: Train, objective, learner: Learner, task) -> Step | None:
    """A Step of a few validation examples, or None if there are none."""
    valid = task.examples("valid") if objective.item else []
    indices = np.random.default_rng([cfg.seed, 22]).permutation(len(valid))[:VALID]
    chosen = [(int(i), NO_EPOCH) for i in indices]
    return make_step(objective, learner, task, valid, chosen, Place()) if chosen else None


def open_run(cfg: Train, machine: Machine, argv: list, locks: ExitStack) -> Run:
    if machine.rank or cfg.resume:
        return Run(cfg.resume or cfg.runs, bool(machine.rank), cfg.shard)
    return Run.new(cfg.runs, short_name(cfg.task), cfg.name, cfg.shard, argv, locks)


def evaluate_before(cfg: Train, run: Run, measure) -> dict:
    """The evaluation before training; of a run that is resumed, the one that it has stored."""
    path = run.folder / "before.json"
    if cfg.resume:
        return read_report(path, "n", "metrics", "intervals")
    before = measure(cfg.eval_few)
    before.pop("records")
    run.write(path.name, before)
    return before


def resume(run: Run, trained: Trained) -> Progress:
    """The Progress of a run to continue. The optimizers get their saved state."""
    state = run.load_state(trained.optimizers)
    progress = Progress(**{name: state[name] for name in asdict(Progress()) if name in state})
    if progress.scaler is not None:
        trained.scaler.load_state_dict(progress.scaler)
    run.rewind(progress.step)
    run.print(f"resumed after step {progress.step}")
    return progress


def report(run: Run, cfg: Train, before: dict, after: dict, point, origin: Origin):
    """Write and print the evaluation after training, also into the model card."""
    if run.quiet:
        return
    (run.folder / "samples.jsonl").unlink(missing_ok=True)  # of the run before it was resumed
    for record in after.pop("records"):
        run.record("samples", record)
    run.write("eval.json", {"format": 1, "task": cfg.task, "seed": cfg.seed, **after})
    for line in table(after, before, cfg.verbose, "eval.json"):
        run.print(line)
    origin.result = after
    origin.table = table(after, before, verbose=True)
    point.write_card(run.folder / "model", origin)


class EpochMeans:
    """The mean figures of the steps of an epoch, for objectives that report an accuracy."""

    def __init__(self, cfg: Train, objective, n: int):
        self.batch = cfg.batch
        self.names = objective.names
        self.n = n  # examples in an epoch
        self.sums = []

    def add(self, done: int, sums: list) -> str:
        """Add the figures of a step. If it ended an epoch, return a line with the means, else ""."""
        self.sums.append(sums)
        epoch = done * self.batch // self.n
        if "accuracy" not in self.names or epoch == (done - 1) * self.batch // self.n:
            return ""
        means = dict(zip(self.names, np.mean(self.sums, 0).tolist()))
        self.sums.clear()
        return f"epoch {epoch}, in training: {figures(means)}"


def run_call(argv: list) -> int:
    cfg = parse(Train, argv)
    if cfg.resume:
        cfg = resume_settings(cfg)
    check_name(cfg.name)
    with ExitStack() as locks:
        if cfg.resume and ranks.is_first():
            locks.enter_context(locked(Path(cfg.resume).resolve()))
        elif cfg.name and ranks.is_first() and not cfg.dry_run:
            with locked(Path(cfg.runs, cfg.name)):
                pass  # if another call has the name, this one ends now, before it opens a model
        try:
            return train(cfg, argv, locks)
        except torch.OutOfMemoryError as error:
            less = "smaller --micro-tokens or --max-tokens, --checkpointing, --dtype bfloat16, --lora-rank 16"
            raise ValueError(f"{error}\nout of memory; these take less: {less} --quantize nf4") from error


def main(argv: list | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong call, 130 interrupted (the run is saved)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    return exit_code("train.py", lambda: run_call(argv), "continue the saved run with --resume RUN")


if __name__ == "__main__":
    ranks.leave(main())
