"""RePaViT: a vision transformer whose feed-forward blocks shrink once it is trained.

arXiv:2505.21847; the citation and the departures from the paper are in the docstring of
`sixfold.vision.models.repavit`.
"""

from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from sixfold.core import UserError, from_pretrained
from sixfold.core.weights.convert import save_pretrained
from sixfold.vision.models.repavit.backbones import build_backbone
from sixfold.vision.models.repavit.config import SIZES, RePaViTConfig
from sixfold.vision.models.repavit.layers import ChannelNorm
from sixfold.vision.models.repavit.plugin import (
    active_channels,
    convert,
    is_merged,
    merge,
    merged_structure,
)
from sixfold.vision.models.repavit.registry import PREFIX
from sixfold.vision.models.repavit.training import modes_kept

Images = Float[Tensor, "batch channel height width"]


class RePaViT(nn.Module):
    """Classify pictures: from (batch, 3, height, width), normalised, to (batch, class) logits.

    The network is timm's, in ``backbone``, with all that timm's models can do; this class adds the
    settings that rebuild it from a file.

    Args:
        config: Settings; the defaults are RePaViT-Base while it trains.
    """

    def __init__(self, config: RePaViTConfig | None = None) -> None:
        super().__init__()
        self._config = config or RePaViTConfig()
        self.backbone = _build(self._config)
        self._active = tuple(active_channels(self.backbone))

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "RePaViT":
        """Load an official or a sixfold checkpoint, in eval mode, in the form that it holds.

        Args:
            path: Path of the file.
            settings: What an official checkpoint does not hold: ``idle_ratio`` and ``heuristic``
                (unless merged), ``num_heads`` (unless the width is a published one, or Swin),
                ``img_size`` (PoolFormer), ``pool_size`` (7 if unset).

        Raises:
            UserError: the file is missing or damaged or holds another system, or a setting is not
                known.
        """
        from sixfold.vision.models.repavit import SYSTEM  # that module imports this one

        return cast(RePaViT, from_pretrained(path, SYSTEM, **settings))

    @classmethod
    def wrap(cls, backbone: nn.Module, **options: Any) -> "RePaViT":
        """Make a RePaViT of a model of timm that was converted, and perhaps merged.

        Args:
            backbone: Result of `convert` or `merge`; it is not copied.
            options: Arguments of ``timm.create_model`` besides ``num_classes``, ``in_chans`` and
                ``img_size``, if there were any.

        Raises:
            UserError: the model cannot be built again from its name and the options.
        """
        if isinstance(backbone, RePaViT):
            return backbone
        config = describe(backbone, **options)
        try:
            with torch.random.fork_rng(devices=[]):
                model = cls(config)
            reason = _difference(model.backbone, backbone)
        except UserError as error:
            reason = str(error)
        if reason is not None:
            raise UserError(
                f"timm's {config.architecture or config.family} is not this model: {reason}; give "
                "the arguments it was made with: wrap(model, depth=2, ...)"
            )
        model.backbone, model.training = backbone, backbone.training
        return model

    @property
    def config(self) -> RePaViTConfig:
        """Settings that build the network as it is, also after `set_idle_ratio`."""
        active = tuple(active_channels(self.backbone))
        changed = {} if active == self._active else {"active": active}
        return self._config.model_copy(update=changed)

    @config.setter
    def config(self, config: RePaViTConfig) -> None:
        self._config = config

    def forward(self, images: Images) -> Float[Tensor, "batch class"]:
        return self.backbone(images)

    def merged(self) -> "RePaViT":
        """Return a merged copy, in eval mode; it computes the same in less time.

        Raises:
            UserError: the model is in training mode, has nothing to merge or is merged already.
        """
        return self._of(merge(self.backbone))

    def save(self, path: str | Path) -> None:
        """Write a .safetensors file that `from_pretrained` reads, in the form the model is in.

        Raises:
            UserError: the path has another ending, or cannot be written.
        """
        if Path(path).suffix != ".safetensors":
            raise UserError(
                f"a checkpoint is a .safetensors file; give a path like {path}.safetensors"
            )
        save_pretrained(path, self, "repavit", self.config)

    def no_weight_decay(self) -> set[str]:
        """Return the names of positions, class tokens and tables, which are not to decay."""
        named = cast(Any, getattr(self.backbone, "no_weight_decay", set))()
        return {f"backbone.{name}" for name in named} & set(dict(self.named_parameters()))

    def _of(self, backbone: nn.Module) -> "RePaViT":
        active = tuple(active_channels(backbone))
        config = self.config.model_copy(update={"merged": True, "active": active})
        with torch.device("meta"):
            model = RePaViT(config)
        model.backbone = backbone
        return model.eval()


