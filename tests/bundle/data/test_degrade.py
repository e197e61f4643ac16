from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from bundle.data.degrade import degrade, draw_kept, read_rates
from bundle.modalities import BRATS_MODALITIES

RATES = {"t1": 0.2, "t1ce": 0.4, "t2": 0.6, "flair": 0.8}


def write(folder: Path, cases: int, **extra) -> Path:
    def item(case: str) -> dict:
        image = {m: f"{case}_{m}.nii" for m in BRATS_MODALITIES}
        return {"case": case, "image": image, "label": f"{case}_seg.nii"}

    path = folder / "full.json"
    training = [item(f"c{i}") for i in range(cases)]
    path.write_text(json.dumps({"training": training, "testing": [item("t")], **extra}))
    return path


def held(path: Path, section: str = "training") -> dict[str, tuple[str, ...]]:
    return {i["case"]: tuple(i["image"]) for i in json.loads(path.read_text())[section]}


def test_rates_are_reached_and_recorded(tmp_path, capsys):
    output = tmp_path / "out.json"
    degrade(write(tmp_path, 2000), output, rates=RATES, seed=3)
    note = json.loads(output.read_text())["degraded"]
    assert (note["rates"], note["seed"], note["sections"]) == (RATES, 3, ["training"])
    # All four would go in 3.84 % of the cases; then one is kept, with odds 0.8 : 0.6 : 0.4 : 0.2.
    for name, rate in RATES.items():
        expected = rate - 0.0384 * (1 - rate) / 2
        assert note["reached"][name] == pytest.approx(expected, abs=0.03)
    assert "flair    0.800" in capsys.readouterr().out


def test_every_case_keeps_something_and_other_sections_everything(tmp_path):
    output = tmp_path / "out.json"
    degrade(write(tmp_path, 50), output, ratio=1)
    assert {len(kept) for kept in held(output).values()} == {1}
    assert held(output, "testing")["t"] == BRATS_MODALITIES


def test_ratio_zero_changes_no_case(tmp_path):
    source, output = write(tmp_path, 5), tmp_path / "out.json"
    degrade(source, output, ratio=0)
    assert held(output) == held(source)


def test_more_cases_change_no_earlier_one(tmp_path):
    output = tmp_path / "out.json"
    degrade(write(tmp_path, 5), output, ratio=0.5)
    few = held(output)
    degrade(write(tmp_path, 40), output, ratio=0.5)
    assert few.items() <= held(output).items()


def test_the_kept_one_follows_its_odds():
    rates = {"t1": 0.0, "t1ce": 0.9999, "t2": 1.0}
    kept = Counter(draw_kept(["t2", "t1ce"], rates, 0, f"c{i}") for i in range(300))
    assert kept == {("t1ce",): 300}
    even = Counter(draw_kept(RATES, dict.fromkeys(RATES, 1.0), 0, f"c{i}") for i in range(2000))
    assert {round(count / 2000, 1) for count in even.values()} <= {0.2, 0.3}
    assert len(even) == 4


def test_what_a_case_has_does_not_shift_the_rest():
    full = draw_kept(RATES, RATES, 0, "c")
    for name in full:
        rest = [other for other in RATES if other != name]
        if len(full) > 1:
            assert draw_kept(rest, RATES, 0, "c") == tuple(m for m in full if m != name)


@pytest.mark.parametrize("case", ["P\udce4t", "\ud800", "P\u00e4t"])
def test_a_case_of_any_name_loses_the_same_every_time(case):
    assert draw_kept(RATES, RATES, 0, case) == draw_kept(RATES, RATES, 0, case) != ()


def test_notes_are_carried_along_and_an_earlier_degradation_kept(tmp_path):
    source = write(tmp_path, 3, origin={"by": "me"}, degraded={"ratio": 0.1})
    result = degrade(source, tmp_path / "out.json", ratio=0.5)
    assert result["origin"] == {"by": "me"}
    assert result["degraded"]["before"] == {"ratio": 0.1}


def test_rates_are_read_from_text_and_dict():
    text = "t1=0.2,t1ce=0.4, t2=0.6,flair=0.8"
    assert read_rates(None, text, BRATS_MODALITIES) == RATES
    assert read_rates(None, {"t2": 1}, BRATS_MODALITIES)["t1"] == 0


@pytest.mark.parametrize(
    ("ratio", "rates", "message"),
    [
        (None, None, "give either ratio or rates"),
        (0.5, RATES, "give either ratio or rates"),
        (1.5, None, "expected a number from 0 to 1, got 1.5"),
        (None, "t1=-1", "expected a number from 0 to 1, got '-1'"),
        (None, "t1=lots", "expected a number from 0 to 1, got 'lots'"),
        (None, "t1", "expected name=rate pairs"),
        (None, {"adc": 0.5}, "rates: unknown modality 'adc'"),
    ],
)
def test_bad_rates_are_refused(ratio, rates, message):
    with pytest.raises(ValueError, match=message):
        read_rates(ratio, rates, BRATS_MODALITIES)


def test_the_source_is_never_overwritten(tmp_path):
    source = write(tmp_path, 1)
    with pytest.raises(ValueError, match="is the datalist itself"):
        degrade(source, source, ratio=0.5)


def test_an_unknown_section_is_refused(tmp_path):
    with pytest.raises(ValueError, match="sections: expected some of"):
        degrade(write(tmp_path, 1), tmp_path / "o.json", ratio=0.5, sections=["train"])
