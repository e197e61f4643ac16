from __future__ import annotations

import numpy as np
import pytest
import torch
from federation.filters.accountant import Accountant
from federation.filters.privacy import GaussianPrivacy, clip
from federation.protocol.messages import PRIVACY
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_context import FLContext


def norm(update):
    return sum(float(value.double().square().sum()) for value in update.values()) ** 0.5


def filtered(privacy, data, kind=DataKind.WEIGHT_DIFF):
    return from_shareable(privacy.process(DXO(kind, data=data).to_shareable(), FLContext()))


def test_a_long_update_is_shortened_and_a_short_one_stays():
    update = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    assert norm(clip(update, 1.0)) == pytest.approx(1.0)
    assert clip(update, 1.0)["b"].tolist() == [[pytest.approx(0.8)]]
    assert norm(clip(update, 5.0)) == norm(clip(update, 100.0)) == 5.0
    assert norm(clip({"a": torch.zeros(2)}, 1.0)) == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_clipped_but_refused(bad):
    with pytest.raises(ValueError, match=r"expected a finite update.*Nothing was sent"):
        clip({"a": torch.tensor([bad])}, 1.0)


def test_the_noise_has_the_deviation_that_the_accountant_counts():
    clip_norm, multiplier = 0.5, 1.5
    privacy = GaussianPrivacy(clip_norm, multiplier, seed=0)
    sent = filtered(privacy, {"a": torch.full((200, 500), 7.0)})
    noise = sent.data["a"].double() - clip_norm / 100_000**0.5
    # Two clipped updates can be twice the norm apart.
    assert float(noise.std()) == pytest.approx(multiplier * 2 * clip_norm, rel=0.01)
    assert abs(float(noise.mean())) < 4 * multiplier * 2 * clip_norm / 100_000**0.5
    assert sent.data["a"].dtype == torch.float32


def test_it_tells_epsilon_and_delta_of_all_rounds():
    privacy = GaussianPrivacy(1.0, 2.0, delta=1e-6, seed=0)
    expected = Accountant(1e-6)
    for number in range(1, 4):
        told = filtered(privacy, {"a": torch.ones(3)}).meta[PRIVACY]
        expected.spend(2.0)
        assert told["epsilon"] == expected.epsilon()
        assert told["delta"] == 1e-6
        assert told["releases"] == number
        assert told["statement"].startswith(f"after {number} release(s): epsilon ")


def test_the_message_is_a_copy_and_arrays_stay_arrays():
    data = {"a": np.ones(3, dtype=np.float32), "b": torch.ones(2)}
    sent = filtered(GaussianPrivacy(1.0, 1.0, seed=0), data)
    assert isinstance(sent.data["a"], np.ndarray)
    assert isinstance(sent.data["b"], torch.Tensor)
    assert data["a"].tolist() == [1, 1, 1]
    assert data["b"].tolist() == [1, 1]


def test_the_noise_is_not_that_of_the_training_seed():
    sent = []
    for _ in range(2):
        torch.manual_seed(0)
        sent.append(filtered(GaussianPrivacy(1.0, 1.0), {"a": torch.zeros(8)}).data["a"])
    assert not torch.equal(*sent)


def test_each_round_has_noise_of_its_own():
    privacy = GaussianPrivacy(1.0, 1.0, seed=0)
    one, other = (filtered(privacy, {"a": torch.zeros(8)}).data["a"] for _ in range(2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"bank.counts": torch.ones(1).double()}, r"'bank.counts' \(torch.float64\)"),
        ({"n_averaged": torch.tensor(3)}, r"'n_averaged' \(torch.int64\)"),
    ],
)
def test_what_noise_does_not_protect_is_refused_and_nothing_is_spent(data, named):
    privacy = GaussianPrivacy(1.0, 1.0, refused=[r"^bank\."])
    with pytest.raises(ValueError, match=rf"expected an update of parameters alone, got {named}"):
        filtered(privacy, {"a": torch.ones(1), **data})
    assert privacy.accountant.releases == 0


@pytest.mark.parametrize(("clip_norm", "noise"), [(1, 0), (0, 1), (1, -1), (float("inf"), 1)])
def test_without_noise_or_clipping_it_is_not_called_private(clip_norm, noise):
    with pytest.raises(ValueError, match=r"Without noise epsilon is infinite, which is not privat"):
        GaussianPrivacy(clip_norm, noise)


def test_a_global_model_passes_as_it_is():
    sent = filtered(GaussianPrivacy(1.0, 1.0), {"a": torch.ones(3)}, DataKind.WEIGHTS)
    assert sent.data["a"].tolist() == [1, 1, 1]
    assert PRIVACY not in sent.meta
