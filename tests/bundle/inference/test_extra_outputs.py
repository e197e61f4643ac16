from __future__ import annotations

import logging

import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import Tensor, nn

from bundle.inference.extra_outputs import (
    ExtraOutputs,
    SplitAbsentd,
    complete,
    disagreement,
)
from bundle.inference.inferers import PresenceInferer
from bundle.inference.temperatures import Temperatures
from bundle.modalities import all_subsets, subset_code
from bundle.networks.universal import UniversalNetwork

SIZE = (12, 14, 16)
BRAIN = (slice(3, 9), slice(4, 11), slice(5, 13))
NAMES = ("t1", "t1ce", "t2")


def head(*present: bool) -> Tensor:
    """A case (1, M, D, H, W) with noise of its own in the brain of each present modality."""
    image = torch.zeros(1, len(present), *SIZE)
    noise = torch.rand(image[(..., *BRAIN)].shape, generator=torch.Generator().manual_seed(0)) + 1
    image[(..., *BRAIN)] = noise * torch.tensor(present)[:, None, None, None]
    return image


def outside_brain() -> Tensor:
    outside = torch.ones(SIZE, dtype=torch.bool)
    outside[BRAIN] = False
    return outside


class Constant(nn.Module):
    """Predicts the same two regions whatever it is given."""

    def forward(self, window: Tensor, present: Tensor) -> Tensor:
        shape = (len(window), 1, *window.shape[2:])
        return torch.cat([torch.full(shape, 0.3), torch.full(shape, -1.7)], 1)


class ByPresence(nn.Module):
    """Predicts logits that are sums of one number per present modality, one row a region."""

    weights = torch.tensor([[0.5, -1.0, 2.0], [0.1, 0.2, 0.0]])

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[bool]] = []

    def forward(self, window: Tensor, present: Tensor) -> Tensor:
        self.seen.append(present[0].tolist())
        logits = present.float() @ self.weights.T
        return logits[:, :, None, None, None].expand(-1, -1, *window.shape[2:])


class Rebuilder(nn.Module):
    """Rebuilds every modality as 7, also where there is no brain."""

    def __init__(self) -> None:
        super().__init__()
        self.learning: list[bool] = []

    def forward(self, window: Tensor, present: Tensor) -> Tensor:
        self.learning.append(self.training or torch.is_grad_enabled())
        return torch.full_like(window, 7.0)


def by_hand(*subsets: tuple[bool, ...]) -> float:
    """The uncertainty of `ByPresence` for these members."""
    logits = torch.tensor(subsets, dtype=torch.float64) @ ByPresence.weights.double().T
    return float(logits.sigmoid().std(0, correction=0).max())


def infer(network, image, present, completed=None) -> Tensor:
    inferer = PresenceInferer(SimpleInferer(), margin=1)
    logits = inferer(image, network, present=present)
    return disagreement(inferer, network, image, present, logits, completed)


def test_what_was_scanned_stays_and_the_rest_is_rebuilt_inside_the_brain_alone():
    torch.manual_seed(0)
    network = UniversalNetwork(3, 2, filters=4, blocks_down=(1, 1), deep_supervision=1).eval()
    windows = SlidingWindowInferer((8, 8, 8), sw_batch_size=2, overlap=0.5, mode="gaussian")
    image = torch.cat([head(True, False, True), head(False, True, False)])
    present = torch.tensor([[True, False, True], [False, True, False]])
    with torch.no_grad():
        completed = complete(PresenceInferer(windows), network.autoencoder, image, present)
    assert completed.shape == image.shape
    assert torch.equal(completed[present], image[present])
    assert bool((completed[~present][:, outside_brain()] == 0).all())
    assert bool((completed[~present][(..., *BRAIN)] != 0).any())
    assert bool(completed.isfinite().all())


def test_what_an_absent_channel_holds_is_never_taken_for_a_scan():
    image, present = head(True, True, False), torch.tensor([[True, True, False]])
    image[0, 2] = float("nan")
    completed = complete(PresenceInferer(SimpleInferer(), margin=2), Rebuilder(), image, present)
    expected = torch.zeros(SIZE)
    expected[BRAIN] = 7
    assert torch.equal(completed[0, 2], expected)


