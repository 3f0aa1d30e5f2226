"""Every flag of train.py and infer.py, and the parser. A game's own flags are the Options of its task, its
recipes are in games/<game>/recipes.py.

A field is a flag, and the comment behind it is its help. A comment line above is a heading of --help:
`# HEADING | VERBS`. VERBS are the verbs or losses that use the flags below it; without VERBS all of them do.
A value on the command line beats the recipe's, and that beats the default of the field."""

import argparse
import dataclasses
import difflib
import functools
import inspect
import math
import re
import sys
import textwrap
from dataclasses import dataclass
from typing import Literal, get_args

from files import COUNT, FLAG, TEXT, check_fields, either, list_of, number, whole
from games import GAMES, is_own, recipes_of, short_name, task_class
from games.own import add_own
from games.task import FollowsData, flag
from terminal import UsageError, check_choice

VERBS = "play", "eval", "sample", "collect", "submit", "merge", "rows", "serve"


@dataclass
class Shared:
    # the game
    task: str = "20q"  # the game
    # where
    seed: int = 0  # seed of all random numbers
    device: str = "auto"  # auto, cuda, mps or cpu
    threads: int = 0  # CPU threads; 0 leaves the number to torch
    runs: str = "runs"  # folder that holds all runs
    verbose: bool = False  # print every metric and group of an evaluation; arc: every program as well


@dataclass
class Train(Shared):
    # the game
    recipe: str = ""  # named settings; default: TASK-LOSS, TASK-model with --model or --init, or TASK
    # what is trained
    model: str = ""  # start from a model folder or Hub name; without it train from scratch
    revision: str = ""  # branch, tag or commit of a Hub name
    init: str = ""  # start from the model of an earlier run
    format: str = ""  # chat format, for a checkpoint whose own is not recognised
    dim: int = 128  # from scratch: width of the model
    layers: int = 3  # from scratch: number of blocks
    heads: int = 4  # from scratch: heads for queries, keys and values
    mlp_dim: int = 384  # from scratch: inner width of the MLP
    vocab: int = 8000  # from scratch: largest size of the vocabulary
    lora_rank: int = 0  # train an adapter of this rank; 0 trains the weights themselves
    lora_alpha: float = 0.0  # the adapter is scaled by alpha / rank; 0 takes twice the rank
    lora_targets: str = ""  # layers that get an adapter (q_proj,v_proj ...); default: all in a block
    lora_dropout: float = 0.0  # dropout on the adapter's input
    rslora: bool = False  # scale by alpha / sqrt(rank)
    dora: bool = False  # also learn the length of each weight row (arXiv 2402.09353)
    quantize: Literal["", "int8", "nf4"] = ""  # hold the matrices under an adapter in 8 or 4 bits
    train_only: str = ""  # train only parameters whose name matches this regular expression
    # the loss
    loss: str = ""  # objective; default: the game's own. --help with --loss shows its flags
    learn_all: bool = False  # learn every token of a chat, prompts included
    # preferences | dpo kto simpo
    beta: float = 0.0  # dpo, kto: pull towards the model before training (0: 0.1); simpo: slope (0: 2)
    lead: float = 1.0  # simpo: by how much the chosen reply shall lead
    nll: float = 0.0  # dpo: weight of the chosen reply's negative log-likelihood
    # retrieval | contrastive
    tau: float = 0.05  # temperature of the softmax over the candidates
    bank: bool = False  # compare every query with all labels of the task
    # games of its own | grpo distil
    group: int = 8  # games about each example
    temperature: float = 1.0  # temperature of the sampled replies
    expert: str = ""  # distil: the run, folder or Hub name to learn from; it has the same tokenizer
    # reinforcement | grpo
    scale_rewards: bool = True  # divide advantages by the group's standard deviation
    normalise: Literal["token", "sequence", "constant"] = "token"  # divide by tokens, replies or --max-new
    kl: float = 0.0  # weight of the divergence from the model before training
    updates: int = 1  # optimizer steps on the same games
    mask_truncated: bool = True  # learn nothing from replies that were cut at --max-new
    # how
    steps: int = 0  # optimizer steps; 0 computes them from --epochs
    epochs: float = 1.0  # passes over the examples, unless --steps is given
    max_minutes: float = 0.0  # stop after this time, with the schedule at its end; 0: no limit
    patience: int = 0  # stop after so many evaluations in a row without a better score; 0: never
    batch: int = 16  # examples in a step
    max_tokens: int = 512  # longest sample; longer ones are dropped (texts to classify are cut)
    row_tokens: int = 0  # slots in a packed row; 0: --max-tokens on a GPU, no packing on a CPU
    micro_tokens: int = 0  # slots in a forward pass; 0: 8192 on a GPU, 512 on a CPU, or a whole step
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon updates the blocks' matrices, adamw the rest
    lr: float = 1e-4  # peak learning rate of adamw
    muon_lr: float = 0.02  # peak learning rate of muon
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # learning rate after the warm-up
    warmup: float = 0.05  # share of the steps in which the learning rate rises
    final_lr: float = 0.0  # end of the schedule, as a share of the peak
    beta2: float = 0.95  # adamw's average of squared gradients
    weight_decay: float = 0.0  # weight decay of matrices
    clip: float = 1.0  # largest gradient norm; 0: no clipping
    # evaluation and saving
    limit: int = 0  # train on the first examples only; 0: on all
    keep: float = 0.1  # refuse to train if a smaller share of the rows or samples is usable
    eval_n: int = 400  # examples in the evaluation after training
    eval_replies: int = 0  # replies to each example in evaluations; 0: the game's default
    eval_every: int = 0  # also evaluate every so many steps
    eval_few: int = 100  # examples in the evaluations before and during training
    save_every: int = 0  # save a checkpoint every so many steps; the last step is always saved
    max_new: int = flag(24, least=1)  # longest reply in evaluations, in tokens
    # where
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # of products; auto: bfloat16 if native
    checkpointing: bool = False  # compute activations twice: less memory, a third more work
    shard: bool = False  # under torchrun: cut the model over the cards (FSDP2)
    name: str = ""  # name of the run; default: task and time
    resume: str = ""  # continue this run
    show: int = 1  # samples to print before the first step
    dry_run: bool = False  # print what would be trained, and stop


