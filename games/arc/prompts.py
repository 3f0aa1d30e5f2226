"""The prompts of ARC: what is asked, in which words, and what a reply looks like.

A version is a line of PROMPTS below. All take the grid text of games.arc.grids.Writing. The names with -v0 to
-v3 follow the published system's; the words are our own. The short names are for a small model from scratch:
nothing but grids and markers, and a program is a function's body."""

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
WORDS = {"verdict": ("yes", "no"), "choice": ("1", "2")}  # what asks -> the replies there are


@dataclass(frozen=True)
class Prompt:
    """asks: what the reply holds, "code", "output", "input", a "verdict" (yes or no) or a "choice" (1 or 2).
    system, task: the words; name: what the program calls its grid; test: whether the test input is shown;
    refines: whether a program is shown with what it got; tail: the end of the question; lead: what stands
    before the reply's block."""

    asks: str
    system: str = ""
    task: str = ""
    name: str = "grid"
    test: bool = False
    refines: bool = False
    tail: str = ""
    lead: str = ""

    def question(self, task, writing, test=0, program="", got=(), answers=()):
        """The messages about a task: its train pairs, of which the outputs may be missing, and, where the
        version shows one, the test input of this number; program: a function that the version shows, got:
        its outputs for the pairs; answers: grids to judge."""
        parts = [self.task.format(name=self.name, program=program)] if self.task else []
        for i, pair in enumerate(task["train"], 1):
            parts.append(f"## Example {i}\n\n### Input\n\n{writing.write(pair['input'])}")
            if "output" in pair:
                parts.append(f"### Output\n\n{writing.write(pair['output'])}")
            if got:
                parts.append(f"### Got\n\n{writing.write(got[i - 1])}")
        if self.test:
            parts.append(f"## Test\n\n### Input\n\n{writing.write(task['test'][test]['input'])}")
        parts += [f"## Answer {i}\n\n{writing.write(grid)}" for i, grid in enumerate(answers, 1)]
        text = "\n\n".join(parts + [self.tail] * bool(self.tail))
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": text}]

    @property
    def needs_rival(self):
        """Whether the question shows an answer, to be improved or judged."""
        return self.refines or self.asks in WORDS

    def opening(self, writing):
        """What a reply begins with."""
        block = {"code": "```python\n", "verdict": "", "choice": ""}
        return self.lead + block.get(self.asks, writing.opening)

    def reply(self, said, writing):
        """The reply that gives a program, a grid or a word."""
        if self.asks == "code":
            return f"{self.opening(writing)}{said}```"
        return self.lead + (said if self.asks in WORDS else writing.write(said))

    def program(self, text):
        """The program in a reply."""
        return text.partition("```python\n")[2].partition("```")[0]

    def chat(self, task, writing, rival=None, rng=None):
        """The Chat that teaches this version for a task, which has a program where that is asked. rival:
        another answer, {"source", "outputs" for the pairs and the test}, where the version shows one."""
        truth = task["test"][0].get("output")
        first = "" if self.name == "grid" else f"grid = {self.name}\n"
        program = task.get("source") or source(first + task.get("program", ""), self.name)
        more = {"program": program}
        if self.asks == "code":
            body = program
            if self.refines:
                more = {"program": rival["source"], "got": rival["outputs"]}
        elif self.asks == "input":
            *shown, last = [{"input": pair["input"]} for pair in task["train"]]
            task, body = {"train": shown}, last["input"]
        elif self.asks == "output":
            body = truth
        else:  # the right answer and the rival's, one of them or both
            answers, first = [truth, rival["outputs"][-1]], int(rng.integers(2))
            body = WORDS[self.asks][first]
            shown = [answers[first], answers[1 - first]]
            more = {"answers": shown[:1] if self.asks == "verdict" else shown}
        question = self.question(task, writing, **more)
        reply = {"role": "assistant", "content": self.reply(body, writing)}
        return Chat([*question, reply], learn="last")


def source(body, name="grid"):
    """The function with this body, of a grid called `name`."""
    return f"def task({name}):\n{textwrap.indent(body, '    ')}\n"


class Bare(Prompt):
    """Grids and markers only: > an output, < what a program got, ; the next, | another answer. A program is
    the body of its function."""

    def question(self, task, writing, test=0, program="", got=(), answers=()):
        write = lambda grid: writing.write(grid) + "\n"
        parts = [f"{write(pair['input'])}>\n{write(pair['output'])}" for pair in task["train"]]
        parts = [part + "<\n" + write(grid) for part, grid in zip(parts, got)] or parts
        if self.refines:
            parts.append(self.body(program))
        if self.test:
            parts.append(write(task["test"][test]["input"]) + ">\n" + "|\n".join(map(write, answers)))
        return [{"role": "user", "content": ";\n".join(parts)}]

    def opening(self, writing):
        return ""

    def reply(self, said, writing):
        return self.body(said) if self.asks == "code" else super().reply(said, writing)

    def program(self, text):
        return source(text)

    def body(self, source):
        """The body of a function that is all of its source."""
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
WRITES_PROGRAMS = tuple(name for name, version in PROMPTS.items() if version.asks == "code")
JUDGES_ANSWERS = tuple(name for name, version in PROMPTS.items() if version.asks in WORDS)
