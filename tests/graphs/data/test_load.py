"""Published graphs are read from a mirror without the network, and checked."""

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from sixfold.core import UserError
from sixfold.core.data.fetch import available, cache_folder
from sixfold.graphs.data import load
from sixfold.graphs.data.catalog import GRAPHS, SETS, dataset, find_graph
from sixfold.graphs.data.labels import check_labels
from sixfold.graphs.data.load import MASKS, load_graph
from sixfold.graphs.data.splits import linkx_split
from sixfold.graphs.data.validate import check_graph, is_undirected

MIRROR = os.environ.get("SIXFOLD_MIRROR") or str(Path(__file__).parents[4] / "shared" / "data")
# nodes, features, classes as published; the larger ones take seconds
SIZES = {
    "cora": (2708, 1433, 7),
    "citeseer": (3327, 3703, 6),
    "cora_ml": (2995, 2879, 7),
    "citeseer_full": (4230, 602, 6),
    "texas": (183, 1703, 5),
    "cornell": (183, 1703, 5),
    "wisconsin": (251, 1703, 5),
    "reed98": (962, 745, 2),
    "chameleon": (2277, 2325, 5),
    "chameleon_filtered": (890, 2325, 5),
    "squirrel_filtered_directed": (2223, 2089, 5),
    "minesweeper": (10000, 7, 2),
}
LARGE = {
    "dblp": (17716, 1639, 4),
    "photo": (7650, 745, 8),
    "computers": (13752, 767, 10),
    "cs": (18333, 6805, 15),
    "physics": (34493, 8415, 5),
    "actor": (7600, 932, 5),
    "tolokers": (11758, 10, 2),
    "squirrel": (5201, 2089, 5),
    "amherst41": (2235, 1193, 2),
    "johnshopkins55": (5180, 2406, 2),
}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache, no mirror, and no network."""
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SIXFOLD_OFFLINE", "1")
    monkeypatch.delenv("SIXFOLD_MIRROR", raising=False)

    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


@pytest.fixture
def mirrored(offline, monkeypatch):
    if not Path(MIRROR.split(os.pathsep)[0]).is_dir():
        pytest.skip(f"no mirror of the published graphs: {MIRROR} does not exist")
    monkeypatch.setenv("SIXFOLD_MIRROR", MIRROR)


def needs(name: str) -> None:
    if not available(dataset(find_graph(name))):
        pytest.skip(f"the mirror {MIRROR} does not hold {name}")


@pytest.mark.parametrize(
    "name", [*SIZES, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_a_mirrored_graph_is_read_without_the_network(name, mirrored):
    needs(name)
    data = load_graph(name, 0)
    found = len(data.x), data.x.shape[1], check_labels(data, MASKS)
    assert found == (SIZES | LARGE)[name]
    check_graph(data)
    assert int(torch.stack([data[mask] for mask in MASKS]).sum(0).max()) == 1
    other = load_graph(name, 1)
    assert not torch.equal(other.train_mask, data.train_mask)


def test_undirected_files_are_read_in_both_directions(mirrored):
    for name, undirected in (("chameleon_filtered", True), ("chameleon_filtered_directed", False)):
        needs(name)
        data = load_graph(name)
        assert is_undirected(data.edge_index, len(data.x)) is undirected


def test_nodes_of_facebook_without_a_label_are_in_no_mask(mirrored):
    needs("reed98")
    data = load_graph("reed98", 3)
    assert int((data.y < 0).sum()) > 0
    for mask, chosen in linkx_split(data.y, 3).items():
        assert torch.equal(data[mask], chosen)
        assert int(data.y[chosen].min()) == 0


def test_planetoid_has_its_public_split_too(mirrored):
    needs("cora")
    assert int(load_graph("cora", "public").train_mask.sum()) == 140
    assert int(load_graph("cora", 0).train_mask.sum()) > 1000
    with pytest.raises(UserError, match="splits 0 to 9, not 10"):
        load_graph("cora", 10)


def test_a_mirror_is_never_written(mirrored):
    needs("texas")
    before = sorted(Path(MIRROR.split(os.pathsep)[0], "webkb").rglob("*"))
    load_graph("texas")
    assert sorted(Path(MIRROR.split(os.pathsep)[0], "webkb").rglob("*")) == before


def test_a_changed_file_is_refused(mirrored, offline, monkeypatch):
    needs("reed98")
    file = Path("facebook100", "reed98", "raw", "data.mat")
    copy = offline / "mirror" / file
    copy.parent.mkdir(parents=True)
    shutil.copyfile(Path(MIRROR.split(os.pathsep)[0], file), copy)
    content = bytearray(copy.read_bytes())
    content[1000] ^= 1
    copy.write_bytes(content)
    monkeypatch.setenv("SIXFOLD_MIRROR", str(offline / "mirror"))
    with pytest.raises(UserError, match=r"has SHA-256 .* not the published file; replace"):
        load_graph("reed98")


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def cut(content: bytes) -> bytes:
    return content[:1000]


def emptied(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [flipped, cut, emptied])
@pytest.mark.parametrize(
    "pattern", ["out1_node_feature_label.txt", "*_split_0.6_0.2_0.npz", "data.pt", "digests.json"]
)
def test_a_damaged_copy_in_the_cache_is_made_again(mirrored, offline, pattern, damage):
    needs("texas")
    right = load_graph("texas")
    (file,) = cache_folder().rglob(pattern)
    before = file.read_bytes()
    file.write_bytes(damage(before))
    again = load_graph("texas")
    assert all(torch.equal(again[key], right[key]) for key in ("x", "y", "edge_index", *MASKS))
    assert len(file.read_bytes()) == len(before)


@pytest.mark.parametrize("name", ["texas", "cora_ml", "squirrel", "flickr", "pubmed"])
def test_missing_files_are_named_with_their_home(name, offline):
    message = (
        f"{find_graph(name).set}/.* is not whole in the cache or in SIXFOLD_MIRROR.*its home is"
    )
    with pytest.raises(UserError, match=message):
        load_graph(name)


def test_a_graph_without_checksums_is_taken_from_a_mirror(offline, monkeypatch):
    raw = offline / "mirror" / "citation_full" / "pubmed" / "raw"
    raw.mkdir(parents=True)
    dense = {"attr_matrix": torch.eye(60).numpy(), "adj_matrix": torch.ones(60, 60).numpy()}
    np.savez(raw / "pubmed.npz", **sparse(**dense), labels=np.arange(60) % 3)
    monkeypatch.setenv("SIXFOLD_MIRROR", str(offline / "mirror"))
    data = load_graph("pubmed", 4)
    assert data.x.shape == (60, 60)
    assert int(data.test_mask.sum()) == 12
    assert not (offline / "mirror" / "citation_full" / "pubmed" / "processed").exists()


def test_a_damaged_graph_without_checksums_is_named(offline, monkeypatch):
    raw = offline / "mirror" / "citation_full" / "pubmed" / "raw"
    raw.mkdir(parents=True)
    (raw / "pubmed.npz").write_bytes(b"PK cut")
    monkeypatch.setenv("SIXFOLD_MIRROR", str(offline / "mirror"))
    with pytest.raises(UserError, match=r"pubmed \(.*a file there is damaged: delete the folder"):
        load_graph("pubmed", 4)


def sparse(attr_matrix, adj_matrix) -> dict:
    """Return the parts of two matrices by their names in CitationFull's files."""
    from scipy.sparse import csr_matrix

    parts = {}
    for name, matrix in (("attr", csr_matrix(attr_matrix)), ("adj", csr_matrix(adj_matrix))):
        parts |= {f"{name}_data": matrix.data, f"{name}_indices": matrix.indices}
        parts |= {f"{name}_indptr": matrix.indptr, f"{name}_shape": np.array(matrix.shape)}
    return parts


