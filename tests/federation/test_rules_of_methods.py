"""The rules, on the networks for which they are meant."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from federation.protocol.contribution import Contribution
from federation.protocol.exchange import Exchange, ExchangeRules, Kind
from federation.server.round import Round, moved

from bundle.networks.dynamic_sharing import DynamicSharing
from bundle.networks.scan_encoder import ScanEncoderNetwork
from bundle.networks.unet import UNet

MODALITIES = ("t1", "t1ce", "t2", "flair")
SIZES = {"modalities": 4, "regions": 3, "filters": 4, "blocks_down": (1, 1), "deep_supervision": 1}
LACKS_T2 = {"t1": 2, "t1ce": 2, "flair": 2}


def trained_without_t2(network):
    """Take a step on a case that lacks t2."""
    torch.manual_seed(0)
    image = torch.randn(1, 4, 16, 16, 16)
    present = torch.tensor([[True, True, False, True]])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    optimizer.zero_grad()
    network(image, present).square().mean().backward()
    optimizer.step()
    return network.state_dict()


def initial(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def test_dynamic_sharing_has_norms_for_each_modality():
    network = DynamicSharing(**SIZES)
    start = initial(network)
    rules = ExchangeRules(MODALITIES, modality_parameters=[r"\.norms\.{index}\."])
    exchange = Exchange(rules, start)
    owners = Counter(part.modality for part in exchange.parts.values())
    assert owners[0] == owners[1] == owners[2] == owners[3] > 0
    sent = exchange.difference(trained_without_t2(network), start, LACKS_T2)
    assert len(sent) == len(start) - owners[2]
    assert sum(bool(sent[k].any()) for k in sent if exchange.parts[k].modality == 0) > 0
    current = Round(exchange, start)
    assert current.offer(Contribution("A", sent, LACKS_T2, 2)) is None
    after = moved(start, current.commit().update)
    for key, part in exchange.parts.items():
        if part.modality == 2:
            assert after[key] is start[key]


@pytest.mark.parametrize(
    ("network", "pattern"),
    [
        (UNet(**SIZES), r"\.conv_init\.weight$"),
        (ScanEncoderNetwork(**SIZES), r"\.mix\.weight$"),
    ],
)
def test_blocks_of_an_absent_modality_stay_byte_for_byte(network, pattern):
    start = initial(network)
    exchange = Exchange(ExchangeRules(MODALITIES, modality_axes={pattern: 1}), start)
    sent = exchange.difference(trained_without_t2(network), start, LACKS_T2)
    current = Round(exchange, start)
    assert current.offer(Contribution("A", sent, LACKS_T2, 2)) is None
    after = moved(start, current.commit().update)
    blocked = [key for key, part in exchange.parts.items() if part.axis is not None]
    assert blocked
    for key in blocked:
        then, now = (state[key].unflatten(1, (4, -1)) for state in (start, after))
        assert then[:, 2].contiguous().numpy().tobytes() == now[:, 2].contiguous().numpy().tobytes()
        assert not torch.equal(then[:, 0], now[:, 0])
    assert {part.kind for part in exchange.parts.values()} == {Kind.PARAMETER}