def test_nothing_is_run_where_nothing_is_missing():
    image, present = head(True, True, True), torch.ones(1, 3, dtype=torch.bool)
    assert complete(None, None, image, present) is image


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_network_that_ignores_its_input_is_exactly_certain(missing):
    present = torch.tensor([[True] * (3 - missing) + [False] * missing])
    image = head(*present[0].tolist())
    completed = complete(PresenceInferer(SimpleInferer(), margin=1), Rebuilder(), image, present)
    found = infer(Constant(), image, present, completed)
    assert found.shape == (1, 1, *SIZE)
    assert bool((found == 0).all())


ALL = (True, True, True)


@pytest.mark.parametrize(
    ("present", "others"),
    [
        (ALL, [(False, True, True), (True, False, True), (True, True, False)]),
        ((True, False, True), [(False, False, True), (True, False, False), ALL]),
        ((False, True, False), [ALL]),
    ],
)
def test_uncertainty_is_the_spread_over_the_members(present, others):
    image, here = head(*present), torch.tensor([present])
    completed = complete(PresenceInferer(SimpleInferer(), margin=0), Rebuilder(), image, here)
    network = ByPresence()
    found = infer(network, image, here, completed)[0, 0]
    assert network.seen == [list(subset) for subset in (present, *others)]
    expected = by_hand(present, *others)
    assert expected > 0.01
    torch.testing.assert_close(found[BRAIN], torch.full_like(found[BRAIN], expected))
    assert bool((found[:1] == 0).all())


def test_each_member_is_calibrated_with_the_temperatures_of_its_subset():
    rows = {subset: torch.tensor([n in subset for n in NAMES]) for subset in all_subsets(NAMES)}
    values = {
        "+".join(subset): {"A": 1 + 0.5 * len(subset) + 0.1 * subset_code(row[None]).item(), "B": 1}
        for subset, row in rows.items()
    }
    temperatures = Temperatures(NAMES, ("A", "B"), values)
    present, network = torch.tensor([[True, False, True]]), ByPresence()
    image = head(True, False, True)
    inferer = PresenceInferer(SimpleInferer(), margin=0)
    completed = complete(inferer, Rebuilder(), image, present)
    logits = inferer(image, network, present=present)
    found = disagreement(inferer, network, image, present, logits, completed, temperatures)[0, 0]
    subsets = [("t1", "t1ce", "t2"), ("t1", "t2"), ("t1",), ("t2",)]
    members = []
    for subset in subsets:
        z = rows[subset].double() @ ByPresence.weights.double().T
        members.append((z / torch.tensor([values["+".join(subset)]["A"], 1.0])).sigmoid())
    expected = torch.stack(members).std(0, correction=0).max()
    torch.testing.assert_close(found[BRAIN], torch.full_like(found[BRAIN], float(expected)))
    assert abs(float(expected) - by_hand(*[tuple(rows[s].tolist()) for s in subsets])) > 0.01
    assert bool((found[outside_brain()] == 0).all())


def test_uncertainty_ends_at_a_half_where_half_of_the_members_are_certain_of_the_opposite():
    network = ByPresence()
    network.weights = torch.tensor([[100.0, 100.0, -400.0]] * 2)
    image, present = head(False, True, False), torch.tensor([[False, True, False]])
    completed = complete(PresenceInferer(SimpleInferer()), Rebuilder(), image, present)
    assert float(infer(network, image, present, completed).max()) == 0.5


def test_without_a_completed_case_one_modality_has_nothing_to_differ_from():
    network = ByPresence()
    found = infer(network, head(False, True, False), torch.tensor([[False, True, False]]))
    assert network.seen == [[False, True, False]]
    assert bool((found == 0).all())


def test_cases_of_a_batch_are_as_they_would_be_alone():
    rows = torch.tensor([ALL, (True, False, True), (False, True, False)])
    images = torch.cat([head(*row) for row in rows.tolist()])
    completed = complete(PresenceInferer(SimpleInferer()), Rebuilder(), images, rows)
    together = infer(ByPresence(), images, rows, completed)
    apart = [
        infer(ByPresence(), images[i : i + 1], rows[i : i + 1], completed[i : i + 1])
        for i in range(3)
    ]
    assert torch.equal(together, torch.cat(apart))