@dataclass
class Infer(Shared):
    # the game
    verb: str = "play"  # play, eval, sample, collect, submit, merge, rows or serve
    # the model
    run: str = ""  # a run; default: runs/latest, unless --model is given
    model: str = ""  # a model folder or Hub name
    revision: str = ""  # branch, tag or commit of a Hub name
    lora: str = ""  # an adapter for the model
    format: str = flag("", as_trained=True)  # chat format, for a checkpoint whose own is not recognised
    # what
    limit: int = 400  # examples to evaluate on, or to collect from; 0: all
    out: str = ""  # write the result to this new file
    # what to say | sample
    prompt: str = ""  # a message for the model
    prompts: str = ""  # rows with a "prompt" or "messages" each (file, folder, Hub data set); needs --out
    # a submission | submit
    predictions: str = ""  # the predictions that eval wrote, for a game whose submission needs them
    # playing | play
    seat: str = ""  # the model's seat: asker (you answer) or answerer; arena: model or person judges
    # an endpoint | serve
    host: str = "127.0.0.1"  # address to listen at; 0.0.0.0 is every network of this machine
    port: int = 8000  # 0 takes a free one
    context: int = flag(2048, least=2)  # longest prompt with its reply, in tokens; fewer allow more at a time
    # replies | play eval sample collect submit serve
    n: int = 1  # replies to each prompt; default: the game's. More than 1 need --temperature
    temperature: float = 0.0  # 0 takes the likeliest token; default for eval and play: the game's
    top_k: int = 0  # sample among the k likeliest tokens; 0: among all
    top_p: float = flag(1.0, share=True)  # sample among the fewest tokens with this share of the probability
    min_p: float = flag(0.0, share=True)  # sample among tokens at least this share as likely as the likeliest
    max_new: int = flag(256, least=1)  # longest reply, in tokens; default for eval and play: the game's
    max_tokens: int = flag(512, as_trained=True)  # longest text to classify; longer ones are cut
    # test-time training | eval
    ttt_steps: int = 0  # train this many steps on what each task shows, before it is answered
    ttt_rounds: int = 1  # ... in this many rounds, if it learns from replies; --n counts all rounds
    ttt_tasks: int = 1  # ... on this many tasks together; each group starts from the same weights
    ttt_batch: int = 8  # ... with this many examples in a step
    # where
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: the file's, if native here
    quantize: Literal["", "int8"] = ""  # hold the matrices of models that write in 8 bits a weight


# ------------------------------------------------------------------------------------------------ parsing
@functools.cache
def groups_of(kind: type) -> list[tuple]:
    """[(heading, verbs, {field name: help})] of a dataclass and its bases, read from the comments in their
    source. verbs is empty if every verb uses the group."""
    groups = {}
    for base in kind.__mro__[:-1]:  # without object
        heading = ("", "")
        for line in textwrap.dedent(inspect.getsource(base)).split("\n"):
            if match := re.fullmatch(r"    # ([^|]+?)(?: \| ([\w ]+))?", line):
                heading = match[1], match[2] or ""
            elif match := re.fullmatch(r"    (\w+): [^#]*(?:# (.*))?", line):
                groups.setdefault(heading, {})[match[1]] = match[2] or ""
    return [(heading, tuple(verbs.split()), fields) for (heading, verbs), fields in groups.items()]


