"""The commands of README and docs/data.md, run in their order, on made-up data with real names."""

from __future__ import annotations

import re
import shlex
import shutil
from ast import literal_eval
from pathlib import Path

import fire
import pytest
import yaml
from monai.bundle import run

import bundle
from bundle.__main__ import main
from bundle.phantom.data_set import write_phantom

ROOT = Path(bundle.ROOT)
# The folders that the texts name, and the release whose file names a phantom there has.
RELEASES = {
    "/data/BraTS2021_Training_Data": "brats2021",
    "/data/BraTS2021": "brats2021",
    "/data/MICCAI_BraTS_2018_Data_Training": "brats2018",
    "/data/MICCAI_BraTS2020_TrainingData": "brats2020",
    "/data/ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData": "brats2023",
    "/data/new_patients": "brats2020",
}
# What other tests run: the benchmark, which takes hours, the demonstration, made-up heads, and what
# needs the lists of a published protocol.
RUN_ELSEWHERE = (
    *("python -m bundle benchmark", "configs/demo.yaml", "python -m bundle phantom"),
    *("python -m bundle protocol", "hga2020-2468.json"),
)
# Ids that make a run take seconds; each command gets those that its configs have.
SMALL = {
    "spacing": [2.0, 2.0, 2.0],
    "roi_size": [32, 32, 32],
    "filters": 4,
    "blocks_down": [1, 1, 1],
    "deep_supervision": 2,
    "patch": 8,
    "descriptor_patch": 4,
    "max_epochs": 1,
    "val_interval": 1,
    "num_workers": 0,
    "cache_dir": None,
    "evaluate_subsets": ["t1+flair", "t1+t1ce+t2+flair"],
}

pytestmark = pytest.mark.slow


def commands_of(document: str) -> list[str]:
    """List the commands in the document's code blocks, without comments."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" # ")[0].strip() for block in blocks for line in block.splitlines()]
    ours = [line for line in lines if line.startswith(("python -m bundle", "python -m monai"))]
    return [line for line in ours if not any(text in line for text in RUN_ELSEWHERE)]


@pytest.fixture
def at_home(tmp_path, monkeypatch) -> Path:
    """A folder that looks like the checkout to a command, and data where the texts have them."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for folder, naming in RELEASES.items():
        counts = {"training": 10, "validation": 0, "testing": 0}
        write_phantom(
            tmp_path / folder.lstrip("/"), counts, anatomy="simple", size=32, naming=naming
        )
    write_phantom(
        tmp_path / "data" / "one",
        {"training": 1, "validation": 0, "testing": 0},
        anatomy="simple",
        size=32,
    )
    one = tmp_path / "data" / "p01"
    one.mkdir()
    for modality in ("t1", "flair"):
        (source,) = (tmp_path / "data" / "one").rglob(f"*_{modality}.nii.gz")
        shutil.copy(source, one / f"p01_{modality}.nii.gz")
    cases = sorted(
        path.name for path in (tmp_path / "data/MICCAI_BraTS2020_TrainingData").iterdir()
    )
    rows = [f"{i % 3},{case}" for i, case in enumerate(cases) if case.startswith("BraTS20")]
    (tmp_path / "partitioning_1.csv").write_text("\n".join(["Partition_ID,Subject_ID", *rows, ""]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small(names: list[str], words: list[str]) -> list[str]:
    """Give the shrinking overrides whose ids the configs have and the command does not set."""
    known = set().union(*(yaml.safe_load(Path(name).read_text()) for name in names))
    chosen = {k: v for k, v in SMALL.items() if k in known and f"--{k}" not in words}
    return [word for k, v in chosen.items() for word in (f"--{k}", str(v))]


@pytest.mark.parametrize(("document", "count"), [("README.md", 5), ("docs/data.md", 8)])
def test_they_run(document, count, at_home, capsys):
    ran = 0
    for command in commands_of(document):
        # Where the text says /data/..., here is the folder data/... of the temporary one.
        words = [
            str(at_home / word.lstrip("/")) if word.startswith("/data/") else word
            for word in shlex.split(command)
        ]
        if words[:3] == ["python", "-m", "bundle"]:
            assert main(words[3:]) == 0, command + capsys.readouterr().err
        else:
            given = words[words.index("--config_file") + 1]
            names = literal_eval(given) if given.startswith("[") else [given]
            more = [*small(names, words), "--bundle_root", str(at_home)]
            fire.Fire({"run": run}, command=[*words[3:], *more])
        ran += 1
    assert ran == count
    if document == "README.md":
        written = {path.name for path in (at_home / "eval").iterdir()}
        assert {"summary.json", "table.md", "p01_pred.nii.gz"} <= written
    else:
        sites = at_home / "data" / "brats2020" / "sites"
        assert len(list(sites.glob("*.json"))) >= 4
