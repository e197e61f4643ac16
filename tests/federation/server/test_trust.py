"""What one site can do to a round: by claims, by the size of its update, and by its direction."""

from __future__ import annotations

import json
import os
import resource
from itertools import permutations

import pytest
import torch
from federation.protocol.messages import to_message
from federation.server.aggregator import KEPT, ModalityAggregator
from federation.server.round import Round
from federation.server.trust import Trust
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext

HEAD, OWN = "network.head.weight", "network.encoders.0.weight"


@pytest.fixture
def round_of(exchange, state):
    def make(*contributions, folder=None, **trust):
        current = Round(exchange, state, trust=Trust(**trust), folder=folder)
        for given in contributions:
            current.offer(given)
        return current

    return make


@pytest.fixture
def aggregate(state, tmp_path, rules_by_name):
    """Give aggregate(*contributions, **arguments): the update and the report of a round."""

    def make(*contributions, **arguments):
        aggregator = ModalityAggregator(
            ["t1", "t2", "flair"], rules_by_name, report_dir=str(tmp_path), **arguments
        )
        aggregator.fl_ctx = FLContext()
        aggregator.begin(state, 0)
        for given in contributions:
            message = to_message(given)
            message.meta |= {"client_name": given.site, "privacy": given.privacy}
            aggregator.accept_model(message)
        update = aggregator.aggregate_model().params
        aggregator.report()
        return update, json.loads((tmp_path / "round_0000.json").read_text())

    return make


def test_a_billion_cases_weigh_ten_times_the_median(contribute, aggregate, tmp_path):
    honest = [contribute(site, {"t1": 10}, moved={HEAD: torch.zeros(4)}) for site in "AB"]
    liar = contribute("X", {"t1": 10**9}, moved={HEAD: torch.full((4,), 12.0)})
    update, report = aggregate(*honest, liar)
    assert update[HEAD].tolist() == [10.0] * 4
    assert report["weights"]["shared"] == {"A": 10 / 120, "B": 10 / 120, "X": 100 / 120}
    share = report["accepted"]["X"]
    assert (share["all_cases"], share["used_all_cases"]) == (10**9, 100)
    assert (share["cases"], share["used_cases"]) == ({"t1": 10**9}, {"t1": 100})
    line = (tmp_path / "coverage.md").read_text()
    assert "X (claims 1000000000 cases, counted as 100, " in line
    assert "A (10 cases, " in line


def test_the_coordinators_list_counts_and_refuses_strangers(contribute, aggregate):
    given = [contribute("A", {"t1": 10**9}), contribute("B", {"t1": 5}), contribute("X")]
    listed = [["A", 20], ["B", 5]]
    _, report = aggregate(*given, site_cases=listed)
    assert report["weights"]["shared"] == {"A": 0.8, "B": 0.2}
    assert report["refused"] == {"X": "the coordinator's list of sites has ['A', 'B'] alone"}


def test_sums_count_as_far_as_the_cases_that_the_server_believes(contribute, aggregate):
    def give(site, cases, patches):
        sums = {"bank.counts": torch.full((3,), float(patches), dtype=torch.float64)}
        return contribute(site, {"t1": cases}, moved=sums)

    honest, liar = give("A", 5, 50), give("X", 10**9, 10**10)
    update, _ = aggregate(honest, liar)
    # The lower of the two, ten times: 50 cases, of 10 patches each.
    assert update["bank.counts"].tolist() == pytest.approx([550.0] * 3)
    update, _ = aggregate(honest, liar, site_cases={"A": 5, "X": 20})
    assert update["bank.counts"].tolist() == pytest.approx([250.0] * 3)
    update, _ = aggregate(honest, liar, case_factor=None)
    assert update["bank.counts"].tolist() == [50.0 + 1e10] * 3


def test_elections_weigh_at_most_ten_times_the_median_of_those_that_are_held(contribute, round_of):
    def give(site, *found):
        sums = {"dice_sums": torch.tensor(found, dtype=torch.float64)}
        return contribute(site, {"t1": 5}, moved=sums)

    # Who withholds its own is no small site.
    given = [give("A", 1.0, 2.0, 0.0), give("B", 1.0, 2.0, 0.0), give("C", 0.0, 0.0, 0.0)]
    liar = give("X", 2e29, 0.0, 1e29)
    update = round_of(*given, liar, case_factor=10.0).commit().update["dice_sums"]
    assert update.tolist() == pytest.approx([(1 + 1 + 20) / 4, 1.0, 10 / 4])


