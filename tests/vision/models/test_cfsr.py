import pytest
import torch
from reference_cfsr import ReferenceCFSR
from tiny_networks import tiny_cfsr

from sixfold.core import UserError
from sixfold.core.weights.building import build_on_meta
from sixfold.core.weights.convert import load_strict, save_pretrained
from sixfold.vision import CFSR, CFSRConfig
from sixfold.vision.models.cfsr import SYSTEM, convert
from sixfold.vision.models.cfsr.layers import EDGES, MASKS


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("masks", ["true", "official"])
def test_the_merged_form_computes_the_same(masks):
    model, x = tiny_cfsr(edge_masks=masks), pictures(2, 3, 9, 7)
    merged = model.merged()
    assert not any(edge in name for name in merged.state_dict() for edge in EDGES)
    torch.testing.assert_close(merged(x), model(x), rtol=1e-5, atol=1e-6)


def test_the_true_masks_are_the_operators_that_the_paper_names():
    for mask in MASKS["true"].values():
        assert sum(map(sum, mask)) == 0  # no answer to a flat picture
    assert sum(map(sum, MASKS["official"]["sobel_x"])) == 0
    ramp = torch.arange(3.0).repeat(3, 1)
    assert (torch.tensor(MASKS["true"]["sobel_x"]) * ramp).sum() == -8
    assert (torch.tensor(MASKS["true"]["sobel_y"]) * ramp.T).sum() == -8
    assert (torch.tensor(MASKS["true"]["laplacian"]) * ramp**2).sum() == 2


def test_the_edges_count_and_so_do_their_masks():
    x = pictures(1, 3, 9, 7)
    true, official = tiny_cfsr(edge_masks="true"), tiny_cfsr(edge_masks="official")
    state = {k: v for k, v in true.state_dict().items() if "mask_" not in k}
    load_strict(
        official, state | {k: v for k, v in official.state_dict().items() if "mask_" in k}, ""
    )
    assert (true(x) - official(x)).abs().max() > 1e-3


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize(
    "settings", [{}, {"img_range": 255.0}, {"edge_masks": "official"}], ids=str
)
def test_both_forms_save_and_load(tmp_path, merged, settings):
    model, x = tiny_cfsr(**settings), pictures(1, 3, 6, 5)
    model = model.merged() if merged else model
    save_pretrained(tmp_path / "m.safetensors", model, SYSTEM.name, model.config)
    loaded = CFSR.from_pretrained(tmp_path / "m.safetensors")
    assert loaded.config == model.config
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize(
    "settings",
    [
        {"upscale": 3, "depths": (2, 1, 1), "mlp_ratio": 3},
        {"in_chans": 1, "upscale": 1, "dw_size": 3},
        {"upsampler": "", "upscale": 1, "in_chans": 2},
        {"edge_branches": False, "upscale": 5},
        {"edge_masks": "official"},
    ],
    ids=str,
)
def test_sizes_and_form_are_read_off_the_weights(tmp_path, settings):
    model = tiny_cfsr(**settings)
    torch.save({"params": model.state_dict()}, tmp_path / "official.pth")
    loaded = CFSR.from_pretrained(tmp_path / "official.pth")
    ignored = {"layer_scale": model.config.layer_scale}
    assert loaded.config.model_copy(update=ignored) == model.config
    x = pictures(1, model.config.in_chans, 7, 8)
    assert torch.equal(loaded(x), model(x))


def test_masks_of_the_file_hold_and_without_any_the_official_ones_do():
    model = tiny_cfsr(edge_masks="official")
    state = model.state_dict()
    bare = {k: v for k, v in state.items() if "mask_" not in k}
    assert convert(bare)[1].keys() == state.keys()
    assert all(torch.equal(convert(bare)[1][k], state[k]) for k in state)
    odd = {k: 2 * v if "mask_" in k else v for k, v in state.items()}
    assert torch.equal(convert(odd)[1]["layers.0.blocks.0.mlp.mask_laplacian"][0, 0, 1, 1],
                       torch.tensor(-8.0))  # fmt: skip


