"""Losses, errors, rollouts and the published schedule, beyond what the golden cases hold."""

import pytest
import torch

from sixfold.core import UserError
from sixfold.pde.fields.forecast import forecast, rollout
from sixfold.pde.fields.schedule import epoch_starts, learning_rate
from sixfold.pde.losses import channel_mse, scaled_norm
from sixfold.pde.metrics import mean_error, rollout_error, scaled_l2
from sixfold.pde.models.fno import FNO, FNOConfig
from sixfold.pde.own_data import run_fno


def network(**settings) -> FNO:
    torch.manual_seed(0)
    config = {"width": 2, "modes": 2, "num_layers": 1, "time_history": 2, **settings}
    model = FNO(FNOConfig.parse(config, "test")).eval()
    channels = model.config.output_channels
    model.normalizer.set(torch.full((channels,), 5.0), torch.full((channels,), 3.0))
    return model


def trajectory(frames: int, channels: int = 1) -> torch.Tensor:
    return 5 + 3 * torch.randn(
        2, frames, channels, 8, 8, generator=torch.Generator().manual_seed(1)
    )


def test_the_scaled_error_knows_no_units():
    prediction, target = trajectory(3), trajectory(3).flip(0)
    errors = scaled_l2(prediction, target)
    assert errors.shape == (2, 3, 1)
    torch.testing.assert_close(scaled_l2(7 * prediction, 7 * target), errors)
    assert float(scaled_norm(target, target)) == 0
    assert float(scaled_norm(torch.zeros_like(target), target)) == 1


def test_a_zero_channel_is_named_or_floored():
    target = trajectory(3, channels=2).clone()
    target[1, 2, 1] = 0
    with pytest.raises(UserError, match="channel 1 is zero everywhere in frame 2 of sample 1"):
        scaled_l2(target, target)
    prediction = target + 1
    found = scaled_norm(prediction, target, reduction="none", floor=0.5)
    torch.testing.assert_close(found[1, 2, 1], torch.tensor(8 / 0.5))


def test_a_smaller_last_batch_weighs_less_unless_asked():
    batches = [torch.full((4, 1, 1), 1.0), torch.full((1, 1, 1), 6.0)]
    assert mean_error(batches) == 2.0
    assert mean_error(batches, official_averaging=True) == 3.5


@pytest.mark.parametrize("future", [1, 2])
def test_a_rollout_is_a_chain_of_forecasts(future):
    model = network(time_future=future)
    with torch.no_grad():
        found = rollout(model, trajectory(3), 5)
        known = trajectory(3)
        while known.shape[1] < 3 + 5:
            known = torch.cat((known, forecast(model, known[:, -2:])), 1)
    torch.testing.assert_close(found, known[:, 3:8], rtol=1e-4, atol=1e-4)


def test_a_rollout_does_not_depend_on_the_batch():
    model = network()
    with torch.no_grad():
        together, alone = rollout(model, trajectory(2), 4), rollout(model, trajectory(2)[1:], 4)
    torch.testing.assert_close(together[1:], alone, rtol=1e-5, atol=1e-5)


def test_the_curve_averages_trajectories_and_channels():
    scores = rollout_error(trajectory(4, 3), trajectory(4, 3).flip(0))
    torch.testing.assert_close(scores.curve, scores.errors.mean((0, 2)))
    assert scores.error == pytest.approx(float(scores.errors.mean()))


def test_too_short_a_history_names_both_numbers():
    with pytest.raises(UserError, match="reads 2 frames, got 1"):
        rollout(network(), trajectory(1), 2)
    with pytest.raises(UserError, match="reads 3 channels, got 1 in"):  # never broadcast
        rollout(network(input_channels=3, output_channels=3), trajectory(2), 2)
    with pytest.raises(UserError, match="reads 1 channels and predicts 2"):
        rollout(network(output_channels=2), trajectory(2), 2)


@pytest.mark.parametrize(
    ("mean", "sd", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], "2 and 2 channels do not fit a network of 1"),
        ([0.0], [0.0], "drop"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(mean, sd, message):
    with pytest.raises(UserError, match=message):
        network().normalizer.set(torch.tensor(mean), torch.tensor(sd))


def test_the_schedule_peaks_after_the_warm_up_and_ends_at_the_floor():
    rates = [learning_rate(epoch) for epoch in range(51)]
    assert rates[0] == rates[50] == pytest.approx(1e-7)
    assert rates[4] == rates[5] == max(rates) == 2e-4
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_an_epoch_visits_each_trajectory_as_often_as_it_has_frames():
    draw = [epoch_starts([14] * 3, 5, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    which, start = draw[0].T
    assert which.bincount().tolist() == [14, 14, 14]
    assert set(start.tolist()) == set(range(10))


def test_errors_are_of_the_same_frames(unchecked):
    for other in (trajectory(1), trajectory(3)[:1]):  # both would broadcast
        with pytest.raises(UserError, match=r"should have one shape, got .* and \(2, 3, 1, 8, 8\)"):
            rollout_error(other, trajectory(3))


@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:99", "mps", "hpu", ""])
def test_a_device_that_is_not_there_is_named(tmp_path, device, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    with pytest.raises(UserError) as found:
        run_fno(tmp_path, tmp_path / "b", weights="none", device=device)
    assert str(found.value) == (
        f"device {device!r} cannot be used: this machine, with its torch and drivers, has cpu; "
        "choose cpu"
    )


def test_a_reduction_that_there_is_not_is_named(unchecked):
    frames = torch.ones(1, 1, 1, 4, 4)
    with pytest.raises(UserError, match="no reduction 'means'; did you mean 'mean'"):
        scaled_norm(frames, frames, reduction="means")  # type: ignore[arg-type]


def test_a_history_may_be_an_array_and_must_be_finite():
    history = trajectory(3)
    with torch.no_grad():
        found = rollout(network(), history.flip(1).numpy()[:, ::-1], 2)
        assert torch.equal(found, rollout(network(), history, 2))
    history[1, 2, 0, 3, 4] = float("nan")
    with pytest.raises(UserError, match=r"the first at \(1, 2, 0, 3, 4\)"):
        rollout(network(), history, 2)
    with pytest.raises(UserError, match="a history is"):
        rollout(network(), history[0], 2)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("loss", [channel_mse, scaled_norm])
def test_frames_of_other_shapes_are_not_broadcast(loss):
    with pytest.raises(UserError, match="prediction and target should have one shape"):
        loss(torch.ones(1, 1, 1, 4, 4), torch.ones(2, 1, 1, 4, 4))
