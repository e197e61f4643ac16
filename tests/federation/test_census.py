from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from federation.census import (
    CASES,
    CONFIG,
    MIN_COUNT,
    ModalityCensus,
    census_table,
    datalist_path,
    memo_path,
)
from federation.protocol.identity import CONFIGS, LOADED
from federation.settings import VARIABLE, Site
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.utils import fobs

import bundle
from bundle.data.case_rules import Finding
from bundle.data.datalist import read_datalist
from bundle.data.plausibility.measure import Measured

MODALITIES = ["t1", "t1ce", "t2", "flair"]
REGIONS = {"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)}
SHAPE = (10, 20, 30)
LEVELS = (10, 30, 60, 100, 150, 210)


@pytest.fixture
def cases(write_volume):
    """Six training cases with t1, whose medians are `LEVELS`; four of them have t2."""

    def make(number):
        image = {"t1": LEVELS[number], "t2": 7} if number < 4 else {"t1": LEVELS[number]}
        rng = np.random.default_rng(number)
        files = {
            name: write_volume(
                f"{number}/{name}.nii", np.float32(level) + rng.uniform(-0.1, 0.1, SHAPE)
            )
            for name, level in image.items()
        }
        label = np.zeros(SHAPE, np.uint8)
        label[2:8, 4:14, 5 : 10 + number] = 2
        label[4:6, 6:8, 6:8] = 4 if number == 0 else 1
        seg = write_volume(f"{number}/seg.nii", label)
        image = {name: str(file) for name, file in files.items()}
        return {"case": f"case-{number}", "image": image, "label": str(seg)}

    return [make(number) for number in range(6)]


@pytest.fixture
def start(tmp_path, monkeypatch, cases, write_volume):
    """Give start(**arguments): the census of a site with those cases, and one more to test."""

    noise = np.random.default_rng(9).uniform(9, 11, (2, *SHAPE))
    image = {
        name: str(write_volume(f"other/{name}.nii", voxels))
        for name, voxels in zip(("t1", "t2"), noise, strict=True)
    }
    label = str(write_volume("other/seg.nii", np.full(SHAPE, 2, np.uint8)))
    testing = [{"case": "other", "image": image, "label": label}]

    def make(settings="", **arguments):
        (tmp_path / "list.json").write_text(json.dumps({"training": cases, "testing": testing}))
        own = "datalist_file: list.json\ncache_dir: cache\n" + settings
        (tmp_path / "site-1.yaml").write_text(own)
        (tmp_path / "cache").mkdir(exist_ok=True)
        monkeypatch.setenv(VARIABLE, str(tmp_path / "{site}.yaml"))
        context = FLContext()
        context.set_prop(ReservedKey.IDENTITY_NAME, "site-1", private=False, sticky=False)
        context.set_prop(FLContextKey.APP_ROOT, str(tmp_path), private=True, sticky=False)
        context.set_prop(FLContextKey.JOB_META, {"name": "census"}, private=True, sticky=False)
        made = ModalityCensus(**arguments)
        made.initialize(context)
        return made

    return make


def test_it_counts_cases_by_section_and_modality(start):
    census = start()
    features = [feature.feature_name for feature in census.features()["training"]]
    measured = [*(f"{name} intensity" for name in MODALITIES), "TC ml", "WT ml", "ET ml"]
    assert features == [*MODALITIES, CASES, *measured]
    counts = {name: census.count("training", name) for name in features}
    told = {"t1": 6, CASES: 6, "t1 intensity": 6, "WT ml": 6, "TC ml": 6}
    assert counts == {**dict.fromkeys(features, 0), **told}
    assert census.count("testing", CASES) == 0


@pytest.mark.parametrize("asked", [0, 1, -3, 4])
def test_a_job_cannot_ask_for_fewer_than_five_cases(start, asked):
    census = start(min_count=asked)
    assert census.min_count == MIN_COUNT == 5
    assert census.count("training", "t2") == 0
    assert census.quantiles("training", "t2 intensity", [0.5]) == {"quantile": {}}


def test_a_job_may_ask_for_more(start):
    census = start(min_count=7)
    assert census.count("training", CASES) == 0
    assert census.quantiles("training", "t1 intensity", [0.5]) == {"quantile": {}}


@pytest.fixture
def twenty():
    """Give twenty({name: count}): the census of 20 cases, of which so many have each.

    A name is a modality, or a number as the check measures it.
    """

    def make(counts, least=MIN_COUNT):
        def case(index):
            names = {name for name, count in counts.items() if index < count}
            image = {name: f"{name}.nii" for name in ("t1", *names & set(MODALITIES))}
            numbers = {name: 1.0 + index for name in names - set(MODALITIES)}
            return Finding({"case": str(index), "image": image}, measured=Measured(numbers))

        census = ModalityCensus(least)
        census.modalities, census.regions = MODALITIES, REGIONS
        found = [case(index) for index in range(20)]
        census.datalist = {"training": [finding.item for finding in found]}
        census.findings = {"training": found}
        return census

    return make


@pytest.mark.parametrize(
    ("have", "told"), [(0, 0), (4, 0), (5, 5), (15, 15), (16, 0), (19, 0), (20, 20)]
)
def test_few_who_lack_something_are_no_more_told_of_than_few_who_have_it(twenty, have, told):
    census = twenty({"flair": have, "median t1": have, "ml WT": 20, "ml ET": have})
    assert census.count("training", CASES) == 20
    assert [census.count("training", n) for n in ("flair", "t1 intensity", "ET ml")] == [told] * 3
    for name in ("t1 intensity", "ET ml"):
        assert bool(census.quantiles("training", name, [])["quantile"]) == bool(told)


def test_a_count_is_withheld_too_beside_a_nearer_one_that_includes_it(twenty):
    census = twenty({"t2": 14, "median t2": 13, "ml WT": 20, "ml TC": 14, "ml ET": 13})
    counts = {n: census.count("training", n) for n in ("t2", "t2 intensity", "TC ml", "ET ml")}
    assert counts == {"t2": 14, "t2 intensity": 0, "TC ml": 14, "ET ml": 0}
    for name in ("t2 intensity", "ET ml"):
        assert census.quantiles("training", name, []) == {"quantile": {}}


def test_what_a_job_asks_for_counts_for_those_who_lack_something_too(twenty):
    assert twenty({"flair": 14}, least=6).count("training", "flair") == 14
    assert twenty({"flair": 14}, least=7).count("training", "flair") == 0


@pytest.mark.parametrize(("odd", "told"), [(4, False), (5, True), (15, True), (19, False)])
def test_few_cases_that_a_rule_finds_in_order_are_not_told_of(twenty, odd, told):
    census = twenty({})
    for finding in census.findings["training"][:odd]:
        finding.measured.numbers["voxel"] = 20.0
    features = [feature.feature_name for feature in census.features()["training"]]
    assert ("odd voxel_large" in features) == told


@pytest.mark.parametrize("chosen", ["regions", "aliases", "modalities"])
def test_a_job_cannot_choose_which_cases_are_bad(chosen):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{chosen}'"):
        ModalityCensus(**{chosen: {}})


def test_the_installed_config_says_which_labels_there_are(start):
    content = json.loads(Path(bundle.ROOT, CONFIGS, CONFIG).read_text())
    census = start()
    assert census.modalities == content["modalities"] == MODALITIES
    assert census.regions == REGIONS
    assert {name: list(values) for name, values in REGIONS.items()} == content["regions"]
    assert census.aliases == {3: 4}


@pytest.mark.parametrize(
    "file", ["bundle/regions.py", "federation/census.py", "configs/train.json"]
)
def test_a_site_whose_program_has_changed_tells_nothing(start, monkeypatch, file):
    now = {**LOADED, file: "another"}
    monkeypatch.setattr("federation.protocol.identity.hash_files", lambda *_: now)
    with pytest.raises(ValueError, match=f"expected {file} as it was when this process started"):
        start()


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("{jobs: [census]}", 6),
        ("{least_cases_statistics: 1}", 6),
        ("{least_cases_statistics: 7}", 0),
        ("{jobs: [private]}", 0),
        ("{least_cases: 7}", 0),
    ],
)
def test_the_site_decides_which_numbers_leave(start, rules, told):
    census = start(f"rules: {rules}\n")
    assert census.min_count >= MIN_COUNT
    assert [census.count("training", name) for name in ("t1", CASES)] == [told, told]
    quartiles = census.quantiles("training", "t1 intensity", [0.5])["quantile"]
    assert bool(quartiles) == bool(told)


