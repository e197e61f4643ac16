from __future__ import annotations

from collections import Counter

import pytest

from bundle.__main__ import main
from bundle.phantom import fault_rates
from bundle.phantom.data_set import write_phantom
from bundle.phantom.fault_rates import CLEAN, Rates, measure_rates, rates_table
from bundle.phantom.faults import FAULTS


@pytest.fixture
def few_faults(monkeypatch):
    """Leave three faults, so that a test takes a second."""
    names = ("t1 and t1ce swapped", "binary mask", "same patient twice")
    monkeypatch.setattr(fault_rates, "FAULTS", {name: FAULTS[name] for name in names})
    monkeypatch.setattr(fault_rates, "_SIZES", (32,))


def test_each_fault_is_planted_once_for_each_case(few_faults):
    rates = measure_rates(2, seed=3)
    assert rates.planted == dict.fromkeys(
        [CLEAN, "t1 and t1ce swapped", "binary mask", "same patient twice"], 2
    )
    assert rates.found["binary mask"] == rates.found["same patient twice"] == 2
    assert rates.flagged[CLEAN] == Counter()
    assert measure_rates(2, seed=3) == rates


def test_the_verb_takes_the_cases_of_a_datalist(few_faults, tmp_path, capsys):
    sections = {"training": 1, "validation": 0, "testing": 0}
    datalist = write_phantom(tmp_path / "data", sections, anatomy="simple", size=32)
    assert main(["faults", "--datalist", str(datalist)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["fault", "found", "by", "the", "rules", "and", "by"]
    assert lines[-1] == "clean cases: 1, flagged wrongly: none"
    assert any(line.startswith("binary mask") and "1 of 1" in line for line in lines)


def test_the_table_tells_rules_that_were_meant_from_others():
    rates = Rates()
    rates.add(CLEAN, [])
    rates.add(CLEAN, ["head_small", "head_small"])
    rates.add("binary mask", ["one_label", "label_moved"])
    rates.add("binary mask", ["label_moved"])
    assert rates_table(rates).splitlines() == [
        "fault         found  by the rules         and by",
        "binary mask  1 of 2   one_label 1  label_moved 2",
        "clean cases: 2, flagged wrongly: head_small 1",
    ]


def test_no_labelled_case_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="expected at least one labelled case, got none in 0"):
        measure_rates(0)