def nearest(word: str, known: list) -> str:
    """The end of a message about an unknown word: the known word that it resembles, if any."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def refuse(message):
    raise UsageError(message)


class HelpFormatter(argparse.HelpFormatter):
    """One line for each flag, in columns."""

    def __init__(self, prog):
        super().__init__(prog, width=110, max_help_position=24)

    def format_help(self):
        return super().format_help().replace("\n\n", "\n")

    def _format_action_invocation(self, action):
        if isinstance(action, argparse.BooleanOptionalAction):
            return action.option_strings[0].replace("--", "--[no-]")
        return super()._format_action_invocation(action)


def add_flags(parser, kind: type, used: set):
    """Add the flags of a dataclass to a parser. --help shows groups without verbs, and groups for a verb or
    loss in `used`; the other flags are accepted all the same."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for heading, verbs, helps in groups_of(kind):
        visible = not (used and verbs) or bool(used & {*verbs})
        titles = {group.title: group for group in parser._action_groups}
        group = titles.get(heading) or (parser.add_argument_group(heading) if visible else parser)
        for name, text in helps.items():
            flags, settings = settings_of(fields[name])
            settings["help"] = argparse.SUPPRESS
            if visible:
                # argparse formats a help text with %, so a plain % must be doubled.
                settings["help"] = (text + choices_text(fields[name])).replace("%", "%%")
            group.add_argument(*flags, **settings)


def choices_text(field) -> str:
    """The default of a field and its other choices, for the end of its help."""
    choices = [str(field.default)] if field.default else []
    choices += [str(choice) for choice in get_args(field.type) if choice not in ("", field.default)]
    return f" [{' | '.join(choices)}]" if choices else ""


def settings_of(field) -> tuple:
    """(names, keywords) of a field for argparse's add_argument."""
    flags = [f"--{field.name.replace('_', '-')}"]
    if field.name == "verb":
        return ["verb"], dict(nargs="?", default=field.default)
    if field.type is bool:
        return flags, dict(action=argparse.BooleanOptionalAction)
    if field.type is list:
        return flags, dict(nargs="+", metavar="NAME")
    choices = get_args(field.type)
    if not choices and field.type not in KINDS:
        raise TypeError(f"{field.name} is no bool, int, float, str, list or Literal")
    return flags, dict(type=type(choices[0]) if choices else field.type, metavar="")


def game_of(argv: list) -> tuple:
    """(task, recipe, loss) that a call names. Without --task, the name of the recipe begins with the task."""
    # A first parser, because the flags of the second one depend on the task.
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.error = refuse
    for name in ("--task", "--recipe", "--loss"):
        early.add_argument(name, default="")
    first, _ = early.parse_known_args(argv)
    recipe = first.recipe
    game = next((game for game in GAMES if f"{recipe}-".startswith(f"{game}-")), "")
    task = first.task or game or Shared.task
    if is_own(task):
        task = add_own(task)
    elif task not in GAMES:
        known = ", ".join([*GAMES, "FILE.py:CLASS"])
        raise UsageError(f"--task {task}: unknown{nearest(task, GAMES)} (known: {known})")
    if recipe and recipe not in recipes_of(task):
        known = [name for game in [*GAMES, task] for name in recipes_of(game)]
        raise UsageError(f"--recipe {recipe}: unknown{nearest(recipe, known)} (known: {', '.join(known)})")
    return task, recipe, first.loss


def parse(kind: type, argv: list | None = None):
    """The settings of a call, an instance of kind (Train or Infer). `.options` holds the game's own Options,
    `.origin` the source of each value that is not a default. Raises UsageError."""
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
    used = {word for word in argv if word in VERBS}
    if kind is Train:
        used = {"train", loss or recipes_of(task).get(recipe, {}).get("loss") or task_class(task).loss}
    add_flags(parser, kind, used)
    try:
        add_flags(parser, task_class(task).Options, used)
    except (argparse.ArgumentError, TypeError) as error:
        raise UsageError(f"--task {task}: {error}") from error

    given, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(f"{unknown[0]}: unknown{nearest(unknown[0].split('=')[0], flags)}")
    given = vars(given)
    merged = {**given, "task": task}
    if kind is Train:
        game = task_class(task)
        if issubclass(game, FollowsData):
            chosen = recipes_of(task).get(recipe, {}) | merged
            options = game.Options(**saved_values(game.Options, chosen))
            merged["loss"] = game.loss_for(options, chosen.get("loss", ""))
        recipe = recipe or default_recipe(task, merged)
        merged = {**recipes_of(task).get(recipe, {}), "recipe": recipe, **merged}
    settings = restore(kind, merged)
    settings.origin = {name: "flag" if name in given else f"recipe {recipe}" for name in merged}
    return settings


