"""The prompts of ARC: the questions, their words, and the form of a reply.

A version of the prompt is one entry of PROMPTS below; it works with every grid format of games.arc.grids. The
names with -v0 to -v3 follow those of the published system; the words are our own. The short names are for a
small model trained from scratch: only grids and markers, and a program is the body of a function."""

import textwrap
from dataclasses import dataclass

from games.task import Chat

PRIORS = "objects, numbers and counting, shapes and symmetry, and actions with a goal"
PRIMER = f"""You solve puzzles of coloured grids. A grid is a rectangle of at most 30 by 30 cells; a cell is \
a digit from 0 to 9, its colour, where 0 is most often the background. A puzzle shows some pairs: an input \
grid, and the output grid that one hidden rule makes of it. The rule is the same in all pairs of a puzzle, \
and simple to say once it is seen. It rests on what every child knows: {PRIORS}. Typical rules move, copy, \
recolour, count, sort, complete, mirror, enlarge or cut out parts of the grid. The output may have another \
size than the input. Look at what changes and at what stays in each pair, find a rule that fits them all, \
and check it on every pair before you answer. Your answer must be right in every cell."""
SHORT = "You solve puzzles of coloured grids."
GRID_TASK = f"Find the rule that turns each input grid into its output grid. It uses {PRIORS}. Apply \
it to the test input."
INPUT_TASK = "These grids were drawn in the same way. Draw a new one that could be one of them."
CODE_TASK = "Write a Python function `task` that takes the numpy array `{name}` and returns the output grid."
LONG_TASK = """Find the rule that turns each input grid into its output grid, and write it as a Python \
function `task` that takes the numpy array `{name}` and returns the output grid. The rule uses
- objects: connected cells, cells of a colour, things that move, touch or hide each other
- numbers: counting, sorting, comparing, the most and the least frequent
- geometry: lines, rectangles, symmetry, turning, mirroring, enlarging, inside and outside
- goals: something that is reached, completed or cleaned up
numpy is there as `np`, a small library of grid functions as `dsl`."""
RUN_TASK = "What does this function return for the grid?\n\n```python\n{program}```"
REFINE_TASK = f"""This function is a first try at a rule that turns each input grid into its output grid:

```python
{{program}}```

Each example shows the output that is wanted and what the function got. {CODE_TASK}"""
VERIFY_TASK = "A rule turns each input grid into its output grid. Is the answer to the test what it gives? \
Reply yes or no."
SELECT_TASK = "A rule turns each input grid into its output grid. Which answer to the test is what it gives? \
Reply 1 or 2."
WORDS = {"verdict": ("yes", "no"), "choice": ("1", "2")}  # Prompt.asks -> the possible replies


@dataclass(frozen=True)
class Prompt:
    """One version of the prompt, in Markdown."""

    asks: str  # the reply holds code, an output, an input, a verdict (yes or no) or a choice (1 or 2)
    system: str = ""  # the system message
    task: str = ""  # the words before the pairs
    name: str = "grid"  # the argument of the program
    test: bool = False  # the question shows the test input
    refines: bool = False  # the question shows a program and the outputs that it got
    tail: str = ""  # the end of the question
    lead: str = ""  # the start of the reply, before its block

    def question(self, task, writing, test=0, program="", got=(), answers=()):
        """The messages about a task, whose outputs may be missing.

        test: the index of the test input to show; program, got: the function to show and its outputs for the
        train pairs; answers: the grids to judge. A version ignores what it does not show."""
        parts = []
        if self.task:
            parts.append(self.task.format(name=self.name, program=program))
        for i, pair in enumerate(task["train"], 1):
            parts.append(f"## Example {i}\n\n### Input\n\n{writing.write(pair['input'])}")
            if "output" in pair:
                parts.append(f"### Output\n\n{writing.write(pair['output'])}")
            if got:
                parts.append(f"### Got\n\n{writing.write(got[i - 1])}")
        if self.test:
            parts.append(f"## Test\n\n### Input\n\n{writing.write(task['test'][test]['input'])}")
        for i, grid in enumerate(answers, 1):
            parts.append(f"## Answer {i}\n\n{writing.write(grid)}")
        if self.tail:
            parts.append(self.tail)
        question = {"role": "user", "content": "\n\n".join(parts)}
        return [{"role": "system", "content": self.system}, question] if self.system else [question]

    @property
    def needs_rival(self):
        """Whether the question shows another answer, to improve or to judge."""
        return self.refines or self.asks in WORDS

    def opening(self, writing):
        """The text that every reply begins with."""
        block = {"code": "```python\n", "verdict": "", "choice": ""}
        return self.lead + block.get(self.asks, writing.opening)

    def reply(self, answer, writing):
        """The reply that gives an answer: a program, a grid or a word."""
        if self.asks == "code":
            return f"{self.opening(writing)}{answer}```"
        return self.lead + (answer if self.asks in WORDS else writing.write(answer))

    def program(self, text):
        """The program in a reply."""
        return text.partition("```python\n")[2].partition("```")[0]

    def chat(self, task, writing, rival=None, rng=None):
        """The Chat that teaches this version with a task.

        A version that asks for code needs a task with a program. rival: the other answer, {"source",
        "outputs" for the train pairs and the test}, for a version that shows one."""
        truth = task["test"][0].get("output")
        rename = "" if self.name == "grid" else f"grid = {self.name}\n"  # programs of the world call it grid
        program = task.get("source") or source(rename + task.get("program", ""), self.name)
        shown = {"program": program}
        if self.asks == "code":
            answer = program
            if self.refines:
                shown = {"program": rival["source"], "got": rival["outputs"]}
        elif self.asks == "input":
            # Pairs without outputs; the last input is the answer.
            *inputs, last = [{"input": pair["input"]} for pair in task["train"]]
            task = {"train": inputs}
            answer = last["input"]
        elif self.asks == "output":
            answer = truth
        else:  # a verdict on one answer, or a choice between two
            answers = [truth, rival["outputs"][-1]]
            first = int(rng.integers(2))
            answer = WORDS[self.asks][first]
            if first:
                answers.reverse()
            shown = {"answers": answers[:1] if self.asks == "verdict" else answers}
        question = self.question(task, writing, **shown)
        reply = {"role": "assistant", "content": self.reply(answer, writing)}
        return Chat([*question, reply], learn="last")


