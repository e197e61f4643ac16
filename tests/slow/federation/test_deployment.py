"""The documented way with certificates: provision, prepare, start, submit, download."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from federation.server.round_log import ROUNDS, VALIDATIONS, read_log
from federation.site.patient_names import identifiers

import bundle
from bundle.data.datalist import load_datalist, write_datalist
from bundle.modalities import BRATS_MODALITIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(bundle.ROOT)
SITES = {"site-1": "t1+t1ce+t2+flair", "site-2": "t2"}
MEMBER, LEAD = "member@hospital-2.org", "lead@hospital-1.org"


@pytest.fixture(scope="module")
def deployment(deploy):
    made = deploy(SITES)
    made.start("localhost", *SITES)
    made.wait_for_sites(len(SITES))
    return made


@pytest.fixture(scope="module")
def finished(deployment) -> tuple[str, Path]:
    """A job that has finished although a trainer was killed in it: its id, the server's folder."""
    job = deployment.submit(deployment.write_job("first", "--rounds", "4"))
    folder = deployment.state("first") / "train"
    deployment.wait_for(lambda: len(read_log(folder / ROUNDS)) >= 1, 300, "the first round")
    trainers = deployment.processes("federation.site.client", "site-1")
    assert len(trainers) == 1
    os.kill(trainers[0], signal.SIGKILL)
    deployment.wait_for_job(job)
    return job, folder


def test_the_job_finishes_with_every_site_in_every_round(deployment, finished):
    job, folder = finished
    assert "FINISHED:COMPLETED" in deployment.job_status(job)
    rounds = read_log(folder / ROUNDS)
    assert [entry["round"] for entry in rounds] == [0, 1, 2, 3]
    assert all(sorted(entry["sites"]) == list(SITES) for entry in rounds)
    scores = read_log(folder / VALIDATIONS)[-1]
    assert {site: len(dice) for site, dice in scores["dice"].items()} == {"site-1": 15, "site-2": 1}


def test_the_killed_trainer_was_replaced(deployment, finished):
    logs = [path.read_text() for path in (deployment.kits / "site-1").rglob("log.txt")]
    assert any("the trainer has died" in text for text in logs)
    assert not any(
        "the trainer has died" in p.read_text()
        for p in (deployment.kits / "site-2").rglob("log.txt")
    )


def test_the_result_comes_home_with_the_job(deployment, finished):
    job, folder = finished
    target = deployment.folder / "download"
    deployment.nvflare("job", "download", job, "-o", str(target))
    (model,) = target.rglob("model.pt")
    state = torch.load(model, weights_only=True)
    assert all(bool(value.isfinite().all()) for value in state.values())
    own = torch.load(folder / "model.pt", weights_only=True)
    assert all(torch.equal(value, own[key]) for key, value in state.items())
    assert list(target.rglob("coverage.md"))


def test_the_job_carried_no_code(deployment, finished):
    job, _ = finished
    for site in SITES:
        (run,) = (deployment.kits / site).glob(job)
        assert list(run.rglob("config_fed_client.json"))
        assert not list(run.rglob("custom/*"))


def secrets_of_sites(deployment) -> set[bytes]:
    """Collect the names of patients, and where the sites keep their files."""
    names: set[bytes] = set()
    for site in SITES:
        path = deployment.folder / "sites" / f"{site}.json"
        found = identifiers(load_datalist(path, BRATS_MODALITIES))
        names |= {name.encode() for name in found if len(name) > 3}
        names.add(str(deployment.kits / site).encode())
    assert len(names) > 8
    return names


def test_no_patient_and_no_sites_path_is_at_the_server(deployment, finished):
    names = secrets_of_sites(deployment)
    server = deployment.kits / "localhost"
    files = [p for p in server.rglob("*") if p.is_file() and "startup" not in p.parts]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert not [name for name in names if name in content], path


def test_a_lost_federation_goes_on_with_the_next_round(deployment, finished):
    _, folder = finished
    word = torch.load(folder / "FL_global_model.pt", weights_only=True)["meta_props"]["run"]
    again = deployment.write_job("first", "--rounds", "5", "--resume")
    job = deployment.submit(again)
    deployment.wait_for_job(job)
    assert [entry["round"] for entry in read_log(folder / ROUNDS)] == [0, 1, 2, 3, 4]
    after = torch.load(folder / "FL_global_model.pt", weights_only=True)["meta_props"]
    assert (after["run"], after["current_round"]) == (word, 4)


def test_who_may_not_submit_is_refused(deployment):
    told = deployment.submit(ROOT / "jobs" / "fedavg", who=MEMBER, fine=False)
    assert "not authorized" in told


def test_a_job_that_brings_code_does_not_run(deployment):
    folder = deployment.write_job("code", "--rounds", "1")
    custom = folder / "app" / "custom"
    custom.mkdir()
    (custom / "federation.py").write_text("raise SystemExit('ran')\n")
    told = deployment.submit(folder, fine=False)
    if re.fullmatch(r"[0-9a-f-]{36}", told):
        deployment.wait_for_job(told)
        status = deployment.job_status(told)
        assert "COMPLETED" not in status, status
    else:
        assert "byoc" in told.lower(), told
    assert not (deployment.state("code") / "train" / ROUNDS).exists()


