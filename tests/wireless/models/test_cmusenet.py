"""CMuSeNet: sizes, folding, gradients, losses, checkpoints and exports."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.core.weights.export import export
from sixfold.wireless.iq.occupancy import decide, segmentation_scores
from sixfold.wireless.iq.scenes import SceneConfig, draw_scenes, scene_masks
from sixfold.wireless.iq.spectrum import fold, peak_normalised_spectrum
from sixfold.wireless.models.cmusenet import (
    PAPER,
    CMuSeNet,
    CMuSeNetConfig,
    complex_bce,
    complex_focal_loss,
    real_bce,
)
from sixfold.wireless.models.cmusenet.export import exportable
from sixfold.wireless.models.rvnn import RVNN, RVNNConfig, equal_width

TINY = CMuSeNetConfig(bins=64, width=2, layers=(1, 1))
DEEP = CMuSeNetConfig(bins=48, width=2, layers=(1, 2), block="bottleneck")


def trained(config: CMuSeNetConfig, seed: int = 0) -> CMuSeNet:
    """Return a network whose norms have seen something, in eval mode."""
    torch.manual_seed(seed)
    model = CMuSeNet(config).train()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for _ in range(3):
        model(spectra(4, config))
    return model.eval()


def spectra(batch: int, config: CMuSeNetConfig) -> torch.Tensor:
    return torch.rand(batch, 2, *config.folded_shape()) * 2 - 1


def test_the_published_size_has_39_155_264_real_parameters():
    with torch.device("meta"):
        model = CMuSeNet()
    assert sum(p.numel() for p in model.parameters()) == 39_155_264
    assert model.config.folded_shape() == (128, 128)


@pytest.mark.parametrize("config", [TINY, DEEP], ids=["basic", "bottleneck"])
def test_folded_norms_compute_the_same(config):
    model = trained(config)
    x = spectra(3, config)
    folded = model.folded_norms()
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-6)
    names = [type(m).__name__ for m in folded.modules()]
    assert "ComplexConv2d" not in names
    assert "ComplexBatchNorm2d" not in names


@pytest.mark.parametrize("config", [TINY, DEEP], ids=["basic", "bottleneck"])
def test_a_block_does_not_depend_on_the_others_of_its_batch(config):
    model, x = trained(config), spectra(3, config)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-5, atol=1e-6)


def test_a_step_lowers_the_loss():
    torch.manual_seed(0)
    model, x = CMuSeNet(TINY).train(), spectra(8, TINY)
    mask = (torch.rand(8, 64) > 0.7).float()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = complex_focal_loss(model(x), mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_it_compiles_whole(unchecked):
    model, x = trained(TINY), spectra(2, TINY)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


def test_it_exports(tmp_path, unchecked):
    given = exportable(trained(TINY))
    report = export(
        given.module, given.inputs, tmp_path / "x", dynamic=given.dynamic, outputs=given.outputs
    )
    assert set(report["onnx"]["max_abs_error"]) == {"example", "twice the example", "smallest"}


def test_official_weights_are_read_strictly_both_ways(tmp_path):
    model = trained(DEEP)
    official = {
        key: torch.view_as_complex(v.contiguous()) if key.endswith("running_mean") else v
        for key, v in model.state_dict().items()
    }
    torch.save(official, tmp_path / "official.pth")
    loaded = CMuSeNet.from_pretrained(tmp_path / "official.pth", sample_rate_hz=5e6)
    assert loaded.config == DEEP.model_copy(update={"sample_rate_hz": 5e6})
    x = spectra(2, DEEP)
    assert torch.equal(loaded(x), model(x))
    for change in ({"layer1.0.bn9.weight": torch.ones(1)}, {"fc.fc_r.bias": None}):
        state = {k: v for k, v in {**model.state_dict(), **change}.items() if v is not None}
        save_file(state, tmp_path / "broken.safetensors")
        with pytest.raises(UserError, match=next(iter(change)).replace(".", r"\.")):
            CMuSeNet.from_pretrained(tmp_path / "broken.safetensors")


def test_its_own_checkpoint_gives_the_same_output(tmp_path):
    model, x = trained(TINY), spectra(2, TINY)
    save_pretrained(tmp_path / "a.safetensors", model, "cmusenet", TINY)
    assert torch.equal(CMuSeNet.from_pretrained(tmp_path / "a.safetensors")(x), model(x))


def test_segment_starts_from_samples_and_refuses_what_has_no_spectrum():
    model = trained(TINY)
    samples = torch.randn(2, 70, dtype=torch.complex64)
    whole = model.segment(samples)
    assert whole.shape == (2, 2, 64)
    torch.testing.assert_close(model.segment(1e-6 * samples), whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="64 bins needs as many samples, got 63"):
        model.segment(samples[:, :63])
    with pytest.raises(UserError, match="has no power"):
        model.segment(0 * samples)
    samples[1, 3] = float("nan")
    with pytest.raises(UserError, match=r"sample \(1, 3\) is NaN"):
        model.segment(samples)


def test_planar_input_of_another_kind_is_refused():
    with pytest.raises(UserError, match=r"planar spectra .* got \(1, 1, 8, 8\)"):
        CMuSeNet(TINY)(torch.zeros(1, 1, 8, 8))


def test_transfer_trains_a_new_head_alone():
    model = trained(TINY)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.freeze_body(torch.Generator().manual_seed(1))
    learns = {k for k, p in model.named_parameters() if p.requires_grad}
    assert learns == {"fc.fc_r.weight", "fc.fc_r.bias", "fc.fc_i.weight", "fc.fc_i.bias"}
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == learns


def test_the_losses_are_related_as_their_definitions_say():
    p, y = torch.rand(3, 2, 16), (torch.rand(3, 16) > 0.5).float()
    plain = complex_focal_loss(p, y, gamma=0.0)
    torch.testing.assert_close(plain, complex_bce(p, y))
    swapped = complex_bce(p.flip(1), y)
    torch.testing.assert_close(swapped, complex_bce(p, y))
    assert not torch.isclose(real_bce(p, y), real_bce(p.flip(1), y))
    entropy = complex_bce(p, y, reduction="none")
    assert (complex_focal_loss(p, y, **PAPER, reduction="none") <= 6 * entropy).all()
    focal = complex_focal_loss(p, y, reduction="none")
    torch.testing.assert_close(focal.sum(), complex_focal_loss(p, y, reduction="sum"))
    torch.testing.assert_close(focal.mean() / 2, complex_focal_loss(p, y))


def test_the_real_control_has_as_many_parameters_within_a_percent():
    assert equal_width(39_155_264, RVNNConfig()) == RVNNConfig().width
    for reads in ("magnitude", "parts"):
        with torch.device("meta"):
            model = RVNN(RVNNConfig(reads=reads))
        count = sum(p.numel() for p in model.parameters())
        assert abs(count / 39_155_264 - 1) < 0.01


@pytest.mark.parametrize("reads", ["magnitude", "parts"])
def test_the_real_control_ignores_phases_only_where_it_reads_magnitudes(reads, tmp_path):
    torch.manual_seed(0)
    config = RVNNConfig(bins=64, width=3, layers=(1, 2), reads=reads)
    model, x = RVNN(config).eval(), spectra(2, TINY)
    same = torch.allclose(model(x), model(-x), atol=1e-6)
    assert same == (reads == "magnitude")
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    loaded = RVNN.from_pretrained(tmp_path / "a.safetensors")
    assert loaded.config == config
    assert torch.equal(loaded(x), model(x))


@pytest.mark.slow
def test_it_overfits_64_blocks():
    """Average pooling must leave the position of a signal in the features."""
    generator = torch.Generator().manual_seed(0)
    settings = SceneConfig(bins=1024, widths_hz=(0.5e6, 1e6, 2e6), signals=(1, 3))
    scenes = draw_scenes(settings, torch.zeros(64), generator)
    mask = scene_masks(settings, scenes)
    x = fold(peak_normalised_spectrum(scenes.samples, 1024), (32, 32))
    torch.manual_seed(0)
    model = CMuSeNet(CMuSeNetConfig(bins=1024, width=8))
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(120):
        optimiser.zero_grad()
        complex_focal_loss(model(x), mask).backward()
        optimiser.step()
    found = decide(model.eval()(x), "real")
    assert segmentation_scores(found, mask).pixel_accuracy > 0.999


def test_a_reduction_that_there_is_not_is_named(unchecked):
    probabilities, mask = torch.full((1, 2, 8), 0.5), torch.zeros(1, 8)
    for loss in (complex_focal_loss, complex_bce):
        with pytest.raises(UserError, match="no reduction 'means'; did you mean 'mean'"):
            loss(probabilities, mask, reduction="means")  # type: ignore[arg-type]


def test_no_blocks_have_no_probabilities():
    model = CMuSeNet(TINY).eval()
    assert model.segment(torch.zeros(0, 64, dtype=torch.complex64)).shape == (0, 2, 64)
    assert model.packed().segment(torch.zeros(0, 70, dtype=torch.complex64)).shape == (0, 2, 64)


def test_segment_takes_arrays_and_refuses_what_are_no_complex_blocks():
    model = trained(TINY)
    samples = torch.randn(2, 70, dtype=torch.complex64)
    backwards = samples.flip(1).numpy()[:, ::-1]  # negative strides
    found = model.segment(backwards)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, model.segment(samples).numpy())
    for wrong in (samples.real, samples[0], samples[None]):
        with pytest.raises(UserError, match=r"takes complex blocks \(batch, time\)"):
            model.segment(wrong)
    with pytest.raises(UserError, match="samples should be a tensor or an array of numbers"):
        model.segment(None)
