"""What hospitals do to a federation, done to real processes with certificates.

One deployment; three jobs of one federation, each of which goes on where the one before ended.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from federation.server.persistor import RESUMES
from federation.server.round_log import ROUNDS, read_log

from bundle.data.datalist import load_datalist, write_datalist
from bundle.modalities import BRATS_MODALITIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

SITES = {"site-1": "t1+t1ce+t2+flair", "site-2": "t2", "site-3": "t1+t2"}
SABOTAGE = Path(__file__).with_name("sabotage")
CASES = {"training": 6, "validation": 3, "testing": 1}
GRACE = 30.0

# What happens to site-2 in which round, and what the report then says of it.
DAMAGED = {
    1: ("nan", "NaN", "holds NaN"),
    2: ("inf", "infinite numbers", "holds infinite numbers"),
    3: ("shape", "a wrong shape", r"has shape \(7,\), expected"),
    4: ("missing", "a missing key", "1 of [0-9]+ tensors are missing"),
    5: ("extra", "an extra key", "the model has no 'nobody.knows.this'"),
    6: ("huge", "a huge norm", "norm is .*, expected at most 1000"),
    7: ("facts", "a list for a number", "seconds"),
}
DISK, POISON, LATE, WELL, KILLED = 8, 9, 10, 11, 12
FIRST_JOB, JOINED, SERVER_KILLED, LAST = 13, 13, 14, 16


class Story:
    """What was done to the deployment, and what it left."""

    def __init__(self, deployment) -> None:
        self.deployment = deployment
        self.folder = deployment.state("faults") / "train"
        self.orders = {name: deployment.folder / f"{name}.orders" for name in ("localhost", *SITES)}
        self.killed: dict[str, int] = {}
        self.second = ""

    def start(self, *names: str) -> None:
        for name in names:
            # How long the server keeps a job open for a site that died in it; 15 minutes else.
            patience = {"NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": "5"} if name == "localhost" else {}
            self.deployment.start(name, SABOTAGE=str(self.orders[name]), **patience)

    def order(self, who: str, orders: dict[int, str]) -> None:
        self.orders[who].write_text(json.dumps(orders))

    def submit(self, *options: str) -> str:
        waits = ["--min_sites", "1", "--grace", str(GRACE), "--norm_bound", "1000.0"]
        return self.deployment.submit(self.deployment.write_job("faults", *waits, *options))

    def entries(self) -> list[dict]:
        return read_log(self.folder / ROUNDS)

    def of_round(self, number: int, committed: bool = True) -> dict:
        found = [e for e in self.entries() if (e["round"], e["committed"]) == (number, committed)]
        # One round is done twice.
        assert len(found) == 1 + (number == SERVER_KILLED - 1 and len(self.resumes()) == 2)
        return found[0]

    def resumes(self) -> list[dict]:
        return read_log(self.folder / RESUMES)

    def wait_for_round(self, number: int) -> None:
        """Wait until a round is over."""
        self.deployment.wait_for(
            lambda: any(e["committed"] and e["round"] == number for e in self.entries()),
            600,
            f"round {number}",
        )

    def log_of(self, job: str) -> str:
        """Read the server's log of a finished job, as its submitter can."""
        return self.deployment.ask("get_job_logs", job, "server")["answer"]["logs"]["server"]

    def state_of(self, site: str) -> Path:
        """Say where a site keeps what it has for itself."""
        return self.deployment.kits / site / "state" / "faults" / "train" / "site_state.ckpt"

    def site_state(self, site: str) -> dict:
        """Read what a site keeps for itself."""
        return torch.load(self.state_of(site), weights_only=True)

    def wait_for_answer(self, site: str, number: int) -> None:
        """Wait until a site has done its work of a round, whether its answer has come or not."""

        def done() -> bool:
            try:
                return self.site_state(site)["round"] == number
            except (OSError, RuntimeError, EOFError):
                return False

        self.deployment.wait_for(done, 300, f"{site} in round {number}")

    def weights(self, name: str = "FL_global_model.pt") -> dict[str, torch.Tensor]:
        content = torch.load(self.folder / name, map_location="cpu", weights_only=True)
        return content["model"]