def default_recipe(task: str, given: dict) -> str:
    """The recipe for a call of train.py that names none."""
    game = short_name(task)
    by_loss = f"{game}-{given.get('loss')}"
    if by_loss in recipes_of(task):
        return by_loss
    return f"{game}-model" if given.get("model") or given.get("init") else game


def check(settings):
    """Raise UsageError if a value is out of the range of its field."""
    for field in dataclasses.fields(settings):
        name = field.name.replace("_", "-")
        value = getattr(settings, field.name)
        if get_args(field.type):
            check_choice(name, value, get_args(field.type))
        elif isinstance(value, (int, float)) and value < (least := field.metadata.get("least", 0)):
            raise UsageError(f"--{name} {value}: must be at least {least}")
        elif field.metadata.get("share") and value > 1:
            raise UsageError(f"--{name} {value}: a share lies between 0 and 1")


def check_infer(settings):
    """Raise UsageError for flags of infer.py that cannot be done."""
    if settings.n < 1:
        raise UsageError("--n must be at least 1")
    if settings.quantize and settings.verb not in ("play", "eval", "sample", "collect"):
        raise UsageError(f"--quantize: {settings.verb} does not use it; play, eval, sample and collect do")
    if settings.quantize and settings.ttt_steps:
        raise UsageError("--quantize: test-time training needs weights that can learn; drop --ttt-steps")
    if settings.quantize and settings.dtype == "float32":
        raise UsageError("--quantize computes in half precision; drop --dtype float32")


def restore(kind: type, saved: dict):
    """Settings from a flat dict, as `values` returns it. Flags that no longer exist are ignored."""
    settings = kind(**saved_values(kind, saved))
    options = task_class(saved["task"]).Options
    settings.options = options(**saved_values(options, saved))
    settings.origin = dict.fromkeys(saved, "run")
    check(settings)
    check(settings.options)
    return settings


KINDS = {
    bool: FLAG,
    int: whole(-(1 << 53), 1 << 53),
    float: number(-math.inf, math.inf),
    str: either(TEXT, COUNT),  # eedi's pool was a number in older runs
    list: list_of(TEXT),
}


def saved_values(part, saved: dict) -> dict:
    """The saved values of a dataclass's fields. Raises ValueError if one is not of its field's type."""
    known = {}
    for field in dataclasses.fields(part):
        value = saved.get(field.name)
        if value is not None:
            choices = get_args(field.type)
            kind = KINDS[type(choices[0]) if choices else field.type]
            known |= check_fields("run.json", {field.name: value}, {field.name: kind})
            if kind is KINDS[str]:
                known[field.name] = str(value)
    return known


def values(settings) -> dict:
    """All settings as one flat dict, with the game's own."""
    return dataclasses.asdict(settings) | dataclasses.asdict(settings.options)


# ------------------------------------------------------------------------------------------------ marks
def take_from_run(settings, saved: dict):
    """Copy the flags marked as_trained from a run (the values in its run.json) to settings of infer.py,
    unless the call gives them."""
    for part in (settings, settings.options):
        trained = {field.name for field in dataclasses.fields(part) if field.metadata.get("as_trained")}
        wanted = {name: saved[name] for name in trained - {*settings.origin} if name in saved}
        for name, value in saved_values(part, wanted).items():
            setattr(part, name, value)


def refuse_code(saved: dict, given: dict):
    """Raise UsageError if a run names a file of Python code that the call does not name again."""
    for field in dataclasses.fields(task_class(saved["task"]).Options):
        value = saved.get(field.name)
        if field.metadata.get("code") and ".py:" in str(value) and field.name not in given:
            again = f"--task {saved['task']} --{field.name} {value}"
            raise UsageError(f"this run executes a file of code; name it again: {again}")


def cosmetic(options) -> set:
    """The names of a game's flags that change no result."""
    return {field.name for field in dataclasses.fields(options) if field.metadata.get("cosmetic")}


def agent_flags(options, verb: str | None = None) -> dict:
    """{name: marks} of the flags that name an agent (games.task.flag). With a verb, the agent plays in this
    verb instead of a model. Without a verb, it plays beside the model."""
    marked = {field.name: field.metadata for field in dataclasses.fields(options)}
    agents = {name: marks for name, marks in marked.items() if "agent" in marks}
    if not verb:
        return {name: marks for name, marks in agents.items() if "plays" not in marks}
    return {name: marks for name, marks in agents.items() if verb in marks.get("plays", "").split()}
