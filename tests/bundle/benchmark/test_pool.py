from __future__ import annotations

import threading
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from bundle.benchmark.plan import RunGrid
from bundle.benchmark.pool import choose, run_all


class Fake:
    """Stands for training: writes the record, or fails where it is told to."""

    def __init__(self, grid, record, failing=(), silent=()):
        self.grid, self.record = grid, record
        self.failing, self.silent = failing, silent
        self.made = []
        self.at_once, self.most_at_once, self.lock = 0, 0, threading.Lock()

    def __call__(self, run):
        with self.lock:
            self.made.append(run.name)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if run.name in self.failing:
                raise RuntimeError(f"no luck with {run.name}\nsecond line")
            if run.name not in self.silent:
                self.record(self.grid, run)
        finally:
            with self.lock:
                self.at_once -= 1


@pytest.fixture
def make(grid, record, tmp_path):
    """Give make(**settings of the fake): make all runs of the grid that have no record yet."""

    def run(grid=grid, wanted=None, executor=ThreadPoolExecutor, **settings):
        fake = Fake(grid, record, **settings)
        outcome, todo = choose(grid, grid.runs if wanted is None else wanted, tmp_path)
        run_all(grid, todo, outcome, tmp_path, fake, executor, workers=2)
        return fake, outcome

    return run


def test_every_run_is_made_once(grid, make):
    fake, outcome = make()
    assert sorted(fake.made) == sorted(run.name for run in grid.runs)
    assert outcome.finished.keys() == set(fake.made)
    assert fake.most_at_once <= 2
    assert outcome.failures == {}


def test_what_is_finished_is_not_made_again(grid, make):
    make(wanted=grid.runs[:3])
    fake, outcome = make()
    assert set(fake.made) == {run.name for run in grid.runs[3:]}
    assert len(outcome.finished) == len(grid.runs)
    assert make()[0].made == []


def test_a_run_whose_plan_has_changed_is_made_again_and_named(grid, make, capsys):
    make()
    changed = replace(grid.runs[0], ratio=0.25)
    fake, _ = make(RunGrid("small", "ours", "theirs", (changed, *grid.runs[1:])))
    assert fake.made == [changed.name]
    assert f"has changed, their results do not count: ['{changed.name}'" in capsys.readouterr().out


def test_a_failing_run_stops_no_other(grid, make, tmp_path):
    bad = grid.runs[0].name
    _, outcome = make(failing=[bad])
    assert outcome.failures == {bad: f"RuntimeError: no luck with {bad}"}
    assert len(outcome.finished) == len(grid.runs) - 1
    note = tmp_path / "runs" / f"{bad}.error.txt"
    assert "Traceback" in note.read_text()
    assert "second line" in note.read_text()
    assert make()[0].made == [bad]
    assert not note.exists()


def test_a_run_without_a_record_has_failed(grid, make):
    name = grid.runs[1].name
    _, outcome = make(silent=[name])
    assert "without a record" in outcome.failures[name]


class DyingPool(ThreadPoolExecutor):
    """Its first pool of workers dies with whatever it was doing."""

    pools = 0

    def __init__(self, workers):
        super().__init__(workers)
        type(self).pools += 1
        self.number = type(self).pools

    def submit(self, *arguments):
        if self.number > 1:
            return super().submit(*arguments)
        future = Future()
        future.set_exception(BrokenExecutor("a worker was killed"))
        return future


def test_a_worker_that_dies_takes_the_running_runs_but_not_the_grid(grid, make):
    fake, outcome = make(executor=DyingPool)
    assert DyingPool.pools == 2
    lost = [run.name for run in grid.runs[:2]]
    assert list(outcome.failures) == lost
    assert not set(lost) & set(fake.made)
    assert outcome.failures[lost[0]] == "BrokenExecutor: a worker was killed"
    assert len(outcome.finished) == len(grid.runs) - 2
