"""Fit GNNPipe twice under torchrun, without joining the processes: fit does that.

    torchrun --nproc-per-node 2 torchrun_gnnpipe.py FOLDER

The logits and the bytes sent are written to <folder>/<rank>.pt.
"""

import os
import sys
from pathlib import Path

import torch

from sixfold.graphs.data.synthetic import block_model
from sixfold.graphs.models.gnnpipe import GNNPipe


def fits() -> list[tuple[torch.Tensor, dict[str, int]]]:
    data, found = block_model(nodes=60, classes=3, features=8, seed=1), []
    for architecture in ("gcn", "gcnii"):
        torch.manual_seed(0)
        model = GNNPipe(architecture=architecture, layers=3, hidden=8, chunks=3, epochs=3)
        model.fit(data)
        found.append((model(data), model.bytes_sent))
    return found


if __name__ == "__main__":
    torch.save(fits(), Path(sys.argv[1]) / f"{os.environ['RANK']}.pt")
