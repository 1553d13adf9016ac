"""The house rules that a reader cannot check by eye; each failure names file, line and rule."""

import ast
import re
import statistics
import subprocess
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [ROOT / "kernels" / "src", *sorted(ROOT.glob("packages/*/src"))]
CODE = sorted(file for source in SOURCES for file in source.rglob("*.py"))
SCRIPTS = sorted(file for name in ("tests", "benchmarks") for file in (ROOT / name).rglob("*.py"))
EXEMPT = {"forward", "__init__"}  # the class says it
DEF = (ast.FunctionDef, ast.AsyncFunctionDef)
# Written so that this file does not match itself.
PRIVATE = re.compile(
    r"(?<![\w.~])/(home|root|Users|work)/\w"  # someone's own folders
    r"|index[-_]url|artifactor[y]|devp[i]\b|/simpl[e]/"  # a package registry
)


def place(file: Path, line: int = 1) -> str:
    return f"{file.relative_to(ROOT)}:{line}"


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def report(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def long_functions(tree: ast.AST, most: int = 60) -> list[tuple[int, str]]:
    found = [node for node in ast.walk(tree) if isinstance(node, DEF)]
    sizes = [(node, (node.end_lineno or 0) - node.lineno + 1) for node in found]
    return [(n.lineno, f"{n.name} has {size} lines") for n, size in sizes if size > most]


def imported(tree: ast.AST, package: str) -> list[tuple[int, str]]:
    """List every module that a file imports, at its top or inside a function, with the line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            base = resolve_name(name, package) if node.level else name
            # "from sixfold import vision" imports sixfold.vision
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def forbidden(name: str, module: str) -> bool:
    """Say whether part ``name`` of sixfold (kernels, core or a domain) may not import a module."""
    below = set() if name in ("kernels", "core") else {"kernels", "core"}
    top, part = [*module.split("."), ""][:2]
    return top == "sixfold" and part not in below | {name}


def undocumented(tree: ast.Module) -> list[tuple[int, str]]:
    """List what is public and has no docstring: the module, classes, functions and methods."""
    missing = [] if ast.get_docstring(tree) else [(1, "module")]

    def look(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, (ast.ClassDef, *DEF)) or node.name in EXEMPT:
                continue
            if node.name.startswith("_") or is_repeated(node):
                continue
            if not ast.get_docstring(node):
                missing.append((node.lineno, prefix + node.name))
            if isinstance(node, ast.ClassDef):
                look(node.body, f"{prefix}{node.name}.")

    look(tree.body, "")
    return missing


def is_repeated(node: ast.AST) -> bool:
    """Recognise overloads and setters, which the function of the same name documents."""
    names = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", [])]
    return any(name.endswith(("overload", ".setter")) for name in names)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """What git holds, and what it would hold after ``git add``."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is nothing to say about what git holds")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    files = [ROOT / name for name in sorted(set(names.split("\0"))) if name]
    return [file for file in files if file.is_file()]


def test_there_is_code_to_check():
    assert len(SOURCES) >= 3
    assert len(CODE) >= 5


def test_sixfold_is_a_namespace():
    files = [source / "sixfold" / "__init__.py" for source in SOURCES]
    report([f"{place(f)}: sixfold is a namespace, delete this file" for f in files if f.exists()])


def test_the_median_file_has_at_most_150_lines():
    sizes = sorted(((lines(file), file) for file in CODE), reverse=True)
    longest = ", ".join(f"{place(file)} {size}" for size, file in sizes[:5])
    assert statistics.median(size for size, _ in sizes) <= 150, f"longest: {longest}"


def test_no_file_has_more_than_600_lines():
    files = [(file, lines(file)) for file in CODE + SCRIPTS]
    report([f"{place(f, n)}: {n} lines, the limit is 600: split it" for f, n in files if n > 600])


def test_no_function_has_more_than_60_lines():
    found = [(file, *one) for file in CODE + SCRIPTS for one in long_functions(parsed(file))]
    report([f"{place(file, line)}: {what}, the limit is 60" for file, line, what in found])


def test_imports_point_one_way():
    problems = []
    for source in SOURCES:
        for file in sorted(source.rglob("*.py")):
            parts = file.relative_to(source).parts  # sixfold, <name>, ...
            for line, module in imported(parsed(file), ".".join(parts[:-1])):
                if forbidden(parts[1], module):
                    problems.append(f"{place(file, line)}: {parts[1]} may not import {module}")
    report(problems)


def test_what_is_public_has_a_docstring():
    problems = []
    for file in CODE:
        if file.name.startswith("_") and file.name != "__init__.py":
            continue
        missing = undocumented(parsed(file))
        problems += [f"{place(file, line)}: {what} has no docstring" for line, what in missing]
    report(problems)


def test_git_holds_no_lock_file_and_no_bytecode(tracked):
    wrong = [file for file in tracked if file.name == "uv.lock" or file.suffix == ".pyc"]
    report([f"{place(file)}: does not belong in git" for file in wrong])


def test_git_holds_no_file_above_one_mebibyte(tracked):
    sizes = [(file, file.stat().st_size) for file in tracked]
    wrong = [(file, size) for file, size in sizes if size > 1 << 20]
    report([f"{place(f)}: {size} bytes; track it with DVC, not with git" for f, size in wrong])


def test_no_text_names_a_private_path_or_a_registry(tracked):
    problems = []
    for file in tracked:
        content = file.read_bytes()
        if b"\0" in content:
            continue
        for number, text in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if match := PRIVATE.search(text):
                problems.append(f"{place(file, number)}: private path or registry: {match[0]}")
    report(problems)


# The rules themselves: what they must find, and what they must let pass.


def test_the_import_rule_sees_every_way_of_importing():
    text = "import sixfold.core.config\nfrom sixfold import vision\ndef f():\n  from ..pde import x"
    found = imported(ast.parse(text), "sixfold.speech")
    assert found == [(1, "sixfold.core.config"), (2, "sixfold.vision"), (4, "sixfold.pde.x")]
    assert [forbidden("speech", module) for _, module in found] == [False, True, True]
    assert forbidden("core", "sixfold.kernels.stft")
    assert forbidden("kernels", "sixfold.core")
    assert not forbidden("kernels", "torch.nn")


def test_the_docstring_rule_looks_at_what_is_public():
    text = "class A:\n  def f(self): 1\n  def forward(self): 1\n  def _g(self): 1\ndef _h(): 1"
    assert undocumented(ast.parse(text)) == [(1, "module"), (1, "A"), (2, "A.f")]
    assert undocumented(ast.parse('"""Module."""\ndef _h(): 1')) == []


def test_the_length_rule_counts_from_def_to_the_last_line():
    body = "\n".join(f"    x = {i}" for i in range(59))
    assert long_functions(ast.parse(f"def f():\n{body}")) == []
    assert long_functions(ast.parse(f"def f():\n{body}\n    x = 59")) == [(1, "f has 61 lines")]


@pytest.mark.parametrize("folder", ["home", "root", "Users", "work"])
def test_the_path_rule_finds_folders_of_a_machine(folder):
    assert PRIVATE.search("path: " + "/".join(["", folder, "someone", "data"]))
    assert not PRIVATE.search(f"https://example.org/{folder}/page")
    assert not PRIVATE.search(f"../{folder}/x")


@pytest.mark.parametrize("words", [("--index", "url x"), ("https://host", "simple", "torch")])
def test_the_path_rule_finds_a_registry(words):
    joined = "-".join(words) if len(words) == 2 else "/".join(words)
    assert PRIVATE.search(joined)
    assert not PRIVATE.search("data/simple_examples: a simple index")
