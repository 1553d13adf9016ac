"""One command on many files: folders, patterns, several names; what ``sixfold run`` does with them.

Paths are given as to ``cp``: the last one is where the results go.
"""

import glob
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from sixfold.core.config import UserError
from sixfold.core.data.atomic import (
    atomic_folder,
    check_file_place,
    explain_write_errors,
    scratch_folder,
)
from sixfold.core.devices import explain_out_of_memory
from sixfold.core.progress import progress

Work = Callable[[Path, Path], None]


def run_files(
    paths: Sequence[Path],
    work: Work,
    *,
    reads: Collection[str],
    writes: Sequence[str],
    overwrite: bool = False,
) -> None:
    """Make one output of each input, in one process.

    A single file goes to the named output. Several, a folder, or a pattern such as ``'*.wav'`` go
    into a folder under the names of the inputs, folders within folders kept. There a finished
    output is not made again, and an input that fails is named and passed over.

    Args:
        paths: One or more inputs and, last, the output.
        work: Function that makes the output of an input, whole or not at all; its UserErrors are
            those of the input. A folder that it is to fill exists.
        reads: Suffixes of files that are taken from folders, e.g. ``{".wav", ".flac"}``.
        writes: Suffixes that an output may have; an input of another one becomes the first of
            them. Empty if an output is a folder, named as the input without suffix.
        overwrite: Whether finished outputs are made again.

    Raises:
        UserError: nothing is found, an output would replace an input or two inputs would have one
            output; raised before anything is written.
        SystemExit: at the end, with status 1, if inputs failed.
    """
    if len(paths) < 2:
        raise UserError("name one or more inputs and, last, the output")
    *given, target = map(Path, paths)
    work = _within_memory(work)
    single = given[0] if len(given) == 1 and given[0].is_file() else None
    if single is None and len(given) == 1 and not given[0].exists() and not _is_pattern(given[0]):
        raise UserError(f"there is no file {given[0]}")
    if single and not (writes and target.is_dir()):
        refuse_inputs([single], [target])
        work(single, target)
        return
    pairs = {
        source: _output(target / name, writes) for source, name in _inputs(given, target, reads)
    }
    _refuse_twice(pairs)
    refuse_inputs(pairs, pairs.values())
    if target.is_file():
        raise UserError(f"{target} is a file; several outputs go into a folder")
    _make_all(pairs, work, target, folders=not writes, overwrite=overwrite)


def _within_memory(work: Work) -> Work:
    def within_memory(source: Path, output: Path) -> None:
        with explain_out_of_memory():
            work(source, output)

    return within_memory


def _make_all(
    pairs: dict[Path, Path], work: Work, target: Path, *, folders: bool, overwrite: bool
) -> None:
    finished = [] if overwrite else [s for s, output in pairs.items() if output.exists()]
    if finished:
        print(
            f"{len(finished)} of {len(pairs)} are in {target} already; --overwrite makes them again"
        )
    left = {source: output for source, output in pairs.items() if source not in finished}
    failed = 0
    with progress(str(target), len(left)) as advance:
        for number, (source, output) in enumerate(left.items(), 1):
            print(f"[{number}/{len(left)}] {source} -> {output}", flush=True)
            try:
                output.parent.mkdir(parents=True, exist_ok=True)
                _into_folder(work, source, output) if folders else work(source, output)
            except UserError as error:
                failed += 1
                print(f"failed: {error}", flush=True)
            advance(1)
    if failed:
        print(f"{failed} of {len(pairs)} failed, see above; {len(pairs) - failed} are in {target}")
        raise SystemExit(1)


def _into_folder(work: Work, source: Path, output: Path) -> None:
    """Fill a folder, which appears when it is complete; other files in an older one stay."""
    if not output.exists():
        with atomic_folder(output) as partial:
            work(source, partial)
        return
    with explain_write_errors(output), scratch_folder(output.parent) as scratch:
        work(source, scratch)
        for file in sorted(scratch.iterdir()):
            os.replace(file, output / file.name)


def check_table(out: Path | None, inputs: Collection[Path]) -> None:
    """Refuse, before the work begins, a file of results that could not be written at its end.

    Raises:
        UserError: its folder is missing, or it would replace a folder, a device or an input.
    """
    if out is None:
        return
    if not out.absolute().parent.is_dir():
        raise UserError(f"cannot write {out}: there is no folder {out.parent}")
    check_file_place(out)
    refuse_inputs(inputs, [out])


def _inputs(
    given: Sequence[Path], target: Path, reads: Collection[str]
) -> Iterator[tuple[Path, Path]]:
    """Yield every input with its place below the target."""
    for path in given:
        if path.is_dir():
            if target.is_dir() and target.samefile(path):
                raise UserError(
                    f"{target} is the folder of the inputs; name another for the outputs"
                )
            found = [f for f in sorted(path.rglob("*")) if f.suffix.lower() in reads]
            inside = target.absolute()
            found = [f for f in found if f.is_file() and inside not in f.absolute().parents]
            if not found:
                kinds = ", ".join(sorted(reads))
                raise UserError(f"the folder {path} holds no file of these kinds: {kinds}")
            yield from ((file, file.relative_to(path)) for file in found)
        elif path.is_file():
            yield path, Path(path.name)
        elif os.path.lexists(path):
            raise UserError(f"{path} is a broken link, a pipe or a device; leave it out")
        else:
            matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            if not matches:
                raise UserError(f"there is no file {path}")
            yield from _inputs(matches, target, reads)


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path))


def _output(place: Path, writes: Sequence[str]) -> Path:
    if not writes:
        return place.with_suffix("")
    return place if place.suffix.lower() in writes else place.with_suffix(writes[0])


def _refuse_twice(pairs: dict[Path, Path]) -> None:
    sources: dict[Path, Path] = {}
    for source, output in pairs.items():
        if output in sources:
            raise UserError(
                f"{sources[output]} and {source} would both become {output}; give one of them "
                "another name, or run them one by one"
            )
        sources[output] = source


def refuse_inputs(sources: Collection[Path], outputs: Collection[Path]) -> None:
    """Refuse an output that is an input, also by way of a link, or holds one in its folder.

    Raises:
        UserError: it would be replaced.
    """
    inputs = {(s.stat().st_dev, s.stat().st_ino): s for s in sources if s.exists()}
    for output in outputs:
        if output.exists():
            found = output.stat().st_dev, output.stat().st_ino
            if found in inputs:
                raise UserError(f"{output} is the input {inputs[found]}; name another output")
