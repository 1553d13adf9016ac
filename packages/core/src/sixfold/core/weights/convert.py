"""Rename official keys to ours, and fill a model with the weights of a checkpoint.

A checkpoint from elsewhere may belong to another model: that is an error that says so, and no key
is ever skipped in silence.
"""

import heapq
import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sixfold.core.config import Config, UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.messages import printable, shorten, some
from sixfold.core.system import System
from sixfold.core.weights.building import build_on_meta, explain_failures, no_larger_than
from sixfold.core.weights.files import OWN, SETTINGS, with_checksum
from sixfold.core.weights.published import find_weights
from sixfold.core.weights.read import read_checkpoint, read_pretrained, read_state_dict

__all__ = ["from_pretrained", "load_strict", "read_pretrained", "read_state_dict", "rename"]
__all__ += ["save_pretrained"]

# In search of the part of a checkpoint that fits, so many of the largest parts are tried, unless
# there are absurdly many names to look at.
MOST_TRIALS, MOST_NAMES = 200, 1_000_000


def rename(
    state: Mapping[str, Tensor],
    rules: Mapping[str, str | None],
    expected: Collection[str] | None = None,
    what: str = "checkpoint",
) -> dict[str, Tensor]:
    """Give official weights our names, and account for every key.

    A rule is one line, ``"encoder{i}.{*leaf}": "encoders.{i}.{leaf}"``: ``{i}`` stands for one or
    more characters without a dot, ``{*leaf}`` for any. The first rule that fits a whole key wins;
    ``None`` drops the key on purpose. Two official keys may become one of ours only if they hold
    the same numbers.

    Args:
        state: Official weights.
        rules: Our template for each official template.
        expected: Every key of the model; None where the caller goes on to reshape (then
            ``load_strict`` checks that side).
        what: Name of the checkpoint in errors.

    Raises:
        UserError: an official key fits no rule, a model key is left empty, or copies differ.
    """
    patterns = [(_pattern(old), new) for old, new in rules.items()]
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    unused = []
    for key, value in state.items():
        match, new = next(((m, n) for p, n in patterns if (m := p.fullmatch(key))), (None, None))
        name = new.format(**match.groupdict()) if match and new else None
        if match is None or (name and expected is not None and name not in expected):
            unused.append(f"{key} (as {name})" if name else key)
        elif name in renamed and not torch.equal(renamed[name], value):
            raise UserError(f"{what}: {origin[name]} and {key} should be copies, but they differ")
        elif name:
            renamed[name], origin[name] = value, key
    _account(unused, [name for name in expected or () if name not in renamed], what)
    return renamed


