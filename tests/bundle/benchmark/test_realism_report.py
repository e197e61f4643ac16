"""What the report says about realism."""

from bundle.benchmark.realism import compare, published
from bundle.benchmark.realism_report import draw_realism, realism_sentence, realism_table


def test_table_gives_each_region_beside_the_promise():
    lines = realism_table(compare(published())).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["rank correlation", "TC", "WT", "ET", "promised"]
    assert cells[2] == ["all subsets", "1.00", "1.00", "1.00", "0.9"]
    assert cells[3] == ["subsets of two scans", "1.00", "1.00", "1.00", "0.7"]


def test_sentence_names_the_scans_in_the_wrong_order():
    values = published()
    values["t2"] |= {"WT": 0.92}
    assert realism_sentence(compare(published())).startswith("All 15 clear orders")
    assert realism_sentence(compare(values)) == (
        "14 of 15 clear orders of lone scans are as published (WT: flair should be ahead of t2)."
    )


def test_picture_has_a_part_for_each_region_and_a_dot_for_each_subset():
    figure = draw_realism(published())
    assert [axes.get_title() for axes in figure.axes] == ["TC", "WT", "ET"]
    for axes in figure.axes:
        assert sum(len(line.get_xdata()) for line in axes.lines) == 15