@pytest.mark.parametrize("dw_size", [1, 3])
def test_cropped_kernels_are_those_with_outer_rings_of_zeros(dw_size):
    model, x = tiny_cfsr(), pictures(1, 3, 9, 7)
    cropped = model.cropped(dw_size)
    ring = (5 - dw_size) // 2
    for name, value in model.state_dict().items():
        if "lkb_reparam.weight" in name:
            keep = torch.zeros_like(value)
            keep[..., ring : 5 - ring, ring : 5 - ring] = 1
            value.mul_(keep)
    torch.testing.assert_close(cropped(x), model(x))


def test_the_receptive_radius_is_what_a_gradient_reaches():
    model = tiny_cfsr().double()
    radius = model.config.receptive_radius()
    assert CFSRConfig().receptive_radius() == 63
    x = torch.rand(1, 3, 2 * radius + 5, 2 * radius + 5, dtype=torch.float64, requires_grad=True)
    centre = radius + 2
    model(x)[0, :, 2 * centre : 2 * centre + 2, 2 * centre].sum().backward()
    assert x.grad is not None
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (rows.min(), rows.max()) == (centre - radius, centre + radius)


def test_one_step_lowers_the_loss_and_gradients_reach_everything():
    model, x = tiny_cfsr(layer_scale=0.1).train(), pictures(2, 3, 8, 8)
    target = pictures(2, 3, 16, 16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        loss = (model(x) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_it_compiles_whole(unchecked):
    model, x = tiny_cfsr(), pictures(1, 3, 6, 5)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype):
    model, x = tiny_cfsr(), pictures(1, 3, 6, 5)
    torch.testing.assert_close(
        tiny_cfsr().to(dtype)(x.to(dtype)).float(), model(x), rtol=0, atol=0.05
    )


def test_a_batch_is_its_pictures():
    model, x = tiny_cfsr(), pictures(3, 3, 6, 5)
    torch.testing.assert_close(model(x), torch.cat([model(one[None]) for one in x]))


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.rand(1, 4, 5, 5), r"takes float pictures shaped \(batch, 3, height, width\), got"),
        (torch.rand(3, 5, 5), r"got torch.float32 \(3, 5, 5\)"),
        (torch.zeros(1, 3, 5, 5, dtype=torch.uint8), "got torch.uint8"),
        (torch.rand(1, 3, 0, 5), r"no pixels: \(1, 3, 0, 5\)"),
    ],
    ids=["channels", "axes", "bytes", "nothing"],
)
def test_other_inputs_are_refused(x, reason):
    with pytest.raises(UserError, match=reason):
        tiny_cfsr()(x)


def test_what_cannot_be_merged_or_cropped_says_why():
    model = tiny_cfsr()
    with pytest.raises(UserError, match=r"training mode; call model.eval\(\)"):
        tiny_cfsr().train().merged()
    with pytest.raises(UserError, match="it is merged already"):
        model.merged().merged()
    for size in (4, 7, 0):
        with pytest.raises(UserError, match=f"side 5 cannot be cropped to {size}"):
            model.cropped(size)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"dw_size": 4}, "even side 4"), ({"upsampler": ""}, "upscale 4 needs an upsampler")],
)
def test_settings_that_contradict_themselves_are_refused(settings, reason):
    with pytest.raises(UserError, match=reason):
        CFSRConfig.parse(settings, "here")


def test_weights_of_another_system_are_refused(tmp_path):
    from tiny_networks import tiny_imdn

    torch.save(tiny_imdn().state_dict(), tmp_path / "imdn.pth")
    with pytest.raises(UserError, match="are not CFSR's"):
        CFSR.from_pretrained(tmp_path / "imdn.pth")
    with pytest.raises(UserError, match=r"incomplete: it has no 'conv_first.weight'"):
        convert({"norm.weight": torch.ones(3)})


@pytest.mark.parametrize("settings", [{}, {"edge_branches": False}, {"img_range": 9.0}], ids=str)
def test_outputs_and_gradients_are_those_of_the_published_formulation(settings):
    model, x = tiny_cfsr(**settings).double(), pictures(2, 3, 7, 6).double()
    results = []
    for network in (model, ReferenceCFSR(model)):
        model.zero_grad()
        y = network(x)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in model.parameters())])  # type: ignore
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_absurdly_many_channels_are_refused_before_any_number_is_listed():
    with pytest.raises(UserError, match="the model would take more than 4000000000 bytes"):
        build_on_meta(CFSR, CFSRConfig(in_chans=10**9), "params.yaml", most_bytes=2**30)
