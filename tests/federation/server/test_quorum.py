from __future__ import annotations

import pytest
from federation.server.quorum import Attendance, Quorum

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


HOLDERS = {"t1": {"A", "B"}, "flair": {"C"}}


def test_a_silent_site_is_out_of_reach_until_it_answers():
    attendance = Attendance()
    assert attendance.within_reach(HOLDERS, NAMES, "ABC", ()) == {"t1": 2, "flair": 1}
    attendance.note("ABC", ["A", "B"])
    assert attendance.within_reach(HOLDERS, NAMES, "ABC", ()) == {"t1": 2, "flair": 0}
    # Silent once more, and not asked at all: still out of reach.
    attendance.note("ABC", ["A"])
    attendance.note("A", ["A"])
    assert attendance.within_reach(HOLDERS, NAMES, "ABC", ()) == {"t1": 1, "flair": 0}
    attendance.heard("C")
    attendance.note("B", ["B"])
    assert attendance.within_reach(HOLDERS, NAMES, "ABC", ()) == {"t1": 2, "flair": 1}


def test_who_is_not_asked_or_has_answered_without_contributing_is_out_of_reach():
    attendance = Attendance()
    assert attendance.within_reach(HOLDERS, NAMES, "AB", ()) == {"t1": 2, "flair": 0}
    assert attendance.within_reach(HOLDERS, NAMES, "ABC", {"C", "A"}) == {"t1": 1, "flair": 0}
    assert attendance.within_reach({}, NAMES, "ABC", ()) == {"t1": 0, "flair": 0}


def test_an_answer_is_awaited_from_those_who_were_not_silent():
    attendance = Attendance()
    assert attendance.awaits("ABC", "AB")
    assert not attendance.awaits("ABC", "ABC")
    attendance.note("ABC", "AB")
    assert not attendance.awaits("ABC", "AB")
    assert attendance.awaits("ABC", "A")
