"""The models beside the one in training: the model before training, an expert to learn from, a judge."""

import checkpoint
import lora
from agents import Classifier, Model, open_endpoint
from games.task import HasJudge
from recipes import agent_flags
from runs import resolve
from terminal import UsageError


def open_reference(cfg, point: checkpoint.Checkpoint, device):
    """The model that the loss compares with, frozen. None if that is the model without its adapter."""
    if cfg.loss == "distil":
        reference = open_expert(cfg, point, device)
    else:
        name = cfg.init or cfg.model
        if lora.adapters(point.model) and not (resolve(name) / "adapter_config.json").exists():
            return None
        if not name:
            raise UsageError(
                f"--loss {cfg.loss} compares with the model before training: it needs --model or --init"
            )
        options = dict(revision=cfg.revision or None, tokenizer=False, quantize=cfg.quantize)
        reference = checkpoint.open(name, device=device, **options).model
    if lora.adapters(reference) and not cfg.quantize:
        lora.merge_lora(reference)
    return reference.float().requires_grad_(False)


def open_expert(cfg, point: checkpoint.Checkpoint, device):
    """The model of --expert. Raises ValueError unless its tokens and its chat format are the student's."""
    if not cfg.expert:
        raise UsageError("--loss distil needs --expert, a run or a model to learn from")
    expert = checkpoint.open(cfg.expert, device=device, format=cfg.format)
    if expert.model.config.head != "lm":
        raise ValueError(f"--expert {cfg.expert}: predicts no tokens; it has a head for classes or vectors")
    ours = point.tokenizer
    theirs = expert.tokenizer
    if ours.inner.get_vocab() != theirs.inner.get_vocab():
        raise ValueError(f"--expert {cfg.expert}: has another tokenizer, so it cannot judge the same tokens")
    if (ours.format.template, ours.format.tokens) != (theirs.format.template, theirs.format.tokens):
        raise ValueError(f"--expert {cfg.expert}: has another chat format; name one for both with --format")
    return expert.model


def open_judge(cfg, task, machine):
    """The agent that grades the games, or None if their reward needs no judge."""
    flag = task.judge_flag() if isinstance(task, HasJudge) else ""
    if not flag:
        return None
    marks = agent_flags(cfg.options)[flag]
    name = getattr(cfg.options, flag)
    if "://" in name:
        return open_endpoint(name, cfg.options, marks, marks["max_new"])
    point = checkpoint.open(name, dtype=machine.compute, device=machine.device)
    if lora.adapters(point.model):
        lora.merge_lora(point.model)
    if point.model.config.labels == 1:  # a reward model
        return Classifier(point.model, point.tokenizer, cfg.max_tokens)
    return Model(point.model.eval(), point.tokenizer, marks["max_new"])
