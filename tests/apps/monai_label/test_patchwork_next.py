from __future__ import annotations

import sys

import pytest

from bundle.data.filenames import file_endings
from bundle.modalities import BRATS_MODALITIES


class Store:
    """Images with what is noted of them; those of `labelled` have a label."""

    def __init__(self, infos, labelled=()):
        self.infos, self.labelled = infos, list(labelled)

    def get_labeled_images(self):
        return self.labelled

    def get_unlabeled_images(self):
        return [image for image in self.infos if image not in self.labelled]

    def get_image_info(self, image):
        return self.infos[image]


@pytest.fixture
def choose(app_code):
    """Give choose(infos, labelled): the strategy's answer."""
    strategy = app_code.MostDisagreement(file_endings(BRATS_MODALITIES))
    return lambda *content: strategy({}, Store(*content))


def scored(score, weights="new"):
    return {"disagreement": score, "disagreement_of_weights": weights}


@pytest.fixture
def refused(app_code):
    return lambda: pytest.raises(sys.modules["patchwork_next"].HTTPException)


def test_the_case_with_the_highest_score_comes_first_and_a_labelled_one_never(choose):
    infos = {"p01_t1": scored(1), "p02_t1": scored(3), "p02_t2": scored(3), "p03_t1": scored(2)}
    assert choose(infos) == {"id": "p02_t1", "weight": 3}
    assert choose(infos, ["p02_t2"]) == {"id": "p03_t1", "weight": 2}
    assert choose(infos, ["p01_t1", "p02_t2", "p03_t1"]) is None


@pytest.mark.parametrize("weights", ["others", None])
def test_scores_of_other_weights_do_not_compare(choose, weights):
    infos = {"p01_t1": scored(1), "p02_t1": scored(2), "p03_t1": scored(90, weights)}
    assert choose(infos)["id"] == "p02_t1"


def test_without_any_score_the_client_is_told_to_score(choose, refused):
    failed = {"disagreement": None, "disagreement_failed": "case p01: cut off"}
    with refused() as early:
        choose({"p01_t1": failed, "p02_t1": {}})
    assert early.value.status_code == 409
    assert "no unlabelled case has a score yet. Run the scoring" in early.value.detail


def test_where_none_of_the_rest_can_get_a_score_the_client_is_told_why(choose, refused):
    failed = {"disagreement": None, "disagreement_failed": "case p01: cut off"}
    with refused() as left:
        choose({"p01_t1": failed, "p01_t2": failed, "p02_t1": scored(1)}, ["p02_t1"])
    assert left.value.status_code == 409
    expected = "the unlabelled cases that are left get no score:\ncase p01: cut off"
    assert left.value.detail == expected
