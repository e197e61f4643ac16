"""GMD through the real configs, and on two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events

from bundle.modalities import BRATS_MODALITIES

pytestmark = pytest.mark.slow
CONFIGS = ["train.json", "method_gmd.yaml"]

# Means over cases and voxels, so that the mean over the ranks' cases is that over all cases.
TRAINING = """
import sys
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from bundle.methods.gmd.gradients import decouple_gradients
from bundle.methods.gmd.method import GMD
from bundle.networks.dynamic_sharing import DynamicSharing

rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
if ranks > 1:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks
    )


def mine(values):
    return values[rank * len(values) // ranks : (rank + 1) * len(values) // ranks]


def vectors(steps=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    called = DistributedDataParallel(model) if ranks > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    given, wanted = torch.randn(steps, 4, 8, 5).double(), torch.randn(steps, 4, 8, 1).double()
    # The ranks' own generators differ, as after unequal augmentations.
    torch.manual_seed(9 + rank)
    conflicts = 0
    for inputs, targets in zip(given, wanted):
        optimizer.zero_grad()
        pairs = [(mine(x), mine(y)) for x, y in zip(inputs, targets)]
        losses = [(called(x) - y).square().mean() for x, y in pairs]
        report = decouple_gradients(losses, list(model.parameters()))
        conflicts += int(report.conflicts.sum())
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]), conflicts


def images():
    torch.manual_seed(1)
    network = DynamicSharing(4, 1, filters=4, blocks_down=(1, 1), deep_supervision=1).double()

    class Error(nn.Module):
        def forward(self, logits, label):
            return (logits[0] * (1 - 2 * label)).mean()

    method = GMD(network, {"error": Error()}, ("t1", "t1ce", "t2", "flair"), None)
    image, label = torch.randn(4, 4, 8, 8, 8).double(), torch.rand(4, 1, 8, 8, 8) > 0.5
    # Rank 1 has the only case with T2, and of T1 with T1ce there are one and two cases.
    present = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0], [1, 1, 0, 1]]).bool()
    # What is tumour in some cases is healthy in the others.
    label[:] = torch.tensor([0, 1, 0, 1]).bool()[:, None, None, None, None] ^ label[:1]
    batch = {"image": mine(image), "label": mine(label), "present": mine(present)}
    torch.manual_seed(5 if rank == 0 else 6)
    losses = method.losses(batch)
    method.backward(losses)
    slopes = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    return list(losses), slopes, method.dominance.state_dict()


def refused():
    point = nn.Parameter(torch.ones(2))
    try:
        decouple_gradients([point.sum()] * (rank + 1), [point])
    except ValueError as error:
        return str(error)


found = {"vectors": vectors(), "images": images()}
if ranks > 1:
    found["refused"] = refused()
torch.save(found, f"{folder}/{ranks}_{rank}.pt")
if ranks > 1:
    distributed.barrier()
    distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds, and each of two that have half of the cases each."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "training.py"
    script.write_text(TRAINING)
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(ranks), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for ranks in (1, 2)
        for rank in range(ranks)
    ]
    for process in started:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    names = {"one": "1_0", "first": "2_0", "second": "2_1"}
    return {key: torch.load(folder / f"{name}.pt") for key, name in names.items()}


def test_two_processes_step_alike_and_like_one_on_all_cases(found):
    (one, conflicts), (first, _), (second, _) = (found[key]["vectors"] for key in found)
    assert conflicts > 0
    assert torch.equal(first, second)
    torch.testing.assert_close(first, one, atol=1e-10, rtol=0)


def test_the_method_weighs_the_ranks_by_the_cases_that_can_form_a_subset(found):
    (names, one, before), (_, first, dominance), (_, second, _) = (
        found[key]["images"] for key in found
    )
    assert found["first"]["images"][0] == found["second"]["images"][0] == names
    assert "t2" in names
    assert one.keys() == first.keys() == second.keys()
    for name, slope in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], slope, atol=1e-10, rtol=1e-7)
    assert bool(before["conflicts"].any())
    for name, statistics in before.items():
        torch.testing.assert_close(dominance[name], statistics)


def test_ranks_with_unequal_numbers_of_losses_are_refused_on_all_of_them(found):
    for key in ("first", "second"):
        assert "as many losses, got 1 on one and 2 on another" in found[key]["refused"]


class Stopped(Exception):
    """Stands for whatever ends a training early."""


def train(workflow, settings: dict[str, Any], stop_after: int | None = None) -> None:
    """Train; with `stop_after`, break off after that many iterations."""
    run = workflow(CONFIGS, "train", **settings)

    def stop() -> None:
        raise Stopped

    if stop_after is not None:
        run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop_after), stop)
    try:
        run.run()
    finally:
        run.finalize()


def state(folder: str) -> dict[str, Any]:
    return torch.load(Path(folder) / "training_state.ckpt", weights_only=True)


def scalars(folder: str) -> dict[str, float]:
    """Read the last value of each number that a training has logged."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder).Reload()
    return {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}


def test_training_resumes_exactly_and_logs_how_much_each_modality_dominates(
    workflow, tiny, tmp_path
):
    settings = tiny | {"max_epochs": 3}
    whole = settings | {"output_dir": str(tmp_path / "a"), "ckpt_dir": str(tmp_path / "a")}
    halves = settings | {"output_dir": str(tmp_path / "b"), "ckpt_dir": str(tmp_path / "b")}
    train(workflow, whole)
    with pytest.raises(RuntimeError, match="Failed to"):
        train(workflow, halves, stop_after=5)  # in epoch 3
    assert state(halves["output_dir"])["progress"]["epoch"] == 2
    train(workflow, halves | {"resume": True})
    one, other = (state(settings["output_dir"])["method"] for settings in (whole, halves))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    # Two steps an epoch, four subsets a step.
    assert one["dominance.drawn"].sum().item() == 24
    logged = scalars(whole["output_dir"])
    assert {"conflict_rate", "loss"} <= set(logged)
    shares = [logged[f"dominance_{name}"] for name in BRATS_MODALITIES]
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)


def test_what_was_trained_segments(workflow, tiny, phantom):
    train(workflow, tiny | {"max_epochs": 1})
    settings = tiny | {"dataset_dir": str(phantom)}
    run = workflow(["inference.json", "method_gmd.yaml"], "infer", **settings)
    assert run.check_properties() == []
    run.run()
    run.finalize()
    assert len(list(Path(tiny["output_dir"]).glob("*_pred.nii.gz"))) == 2


@pytest.mark.parametrize("options", [{"decouple": False}, {"reduction": "mean_where_shared"}])
def test_the_variants_train(workflow, tiny, options):
    train(workflow, tiny | options | {"max_epochs": 1})
    assert ("dominance_t1" in scalars(tiny["output_dir"])) == options.get("decouple", True)
