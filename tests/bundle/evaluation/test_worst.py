"""Where to look first: the pairs of case and subset of the lowest Dice."""

from bundle.evaluation.metrics import Score
from bundle.evaluation.worst import worst_rows, worst_table


def rows():
    dice = {("a", "t1"): (0.1, 0.3), ("a", "t2"): (0.9, 0.9), ("b", "t1"): (0.0, 0.2)}
    return [
        Score(case, subset, region, value, 1.0)
        for (case, subset), values in dice.items()
        for region, value in zip(("TC", "WT"), values, strict=True)
    ]


def test_the_lowest_mean_over_regions_comes_first():
    found = worst_rows(rows())
    assert [(row.case, row.given) for row in found] == [("b", "t1"), ("a", "t1"), ("a", "t2")]
    assert found[0].by_region == "TC 0.00, WT 0.20"
    assert [round(row.dice, 6) for row in found] == [0.1, 0.2, 0.9]
    assert len(worst_rows(rows(), shown=2)) == 2


def test_the_table_names_case_scans_and_regions():
    line = worst_table(worst_rows(rows(), 1)).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "b",
        "t1",
        "TC 0.00, WT 0.20",
        "10.0",
    ]
