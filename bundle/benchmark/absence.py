"""What the training cases of a run lack: one chance for all modalities, or one for each."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

from bundle.benchmark import own_cases, runs
from bundle.benchmark.plan import OwnCases, Run
from bundle.data.degrade import degrade
from bundle.modalities import BRATS_MODALITIES


def prepare_data(run: Run, output_dir: str | Path, datalist: str | None = None) -> str:
    """Return the run's datalist; write what is not there yet. Not for two processes at once.

    Args:
        run: the run.
        output_dir: the grid's folder.
        datalist: where a reader's own cases are listed, for a run that is of these.

    Raises:
        ValueError: `run.rates` does not give each modality a chance from 0 to 1.
    """
    if isinstance(run.data, OwnCases):
        return own_cases.with_gaps(str(datalist), run.ratio, run.seed, output_dir)
    if run.rates is None:
        return runs.prepare_data(run, output_dir)
    if len(run.rates) != len(BRATS_MODALITIES):
        raise ValueError(
            f"{run.name}: expected a rate for each of {list(BRATS_MODALITIES)}, "
            f"got {list(run.rates)}"
        )
    whole = runs.whole_phantom(run.data, output_dir)
    words = "_".join(f"{rate:g}" for rate in run.rates)
    path = Path(whole).with_name(f"datalist_training_missing_{words}_seed_{run.seed}.json")
    rates = dict(zip(BRATS_MODALITIES, run.rates, strict=True))
    with redirect_stdout(io.StringIO()):
        degrade(whole, path, rates=rates, sections=["training"], seed=run.seed)
    return str(path)