@pytest.mark.parametrize(
    ("side", "path"),
    [
        ("client", "federation.site.executor.ClientAPIExecutor"),
        ("server", "federation.kit.prepare"),
    ],
)
def test_a_job_without_code_runs_nothing_but_our_components(deployment, side, path):
    """Modules of ours have among their names NVFlare's executor, which runs any command."""
    folder, mark = deployment.write_job(f"attack-{side}", "--rounds", "1"), deployment.folder / side
    config = folder / "app" / "config" / f"config_fed_{side}.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    if side == "client":
        command = ["bash", "-c", f"id >> {mark}-ran-$$"]
        arguments = {"execution_mode": "external_process", "command": command}
        content["executors"][0]["executor"] = {"path": path, "args": arguments}
    else:
        (mark / "startup").mkdir(parents=True)
        content["components"].append({"id": "x", "path": path, "args": {"folder": str(mark)}})
    config.write_text(json.dumps(content), encoding="utf-8")
    job = deployment.submit(folder, who=LEAD)
    deployment.wait_for_job(job)
    assert "COMPLETED" not in deployment.job_status(job)
    assert not list(deployment.folder.glob("client-ran-*"))
    assert not (mark / "local").exists()
    for name in SITES if side == "client" else ("localhost",):
        told = (deployment.folder / f"{name}.out").read_text()
        assert re.search(f"Component '{re.escape(path)}' at config path .* is not in allow", told)


# What the administrator may not ask of a site, and how it is asked.
ASKED_OF_SITES = {
    "cat_target": (None, "log.txt"),
    "head_target": (None, "log.txt"),
    "tail_target": (None, "log.txt"),
    "head_target_log": (),
    "tail_target_log": (),
    "grep_target": (None, ".", "log.txt"),
    "ls_target": (),
    "get_working_directory": (),
    "get_client_env": (),
}


@pytest.mark.parametrize("question", ASKED_OF_SITES)
def test_the_coordinators_commands_read_nothing_of_a_site(deployment, finished, question):
    for site in SITES:
        told = deployment.ask(question, site, *ASKED_OF_SITES[question])
        assert told.get("error") == "AuthorizationError" or "invalid_request" in str(told), told
    if question == "cat_target":
        # The server's own log is no site's: its administrator may read it.
        assert "ServerDeployer" in deployment.ask(question, "server", None, "log.txt")["answer"]


def test_what_does_not_travel_cannot_be_asked_for(deployment, finished):
    """Every other question to a site is answered without a patient's name, a path or a log."""
    job, _ = finished
    secrets = [secret.decode() for secret in secrets_of_sites(deployment)]
    answered = 0
    for site in SITES:
        for method, *words in (
            ("show_errors", job, "client", [site]),
            ("show_stats", job, "client", [site]),
            ("check_status", "client", [site]),
            ("report_resources", "client", [site]),
            ("report_version", "client", [site]),
            ("get_client_job_status", [site]),
            ("get_job_logs", job, site),
            ("get_job_meta", job),
            ("list_job_components", job),
        ):
            told = deployment.ask(method, *words)
            answered += "answer" in told
            text = json.dumps(told)
            assert not [secret for secret in secrets if secret in text], (method, told)
            if method == "get_job_logs":
                assert not told.get("answer", {}).get("logs"), told
    # They were heard: a session that fails would hide everything.
    assert answered > 8


def test_the_server_knows_only_this_machine(deployment):
    content = json.loads((deployment.kits / "localhost/startup/fed_server.json").read_text())
    assert "localhost" in json.dumps(content["servers"][0]["service"])
    resources = json.loads((deployment.kits / "localhost/local/resources.json").read_text())
    text = json.dumps(resources)
    assert "/tmp/nvflare" not in text


def test_an_evaluation_scores_what_the_federation_has_come_to(deployment, finished):
    _, folder = finished
    for site in SITES:
        path = deployment.folder / "sites" / f"{site}.json"
        datalist = load_datalist(path, BRATS_MODALITIES)
        moved = {"testing": datalist["validation"], "validation": []}
        write_datalist({**datalist, **moved}, path)
    before, noted = (
        (folder / "FL_global_model.pt").read_bytes(),
        len(read_log(folder / VALIDATIONS)),
    )
    job = deployment.submit(deployment.write_job("first", name="evaluate"))
    deployment.wait_for_job(job)
    assert "FINISHED:COMPLETED" in deployment.job_status(job)
    *_, last, scores = read_log(folder / VALIDATIONS)
    assert len(read_log(folder / VALIDATIONS)) == noted + 1
    # The same model on the same cases, under their other name.
    assert scores["dice"] == last["dice"]
    assert {site: len(dice) for site, dice in scores["dice"].items()} == {"site-1": 15, "site-2": 1}
    assert (folder / "FL_global_model.pt").read_bytes() == before


def test_a_shutdown_ends_every_process(deployment, finished):
    """Comes last: nothing runs after it."""
    # Whom a terminal would ask is not asked.
    deployment.nvflare("system", "shutdown", "all", "--force")
    deployment.wait_for(lambda: not deployment.processes(), 120, "all processes to end")
