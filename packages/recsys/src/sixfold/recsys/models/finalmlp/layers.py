"""What FinalMLP adds to two MLPs: gates of each stream, and the bilinear fusion of both."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sixfold.kernels import bilinear_fusion
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.layers.fields import Field
from sixfold.recsys.layers.mlp import MLP

LARGEST_KEY = 2**63


class FeatureGate(nn.Module):
    """Stream-specific feature gating: x times 2 sigmoid(MLP(context)), for every coordinate.

    Without context fields the MLP reads one learned vector, and the gates are the same for every
    sample. With categorical context fields they are computed once for every distinct combination
    of ids in the batch, of which there are often far fewer than samples.

    Args:
        fields: All fields, in the order of x.
        context: Names of the context fields.
        dim: Width of a field's vector.
        hidden: Widths of the hidden layers.
        share: Whether the context is read off x, and not off tables of its own.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        context: Sequence[str],
        dim: int,
        hidden: Sequence[int],
        share: bool,
    ) -> None:
        super().__init__()
        self.places = [place for place, field in enumerate(fields) if field.name in context]
        self.context = [fields[place] for place in self.places]
        self.embedding = self.constant = None
        if not self.context:
            self.constant = nn.Parameter(torch.zeros(1, dim))
        elif not share:
            self.embedding = FieldEmbedding(_private(self.context), dim)
        self.mlp = MLP(dim * max(1, len(self.context)), hidden, len(fields) * dim)
        self.dim = dim

    def forward(
        self, x: Float[Tensor, "batch width"], batch: Batch
    ) -> Float[Tensor, "batch width"]:
        if self.constant is not None:
            return x * self.gates(self.constant)
        if self.embedding is not None and len(self.embedding.numbers) == len(self.context):
            return x * self._gates_of_numbers(batch)
        found = self._distinct(batch)
        if found is None:
            return x * self.gates(self._vectors(x, batch))
        samples, inverse = found
        chosen = {field.name: batch[field.name][samples] for field in self.context}
        gates = self.gates(self._vectors(x, chosen, samples))
        # an embedding's backward pass is faster than that of an index
        return x * nn.functional.embedding(inverse, gates)

    def gates(self, context: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows width"]:
        """Return the factors of x, which are between 0 and 2."""
        return 2 * torch.sigmoid(self.mlp(context))

    def _gates_of_numbers(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """Compute the gates of numeric fields alone.

        A field is its number times a vector, and the first layer multiplies the vector by a matrix:
        that product does not depend on the sample, and goes first.
        """
        assert self.embedding is not None
        first: Any
        first, *others = self.mlp.mlp
        matrices = first.weight.unflatten(1, (-1, self.dim))
        weights = torch.einsum("hfd,fd->hf", matrices, self.embedding.numeric)
        numbers = torch.stack([batch[field.name] for field in self.context], 1)
        hidden = nn.functional.linear(numbers.to(weights.dtype), weights, first.bias)
        for layer in others:
            hidden = layer(hidden)
        return 2 * torch.sigmoid(hidden)

    def _vectors(
        self,
        x: Float[Tensor, "batch width"],
        batch: Batch,
        samples: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, "rows inputs"]:
        if self.embedding is not None:
            return self.embedding(batch).flatten(1)
        own = x.unflatten(1, (-1, self.dim))[:, self.places].flatten(1)
        return own if samples is None else own[samples]

    def _distinct(
        self, batch: Batch
    ) -> tuple[Int[Tensor, " distinct"], Int[Tensor, " batch"]] | None:
        """Return one sample of each combination of ids, and each sample's combination.

        None where the context holds numbers or sequences, and in a graph, whose sizes do not depend
        on values.
        """
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return None
        if any(field.kind != "categorical" for field in self.context):
            return None
        key, combinations = None, 1
        for field in self.context:
            ids, rows = batch[field.name].long(), field.vocab_size or 0
            key = ids if key is None else key * rows + ids
            combinations *= rows
        if key is None or combinations >= LARGEST_KEY:
            return None
        distinct, inverse = torch.unique(key, return_inverse=True)
        numbers = torch.arange(len(key), device=key.device)
        return torch.empty_like(distinct).scatter_(0, inverse, numbers), inverse


class BilinearFusion(nn.Module):
    """Logits of two streams: a linear term of each and, over heads, x_h^T W_h y_h.

    Args:
        x_width: Width of the first stream.
        y_width: Width of the second stream.
        outputs: Number of logits.
        heads: Number of chunks of each stream; None leaves the bilinear forms out.
    """

    def __init__(self, x_width: int, y_width: int, outputs: int, heads: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.x = nn.Linear(x_width, outputs)
        self.y = nn.Linear(y_width, outputs)
        self.xy = None
        if heads is not None:
            self.xy = nn.Parameter(torch.empty(x_width * y_width // heads, outputs))
            nn.init.xavier_normal_(self.xy)

    def forward(
        self, x: Float[Tensor, "batch x_width"], y: Float[Tensor, "batch y_width"]
    ) -> Float[Tensor, "batch outputs"]:
        linear = self.x(x) + self.y(y)
        if self.xy is None or self.heads is None:
            return linear
        return linear + bilinear_fusion(x, y, self.xy, heads=self.heads)


def _private(fields: Sequence[Field]) -> list[Field]:
    """Give fields tables of their own, trained ones."""
    return [field.model_copy(update={"share": None, "frozen": False}) for field in fields]
