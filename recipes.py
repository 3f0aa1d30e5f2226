"""Every flag of train.py and infer.py, and the parser; a game's own flags are the Options of its task, its
recipes stand in games/<game>/recipes.py.

A field is a flag, the comment behind it is its help, and a comment line before it is the heading under which
--help prints it: `# HEADING | VERBS`, where VERBS are the verbs, or losses, that use the flags below (all,
where there are none). Values come from: field default < recipe < command line."""

import argparse
import dataclasses
import difflib
import inspect
import re
import sys
from dataclasses import dataclass
from typing import Literal, get_args

from games import GAMES, recipes_of, task_class
from games.task import flag
from terminal import UsageError, check_choice

VERBS = "play", "eval", "sample", "collect", "submit", "merge", "rows"


@dataclass
class Shared:
    # the game
    task: str = "20q"  # the game
    # where
    seed: int = 0  # of everything random
    device: str = "auto"  # auto, cuda, mps or cpu
    threads: int = 0  # CPU threads; 0 leaves it to torch
    runs: str = "runs"  # folder of all runs


@dataclass
class Train(Shared):
    # the game
    recipe: str = ""  # named settings; default: TASK-LOSS, TASK-model with --model or --init, or TASK
    # what is trained
    model: str = ""  # start from a model folder or Hub name; without it from scratch
    revision: str = ""  # branch, tag or commit of a Hub name
    init: str = ""  # start from the model of an earlier run
    format: str = ""  # chat format, where the checkpoint's own is not recognised
    dim: int = 128  # from scratch: model width
    layers: int = 3  # from scratch: blocks
    heads: int = 4  # from scratch: heads of queries, keys and values
    mlp_dim: int = 384  # from scratch: inner width of the MLP
    vocab: int = 8000  # from scratch: largest vocabulary of its tokenizer
    lora_rank: int = 0  # train an adapter of this rank; 0 trains the weights themselves
    lora_alpha: float = 0.0  # scale of the adapter times its rank; 0 is twice the rank
    lora_targets: str = ""  # layers that get an adapter (q_proj,v_proj ...), by default all of a block
    lora_dropout: float = 0.0  # dropout on the adapter's input
    rslora: bool = False  # scale by alpha / sqrt(rank)
    dora: bool = False  # learn the length of each weight row as well (arXiv 2402.09353)
    train_only: str = ""  # train only parameters whose name this regular expression finds
    # the loss
    loss: str = ""  # objective, by default the game's; --help shows the flags of the one chosen
    learn_all: bool = False  # learn every token of a chat, prompts as well
    # preferences | dpo kto
    beta: float = 0.1  # how closely the model before training is kept to
    nll: float = 0.0  # dpo: weight of the chosen reply's negative log-likelihood
    # retrieval | contrastive
    tau: float = 0.05  # temperature of the softmax over the candidates
    distil: float = 0.0  # weight of the divergence from a teacher's scores
    bank: bool = False  # every query against all labels of the task
    # reinforcement | grpo
    group: int = 8  # games of each example
    temperature: float = 1.0  # of the sampled replies
    scale_rewards: bool = True  # divide advantages by the group's standard deviation
    normalise: Literal["token", "sequence", "constant"] = "token"  # divide by tokens, replies or --max-new
    kl: float = 0.0  # weight of the divergence from the model before training
    updates: int = 1  # optimizer steps on the same games
    mask_truncated: bool = True  # do not learn from replies cut at --max-new
    # how
    steps: int = 0  # optimizer steps; 0 follows from --epochs
    epochs: float = 1.0  # passes over the examples, where --steps is 0
    max_minutes: float = 0.0  # end training in time, the learning rate at its end; 0: no limit
    patience: int = 0  # end after so many evaluations in a row without a better score; 0 never
    batch: int = 16  # examples a step
    max_tokens: int = 512  # longest sample; longer ones are dropped (texts to classify are cut)
    row_tokens: int = 0  # slots of a packed row; 0: --max-tokens on a GPU, no packing on a CPU
    micro_tokens: int = 0  # slots a forward pass; 0: 8192 on a GPU, 512 on a CPU, or a whole step
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon takes the blocks' matrices, adamw the rest
    lr: float = 1e-4  # peak learning rate of adamw
    muon_lr: float = 0.02  # peak learning rate of muon
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # learning rate after the warm-up
    warmup: float = 0.05  # share of the steps in which the learning rate rises
    final_lr: float = 0.0  # where the schedule ends, as a share of the peak
    beta2: float = 0.95  # adamw
    weight_decay: float = 0.0  # of matrices
    clip: float = 1.0  # largest gradient norm; 0 never clips
    # evaluation and saving
    limit: int = 0  # train on the first examples only; 0 takes all
    keep: float = 0.1  # refuse to train where a smaller share of the rows or samples is usable
    eval_n: int = 400  # examples of the evaluation after training
    eval_replies: int = 0  # replies to each example in evaluations; 0: as the game asks
    eval_every: int = 0  # evaluate every so many steps as well
    eval_few: int = 100  # examples of the evaluations before and during training
    save_every: int = 0  # checkpoint every so many steps; the last one always
    max_new: int = 24  # longest reply in evaluations, in tokens
    # where
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # products; auto: bfloat16 if native
    checkpointing: bool = False  # compute activations twice: less memory, a third more work
    shard: bool = False  # under torchrun: cut the model over the cards (FSDP2)
    name: str = ""  # of this run; by default task and time
    resume: str = ""  # go on with a run
    show: int = 1  # rendered samples to print before the first step
    dry_run: bool = False  # print what would be trained, and stop


