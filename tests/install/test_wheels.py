"""Each wheel works alone: in a clean environment, outside the repository, with its own tests.

And all together on every Python that this machine has, and one domain as a stranger installs it.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.wheels

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
UV = Path(sys.executable).with_name("uv")
QUICK = ["-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow and not compile", "-rs"]


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
        [
            "tests/kernels/test_dwconv1d.py",
            "tests/kernels/test_spmm.py",
            "tests/kernels/test_status.py",
        ],
    ),
    Package(
        "sixfold-core",
        ROOT / "packages/core",
        ["core"],
        "from sixfold.core.pipeline.page import markdown_table\n"
        "assert markdown_table([{'system': 'frcrn'}], ['system']).count('frcrn') == 1",
        [
            "tests/core/weights/test_convert.py",
            "tests/core/data/test_fetch.py",
            "tests/core/test_doctor.py",
        ],
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
        ["tests/graphs/models/test_estimator_inputs.py", "tests/graphs/layers"],
    ),
    Package(
        "sixfold-vision",
        ROOT / "packages/vision",
        ["core", "kernels", "vision"],
        "import torch; from sixfold.vision import CFSR, CFSRConfig\n"
        "model = CFSR(CFSRConfig(embed_dim=8, depths=(1,), upscale=2)).eval()\n"
        "assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 16, 16)",
        ["tests/vision/data/test_classification.py", "tests/vision/models/test_finetune.py"],
    ),
    Package(
        "sixfold-recsys",
        ROOT / "packages/recsys",
        ["core", "kernels", "recsys"],
        "import torch; from sixfold.recsys import FM, FMConfig\n"
        "model = FM(FMConfig(fields=[{'name': 'item', 'vocab_size': 3}])).eval()\n"
        "assert model({'item': torch.tensor([1, 2])}).shape == (2, 1)",
        ["tests/recsys/tables", "tests/recsys/layers", "tests/recsys/test_metrics.py"],
    ),
    Package(
        "sixfold-wireless",
        ROOT / "packages/wireless",
        ["core", "kernels", "wireless"],
        "import torch; from sixfold.wireless import CMuSeNet, CMuSeNetConfig\n"
        "model = CMuSeNet(CMuSeNetConfig(bins=64, width=2, layers=(1,))).eval()\n"
        "assert model(torch.zeros(1, 2, 8, 8)).shape == (1, 2, 64)",
        ["tests/wireless/iq", "tests/wireless/data", "tests/wireless/models/test_cmusenet_run.py"],
    ),
    Package(
        "sixfold-pde",
        ROOT / "packages/pde",
        ["core", "kernels", "pde"],
        "import torch; from sixfold.pde import SineNet, SineNetConfig\n"
        "model = SineNet(SineNetConfig(hidden_channels=2, num_waves=1)).eval()\n"
        "assert model(torch.zeros(1, 4, 3, 16, 16)).shape == (1, 1, 3, 16, 16)",
        [
            "tests/pde/test_own_data.py",
            "tests/pde/test_forecast.py",
            "tests/pde/data",
            "tests/pde/models/test_baselines.py",
            "tests/pde/fields",
        ],
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
    name = f"{package.name}[pipeline,train]" if package.part == "core" else package.name
    install(python, name)
    yield python
    shutil.rmtree(folder)  # pytest would keep its gigabytes


def install(python: Path, *names: str) -> None:
    fresh = [f"--refresh-package={package.name}" for package in PACKAGES]  # uv caches by version
    uv("pip", "install", "--find-links", "dist", *fresh, "--python", str(python), *names)


def uv(*arguments: str) -> None:
    """Run uv in the repository, so that the versions it pins hold."""
    run(UV, *arguments, folder=ROOT)


def run(*command: str | Path, folder: Path) -> str:
    """Run a command without what this environment has; return what it printed."""
    env = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    done = subprocess.run(
        command, cwd=folder, env=env | {"PYTHONPATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(package: Package) -> set[str]:
    """Return the files of the package, as in ``sixfold/core/pipeline/page.html.j2``."""
    source = package.folder / "src"
    every = (file.relative_to(source) for file in source.rglob("*") if file.is_file())
    return {str(file) for file in every if file.suffix != ".pyc"}


def modules(package: Package) -> list[str]:
    """Return the names of the package's modules."""
    names = sorted(name for name in files(package) if name.endswith(".py"))
    dotted = [name.removesuffix(".py").replace("/", ".") for name in names]
    return [name.removesuffix(".__init__") for name in dotted]