def load_strict(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Fill the model with exactly these weights.

    Raises:
        UserError: keys are left over on either side, or a shape or kind of number differs.
    """
    check_fit(model, state, what)
    model.load_state_dict(dict(state), strict=True)


def check_fit(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Compare names, shapes and kinds of numbers; the model may be on the meta device.

    Raises:
        UserError: as `load_strict`.
    """
    own, learned = model.state_dict(), dict(model.named_parameters())
    _account([k for k in state if k not in own], [k for k in own if k not in state], what)
    wrong = [
        key + reason
        for key in state
        if (reason := _difference(state[key], own[key], is_parameter=key in learned))
    ]
    if wrong:
        raise UserError(
            f"{what}: {some(wrong, 1, longest=160)}; build the model with the checkpoint's own "
            "config"
        )


def save_pretrained(path: str | Path, model: nn.Module, system_name: str, config: Config) -> None:
    """Write sixfold's own checkpoint: the same model gives the same bytes; never half a file."""
    # Tied weights are stored once per name: safetensors refuses tensors that share memory.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    metadata = {OWN: system_name, SETTINGS: json.dumps(config.model_dump(mode="json"))}
    write_atomic(Path(path), with_checksum(save(state, metadata=metadata)))


def from_pretrained(path_or_name: str | Path, system: System, **settings: Any) -> nn.Module:
    """Build a system, in eval mode, from its official or from sixfold's own checkpoint.

    A setting that nobody knows is the default; ``config.model_fields_set`` has those that the
    checkpoint, its published name or the caller said.

    Args:
        path_or_name: Path of a checkpoint, or name of published weights, which are fetched.
        system: The system.
        settings: Settings that the checkpoint does not hold, e.g. ``sample_rate``; None if unset.

    Raises:
        UserError: the file cannot be had or read, is another system's, or does not fit, or a
            setting is unknown or out of range.
    """
    path = find_weights(path_or_name, system)
    given = {key: value for key, value in settings.items() if value is not None}
    try:
        return _load(path, system, given)
    except UserError as error:  # a checkpoint's own names may be long
        raise UserError(shorten(str(error))) from error.__cause__


def _load(path: Path, system: System, given: dict[str, Any]) -> nn.Module:
    where, (state, name, values) = str(path), read_checkpoint(path)
    if name not in (None, system.name):
        raise UserError(f"{path} is a checkpoint of {name}, not of {system.name}")
    # Far more than a model needs that has these weights, and far less than a hostile one asks for.
    most = 4 * sum(value.numel() * value.element_size() for value in state.values()) + 2**30
    limits = most, 4 * len(state) + 5000
    if name is None:
        with no_larger_than(*limits, where):
            config, state = _convert(system, state, path)
        # the folder of published weights is named as they are
        settings = {**system.weights_settings.get(path.absolute().parent.name, {}), **given}
    else:
        config, settings = system.config.parse(values, where), given
    if settings:
        known = config.model_dump(exclude_unset=True)
        config = type(config).parse(known | settings, where)
    check_fit(build_on_meta(system.build, config, where, *limits), state, where)
    with explain_failures(where):
        model = system.build(config)
    load_strict(model, state, where)
    return model.eval()


def _convert(
    system: System, state: dict[str, Tensor], path: Path
) -> tuple[Config, dict[str, Tensor]]:
    """Convert a state dict, or the one part of it that fits: a trainer's module holds a loss too.

    Raises:
        UserError: no part with a common prefix fits, or several do.
    """
    try:
        return _convert_whole(system, state, path)
    except UserError as error:
        whole = error
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    looked_at = 0
    for key, value in state.items():
        for dot in re.finditer(r"\.", key):
            parts[key[: dot.end()]][key[dot.end() :]] = value
        looked_at += key.count(".")
        if looked_at > MOST_NAMES:
            raise whole
    fits: dict[str, tuple[Config, dict[str, Tensor]]] = {}
    largest = heapq.nlargest(MOST_TRIALS, parts, key=lambda prefix: len(parts[prefix]))
    for prefix in sorted(largest, key=len):
        if not prefix.startswith(tuple(fits)):
            with suppress(UserError):
                fits[prefix] = _convert_whole(system, parts[prefix], path)
    if len(fits) > 1:
        names = " and ".join(f"{prefix}*" for prefix in fits)
        raise UserError(f"{path} holds the network more than once: {names}; save one of them alone")
    for prefix, found in fits.items():
        others = [key for key in state if not key.startswith(prefix)]
        if others:
            print(f"{path}: loaded {printable(prefix)}*, left out {some(others)}")
        return found
    if _has_own_names(system, state):
        raise UserError(
            f"{path} holds the weights of sixfold's {system.name} without its settings, as of "
            "torch.save(model.state_dict(), ...); save it by save_pretrained of "
            "sixfold.core.weights.convert, an estimator by model.save('m.safetensors')"
        ) from whole
    raise whole


def _has_own_names(system: System, state: Mapping[str, Tensor]) -> bool:
    """Return whether all names are those of a model of the default size, but for numbers.

    Where these are the official ones too, the fault is another than missing settings.
    """
    own: dict[str, Tensor] = {}
    with suppress(UserError):
        own = build_on_meta(system.build, system.config(), system.name).state_dict()
    known = {re.sub(r"\d+", "0", key) for key in own}
    if not all(re.sub(r"\d+", "0", key) in known for key in state):
        return False
    try:
        _convert_whole(system, own, Path(system.name))
    except UserError as error:
        return isinstance(error.__cause__, UserError)  # others: values that are not there
    return False


def _convert_whole(
    system: System, state: dict[str, Tensor], path: Path
) -> tuple[Config, dict[str, Tensor]]:
    with explain_failures(f"{path} is no checkpoint of {system.name}"):
        return system.convert(state)


def _pattern(template: str) -> re.Pattern[str]:
    """Compile ``{name}`` to a part without a dot, ``{*name}`` to anything, the rest literally."""
    pieces = re.split(r"\{(\*?)(\w+)\}", template)
    text = re.escape(pieces[0])
    for star, name, literal in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        text += f"(?P<{name}>{'.+' if star else '[^.]+'}){re.escape(literal)}"
    return re.compile(text)


def _account(unused: list[str], empty: list[str], what: str) -> None:
    used = f"{len(unused)} of its keys are not used: {some(unused, longest=100)}" if unused else ""
    filled = (
        f"{len(empty)} keys of the model are not filled: {some(empty, longest=100)}"
        if empty
        else ""
    )
    if used or filled:
        raise UserError(f"{what} does not fit: {'; '.join(filter(None, (used, filled)))}")


def _difference(given: Tensor, wanted: Tensor, *, is_parameter: bool) -> str:
    numbers = given.is_floating_point() or given.is_complex()
    if given.is_complex() != wanted.is_complex() or (is_parameter and not numbers):
        return f" is {given.dtype}, the model wants {wanted.dtype}"
    if given.shape == wanted.shape:
        return ""
    text = f" is {tuple(given.shape)}, the model wants {tuple(wanted.shape)}"
    if given.dim() != wanted.dim():
        return text
    axis = next(i for i in range(given.dim()) if given.shape[i] != wanted.shape[i])
    word = "channels" if axis < 2 else "taps"
    return f"{text}: it has {given.shape[axis]} {word}, the config says {wanted.shape[axis]}"