def flip_a_bit(path: Path) -> None:
    """Change one bit of a file, in the middle, where its tensors are."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(datalist: Path) -> None:
    content = load_datalist(datalist, BRATS_MODALITIES)
    write_datalist({**content, "training": [], "validation": []}, datalist)


@pytest.fixture(scope="module")
def story(deploy) -> Story:
    """The first job, in whose last round a site dies."""
    told = Story(deploy(SITES, cases=CASES, path=SABOTAGE))
    deployment = told.deployment
    damage = {number: fault for number, (fault, *_) in DAMAGED.items()}
    others = {DISK: "disk", LATE: f"late {GRACE + 10}", KILLED: "late 900"}
    told.order("site-2", damage | others)
    told.order("localhost", {POISON: "poison 2"})
    told.start("localhost", "site-1", "site-2")
    deployment.wait_for_sites(2)
    job = told.submit("--rounds", str(FIRST_JOB))
    # While the straggler is waited for, the same job comes once more.
    told.wait_for_round(LATE - 1)
    told.second = told.submit("--rounds", str(FIRST_JOB))
    told.wait_for_round(KILLED - 1)
    told.wait_for_answer("site-2", KILLED)
    told.killed["site-2"] = deployment.kill(str(deployment.kits / "site-2"))
    deployment.wait_for_job(job)
    deployment.wait_for_job(told.second)
    return told


@pytest.mark.parametrize("number", DAMAGED)
def test_a_damaged_update_is_refused_as_a_whole_with_its_reason(story, number):
    entry = story.of_round(number)
    assert list(entry["sites"]) == ["site-1"]
    assert re.search(DAMAGED[number][2], entry["refused"]["site-2"])


def test_the_site_takes_part_whenever_it_is_well(story):
    for entry in (story.of_round(number) for number in (0, DISK, WELL)):
        assert sorted(entry["sites"]) == ["site-1", "site-2"]
        assert entry["refused"] == {}


def test_a_full_disk_costs_the_checkpoint_and_not_the_round(story):
    entry = story.of_round(DISK)
    assert entry["sites"]["site-2"]["notes"] == [
        "could not write its state; the one before is intact"
    ]
    assert entry["sites"]["site-1"]["notes"] == []


def test_a_poisoned_broadcast_is_refused_by_every_site_and_costs_an_attempt(story):
    first, second = story.of_round(POISON, committed=False), story.of_round(POISON)
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert first["sites"] == {}
    assert set(first["refused"]) == {"site-1", "site-2"}
    assert all("expected finite numbers" in reason for reason in first["refused"].values())
    assert sorted(second["sites"]) == ["site-1", "site-2"]


def test_a_straggler_is_waited_for_as_long_as_was_said(story):
    entry = story.of_round(LATE)
    assert list(entry["sites"]) == ["site-1"]
    assert GRACE <= entry["seconds"] < GRACE + 60


def test_a_killed_site_does_not_keep_the_others_from_finishing(story):
    assert story.killed["site-2"] >= 3  # its parent, its job and its trainer
    assert list(story.of_round(KILLED)["sites"]) == ["site-1"]


@pytest.mark.parametrize(
    ("question", "words"),
    [("cat_target", (None, "log.txt")), ("ls_target", ()), ("get_client_env", ())],
)
def test_a_server_whose_program_was_changed_reads_nothing_of_a_site(story, question, words):
    """The server of this deployment tells the sites that no permission is needed."""
    told = story.deployment.ask(question, "site-1", *words)
    assert str(story.deployment.kits) not in json.dumps(told), told
    assert "invalid_request" in json.dumps(told), told


def test_the_same_job_once_more_is_refused_and_moves_nothing(story):
    assert "COMPLETED" not in story.deployment.job_status(story.second)
    log = story.log_of(story.second)
    assert "expected that no other job runs for the federation faults, but modality_aware" in log
    assert not list(story.folder.parent.glob("*.previous*"))
    assert [e["round"] for e in story.entries() if e["committed"]] == list(range(FIRST_JOB))


@pytest.fixture(scope="module")
def changed(story) -> str:
    """A job that would resume the federation with another voxel size: what the server says."""
    for orders in story.orders.values():
        orders.unlink(missing_ok=True)
    settings = story.deployment.small.replace("}", ", spacing: [3.0,3.0,3.0]}")
    job = story.submit("--resume", "--rounds", str(LAST), "--settings", settings)
    story.deployment.wait_for_job(job)
    assert "COMPLETED" not in story.deployment.job_status(job)
    return story.log_of(job)


def test_a_resume_with_another_voxel_size_is_refused_and_the_change_is_listed(changed):
    assert "1 change(s): spacing: [2.0, 2.0, 2.0], now [3.0, 3.0, 3.0]" in changed


@pytest.fixture(scope="module")
def resumed(story, changed) -> Story:
    """The second job: a site that is back, one that is new, and a server that dies."""
    deployment = story.deployment
    flip_a_bit(story.state_of("site-1"))
    for orders in story.orders.values():
        orders.unlink(missing_ok=True)
    story.start("site-2", "site-3")
    deployment.wait_for_sites(3)
    story.order("site-2", {SERVER_KILLED: "late 900"})
    story.submit("--resume", "--rounds", str(SERVER_KILLED + 1))
    story.wait_for_round(JOINED)
    story.wait_for_answer("site-2", SERVER_KILLED)
    story.saved = {key: value.clone() for key, value in story.weights().items()}
    story.killed["localhost"] = deployment.kill(str(deployment.kits / "localhost"))
    return story


def test_a_damaged_state_of_a_site_is_set_aside_and_told(resumed):
    notes = resumed.of_round(JOINED)["sites"]["site-1"]["notes"]
    assert [note for note in notes if "started anew" in note]
    assert len(list(resumed.state_of("site-1").parent.glob("*.damaged*"))) == 1
    assert resumed.of_round(JOINED)["sites"]["site-2"]["notes"] == []


def test_a_site_that_came_back_and_a_late_joiner_are_in_the_next_job(resumed):
    assert sorted(resumed.of_round(JOINED)["sites"]) == ["site-1", "site-2", "site-3"]
    # Its optimiser goes on where it was: as many steps as in all rounds together, four a round.
    steps = [state["step"] for state in resumed.site_state("site-2")["optimizer"]["state"].values()]
    assert max(map(float, steps)) >= 4 * (JOINED - 1)


@pytest.fixture(scope="module")
def ended(resumed) -> Story:
    """The third job: a server that is back with a damaged state, a site whose data are gone."""
    deployment = resumed.deployment
    resumed.orders["site-2"].unlink()
    last = resumed.folder / "FL_global_model.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    empty(deployment.folder / "sites" / "site-3.json")
    resumed.start("localhost")
    deployment.wait_for_sites(3)
    job = resumed.submit("--resume", "--rounds", str(LAST))
    deployment.wait_for_job(job)
    resumed.job = job
    return resumed


def test_a_killed_server_goes_on_from_its_newest_whole_state_and_says_so(ended):
    assert ended.killed["localhost"] >= 2
    committed = [entry["round"] for entry in ended.entries() if entry["committed"]]
    # The round whose state was damaged is done once more.
    assert committed == [*range(SERVER_KILLED), *range(SERVER_KILLED - 1, LAST)]
    *_, entry = ended.resumes()
    assert entry["rounds"] == SERVER_KILLED - 1
    assert [name for name in entry["damaged"] if name.startswith("FL_global_model.pt")]
    assert "FINISHED:COMPLETED" in ended.deployment.job_status(ended.job)


def test_a_site_without_cases_says_so_and_the_others_finish(ended):
    for number in (SERVER_KILLED, LAST - 1):
        entry = ended.of_round(number)
        assert sorted(entry["sites"]) == ["site-1", "site-2"]
        assert "expected training cases" in entry["refused"]["site-3"]


def test_the_model_is_whole_and_finite_in_the_end(ended):
    before, after = ended.saved, ended.weights()
    assert before.keys() == after.keys()
    assert all(bool(value.isfinite().all()) for value in after.values())
    moved = [key for key, value in after.items() if not torch.equal(value, before[key])]
    assert moved
    # Two hundred steps of a small network, and none of the damage of 1e6.
    largest = max(float(v.abs().max()) for v in after.values() if v.is_floating_point())
    assert largest < 100


def test_the_servers_report_has_the_reasons_and_no_path_of_a_site(ended):
    text = (ended.folder / "coverage.md").read_text(encoding="utf-8")
    assert "holds NaN" in text
    assert str(ended.deployment.kits / "site-2") not in text


def test_what_happened_can_be_read_in_one_table(ended, capsys):
    rows = ["| fault at site-2 | round | took part | what the report says |", "|---|--:|---|---|"]
    for number, (_, fault, _) in DAMAGED.items():
        rows.append(row(fault, ended.of_round(number)))
    rows.append(row("full disk", ended.of_round(DISK)))
    rows.append(row("poisoned broadcast, attempt 1", ended.of_round(POISON, committed=False)))
    rows.append(row("poisoned broadcast, attempt 2", ended.of_round(POISON)))
    rows.append(row("straggler", ended.of_round(LATE)))
    rows.append(row("site killed", ended.of_round(KILLED)))
    rows.append(row("site back, and a late joiner", ended.of_round(JOINED)))
    rows.append(row("server killed and back, site-3 empty", ended.of_round(SERVER_KILLED)))
    with capsys.disabled():
        print("\n" + "\n".join(rows))
    assert all(len(line.split(" | ")) == 4 for line in rows[2:])


def row(fault: str, entry: dict) -> str:
    told = [f"{site}: {reason}" for site, reason in entry["refused"].items()]
    told += [f"{s}: {note}" for s, facts in entry["sites"].items() for note in facts["notes"]]
    silent = sorted(set(SITES) - set(entry["sites"]) - set(entry["refused"]))
    if not told:
        told = [f"{', '.join(silent)} silent"] if silent else ["nothing amiss"]
    present = ", ".join(sorted(entry["sites"])) or "nobody"
    return f"| {fault} | {entry['round']} | {present} | {'; '.join(told).replace('|', '/')} |"
