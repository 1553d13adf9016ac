"""Where and how a training computes: threads, determinism, precision, sharding."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sixfold.core.training.distributed import world_size


@contextmanager
def numerics(config: Any) -> Iterator[None]:
    """Set threads and determinism for the training, and restore them afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    cuda = torch.cuda.is_available()
    deterministic = not cuda if config.deterministic is None else config.deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.backends.cudnn.benchmark = False
    memory: Any = torch.utils.deterministic  # pyright does not see its property
    fill, memory.fill_uninitialized_memory = memory.fill_uninitialized_memory, False  # takes time
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        memory.fill_uninitialized_memory = fill


def make_fabric(config: Any) -> Any:
    """Make Lightning Fabric for the processes that there are; importing it takes seconds."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

    device = "cuda" if torch.cuda.is_available() else "cpu"
    strategy: Any = "auto" if world_size() == 1 else "ddp"
    plugins: list[Any] = [] if world_size() == 1 else [TorchElasticEnvironment()]
    if config.strategy == "fsdp" and world_size() > 1:
        strategy = ModelParallelStrategy(_shard, world_size(), tensor_parallel_size=1)
    if config.precision == "bf16":
        precision = MixedPrecision("bf16-mixed", device)
        # Fabric would round the inputs too, but an STFT wants its waveform in float32
        precision.convert_input = lambda data: data
        plugins.append(precision)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = world_size() // here
    fabric = Fabric(
        accelerator=device, strategy=strategy, devices=here, num_nodes=nodes, plugins=plugins
    )
    fabric.launch()
    return fabric


def _shard(model: nn.Module, mesh: Any) -> nn.Module:
    """Shard each block of a stack, then what is left (FSDP2)."""
    from torch.distributed.fsdp import fully_shard

    for module in model.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            for block in module:
                if any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh["data_parallel"])
    return fully_shard(model, mesh=mesh["data_parallel"])  # type: ignore[return-value]


def set_up(fabric: Any, model: nn.Module, config: Any) -> nn.Module:
    """Move the model to its device; return what the loss function calls."""
    if config.sync_bn and world_size() > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.compile:
        model.compile()
    wrapped = fabric.setup_module(model)
    # alone and in float32 the wrapper does nothing, at 45 microseconds a step
    return model if world_size() == 1 and config.precision == "32" else wrapped
