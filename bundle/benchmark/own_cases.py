"""A reader's own cases as the data of a grid."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

from bundle.benchmark.plan import OwnCases
from bundle.data.datalist import load_datalist
from bundle.data.degrade import degrade
from bundle.modalities import BRATS_MODALITIES
from bundle.training.datasets import complete_cases, labelled_cases

_DRAWS = 1000


def read(datalist: str | Path) -> OwnCases:
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


def with_gaps(datalist: str | Path, ratio: float, seed: int, output_dir: str | Path) -> str:
    """Write the datalist whose training cases lack modalities, into the grid's folder.

    Few cases may all come to lack one modality, and how that looks could then not be learnt. The
    absence is drawn again until some case has each.

    Args:
        datalist: the cases as they are.
        ratio: chance that a modality of a training case is missing.
        seed: of the absence; the draws of different seeds are different ones.
        output_dir: the grid's folder.

    Returns:
        Its path.

    Raises:
        ValueError: no draw leaves every modality in some case.
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
