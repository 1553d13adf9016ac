"""Adam as ranking models are trained: whole tables regularised, the total gradient clipped.

The published trainings add a regulariser of every table to the loss, clip the gradient of the sum
by its norm and take a step of Adam. Through autograd that is some twenty passes over all tables a
step. Here the regulariser's gradient is added inside of Adam's one pass, and the norm is bounded
first: only where the bound is above the limit it is computed.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam

from sixfold.core import UserError
from sixfold.core.training.distributed import world_size
from sixfold.recsys.layers.embedding import FieldEmbedding

CHUNK = 1 << 16  # numbers, which stay in cache between two operations
TINY = 1e-6  # added to the norm by torch's clipping


class Regularizer(NamedTuple):
    """Weights of sum |w| and of half the sum of w^2."""

    l1: float = 0.0
    l2: float = 0.0


class RankingAdam(Adam):
    """Adam on the gradient of loss plus regularisers, clipped by its total norm.

    Sparse gradients (of `FieldEmbedding.sparse`) are the same with fewer passes over memory, unless
    steps are lazy: then rows that were looked up move, and the others rest. When a row is next
    looked up its moments are as if it had had gradients of zero in between, which is exact; what
    dense Adam would have moved its weights by in those steps is left out, and it is regularised
    only in steps that look it up. The norm that is clipped is then that of those rows.

    Args:
        groups: Parameters in groups, with ``l1`` and ``l2`` of each; see `regularized_groups`.
        lr: Learning rate.
        betas: Decays of the moments.
        eps: Constant added to the root of the second moment.
        clip: Largest 2-norm of the total gradient.
        lazy: Whether parameters with sparse gradients take lazy steps.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        clip: float = 10.0,
        lazy: bool = False,
    ) -> None:
        super().__init__(list(groups), lr, betas, eps, fused=True)
        self.clip, self.lazy = clip, lazy
        self._buffers: dict[Tensor, Tensor] = {}  # dense gradients, zero between steps

    def penalty(self) -> float:
        """Return what the regularisers add to the loss, over whole tables."""
        total = 0.0
        for group in self.param_groups:
            for p in group["params"]:
                norms = [torch.linalg.vector_norm(p.detach(), order).item() for order in (1, 2)]
                total += group["l1"] * norms[0] + group["l2"] / 2 * norms[1] ** 2
        return total

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Take one step with the gradients of the loss, which are used up."""
        assert closure is None, "the loss is computed by the caller"
        touched = [] if self.lazy else self._fill_buffers()
        rows, dense = self._gradients()
        scale = self._scale(dense, rows)
        for one in rows:
            one.parameter.grad = None  # which Adam itself would refuse
            self._step_rows(one, scale)
        if scale < 1:
            torch._foreach_mul_([one.gradient for one in dense], scale)  # type: ignore[attr-defined]
        for one in dense:
            if one.group["l1"]:
                one.gradient.add_(one.parameter.sign(), alpha=one.group["l1"] * scale)
        for group in self.param_groups:
            group["weight_decay"] = group["l2"] * scale  # which Adam adds to the gradient
        super().step()
        for p, index, group in touched:
            p.grad = None
            buffer = self._buffers[p]
            # the sign of every weight was added to it if there is an l1
            buffer.zero_() if group["l1"] else buffer.index_fill_(0, index, 0)

    def _fill_buffers(self) -> list[tuple[Tensor, Tensor, dict[str, Any]]]:
        """Make sparse gradients dense ones; return the rows that were filled.

        In memory that is kept, since a new array of a table's size costs more than to fill it.
        """
        touched = []
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None or not p.grad.is_sparse:
                    continue
                if p not in self._buffers:
                    self._buffers[p] = torch.zeros_like(p)
                index, values = p.grad._indices()[0], p.grad._values()
                p.grad = self._buffers[p].index_add_(0, index, values)
                touched.append((p, index, group))
        return touched

    def _gradients(self) -> tuple[list["_Rows"], list["_Dense"]]:
        """Split the parameters by their gradients; what is regularised has one in every step."""
        rows, dense = [], []
        for group in self.param_groups:
            for p in group["params"]:
                regularized = p.numel() and (group["l1"] or group["l2"])
                if p.grad is None and regularized and not self.lazy:
                    p.grad = torch.zeros_like(p)
                if p.grad is not None:
                    rows += [_Rows(p, group)] if p.grad.is_sparse else []
                    dense += [] if p.grad.is_sparse else [_Dense(p, p.grad, group)]
        return rows, dense

    def _scale(self, dense: Sequence["_Dense"], rows: Sequence["_Rows"]) -> float:
        """Return the factor that clips the total gradient."""
        parts = [one.gradient.norm() for one in rows]
        bounds = [*parts, *(one.bound() for one in dense)]
        if not bounds or torch.stack(bounds).norm() <= self.clip:
            return 1.0
        exact = [*parts, *(one.total_norm() for one in dense)]
        return min(1.0, self.clip / (float(torch.stack(exact).norm()) + TINY))

    def _step_rows(self, rows: "_Rows", scale: float) -> None:
        p, index, group = rows.parameter, rows.index, rows.group
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            # in the dtype of the weights, which load_state_dict would give it anyway
            state["last_step"] = torch.zeros(len(p), dtype=p.dtype, device=p.device)
        state["step"] += 1
        step = state["step"].item()
        since = (step - state["last_step"][index])[:, None]
        state["last_step"][index] = step
        gradient = rows.gradient.mul_(scale)
        moments = []
        for name, beta, value in zip(
            ("exp_avg", "exp_avg_sq"), group["betas"], (gradient, gradient.square()), strict=True
        ):
            moment = state[name][index].mul_(beta**since).add_(value, alpha=1 - beta)
            state[name].index_copy_(0, index, moment)
            moments.append(moment.div_(1 - beta**step))
        root = moments[1].sqrt_().add_(group["eps"])
        p.index_copy_(0, index, rows.weights.addcdiv_(moments[0], root, value=-group["lr"]))


class _Dense(NamedTuple):
    """A parameter and its gradient of the loss, without that of its regulariser."""

    parameter: Tensor
    gradient: Tensor
    group: dict[str, Any]

    def bound(self) -> Tensor:
        """Return a bound of the total gradient's norm, from the norms of its parts."""
        bound = self.gradient.norm()
        if self.group["l2"]:
            bound = bound + self.group["l2"] * self.parameter.norm()
        return bound + self.group["l1"] * self.parameter.numel() ** 0.5

    def total_norm(self) -> Tensor:
        """Return the norm of the gradient of loss plus regulariser."""
        l1, l2 = self.group["l1"], self.group["l2"]
        if not l1 and not l2:
            return self.gradient.norm()
        norms = []
        chunks = (value.reshape(-1).split(CHUNK) for value in (self.gradient, self.parameter))
        for gradient, weights in zip(*chunks, strict=True):
            total = torch.add(gradient, weights, alpha=l2)
            norms.append((total.add_(weights.sign(), alpha=l1) if l1 else total).norm())
        return torch.stack(norms).norm()


