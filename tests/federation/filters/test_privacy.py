from __future__ import annotations

import numpy as np
import pytest
import torch
from federation.filters.accountant import Accountant
from federation.filters.half_precision import HALVED, FullPrecision, HalfPrecision
from federation.filters.privacy import GaussianPrivacy, clip, gaussian_noise, new_key
from federation.protocol.messages import PRIVACY
from federation.settings import find_site
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext


def norm(update):
    return sum(float(value.double().square().sum()) for value in update.values()) ** 0.5


pytestmark = pytest.mark.usefixtures("state_dir")


def filtered(privacy, data, kind=DataKind.WEIGHT_DIFF, meta=None):
    context = FLContext()
    context.set_prop(ReservedKey.IDENTITY_NAME, "site-1", private=False, sticky=False)
    return from_shareable(privacy.process(DXO(kind, data, meta).to_shareable(), context))


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


@pytest.fixture
def known_keys(monkeypatch):
    """Let every release take the next of these keys."""
    keys = iter(range(1, 100))
    monkeypatch.setattr("federation.filters.privacy.new_key", lambda: next(keys))


def test_the_noise_has_the_deviation_that_the_accountant_counts(known_keys):
    clip_norm, multiplier = 0.5, 1.5
    privacy = GaussianPrivacy(clip_norm, multiplier)
    sent = filtered(privacy, {"a": torch.full((200, 500), 7.0)})
    noise = sent.data["a"].double() - clip_norm / 100_000**0.5
    # Two clipped updates can be twice the norm apart.
    assert float(noise.std()) == pytest.approx(multiplier * 2 * clip_norm, rel=0.01)
    assert abs(float(noise.mean())) < 4 * multiplier * 2 * clip_norm / 100_000**0.5
    assert sent.data["a"].dtype == torch.float32


def test_it_tells_epsilon_and_delta_of_all_rounds():
    privacy = GaussianPrivacy(1.0, 2.0, delta=1e-6)
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
    sent = filtered(GaussianPrivacy(1.0, 1.0), data)
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


def test_each_release_has_a_key_of_its_own_and_leaves_no_generator_behind(monkeypatch):
    privacy, update = GaussianPrivacy(1.0, 1.0), {"a": torch.zeros(8)}
    one, other = (filtered(privacy, update).data["a"] for _ in range(2))
    assert not torch.equal(one, other)
    # Nothing but the key decides: with one key, a later release has the noise of the first.
    monkeypatch.setattr("federation.filters.privacy.new_key", lambda: 5)
    one, other = (filtered(privacy, update).data["a"] for _ in range(2))
    assert torch.equal(one, other)
    held = vars(privacy).values()
    assert not [x for x in held if isinstance(x, (torch.Generator, np.random.Generator))]


def test_every_bit_of_a_key_counts():
    update = {"a": torch.zeros(16), "b": torch.zeros(3, 2)}
    drawn = [gaussian_noise(update, 1.0, 7 + 2**bit)["a"] for bit in (8, 31, 32, 63, 64, 127)]
    drawn.append(gaussian_noise(update, 1.0, 7)["a"])
    assert len({tuple(noise.tolist()) for noise in drawn}) == len(drawn)
    # The tensors of one update do not share their noise.
    noise = gaussian_noise(update, 2.0, 7)
    assert noise["b"].shape == (3, 2)
    assert not torch.equal(noise["a"][:6], noise["b"].flatten())
    assert torch.equal(noise["a"], 2 * drawn[-1])


def test_keys_have_128_bits():
    keys = [new_key() for _ in range(64)]
    assert len(set(keys)) == len(keys)
    # That none of 64 keys has its highest bits set happens once in 2^64 times.
    assert max(keys).bit_length() == 128
    assert max(key % 2**64 for key in keys).bit_length() == 64


def test_all_jobs_of_a_site_spend_from_one_account(state_dir):
    one, other = GaussianPrivacy(1.0, 2.0), GaussianPrivacy(1.0, 2.0)
    for number, job in enumerate((one, other, one), 1):
        assert filtered(job, {"a": torch.ones(3)}).meta[PRIVACY]["releases"] == number
    kept = sorted(path.name for path in state_dir.iterdir())
    assert kept == ["privacy_account.json", "privacy_account.json.lock"]