@dataclass
class Infer(Shared):
    # the game
    verb: str = "play"  # play, eval, sample, collect, submit, merge or rows
    # the model
    run: str = ""  # a run; by default runs/latest where no --model is given
    model: str = ""  # a model folder or Hub name
    revision: str = ""  # branch, tag or commit of a Hub name
    lora: str = ""  # an adapter to put on it
    format: str = flag("", as_trained=True)  # chat format, where the checkpoint's own is not recognised
    # what
    limit: int = 400  # examples to evaluate on, or to collect from; 0 takes all
    out: str = ""  # write the result to this new file
    # what to say | sample
    prompt: str = ""  # what to say to the model
    prompts: str = ""  # rows with a "prompt" or "messages" each (file, folder, Hub data set); needs --out
    # a submission | submit
    predictions: str = ""  # the predictions that eval wrote, where the game makes it from them
    # playing | play
    seat: str = ""  # the model's, asker (you answer) or answerer; arena: model or person judges
    # replies | play eval sample collect submit
    n: int = 1  # replies to each prompt, by default as many as the game asks for; above 1: --temperature
    temperature: float = 0.0  # 0 takes the likeliest token; eval and play: by default the game's
    top_k: int = 0  # sample among the k likeliest tokens; 0 among all
    top_p: float = 1.0  # sample among the fewest tokens that hold this share of the probability
    min_p: float = 0.0  # sample among tokens at least this share as likely as the likeliest
    max_new: int = 256  # longest reply, in tokens; eval and play: by default the game's
    max_tokens: int = flag(512, as_trained=True)  # longest text to classify, longer ones are cut
    # test-time training | eval
    ttt_steps: int = 0  # train so many steps on what each task shows before it is answered
    ttt_rounds: int = 1  # ... so many times, where that takes own replies, --n of them over all rounds
    ttt_tasks: int = 1  # ... on so many tasks together, each group of them from the same start
    ttt_batch: int = 8  # ... examples a step
    # where
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: the file's, on a CPU float32


# ------------------------------------------------------------------------------------------------ parsing
def groups_of(kind):
    """[(heading, verbs, {field name: help})] of a dataclass and its bases, read from their comments; verbs
    is empty where all of them use the group."""
    groups = {}
    for each in kind.__mro__[:-1]:
        heading = ("", "")
        for line in inspect.getsource(each).split("\n"):
            if found := re.fullmatch(r"    # ([^|]+?)(?: \| ([\w ]+))?", line):
                heading = found[1], found[2] or ""
            elif found := re.fullmatch(r"    (\w+): [^#]*# (.*)", line):
                groups.setdefault(heading, {})[found[1]] = found[2]
    return [(heading, tuple(verbs.split()), fields) for (heading, verbs), fields in groups.items()]


def nearest(word, known):
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def refuse(message):
    raise UsageError(message)


class HelpFormatter(argparse.HelpFormatter):
    """A line for each flag, in columns."""

    def __init__(self, prog):
        super().__init__(prog, width=110, max_help_position=24)

    def format_help(self):
        return super().format_help().replace("\n\n", "\n")

    def _format_action_invocation(self, action):
        if isinstance(action, argparse.BooleanOptionalAction):
            return action.option_strings[0].replace("--", "--[no-]")
        return super()._format_action_invocation(action)


def add_flags(parser, kind, used):
    """Give an argparse parser the flags of a dataclass; --help shows the groups of all verbs and those of the
    verb and loss that are `used`."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for heading, verbs, helps in groups_of(kind):
        shown = not (used and verbs) or bool(used & {*verbs})
        titles = {group.title: group for group in parser._action_groups}
        group = titles.get(heading) or (parser.add_argument_group(heading) if shown else parser)
        for name, text in helps.items():
            field = fields[name]
            flags, settings = settings_of(field)
            others = [str(choice) for choice in get_args(field.type) if choice not in ("", field.default)]
            values = " | ".join([str(field.default), *others] if field.default else others)
            text += f" [{values}]" if values else ""
            settings["help"] = text.replace("%", "%%") if shown else argparse.SUPPRESS
            group.add_argument(*flags, **settings)


def settings_of(field):
    """(names, keywords) of argparse's add_argument for a field."""
    flags = [f"--{field.name.replace('_', '-')}"]
    if field.name == "verb":
        return ["verb"], dict(nargs="?", default=field.default)
    if field.type is bool:
        return flags, dict(action=argparse.BooleanOptionalAction)
    if field.type is list:
        return flags, dict(nargs="+", metavar="NAME")
    choices = get_args(field.type)
    return flags, dict(type=type(choices[0]) if choices else field.type, metavar="")


