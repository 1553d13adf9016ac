"""What a stage depends on is derived from its code: all of it, nothing else, and no words."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sixfold.core.pipeline import code
from sixfold.core.pipeline.code import source_files, task_files, task_hash
from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.task import STAGES
from sixfold.core.system import domains

ROOT = Path(__file__).resolve().parents[3]
PIPELINES = sorted(path.parent.name for path in ROOT.glob("pipelines/*/params.yaml"))
installed = pytest.mark.skipif(
    not {name.removesuffix("-paper") for name in PIPELINES} <= domains().keys(),
    reason="not every domain is installed",
)


def fresh() -> None:
    for cached in (code._followed, code._path, code._tree, code._file_imports, code._without_docs):
        cached.cache_clear()


@pytest.fixture
def copy(toy: Path, monkeypatch) -> Path:
    """The toy domain in a folder where a test may edit it."""
    original = Path(__file__).parents[1] / "support" / "toy_domain"
    shutil.copytree(original, toy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(original)])
    monkeypatch.syspath_prepend(str(toy / "src"))
    fresh()
    return toy / "src" / "sixfold" / "toy"


def hashes() -> dict[tuple[str, str], str]:
    fresh()
    line = "sixfold.toy.models.line"
    return {
        (task, stage): task_hash(f"sixfold.toy.tasks.{task}", keywords, line)
        for task in ("fitting", "counting")
        for stage, keywords in STAGES.items()
    }


def changed(file: Path, old: str, new: str) -> set[tuple[str, str]]:
    """Return the tasks and stages whose hash an edit changes."""
    before = hashes()
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    after = hashes()
    return {key for key in before if before[key] != after[key]}


def test_a_changed_line_changes_the_stages_that_run_it(copy: Path):
    tasks = copy / "tasks"
    every = {(task, stage) for task in ("fitting", "counting") for stage in STAGES}
    assert changed(tasks / "fitting.py", ".square().mean()", ".abs().mean()") == {
        ("fitting", "train")
    }
    assert changed(tasks / "fitting.py", "2 * x + 1", "3 * x") == {("fitting", "train")}
    assert changed(tasks / "fitting.py", '"absent": None}', '"none": None}') == {
        ("fitting", "evaluate")
    }
    assert changed(tasks / "fitting.py", "points on a ruler", "dots") == {("fitting", "report")}
    assert changed(tasks / "counting.py", "points: int = 8", "points: int = 9") == {
        ("counting", "prepare")
    }
    assert changed(copy / "models" / "line.py", "nn.Linear(1, config", "nn.Linear(2, config") == (
        every
    )


def test_words_change_nothing(copy: Path):
    line, fitting = copy / "models" / "line.py", copy / "tasks" / "fitting.py"
    assert not changed(line, '"""Fit a line."""', '"""Fit a straight line."""\n    # by any means')
    assert not changed(fitting, '"""Return the squared error."""', '"""Return it."""  # squared')
    assert not changed(fitting, "TASK = Task(", "TASK = Task(  # an experiment\n")
    assert not changed(line, '"""Line: one hidden', '"""A line: one hidden')


def test_two_modules_of_one_last_name_are_told_apart(copy: Path):
    for folder, factor in (("first", 1), ("second", 2)):
        (copy / folder).mkdir()
        (copy / folder / "pipeline.py").write_text(f"def scaled(x):\n    return {factor} * x\n")
    fitting = copy / "tasks" / "fitting.py"
    fitting.write_text(
        fitting.read_text()
        .replace(
            "from sixfold.toy.models",
            "from sixfold.toy.first.pipeline import scaled\nfrom sixfold.toy.models",
        )
        .replace("return (model(", "return scaled(model(")
    )
    assert changed(copy / "first" / "pipeline.py", "1 * x", "1000 * x") == {("fitting", "train")}
    assert not changed(copy / "second" / "pipeline.py", "2 * x", "1000 * x")


def test_a_task_that_cannot_be_followed_is_refused(copy: Path):
    fitting = copy / "tasks" / "fitting.py"
    fitting.write_text(fitting.read_text().replace("TASK = Task(", "TASK = dict("))
    fresh()
    task_hash("sixfold.toy.tasks.fitting", STAGES["train"])  # any call with keywords
    fitting.write_text("TASK = print\n")
    fresh()
    with pytest.raises(ValueError, match=r"TASK = Task\(keyword"):
        task_hash("sixfold.toy.tasks.fitting", STAGES["train"])


def test_what_changes_a_name_counts_wherever_it_stands(copy: Path):
    fitting = copy / "tasks" / "fitting.py"
    (copy / "extra.py").write_text("factor = 1\n")
    added = (
        "FACTORS = {}\nFACTORS['square'] = 1\nFACTORS.update(other=1)\n"
        "try:\n    from sixfold.toy.extra import factor\nexcept ImportError:\n    factor = 1\n"
    )
    text = fitting.read_text().replace("def loss(", f"{added}\n\ndef loss(")
    fitting.write_text(text.replace("return (model", "return factor * FACTORS['square'] * (model"))
    for file, old, new in (
        (fitting, "FACTORS['square'] = 1", "FACTORS['square'] = 2"),
        (fitting, "other=1", "other=2"),
        (copy / "extra.py", "factor = 1", "factor = 1000"),
    ):
        assert changed(file, old, new) == {("fitting", "train")}, old


def test_what_cannot_be_followed_is_refused(copy: Path):
    fitting, line = copy / "tasks" / "fitting.py", copy / "models" / "line.py"
    text = fitting.read_text()
    fitting.write_text(text.replace("    train=supervised(", "    **{},\n    train=supervised("))
    with pytest.raises(ValueError, match=r"TASK = Task\(keyword"):
        hashes()
    fitting.write_text(text)
    line.write_text("from .far import x\n" + line.read_text())
    with pytest.raises(ValueError, match="write the full name"):
        hashes()


@installed
@pytest.mark.parametrize("name", PIPELINES)
def test_any_line_below_a_task_counts_and_no_other(name: str, monkeypatch):
    """Change each file of the packages in turn: exactly the stages that reach it must notice."""
    monkeypatch.chdir(ROOT)
    stages = [
        (task, stage, frozenset(task.system_modules(key)))
        for task in Pipeline.find(name).tasks.values()
        for stage in STAGES
        for key in task.entries
    ]
    stages = list(dict.fromkeys((t.module, stage, systems) for t, stage, systems in stages))
    reached = {s: set(task_files(s[0], STAGES[s[1]], *s[2]).values()) for s in stages}
    before = {s: task_hash(s[0], STAGES[s[1]], *s[2]) for s in stages}
    files = [f for p in ("kernels", "packages") for f in (ROOT / p).rglob("src/**/*.py")]
    assert len(files) > 100
    texts = {file: code._without_docs(file) for file in files}
    monkeypatch.setattr(code, "_without_docs", texts.__getitem__)
    for file in files:
        texts[file] += "\nchanged"
        for s in stages:
            noticed = task_hash(s[0], STAGES[s[1]], *s[2]) != before[s]
            assert noticed == (file in reached[s]), (s, file)
        texts[file] = texts[file].removesuffix("\nchanged")


@installed
@pytest.mark.parametrize("name", PIPELINES)
def test_what_python_imports_for_a_task_was_found_without_importing(name: str, monkeypatch):
    monkeypatch.chdir(ROOT)
    for task in Pipeline.find(name).tasks.values():
        known = task_files(task.module, sum(STAGES.values(), ()))
        domain = task.pipeline.domain
        look = (
            f"import sys, {task.module}\n"
            f"print(*(n for n, m in sys.modules.items() if n.startswith('sixfold.{domain}.')"
            " and not hasattr(m, '__path__')))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", look], capture_output=True, text=True, check=True
        )
        loaded = {n for n in ran.stdout.split() if n != task.module}
        # the domain's own __init__ imports all of its systems, whichever the task trains
        missing = loaded - known.keys() - source_files(f"sixfold.{domain}").keys()
        assert not missing, missing


@installed
def test_kernels_that_a_system_uses_count(monkeypatch):
    monkeypatch.chdir(ROOT)
    task = Pipeline.find("speech").task("enhancement")
    files = task_files(task.module, STAGES["train"], *task.system_modules("frcrn"))
    assert "sixfold.kernels.complex_conv" in files
    assert "sixfold.core.training.fit" in files
    assert "sixfold.speech.metrics" not in files  # scoring does not decide what is trained
    assert not any(name.startswith("sixfold.graphs") for name in files)


def test_imports_inside_functions_and_of_packages_are_followed(copy: Path):
    (copy / "extra.py").write_text("def more():\n    from sixfold.toy.far import x\n    return x\n")
    (copy / "far.py").write_text("x = 1\n")
    fresh()
    assert {"sixfold.toy.extra", "sixfold.toy.far"} <= source_files("sixfold.toy.extra").keys()
    assert ast.parse(code._without_docs(copy / "far.py"))
