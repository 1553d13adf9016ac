"""The two modules of DTRN: interests of each task in each behaviour, and weights of fields.

Symbols: T tasks, S behaviours, B batch, L length, N fields and behaviours, D width of a vector.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.recsys.layers.behaviours import MASKED, attention_weights, folded_query
from sixfold.recsys.layers.dropout import Dropout

Norms = Float[Tensor, "behaviour task 2 dim"]  # scales and shifts
ROWS = 256  # of a batch that are encoded at once
POSITION_STD = 1e-4  # as fresh rows of tables have


class TaskInterests(nn.Module):
    """TIM: a transformer block whose norms are those of a task and a behaviour.

    u = x + MHA(x); g = CLN_1(u); Y = CLN_2(g + FFN(g)); interest = attention of the target to Y.

    A hypernetwork makes scale and shift of both norms from the vectors of task and behaviour. What
    comes before the first of them is the same for all tasks and computed once. The rest is, too,
    but for a scale and a shift: the first norm's go into the weights of the FFN's first layer, one
    product for all tasks; the second norm's go into the query and the pooled vector, since a shift
    moves all scores of a sequence alike and the weights sum to 1.

    Args:
        behaviours: Number of kinds of behaviour.
        tasks: Number of tasks.
        config: Settings of the network.
    """

    def __init__(self, behaviours: int, tasks: int, config: Any) -> None:
        super().__init__()
        dim, self.heads = config.embedding_dim, config.heads
        self.position = nn.Parameter(torch.zeros(config.max_length, dim))  # P
        if config.conditional:
            self.task_embedding = nn.Embedding(tasks, config.task_dim)  # a_t
            self.behaviour_embedding = nn.Embedding(behaviours, config.task_dim)  # b_s
            self.hyper_trunk = nn.Linear(2 * config.task_dim, config.hyper_hidden)
            self.hyper_norm1 = nn.Linear(config.hyper_hidden, 2 * dim)
            self.hyper_norm2 = nn.Linear(config.hyper_hidden, 2 * dim)
        else:
            self.shared_norms = nn.Parameter(torch.zeros(2, 2, dim))  # as the hypernetwork's output
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.ffn1, self.ffn2 = nn.Linear(dim, config.ffn), nn.Linear(config.ffn, dim)
        self.pool_q, self.pool_k = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.conditional, self.count = config.conditional, behaviours
        self.dropout = Dropout(config.dropout)

    def reset_parameters(self) -> None:
        """Let every task start from the plain transformer; call it after `reset_linear`."""
        nn.init.normal_(self.position, std=POSITION_STD)
        if self.conditional:
            for layer in (self.hyper_norm1, self.hyper_norm2):
                nn.init.zeros_(layer.weight)

    def forward(
        self,
        vectors: Float[Tensor, "behaviour batch length dim"],
        there: Bool[Tensor, "behaviour batch length"],
        targets: Float[Tensor, "behaviour batch dim"],
    ) -> Float[Tensor, "task batch behaviour dim"]:
        """Return the interests; of an empty sequence exactly zero.

        Args:
            vectors: Vectors of the sequences' items, zero for padding.
            there: Whether an item is no padding.
            targets: Vectors of the target of each behaviour.
        """
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return self.of_rows(vectors, there, targets)
        # a few rows at a time: their intermediate tensors are found in cache
        parts = zip(*(x.split(ROWS, 1) for x in (vectors, there, targets)), strict=True)
        return torch.cat([self.of_rows(*part) for part in parts], 1)

    def of_rows(
        self,
        vectors: Float[Tensor, "behaviour batch length dim"],
        there: Bool[Tensor, "behaviour batch length"],
        targets: Float[Tensor, "behaviour batch dim"],
    ) -> Float[Tensor, "task batch behaviour dim"]:
        """Compute interests, of all rows at once; see `forward`."""
        first, second = self.norms()
        x = vectors + self.position[: vectors.shape[2]]
        u = _normalised(x + self.dropout(self.attention(x, there)))
        # before the second norm's scale and shift
        y = self.feed_forward(u, first).transpose(2, 3).contiguous()
        query = folded_query(self.pool_q, self.pool_k, targets)
        scaled = query[:, :, None] * second[:, None, :, 0]
        scores = (y @ scaled[..., None])[..., 0]
        weights = attention_weights(scores, there[:, :, None])
        pooled = (weights[..., None, :] @ y)[..., 0, :]
        interests = torch.addcmul(second[:, None, :, 1], pooled, second[:, None, :, 0])
        some = there.any(2)[:, :, None, None]
        return (interests * some).permute(2, 1, 0, 3)

    def norms(self) -> tuple[Norms, Norms]:
        """Return scale and shift of both norms; with one task if they are shared."""
        if not self.conditional:
            found = self.shared_norms[:, None, None].expand(-1, self.count, -1, -1, -1)
        else:
            tasks, behaviours = self.task_embedding.weight, self.behaviour_embedding.weight
            pairs = torch.cat(
                [
                    tasks.expand(len(behaviours), -1, -1),
                    behaviours[:, None].expand(-1, len(tasks), -1),
                ],
                2,
            )
            z = self.hyper_trunk(pairs).relu()
            found = [n(z).unflatten(2, (2, -1)) for n in (self.hyper_norm1, self.hyper_norm2)]
        first, second = (torch.stack([1 + n[:, :, 0], n[:, :, 1]], 2) for n in found)
        return first, second

    def attention(
        self,
        x: Float[Tensor, "behaviour batch length dim"],
        there: Bool[Tensor, "behaviour batch length"],
    ) -> Float[Tensor, "behaviour batch length dim"]:
        """Attend within each sequence, with several heads."""
        layers = self.q, self.k, self.v
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        together = functional.linear(x, weight, bias).flatten(0, 1)
        q, k, v = together.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # in short sequences products are faster than torch's blocks of attention
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)
        scores = scores.masked_fill(~there.flatten(0, 1)[:, None, None], MASKED)
        found = scores.softmax(-1) @ v
        return self.o(found.transpose(1, 2).flatten(2)).view_as(x)

    def feed_forward(
        self, u: Float[Tensor, "behaviour batch length dim"], norms: Norms
    ) -> Float[Tensor, "behaviour batch length task dim"]:
        """Return g + FFN(g), normalised, of every task, with g the scaled and shifted u."""
        scale, shift = norms.unbind(2)
        folded = (self.ffn1.weight * scale[:, :, None]).flatten(1, 2).transpose(1, 2)
        bias = functional.linear(shift, self.ffn1.weight, self.ffn1.bias).flatten(1)
        rows = u.flatten(1, 2)
        hidden = torch.baddbmm(bias[:, None], rows, folded).relu_()
        found = self.dropout(self.ffn2(hidden.unflatten(2, (scale.shape[1], -1))))
        g = torch.addcmul(shift[:, None], rows[:, :, None], scale[:, None])
        return _normalised(g + found).unflatten(1, u.shape[1:3])


class FieldRefinement(nn.Module):
    """TRM: a weight for each field and interest, 2 sigmoid(W_b ReLU(W_a x_t)), of each task.

    Args:
        tasks: Number of tasks.
        fields: Number of fields and interests.
        dim: Width of a vector.
        reduction: Divisor of the input's width that gives the hidden layer's.
    """

    def __init__(self, tasks: int, fields: int, dim: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, fields * dim // reduction)
        self.refine1 = nn.ModuleList(nn.Linear(fields * dim, hidden) for _ in range(tasks))
        self.refine2 = nn.ModuleList(nn.Linear(hidden, fields) for _ in range(tasks))

    def forward(
        self, x: Float[Tensor, "task batch field dim"]
    ) -> Float[Tensor, "task batch field"]:
        hidden = _per_task(self.refine1, x.flatten(2)).relu()
        return 2 * torch.sigmoid(_per_task(self.refine2, hidden))


def _per_task(
    layers: nn.ModuleList, x: Float[Tensor, "task batch inputs"]
) -> Float[Tensor, "task batch outputs"]:
    """Apply each task's linear layer to its own rows, in one product."""
    weight = torch.stack([layer.weight for layer in layers])  # type: ignore[misc]
    bias = torch.stack([layer.bias for layer in layers])  # type: ignore[misc]
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


def _normalised(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    return functional.layer_norm(x, x.shape[-1:])
