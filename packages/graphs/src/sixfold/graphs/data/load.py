"""Load published graphs with torch_geometric, from a cache, a mirror or the network.

Files are checked against their checksums and copied into the cache, because torch_geometric writes
processed files beside them. Copies and processed files are compared with what they were whenever
they are read, and made again where they differ. With ``SIXFOLD_OFFLINE=1`` nothing is downloaded.
"""

import filecmp
import json
import os
import shutil
from pathlib import Path
from typing import Literal

import torch

from sixfold.core import UserError
from sixfold.core.data.arrays import read_npz
from sixfold.core.data.atomic import atomic_file, write_atomic
from sixfold.core.data.digests import digests, fault
from sixfold.core.data.fetch import available, cache_folder, fetch, mirror_folders
from sixfold.core.data.locks import held
from sixfold.graphs.data.catalog import GraphSource, dataset, find_graph
from sixfold.graphs.data.pickles import harmless_pickles
from sixfold.graphs.data.splits import forwardgnn_split, linkx_split
from sixfold.graphs.data.validate import Data

DIGESTS = "digests.json"  # of raw and processed files, beside their folders
MASKS = ("train_mask", "val_mask", "test_mask")


def load_graph(name: str, split: int | Literal["public"] = 0) -> Data:
    """Load a graph with training, validation and test masks.

    Args:
        name: Key of `sixfold.graphs.data.catalog.GRAPHS`.
        split: Number of the split: among those stored with the graph (ten, or one; for Cora and
            CiteSeer those of Geom-GCN), among ForwardGNN's five, or the seed of LINKX's rule.
            ``public`` is Planetoid's own split (Cora and CiteSeer only).

    Raises:
        UserError: there is no such graph or split, or its files are not available.
    """
    source = find_graph(name)
    if split == "public" and source.loader != "Planetoid":
        raise UserError(f"{name} has no public split; give a number, e.g. load_graph({name!r}, 0)")
    folder = _folder(source)
    if source.loader == "npz":
        data = _read_npz(folder / source.prefix, directed=name.endswith("_directed"))
    else:
        data = _read(source, folder, split)
    if split == "public":
        return data
    return _with_masks(data, source, name, split)


def _folder(source: GraphSource) -> Path:
    """Return a writable folder with the files of a graph, which torch_geometric fills if empty."""
    files = dataset(source)
    target = cache_folder() / "torch_geometric" / source.set
    if not files.files:
        return _unchecked(source, target)
    if not available(files):
        _refuse_offline(source, files.home)
        if any(file.url is None for file in files.files):
            return target
    found = fetch(files)
    for file in files.files:
        _copy(found / file.path, target / file.path)
    return target


def _unchecked(source: GraphSource, target: Path) -> Path:
    """Copy files of a graph without checksums from a mirror; PyG downloads the others."""
    mirrored = [folder / source.set / source.prefix / "raw" for folder in mirror_folders()]
    raw = target / source.prefix / "raw"
    for file in (f for folder in mirrored if folder.is_dir() for f in sorted(folder.iterdir())):
        _copy(file, raw / file.name)
    return target


def _refuse_offline(source: GraphSource, home: str) -> None:
    if os.environ.get("SIXFOLD_OFFLINE") == "1":
        raise UserError(
            f"{source.set}/{source.prefix} is not whole in the cache or in SIXFOLD_MIRROR, and "
            f"SIXFOLD_OFFLINE=1 forbids to download it; its home is {home}"
        )


def _copy(file: Path, place: Path) -> None:
    if place.is_file() and filecmp.cmp(place, file, shallow=False):
        return
    with atomic_file(place) as partial:
        shutil.copyfile(file, partial)


def _read(source: GraphSource, folder: Path, split: int | Literal["public"]) -> Data:
    from torch_geometric import datasets

    arguments = [str(folder), source.argument] if source.argument else [str(folder)]
    options = {"split": "geom-gcn"} if source.loader == "Planetoid" and split != "public" else {}
    home, kind = folder / source.prefix, getattr(datasets, source.loader)

    class Allowed(kind):
        def download(self) -> None:
            _refuse_offline(source, dataset(source).home)
            super().download()

    try:
        with held(home, "a graph is read"), harmless_pickles():
            _drop_damaged(home)
            data = Allowed(*arguments, **options)[0]
            _keep_digests(home)
        return data
    except OSError as error:
        raise UserError(
            f"{source.loader} could not get {source.argument or source.set}: {error}; set "
            f"SIXFOLD_MIRROR to a folder that holds {source.set}/"
        ) from None
    except UserError:
        raise
    except Exception as error:  # PyG's readers fail in as many ways as files can be damaged
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:100]
        raise UserError(
            f"torch_geometric cannot read {home} ({reason}); a file there is damaged: delete the "
            "folder, and get it again"
        ) from None


def _drop_damaged(home: Path) -> None:
    """Remove what differs from when it was last read, so that torch_geometric makes it again."""
    for processed in [*home.rglob("processed")]:
        record = processed.with_name(DIGESTS)
        try:
            known = json.loads(record.read_bytes())
            wrong = [
                n for n, at in known.items() if fault(record.parent / n, at["bytes"], at["sha256"])
            ]
        except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError):
            known, wrong = {}, []  # killed before it was written, or damaged itself
        if wrong or not known:
            shutil.rmtree(processed)
            record.unlink(missing_ok=True)
        for name in wrong:
            (record.parent / name).unlink(missing_ok=True)


def _keep_digests(home: Path) -> None:
    for processed in home.rglob("processed"):
        record = processed.with_name(DIGESTS)
        if not record.is_file():
            folders = [processed.with_name("raw"), processed]
            found = {f"{f.name}/{n}": facts for f in folders for n, facts in digests(f).items()}
            write_atomic(record, json.dumps(found, indent=1) + "\n")


def _read_npz(path: Path, *, directed: bool) -> Data:
    """Read a Wikipedia graph; files of undirected graphs list each edge once."""
    from torch_geometric.data import Data as Graph
    from torch_geometric.utils import to_undirected

    file = read_npz(path)
    edges = torch.from_numpy(file["edges"]).T.contiguous()
    masks = {name: torch.from_numpy(file[f"{name}s"]).T for name in MASKS}
    x = torch.from_numpy(file["node_features"]).float()
    y = torch.from_numpy(file["node_labels"]).long()
    return Graph(x=x, edge_index=edges if directed else to_undirected(edges), y=y, **masks)


def _with_masks(data: Data, source: GraphSource, name: str, split: int) -> Data:
    if source.splits == "forwardgnn":
        masks = forwardgnn_split(len(data.y), split)
    elif source.splits == "linkx":
        masks = linkx_split(data.y, split)
    else:
        stored = {mask: data[mask].view(len(data.y), -1) for mask in MASKS}
        count = stored["train_mask"].shape[1]
        if not 0 <= split < count:
            raise UserError(f"{name} has the splits 0 to {count - 1}, not {split}")
        masks = {mask: columns[:, split].bool() for mask, columns in stored.items()}
    for mask, nodes in masks.items():
        data[mask] = nodes
    return data
