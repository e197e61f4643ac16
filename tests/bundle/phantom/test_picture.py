from __future__ import annotations

from matplotlib.image import imread

from bundle.phantom.data_set import write_phantom
from bundle.phantom.picture import main


def test_a_picture_has_a_column_for_each_case_and_a_row_for_each_scan(tmp_path):
    path = write_phantom(
        tmp_path, {"training": 2}, anatomy="simple", size=24, modalities=("t1", "flair")
    )
    main(str(path), str(tmp_path / "a.png"))
    pixels = imread(tmp_path / "a.png")[..., :3]
    # Two columns of 1.5 inches, and three rows, the last of which holds the labels.
    assert pixels.shape == (450, 240, 3)
    coloured = pixels.max(-1) - pixels.min(-1) > 0.2
    labels = coloured[2 * 450 // 3 + 1 :]
    assert labels[:, :120].any()
    assert labels[:, 120:].any()
    assert not coloured[: 2 * 450 // 3 - 1].any()