@torch.no_grad()
def _difference(made: nn.Module, given: nn.Module) -> str | None:
    """Say in what a model differs from one that was made anew; None if it computes the same."""
    wanted = {k: v.shape for k, v in made.state_dict().items()}
    present = {k: v.shape for k, v in given.state_dict().items()}
    others = sorted({key for key, _ in set(wanted.items()) ^ set(present.items())})
    if others:
        return f"its {others[0]} is another"
    first = next(given.parameters())
    made.to(first.device, first.dtype).load_state_dict(given.state_dict())
    channels, *size = resolve_model_data_config(given)["input_size"]
    height, width = _img_size(given) or size
    noise = torch.Generator().manual_seed(0)
    picture = torch.randn(1, channels, height, width, generator=noise)
    with modes_kept(given):
        outputs = [model.eval()(picture.to(first)).float() for model in (made, given)]
    largest = (1e-5 if first.dtype.itemsize >= 4 else 1e-2) * float(outputs[1].abs().max())
    same = torch.allclose(*outputs, rtol=0, atol=largest)
    return None if same else "it computes something else"


def describe(backbone: nn.Module, **options: Any) -> RePaViTConfig:
    """Return the settings that build a converted or merged model of timm again.

    Args:
        backbone: Result of `convert` or `merge`.
        options: Arguments of ``timm.create_model`` that it was made with.

    Raises:
        UserError: timm did not make it, or it has no idle channels.
    """
    name = getattr(backbone, "pretrained_cfg", {}).get("architecture")
    if name is None or not hasattr(backbone, "num_classes"):
        raise UserError(
            f"{type(backbone).__name__} is no classifier that was made by timm.create_model"
        )
    active = active_channels(backbone)
    if not active:
        raise UserError("the model has no idle channels; call convert(model) first")
    size = _img_size(backbone)
    values: dict[str, Any] = {"active": active, "merged": is_merged(backbone)}
    if not values["merged"] and not any(isinstance(m, ChannelNorm) for m in backbone.modules()):
        values["feature_norm"] = "LayerNorm"
    for key in ("num_classes", "in_chans"):
        values[key] = getattr(backbone, key)
    own = SIZES.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    if own is not None:
        known = own.model_dump() | ({"img_size": size[0]} if size else {})
        return RePaViTConfig.parse(known | values | options, "this model")
    found = resolve_model_data_config(backbone)
    values |= {"mean": found["mean"], "std": found["std"], "crop": found["crop_pct"]}
    values |= {"family": "timm", "architecture": name}
    if getattr(backbone, "dynamic_img_size", False):
        options = {"dynamic_img_size": True} | options
    options = ({"img_size": list(size)} if size else {}) | options
    return RePaViTConfig.parse(values | {"options": options}, "this model")


def _img_size(backbone: nn.Module) -> tuple[int, int] | None:
    """Return height and width of the pictures that a model was made for, if it is bound to them."""
    parts = (getattr(backbone, name, None) for name in ("patch_embed", "stem"))
    return next((size for part in parts if (size := getattr(part, "img_size", None))), None)


def _build(config: RePaViTConfig) -> nn.Module:
    if config.vanilla:
        return build_backbone(config)
    ratio = config.ratio() if config.active is None else 0.0
    backbone = convert(
        build_backbone(config), ratio, config.heuristic, config.feature_norm, config.active
    )
    return merged_structure(backbone) if config.merged else backbone
