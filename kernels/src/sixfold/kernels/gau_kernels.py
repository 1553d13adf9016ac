"""The Triton kernels of `sixfold.kernels.gau_attention`.

A program has ROWS tokens of one group and COLUMNS of the values; v and u go together, so that the
program can gate its own sums. A is computed again for each block of columns: 2 g d operations a
token, against 4 g COLUMNS for the sums. Sums are float32. The backward pass pads the last group
that it writes with zeros.

UPCAST makes products right in the interpreter, which has no bfloat16; WIDTH is a power of two, at
least D.
"""

from sixfold.kernels._dispatch import autotune, jit, tl

TILES = [
    {"ROWS": 64, "KEYS": 64, "COLUMNS": 128, "num_warps": 8, "num_stages": 2},
    {"ROWS": 64, "KEYS": 32, "COLUMNS": 64, "num_warps": 4, "num_stages": 2},
    {"ROWS": 32, "KEYS": 32, "COLUMNS": 64, "num_warps": 4, "num_stages": 2},
]


@jit
def _place(tokens, GROUP: tl.constexpr):
    """Return the batch, the first token of the group and the end of the group."""
    groups = tl.cdiv(tokens, GROUP)
    first = (tl.program_id(2) % groups) * GROUP
    return (tl.program_id(2) // groups).to(tl.int64), first, tl.minimum(first + GROUP, tokens)


@jit
def _tile(pointer, rows, columns, end, width, UPCAST: tl.constexpr):
    """Load a block of a row-major matrix, zeros outside."""
    inside = (rows < end)[:, None] & (columns < width)[None, :]
    place = rows.to(tl.int64)[:, None] * width + columns[None, :]
    tile = tl.load(pointer + place, mask=inside, other=0.0)
    return tile.to(tl.float32) if UPCAST else tile


@jit
def _store(pointer, rows, columns, end, width, tile):
    inside = (rows < end)[:, None] & (columns < width)[None, :]
    place = rows.to(tl.int64)[:, None] * width + columns[None, :]
    tl.store(pointer + place, tile, mask=inside)


@jit
def _scores(
    q,
    k,
    mask,
    base,
    rows,
    keys,
    end,
    GROUP: tl.constexpr,
    CAUSAL: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return relu(S) of a block, zero where the mask or causality forbids attention."""
    s = tl.maximum(tl.dot(q, tl.trans(k), input_precision=PRECISION) * (1.0 / GROUP), 0.0)
    if mask is not None:
        seen = tl.load(mask + base + keys, mask=keys < end, other=0) != 0
        s = tl.where(seen[None, :], s, 0.0)
    if CAUSAL:
        s = tl.where(keys[None, :] <= rows[:, None], s, 0.0)
    return s


@jit
def _differentiate(att_v, att_u, own_v, own_u, sent, out, part, rows, columns, end, E):
    """Write the gradients of att_v, att_u, v and u, the last two without A's contribution."""
    gate = tl.sigmoid(att_v * own_u)
    inner = sent * att_u * own_v * gate * (1.0 - gate)
    _store(out, rows, columns, end, E, inner * own_u)
    _store(out + part, rows, columns, end, E, sent * own_v * gate)
    _store(out + 2 * part, rows, columns, end, E, sent * att_u * gate)
    _store(out + 3 * part, rows, columns, end, E, inner * att_v)


@autotune(TILES, key=["D", "E", "GROUP"])
@jit
def attend(
    quad_q,
    quad_k,
    lin_q,
    v,
    u,
    memory_v,
    memory_u,
    mask,
    grad,
    out,
    tokens,
    D: tl.constexpr,
    E: tl.constexpr,
    GROUP: tl.constexpr,
    CAUSAL: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Attend and gate, ``out`` (batch, tokens, E); with ``grad`` differentiate the gate instead."""
    groups = tl.cdiv(tokens, GROUP)
    batch, first, end = _place(tokens, GROUP)
    rows = first + tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    columns, feature = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, WIDTH)
    key_base, base = batch * tokens * D, batch * tokens * E
    memory = (tl.program_id(2).to(tl.int64) if CAUSAL else batch) * D * E
    q = _tile(lin_q + key_base, rows, feature, end, D, UPCAST)
    m = _tile(memory_v + memory, feature, columns, D, E, UPCAST)
    att_v = tl.dot(q, m, input_precision=PRECISION)
    m = _tile(memory_u + memory, feature, columns, D, E, UPCAST)
    att_u = tl.dot(q, m, input_precision=PRECISION)
    q = _tile(quad_q + key_base, rows, feature, end, D, UPCAST)
    for block in range((GROUP + KEYS - 1) // KEYS):
        keys = first + block * KEYS + tl.arange(0, KEYS)
        k = _tile(quad_k + key_base, keys, feature, end, D, UPCAST)
        s = _scores(q, k, mask, batch * tokens, rows, keys, end, GROUP, CAUSAL, PRECISION)
        values = _tile(v + base, keys, columns, end, E, UPCAST)
        a = (s * s).to(values.dtype)
        att_v += tl.dot(a, values, input_precision=PRECISION)
        values = _tile(u + base, keys, columns, end, E, UPCAST)
        att_u += tl.dot(a, values, input_precision=PRECISION)
    own_v = _tile(v + base, rows, columns, end, E, True)
    own_u = _tile(u + base, rows, columns, end, E, True)
    if grad is None:
        y = att_u * own_v * tl.sigmoid(att_v * own_u)
        _store(out + base, rows, columns, end, E, y)
    else:
        sent = _tile(grad + base, rows, columns, end, E, True)
        part = tl.num_programs(2).to(tl.int64) * GROUP * E
        out += batch * groups * GROUP * E
        _differentiate(att_v, att_u, own_v, own_u, sent, out, part, rows, columns, first + GROUP, E)


@autotune(TILES, key=["D", "E", "GROUP"])
@jit
def score_gradients(
    quad_q,
    quad_k,
    v,
    u,
    mask,
    grad_att,
    out,
    tokens,
    D: tl.constexpr,
    E: tl.constexpr,
    GROUP: tl.constexpr,
    CAUSAL: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write A and the gradient of S, (2, batch, groups, GROUP, GROUP)."""
    batch, first, end = _place(tokens, GROUP)
    rows = first + tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    keys, feature = first + tl.program_id(0) * KEYS + tl.arange(0, KEYS), tl.arange(0, WIDTH)
    key_base, base = batch * tokens * D, batch * tokens * E
    q = _tile(quad_q + key_base, rows, feature, end, D, UPCAST)
    k = _tile(quad_k + key_base, keys, feature, end, D, UPCAST)
    s = _scores(q, k, mask, batch * tokens, rows, keys, end, GROUP, CAUSAL, PRECISION)
    padded = batch * tl.cdiv(tokens, GROUP) * GROUP
    part = tl.num_programs(2).to(tl.int64) * GROUP  # tokens, with those that fill up
    sent = tl.zeros((ROWS, KEYS), tl.float32)
    for block in range((E + COLUMNS - 1) // COLUMNS):
        columns = block * COLUMNS + tl.arange(0, COLUMNS)
        left = _tile(grad_att + padded * E, rows, columns, end, E, UPCAST)
        right = _tile(v + base, keys, columns, end, E, UPCAST)
        sent += tl.dot(left, tl.trans(right), input_precision=PRECISION)
        left = _tile(grad_att + (part + padded) * E, rows, columns, end, E, UPCAST)
        right = _tile(u + base, keys, columns, end, E, UPCAST)
        sent += tl.dot(left, tl.trans(right), input_precision=PRECISION)
    out += padded * GROUP
    _store(out, rows, keys - first, first + GROUP, GROUP, s * s)
    _store(out + part * GROUP, rows, keys - first, first + GROUP, GROUP, 2.0 * s * sent)
