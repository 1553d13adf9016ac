"""Read checkpoints without trusting them, and rename official keys to ours.

A checkpoint from elsewhere may be cut short, hold pickled code, or belong to another model: each is
an error that says so, and no key is ever skipped in silence. sixfold's own checkpoint is one
.safetensors file whose metadata name the system and hold its settings.
"""

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sixfold.core.config import Config, UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.system import System
from sixfold.core.weights.published import find_weights

# Where trainers put the weights among other things; the last two are basicsr's.
NESTS = ("state_dict", "model_state_dict", "model", "params_ema", "params")
PREFIXES = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, wrappers


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a .safetensors or torch checkpoint, on the CPU.

    Unwraps ``{"state_dict": ...}`` and the like, and strips ``module.`` and ``model.`` where every
    key begins so. Foreign weights of half or double precision become float32, in which the systems
    compute. Nothing that the file may have pickled is run.

    Raises:
        UserError: missing, damaged, refused, not a state dict, or with NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}; give the path of a file")
    plain = path.suffix == ".safetensors"
    found, metadata = _read_safetensors(path) if plain else (_read_pickle(path), {})
    while isinstance(found, Mapping) and (nest := _nest(found)) is not None:
        found = found[nest]
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"{path} holds no state dict but {found!r:.80}")
    others = [f"{k} ({type(v).__name__})" for k, v in found.items() if not isinstance(v, Tensor)]
    if others:
        raise UserError(f"{path} is no state dict: it holds {_some(others)}")
    own = "sixfold" in metadata
    state = {str(k): v.detach() if own else _single(v.detach()) for k, v in found.items()}
    for prefix in () if own else PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    if broken := [key for key, value in state.items() if value.isnan().any()]:
        raise UserError(f"{path} holds NaN in {_some(broken)}; its training had failed by then")
    return state


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
    own = model.state_dict()
    _account([k for k in state if k not in own], [k for k in own if k not in state], what)
    wrong = [key + reason for key in state if (reason := _difference(state[key], own[key]))]
    if wrong:
        raise UserError(
            f"{what}: {_some(wrong, 1)}; build the model with the checkpoint's own config"
        )
    model.load_state_dict(dict(state), strict=True)


def save_pretrained(path: str | Path, model: nn.Module, system_name: str, config: Config) -> None:
    """Write sixfold's own checkpoint: the same model gives the same bytes; never half a file."""
    # Tied weights are stored once per name: safetensors refuses tensors that share memory.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    metadata = {"sixfold": system_name, "config": json.dumps(config.model_dump(mode="json"))}
    write_atomic(Path(path), _sort_header(save(state, metadata=metadata)))


def read_pretrained(path: str | Path) -> tuple[str, dict[str, Any]] | None:
    """Read the system's name and settings from sixfold's own checkpoint; None from any other."""
    path = Path(path)
    metadata = _read_safetensors(path)[1] if path.suffix == ".safetensors" else {}
    if "sixfold" not in metadata:
        return None
    try:
        return metadata["sixfold"], json.loads(metadata["config"])
    except (KeyError, ValueError):
        raise UserError(f"{path} names {metadata['sixfold']} but holds no settings") from None


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
    state = read_state_dict(path)
    name, values = read_pretrained(path) or (None, {})
    if name not in (None, system.name):
        raise UserError(f"{path} is a checkpoint of {name}, not of {system.name}")
    if name is None:
        config, state = _convert(system, state, path)
        # the folder of published weights is named as they are
        settings = {**system.weights_settings.get(path.absolute().parent.name, {}), **given}
    else:
        config, settings = system.config.parse(values, str(path)), given
    if settings:
        known = config.model_dump(exclude_unset=True)
        config = type(config).parse(known | settings, str(path))
    model = system.build(config)
    load_strict(model, state, str(path))
    return model.eval()


