"""Train FinalMLP with its embedding table split over processes by TorchRec.

    torchrun --nproc-per-node 2 sharded_finalmlp.py schema.yaml train.parquet runs/sharded

Each process holds a part of the table's rows, and its own share of every batch. Rows take steps of
row-wise Adagrad inside the backward pass, which keeps one number a row; the network takes Adam's.
What is written is an ordinary run folder: `FinalMLP.from_pretrained("runs/sharded")` loads it.
There is no batch norm, whose statistics each process would have of its own rows.
"""

# pyright: reportMissingImports=false
# because TorchRec is an extra

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from sixfold.core import UserError
from sixfold.recsys import Encoder, FinalMLP, FinalMLPConfig
from sixfold.recsys.layers.embedding import FieldEmbedding
from sixfold.recsys.layers.mlp import MLPConfig
from sixfold.recsys.losses import binary_cross_entropy
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tables.read import open_source
from sixfold.recsys.tables.schema import as_schema

DIM = 16  # a multiple of four, as TorchRec's lookups want it
EPOCHS, BATCH = 3, 256  # rows of all processes together
TABLE_RATE, NET_RATE = 0.02, 1e-3
STREAM = MLPConfig(hidden=(64,), batch_norm=False)
CPU = torch.device("cpu")


class ShardedEmbedding(nn.Module):
    """Embed a batch of categorical fields from a table that TorchRec splits by rows.

    Args:
        embedding: Embedding of one process, whose first weights the table has.
    """

    first_rows: Tensor

    def __init__(self, embedding: FieldEmbedding) -> None:
        super().__init__()
        self.names = embedding.single
        if len(self.names) < len(embedding.fields):
            others = [f.name for f in embedding.fields if f.name not in self.names]
            raise UserError(
                f"{', '.join(others)}: this example shards categorical fields only; leave the "
                "others out of the schema"
            )
        height, dim = embedding.table.shape
        config = EmbeddingConfig(
            name="table", embedding_dim=dim, num_embeddings=height, feature_names=["rows"]
        )
        self.collection = EmbeddingCollection(tables=[config], device=CPU)
        self.collection.load_state_dict({"embeddings.table.weight": embedding.table.detach()})
        self.register_buffer("first_rows", embedding.first_rows, persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        ids = torch.stack([batch[name] for name in self.names], 1)
        rows = torch.where(ids == 0, 0, ids + self.first_rows)
        lengths = torch.ones(rows.numel(), dtype=torch.int64)
        keyed = KeyedJaggedTensor(["rows"], rows.flatten(), lengths=lengths)
        vectors = self.collection(keyed)["rows"].values().unflatten(0, rows.shape)
        return vectors * (rows != 0)[..., None]  # no gradient for the padding row


def split_rows(model: FinalMLP) -> DistributedModelParallel:
    """Wrap a model: its table split by rows over all processes, its network copied to each."""
    embedding = ShardedEmbedding(model.embedding)
    table = embedding.collection.parameters()
    apply_optimizer_in_backward(RowWiseAdagrad, table, {"lr": TABLE_RATE})
    model.embedding = embedding  # type: ignore[assignment]
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=dist.get_world_size(), compute_device="cpu"),
        constraints={"table": ParameterConstraints(sharding_types=["row_wise"])},
    )
    sharders: list[Any] = [EmbeddingCollectionSharder()]
    plan = planner.collective_plan(model, sharders, dist.GroupMember.WORLD)
    return DistributedModelParallel(model, device=CPU, plan=plan, sharders=sharders)


def batches(rows: EncodedTable, epoch: int) -> Iterator[dict[str, Tensor]]:
    """Yield this process's share of each whole batch of an epoch, the same order in all."""
    rank, count = dist.get_rank(), dist.get_world_size()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(epoch))
    for first in range(0, len(rows) - BATCH + 1, BATCH):
        yield rows.batch(order[first + rank : first + BATCH : count].tolist())


def train(sharded: DistributedModelParallel, rows: EncodedTable, labels: tuple[str, ...]) -> None:
    """Train the network by Adam; the table takes its steps in the backward pass."""
    net = [p for name, p in sharded.named_parameters() if "collection" not in name]
    optimizer = torch.optim.Adam(net, NET_RATE)
    for epoch in range(EPOCHS):
        for batch in batches(rows, epoch):
            optimizer.zero_grad()
            binary_cross_entropy(sharded(batch), batch, labels).backward()
            optimizer.step()


def whole_weights(sharded: DistributedModelParallel) -> dict[str, Tensor]:
    """Return the weights as one process has them, the table put together on the first process."""
    weights = sharded.state_dict()
    parts = weights.pop("embedding.collection.embeddings.table.weight")
    table = torch.zeros(parts.size()) if dist.get_rank() == 0 else None
    parts.gather(dst=0, out=table)
    return weights if table is None else {**weights, "embedding.table": table}


def main() -> None:
    """Train on a table and write weights and encoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("schema")
    parser.add_argument("table")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    dist.init_process_group("gloo")
    schema = as_schema(given.schema)
    encoder = Encoder.fit(schema, open_source(given.table, schema.text))
    rows = EncodedTable.read(given.table, encoder)
    config = FinalMLPConfig(
        fields=encoder.fields,
        labels=schema.labels,
        embedding_dim=DIM,
        mlp1=STREAM,
        mlp2=STREAM,
        heads=4,
    )
    torch.manual_seed(0)
    model = FinalMLP(config)
    sharded = split_rows(model)
    train(sharded, rows, schema.labels)
    weights = whole_weights(sharded)
    if dist.get_rank() == 0:
        whole = FinalMLP(config)
        whole.load_state_dict({**whole.state_dict(), **weights})
        whole.encoder = encoder
        whole.save(given.folder)
        print(f"wrote {given.folder}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
