from __future__ import annotations

import json

import pytest
from federation.census import CASES, ModalityCensus, census_table, datalist_path
from federation.settings import VARIABLE, Site
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext

ITEMS = {
    "training": [
        {"case": "a", "image": {"t1": "a.nii", "t2": "b.nii"}, "label": "l.nii"},
        {"case": "b", "image": {"t2": "c.nii"}, "label": "m.nii"},
    ]
}


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """Give counted(rules): the census of a site with these rules, by a job that asks for all."""
    (tmp_path / "list.json").write_text(json.dumps(ITEMS))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "{site}.yaml"))
    context = FLContext()
    context.set_prop(ReservedKey.IDENTITY_NAME, "site-1", private=False, sticky=False)
    context.set_prop(FLContextKey.APP_ROOT, str(tmp_path), private=True, sticky=False)
    context.set_prop(FLContextKey.JOB_META, {"name": "census"}, private=True, sticky=False)

    def make(rules):
        settings = f"datalist_file: list.json\nrules: {rules}\n"
        (tmp_path / "site-1.yaml").write_text(settings)
        made = ModalityCensus(["t1", "t2", "flair"], min_count=1)
        made.initialize(context)
        return made

    return make


@pytest.fixture
def census(counted):
    return counted("{least_cases_statistics: 1}")


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("{least_cases_statistics: 1, jobs: [census]}", [1, 2]),
        ("{least_cases_statistics: 2}", [0, 2]),
        # A job that asks for every number gets none of fewer than five, if the site says nothing.
        ("{}", [0, 0]),
        ("{least_cases_statistics: 1, jobs: [private]}", [0, 0]),
        ("{least_cases_statistics: 1, least_cases: 3}", [0, 0]),
    ],
)
def test_the_site_decides_which_numbers_leave(counted, rules, told):
    made = counted(rules)
    assert [made.count("training", name) for name in ("t1", CASES)] == told


def test_it_counts_cases_by_section_and_modality_without_any_image(census):
    features = [feature.feature_name for feature in census.features()["training"]]
    assert features == ["t1", "t2", "flair", CASES]
    counts = {name: census.count("training", name) for name in features}
    assert counts == {"t1": 1, "t2": 2, "flair": 0, CASES: 2}
    assert census.count("testing", CASES) == 0


def test_few_people_are_not_told_of(census):
    census.min_count = 2
    counts = {name: census.count("training", name) for name in ("t1", "t2", CASES)}
    assert counts == {"t1": 0, "t2": 2, CASES: 2}


def test_the_table_has_a_dash_for_what_a_site_does_not_know(tmp_path):
    content = {
        "t1": {"count": {"b": {"training": 7}, "Global": {"training": 7}}},
        CASES: {"count": {"b": {"training": 9}, "a": {"training": 4}, "Global": {"training": 13}}},
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert census_table(tmp_path / "c.json").splitlines() == [
        "site    cases  t1",
        "a           4   -",
        "b           9   7",
        "Global     13   7",
    ]


def test_a_sites_datalist_is_where_its_settings_say():
    assert datalist_path(Site("x", {"dataset_dir": "/d"})).as_posix() == "/d/datalist.json"
    assert datalist_path(Site("x", {"datalist_file": "/d/l.json"})).as_posix() == "/d/l.json"
    with pytest.raises(ValueError, match="x: expected datalist_file or dataset_dir"):
        datalist_path(Site("x", {}))