def packed(package: Package) -> dict[str, bytes]:
    """Return what `make wheels` packed, file by file."""
    (file,) = DIST.glob(f"{package.name.replace('-', '_')}-*.whl")
    with ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def wheel(package: Package) -> dict[str, bytes]:
    """Return what `make wheels` packed, without what describes the package."""
    return {name: data for name, data in packed(package).items() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_and_no_other(package):
    inside = set(wheel(package))
    assert inside == files(package)
    data = {"core": "pipeline/page.html.j2"} | dict.fromkeys(
        ["speech", "graphs", "vision", "recsys", "wireless"], "data/checksums.csv"
    )
    for wanted in ("py.typed", data.get(package.part, "__init__.py")):
        assert f"sixfold/{package.part}/{wanted}" in inside


def test_wheel_and_source_hold_the_licence(package):
    licence = (ROOT / "LICENSE").read_bytes()
    (name,) = (name for name in packed(package) if name.endswith(".dist-info/licenses/LICENSE"))
    assert packed(package)[name] == licence
    (source,) = DIST.glob(f"{package.name.replace('-', '_')}-*.tar.gz")
    with tarfile.open(source) as archive:
        (file,) = (
            name for name in archive.getnames() if name.count("/") == 1 and "LICENSE" in name
        )
        assert archive.extractfile(file).read() == licence  # pyright: ignore


def test_what_is_installed_is_what_the_wheel_holds(package, python):
    (installed,) = python.parents[1].glob("lib/python*/site-packages")
    for name, content in wheel(package).items():
        assert (installed / name).read_bytes() == content, name


def test_every_module_imports_and_no_sibling_is_there(package, python, tmp_path):
    imports = "".join(f"import {name}\n" for name in modules(package))
    look = (
        "import pkgutil, sixfold\nprint([m.name for m in pkgutil.iter_modules(sixfold.__path__)])"
    )
    assert run(python, "-c", imports + look, folder=tmp_path).split("\n")[-2] == str(package.parts)


def test_the_command_lists_what_is_installed(package, python, tmp_path):
    command = python.with_name("sixfold")
    assert command.exists() == ("core" in package.parts)
    if command.exists():
        listed = run(command, "list", folder=tmp_path)
        assert "published" in listed
        assert ("speech/frcrn" in listed) == ("speech" in package.parts)
        assert ("graphs/mowst" in listed) == ("graphs" in package.parts)
        assert ("vision/cfsr" in listed) == ("vision" in package.parts)
        assert ("recsys/fcn" in listed) == ("recsys" in package.parts)
        assert ("wireless/icgnn" in listed) == ("wireless" in package.parts)
        assert ("pde/sinenet" in listed) == ("pde" in package.parts)


def test_it_can_be_used(package, python, tmp_path):
    run(python, "-c", package.use, folder=tmp_path)


def test_its_own_tests_pass(package, python):
    extras = "pipeline,test,train" if package.part == "core" else "test"
    install(python, f"{package.name}[{extras}]")
    run(python, *QUICK, *package.tests, folder=ROOT)


def interpreter(minor: str) -> Path | None:
    """Return a Python of this version: one that uv finds, or one of pyenv's."""
    found = subprocess.run([UV, "python", "find", minor], capture_output=True, text=True).stdout
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [Path(found.strip()), *sorted(root.glob(f"versions/{minor}.*/bin/python{minor}"))]
    return next((place for place in places if place.is_file()), None)


@pytest.mark.parametrize("minor", ["3.11", "3.12", "3.13"])
def test_all_of_it_works_without_a_warning_on_every_python(minor, tmp_path):
    found = interpreter(minor)
    if found is None:
        pytest.skip(f"there is no Python {minor} on this machine")
    if sys.version_info[:2] == tuple(map(int, minor.split("."))):
        pytest.skip(f"Python {minor} is what the other tests here run on")
    uv("venv", "--python", str(found), str(tmp_path / "env"))
    python = tmp_path / "env" / "bin" / "python"
    install(python, *(package.name for package in PACKAGES))
    imports = "".join(f"import {name}\n" for package in PACKAGES for name in modules(package))
    run(python, "-W", "error", "-c", imports, folder=tmp_path)
    for package in PACKAGES:
        run(python, "-c", package.use, folder=tmp_path)
    assert f"python           {minor}." in run(
        python.with_name("sixfold"), "doctor", folder=tmp_path
    )
    shutil.rmtree(tmp_path / "env")


def test_a_stranger_installs_one_domain_without_our_pins_and_runs_its_tests(tmp_path):
    """``pip install ./kernels ./packages/core ./packages/speech pytest && pytest tests/speech``.

    By uv, which is quicker, from another folder and without settings, so that no pin applies.
    """
    python = tmp_path / "env" / "bin" / "python"
    run(UV, "venv", "--no-config", "--python", sys.executable, "env", folder=tmp_path)
    folders = [str(ROOT / name) for name in ("kernels", "packages/core", "packages/speech")]
    install = [UV, "pip", "install", "--no-config", "--python", str(python)]
    run(*install, *folders, "pytest", folder=tmp_path)
    tests = ["audio", "data", "test_imports.py", "test_losses.py", "test_metrics.py"]
    models = ["test_frcrn.py", "test_deftan2.py", "test_mossformer2.py"]
    chosen = [*tests, *(f"models/{name}" for name in models)]
    run(python, *QUICK, *(f"tests/speech/{name}" for name in chosen), folder=ROOT)
    shutil.rmtree(tmp_path / "env")
