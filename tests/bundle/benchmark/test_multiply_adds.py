from __future__ import annotations

import pytest
import torch
from torch import nn

from bundle.benchmark import multiply_adds as multiply_adds_module
from bundle.benchmark.multiply_adds import Work, count, multiply_adds, phases
from bundle.methods.base import Method
from bundle.phantom.gaps import phantom_with_gaps

TINY = {"filters": 4, "blocks_down": [1, 1], "deep_supervision": 1, "roi_size": [16, 16, 16]}


@pytest.fixture(autouse=True)
def _few_batches(monkeypatch):
    """Six of the tiny batches are as good as 24."""
    monkeypatch.setattr(multiply_adds_module, "_BATCHES", 6)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    counts = {"training": 4, "validation": 1, "testing": 0}
    path = phantom_with_gaps(
        str(folder), 0.5, ["training"], counts=counts, anatomy="simple", size=24
    )
    places = {"dataset_dir": str(folder), "output_dir": str(folder), "ckpt_dir": str(folder)}
    return {"datalist_file": path, **places, **TINY}


def test_a_convolution_is_counted_by_hand():
    convolution = nn.Conv3d(2, 3, 3, padding=1, bias=False)
    image = torch.randn(1, 2, 4, 4, 4)
    assert count(lambda: convolution(image)) == 4**3 * 2 * 3 * 27
    # Its backward makes the gradient of the weights; of the image it has no use.
    assert count(lambda: convolution(image).sum().backward()) == 2 * 4**3 * 2 * 3 * 27


def test_passes_without_gradients_count_too():
    layer, image = nn.Linear(5, 7), torch.randn(2, 5)

    def both():
        with torch.no_grad():
            layer(image)

    assert count(both) == 2 * 5 * 7


def test_the_plain_unet_is_the_unit(settings):
    work = multiply_adds(("train.json", "method_modality_dropout.yaml", "benchmark.yaml"), settings)
    assert work.plain_steps == 1
    assert work.step > 0


def test_a_teacher_and_a_second_view_are_work(settings):
    whole = multiply_adds(("train.json", "benchmark.yaml"), settings)
    alone = multiply_adds(
        ("train.json", "benchmark.yaml"), {**settings, "data_side": False, "model_side": False}
    )
    plain = multiply_adds(
        ("train.json", "method_modality_dropout.yaml", "benchmark.yaml"), settings
    )
    assert whole.plain == alone.plain == plain.step
    # The teacher's completion and answer, and the network's second view, of half of the batch.
    assert 1 < alone.plain_steps < 1.3 < whole.plain_steps < 2.2


def test_twice_the_batch_is_twice_the_work(settings):
    configs = ("train.json", "method_modality_dropout.yaml", "benchmark.yaml")
    once = multiply_adds(configs, {**settings, "batch_size": 2})
    assert multiply_adds(configs, settings).step == 2 * once.step
    assert once.plain_steps == 1


def test_lckd_is_counted_in_its_warm_up_and_with_teachers(settings):
    configs = ("train.json", "method_lckd.yaml", "benchmark.yaml")
    found = multiply_adds(configs, settings)
    untaught = multiply_adds(configs, {**settings, "distillation_weight": 0})
    assert found.step > untaught.step


def test_a_method_has_one_phase_unless_it_is_lckd():
    assert list(phases(Method(nn.Identity()))) == [1.0]


def test_work_is_a_ratio_of_counts():
    assert Work(step=30.0, plain=20.0).plain_steps == 1.5
