"""The bundle as one zip, with weights inside and configs that fit them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

import bundle
from bundle.atomic import written_atomically
from bundle.delivery.trained_model import Trained, find_trained

ROOT = Path(bundle.ROOT)
# MONAI Label takes the task's type from how the folder's name ends.
NAME = "brats_missing_modality_segmentation"
FILES = (
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "constraints.txt",
    "pyproject.toml",
)
# What travels from each folder, by ending; whatever a run wrote there stays.
FOLDERS = {
    "apps": {".py"},
    "bundle": {".csv", ".j2", ".json", ".py", ".yaml"},
    "configs": {".conf", ".json", ".yaml"},
    "custom": {".json", ".md", ".py", ".yaml"},
    "docs": {".md", ".png", ".txt"},
    "jobs": {".conf", ".json", ".md", ".py", ".yaml"},
}
LEFT_OUT = {"configs/monailabel_train.json"}
WORKFLOWS = {
    "train": ("train.json",),
    "inference": ("inference.json",),
    "evaluation": ("train.json", "evaluate.json"),
}
DEMO_DATA = (
    "the made-up data of `make demo`, which show no patient: the weights show that everything "
    "works, and are good for nothing else"
)
CARD, CARD_HEADING = "docs/README.md", "## The weights\n"


def package(
    output: str | Path,
    weights: str | None = None,
    overlays: Sequence[str] = (),
    data: str | None = None,
) -> Path:
    """Write the bundle as a zip whose only folder is a complete bundle; same input, same bytes.

    Args:
        output: the zip, or the folder that gets one named after bundle and version.
        weights, overlays: see `bundle.delivery.trained_model.find_trained`.
        data: what the weights were trained on, in words; None = not said (known for the demo's).

    Returns:
        The path of the zip.

    Raises:
        FileNotFoundError: no weights, or an overlay that is not there.
        ValueError: weights that do not fit the configs, and metadata that do not fit the weights.
    """
    trained = find_trained(weights, overlays)
    if data is None and trained.weights == (ROOT / "demo/models/model.pt").resolve():
        data = DEMO_DATA
    path = Path(output)
    if path.suffix != ".zip":
        path = path / f"{NAME}_v{bundle.__version__}.zip"
    write_zip(contents(trained, data), path)
    return path


def contents(trained: Trained, data: str | None = None) -> dict[str, bytes]:
    """Collect the bundle's files, and prove that the weights fit every workflow.

    Three things differ from the checkout: `train.json`, `inference.json` and a complete
    `evaluation.json` hold the settings that the weights were trained with; metadata, docs/README.md
    and `models/model.json` say where the weights come from; and there are weights.

    Args:
        trained: weights and overlays.
        data: see `package`.

    Returns:
        Path inside the bundle's folder -> bytes.

    Raises:
        ValueError: see `package`.
    """
    files = dict(_own_files())
    for workflow, names in WORKFLOWS.items():
        config = trained.config(*names)
        if workflow == "evaluation":
            # The ids that MONAI wants in a workflow that is complete by itself.
            for name in ("dataset", "evaluator", "inferer"):
                config[name] = f"@validate#{name}"
        network = trained.network(config)
        files[f"configs/{workflow}.json"] = _json(config)
    note, weights = trained.note(), trained.weights.read_bytes()
    # A bundle that was unpacked and is packaged again has lost nothing.
    note["trained_on"] = data or note.get("trained_on")
    note["overlays"] = [*note.get("overlays", []), *(path.name for path in trained.overlays)]
    facts = _facts(note, network.state_dict(), hashlib.sha256(weights).hexdigest())
    metadata = json.loads(files["configs/metadata.json"])
    _check_channels(metadata, note)
    metadata["weights_source"] = "; ".join(f"{name}: {fact}" for name, fact in facts.items())
    files["configs/metadata.json"] = files["metadata.json"] = _json(metadata)
    files[CARD] = _card(files[CARD].decode("utf-8"), facts).encode("utf-8")
    files["models/model.pt"], files["models/model.json"] = weights, _json(note)
    return files


def write_zip(files: Mapping[str, bytes], path: Path) -> None:
    """Write files into a zip under the bundle's name: sorted, undated, stored as they are.

    Compression would save little of the weights, and make the bytes depend on zlib's version.
    """
    with written_atomically(path) as target, zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{NAME}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, files[name])


def _own_files() -> Iterator[tuple[str, bytes]]:
    found = [ROOT / name for name in FILES]
    for folder, endings in FOLDERS.items():
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in endings]
    for path in found:
        name = path.relative_to(ROOT).as_posix()
        if name not in LEFT_OUT:
            yield name, path.read_bytes()


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=4) + "\n").encode("utf-8")


def _facts(note: Mapping[str, Any], state: Mapping[str, Tensor], digest: str) -> dict[str, str]:
    """Say in words where weights come from, in the order in which people ask."""
    overlays = f" with {', '.join(note['overlays'])}" if note["overlays"] else ""
    other = ("prompts", "trained_on", "overlays", "temperatures")
    count, numbers = len(state), sum(value.numel() for value in state.values())
    calibrated = note.get("temperatures")
    told = f"temperatures of {calibrated['cases']} validation cases" if calibrated else "no"
    return {
        "trained on": note["trained_on"] or "not said when they were packaged",
        "configs": f"train.json{overlays}",
        "made for": json.dumps({name: said for name, said in note.items() if name not in other}),
        "source of the prompts": (note.get("prompts") or {}).get("source", "none"),
        "size": f"{count} tensors, {numbers} numbers; all {count} of {count} fit the configs",
        "calibrated": told,
        "SHA-256": digest,
    }


def _card(card: str, facts: Mapping[str, str]) -> str:
    head, heading, _ = card.partition(CARD_HEADING)
    assert heading, f"{CARD} lacks its section {CARD_HEADING!r}"
    rows = [f"| {name} | {fact.replace('|', '/')} |" for name, fact in facts.items()]
    return "\n".join([head + heading, "| | |", "|---|---|", *rows, ""])


def _check_channels(metadata: Mapping[str, Any], note: Mapping[str, Any]) -> None:
    data = metadata["network_data_format"]
    for place, tensor, name in (("inputs", "image", "modalities"), ("outputs", "pred", "regions")):
        said, held = data[place][tensor]["num_channels"], note.get(name, [])
        if len(held) != said:
            raise ValueError(
                f"configs/metadata.json describes {said} channels of {tensor}, but the weights "
                f"were made for the {name} {json.dumps(held)}. Describe these in "
                "network_data_format."
            )
