"""Processing a stream of blocks equals processing the whole recording."""

import torch
from property_tests import given, settings, st

from sixfold.speech.audio.blocks import padded, trimmed, windows


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 30), max_size=8),
    size=st.integers(1, 20),
    before=st.integers(0, 25),
    after=st.integers(0, 25),
)
def test_windows_hold_every_piece_once_with_its_context(lengths, size, before, after):
    stream = torch.arange(float(sum(lengths)))[None]
    blocks = stream.split(lengths, 1) if lengths else []
    position = 0
    for window, start, stop in windows(blocks, size, before, after):
        assert start == min(before, position)
        assert stop - start == min(size, stream.shape[1] - position)
        end = min(stream.shape[1], position + size + after)
        assert torch.equal(window, stream[:, position - start : end])
        position += stop - start
    assert position == stream.shape[1]


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    again=st.integers(1, 9),
    margin=st.integers(0, 12),
)
def test_trimming_undoes_padding(lengths, again, margin):
    stream = torch.arange(1.0, 1 + sum(lengths))[None]
    whole = torch.cat(list(padded(stream.split(lengths, 1), margin)), 1)
    assert torch.equal(whole, torch.nn.functional.pad(stream, (margin, margin)))
    kept = torch.cat(list(trimmed(whole.split(again, 1), margin, sum(lengths))), 1)
    assert torch.equal(kept, stream)
