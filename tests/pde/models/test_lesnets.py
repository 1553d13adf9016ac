"""LESnets' networks and loss: sizes, resolutions, padding, checkpoints, the published mistakes."""

import math
from typing import Any, cast

import pytest
import torch
from reference_lesnets import ReferenceLESnets, gradients
from turbulent_fields import (
    CUBE,
    random_field,
    smagorinsky_sequence,
    taylor_green_2d,
    taylor_green_3d,
)

from sixfold.core import UserError, load_strict
from sixfold.core.pipeline.measure import count_parameters
from sixfold.core.weights.convert import save_pretrained
from sixfold.core.weights.export import export
from sixfold.pde.models.lesnets import SYSTEM, LESnets, LESnetsConfig, convert, to_official
from sixfold.pde.models.lesnets.export import exportable
from sixfold.pde.models.lesnets.layers import ACTIVATIONS, Head
from sixfold.pde.models.lesnets.loss import (
    Flow,
    closed_form_coefficient,
    official_loss,
    physics_loss,
    residual,
)

TINY = LESnetsConfig(num_layers=2, width=4, modes=(2, 2, 2, 2), head_width=8, frames=4)


def tiny_config(**settings: Any) -> LESnetsConfig:
    return LESnetsConfig.parse(TINY.model_dump() | settings, "tiny")


def flow(viscosity: float, time_step: float, smagorinsky: float = 0.0, n: int = 8) -> Flow:
    return Flow(
        viscosity=viscosity,
        box=CUBE,
        time_step=time_step,
        smagorinsky=smagorinsky,
        filter_width=2 * math.pi / n,
    )


@pytest.fixture
def tiny() -> LESnets:
    torch.manual_seed(0)
    return LESnets(TINY)


@pytest.mark.parametrize(("size", "count"), [("FNO", 1_061_733_475), ("IFNO", 622_123_565)])
def test_sizes_are_published_with_a_complex_weight_counted_once(size, count):
    published, real = SYSTEM.published[size]
    config = cast(LESnetsConfig, published)
    layers = config.num_layers if config.network == "fno" else 1
    m1, m2, m3, m4 = config.modes
    complex_numbers = layers * 8 * m1 * m2 * m3 * m4 * config.width**2
    assert count_parameters(SYSTEM, config).count == real == count + complex_numbers


@pytest.mark.parametrize("network", ["fno", "ifno"])
def test_no_fields_give_no_frames(network):
    model = LESnets(tiny_config(network=network, residual_output=True))
    found = model(torch.zeros(0, 8, 8, 8, 3))
    assert found.shape == (0, 8, 8, 8, 3, 4)
    found.sum().backward()


@pytest.mark.parametrize("network", ["fno", "ifno"])
def test_weights_go_to_the_official_names_and_back(network, tmp_path):
    values = {"network": network, "num_layers": 3, "learned_coefficient": True}
    config = tiny_config(**values)
    torch.manual_seed(0)
    model, path = LESnets(config).eval(), tmp_path / "official.pth"
    torch.save({"model": to_official(model), "optim": {}, "scheduler": {}}, path)
    known = {"frames": 4} | ({"network": "ifno", "num_layers": 3} if network == "ifno" else {})
    again = LESnets.from_pretrained(path, **known)
    u0 = random_field(8, 0)
    assert torch.equal(again(u0), model(u0))


def test_a_checkpoint_that_does_not_fit_is_refused(tiny):
    official = to_official(tiny)
    missing = {k: v for k, v in official.items() if k != "sp_convs.1.weights5"}
    with pytest.raises(UserError, match=r"incomplete: it has no 'sp_convs\.1\.weights5'"):
        convert(missing)
    with pytest.raises(UserError, match=r"ws\.7\.bias belong to no layer"):
        convert(official | {"ws.7.bias": torch.zeros(4)})


def test_our_checkpoint_holds_the_flow(tiny, tmp_path):
    config = TINY.model_copy(update={"flow": flow(0.1, 0.02)})
    save_pretrained(tmp_path / "model.safetensors", tiny, "lesnets", config)
    again = LESnets.from_pretrained(tmp_path / "model.safetensors")
    assert again.config.flow == flow(0.1, 0.02)
    load_strict(tiny, again.state_dict(), "the copy")