@pytest.mark.parametrize("chosen", ["seed", "record"])
def test_a_job_chooses_neither_the_noise_nor_the_account(chosen):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{chosen}'"):
        GaussianPrivacy(1.0, 1.0, **{chosen: 0})


def test_without_a_place_for_the_account_nothing_is_sent(tmp_path, state_dir):
    (tmp_path / "site.yaml").write_text("device: cpu")
    with pytest.raises(ValueError, match=r"site-1: expected state_dir in the site's settings"):
        filtered(GaussianPrivacy(1.0, 1.0), {"a": torch.ones(3)})


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"bank.counts": torch.ones(1).double()}, r"'bank.counts' \(torch.float64\)"),
        ({"n_averaged": torch.tensor(3)}, r"'n_averaged' \(torch.int64\)"),
    ],
)
def test_what_noise_does_not_protect_is_refused_and_nothing_is_spent(data, named, state_dir):
    privacy = GaussianPrivacy(1.0, 1.0, refused=[r"^bank\."])
    with pytest.raises(ValueError, match=rf"expected an update of parameters alone, got {named}"):
        filtered(privacy, {"a": torch.ones(1), **data})
    assert not state_dir.exists()


@pytest.mark.parametrize(("clip_norm", "noise"), [(1, 0), (0, 1), (1, -1), (float("inf"), 1)])
def test_without_noise_or_clipping_it_is_not_called_private(clip_norm, noise):
    with pytest.raises(ValueError, match=r"Without noise epsilon is infinite, which is not privat"):
        GaussianPrivacy(clip_norm, noise)


def test_a_global_model_passes_as_it_is():
    sent = filtered(GaussianPrivacy(1.0, 1.0), {"a": torch.ones(3)}, DataKind.WEIGHTS)
    assert sent.data["a"].tolist() == [1, 1, 1]
    assert PRIVACY not in sent.meta


def test_after_half_precision_it_refuses_and_spends_nothing(state_dir):
    """A small update travels multiplied by 2^24, say, and noise on it would be divided by that."""
    small = {"a": torch.full((1000,), 1e-3)}
    scaled = filtered(HalfPrecision(), small)
    assert scaled.meta[HALVED] == {"a": 24}
    context = FLContext()
    context.set_prop(ReservedKey.IDENTITY_NAME, "site-1", private=False, sticky=False)
    with pytest.raises(ValueError, match="HalfPrecision has scaled, which would shrink the noise"):
        GaussianPrivacy(1.0, 2.0).process(scaled.to_shareable(), context)
    assert not state_dir.exists()


def test_in_the_right_order_the_noise_keeps_its_size():
    sent = filtered(GaussianPrivacy(1.0, 2.0), {"a": torch.full((10_000,), 1e-3)})
    halved = filtered(HalfPrecision(), sent.data)
    whole = filtered(FullPrecision(), halved.data | {}, meta=halved.meta).data["a"]
    assert float(whole.std()) == pytest.approx(4.0, rel=0.05)


def test_a_release_beyond_the_sites_cap_is_not_sent_and_not_counted(tmp_path, state_dir):
    # Two releases with multiplier 2 cost epsilon 2.92 at delta 1e-5, three 3.67.
    (tmp_path / "site.yaml").write_text("state_dir: state\nrules: {most_epsilon: 3}\n")
    privacy = GaussianPrivacy(1.0, 2.0, delta=0.5)
    for _ in range(2):
        filtered(privacy, {"a": torch.ones(3)})
    before = (state_dir / "privacy_account.json").read_bytes()
    with pytest.raises(ValueError, match="the site's cap on epsilon leaves no room for another"):
        filtered(privacy, {"a": torch.ones(3)})
    assert (state_dir / "privacy_account.json").read_bytes() == before


def test_noise_in_name_alone_is_not_sent_where_noise_is_required(tmp_path, state_dir):
    (tmp_path / "site.yaml").write_text("state_dir: state\nrules: {require_private: true}\n")
    privacy = GaussianPrivacy(1.0, 1e-12)
    with pytest.raises(ValueError, match="the site asks for more noise than the job brings"):
        filtered(privacy, {"a": torch.ones(3)})
    with pytest.raises(ValueError, match="the site asks for more noise than the job brings"):
        privacy.check_affordable(find_site("A"))
    assert not state_dir.exists()
