"""Measure a model without training it: parameters, multiply-adds, peak memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sixfold.core.config import Config
from sixfold.core.system import System
from sixfold.core.weights.building import build_on_meta


class Parameters(NamedTuple):
    """Numbers in a model; a tied one counts once, buffers do not count."""

    count: int
    trainable: int


def parameters(model: nn.Module) -> Parameters:
    """Count the parameters of a model."""
    every = list(model.parameters())
    trainable = sum(p.numel() for p in every if p.requires_grad)
    return Parameters(sum(p.numel() for p in every), trainable)


def count_parameters(system: System, config: Config) -> Parameters:
    """Count the parameters of a system at some settings, without allocating memory for them."""
    return parameters(build_on_meta(system.build, config, system.name))


def macs(model: nn.Module, *inputs: Any) -> int:
    """Count the multiply-adds of one forward pass in eval mode.

    Counts matrix products, convolutions and attention, as papers do; not FFTs and element-wise
    arithmetic.
    """
    training = model.training
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(*inputs)
    finally:
        model.train(training)
    return counter.get_total_flops() // 2


def peak_memory(fn: Callable[[], Any], device: str = "cpu") -> int:
    """Return the most bytes of tensors that a call held at once, above what was there before.

    On a CPU this is what torch's allocator hands out; scratch of other libraries is not seen.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        fn()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True, acc_events=True) as profile:
        result = fn()
    del result  # kept until here, so that its release is no event of the call
    held = peak = 0
    profiler: Any = profile.profiler
    for event in profiler.kineto_results.events():  # in the order of time
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
