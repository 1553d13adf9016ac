"""A ranking model of a few weights, which is quick to train."""

from collections.abc import Mapping

from torch import Tensor, nn

from sixfold.core import Config, System
from sixfold.recsys.layers.embedding import FieldEmbedding
from sixfold.recsys.layers.fields import Field
from sixfold.recsys.models.ranker import Ranker


class TinyConfig(Config):
    fields: tuple[Field, ...] = (Field(name="x", vocab_size=3),)
    labels: tuple[str, ...] = ("label",)
    embedding_dim: int = 8
    dropout: float = 0.1


class TinyRanker(Ranker):
    """Map a batch of encoded fields to logits (batch, task) by one hidden layer."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        width = len(config.fields) * config.embedding_dim
        self.embedding = FieldEmbedding(config.fields, config.embedding_dim)
        nn.init.normal_(self.embedding.table, std=0.3)  # learns from the first epoch on
        self.hidden = nn.Linear(width, 16)
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(16, len(config.labels))

    @classmethod
    def system(cls) -> System:
        return SYSTEM

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        x = self.embedding(batch).flatten(1)
        return self.last(self.dropout(self.hidden(x).relu()))


SYSTEM = System(
    "tiny", "arXiv:0000.00000", TinyConfig, TinyRanker, lambda state: (TinyConfig(), {})
)
