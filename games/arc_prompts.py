"""The prompts of ARC: what is asked, in which words, and what a reply looks like.

A version is a line of PROMPTS below. All take the grid text of games.arc_grids.Writing. The names with -v0 to
-v3 follow the published system's; the words are our own. `code` is for a small model from scratch: nothing
but grids and markers, and the reply is a function's body."""

import textwrap
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Prompt:
    """asks: what the reply holds, "code", "output" or "input". system, task: the words; name: what the
    program calls its grid; test: whether the test input is shown; tail: the end of the question; lead: what
    stands before the reply's block."""

    asks: str
    system: str = ""
    task: str = ""
    name: str = "grid"
    test: bool = False
    tail: str = ""
    lead: str = ""

    def question(self, task, writing, test=0, program=""):
        """The messages about a task: its train pairs, of which the outputs may be missing, and, where the
        version shows one, the test input of this number; program: a body that the version shows."""
        parts = [self.task.format(name=self.name, program=self.source(program))] if self.task else []
        for i, pair in enumerate(task["train"], 1):
            parts.append(f"## Example {i}\n\n### Input\n\n{writing.write(pair['input'])}")
            if "output" in pair:
                parts.append(f"### Output\n\n{writing.write(pair['output'])}")
        if self.test:
            parts.append(f"## Test\n\n### Input\n\n{writing.write(task['test'][test]['input'])}")
        text = "\n\n".join(parts + [self.tail] * bool(self.tail))
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": text}]

    def opening(self, writing):
        """What a reply begins with."""
        return self.lead + ("```python\n" if self.asks == "code" else writing.opening)

    def reply(self, body, writing):
        """The reply that gives a program's body, or a grid."""
        if self.asks != "code":
            return self.lead + writing.write(body)
        return f"{self.opening(writing)}{self.source(body)}```"

    def source(self, body):
        """The program whose body this is, over `grid`."""
        first = "" if self.name == "grid" else f"grid = {self.name}\n"
        return f"def task({self.name}):\n{textwrap.indent(first + body, '    ')}\n"

    def program(self, text):
        """The program in a reply."""
        return text.partition("```python\n")[2].partition("```")[0]


class Bare(Prompt):
    """Grids and markers only: a reply is the body of the function."""

    def question(self, task, writing, test=0, program=""):
        pairs = [f"{writing.write(p['input'])}\n>\n{writing.write(p['output'])}\n" for p in task["train"]]
        return [{"role": "user", "content": ";\n".join(pairs)}]

    def opening(self, writing):
        return ""

    def reply(self, body, writing):
        return body

    def program(self, text):
        return self.source(text)


LONG = dict(asks="code", system=SHORT, task=LONG_TASK)
LEAD = "## Code\n\nThis function makes every output from its input:\n\n"
PROMPTS = {
    "code": Bare("code"),
    "code-from-examples-v0": Prompt("code", SHORT, CODE_TASK),
    "code-from-examples-v1": Prompt(**LONG, tail="## Code"),
    "code-from-examples-v2": Prompt(**LONG, lead=LEAD),
    "code-from-examples-v3": Prompt(**LONG, lead=LEAD, name="img", test=True),
    "output-from-examples-v0": Prompt("output", PRIMER, "", test=True, lead="### Output\n\n"),
    "output-from-examples-v1": Prompt("output", SHORT, GRID_TASK, test=True, lead="### Output\n\n"),
    "output-from-code-v0": Prompt("output", SHORT, RUN_TASK, test=True, lead="### Output\n\n"),
    "input-from-inputs-v0": Prompt("input", SHORT, INPUT_TASK, lead="### Input\n\n"),
}