def test_a_site_that_does_not_take_part_reads_nothing(start, file_reads):
    with file_reads() as reads:
        start("rules: {jobs: [private]}\n").quantiles("training", "t1 intensity", [0.5])
    assert not reads.opened


def test_quartiles_are_over_cases_and_none_is_a_cases_own(start, cases):
    census = start()
    (found,) = census.quantiles("training", "t1 intensity", [0, 0.5, 1]).values()
    assert list(found) == ["p25", "p50", "p75"]
    assert min(abs(value - level) for value in found.values() for level in LEVELS) > 0.5
    assert 30 < found["p25"] < 60 < found["p50"] < 100 < found["p75"] < 210
    (volumes,) = census.quantiles("training", "WT ml", []).values()
    assert volumes["p50"] == pytest.approx(60 * 7.5 / 1000, rel=0.02)


@pytest.mark.parametrize("feature", ["t2 intensity", "ET ml", "flair intensity", CASES, "nonsense"])
def test_too_few_cases_tell_nothing(start, feature):
    assert start().quantiles("training", feature, [0.25, 0.5, 0.75]) == {"quantile": {}}


def test_what_is_sent_passes_nvflares_own_packing(start):
    answer = start().quantiles("training", "t1 intensity", [0.5])
    assert fobs.loads(fobs.dumps(answer)) == answer


