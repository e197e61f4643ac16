from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from bundle.__main__ import main
from bundle.phantom.data_set import write_phantom
from bundle.phantom.icbm152 import template as module
from bundle.phantom.icbm152.template import find_files, template

LACKING = (
    r"expected the package nilearn, whose ICBM 2009a template is the phantom's anatomy, found "
    r"none\. Install it \(pip install nilearn\), or take the ellipsoid: --anatomy simple\."
)


@pytest.fixture
def without_nilearn(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        module, "find_spec", lambda name, *rest: None if name == "nilearn" else find(name, *rest)
    )


def test_shares_fill_the_brain_and_nothing_else():
    source = template()
    total = source.grey + source.white + source.fluid
    brain = source.inside > 0
    np.testing.assert_allclose(total[brain], 1, atol=2e-3)
    assert (total[~brain] == 0).all()
    for share in (source.grey, source.white, source.fluid):
        assert share.min() >= 0 <= share.max() <= 1
    # An adult's brain with its fluid, in litres.
    assert 1.5e6 < brain.sum() < 2.1e6


def test_the_depth_is_the_distance_to_the_surface():
    brain = np.zeros((12, 12, 12), bool)
    brain[3:9, 3:9, 3:9] = True
    depth = module._depth(brain)
    np.testing.assert_array_equal(
        depth[brain], ndimage.distance_transform_edt(brain)[brain].astype(np.float32)
    )
    assert depth[2, 5, 5] == -1
    assert depth[0, 0, 0] == -2


def test_axes_point_left_back_and_up():
    """The eyes' side of a brain is narrower than its back; the stem hangs below the middle."""
    source = template()
    brain = source.inside > 0
    places = np.argwhere(brain)
    low, high = places.min(0), places.max(0)
    lowest = places[places[:, 2] < low[2] + 5]
    assert abs(lowest[:, 0].mean() - source.centre[0]) < 3
    # The stem and the cerebellum lie behind the front third.
    assert lowest[:, 1].min() > low[1] + (high[1] - low[1]) / 3
    # Both halves are alike.
    middle = round(2 * source.centre[0])
    mirrored = brain[middle - low[0] : middle - high[0] - 1 : -1]
    assert (mirrored == brain[low[0] : high[0] + 1]).mean() > 0.99


def test_the_ventricles_pull_towards_themselves():
    source = template()
    pull = np.linalg.norm(source.towards_ventricles, axis=0)
    assert pull.max() == pytest.approx(1, abs=1e-5)
    assert np.percentile(source.inside[pull > 0.5], 5) > 15
    assert source.fluid[pull > 0.8].mean() > source.fluid[source.inside > 20].mean()


def test_a_package_without_the_files_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(
        module, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[tmp_path])
    )
    with pytest.raises(ModuleNotFoundError, match="found one without mni_icbm152_t1_tal_nlin_sym"):
        find_files()


def test_without_nilearn_the_text_says_what_to_do_and_nothing_is_written(without_nilearn, tmp_path):
    with pytest.raises(ModuleNotFoundError, match=LACKING):
        write_phantom(tmp_path / "new", sections={"training": 1})
    assert not (tmp_path / "new").exists()
    write_phantom(tmp_path / "simple", sections={"training": 1}, anatomy="simple", size=24)


def test_without_nilearn_the_command_ends_with_that_text(without_nilearn, tmp_path, capsys):
    assert main(["phantom", str(tmp_path / "new")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("take the ellipsoid: --anatomy simple.")
