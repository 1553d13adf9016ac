"""The published data sets: their homes, licences, and the checksum of every file."""

from sixfold.core.data.fetch import Dataset, File

_NEURALOP = (
    "https://raw.githubusercontent.com/neuraloperator/neuraloperator/"
    "93d3f0633e048c915004cd782cb339acf06e1157/neuralop/data/datasets/data/"
)
# file: size, SHA-256
_DARCY = {
    "darcy_train_16.pt": (
        1_280_999,
        "0be662acdb1dab7dfd1a1da0b140e97f75cc94f98a14edcf768abe6968b3b418",
    ),
    "darcy_test_16.pt": (
        64_999,
        "d2b19af9d4a6ae04ba2de54b8ecccc8b89766472faf6ce7f506c0b2a60f69a4c",
    ),
    "darcy_test_32.pt": (
        256_999,
        "bcbd10622373e94df84a17fcdb72ac4317d76e024c2499d21fd1fd34d0742cfd",
    ),
}

DATASETS = {
    "neuralop_small": Dataset(
        "neuralop_small",
        "https://github.com/neuraloperator/neuraloperator",
        "MIT",
        "Li et al.: Fourier neural operator for parametric PDEs, ICLR 2021 (Darcy flow); Kossaifi "
        "et al.: A library for learning neural operators, 2024",
        tuple(File(name, sha, size, _NEURALOP + name) for name, (size, sha) in _DARCY.items()),
    )
}
