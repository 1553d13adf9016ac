"""Scenes and modulations against theory; the same scenes for a seed on any batch size."""

import pytest
import torch

from sixfold.core import UserError
from sixfold.wireless.iq.modulation import (
    MODULATIONS,
    Modulation,
    modulate,
    root_raised_cosine,
    symbols_needed,
)
from sixfold.wireless.iq.scenes import SceneConfig, draw_scenes, scene_masks
from sixfold.wireless.iq.spectrum import Band, occupied_mask, spectrum

SMALL = SceneConfig(bins=1024, widths_hz=(0.5e6, 1e6, 2e6), signals=(1, 4))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("fading", ["none", "rayleigh", "rician"])
def test_the_batch_size_changes_no_bit(fading):
    config = SMALL.model_copy(update={"fading": fading})
    whole = draw_scenes(config, torch.zeros(64), seeded())
    for size in (1, 7):
        generator = seeded()
        parts = [draw_scenes(config, torch.zeros(size), generator) for _ in range(64 // size)]
        for name in whole._fields:
            value = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(value, getattr(whole, name)[: len(value)]), name


def test_another_seed_gives_other_scenes_and_rows_are_independent():
    a, b = (draw_scenes(SMALL, torch.zeros(2), seeded(seed)).samples for seed in (0, 1))
    for x, y in ((a[0], a[1]), (a[0], b[0]), (a[1], b[1])):
        cosine = torch.vdot(x, y).abs() / (x.norm() * y.norm())
        assert cosine < 0.5


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_the_snr_is_that_of_the_weakest_signal_in_the_whole_band(snr_db):
    config = SceneConfig(bins=4096, signals=(1, 1), widths_hz=(1e6,))
    scenes = draw_scenes(config, torch.full((40,), snr_db), seeded())
    loud = draw_scenes(config, torch.full((40,), 200.0), seeded())
    noise = (scenes.samples - loud.samples).abs().square().mean()
    signal = loud.samples.abs().square().mean(1)
    expected = 10 ** ((scenes.power_db[:, 0]) / 10)
    torch.testing.assert_close(signal, expected, rtol=1e-3, atol=0.0)
    found = 10 * torch.log10(signal / 10 ** (scenes.noise_power_db / 10))
    torch.testing.assert_close(found, torch.full((40,), snr_db), rtol=0.0, atol=0.01)
    mean_noise = (10 ** (scenes.noise_power_db / 10)).mean()
    torch.testing.assert_close(noise, mean_noise, rtol=0.05, atol=0.0)


def test_signals_lie_in_the_band_and_apart():
    scenes = draw_scenes(SceneConfig(bins=64), torch.zeros(200), seeded())
    low = (scenes.center_hz - scenes.width_hz / 2)[scenes.placed]
    high = (scenes.center_hz + scenes.width_hz / 2)[scenes.placed]
    assert low.min() >= -10e6
    assert high.max() <= 10e6
    assert scenes.placed.any(1).all()
    counts = scenes.placed.sum(1)
    assert counts.max() == 10
    assert len(set(counts.tolist())) >= 8
    for center, width, placed in zip(scenes.center_hz, scenes.width_hz, scenes.placed, strict=True):
        center, width = center[placed], width[placed]
        order = center.argsort()
        gaps = center[order].diff() - (width[order][1:] + width[order][:-1]) / 2
        assert (gaps >= 100e3 - 2).all()


def test_masks_follow_the_label_rule():
    scenes = draw_scenes(SMALL, torch.zeros(5), seeded())
    masks = scene_masks(SMALL, scenes)
    for i in range(5):
        chosen = [
            Band(float(c), float(w))
            for c, w, p in zip(
                scenes.center_hz[i], scenes.width_hz[i], scenes.placed[i], strict=True
            )
            if p
        ]
        assert torch.equal(masks[i], occupied_mask(chosen, 1024, 20e6))


@pytest.mark.parametrize("name", MODULATIONS)
def test_each_modulation_fills_its_width(name):
    """99 % of the power: linear ones fill 0.675 of the label, the others less than all of it."""
    uniform = torch.rand(16, 1024, generator=seeded())
    step, count = 20, 16384  # width: a tenth of the sample rate
    signals = modulate(name, uniform, step, count)
    assert signals.shape == (16, count)
    torch.testing.assert_close(signals.abs().square().mean(1), torch.ones(16))
    power = spectrum(signals, count).abs().square().mean(0)
    total = (power.cumsum(0) / power.sum()).contiguous()
    low, high = torch.searchsorted(total, torch.tensor([0.005, 0.995], dtype=total.dtype))
    width = float(high - low) / count * 10  # in widths of the label
    assert abs(float(high + low) / 2 - count / 2) < 0.01 * count
    bounds = {"gmsk": (0.3, 0.6), "2fsk": (0.25, 0.75)}
    lower, upper = bounds.get(name, (0.55, 0.675))
    assert lower < width < upper


def test_the_pulse_has_no_interference_after_a_matched_filter():
    pulse = root_raised_cosine(8).double()
    both = torch.nn.functional.conv1d(pulse[None, None], pulse.flip(0)[None, None], padding=80)[
        0, 0
    ]
    symbols = both[len(both) // 2 % 8 :: 8] / both.max()
    assert symbols.abs().sort().values[-2] < 0.01


def test_official_names_swap_two_modulations():
    swaps: list[tuple[Modulation, Modulation]] = [("8psk", "8qam"), ("8qam", "8psk")]
    for name, other in swaps:
        ours = SceneConfig(bins=256, signals=(1, 1), modulations=(name,), widths_hz=(2e6,))
        swapped = ours.model_copy(update={"modulations": (other,), "official_names": True})
        a, b = (draw_scenes(c, torch.zeros(2), seeded()).samples for c in (ours, swapped))
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"widths_hz": (3e5,)}, "should divide twice the sample rate"),
        ({"widths_hz": (4e7,)}, "no larger than that rate"),
        ({"signals": (3, 2)}, "smallest number is above the largest"),
    ],
    ids=str,
)
def test_settings_that_make_no_scene_are_refused(values, words):
    with pytest.raises(UserError, match=words):
        SceneConfig.parse(values, "scene")


@pytest.mark.parametrize(
    "wrong", [(0, 0.35, 8), (8, 0.0, 8), (8, 1.5, 8), (8, -0.1, 8), (8, 1.0, 0)]
)
def test_a_pulse_of_no_length_or_roll_off_is_refused(wrong):
    with pytest.raises(UserError, match="a pulse needs samples_per_symbol"):
        root_raised_cosine(*wrong)


@pytest.mark.parametrize("samples", [0, -2])
def test_a_symbol_without_samples_is_refused(samples):
    with pytest.raises(UserError, match="1 sample or more, got"):
        symbols_needed(8, samples)
