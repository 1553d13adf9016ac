"""The house rules that a reader cannot check by eye; each failure names file, line and rule."""

import ast
import itertools
import re
import statistics
import subprocess
import tomllib
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [ROOT / "kernels" / "src", *sorted(ROOT.glob("packages/*/src"))]
CODE = sorted(file for source in SOURCES for file in source.rglob("*.py"))
SCRIPTS = sorted(file for name in ("tests", "benchmarks") for file in (ROOT / name).rglob("*.py"))
PROJECTS = {
    source.parent: tomllib.loads((source.parent / "pyproject.toml").read_text())["project"]
    for source in SOURCES
}
CORE_FOLDER = ROOT / "packages" / "core" / "src" / "sixfold" / "core"
DOMAINS = [f for source in SOURCES for f in source.glob("sixfold/*") if (f / "models").is_dir()]
domains = pytest.mark.parametrize("domain", DOMAINS, ids=lambda folder: folder.name)
EXEMPT = {"forward", "__init__"}  # the class says it
DEF = (ast.FunctionDef, ast.AsyncFunctionDef)
# The floor plan: the folders of core, and of a domain; the files of a system.
CORE = {"training", "weights", "data", "pipeline"}
DOMAIN = {"models", "layers", "data", "tasks"}
DOMAIN_FILES = {"__init__.py", "losses.py", "metrics.py", "own_data.py", "scoring.py"}
DOMAIN_FILES |= {"solvers.py"}  # pde's second door: what is used without any network
COMMANDS = {"gnnpipe.py"}  # `python -m sixfold.graphs.gnnpipe`
MEDIA = {"audio", "images", "tables", "iq", "fields"}  # a domain has at most one of them
SYSTEM = {"__init__", "model", "layers", "loss", "training", "convert", "export", "inference"}
# What a model and a loop need, what reads and writes files, what the pipeline needs: lines at most.
BARS = {
    "config.py system.py __init__.py training weights": 3500,  # to become 2000
    "data": 800,
    "pipeline": 2150,  # to become 1000
}
UNWORDED: set[Path] = set()
ARGUMENT = re.compile(r" +\*{0,2}\w+: (Of|As of|Likewise)\b", re.IGNORECASE)
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
    """Return whether part ``name`` of sixfold (kernels, core, a domain) may not import a module."""
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
    """Return whether a function is an overload or setter, documented by its namesake."""
    names = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", [])]
    return any(name.endswith(("overload", ".setter")) for name in names)


def loose_arguments(tree: ast.AST) -> list[tuple[int, str]]:
    """List the entries under ``Args:`` that begin with "Of" and the like: no noun phrases."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, *DEF)):
            _, _, text = (ast.get_docstring(node, clean=False) or "").partition("Args:\n")
            section = re.split(r"\n *\n", text)[0]
            entries = [line.strip() for line in section.split("\n") if ARGUMENT.match(line)]
            found += [(getattr(node, "lineno", 1), entry) for entry in entries]
    return found


def misnamed_errors(tree: ast.AST) -> list[tuple[int, str]]:
    """List the exceptions whose name does not end in ``Error``."""
    return [
        (node.lineno, node.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.endswith("Error")
        if any(re.search(r"(Error|Exception)$", ast.unparse(base)) for base in node.bases)
    ]


def folders(package: Path) -> set[str]:
    return {file.parent.name for file in package.glob("*/*.py")}


def unplanned(found: set[str], planned: set[str], media: set[str]) -> set[str]:
    """Return the folders of a package that are not on its floor plan."""
    medium = sorted(found & media)[:1]
    return found - planned - set(medium)


def modules(package: Path) -> dict[str, Path]:
    """Return the files of a package by the name that one imports; a folder's by that of itself."""
    root = package.parents[2]
    files = [file for file in CODE if package in file.parents]
    names = [".".join(file.relative_to(root).with_suffix("").parts) for file in files]
    return dict(zip((name.removesuffix(".__init__") for name in names), files, strict=True))


def imports_of(file: Path) -> list[tuple[int, str]]:
    source = next(source for source in SOURCES if source in file.parents)
    return imported(parsed(file), ".".join(file.relative_to(source).parts[:-1]))


