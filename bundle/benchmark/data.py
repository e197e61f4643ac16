"""The data of a run: the phantom or cases of one's own, and what its training cases lack."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

from bundle.benchmark.plan import OwnCases, Phantom, Run
from bundle.data.datalist import load_datalist
from bundle.data.degrade import degrade
from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.data_set import ensure_phantom
from bundle.phantom.gaps import phantom_with_gaps
from bundle.training.datasets import complete_cases, labelled_cases

_DRAWS = 1000


def prepare_data(run: Run, output_dir: str | Path, datalist: str | None = None) -> str:
    """Return the run's datalist; write what is not there yet. Not for two processes at once.

    Args:
        run: the run. The cases of a federated one are whole: its sites lack modalities.
        output_dir: the grid's folder.
        datalist: where one's own cases are listed, for a run that is of these.

    Raises:
        ValueError: `run.rates` does not give each modality a chance from 0 to 1, or no draw of
            gaps leaves every modality in some case.
    """
    if isinstance(run.data, OwnCases):
        return _own_with_gaps(str(datalist), run.ratio, run.seed, output_dir)
    if run.federation is not None:
        return whole_phantom(run.data, output_dir)
    if run.rates is not None:
        return _phantom_with_rates(run, run.data, output_dir)
    with redirect_stdout(io.StringIO()):
        return phantom_with_gaps(
            str(_phantom_folder(run.data, output_dir)),
            ratio=run.ratio,
            sections=["training"],
            seed=run.data.seed or 0,
            counts=run.data.counts,
            anatomy=run.data.anatomy,
            size=run.data.size,
            absence_seed=run.seed,
        )


def whole_phantom(phantom: Phantom, output_dir: str | Path) -> str:
    """Return the datalist of the phantom without gaps; write what is not there yet."""
    with redirect_stdout(io.StringIO()):
        path = ensure_phantom(
            str(_phantom_folder(phantom, output_dir)),
            sections=phantom.counts,
            anatomy=phantom.anatomy,
            size=phantom.size,
            seed=phantom.seed or 0,
        )
    return str(path)


def read_own_cases(datalist: str | Path) -> OwnCases:
    """Count the cases of a datalist, all of which must be labelled and the testing ones complete.

    Raises:
        ValueError: a section without cases, cases without a label, or a testing case that lacks a
            modality: it could not be tested on every subset.
    """
    content = load_datalist(datalist, BRATS_MODALITIES)
    training, testing = (labelled_cases(content, name) for name in ("training", "testing"))
    whole = complete_cases(testing, BRATS_MODALITIES)
    if len(whole) < len(testing):
        names = [str(item.get("case")) for item in testing if item not in whole]
        raise ValueError(
            f"{datalist}: expected testing cases with all of {'+'.join(BRATS_MODALITIES)}, got "
            f"{names}, which lack some. Move them to 'training'."
        )
    stated = [
        [str(item.get("case")), sorted(name for name, file in item["image"].items() if file)]
        for item in (*training, *testing)
    ]
    digest = hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:16]
    return OwnCases(len(training), len(testing), digest)


def _phantom_folder(phantom: Phantom, output_dir: str | Path) -> Path:
    what = [phantom.size or phantom.anatomy, *([phantom.seed] if phantom.seed else [])]
    name = "_".join(["phantom", *map(str, phantom.counts.values()), *map(str, what)])
    return Path(output_dir).absolute() / name


def _phantom_with_rates(run: Run, phantom: Phantom, output_dir: str | Path) -> str:
    """Let each modality be missing at a rate of its own."""
    given = run.rates or ()
    if len(given) != len(BRATS_MODALITIES):
        raise ValueError(
            f"{run.name}: expected a rate for each of {list(BRATS_MODALITIES)}, got {list(given)}"
        )
    whole = whole_phantom(phantom, output_dir)
    words = "_".join(f"{rate:g}" for rate in given)
    path = Path(whole).with_name(f"datalist_training_missing_{words}_seed_{run.seed}.json")
    rates = dict(zip(BRATS_MODALITIES, given, strict=True))
    with redirect_stdout(io.StringIO()):
        degrade(whole, path, rates=rates, sections=["training"], seed=run.seed)
    return str(path)


def _own_with_gaps(datalist: str, ratio: float, seed: int, output_dir: str | Path) -> str:
    """Write the datalist whose training cases lack modalities, into the grid's folder.

    Few cases may all come to lack one modality, and how that looks could then not be learnt. The
    absence is drawn again until some case has each.
    """
    path = Path(output_dir).absolute() / f"datalist_training_missing_{ratio:g}_seed_{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for draw in range(_DRAWS):
        with redirect_stdout(io.StringIO()):
            content = degrade(
                datalist, path, ratio=ratio, sections=["training"], seed=seed * _DRAWS + draw
            )
        left = {
            name for item in content["training"] for name, file in item["image"].items() if file
        }
        if left == set(BRATS_MODALITIES):
            return str(path)
    raise ValueError(
        f"{datalist}: expected {len(content['training'])} training cases to have each of "
        f"{'+'.join(BRATS_MODALITIES)} at a missing ratio of {ratio:g}, got none in {_DRAWS} "
        "draws. Add cases."
    )
