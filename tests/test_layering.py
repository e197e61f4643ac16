"""Who may import whom; imports are read with ast, so nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each module or package right under bundle/ and which others it may import; itself always.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {
        *("benchmark", "clip_text", "data", "features", "modalities", "prompts", "regions"),
        *("export", "label_server", "package", "trained"),
    },
    "allocator": set(),
    "atomic": set(),
    "hosts": set(),
    "precision": set(),
    "modalities": set(),
    "regions": set(),
    "data": {"atomic", "modalities", "regions"},
    "transforms": {"data", "hosts", "modalities", "regions"},
    "datasets": {"data", "transforms", "modalities"},
    "ranks": set(),
    "gradients": {"ranks"},
    "dominance": {"gradients", "modalities"},
    "dominance_picture": {"atomic", "dominance", "modalities"},
    "teachers": {"atomic", "heatmap"},
    "networks": {"modalities"},
    "losses": {"modalities", "regions"},
    "methods": {
        *("networks", "losses", "modalities"),
        *("gradients", "dominance", "dominance_picture", "ranks"),
    },
    "prompts": {"atomic", "modalities"},
    "clip_text": {"modalities", "prompts"},
    "engine": set(),
    "checkpoints": {"atomic"},
    "trained": {"checkpoints"},
    "export": {"atomic"},
    "package": {"atomic", "trained"},
    "label_server": {"data", "modalities", "package", "trained"},
    "inferers": {"modalities"},
    "byproducts": {"inferers", "modalities"},
    "metrics": {"modalities"},
    "heatmap": {"modalities"},
    "contact_sheet": {"metrics", "modalities", "regions"},
    "benchmark": {
        *("atomic", "data", "datasets", "heatmap", "metrics", "modalities", "regions", "report"),
        *("losses", "methods", "networks"),
    },
    "features": {"atomic", "data", "methods", "modalities", "networks", "regression_scores"},
    "regression_scores": set(),
    "report": {"atomic", "heatmap", "contact_sheet", "metrics", "modalities", "regions"},
}
FORBIDDEN_IN_BUNDLE = ("nvflare", "federation")
FORBIDDEN_IN_FEDERATION = ("bundle.methods", "bundle.networks")


class Import(NamedTuple):
    """One imported name: its line, its dotted name, and what it is called from then on."""

    line: int
    name: str
    bound: str


def read_imports(source: str, package: str) -> Iterator[Import]:
    """Read every import, those inside functions included; `package` resolves the relative ones."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                yield Import(node.lineno, alias.name, bound)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = [*(parents if node.level else []), *([node.module] if node.module else [])]
            for alias in node.names:
                name = ".".join([*base, alias.name])
                yield Import(node.lineno, name, alias.asname or alias.name)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def refusal(place: Path, found: Import) -> str | None:
    """Say why a file of the bundle (`place` is relative to the root) may not import this."""
    if found.bound == "bundle" and not is_within(found.name, "bundle"):
        return "would hide our own package `bundle`"
    if place.parts[0] == "bundle":
        layer = place.with_suffix("").parts[1]
        target = found.name.split(".")[1] if found.name.startswith("bundle.") else layer
        if any(is_within(found.name, package) for package in FORBIDDEN_IN_BUNDLE):
            return "bundle/ knows no federation"
        if target in ALLOWED and target not in {layer, *ALLOWED[layer]}:
            return f"{layer} may import {sorted(ALLOWED[layer]) or 'nothing of ours'}"
    in_federation = place.parts[:2] == ("custom", "federation")
    if in_federation and any(is_within(found.name, p) for p in FORBIDDEN_IN_FEDERATION):
        return "federation/ knows no method and no network"
    return None


def violations(place: Path, source: str) -> list[str]:
    """List a file's forbidden imports as 'file:line: import (reason)'."""
    package = ".".join(place.parent.parts)
    refusals = [(found, refusal(place, found)) for found in read_imports(source, package)]
    return [f"{place}:{found.line}: {found.name} ({why})" for found, why in refusals if why]


def our_files() -> list[Path]:
    folders = (ROOT / name for name in ("apps", "bundle", "custom", "tests", "jobs"))
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def test_every_import_keeps_to_the_layers():
    found = [
        line
        for path in our_files()
        for line in violations(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(["forbidden imports:", *found])


def test_every_module_has_its_row_in_the_table():
    inside = {p.stem for p in (ROOT / "bundle").iterdir() if p.suffix == ".py"}
    inside |= {p.parent.name for p in (ROOT / "bundle").glob("*/__init__.py")}
    assert inside <= set(ALLOWED), f"add to the table: {sorted(inside - set(ALLOWED))}"


@pytest.mark.parametrize(
    ("place", "line", "name"),
    [
        ("bundle/modalities.py", "from bundle.data.datalist import hash_case", "bundle.data"),
        ("bundle/networks/unet.py", "import bundle.methods.base", "bundle.methods.base"),
        ("bundle/networks/unet.py", "from bundle import losses", "bundle.losses"),
        ("bundle/networks/unet.py", "from ..methods import base", "bundle.methods.base"),
        ("bundle/networks/unet.py", "from .. import report", "bundle.report"),
        ("bundle/engine.py", "from .methods.base import Method", "bundle.methods.base"),
        ("bundle/engine.py", "import nvflare.client as flare", "nvflare.client"),
        ("bundle/data/scan.py", "from federation.client import run", "federation.client"),
        ("custom/federation/client.py", "from bundle.methods import base", "bundle.methods"),
        ("custom/federation/client.py", "import bundle.networks", "bundle.networks"),
        ("bundle/engine.py", "from monai import bundle", "monai.bundle"),
        ("custom/federation/client.py", "import monai.bundle as bundle", "monai.bundle"),
        ("tests/test_x.py", "from monai import bundle", "monai.bundle"),
    ],
)
def test_a_forbidden_import_is_named_with_file_and_line(place, line, name):
    source = f"import torch\n\ndef late():\n    {line}\n"
    (found,) = violations(Path(place), source)
    assert found.startswith(f"{place}:4: {name}")


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("bundle/networks/unet.py", "from bundle.modalities import keep_only"),
        ("bundle/data/scan.py", "from .datalist import SECTIONS"),
        ("bundle/engine.py", "from monai.bundle import ConfigWorkflow"),
        ("bundle/engine.py", "import monai.bundle"),
        ("bundle/engine.py", "import bundle"),
        ("custom/federation/client.py", "from bundle.checkpoints import save_atomically"),
        ("custom/federation/client.py", "import nvflare.client as flare"),
    ],
)
def test_other_imports_pass(place, line):
    assert violations(Path(place), line) == []
