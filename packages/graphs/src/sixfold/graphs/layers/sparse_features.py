"""Products with sparse features, such as bags of words."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sixfold.kernels.graph import Csr
from sixfold.kernels.spmm_sum import weighted_sum

MAX_DENSITY = 0.1  # share of non-zero entries below which sparse products are faster


@dataclass(frozen=True, eq=False)
class SparseFeatures:
    """A fixed sparse matrix, sorted by row for products and by column for their gradients.

    Args:
        by_row: Positions of the non-zero entries.
        by_column: Their positions in the transposed matrix.
        values: Non-zero entries in the order of ``by_row``.
        transposed: Non-zero entries in the order of ``by_column``.
    """

    by_row: Csr
    by_column: Csr
    values: Float[Tensor, " entry"]
    transposed: Float[Tensor, " entry"]

    @classmethod
    def from_dense(
        cls, x: Float[Tensor, "node feature"], scale: Float[Tensor, "node 1"] | None
    ) -> "SparseFeatures":
        """Collect the non-zero entries, with their rows multiplied by ``scale``."""
        row, column = x.nonzero().unbind(1)
        values = x[row, column] if scale is None else x[row, column] * scale[row, 0]
        order = column.argsort(stable=True)
        return cls(
            by_row=Csr.from_sorted(row, column, x.shape[0]),
            by_column=Csr.from_sorted(column[order], row[order], x.shape[1]),
            values=values,
            transposed=values[order],
        )

    def times(self, right: Float[Tensor, "feature out"]) -> Float[Tensor, "node out"]:
        """Multiply by a dense matrix."""
        return weighted_sum(self.by_row, right, self.values)

    def transposed_times(self, right: Float[Tensor, "node out"]) -> Float[Tensor, "feature out"]:
        """Multiply the transposed matrix by a dense one."""
        return weighted_sum(self.by_column, right, self.transposed)


def is_sparse(x: Float[Tensor, "node feature"]) -> bool:
    """Return whether x is sparse enough (< 10 % non-zero) for sparse products to be faster."""
    return 0 < int(x.count_nonzero()) < MAX_DENSITY * x.numel()
