"""Each wheel works alone: in a clean environment, outside the repository, with its own tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.wheels

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
UV = Path(sys.executable).with_name("uv")
TOOLS = ["beartype", "hypothesis", "jaxtyping", "numpy", "pytest", "safetensors"]


class Package(NamedTuple):
    """A package, the parts of sixfold there once it is installed, a use of it, its quick tests."""

    name: str
    folder: Path
    parts: list[str]
    use: str
    tests: list[str]

    @property
    def part(self) -> str:
        return self.name.removeprefix("sixfold-")


PACKAGES = [
    Package(
        "sixfold-kernels",
        ROOT / "kernels",
        ["kernels"],
        "import torch; from sixfold.kernels import dwconv1d\n"
        "assert dwconv1d(torch.ones(1, 9, 2, 4), torch.ones(4, 1, 3)).shape == (1, 7, 2, 4)",
        ["tests/kernels/test_dwconv1d.py", "tests/kernels/test_spmm.py"],
    ),
    Package(
        "sixfold-core",
        ROOT / "packages/core",
        ["core"],
        "from sixfold.core.pipeline.report import markdown_table\n"
        "assert markdown_table([{'system': 'frcrn'}], ['system']).count('frcrn') == 1",
        ["tests/core/weights/test_convert.py", "tests/core/data/test_fetch.py"],
    ),
    Package(
        "sixfold-speech",
        ROOT / "packages/speech",
        ["core", "kernels", "speech"],
        "import torch; from sixfold.speech import FRCRN\n"
        "assert FRCRN().eval()(torch.zeros(1, 4000)).waveform.shape == (1, 4000)",
        ["tests/speech/audio/test_files.py", "tests/speech/models/test_frcrn_streaming.py"],
    ),
    Package(
        "sixfold-graphs",
        ROOT / "packages/graphs",
        ["core", "graphs", "kernels"],
        "from sixfold.graphs import ForwardGNN\n"
        "from sixfold.graphs.data.synthetic import block_model\n"
        "data = block_model(nodes=60)\n"
        "assert ForwardGNN(layers=2, epochs=2).fit(data).predict_proba(data).shape == (12, 4)",
        ["tests/graphs/test_inputs.py", "tests/graphs/test_message_passing.py"],
    ),
]


@pytest.fixture(scope="module", params=PACKAGES, ids=lambda package: package.part)
def package(request) -> Package:
    return request.param


@pytest.fixture(scope="module")
def python(package, tmp_path_factory):
    """Make an environment that holds one package and what it needs; return its Python."""
    folder = tmp_path_factory.mktemp(package.part) / "env"
    uv("venv", "--python", sys.executable, str(folder))
    python = folder / "bin" / "python"
    fresh = [f"--refresh-package=sixfold-{part}" for part in package.parts]  # uv caches by version
    name = f"{package.name}[pipeline,train]" if package.part == "core" else package.name
    uv("pip", "install", "--find-links", "dist", *fresh, "--python", str(python), name)
    yield python
    shutil.rmtree(folder)  # pytest would keep its gigabytes


def uv(*arguments: str) -> None:
    """Run uv in the repository, so that the versions it pins hold."""
    run(UV, *arguments, folder=ROOT)


def run(*command: str | Path, folder: Path, path: str = "") -> str:
    """Run a command without what this environment has; return what it printed."""
    env = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    done = subprocess.run(
        command, cwd=folder, env=env | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(package: Package) -> set[str]:
    """Return what the package holds, as in ``sixfold/core/report.html.j2``."""
    source = package.folder / "src"
    every = (file.relative_to(source) for file in source.rglob("*") if file.is_file())
    return {str(file) for file in every if file.suffix != ".pyc"}


def wheel(package: Package) -> dict[str, bytes]:
    """Return what `make wheels` packed: file by file, without what describes the package."""
    (file,) = DIST.glob(f"{package.name.replace('-', '_')}-*.whl")
    with ZipFile(file) as packed:
        return {name: packed.read(name) for name in packed.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_and_no_other(package):
    inside = set(wheel(package))
    assert inside == files(package)
    data = {"core": "report.html.j2", "speech": "checksums.csv", "graphs": "checksums.csv"}
    wanted = data.get(package.part, "__init__.py")
    assert f"sixfold/{package.part}/{wanted}" in inside


def test_what_is_installed_is_what_the_wheel_holds(package, python):
    (installed,) = python.parents[1].glob("lib/python*/site-packages")
    for name, content in wheel(package).items():
        assert (installed / name).read_bytes() == content, name


def test_every_module_imports_and_no_sibling_is_there(package, python, tmp_path):
    names = sorted(name for name in files(package) if name.endswith(".py"))
    modules = [name.removesuffix(".py").replace("/", ".") for name in names]
    imports = "".join(f"import {name.removesuffix('.__init__')}\n" for name in modules)
    look = (
        "import pkgutil, sixfold\nprint([m.name for m in pkgutil.iter_modules(sixfold.__path__)])"
    )
    assert run(python, "-c", imports + look, folder=tmp_path).split("\n")[-2] == str(package.parts)


def test_the_command_lists_what_is_installed(package, python, tmp_path):
    command = python.with_name("sixfold")
    assert command.exists() == ("core" in package.parts)
    if command.exists():
        listed = run(command, "list", folder=tmp_path)
        assert "published size" in listed
        assert ("speech/frcrn" in listed) == ("speech" in package.parts)
        assert ("graphs/mowst" in listed) == ("graphs" in package.parts)


def test_it_can_be_used(package, python, tmp_path):
    run(python, "-c", package.use, folder=tmp_path)


def test_its_own_tests_pass(package, python, tmp_path):
    tools = tmp_path / "tools"  # beside the environment, which stays as its users have it
    uv("pip", "install", "--python", str(python), "--target", str(tools), *TOOLS)
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow and not compile"]
    run(python, *words, *package.tests, folder=ROOT, path=str(tools))