class _Rows:
    """The rows of a table that a sparse gradient touches, with their total gradient."""

    def __init__(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        self.parameter, self.group = parameter, group
        indices, values = parameter.grad._indices()[0], parameter.grad._values()
        self.index, inverse = torch.unique(indices, return_inverse=True)
        self.weights = parameter[self.index]
        self.gradient = torch.zeros_like(self.weights).index_add_(0, inverse, values)
        if group["l2"]:
            self.gradient.add_(self.weights, alpha=group["l2"])
        if group["l1"]:
            self.gradient.add_(self.weights.sign(), alpha=group["l1"])


def regularized_groups(
    model: nn.Module, embedding: Any = None, net: Any = None
) -> list[dict[str, Any]]:
    """Return the trained parameters in two groups: embeddings of fields, and all others.

    Args:
        model: Model.
        embedding: Regulariser of the embeddings, numeric fields' vectors included: see
            `regularizer`.
        net: Regulariser of the other parameters, biases and norms included.
    """
    tables = [m for m in model.modules() if isinstance(m, FieldEmbedding)]
    own = {id(p) for table in tables for p in table.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    parts = (
        ([p for p in trained if id(p) in own], regularizer(embedding)),
        ([p for p in trained if id(p) not in own], regularizer(net)),
    )
    return [{"params": params, **rule._asdict()} for params, rule in parts if params]


def ranking_adam(
    *, embedding: Any = None, net: Any = None, lazy: bool = False
) -> Callable[[nn.Module, Any], RankingAdam]:
    """Return what `sixfold.core.training.fit.fit` takes as ``optimizer``.

    Args:
        embedding: Regulariser of the embeddings; see `regularizer`.
        net: Regulariser of the other parameters.
        lazy: Whether a step moves only those rows of tables that its batch looked up.

    Raises:
        UserError: a regulariser is none; when it is called, that steps are lazy in several
            processes.
    """
    for value in (embedding, net):
        regularizer(value)  # a misspelt one is an error here

    def make(model: nn.Module, config: Any) -> RankingAdam:
        alone = world_size() == 1
        if lazy and not alone:
            raise UserError(
                f"lazy steps are for one process, not for {world_size()}: DistributedDataParallel "
                "keeps gradients of whole tables; leave lazy out, or shard the tables"
            )
        for module in model.modules():
            if isinstance(module, FieldEmbedding):
                module.sparse = alone
        groups = regularized_groups(model, embedding, net)
        return RankingAdam(groups, config.learning_rate, config.betas, lazy=lazy)

    return make


_FORMS = re.compile(r"(l1|l2|l1_l2)\(([^,()]+)(?:,([^,()]+))?\)")


def regularizer(value: float | int | str | None) -> Regularizer:
    """Read a regulariser: a number or ``l2(x)`` for half of x times sum w^2, ``l1(x)``, or both.

    Raises:
        UserError: it is none of ``0.1``, ``"l1(x)"``, ``"l2(x)"``, ``"l1_l2(x,y)"``.
    """
    match = _FORMS.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    try:
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            found = Regularizer(l2=float(value or 0))
        elif match is None or (match[1] == "l1_l2") != (match[3] is not None):
            raise ValueError
        elif match[1] == "l1_l2":
            found = Regularizer(float(match[2]), float(match[3]))
        else:
            found = Regularizer(**{match[1]: float(match[2])})
    except ValueError:
        found = Regularizer(-1)
    most = torch.finfo(torch.float32).max
    if not (0 <= found.l1 <= most and 0 <= found.l2 <= most):
        raise UserError(
            f"a regulariser is a number, 'l1(x)', 'l2(x)' or 'l1_l2(x,y)', from 0 to {most:.0e}; "
            f"got {value!r}"
        )
    return found