@pytest.mark.parametrize("statistic", ["sum", "mean", "stddev", "min_value", "max_value"])
def test_no_other_statistic_is_answered(start, statistic):
    with pytest.raises(NotImplementedError):
        getattr(start(), statistic)("training", "t1 intensity")


def test_a_training_has_read_what_the_census_needs(start, tmp_path, file_reads):
    census = start()
    memo = tmp_path / "cache" / "checked.json"
    read_datalist(tmp_path / "list.json", MODALITIES, REGIONS, {3: 4}, memo=memo)
    with file_reads() as reads:
        assert census.count("training", "t1 intensity") == 6
    assert reads.opened == {}


def test_a_site_that_reads_no_voxels_measures_nothing(start, file_reads):
    census = start("check: headers\n")
    with file_reads() as reads:
        assert census.count("training", "t1 intensity") == 0
        assert census.count("training", "t1") == 6
    assert reads.opened == {}


def test_odd_cases_are_counted_by_rule(start, cases, write_volume):
    wide = np.diag([20.0, 20.0, 20.0, 1.0])
    for item in cases:
        for number, file in enumerate([*item["image"].values(), item["label"]]):
            voxels = np.ones(SHAPE, np.uint8) if file == item["label"] else number
            write_volume(file, voxels, wide)
    census = start()
    features = [feature.feature_name for feature in census.features()["training"]]
    assert "odd voxel_large" in features
    assert census.count("training", "odd voxel_large") == 6
    assert "odd voxel_large" not in [f.feature_name for f in census.features()["testing"]]


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


def told(p25: float, p50: float, p75: float) -> dict:
    return {"training": {"p25": p25, "p50": p50, "p75": p75}}


def test_the_table_marks_the_site_that_differs_and_counts_odd_cases(tmp_path):
    quartiles = {"a": told(4, 5, 6), "b": told(4, 5.5, 6), "c": told(44, 50, 60), "d": {}}
    content = {
        CASES: {"count": {"a": {"training": 9}}},
        "WT ml": {"count": {"a": {"training": 9}}, "quantile": {**quartiles, "Global": {}}},
        "odd agent_in_rim": {"count": {"c": {"training": 8}, "Global": {"training": 8}}},
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert census_table(tmp_path / "c.json").splitlines() == [
        "site  cases",
        "a         9",
        "",
        "half of a site's cases lie in (a to b); * = a site that differs",
        "",
        "site           WT ml",
        "a         5 (4 to 6)",
        "b       5.5 (4 to 6)",
        "c     50 (44 to 60)*",
        "",
        "cases that the check warns of, by rule",
        "",
        "site    agent_in_rim",
        "c                  8",
        "Global             8",
    ]


@pytest.mark.parametrize("wrong", [None, "5\n| x |", float("nan"), [1], True, {"a": 1}])
def test_what_is_no_number_is_left_out_of_the_table(tmp_path, wrong):
    content = {
        CASES: {"count": {"a": {"training": 9}, "b": {"training": wrong}}},
        "t1 intensity": {"quantile": {"b": told(1, wrong, 3)}},
        "x\n| y |": {"count": {"b": {"training": 3}}},
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert census_table(tmp_path / "c.json").splitlines() == ["site  cases", "a         9"]


def test_a_sites_datalist_and_memo_are_where_its_settings_say():
    assert datalist_path(Site("x", {"dataset_dir": "/d"})).as_posix() == "/d/datalist.json"
    assert datalist_path(Site("x", {"datalist_file": "/d/l.json"})).as_posix() == "/d/l.json"
    with pytest.raises(ValueError, match="x: expected datalist_file or dataset_dir"):
        datalist_path(Site("x", {}))
    assert memo_path(Site("x", {"cache_dir": "/c"})).as_posix() == "/c/checked.json"
    assert memo_path(Site("x", {"cache_dir": None})) is None
    assert memo_path(Site("x", {})).as_posix() == f"{bundle.ROOT}/cache/checked.json"
