from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest

from bundle.__main__ import VERBS, main
from bundle.benchmark import command
from bundle.benchmark.command import benchmark


def never(workers):
    raise AssertionError("nothing was to be run")


def test_a_report_alone_runs_nothing(tmp_path, capsys):
    assert benchmark(str(tmp_path), "smoke", report_only=True, make_executor=never)
    assert "0 of 3 runs are finished" in capsys.readouterr().out
    assert "**0 of 3 runs**" in (tmp_path / "smoke" / "report.md").read_text()


def test_mistakes_are_named_before_anything_is_written(tmp_path, capsys):
    arguments = ["benchmark", str(tmp_path / "out")]
    assert main([*arguments, "--grid", "none"]) == 2
    assert main([*arguments, "--only", "(("]) == 2
    assert main([*arguments, "--only", "nobody"]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith(
        "error: grid: expected one of ['main', 'controls', 'plateau', 'drawing', 'realism'"
    )
    assert second.startswith("error: only: expected a regular expression, got '(('")
    assert third.startswith("error: only: expected a part of a run's name, such as 'modality_")
    assert not (tmp_path / "out").exists()


def test_the_device_of_sites_is_not_chosen_here(tmp_path):
    with pytest.raises(ValueError, match="grid federation: expected no --device, got 'cuda'"):
        benchmark(str(tmp_path), "federation", device="cuda", make_executor=never)


def test_federated_runs_are_made_one_by_one(tmp_path, monkeypatch):
    at_once = []
    monkeypatch.setattr(command, "run_all", lambda *given: at_once.append(given[-1]))
    monkeypatch.setattr(command, "prepare_data", lambda run, output_dir, datalist: "")
    for grid in ("federation", "smoke"):
        benchmark(str(tmp_path / grid), grid, workers=3)
    assert at_once == [1, 3]


@pytest.mark.parametrize(
    ("raised", "status"), [(None, 1), (KeyboardInterrupt(), 130)], ids=["failure", "Ctrl-C"]
)
def test_what_went_wrong_is_the_exit_status_and_the_report_is_there(
    raised, status, tmp_path, capsys, monkeypatch
):
    def run_all(grid, todo, outcome, *_):
        if raised is not None:
            raise raised
        outcome.failures[todo[0].name] = "RuntimeError: no luck"

    monkeypatch.setattr(command, "run_all", run_all)
    monkeypatch.setattr(command, "prepare_data", lambda run, output_dir, datalist: "")
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", str(tmp_path), "--grid", "smoke"])
    assert stop.value.code == status
    assert (tmp_path / "smoke" / "report.md").is_file()
    told = capsys.readouterr().out
    if raised is None:
        assert "failed: smoke-modality_dropout-missing_0-seed_0: RuntimeError: no luck" in told
    else:
        assert "the same command goes on" in told


def test_a_measurement_is_made_in_a_process_of_its_own_and_its_table_printed(
    tmp_path, capsys, monkeypatch
):
    workers = []

    def make_executor(count):
        workers.append(count)
        return ThreadPoolExecutor(count)

    monkeypatch.setitem(command.MEASUREMENTS, "cost", lambda folder: f"measured into {folder}")
    assert benchmark(str(tmp_path), "cost", make_executor=make_executor)
    assert capsys.readouterr().out == f"measured into {tmp_path}\n"
    assert workers == [1]


def test_the_verb_offers_what_the_command_takes():
    offered = inspect.signature(VERBS["benchmark"]).parameters
    taken = dict(inspect.signature(benchmark).parameters)
    taken.pop("make_executor")
    assert list(offered) == list(taken)
    assert [p.default for p in offered.values()] == [p.default for p in taken.values()]
