"""GNNPipe from a shell: ``torchrun --nproc-per-node 2 -m sixfold.graphs.gnnpipe my.pt``."""

from sixfold.graphs.models.gnnpipe.__main__ import main

if __name__ == "__main__":
    main()
