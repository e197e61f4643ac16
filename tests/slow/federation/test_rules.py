"""A site's own rules, on real processes with certificates, and a job that would replace them."""

from __future__ import annotations

import json

import pytest
import yaml
from federation.kit import prepare
from federation.server.round_log import ROUNDS, read_log

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]

SITES = {"site-1": "t1+t1ce+t2+flair", "site-2": "t2"}
# One release of the job `private` comes to 1.99, two to 2.94.
CAP = 2.5


@pytest.fixture(scope="module")
def deployment(deploy):
    made = deploy(SITES)
    datalist = str(made.folder / "sites" / "site-2.json")
    prepare(str(made.kits / "site-2"), datalist_file=datalist, cache_dir="null", most_epsilon=CAP)
    made.start("localhost", *SITES)
    made.wait_for_sites(len(SITES))
    return made


def rounds_of(deployment, folder, federation):
    deployment.wait_for_job(deployment.submit(folder))
    return read_log(deployment.state(federation) / "train" / ROUNDS)


def test_a_job_without_noise_is_refused_whatever_settings_it_brings_along(deployment):
    folder = deployment.write_job("open", "--rounds", "1", "--min_sites", "1")
    (folder / "app" / "local").mkdir()
    own = (deployment.kits / "site-2" / "local" / "patchwork.yaml").read_text()
    brought = {**yaml.safe_load(own), "rules": {}, "state_dir": str(deployment.folder / "brought")}
    (folder / "app" / "local" / "patchwork.yaml").write_text(yaml.safe_dump(brought))
    (entry,) = rounds_of(deployment, folder, "open")
    assert list(entry["sites"]) == ["site-1"]
    assert "takes part in private trainings only" in entry["refused"]["site-2"]
    # Neither the cap nor a path is told, and nothing was written where the job wanted it.
    assert str(CAP) not in entry["refused"]["site-2"]
    assert str(deployment.folder) not in json.dumps(entry)
    assert not (deployment.folder / "brought").exists()


def test_the_cap_on_epsilon_ends_a_sites_part_in_a_private_job(deployment):
    options = ("--rounds", "2", "--min_sites", "1")
    folder = deployment.write_job("private", *options, name="private")
    first, second = rounds_of(deployment, folder, "private")
    assert sorted(first["sites"]) == list(SITES)
    assert list(second["sites"]) == ["site-1"]
    assert "cap on epsilon leaves no room" in second["refused"]["site-2"]
    account = deployment.kits / "site-2" / "state" / "privacy_account.json"
    assert json.loads(account.read_text())["releases"] == 1
    assert account.stat().st_mode & 0o777 == 0o600