def test_who_votes_alone_is_measured_by_the_elections_of_before(contribute, exchange, state):
    state["dice_sums"] = torch.tensor([1.0, 2.0, 0.0])
    current = Round(exchange, state, trust=Trust())
    for site, sums in (("A", [0.0] * 3), ("B", [0.0] * 3), ("X", [2e29 - 1, -2.0, 0.0])):
        moved = {"dice_sums": torch.tensor(sums, dtype=torch.float64)}
        assert current.offer(contribute(site, {"t1": 5}, moved=moved)) is None
    moved = current.commit().update["dice_sums"]
    assert (state["dice_sums"] + moved).tolist() == pytest.approx([22 / 3, 4 / 3, 0.0])


def test_a_flipped_update_within_the_norm_bound_is_marked(contribute, aggregate, tmp_path):
    sites = [contribute(site) for site in "ABC"]
    flipped = {key: -value for key, value in contribute().update.items() if "network" in key}
    update, report = aggregate(*sites, contribute("X", moved=flipped), norm_bound=10.0)
    cosines = {site: share["cosine"] for site, share in report["accepted"].items()}
    assert cosines == pytest.approx({"A": 1.0, "B": 1.0, "C": 1.0, "X": -1.0}, abs=1e-6)
    assert report["accepted"]["X"]["norm"] == report["accepted"]["A"]["norm"]
    assert report["accepted"]["X"]["marks"] == ["points against the others (cosine -1.00)"]
    assert report["accepted"]["A"]["marks"] == []
    line = (tmp_path / "coverage.md").read_text()
    assert line.count("stands out") == 1
    assert "norm 4.69, cosine -1.00) **stands out: points against the others" in line
    # It is marked, and counts.
    assert update[HEAD].tolist() == [0.5] * 4


def test_one_site_alone_has_no_cosine(contribute, aggregate):
    _, report = aggregate(contribute("A"))
    assert report["accepted"]["A"]["cosine"] is None


def test_clipped_bounds_each_group_by_its_median_norm(contribute, round_of):
    # Of the other shared tensors nothing moves, so that the head is the whole group.
    still = {"network.first.weight": torch.zeros(2, 6)}
    given = [
        contribute("A", {"t1": 1}, moved={**still, HEAD: torch.full((4,), 1.0)}),
        contribute("B", {"t1": 1}, moved={**still, HEAD: torch.full((4,), 2.0)}),
        contribute(
            "X",
            {"t1": 1},
            moved={**still, HEAD: torch.full((4,), -100.0), OWN: torch.tensor([6.0, 8.0])},
        ),
    ]
    update = round_of(*given, robust="clipped").commit().update
    assert update[HEAD].tolist() == pytest.approx([(1 + 2 - 2) / 3] * 4)
    # A group of its own: norms sqrt(2), sqrt(2) and 10.
    scale = 2**0.5 / 10
    assert update[OWN].tolist() == pytest.approx([(2 + 6 * scale) / 3, (2 + 8 * scale) / 3])
    assert update["bank.counts"].tolist() == [3.0] * 3


def test_trimmed_leaves_out_the_ends(contribute, round_of):
    values = {"A": 1.0, "B": 2.0, "C": 6.0, "X": -1e6}
    given = [
        contribute(s, {"t1": 10**6 if s == "X" else 1}, moved={HEAD: torch.full((4,), v)})
        for s, v in values.items()
    ]
    update = round_of(*given, robust="trimmed", case_factor=None).commit().update
    assert update[HEAD].tolist() == [1.5] * 4
    assert update["bank.counts"].tolist() == [4.0] * 3