@pytest.mark.parametrize("network", ["fno", "ifno"])
def test_a_batch_of_two_is_two_batches_of_one(network):
    torch.manual_seed(0)
    model = LESnets(tiny_config(network=network))
    fields = torch.cat((random_field(8, 0), random_field(8, 1)))
    torch.testing.assert_close(
        model(fields), torch.cat([model(one[None]) for one in fields]), rtol=1e-4, atol=1e-6
    )


def test_the_residual_output_adds_the_initial_field(tiny):
    added = LESnets(tiny_config(residual_output=True))
    added.load_state_dict(tiny.state_dict())
    u0 = random_field(8, 0)
    torch.testing.assert_close(added(u0), tiny(u0) + u0[..., None])


def test_a_fourier_layer_is_the_same_on_a_grid_twice_as_fine(tiny):
    """A band-limited field has the same values at the points that both grids have."""
    coarse, fine = (random_field(n, 3).movedim(-1, 1)[..., None] for n in (8, 16))
    time = torch.linspace(0, 1, 4)
    layer, lift = tiny.layers[0], torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    values = [layer(torch.einsum("oc,bcxyzt->boxyzt", lift, u * time)) for u in (coarse, fine)]
    torch.testing.assert_close(values[1][:, :, ::2, ::2, ::2], values[0], rtol=0, atol=1e-5)


def test_padding_is_a_fraction_of_the_domain():
    """Twice the grid has twice the points of it, and half of it less of everything."""
    config = tiny_config(domain_padding=(0.25, 0.0, 0.5, 0.5))
    torch.manual_seed(0)
    model, seen = LESnets(config), []
    model.layers[0].register_forward_hook(lambda _, args, out: seen.append(out.shape[2:]))
    assert model(random_field(8, 0)).shape == (1, 8, 8, 8, 3, 4)
    model(random_field(16, 0))
    assert seen == [(10, 8, 12, 6), (20, 16, 24, 6)]


def test_grids_and_frames_too_small_for_the_modes_are_refused(tiny):
    with pytest.raises(UserError, match=r"takes grids from \(4, 4, 4\) points, got \(3, 3, 3\)"):
        tiny(torch.zeros(1, 3, 3, 3, 3))
    model = LESnets(tiny_config(frames=2, modes=(2, 2, 2, 3)))
    with pytest.raises(UserError, match="3 modes of time, but 2 frames have 2"):
        model(random_field(8, 0))


def test_taylor_green_solves_the_equations_in_the_right_order_only():
    """The residual of an exact solution is the error of the time derivative, dt^2 / 6 u_ttt."""
    nu, step = 1 / 64, 0.02
    frames = taylor_green_2d(8, nu, step, 4)
    true = flow(nu, step)
    bound = (step**2 / 6 * (2 * nu) ** 3) ** 2
    assert float(physics_loss(frames, true, 0.0)) < bound
    assert float(official_loss(frames, true, 0.0, "dhit", second=True)) < bound
    # the published call takes Cs2 = 0 for the viscosity, and adds the stress of Cs2 = nu
    wrong = float(official_loss(frames, true, 0.0, "dhit"))
    assert wrong > 1e6 * bound
    assert float(official_loss(frames, true, 0.0, "tml")) < 4 * bound


def test_the_swapped_arguments_are_solved_by_another_flow():
    """Told nu = 0 and Cs2 = 1/64, the published loss vanishes for frames that decay with 1/64."""
    step, told = 0.02, flow(0.0, 0.02)
    decaying, steady = (taylor_green_2d(8, nu, step, 4) for nu in (1 / 64, 0.0))
    assert float(official_loss(decaying, told, 1 / 64, "dhit")) < 1e-12
    assert float(official_loss(steady, told, 1 / 64, "dhit")) > 1e-5
    assert float(physics_loss(steady, told, 0.0)) < 1e-12  # what was meant
    assert float(physics_loss(decaying, told, 0.0)) > 1e-5


def test_gradients_of_the_residual_are_right_in_double_precision():
    frames = random_field(4, 0, torch.float64)[..., None] * torch.tensor([1.0, 0.9, 0.7]).double()
    value = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    flow_4 = flow(0.1, 0.1, n=4)
    assert torch.autograd.gradcheck(
        lambda u, c: physics_loss(u, flow_4, c), (frames.requires_grad_(), value), fast_mode=True
    )


