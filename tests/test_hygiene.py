"""What holds for the files of the repository, whatever they say: pins, copies, sizes, endings."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bundle

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"([a-z0-9-]+)==([0-9][^\s;@]*)")
LARGEST_BYTES = 500_000
# One letter of each is in brackets: the pattern must not find itself.
REGISTRY_HOSTS = re.compile(
    r"p[y]pi\.org|pythonh[o]sted|an[a]conda\.org|npmj[s]\.org|cr[a]tes\.io"
    r"|downl[o]ad\.pytorch|prox[y]\.golang",
    re.IGNORECASE,
)
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")
ABSOLUTE_PATH = re.compile(r"(?<![\w.$}~-])/(?:home|Users|root|work)/\w")


def read_json(name: str) -> dict[str, Any]:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines)


def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python reads TOML from 3.11 on")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    listing = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True)
    names = listing.stdout.decode().split("\0")[:-1]
    if listing.returncode or not names:
        pytest.skip("not a git checkout: nothing tells the repository's files from what runs wrote")
    return [ROOT / name for name in names if (ROOT / name).is_symlink() or (ROOT / name).exists()]


@pytest.fixture(scope="module")
def texts(tracked: list[Path]) -> dict[str, str]:
    contents = {path: path.read_bytes() for path in tracked if path.is_file()}
    return {
        str(path.relative_to(ROOT)): content.decode("utf-8")
        for path, content in contents.items()
        if b"\0" not in content
    }


def places(texts: dict[str, str], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts.items()
        for number, line in enumerate(text.split("\n"), 1)
        if pattern.search(line)
    ]


def test_configs_are_flat():
    nested = [p.name for p in (ROOT / "configs").rglob("*") if p.parent != ROOT / "configs"]
    assert not nested, f"MONAI's tools look for configs right under configs/, not for {nested}"


def test_the_two_metadata_files_are_byte_identical():
    same = (ROOT / "metadata.json").read_bytes() == (ROOT / "configs/metadata.json").read_bytes()
    assert same, "run `make metadata`"


def test_the_version_is_the_same_everywhere_and_has_its_changelog():
    metadata = read_json("configs/metadata.json")
    assert metadata["version"] == bundle.__version__
    assert metadata["version"] in metadata["changelog"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)$", changelog, re.MULTILINE) == list(metadata["changelog"])
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == bundle.__version__


def test_constraints_are_exact_sorted_and_without_addresses():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))
    assert names == [canonicalize_name(name) for name in names]


def test_metadata_names_the_pinned_versions():
    metadata, pinned = read_json("configs/metadata.json"), pins()
    named = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    assert named == {name: pinned.get(canonicalize_name(name)) for name in named}
    needed = {Requirement(text).name for text in project()["project"]["dependencies"]}
    assert set(named) == needed


def test_every_direct_dependency_is_pinned_within_its_range():
    table, pinned = project()["project"], pins()
    extras = [text for texts in table["optional-dependencies"].values() for text in texts]
    for requirement in map(Requirement, [*table["dependencies"], *extras]):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"constraints.txt lacks {requirement.name}"
        assert requirement.specifier.contains(version), f"{requirement}, but pinned is {version}"


def test_every_package_of_the_bundle_gets_installed():
    folders = (p.parent.relative_to(ROOT) for p in (ROOT / "bundle").rglob("__init__.py"))
    listed = [p for p in project()["tool"]["setuptools"]["packages"] if p.startswith("bundle")]
    assert sorted(listed) == sorted(".".join(folder.parts) for folder in folders)


def test_no_file_is_a_link(tracked):
    # A link becomes a text file in the zip archives in which bundles travel.
    assert [str(path) for path in tracked if path.is_symlink()] == []


def test_no_file_is_large_or_holds_volumes_or_weights(tracked):
    sizes = {path: path.stat().st_size for path in tracked if path.is_file()}
    assert [f"{path} {size}" for path, size in sizes.items() if size > LARGEST_BYTES] == []
    endings = (".nii", ".nii.gz", ".pt", ".ckpt")
    assert [str(path) for path in tracked if path.name.lower().endswith(endings)] == []


def test_text_ends_with_one_newline_and_no_line_with_blanks(texts):
    assert [name for name, text in texts.items() if text and not text.endswith("\n")] == []
    assert [name for name, text in texts.items() if text.endswith("\n\n")] == []
    assert places(texts, re.compile(r"[ \t\r]+$")) == []


def test_no_text_names_a_package_registry(texts):
    assert places(texts, REGISTRY_HOSTS) == []


def test_registries_are_recognised():
    hosts = [
        host.replace("[", "").replace("]", "").replace("\\", "")
        for host in REGISTRY_HOSTS.pattern.split("|")
    ]
    assert len(hosts) == 7
    for host in hosts:
        found = {"x": f"see https://{host.upper()}/simple"}
        assert places(found, REGISTRY_HOSTS) == [f"x:1: {found['x']}"]
    assert places({"x": "pypi, crates; anaconda"}, REGISTRY_HOSTS) == []


def test_no_text_holds_a_private_key_or_someones_folder(texts):
    assert places(texts, PRIVATE_KEY) == []
    assert places(texts, ABSOLUTE_PATH) == []