def is_below(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def systems(models: Path) -> set[str]:
    """Return the systems of ``models/``: its folders, and its files that define ``SYSTEM``."""
    files = [
        file for file in models.glob("*.py") if re.search(r"^SYSTEM\b", file.read_text(), re.M)
    ]
    return {file.parent.name for file in models.glob("*/__init__.py")} | {f.stem for f in files}


def unexplained(names: set[str], docstring: str) -> set[str]:
    """Return the files of a system that are not among the usual ones and that it does not name."""
    return {n for n in names - SYSTEM if not re.search(rf"\b{n}\b", docstring)}


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


def test_arguments_are_described_by_noun_phrases():
    files = [file for file in CODE + SCRIPTS if file not in UNWORDED]
    found = [(file, *one) for file in files for one in loose_arguments(parsed(file))]
    report([f"{place(file, line)}: write a noun phrase: {entry}" for file, line, entry in found])


def test_exceptions_end_in_error():
    found = [(file, *one) for file in CODE + SCRIPTS for one in misnamed_errors(parsed(file))]
    report([f"{place(file, line)}: call it {name}Error" for file, line, name in found])


def test_core_keeps_to_its_floor_plan():
    problems = sorted(unplanned(folders(CORE_FOLDER), CORE, set()))
    report([f"{place(CORE_FOLDER / name)}: core has {sorted(CORE)} only" for name in problems])


@domains
def test_a_domain_keeps_to_its_floor_plan(domain):
    problems = sorted(unplanned(folders(domain), DOMAIN, MEDIA))
    report([f"{place(domain / name)}: not on the floor plan of a domain" for name in problems])
    files = {file.name for file in domain.glob("*.py")} - COMMANDS
    problems = sorted(files - DOMAIN_FILES)
    report([f"{place(domain / name)}: a domain has {sorted(DOMAIN_FILES)}" for name in problems])


@domains
def test_a_system_has_the_usual_files_or_names_the_others(domain):
    problems = []
    for init in sorted(domain.glob("models/*/__init__.py")):
        names = {file.stem for file in init.parent.glob("*.py")}
        text = ast.get_docstring(parsed(init)) or ""
        problems += [f"{place(init)}: does not say why {n}.py" for n in unexplained(names, text)]
    report(problems)


@domains
def test_models_do_not_import_each_other(domain):
    problems = []
    package = f"sixfold.{domain.name}.models"
    for module, file in modules(domain / "models").items():
        own = module.removeprefix(f"{package}.").partition(".")[0]
        for line, name in imports_of(file):
            other = [s for s in systems(domain / "models") if is_below(name, f"{package}.{s}")]
            problems += [f"{place(file, line)}: imports {s}" for s in other if s != own]
    report(problems)


@domains
def test_nothing_below_a_domains_door_uses_the_door(domain):
    """Each file imports from the file that defines a name, not from the domain's ``__init__``."""
    door, problems = f"sixfold.{domain.name}", []
    for file in domain.rglob("*.py"):
        for line, name in imports_of(file):
            own, _, last = name.rpartition(".")
            inside = (domain / last).is_dir() or (domain / f"{last}.py").is_file()
            if own == door and not inside:
                problems.append(f"{place(file, line)}: imports {last} through {door}")
    report(problems)


@domains
def test_folders_are_two_deep_at_most(domain):
    deep = [f for f in domain.rglob("*.py") if len(f.relative_to(domain).parts) > 3]
    flat = {"layers", "data", "tasks", *MEDIA}
    deep += [f for n in flat for f in (domain / n).rglob("*.py") if f.parent != domain / n]
    report([f"{place(file)}: a folder too deep" for file in deep])


def test_no_file_is_called_utils():
    vague = {"utils.py", "helpers.py", "common.py", "misc.py"}
    report([f"{place(file)}: name it for what is in it" for file in CODE if file.name in vague])


@domains
def test_layers_import_no_models(domain):
    problems = []
    for file in modules(domain / "layers").values():
        for line, name in imports_of(file):
            if is_below(name, f"sixfold.{domain.name}.models"):
                problems.append(f"{place(file, line)}: layers may not import {name}")
    report(problems)


@domains
def test_nobody_imports_the_tasks(domain):
    tasks, problems = f"sixfold.{domain.name}.tasks", []
    for file in CODE:
        if domain / "tasks" not in file.parents:
            found = [(line, name) for line, name in imports_of(file) if is_below(name, tasks)]
            problems += [f"{place(file, line)}: imports {name}" for line, name in found]
    report(problems)


@pytest.mark.parametrize("parts", BARS)
def test_core_stays_small(parts):
    files = [CORE_FOLDER / part for part in parts.split()]
    size = sum(lines(file) for top in files for file in CODE if top in (file, *file.parents))
    assert size <= BARS[parts], f"{parts}: {size} lines, the limit is {BARS[parts]}"


def test_all_distributions_have_one_version_and_pin_each_other():
    (version,) = {project["version"] for project in PROJECTS.values()}
    for folder, project in PROJECTS.items():
        extras = project["optional-dependencies"].values()
        for need in itertools.chain(project["dependencies"], *extras):
            if need.startswith("sixfold-"):
                assert need.endswith(f"=={version}"), f"{folder.name}: {need}"
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_a_distribution_says_what_others_need_to_know(folder):
    project = PROJECTS[folder]
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert project["license-files"] == ["LICENSE"]
    assert list(folder.glob("src/sixfold/*/py.typed"))
    assert {"authors", "classifiers", "description", "keywords", "readme"} <= set(project)
    assert "test" in project["optional-dependencies"]


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


def test_the_argument_rule_reads_the_section_alone():
    text = (
        'def f():\n  """Do.\n\n  Of course.\n\n  Args:\n    a: Of x.\n    b: One.\n\n  c: Of y."""'
    )
    assert loose_arguments(ast.parse(text)) == [(1, "a: Of x.")]


def test_the_error_rule_looks_at_every_kind_of_exception():
    text = (
        "class A(Exception): 1\nclass B(x.UserError): 1\nclass CError(B, ValueError): 1\nclass D: 1"
    )
    assert misnamed_errors(ast.parse(text)) == [(1, "A"), (2, "B")]


def test_the_floor_plan_has_one_medium():
    found = {"models", "audio", "images", "helpers"}
    assert unplanned(found, DOMAIN, MEDIA) == {"images", "helpers"}
    assert unplanned({"training", "tools"}, CORE, set()) == {"tools"}


def test_a_file_of_a_system_is_named_as_a_word():
    assert unexplained({"model", "gates", "stft"}, "gates.py, and stftx") == {"stft"}
    assert is_below("sixfold.x.tasks.a", "sixfold.x.tasks")
    assert not is_below("sixfold.x.tasks_of", "sixfold.x.tasks")