def _convert(
    system: System, state: dict[str, Tensor], path: Path
) -> tuple[Config, dict[str, Tensor]]:
    """Convert a state dict, or the one part of it that fits: a trainer's module holds a loss too.

    Raises:
        UserError: no part with a common prefix fits, or several do.
    """
    try:
        return system.convert(state)
    except UserError as error:
        whole = error
    fits: dict[str, tuple[Config, dict[str, Tensor]]] = {}
    parts = [key.split(".") for key in state]
    prefixes = {".".join(part[:depth]) + "." for part in parts for depth in range(1, len(part))}
    for prefix in sorted(prefixes, key=len):
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if len(part) < len(parts) and not prefix.startswith(tuple(fits)):
            with suppress(UserError):
                fits[prefix] = system.convert(part)
    if len(fits) > 1:
        names = " and ".join(f"{prefix}*" for prefix in fits)
        raise UserError(f"{path} holds the network more than once: {names}; save one of them alone")
    for prefix, found in fits.items():
        others = [key for key in state if not key.startswith(prefix)]
        print(f"{path}: loaded {prefix}*, left out {_some(others)}")
        return found
    raise whole


def _nest(found: Mapping[Any, Any]) -> Any:
    """Return the key of the state dict among what a trainer saved; None if there is no such key."""
    known = next((name for name in NESTS if name in found), None)
    nests = [key for key, value in found.items() if isinstance(value, Mapping) and value]
    nests = [key for key in nests if all(isinstance(v, Tensor) for v in found[key].values())]
    alone = len(nests) == 1 and not any(isinstance(v, Tensor) for v in found.values())
    return nests[0] if known is None and alone else known


def _single(value: Tensor) -> Tensor:
    if value.is_complex():
        return value.to(torch.complex64)
    return value.float() if value.is_floating_point() else value


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or cut short ({error}); fetch it again") from None


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        foreign = re.search(r"GLOBAL (\S+)|(TorchScript)", str(error))
        reason = str(error).partition("\n")[0] or type(error).__name__
    if foreign is None:
        raise UserError(f"{path} is damaged or no checkpoint ({reason}); fetch it again")
    raise UserError(
        f"{path} is refused: besides weights it holds {foreign[1] or foreign[2]}, and unpickling "
        "that can run code; if you trust it, read it with torch.load(path, weights_only=False) and "
        "save its state_dict alone"
    )


def _pattern(template: str) -> re.Pattern[str]:
    """Compile ``{name}`` to a part without a dot, ``{*name}`` to anything, the rest literally."""
    pieces = re.split(r"\{(\*?)(\w+)\}", template)
    text = re.escape(pieces[0])
    for star, name, literal in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        text += f"(?P<{name}>{'.+' if star else '[^.]+'}){re.escape(literal)}"
    return re.compile(text)


def _account(unused: list[str], empty: list[str], what: str) -> None:
    used = f"{len(unused)} of its keys are not used: {_some(unused)}" if unused else ""
    filled = f"{len(empty)} keys of the model are not filled: {_some(empty)}" if empty else ""
    if used or filled:
        raise UserError(f"{what} does not fit: {'; '.join(filter(None, (used, filled)))}")


def _some(names: list[str], most: int = 10) -> str:
    more = f" (and {len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _difference(given: Tensor, wanted: Tensor) -> str:
    if given.is_complex() != wanted.is_complex():
        return f" is {given.dtype}, the model wants {wanted.dtype}"
    if given.shape == wanted.shape:
        return ""
    text = f" is {tuple(given.shape)}, the model wants {tuple(wanted.shape)}"
    if given.dim() != wanted.dim():
        return text
    axis = next(i for i in range(given.dim()) if given.shape[i] != wanted.shape[i])
    word = "channels" if axis < 2 else "taps"
    return f"{text}: it has {given.shape[axis]} {word}, the config says {wanted.shape[axis]}"


def _sort_header(content: bytes) -> bytes:
    """Order the metadata by name: safetensors writes them in an order that differs by the run."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # data begin on a multiple of eight
    return len(header).to_bytes(8, "little") + header + content[8 + size :]
