"""The counts of the published lists, and that lists with other counts are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bundle.protocols.counts import check_counts
from bundle.protocols.lists import Row, read_list
from bundle.protocols.table import PROTOCOLS

from .conftest import PASSION_2018, PASSION_2020, identifiers, write_lists


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_lists_of_the_published_form_and_counts_are_taken(name, tmp_path):
    protocol = PROTOCOLS[name]
    write_lists(tmp_path, protocol)
    sections = {
        section: read_list(tmp_path / form.places[0], form, protocol) if form else []
        for section in ("training", "validation", "testing")
        for form in [protocol.lists.get(section)]
    }
    check_counts(sections, protocol)
    assert tuple(len(rows) for rows in sections.values()) == protocol.counts
    cases = [row.case for rows in sections.values() for row in rows]
    bare = [i if protocol.keep_grade else i.removeprefix("HG_") for i in identifiers(protocol)]
    assert cases == bare


@pytest.mark.parametrize("group", ["hga", "passion"])
@pytest.mark.parametrize(("year", "sets"), [("2018", PASSION_2018), ("2020", PASSION_2020)])
def test_the_masks_of_passion_have_the_published_counts(group, year, sets):
    for name, (*present, complete) in sets.items():
        protocol = PROTOCOLS[f"{group}{year}-{name}"]
        assert protocol.counts == {"2018": (199, 29, 57), "2020": (219, 50, 100)}[year]
        order = ("flair", "t1ce", "t1", "t2")
        assert protocol.present == {"training": dict(zip(order, present, strict=True))}
        assert protocol.complete == {"training": complete}


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        *(("hga2020-2222", 0.185), ("hga2020-4444", 0.385), ("hga2020-6666", 0.543)),
        *(("hga2020-8888", 0.659), ("hga2020-9999", 0.702), ("hga2020-2468", 0.484)),
        *(("hga2020-1379", 0.490), ("hga2020-2258", 0.413), ("hga2020-2285", 0.412)),
        *(("hga2020-8825", 0.547), ("hga2018-1379", 0.492), ("hga2018-2468", 0.480)),
    ],
)
def test_as_much_is_missing_as_was_published(name, missing):
    protocol = PROTOCOLS[name]
    share = sum(protocol.present["training"].values()) / (4 * protocol.counts[0])
    assert 1 - share == pytest.approx(missing, abs=0.0006)


def test_the_other_protocols_have_the_published_counts():
    assert PROTOCOLS["imfuse2023"].counts == (875, 125, 251)
    assert PROTOCOLS["reliss2021"].folds == (251, 250, 250, 250, 250)
    assert [PROTOCOLS[f"fets2022-{n}"].sites for n in (1, 2)] == [23, 33]
    assert PROTOCOLS["demoseg2015"].counts == (242, 12, 20)
    for group in ("demoseg2018", "rfnet2018", "mmformer2018"):
        assert {PROTOCOLS[f"{group}-{n}"].counts for n in (1, 2, 3)} == {(199, 29, 57)}


def test_another_order_of_the_places_does_not_pass(tmp_path):
    protocol = PROTOCOLS["hga2020-2468"]
    write_lists(tmp_path, protocol)
    wrong = replace(protocol, order=("t1", "t1ce", "t2", "flair"))
    sections = {s: read_list(tmp_path / f.places[0], f, wrong) for s, f in wrong.lists.items()}
    sections = {section: sections[section] for section in ("training", "validation", "testing")}
    with pytest.raises(ValueError, match="training with flair: expected 90, got 43") as refused:
        check_counts(sections, wrong)
    assert "training with t1ce" not in str(refused.value)
    assert "clone of Jun-Jie-Shi/HGA whose lists nobody has changed" in str(refused.value)


def test_other_counts_and_a_case_in_two_sections_are_refused():
    demoseg = PROTOCOLS["demoseg2020"]
    rows = [Row(f"c{n}") for n in range(369)]
    sections = {"training": rows[:218], "validation": rows[219:269], "testing": rows[269:]}
    with pytest.raises(ValueError, match="cases in training: expected 219, got 218"):
        check_counts(sections, demoseg)
    sections["training"] = rows[:220]
    message = "1 case in more than one section of the lists, first c219 in training and validation"
    with pytest.raises(ValueError, match=message):
        check_counts(sections, demoseg)
