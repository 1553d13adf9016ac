"""Turn the convolutions of any CNN into frequency dynamic ones, which begin as they are."""

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from sixfold.core import UserError
from sixfold.vision.models.fdconv.layers import FDConv2d, FDLinear, is_dynamic
from sixfold.vision.models.fdconv.options import FDConvOptions

Filter = Callable[[str, nn.Module], bool]

# Parts that the paper leaves plain: shortcuts, and what comes after the backbone.
EXACT = FDConvOptions().att_multi  # at which the attentions begin at one
PLAIN = {"downsample", "shortcut", "classifier", "aux_classifier", "head", "fc"}
PLAIN |= {"fpn", "neck", "rpn", "rpn_head", "roi_head", "roi_heads"}
FEED_FORWARD = {"mlp", "ffn"}


def default_filter(name: str, module: nn.Module) -> bool:
    """Return whether a layer is among those that the paper makes dynamic.

    These are the convolutions of the backbone without groups, but for shortcuts, and the linear
    layers of its feed-forward networks.
    """
    parts = set(name.split("."))
    if parts & PLAIN:
        return False
    if isinstance(module, nn.Conv2d):
        return module.groups == 1
    return bool(parts & FEED_FORWARD)


def convert(
    model: nn.Module, kernel_num: int | None = 64, filter: Filter = default_filter, **options: Any
) -> nn.Module:
    """Return a copy of a model whose convolutions are frequency dynamic.

    The copy computes what the model does until it is trained. Its weights are the model's, and
    frozen ones stay frozen; the new parameters (KSM and FBM) are trained.

    Args:
        model: Any network of `torch.nn.Conv2d` and `torch.nn.Linear`.
        kernel_num: Number of frequency groups.
        filter: Function of the name and the module that chooses layers; of the chosen ones those
            become dynamic whose kernel and channels `FDConvOptions` allow.
        options: Other settings of `FDConvOptions`.

    Raises:
        UserError: the model is converted already, nothing is to convert, or an option is wrong.
    """
    names = convertible(model, kernel_num, filter, **options)
    if options.get("att_multi", EXACT) != EXACT:
        raise UserError(
            f"with att_multi={options['att_multi']} the copy would not compute what the model "
            f"does; leave it at {EXACT}"
        )
    if not names:
        raise UserError(
            f"{type(model).__name__} has nothing to convert: no chosen layer has more than "
            "use_fdconv_if_c_gt channels and a kernel of use_fdconv_if_k_in; choose with filter="
        )
    return convert_layers(copy.deepcopy(model), names, kernel_num, **options)


def convertible(
    model: nn.Module, kernel_num: int | None = 64, filter: Filter = default_filter, **options: Any
) -> list[str]:
    """Return the names of the layers that `convert` makes dynamic."""
    settings = FDConvOptions.parse({**options, "kernel_num": kernel_num}, "convert")
    names = []
    for name, module in model.named_modules():
        if isinstance(module, FDConv2d):
            raise UserError(f"{type(model).__name__} is converted already: {name} is dynamic")
        if type(module) is nn.Conv2d:
            sizes = (module.in_channels, module.out_channels, module.kernel_size)
            fits = module.padding_mode == "zeros"
        elif type(module) is nn.Linear:
            sizes, fits = (module.in_features, module.out_features, (1, 1)), True
        else:
            continue
        if fits and is_dynamic(*sizes, settings) and filter(name, module):
            names.append(name)
    return names


def convert_layers(
    model: nn.Module, names: list[str], kernel_num: int | None = 64, **options: Any
) -> nn.Module:
    """Make the named layers of a model dynamic, in place, and return the model.

    Raises:
        UserError: a name is no layer of the model, or no layer that can be converted.
    """
    known = dict(model.named_modules())
    places = list(model.named_modules(remove_duplicate=False))  # a shared layer has several
    for name in names:
        if name not in known:
            raise UserError(f"{type(model).__name__} has no layer {name!r}")
        layer = known[name]
        if isinstance(layer, nn.Linear):
            made = FDLinear.from_linear(layer, kernel_num=kernel_num, **options)
        elif isinstance(layer, nn.Conv2d):
            made = FDConv2d.from_conv2d(layer, kernel_num=kernel_num, **options)
        else:
            raise UserError(f"{name} is {type(layer).__name__}, neither Conv2d nor Linear")
        if layer is model:
            return made
        for place in [place for place, found in places if found is layer]:
            parent, _, last = place.rpartition(".")
            setattr(model.get_submodule(parent), last, made)
    return model


def dynamic_layers(model: nn.Module) -> dict[str, FDConv2d]:
    """Return the dynamic layers of a model by name."""
    found = model.named_modules()
    return {name: m for name, m in found if isinstance(m, FDConv2d) and m.is_dynamic}
