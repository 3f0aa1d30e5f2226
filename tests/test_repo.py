"""The shape of the repository: who may import whom, what is required, and where family names may stand."""

import ast
import io
import re
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

from families import FAMILIES

ROOT = Path(__file__).parent.parent
CODE = sorted([*ROOT.glob("*.py"), *ROOT.glob("games/**/*.py")])
ALL = sorted([*CODE, *ROOT.glob("tests/**/*.py"), *ROOT.glob("bench/**/*.py")])
OURS = {path.stem for path in ROOT.glob("*.py")} | {"games"}
REQUIRED = ["torch", "safetensors", "tokenizers", "huggingface-hub", "numpy", "tqdm", "pytest"]
PEERS = {"transformers", "peft", "trl", "accelerate", "datasets", "unsloth", "vllm", "bitsandbytes"}
MAY_NEED_PEERS = ("tests/test_peers", "tests/make_golden.py", "bench/")

# file or folder -> the modules of ours and the packages it may import
MAY_IMPORT = {
    "games": {"games", "numpy", "huggingface_hub", "pyarrow", "matplotlib"},  # the last three where used
    "families": set(),
    "ranks": {"torch"},
    "attention": {"torch"},
    "model": {"attention", "families", "ranks", "torch", "safetensors", "huggingface_hub"},
    "lora": {"model", "families", "ranks", "torch", "safetensors"},
    "embed": {"attention", "model", "lora", "data", "torch", "safetensors", "tokenizers", "tqdm"},
    "losses": {"torch"},
    "optim": {"torch"},
    "data": {"games.task", "torch", "numpy", "tokenizers"},
    "objectives": {
        "attention",
        "games.task",
        "data",
        "embed",
        "agents",
        "losses",
        "lora",
        "model",
        "ranks",
        "torch",
        "numpy",
    },
    "cache": {"torch"},
    "sampler": {"cache", "data", "losses", "games.task", "torch", "tqdm", "numpy"},
    "agents": {"sampler", "data", "games.task", "attention", "torch", "numpy", "safetensors", "tqdm"},
    "runs": {"ranks", "torch", "safetensors", "tqdm"},
    "recipes": {"games"},
    "ttt": {"data", "objectives", "recipes", "sampler", "torch", "tqdm"},
    "reports": {
        "data",
        "embed",
        "games.rows",
        "games.task",
        "objectives",
        "recipes",
        "runs",
        "torch",
        "numpy",
    },
    "plots": {"games"},
}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(path):
    """Full names of what a file imports, wherever in it, the standard library left out."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import"
            names.add(node.module)
            if node.module == "games":  # from games import task is games.task
                names |= {f"games.{a.name}" for a in node.names if (ROOT / "games" / f"{a.name}.py").exists()}
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


def allowed(name, may):
    return any(name == one or name.startswith(f"{one}.") for one in may)


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_imports_point_one_way(path):
    part = "games" if path.parent != ROOT else path.stem
    may = MAY_IMPORT.get(part, OURS | {name.replace("-", "_") for name in REQUIRED})
    assert {name for name in imports(path) if not allowed(name, may)} == set()


def test_every_rule_is_about_a_file_that_exists():
    assert [part for part in MAY_IMPORT if part not in OURS] == []


def test_nothing_imports_the_scripts_but_tests_and_benchmarks():
    for path in CODE:
        assert not {"train", "infer"} & {name.split(".")[0] for name in imports(path)}, name_of(path)


def test_third_party_imports_are_those_required():
    required = {name.replace("-", "_") for name in REQUIRED} | {"matplotlib", "pyarrow"}  # extras
    local = OURS | {path.stem for folder in ("tests", "bench") for path in (ROOT / folder).glob("*.py")}
    for path in ALL:
        if not name_of(path).startswith(MAY_NEED_PEERS):
            roots = {name.split(".")[0] for name in imports(path)}
            assert roots - required - local - {"tests", "bench"} == set(), name_of(path)


def test_peers_are_imported_only_where_they_are_compared_with():
    for path in ALL:
        if not name_of(path).startswith(MAY_NEED_PEERS):
            text = path.read_text(encoding="utf-8")
            called = re.findall(r"(?:import_module|importorskip|__import__)\(\s*[\"'](\w+)", text)
            assert not PEERS & ({name.split(".")[0] for name in imports(path)} | set(called)), name_of(path)


def test_requirements_name_exactly_the_seven_packages_with_a_version():
    lines = (ROOT / "requirements.txt").read_text().split("\n")
    lines = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    assert [re.split(r"[=<>~! ]", line)[0] for line in lines] == REQUIRED
    assert all(re.search(r"[=<>~]=?\d", line) for line in lines)


def test_plain_pytest_finds_our_modules():
    """`python -m pytest` puts this folder on the path by itself, `pytest` only if told."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert settings["pythonpath"][0] == "."


def test_no_requirement_is_unused():
    used = {name.split(".")[0] for path in ALL for name in imports(path)}
    assert [name for name in REQUIRED if name.replace("-", "_") not in used] == []


# ------------------------------------------------------------------------------------------- family names
FAMILY = re.compile("|".join(sorted({re.sub(r"\d+(_text)?$", "", name) for name in FAMILIES})), re.I)
# where a family's name may stand in code: top-level assignments and functions of these files
TABLES = {
    "data.py": {"LLAMA3", "MISTRAL", "FORMATS", "FROM_SENTENCEPIECE"},  # chat formats have names of their own
    "embed.py": {"SETTINGS"},  # a file name
    "train.py": {"scratch"},
    "recipes.py": {"SEED_20Q", "SEED_ARC", "SEED_REASONING", "RECIPES"},
}


def allowed_lines(path):
    """Lines of the tables of a file, and of its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    spans = []
    for node in tree.body:
        targets = getattr(node, "targets", [node])
        names = {getattr(target, "id", getattr(target, "name", "")) for target in targets}
        if names & TABLES.get(name_of(path), set()):
            spans.append(node)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            spans.append(node)
    return {line for node in spans for line in range(node.lineno, node.end_lineno + 1)}


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_family_names_stand_only_in_the_table(path):
    if path.name == "families.py":
        return
    free, found = allowed_lines(path), []
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT or token.start[0] in free:
            continue
        text = re.sub(r"llama3", "", token.string)  # a rope scaling and chat format
        if FAMILY.search(text):
            found.append(f"line {token.start[0]}: {token.string}")
    assert found == []


def test_the_family_names_are_those_of_the_table():
    assert FAMILY.search("LlamaConfig") and FAMILY.search("qwen3") and not FAMILY.search("falcon")


def test_every_python_file_says_what_it_is():
    assert [name_of(path) for path in ALL if not ast.get_docstring(ast.parse(path.read_text("utf-8")))] == []
