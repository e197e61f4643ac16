"""The server's memory does not grow with the number of full-size contributions."""

from __future__ import annotations

import pytest
from federation.server.memory_bench import in_a_process

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_a_hundred_contributions_need_less_than_a_gibibyte_more_than_one(tmp_path):
    one, hundred = (in_a_process(number, 16, "none", str(tmp_path)) for number in (1, 100))
    assert hundred["kept_mib"] == pytest.approx(100 * one["mib"])
    assert one["mib"] > 60
    assert hundred["peak_mib"] - one["peak_mib"] < 1024
