from __future__ import annotations

import pytest
from federation.server.memory_bench import bench, measure


def test_a_round_is_measured_and_leaves_nothing(tmp_path):
    found = measure(2, filters=4, folder=str(tmp_path))
    assert found["kept_mib"] == pytest.approx(2 * found["mib"])
    assert 0 < found["before_mib"] <= found["peak_mib"]
    assert found["take_seconds"] > 0
    assert found["commit_seconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_each_number_of_sites_is_a_row(monkeypatch, capsys):
    row = {"mib": 1.0, "before_mib": 10.0, "peak_mib": 15.0, "kept_mib": 3.0}
    row |= {"take_seconds": 0.5, "commit_seconds": 2.0}
    asked = []
    monkeypatch.setattr(
        "federation.server.memory_bench.in_a_process", lambda *given: asked.append(given) or row
    )
    bench((1, 3), filters=8, robust="trimmed", folder="there")
    assert asked == [(1, 8, "trimmed", "there"), (3, 8, "trimmed", "there")]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "| 1 | 1.0 | 3 | 15 | 5 | 0.50 | 2.0 |",
        "| 3 | 1.0 | 3 | 15 | 5 | 0.50 | 2.0 |",
    ]