class WithAutoencoder(ByPresence):
    def __init__(self) -> None:
        super().__init__()
        self.autoencoder = Rebuilder()


def evaluate(network: nn.Module, *rows: tuple[bool, ...], **wishes: bool) -> list[dict]:
    """Run MONAI's own evaluator over one batch; return its output, one dictionary a case."""
    items = [
        {"image": head(*row)[0], "present": torch.tensor(row), "case": f"p{i}"}
        for i, row in enumerate(rows)
    ]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(items, batch_size=len(items)),
        network=network,
        prepare_batch=PrepareBatchExtraInput({"present": "present"}),
        inferer=PresenceInferer(SimpleInferer(), margin=1),
        val_handlers=[ExtraOutputs(**wishes)],
    )
    evaluator.run()
    return evaluator.state.output


@pytest.mark.parametrize("rebuilt", [True, False])
@pytest.mark.parametrize("uncertainty", [True, False])
def test_the_evaluator_gets_what_was_asked_for(rebuilt, uncertainty):
    rows = [(True, False, True), ALL]
    plain = evaluate(WithAutoencoder(), *rows)
    network = WithAutoencoder().train()
    output = evaluate(network, *rows, rebuilt=rebuilt, uncertainty=uncertainty)
    assert network.training
    assert network.autoencoder.learning == [False] * (len(rows) if rebuilt or uncertainty else 0)
    for item, before in zip(output, plain, strict=True):
        assert torch.equal(item["pred"], before["pred"])
        assert ("rebuilt" in item, "uncertainty" in item) == (rebuilt, uncertainty)
    if rebuilt:
        assert torch.equal(output[0]["rebuilt"][[0, 2]], head(*rows[0])[0, [0, 2]])
        assert bool((output[0]["rebuilt"][(1, *BRAIN)] == 7).all())
        assert torch.equal(output[1]["rebuilt"], head(*ALL)[0])
    if uncertainty:
        members = [rows[0], (False, False, True), (True, False, False), ALL]
        assert output[0]["uncertainty"].shape == (1, *SIZE)
        assert float(output[0]["uncertainty"][0, 5, 6, 7]) == pytest.approx(by_hand(*members))


def test_a_network_that_cannot_rebuild_is_refused_before_any_case():
    network = ByPresence()
    with pytest.raises(ValueError, match=r"autoencoder.* co-distillation .* got a ByPresence"):
        evaluate(network, ALL, rebuilt=True)
    assert network.seen == []


def test_a_network_that_cannot_rebuild_still_tells_its_uncertainty(caplog):
    rows = [(True, False, True), (False, True, False)]
    output = evaluate(ByPresence(), *rows, uncertainty=True)
    expected = by_hand(rows[0], (False, False, True), (True, False, False))
    assert float(output[0]["uncertainty"][0, 5, 6, 7]) == pytest.approx(expected)
    assert bool((output[1]["uncertainty"] == 0).all())
    (said,) = [r.getMessage() for r in caplog.records if r.name == "bundle.inference.extra_outputs"]
    assert said.startswith("case p1: with one modality")


def test_absent_modalities_are_taken_apart_with_name_and_place(caplog):
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    rebuilt = MetaTensor(torch.rand(3, 4, 5, 6), affine=affine, meta={"case": "p0"})
    item = {"case": "p0", "rebuilt": rebuilt, "present": torch.tensor([False, True, False])}
    split = SplitAbsentd("rebuilt", NAMES)
    found = split(item)
    assert set(found) == {*item, "rebuilt_t1", "rebuilt_t2"}
    for channel, name in ((0, "t1"), (2, "t2")):
        part = found[f"rebuilt_{name}"]
        assert torch.equal(part.as_tensor(), rebuilt[channel : channel + 1].as_tensor())
        assert torch.equal(part.affine, affine)
        assert part.meta["modality"] == name
    with caplog.at_level(logging.INFO):
        assert set(split({**item, "present": torch.ones(3, dtype=torch.bool)})) == set(item)
    assert "case p0: nothing is missing" in caplog.text