def test_gradients_are_finite_at_zero_strain():
    frames = torch.ones(1, 4, 4, 4, 3, 3, requires_grad=True)
    value = torch.tensor(0.02, requires_grad=True)
    physics_loss(frames, flow(0.1, 0.1, n=4), value).backward()
    for tensor in (frames, value):
        assert tensor.grad is not None
        assert bool(tensor.grad.isfinite().all())


@pytest.mark.parametrize("true", [0.01, 0.02])
def test_the_closed_form_finds_the_coefficient_of_a_simulation(true):
    frames = smagorinsky_sequence(random_field(8, 1, torch.float64), 6, 0.02, 1 / 32, true)
    found = float(closed_form_coefficient(frames, flow(1 / 32, 0.02)))
    assert found == pytest.approx(true, rel=0.01)


def test_the_divergence_is_the_true_one():
    frames = taylor_green_3d(8)[..., None].expand(-1, -1, -1, -1, -1, 3)
    assert float(residual(frames, flow(0.1, 0.1), 0.0)[1].abs().max()) < 1e-12
    frames = frames.flip(-2)  # the components in another order
    assert float(residual(frames, flow(0.1, 0.1), 0.0)[1].abs().max()) > 0.1


def test_the_network_compiles_whole(tiny, unchecked):
    u0 = random_field(8, 0)
    compiled = torch.compile(tiny, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(u0), tiny(u0), rtol=1e-4, atol=1e-6)


def test_the_network_is_the_published_one_term_by_term():
    """Against a literal transcription, at an uneven grid, with more points than a head's block."""
    config = tiny_config(modes=(2, 3, 2, 2), frames=6)
    torch.manual_seed(0)
    model = LESnets(config)
    reference, u0 = ReferenceLESnets(model), torch.randn(2, 10, 12, 14, 3)
    found, expected = model(u0), reference(u0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for output in (found, expected):
        output.square().mean().backward()
    spectral = gradients(reference)["sp_convs_0_weights7"]
    ours = model.get_parameter("layers.0.spectral").grad
    assert ours is not None
    block = torch.view_as_complex(ours[:2, 3:, 2:].contiguous()).movedim((-2, -1), (0, 1))
    torch.testing.assert_close(block, spectral, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("act", ["gelu", "tanh"])
def test_the_head_in_blocks_is_the_head(act, monkeypatch):
    """Values and gradients, in both precisions, of views too, the last block smaller."""
    monkeypatch.setattr("sixfold.pde.models.lesnets.head.BLOCK", 7)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 3, 2, 4, dtype=torch.float64)[:, :, :, :, :, :3]
    head = Head(3, 5, act).double()

    def plain(x, *weights):
        w1, b1, w2, b2 = weights
        hidden = ACTIVATIONS[act](torch.einsum("hc,bcxyzt->bxyzth", w1, x) + b1)
        return (hidden @ w2.T + b2).movedim(-1, 1)

    leaves = [x.requires_grad_(), *head.parameters()]
    torch.testing.assert_close(head(x), plain(*leaves))
    found, wanted = (
        torch.autograd.grad(y.square().sum(), leaves) for y in (head(x), plain(*leaves))
    )
    torch.testing.assert_close(found, wanted)
    expected = plain(*leaves)
    head = head.float()
    single = head(x.float())
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5)
    single = torch.autograd.grad(single.square().sum(), list(head.parameters()))
    for one, other in zip(single, wanted[1:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["fno", "ifno"])
def test_exports_compute_the_same_for_any_number_of_fields(network, tmp_path, unchecked):
    """Only real products are left in the graphs; the batch is free, the grid is not."""
    torch.manual_seed(0)
    model = LESnets(tiny_config(network=network, grid=(6, 8, 8))).eval()
    given = exportable(model)
    report = export(
        given.module, given.inputs, tmp_path, dynamic=given.dynamic, outputs=given.outputs
    )
    for form in ("torch_export", "onnx"):
        assert max(report[form]["max_abs_error"].values()) < 1e-4
        assert set(report[form]["max_abs_error"]) == {"example", "twice the example", "smallest"}