def test_a_failed_download_of_torch_geometric_is_a_user_error(offline, monkeypatch):
    monkeypatch.delenv("SIXFOLD_OFFLINE")

    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torch_geometric.datasets.Flickr.download", fail)
    with pytest.raises(UserError, match=r"could not get flickr: no route to host; set\s+SIXFOLD_M"):
        load_graph("flickr")


def test_a_single_stored_split_is_split_0():
    from torch_geometric.data import Data

    masks = {mask: torch.arange(6) // 2 == number for number, mask in enumerate(MASKS)}
    data = Data(x=torch.zeros(6, 1), y=torch.arange(6), **masks)
    found = load._with_masks(data.clone(), find_graph("flickr"), "flickr", 0)
    assert all(torch.equal(found[mask], masks[mask]) for mask in MASKS)
    with pytest.raises(UserError, match="splits 0 to 0, not 1"):
        load._with_masks(data.clone(), find_graph("flickr"), "flickr", 1)


def test_the_error_for_an_unknown_graph_names_the_nearest():
    with pytest.raises(UserError, match="no graph 'cora_lm'; did you mean 'cora_ml'"):
        load_graph("cora_lm")
    with pytest.raises(UserError, match=r"photo has no public split; give a number"):
        load_graph("photo", "public")


def test_the_catalog_names_home_licence_and_a_checksum_of_every_file():
    assert {source.set for source in GRAPHS.values()} == set(SETS)
    unchecked = {name for name, source in GRAPHS.items() if not dataset(source).files}
    assert unchecked == {"pubmed", "penn94", "github", "flickr", "reddit"}
    for source in GRAPHS.values():
        files = dataset(source)
        assert files.home.startswith("https://")
        assert files.licence
        assert files.citation
        for file in files.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 0
            assert file.url is None or file.url.startswith("https://")


class Code:
    """What runs as soon as it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("pickled",)


def test_code_in_a_graph_without_checksums_is_not_run(offline, monkeypatch):
    raw = offline / "mirror" / "github" / "raw"
    raw.mkdir(parents=True)
    np.savez(raw / "github.npz", edges=np.array([Code()]), features=np.eye(2), target=[0, 1])
    monkeypatch.setenv("SIXFOLD_MIRROR", str(offline / "mirror"))
    monkeypatch.chdir(offline)
    with pytest.raises(UserError, match=r"cannot read .* could run code"):
        load_graph("github")
    assert not (offline / "pickled").exists()


def test_a_part_of_a_graph_is_not_completed_offline(offline, monkeypatch):
    raw = offline / "mirror" / "facebook100" / "penn94" / "raw"
    raw.mkdir(parents=True)
    (raw / "other").write_text("")
    monkeypatch.setenv("SIXFOLD_MIRROR", str(offline / "mirror"))
    with pytest.raises(UserError, match="is not whole in the cache"):
        load_graph("penn94")
