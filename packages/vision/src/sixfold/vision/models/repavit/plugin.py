"""RePaViT for models of timm: convert their blocks, merge them, and new names in timm's registry.

Nothing is registered, and nothing of timm changed, before `register` is called.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import nn

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.vision.models.repavit.blocks import FORMS, Form, why_not
from sixfold.vision.models.repavit.layers import (
    ChannelIdleMlp,
    ChannelNorm,
    MergedMlp,
    check_active,
    merge_mlp,
)

Heuristic = Literal["static", "linear"]
FeatureNorm = Literal["BatchNorm", "LayerNorm"]
Model = TypeVar("Model", bound=nn.Module)


def convert(
    model: Model,
    idle_ratio: float = 0.75,
    heuristic: Heuristic = "static",
    feature_norm: FeatureNorm = "BatchNorm",
    active: Sequence[int] | None = None,
) -> Model:
    """Give the blocks of a model idle channels, in place; all weights are kept.

    The LayerNorm before each feed-forward block becomes a BatchNorm with its scale and offset, and
    another BatchNorm comes before the second layer. Their statistics are those of no data yet:
    train, or see `sixfold.vision.models.repavit.set_statistics`. They are those of one process:
    torch's ``convert_sync_batchnorm`` cannot replace them.

    Args:
        model: Model of timm: ViT, DeiT, BEiT, Swin, PoolFormer, MLP-Mixer ...
        idle_ratio: Share of the hidden channels without activation, 0 to 1.
        heuristic: Share from block to block: the same, or growing to the last but one, see
            `idle_ratios`.
        feature_norm: Kind of norm; with LayerNorm, the paper's ablation, no merge is possible.
        active: Numbers of active channels, block by block; None follows the idle ratio.

    Returns:
        The model, so that ``convert(timm.create_model(...))`` reads well. A block that has to stay
        as it is is named in a warning, with the reason.

    Raises:
        UserError: nothing can be converted, the model is converted already, or a number is out of
            range.
    """
    if feature_norm not in get_args(FeatureNorm):
        raise UserError(unknown_name_error("convert", "norm", feature_norm, get_args(FeatureNorm)))
    blocks = _convertible(model)
    counts = _active_channels(blocks, idle_ratio, heuristic) if active is None else active
    if len(counts) != len(blocks):
        raise UserError(f"active has {len(counts)} numbers for {len(blocks)} blocks")
    for (block, form), count in zip(blocks, counts, strict=True):  # before the first is changed
        check_active(count, getattr(block, form.mlp).fc1.weight.shape[0])
    for (block, form), count in zip(blocks, counts, strict=True):
        _convert_block(block, form, count, feature_norm == "BatchNorm")
    return model


def merge(model: Model, quirks: bool = False) -> Model:
    """Return a copy whose converted branches are merged, shortcut, norms and layer scale included.

    Args:
        model: Converted model in eval mode; it stays as it is.
        quirks: Whether the layer scale leaves out the bias, as the published PoolFormer forgot it.
            Only for comparison with it: the result is another function.

    Raises:
        UserError: the model is in training mode, is merged already, has LayerNorms or nothing that
            is converted.
    """
    if model.training:
        raise UserError("merging uses the running statistics: call model.eval() before merge")
    merged = copy.deepcopy(model)
    for block, form in list(_converted(merged)):
        norm, mlp = block.norm2, getattr(block, form.mlp)
        if not isinstance(norm, ChannelNorm):
            raise UserError(
                "a model with LayerNorm cannot be merged: it depends on each token; train it with "
                "feature_norm='BatchNorm'"
            )
        _put_merged(block, form, merge_mlp(mlp, norm, form.scale(block), not quirks))
    return merged


def merged_structure(model: Model) -> Model:
    """Turn a converted model into the structure of its merged form, in place, with new weights.

    It is what a merged checkpoint is loaded into, and what the paper's Table 5 trains directly.
    """
    for block, form in list(_converted(model)):
        mlp = getattr(block, form.mlp)
        _put_merged(block, form, MergedMlp(mlp.width, mlp.active, mlp.axis))
    return model


def set_idle_ratio(model: nn.Module, idle_ratio: float, heuristic: Heuristic = "static") -> None:
    """Change how many hidden channels of a converted model are idle.

    A trained model loses little if the ratio grows step by step from 0 while it is trained on.

    Raises:
        UserError: the ratio is out of range, or the model is not converted, or merged.
    """
    blocks = list(_converted(model))
    for (block, form), count in zip(
        blocks, _active_channels(blocks, idle_ratio, heuristic), strict=True
    ):
        getattr(block, form.mlp).set_active(count)


def idle_ratios(idle_ratio: float, heuristic: Heuristic, blocks: int) -> list[float]:
    """Return the idle ratio of each block.

    ``static`` gives all the same. ``linear`` grows by (2 - 2 ratio) / (blocks - 1) a block, to 1 in
    the last but one; the last has no idle channel. Below 0.5 the first come out negative, which
    is no idle channel either.

    Raises:
        UserError: the ratio is not between 0 and 1.
    """
    if heuristic not in get_args(Heuristic):
        raise UserError(unknown_name_error("RePaViT", "heuristic", heuristic, get_args(Heuristic)))
    if not (isinstance(idle_ratio, int | float) and 0 <= idle_ratio <= 1):
        raise UserError(f"idle_ratio is a share of the hidden channels, 0 to 1; got {idle_ratio!r}")
    if heuristic == "static" or blocks == 1:
        return [idle_ratio] * blocks
    step = (2 - 2 * idle_ratio) / (blocks - 1)
    return [(2 * idle_ratio - 1) + step * (i + 1) for i in range(blocks - 1)] + [0.0]


def active_channels(model: nn.Module) -> list[int]:
    """Return the numbers of active channels of a converted or merged model, block by block."""
    mlps = [module for module in model.modules() if isinstance(module, ChannelIdleMlp | MergedMlp)]
    return [mlp.active for mlp in mlps]


def is_merged(model: nn.Module) -> bool:
    """Return whether a model has merged blocks."""
    return any(isinstance(module, MergedMlp) for module in model.modules())


def _active_channels(
    blocks: list[tuple[Any, Form]], idle_ratio: float, heuristic: Heuristic
) -> list[int]:
    counts = []
    ratios = idle_ratios(idle_ratio, heuristic, len(blocks))
    for (block, form), ratio in zip(blocks, ratios, strict=True):
        hidden = getattr(block, form.mlp).fc1.weight.shape[0]
        counts.append(min(hidden, form.rounding(hidden * (1 - ratio))))
    return counts


def _convertible(model: nn.Module) -> list[tuple[Any, Form]]:
    """Return the blocks that can be converted; warn of those that cannot.

    Raises:
        UserError: there is none.
    """
    done = active_channels(model)
    if done:
        raise UserError(f"the model is converted already: {len(done)} blocks have idle channels")
    blocks, others = [], []
    for name, block in model.named_modules():
        if (reason := why_not(block)) is not None:
            others.append(f"{name} ({type(block).__name__}): {reason}")
        elif type(block) in FORMS:
            blocks.append((block, FORMS[type(block)]))
    more = f" (and {len(others) - 3} more)" if len(others) > 3 else ""
    named = "; ".join(others[:3]) + more
    if not blocks:
        known = ", ".join(sorted({f"{c.__module__.split('.')[-1]}.{c.__name__}" for c in FORMS}))
        raise UserError(
            f"{type(model).__name__} has no block to convert: {named or f'known are {known}'}"
        )
    if others:
        warnings.warn(f"not converted: {named}", stacklevel=3)
    return blocks


def _converted(model: nn.Module) -> Iterator[tuple[Any, Form]]:
    """Yield the converted blocks.

    Raises:
        UserError: there is none, or they are merged.
    """
    if is_merged(model):
        raise UserError("the model is merged already; keep the training form to go on from")
    blocks: list[Any] = [block for block in model.modules() if type(block) in FORMS]
    found = [(block, FORMS[type(block)]) for block in blocks]
    found = [(b, form) for b, form in found if isinstance(getattr(b, form.mlp), ChannelIdleMlp)]
    if not found:
        raise UserError("the model has no block with idle channels; call convert(model) first")
    yield from found


def _convert_block(block: Any, form: Form, active: int, batch_norm: bool) -> None:
    mlp = ChannelIdleMlp(getattr(block, form.mlp), active, batch_norm)
    mlp.set_active(active)
    old, weight = block.norm2, mlp.fc1.weight
    if batch_norm:
        norm = ChannelNorm(mlp.width, mlp.axis, former=old).to(weight.device, weight.dtype)
        with torch.no_grad():
            for name, value in old.named_parameters(recurse=False):
                getattr(norm, name).copy_(value)
        block.norm2 = norm.train(block.training)
    setattr(block, form.mlp, mlp.to(weight.device, weight.dtype).train(block.training))


def _put_merged(block: Any, form: Form, mlp: MergedMlp) -> None:
    """Put a merged branch in the place of the old one, with the block's forward pass for it."""
    setattr(block, form.mlp, mlp)
    for name in ("norm2", *form.behind):
        delattr(block, name)
    block.__class__ = form.merged  # the same block; only the order of its parts is another
