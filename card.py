"""The model card of a saved model or adapter: README.md as the Hub wants it, with metadata at its top."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from files import write_text
from terminal import printable

PIPELINES = {"lm": "text-generation", "classes": "text-classification", "none": "sentence-similarity"}
FIGURES = 10  # of an evaluation in the metadata; the table below shows all
LICENCE = """
## Licence

Not chosen yet: add `license: ...` to the metadata above. The licences of the base model and of the data
bind you too.
"""


@dataclass
class Origin:
    """How a model came about."""

    command: list = field(default_factory=list)  # the script and its arguments
    task: str = ""
    seed: int = 0
    result: dict = field(default_factory=dict)  # the evaluation after training, see games.task.Task.evaluate
    table: list = field(default_factory=list)  # the same as lines


def write_card(folder: Path | str, head: str, adapter: bool, base: str, origin: Origin | None = None):
    """Write README.md into the folder of a model with this head (Config.head), made from the model `base`.

    Texts of others stand in indented lines, where nothing is markup, and in metadata, which PyYAML quotes. Of
    a local base only its folder's name is shown."""
    from huggingface_hub import EvalResult, ModelCardData  # takes a while, and only saving needs it

    origin = origin or Origin()
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", base, re.ASCII) and not Path(base).exists()
    local = Path(base)
    if local.name.startswith("step-"):  # a run's checkpoint
        local = local.parent
    name = printable(origin.task)
    figures = []
    for metric, value in list(origin.result.get("metrics", {}).items())[:FIGURES]:
        if value is not None:
            about = {"n": origin.result["n"], "seed": origin.seed}
            if interval := origin.result["intervals"].get(metric):
                about["interval_95"] = list(interval)
            figure = EvalResult(PIPELINES[head], "parlor", name, metric, value, metric_args=about)
            figures.append(figure)
    library = "sentence-transformers" if head == "none" else "transformers"
    data = ModelCardData(
        base_model=base if on_hub else None,
        library_name="peft" if adapter else library,
        pipeline_tag=PIPELINES[head],
        tags=["parlor"] + ["lora"] * adapter,
        model_name=name or "parlor",
        eval_results=figures or None,
    )
    text = f"---\n{data.to_yaml()}\n---\n\n# A model for a parlor game\n"
    sections = {
        "Task": [origin.task],
        "Base model": [base if on_hub else local.name],
        "Command": [f"python {shlex.join(origin.command)}"] * bool(origin.command),
        f"Evaluation after training, seed {origin.seed}": origin.table,
    }
    for title, lines in sections.items():
        if any(lines):
            text += f"\n## {title}\n\n"
            for line in lines:
                text += "    " + printable(line).replace("\n", "\\n") + "\n"
    write_text(Path(folder) / "README.md", text + LICENCE)
