from __future__ import annotations

import pytest
from federation.server.quorum import Quorum

NAMES = ("t1", "flair")
T1, FLAIR = {"t1": 3}, {"flair": 2, "t1": 0}


@pytest.mark.parametrize(
    ("accepted", "rare", "reached"),
    [
        ([T1], {}, False),
        ([T1, T1], {}, False),
        ([T1, FLAIR], {}, True),
        # Nobody is known to have flair: it is not waited for.
        ([T1, T1], {"flair": 0}, True),
        ([T1, T1], {"flair": 1}, False),
    ],
)
def test_sites_in_all_and_holders_of_each_modality(accepted, rare, reached):
    assert Quorum(sites=2, holders=1).reached(accepted, NAMES, rare) == reached


def test_no_more_holders_are_waited_for_than_there_are():
    quorum = Quorum(sites=1, holders=2)
    assert not quorum.reached([T1, FLAIR], NAMES, {})
    assert quorum.reached([T1, FLAIR], NAMES, {"t1": 1, "flair": 1})


def test_the_grace_begins_with_the_quorum_and_the_timeout_with_the_round():
    quorum = Quorum(timeout=100, grace=10)
    assert not quorum.over(now=99, started=0, reached_at=None)
    assert quorum.over(now=100, started=0, reached_at=None)
    assert not quorum.over(now=59, started=0, reached_at=50)
    assert quorum.over(now=60, started=0, reached_at=50)


def test_what_can_never_be_is_refused():
    for wrong in ({"sites": 0}, {"holders": -1}, {"timeout": 0}, {"grace": -1}):
        with pytest.raises(ValueError, match="expected a quorum of at least 1 site"):
            Quorum(**wrong)