def source(body, name="grid"):
    """The source of the function with this body, whose argument is called `name`."""
    return f"def task({name}):\n{textwrap.indent(body, '    ')}\n"


class Bare(Prompt):
    """A version of grids and markers only: > before an output, < before the output that a program got, ;
    before the next pair or the test, | before another answer. A program is the body of its function."""

    def question(self, task, writing, test=0, program="", got=(), answers=()):
        write = lambda grid: writing.write(grid) + "\n"
        parts = []
        for i, pair in enumerate(task["train"]):
            parts.append(f"{write(pair['input'])}>\n{write(pair['output'])}")
            if got:
                parts[i] += "<\n" + write(got[i])
        if self.refines:
            parts.append(self.body(program))
        if self.test:
            parts.append(write(task["test"][test]["input"]) + ">\n" + "|\n".join(map(write, answers)))
        return [{"role": "user", "content": ";\n".join(parts)}]

    def opening(self, writing):
        return ""

    def reply(self, answer, writing):
        return self.body(answer) if self.asks == "code" else super().reply(answer, writing)

    def program(self, text):
        return source(text)

    def body(self, source):
        """The body of a function: its source without the first line."""
        return textwrap.dedent(source.partition("\n")[2]).removesuffix("\n")


LONG = dict(asks="code", system=SHORT, task=LONG_TASK)
LEAD = "## Code\n\nThis function makes every output from its input:\n\n"
PROMPTS = {
    "code": Bare("code"),
    "refine": Bare("code", refines=True),
    "output": Bare("output", test=True),
    "verify": Bare("verdict", test=True),
    "select": Bare("choice", test=True),
    "code-from-examples-v0": Prompt("code", SHORT, CODE_TASK),
    "code-from-examples-v1": Prompt(**LONG, tail="## Code"),
    "code-from-examples-v2": Prompt(**LONG, lead=LEAD),
    "code-from-examples-v3": Prompt(**LONG, lead=LEAD, name="img", test=True),
    "output-from-examples-v0": Prompt("output", PRIMER, "", test=True, lead="### Output\n\n"),
    "output-from-examples-v1": Prompt("output", SHORT, GRID_TASK, test=True, lead="### Output\n\n"),
    "output-from-code-v0": Prompt("output", SHORT, RUN_TASK, test=True, lead="### Output\n\n"),
    "input-from-inputs-v0": Prompt("input", SHORT, INPUT_TASK, lead="### Input\n\n"),
    "refine-from-examples-v0": Prompt("code", SHORT, REFINE_TASK, refines=True),
    "verify-output-from-examples-v0": Prompt("verdict", SHORT, VERIFY_TASK, test=True),
    "select-output-from-examples-v0": Prompt("choice", SHORT, SELECT_TASK, test=True),
}
JUDGES_ANSWERS = tuple(name for name, version in PROMPTS.items() if version.asks in WORDS)
