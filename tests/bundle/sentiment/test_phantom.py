from __future__ import annotations

import numpy as np
import pytest

from bundle.sentiment.files import load_layout
from bundle.sentiment.phantom import make_feature_phantom, write_feature_phantom

FEW = {"train": 200, "valid": 3, "test": 5}


@pytest.fixture(scope="module")
def content():
    return make_feature_phantom(FEW, seed=1)


def test_it_has_the_layout(content):
    for section, samples in FEW.items():
        values = content[section]
        assert len(set(values["id"])) == len(values["regression_labels"]) == samples
        for name, shape in (("text", (20, 32)), ("audio", (30, 5)), ("vision", (30, 20))):
            assert values[name].shape == (samples, *shape)
            assert values[name].dtype == np.float32
            assert np.isfinite(values[name]).all()
            lengths = np.array(values[f"{name}_lengths"])
            inside = np.arange(shape[0]) < lengths[:, None]
            assert np.array_equal((values[name] != 0).any(2), inside)


def test_lengths_vary_and_labels_are_ratings(content):
    values = content["train"]
    assert set(values["text_lengths"]) == set(range(6, 21))
    labels = values["regression_labels"]
    assert np.allclose(labels * 5, np.rint(labels * 5), atol=1e-4)
    assert (labels.min(), labels.max()) == (-3, 3)


def test_each_modality_tells_a_part_and_the_text_most(content):
    def explained(names):
        # Least squares on the mean frames: a linear reader's share of the labels' variance.
        columns = [
            values[name].sum(1) / np.array(values[f"{name}_lengths"])[:, None] for name in names
        ]
        design = np.column_stack([np.ones(len(labels)), *columns])
        error = labels - design @ np.linalg.lstsq(design, labels, rcond=None)[0]
        freedom = (len(labels) - 1) / (len(labels) - design.shape[1])
        return 1 - freedom * error.var() / labels.var()

    values = make_feature_phantom({**FEW, "train": 1000})["train"]
    labels = values["regression_labels"]
    alone = {name: explained([name]) for name in ("text", "audio", "vision")}
    assert alone["text"] > alone["audio"] > alone["vision"] > 0.05
    # The parts are independent, so that together they tell what they tell alone.
    assert explained(alone) == pytest.approx(sum(alone.values()), abs=0.06)
    assert explained(alone) < 0.9


def test_a_section_depends_on_the_seed_and_on_nothing_else(content):
    other = make_feature_phantom({**FEW, "train": 2}, seed=1)
    assert np.array_equal(other["test"]["text"], content["test"]["text"])
    other = make_feature_phantom(FEW, seed=2)
    assert not np.array_equal(other["test"]["text"], content["test"]["text"])


def test_it_is_written_as_it_is_made(content, tmp_path):
    write_feature_phantom(tmp_path / "a.npz", FEW, seed=1)
    loaded = load_layout(tmp_path / "a.npz")
    for section, values in content.items():
        assert set(loaded[section]) == set(values)
        assert all(np.array_equal(loaded[section][name], values[name]) for name in values)


@pytest.mark.parametrize("samples", [{"train": 5}, {**FEW, "test": 0}, {**FEW, "dev": 1}])
def test_sections_must_be_these_and_hold_something(samples):
    with pytest.raises(ValueError, match=r"expected samples in each of .*'valid'"):
        make_feature_phantom(samples)
