from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from federation.filters.half_precision import FullPrecision, HalfPrecision
from federation.filters.privacy import GaussianPrivacy
from federation.protocol.identity import Identity
from federation.protocol.messages import read_message, to_message
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils


def received(message, *filters, site="A"):
    """Send a message through filters and NVFlare's conversions, as its controller gets it."""
    shareable = FLModelUtils.to_shareable(message)
    for part in filters:
        context = FLContext()
        context.set_prop(ReservedKey.IDENTITY_NAME, site, private=False, sticky=False)
        shareable = part.process(shareable, context)
    arrived = FLModelUtils.from_shareable(shareable)
    arrived.meta["client_name"] = site
    return arrived


def test_a_contribution_comes_out_as_it_went_in(contribute):
    given = contribute(identity=Identity(*"1234567"), round=4)
    message = to_message(given)
    assert message.params_type == ParamsType.DIFF
    back = read_message(received(message))
    assert back == replace(given, update=back.update)
    assert all(torch.equal(back.update[key], value) for key, value in given.update.items())


def test_the_senders_name_is_not_what_the_message_says(contribute):
    message = to_message(contribute("liar"))
    assert read_message(received(message, site="honest")).site == "honest"
    with pytest.raises(ValueError, match="expected a message with the sender's name"):
        read_message(message)


def test_arrays_become_tensors_and_other_things_are_left_to_be_refused(contribute):
    message = to_message(contribute())
    message.params["network.head.weight"] = message.params["network.head.weight"].numpy()
    message.params["network.first.weight"] = ["text"]
    back = read_message(received(message))
    assert isinstance(back.update["network.head.weight"], torch.Tensor)
    assert back.update["network.first.weight"] == ["text"]


def test_through_privacy_and_half_precision(contribute, exchange, state, state_dir):
    given = contribute()
    statistics = ("bank.counts", "dice_sums", "teacher.n_averaged")
    update = {key: value for key, value in given.update.items() if key not in statistics}
    message = to_message(replace(given, update=update))
    arrived = received(message, GaussianPrivacy(1.0, 0.5), HalfPrecision(), FullPrecision())
    back = read_message(arrived)
    assert back.bytes == 2 * sum(value.numel() for value in update.values())
    assert back.privacy["releases"] == 1
    assert {value.dtype for value in back.update.values()} == {torch.float32}
    assert back.update.keys() == update.keys()


def test_private_keys_and_names_never_are_in_a_message(exchange, state, find_secrets):
    from federation.protocol.contribution import Contribution

    cases = {"t1": 1, "t2": 1}
    own = {key: value + 1 for key, value in state.items()}
    given = Contribution("A", exchange.difference(own, state, cases), cases, 1, round=0)
    message = to_message(given)
    assert "network.norm.weight" not in message.params
    assert "network.encoders.2.weight" not in message.params
    assert find_secrets(vars(received(message)), ["network.norm.weight", "Case_0001"]) == []


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (FLModel(ParamsType.FULL, {"w": torch.ones(1)}), "expected differences"),
        (FLModel(ParamsType.DIFF, {1: torch.ones(1)}), "expected differences"),
        (FLModel(ParamsType.DIFF, {}), "expected case counts under 'patchwork'"),
        (FLModel(ParamsType.DIFF, {}, meta={"patchwork": {"cases": 3}}), "expected case counts"),
        (
            FLModel(ParamsType.DIFF, {}, meta={"patchwork": {"cases": {1: 3}}}),
            "expected case counts",
        ),
        (
            FLModel(ParamsType.DIFF, {}, meta={"patchwork": {"cases": {}, "identity": {}}}),
            "expected the bundle's version",
        ),
    ],
)
def test_what_is_no_contribution_is_refused(message, reason):
    message.meta["client_name"] = "A"
    with pytest.raises(ValueError, match=reason):
        read_message(message)


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        (
            {"privacy": {"epsilon": 1.5, "odd": torch.ones(1)}},
            "privacy: odd: expected a number, true or false, a text or a list of texts, got a Tens",
        ),
        ({"wire_bytes": -5}, "wire_bytes: expected a whole number from 0 within limits, got -5"),
    ],
)
def test_what_a_site_says_of_itself_is_plain_or_refused(contribute, meta, reason):
    message = to_message(contribute())
    message.meta |= meta
    with pytest.raises(ValueError, match=reason):
        read_message(received(message))