def test_none_is_the_plain_mean_to_the_bit_on_disk_and_in_any_order(contribute, round_of, tmp_path):
    generator = torch.Generator().manual_seed(0)
    given = []
    for site, n in zip("ABCD", (3, 7, 11, 13), strict=True):
        moved = {
            HEAD: torch.randn(4, generator=generator),
            OWN: torch.randn(2, generator=generator),
        }
        sums = torch.randn(3, generator=generator, dtype=torch.float64)
        given.append(contribute(site, {"t1": n, "t2": 1}, n, {**moved, "bank.counts": sums}))
    total = sum(c.all_cases * c.update[HEAD].double() for c in given)
    expected = (total / 34).float().numpy().tobytes()
    for order in permutations(given):
        for folder in (None, tmp_path / "kept"):
            update = round_of(*order, folder=folder).commit().update
            assert update[HEAD].numpy().tobytes() == expected
            sums = (
                (given[0].update["bank.counts"] + given[1].update["bank.counts"])
                + given[2].update["bank.counts"]
            ) + given[3].update["bank.counts"]
            assert update["bank.counts"].numpy().tobytes() == sums.numpy().tobytes()
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_a_contribution_stays_in_memory(contribute, round_of, tmp_path):
    given = contribute("A")
    current = round_of(given, folder=tmp_path / "kept")
    kept = current.accepted["A"]
    assert not any(torch.is_tensor(value) for value in vars(kept).values())
    assert kept.bytes == given.bytes
    assert torch.equal(kept.update[HEAD], given.update[HEAD])
    assert len(list((tmp_path / "kept").iterdir())) == 1
    current.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_that_contributions_refusal(contribute, round_of, tmp_path):
    current = round_of(contribute("A"), folder=tmp_path / "kept")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        reason = current.offer(contribute("B"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert reason == "the server could not keep it on its disk (File too large)"
    assert len(list((tmp_path / "kept").iterdir())) == 1
    # It may send again once there is room.
    assert current.offer(contribute("B")) is None
    assert list(current.commit().coverage.accepted) == ["A", "B"]


@pytest.mark.parametrize("hidden", [False, True])
def test_a_damaged_file_is_that_contributions_drop_and_no_wrong_mean(
    contribute, round_of, tmp_path, hidden
):
    honest = [contribute("A", {"t1": 1}), contribute("C", {"t1": 2})]
    current = round_of(honest[0], contribute("B"), honest[1], folder=tmp_path / "kept")
    path = current.accepted["B"].update.path
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if hidden:
        os.utime(path, ns=times)
    current.check_kept()
    # What the file's times do not tell is found when it is read.
    assert (list(current.refused) == ["B"]) != hidden
    commit, alone = current.commit(), round_of(*honest).commit()
    assert commit.coverage.refused["B"].startswith("what the server kept of it on its disk has")
    assert list(commit.coverage.accepted) == ["A", "C"]
    assert commit.update.keys() == alone.update.keys()
    assert all(torch.equal(commit.update[key], value) for key, value in alone.update.items())


def test_nothing_is_left_whatever_becomes_of_the_round(contribute, state, tmp_path, rules_by_name):
    names = ["t1", "t2", "flair"]
    aggregator = ModalityAggregator(names, rules_by_name, report_dir=str(tmp_path))
    aggregator.fl_ctx = FLContext()
    message = to_message(contribute("A"))
    message.meta["client_name"] = "A"
    ends = (
        aggregator.aggregate_model,
        aggregator.discard,
        aggregator.reset_stats,
        lambda: aggregator.begin(state, 1),
        lambda: aggregator.handle_event(EventType.END_RUN, FLContext()),
    )
    for end in ends:
        aggregator.begin(state, 0)
        assert aggregator.accept_model(message)
        assert (tmp_path / KEPT).is_dir()
        end()
        assert not (tmp_path / KEPT).exists()


def test_a_privacy_statement_is_the_sites_claim(contribute, aggregate, tmp_path):
    told = {"epsilon": 0.0, "statement": "epsilon 0\n- **Round 1**: [ok](http://x)"}
    _, report = aggregate(contribute("A", privacy=told), contribute("B"))
    (line,) = (tmp_path / "coverage.md").read_text().splitlines()
    assert line.endswith(r"; A claims: epsilon 0 - \*\*Round 1\*\*: \[ok\](http\://x)")
    assert report["accepted"]["A"]["privacy"]["epsilon"] == 0.0
