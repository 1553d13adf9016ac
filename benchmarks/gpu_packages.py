"""Let a Python that has torch and Triton, but no environment of ours, find the domains.

    python3 benchmarks/gpu_packages.py [FOLDER]

Writes the entry points of the installed domains into the folder, as an installation would, and
installs into it the packages that the benchmarks need and this Python lacks. Without a network,
carry a folder that another machine has filled, for a Python 3.12:

    pip install --target build/gpu-packages --python-version 3.12 --only-binary=:all: pydantic

`gpu.sh` puts the folder and the sources on PYTHONPATH. Only the standard library is used here.
"""

import importlib.util
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "gpu-packages"
# Module -> distribution; none of them needs torch, so pip cannot bring a second one.
NEEDED = {
    "hypothesis": "hypothesis",
    "jaxtyping": "jaxtyping",
    "numpy": "numpy",
    "pydantic": "pydantic",
    "pytest": "pytest",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch_geometric": "torch-geometric",
    "yaml": "pyyaml",
}


def write_entry_points(folder: Path, projects: list[Path]) -> list[str]:
    """Write metadata that names each project's domains; return the names of the projects.

    Args:
        folder: Folder that will be on PYTHONPATH.
        projects: Folders with a pyproject.toml.
    """
    found = []
    for project in projects:
        about = read(project / "pyproject.toml")["project"]
        points = about.get("entry-points", {}).get("sixfold.domains", {})
        lines = [f"{name} = {target}" for name, target in points.items()]
        info = folder / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        metadata = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        text = "\n".join(["[sixfold.domains]", *lines, ""])
        (info / "entry_points.txt").write_text(text, encoding="utf-8")
        found.append(about["name"])
    return found


def install(folder: Path, needed: list[str], *options: str) -> None:
    """Install distributions into a folder, at the versions that the tests are run with."""
    pins = read(ROOT / "pyproject.toml")["tool"]["uv"]["constraint-dependencies"]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "0", "--timeout", "10"]
    command = [*pip, "--target", str(folder), "--constraint", str(constraints), *options, *needed]
    print(f"gpu_packages: installing {', '.join(needed)}", flush=True)
    subprocess.run(command, check=False)


def missing() -> list[str]:
    """List the needed distributions that cannot be imported."""
    importlib.invalidate_caches()
    return [name for module, name in NEEDED.items() if not importlib.util.find_spec(module)]


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    """Fill the folder; fail if something that is needed could not be installed."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    projects = [ROOT / "kernels", *sorted((ROOT / "packages").iterdir())]
    names = write_entry_points(folder, [p for p in projects if (p / "pyproject.toml").is_file()])
    print(f"gpu_packages: {', '.join(names)} -> {folder}")
    sys.path.insert(0, str(folder))
    if needed := missing():
        install(folder, needed)
    if not importlib.util.find_spec("torchaudio"):
        install(folder, [f"torchaudio=={version('torch').partition('+')[0]}"], "--no-deps")
    if still := missing():
        raise SystemExit(f"gpu_packages: this Python lacks {', '.join(still)}; see the docstring")


if __name__ == "__main__":
    main()