def game_of(argv):
    """(task, recipe, loss) that a call names, the task by its recipe where no --task is given."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.error = refuse
    for name in ("--task", "--recipe", "--loss"):
        early.add_argument(name, default="")
    first, _ = early.parse_known_args(argv)
    recipe = first.recipe
    by_name = next((game for game in GAMES if f"{recipe}-".startswith(f"{game}-")), "")
    if recipe and recipe not in (recipes_of(by_name) if by_name else ()):
        known = [name for game in GAMES for name in recipes_of(game)]
        raise UsageError(f"--recipe {recipe}: unknown{nearest(recipe, known)} (known: {', '.join(known)})")
    task = first.task or by_name or Shared.task
    if task not in GAMES:
        raise UsageError(f"--task {task}: unknown{nearest(task, GAMES)} (known: {', '.join(GAMES)})")
    return task, recipe, first.loss


def parse(kind, argv=None):
    """The settings of a call: an instance of kind with the game's own Options as `.options` and the origin of
    each value that is not the default as `.origin`. Raises UsageError."""
    argv = sys.argv[1:] if argv is None else list(argv)
    task, recipe, loss = game_of(argv)
    parser = argparse.ArgumentParser(
        usage="%(prog)s [--flag value ...]" if kind is Train else "%(prog)s VERB [--flag value ...]",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=HelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    parser.error = refuse
    kinds = (kind, task_class(task).Options)
    used = {word for word in argv if word in VERBS}
    if kind is Train:
        used = {"train", loss or recipes_of(task).get(recipe, {}).get("loss") or task_class(task).loss}
    for each in kinds:
        add_flags(parser, each, used)
    given, rest = parser.parse_known_args(argv)
    if rest:
        flags = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(f"{rest[0]}: unknown{nearest(rest[0].split('=')[0], flags)}")
    given = vars(given)
    chosen = {}
    if kind is Train:
        recipe = recipe or default_recipe(task, given)
        chosen = recipes_of(task).get(recipe, {}) | {"recipe": recipe}
    merged = {**chosen, **given, "task": task}
    settings = restore(kind, merged)
    settings.origin = {name: "flag" if name in given else f"recipe {recipe}" for name in merged}
    for each in (settings, settings.options):
        check(each)
    return settings


def default_recipe(task, given):
    """The recipe of a call of train.py that names none."""
    by_loss = f"{task}-{given.get('loss')}"
    if by_loss in recipes_of(task):
        return by_loss
    return f"{task}-model" if given.get("model") or given.get("init") else task


def check(settings):
    """Raise UsageError where a value is not what its field says."""
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), field.name.replace("_", "-")
        if get_args(field.type):
            check_choice(name, value, get_args(field.type))
        elif isinstance(value, (int, float)) and value < 0:
            raise UsageError(f"--{name} {value}: must not be negative")
        elif field.metadata.get("share") and value > 1:
            raise UsageError(f"--{name} {value}: a share lies between 0 and 1")


def restore(kind, saved):
    """Settings from the flat dict that `values` made of them; names that are no flags any more are left
    out."""
    options = task_class(saved["task"]).Options
    parts = [
        {field.name: saved[field.name] for field in dataclasses.fields(each) if field.name in saved}
        for each in (kind, options)
    ]
    settings = kind(**parts[0])
    settings.options, settings.origin = options(**parts[1]), dict.fromkeys(saved, "run")
    return settings


def values(settings):
    """Every setting as one flat dict, the game's own included."""
    return dataclasses.asdict(settings) | dataclasses.asdict(settings.options)


# ------------------------------------------------------------------------------------------------ marks
def take_from_run(settings, saved):
    """Give settings of infer.py what a run was trained with, saved (run.json's values), where a flag is
    marked so and no flag of the call says otherwise."""
    for each in (settings, settings.options):
        for field in dataclasses.fields(each):
            name = field.name
            if field.metadata.get("as_trained") and name in saved and name not in settings.origin:
                setattr(each, name, saved[name])


def cosmetic(options):
    """Names of a game's flags that change no result."""
    return {field.name for field in dataclasses.fields(options) if field.metadata.get("cosmetic")}


def agent_flags(options, verb=None):
    """{name: marks} of the flags that name an agent: those that play instead of a model in this verb, or
    without a verb those that play beside it. See games.task.flag."""
    marked = {field.name: field.metadata for field in dataclasses.fields(options)}
    return {name: marks for name, marks in marked.items() if "agent" in marks and marks.get("plays") == verb}
