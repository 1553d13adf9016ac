"""Compile Triton kernels for a GPU that need not be there; run by `test_compiled.py`.

The interpreter forgives types that change in a loop and much else. Lengths of one are worth a try
of their own: a launcher makes them constants. Prints the name of each kernel that compiled.
"""

from importlib import import_module
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sixfold.kernels import _dispatch, gau_kernels, spmm_max, spmm_sum

# the package gives functions these names
DWCONV1D, FDCONV_WEIGHT, CROSS_EPILOGUE = (
    import_module(f"sixfold.kernels.{name}")
    for name in ("dwconv1d", "fdconv_weight", "cross_epilogue")
)
TARGET = GPUTarget("cuda", 90, 32)


def compile_kernel(kernel: Any, types: dict[str, str], constants: dict[str, object]) -> None:
    """Compile with these types of arguments; those in neither dictionary are None."""
    if isinstance(kernel, _dispatch._Tuned):
        constants = {**constants, **{k: v for k, v in kernel.first.items() if k.isupper()}}
        kernel = kernel.kernel
    names = kernel.arg_names
    assert not set(types) - set(names), kernel
    types = {name: types.get(name, "constexpr") for name in names}
    fixed = {
        (i,): constants.get(name) for i, name in enumerate(names) if types[name] == "constexpr"
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=fixed)
    triton.compile(source, target=TARGET, options={"num_warps": 4})
    print(kernel.__name__)


def spmm(number: str, index: str, weighted: bool, features: int | None) -> None:
    """Compile the kernels of a sparse product."""
    graph = dict.fromkeys(("rowptr", "col"), index)
    tile = {"EDGES": 16, "BLOCK": 16, "SEGMENT": 256, "WEIGHTED": weighted, "features": features}
    size = {} if features else {"features": "i32"}
    weight = {"weight": "*fp32"} if weighted else {}
    total = {"y": number, "partials": "*fp32", **size}
    of_edges = {**graph, **size, **weight}
    compile_kernel(spmm_sum._sum, {"x": number, "segments": index, **total, **of_edges}, tile)
    compile_kernel(spmm_sum._sum_partials, {"long_rows": index, **total}, tile)
    rows = {"left": number, "right": number, "row": index, "col": index, "out": "*fp32"}
    compile_kernel(spmm_sum._products, {**rows, **size, "edges": "i32"}, tile)
    found = {"x": number, "y": number, "winner": index, "edges": "i32"}
    compile_kernel(spmm_max._largest, {**found, **of_edges}, tile)
    back = {"grad": number, "winner": index, "order": index, "out": number}
    compile_kernel(spmm_max._route, {**back, **of_edges}, tile)


def gau(number: str, causal: bool, masked: bool, tokens: int | None) -> None:
    """Compile the kernels of the gated attention."""
    sizes = {"D": 20, "WIDTH": 32, "E": 100, "GROUP": 70, "PRECISION": "ieee", "tokens": tokens}
    sizes |= {"CAUSAL": causal, "UPCAST": False}
    types: dict[str, str] = dict.fromkeys(("quad_q", "quad_k", "v", "u", "out"), number)
    if masked:
        types["mask"] = "*i1"
    if not tokens:
        types["tokens"] = "i32"
    whole = {**types, **dict.fromkeys(("lin_q", "memory_v", "memory_u"), number)}
    compile_kernel(gau_kernels.attend, whole, sizes)
    compile_kernel(gau_kernels.attend, {**whole, "grad": number}, sizes)
    compile_kernel(gau_kernels.score_gradients, {**types, "grad_att": number}, sizes)


def dwconv(number: str, m: int, silu: bool, others: int | None) -> None:
    """Compile the kernels of the depthwise convolution."""
    sizes = {"TAPS": 5, "M": m, "DILATION": 2, "RESIDUAL": m == 1, "SILU": silu, "others": others}
    tensors = dict.fromkeys(("x", "weight", "y", "grad", "grad_x"), number)
    lengths: dict[str, str] = dict.fromkeys(
        ("time", "steps", "columns", "channels", "left", "positions"), "i32"
    )
    if not others:
        lengths["others"] = "i32"
    types = {**tensors, **lengths, "partial": "*fp32"}
    blocks = {"TAPS_2": 8, "CHUNK_ROWS": 512, "ROWS": 4, "CHANNELS": 32}
    for kernel in (DWCONV1D._forward, DWCONV1D._backward_input, DWCONV1D._backward_weight):
        plain = kernel.kernel if isinstance(kernel, _dispatch._Tuned) else kernel
        names = plain.arg_names
        own = {name: kind for name, kind in types.items() if name in names}
        compile_kernel(kernel, own, {**sizes, **blocks})


def fdconv(number: str, factors: bool, mixed: bool, one: int | None) -> None:
    """Compile the kernels of FDConv's synthesis; ``one`` is the batch and the rows, if given."""
    flags = dict.fromkeys(("SPATIAL", "CHANNEL", "FILTER", "LOGIT", "TANH"), factors)
    sizes = {**flags, "MIXED": mixed, "SAMPLES": 8, "PLACES": 64, "ROWS": 16}
    small = ("attention", "spatial", "channel", "filter", "logit")
    tensors = dict.fromkeys((*small, "basis", "mixture", "weight", "sent"), number)
    tensors |= dict.fromkeys(("grad_mixture", "grad_logit"), number)
    tensors |= dict.fromkeys(("by_place", "by_filter"), "*fp32")
    lengths = dict.fromkeys(("places", "taps", "members"), "i32")
    for of in ("logit", "grad"):
        lengths |= {f"{of}_{axis}": "i32" for axis in ("batch", "out", "in", "tap")}
    if not one:
        lengths |= {"batch": "i32", "rows": "i32"}
    types = {**tensors, **lengths, "mult": "fp32"}
    for kernel in (FDCONV_WEIGHT._forward, FDCONV_WEIGHT._backward):
        own = {name: kind for name, kind in types.items() if name in kernel.arg_names}
        compile_kernel(kernel, own, {**sizes, "batch": one, "rows": one})


def cross(number: str, norm: bool, one: int | None) -> None:
    """Compile the kernels of a cross layer; ``one`` is the rows and the chunk, if given."""
    tensors = dict.fromkeys(("h", "x", "x0", "bias", "gamma", "beta", "y", "sent"), number)
    tensors |= {"grad_h": number, "grad_x0": number, "sums": "*fp32", "half": "i32", "eps": "fp32"}
    types = tensors if one else {**tensors, "rows": "i32", "chunk": "i32"}
    sizes = {"NORM": norm, "SAME": not norm, "BLOCK": 256, "rows": one, "chunk": one}
    for kernel in (CROSS_EPILOGUE._forward, CROSS_EPILOGUE._backward):
        own = {name: kind for name, kind in types.items() if name in kernel.arg_names}
        compile_kernel(kernel, own, sizes)


spmm("*fp32", "*i32", True, None)
spmm("*bf16", "*i64", False, None)
spmm("*fp16", "*i32", False, 1)
gau("*bf16", False, False, None)
gau("*fp16", True, True, None)
gau("*bf16", True, True, 1)
dwconv("*fp32", 1, False, None)
dwconv("*bf16", 2, True, 1)
fdconv("*fp32", True, False, None)
fdconv("*bf16", False, True, 1)
fdconv("*fp16", True, False, 1)
cross("*fp32", True, None)
cross("*bf16", False, 1)
