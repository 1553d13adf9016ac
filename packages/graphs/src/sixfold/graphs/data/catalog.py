"""The published graphs: their homes, licences, and the checksum of every file.

The checksums are in checksums.csv. Sets without a download URL here are mirror copies rewritten
value for value; torch_geometric downloads the originals. Sets without checksums are downloaded by
their class in torch_geometric and not checked.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.fetch import Dataset, File

_RAW = "https://raw.githubusercontent.com/"
_GEOM_GCN = _RAW + "bingzhewei/geom-gcn/1124af17444d7fd09686504ec46caa3f39f4f632/"
_YANDEX = _RAW + "yandex-research/heterophilous-graphs/a431395582e929d88271309716bea4fe24ce6318/"
_PLANETOID = _RAW + "kimiyoung/planetoid/af6abf468a772cc055bec88c52e4d6f51b7c37e3/"
_LINKX = _RAW + "CUAI/Non-Homophily-Large-Scale/82f8f05c5c3ec16bd5b505cc7ad62ab5e09051e6/"
_COLLEGES = {
    "reed98": "Reed98",
    "amherst41": "Amherst41",
    "cornell5": "Cornell5",
    "johnshopkins55": "Johns%20Hopkins55",
}
_SHCHUR = "Shchur, Mumme, Bojchevski, Günnemann: Pitfalls of GNN Evaluation, 2018"

# set: home, licence, citation
SETS = {
    "planetoid": (
        "https://github.com/kimiyoung/planetoid (splits: https://github.com/bingzhewei/geom-gcn)",
        "MIT; splits: none is stated",
        "Yang, Cohen, Salakhutdinov, ICML 2016; Pei et al., ICLR 2020",
    ),
    "citation_full": (
        "https://github.com/abojchevski/graph2gauss",
        "MIT",
        "Bojchevski, Günnemann: Deep Gaussian Embedding of Graphs, ICLR 2018",
    ),
    "amazon": ("https://github.com/shchur/gnn-benchmark", "MIT", _SHCHUR),
    "coauthor": ("https://github.com/shchur/gnn-benchmark", "MIT", _SHCHUR),
    "actor": (
        "https://github.com/bingzhewei/geom-gcn",
        "none is stated",
        "Tang et al., KDD 2009; Pei et al., ICLR 2020",
    ),
    "webkb": ("https://github.com/bingzhewei/geom-gcn", "none is stated", "Pei et al., ICLR 2020"),
    "heterophilous": (
        "https://github.com/yandex-research/heterophilous-graphs",
        "MIT",
        "Platonov et al.: A critical look at GNNs under heterophily, ICLR 2023",
    ),
    "facebook100": (
        "https://github.com/CUAI/Non-Homophily-Large-Scale",
        "see the home page",
        "Traud, Mucha, Porter, 2012; Lim et al., NeurIPS 2021",
    ),
    "wikipedia": (
        "https://github.com/yandex-research/heterophilous-graphs",
        "MIT",
        "Rozemberczki, Allen, Sarkar, 2021; Platonov et al., ICLR 2023",
    ),
    "github": (
        "https://snap.stanford.edu/data/github-social.html",
        "see the home page",
        "Rozemberczki, Allen, Sarkar, 2021",
    ),
    "flickr": (
        "https://github.com/GraphSAINT/GraphSAINT",
        "MIT; images: none is stated",
        "Zeng et al.: GraphSAINT, ICLR 2020",
    ),
    "reddit": (
        "https://snap.stanford.edu/graphsage/",
        "see the home page",
        "Hamilton, Ying, Leskovec: GraphSAGE, NeurIPS 2017",
    ),
}


@dataclass(frozen=True)
class GraphSource:
    """One graph of a set.

    Args:
        set: Name of the set in caches and mirrors.
        prefix: Prefix of the paths of the graph's files.
        loader: Class of torch_geometric.datasets, or ``npz`` for sixfold's own reader.
        argument: Name of the graph for the class; empty if the class takes none.
        splits: Origin of the splits: stored with the graph, ForwardGNN's rule, or LINKX's.
    """

    set: str
    prefix: str
    loader: str
    argument: str
    splits: Literal["stored", "forwardgnn", "linkx"]


def _named(
    set_: str,
    loader: str,
    names: dict[str, tuple[str, str]],
    splits: Literal["stored", "forwardgnn", "linkx"],
) -> dict[str, GraphSource]:
    return {n: GraphSource(set_, prefix, loader, a, splits) for n, (prefix, a) in names.items()}


def _same(names: list[str]) -> dict[str, tuple[str, str]]:
    return {name: (f"{name}/", name) for name in names}


_WIKIPEDIA = [
    f"{name}{filtered}{directed}"
    for name in ("squirrel", "chameleon")
    for filtered in ("", "_filtered")
    for directed in ("", "_directed")
]

GRAPHS = {
    **_named(
        "planetoid",
        "Planetoid",
        {"cora": ("Cora/", "Cora"), "citeseer": ("CiteSeer/", "CiteSeer")},
        "stored",
    ),
    **_named(
        "citation_full",
        "CitationFull",
        {
            "cora_ml": ("cora_ml/", "Cora_ML"),
            "citeseer_full": ("citeseer/", "CiteSeer"),
            "dblp": ("dblp/", "DBLP"),
            "pubmed": ("pubmed/", "PubMed"),
        },
        "forwardgnn",
    ),
    **_named(
        "amazon",
        "Amazon",
        {"photo": ("Photo/", "Photo"), "computers": ("Computers/", "Computers")},
        "forwardgnn",
    ),
    **_named(
        "coauthor",
        "Coauthor",
        {"cs": ("CS/", "CS"), "physics": ("Physics/", "Physics")},
        "forwardgnn",
    ),
    **_named("actor", "Actor", {"actor": ("", "")}, "stored"),
    **_named("webkb", "WebKB", _same(["cornell", "texas", "wisconsin"]), "stored"),
    **_named(
        "heterophilous",
        "HeterophilousGraphDataset",
        {n: (f"{n}/", n.capitalize()) for n in ("minesweeper", "tolokers")},
        "stored",
    ),
    **_named("facebook100", "LINKXDataset", _same(list(_COLLEGES)), "linkx"),
    **_named("facebook100", "LINKXDataset", _same(["penn94"]), "stored"),
    **_named("github", "GitHub", {"github": ("", "")}, "forwardgnn"),
    **_named("flickr", "Flickr", {"flickr": ("", "")}, "stored"),
    **_named("reddit", "Reddit", {"reddit": ("", "")}, "stored"),
    **_named("wikipedia", "npz", {n: (f"npz/{n}.npz", n) for n in _WIKIPEDIA}, "stored"),
}


def find_graph(name: str) -> GraphSource:
    """Return the source of a graph.

    Raises:
        UserError: there is no graph of that name.
    """
    if name not in GRAPHS:
        raise UserError(unknown_name_error("sixfold.graphs", "graph", name, GRAPHS))
    return GRAPHS[name]


def dataset(source: GraphSource) -> Dataset:
    """Return the files of one graph."""
    home, licence, citation = SETS[source.set]
    table = (files("sixfold.graphs.data") / "checksums.csv").read_text(encoding="utf-8")
    found = tuple(
        File(row["path"], row["sha256"], int(row["bytes"]), _url(source.set, row["path"]))
        for row in csv.DictReader(table.splitlines())
        if row["set"] == source.set and row["path"].startswith(source.prefix)
    )
    return Dataset(source.set, home, licence, citation, found)


def _url(set_: str, path: str) -> str | None:
    """Return the download URL of a file; None if the file exists in mirrors only."""
    folder, _, name = path.rpartition("/")
    if set_ in ("planetoid", "actor", "webkb") and "_split_" in name:
        return f"{_GEOM_GCN}splits/{name}"
    match set_:
        case "planetoid":
            return f"{_PLANETOID}data/{name}"
        case "actor":
            return f"{_GEOM_GCN}new_data/film/{name}"
        case "webkb":
            return f"{_GEOM_GCN}new_data/{folder.partition('/')[0]}/{name}"
        case "heterophilous" | "wikipedia":
            return f"{_YANDEX}data/{name}"
        case "facebook100":
            return f"{_LINKX}data/facebook100/{_COLLEGES[folder.partition('/')[0]]}.mat"
    return None
