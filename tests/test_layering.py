"""Who may import whom, room by room; imports are read with ast, so nothing is executed.

A room is a folder or a file right under `bundle/` or `custom/federation/`. It may import the rooms
of its row and, through them, what those import. A row that names a room twice, once itself and once
through another room, says that it uses both.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The ground, which imports nothing else of ours and which every other room may import. Only
# `bundle` itself reaches for the command line, under MONAI's own.
GROUND = {"bundle", "bundle.modalities", "bundle.regions", "bundle.atomic", "bundle.cli"}
# Each room, and the rooms that its files may name in an import. From the bottom up.
ALLOWED: dict[str, set[str]] = {
    "bundle.data": set(),
    "bundle.phantom": {"bundle.data"},
    "bundle.protocols": {"bundle.data"},
    "bundle.transforms": {"bundle.data"},
    "bundle.networks": set(),
    "bundle.losses": set(),
    "bundle.evaluation": set(),
    "bundle.methods": {"bundle.networks", "bundle.losses", "bundle.evaluation"},
    "bundle.training": {"bundle.data", "bundle.transforms"},
    "bundle.prompts": {"bundle.training"},
    "bundle.inference": set(),
    "bundle.delivery": {"bundle.data", "bundle.evaluation", "bundle.phantom", "bundle.training"},
    "bundle.sentiment": {"bundle.data", "bundle.evaluation", "bundle.methods"},
    "bundle.benchmark": {
        *("bundle.data", "bundle.evaluation", "bundle.methods", "bundle.networks"),
        *("bundle.phantom", "bundle.training"),
    },
    "bundle.__main__": {
        *("bundle.benchmark", "bundle.data", "bundle.delivery", "bundle.evaluation"),
        *("bundle.phantom", "bundle.prompts", "bundle.protocols", "bundle.sentiment"),
    },
    "federation.rules": set(),
    "federation.settings": {"federation.rules"},
    "federation.policy": set(),
    "federation.protocol": {"bundle.data", "bundle.evaluation", "bundle.training"},
    "federation.filters": {"federation.protocol", "federation.settings"},
    "federation.site": {
        *("federation.filters", "federation.protocol", "federation.rules", "federation.settings"),
        *("bundle.data", "bundle.training"),
    },
    "federation.server": {"federation.protocol", "federation.settings", "bundle.training"},
    "federation.census": {
        *("federation.protocol", "federation.rules", "federation.settings", "bundle.data"),
    },
    "federation.kit": {"federation.policy", "federation.rules", "federation.settings"},
    "federation.export": {"federation.protocol", "federation.server"},
    "federation.job": {
        *("federation.filters", "federation.protocol", "federation.server", "federation.site"),
    },
    "federation.simulate": {
        *("federation.job", "federation.policy", "federation.protocol", "federation.server"),
        *("federation.settings", "bundle.data", "bundle.evaluation", "bundle.phantom"),
    },
}
# What must not be reached, not even through other modules: (whose files, what, why).
UNREACHABLE = (
    ("bundle", "federation", "bundle/ knows no federation"),
    ("bundle", "nvflare", "bundle/ knows no federation"),
    ("federation", "bundle.methods", "federation/ knows no method"),
    ("federation", "bundle.networks", "federation/ knows no network"),
    ("federation", "bundle.benchmark", "federation/ is measured, and measures nothing itself"),
    ("federation.site", "federation.server", "a site knows nothing of the server's side"),
    ("federation.server", "federation.site", "the server knows nothing of a site's side"),
)


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


def module_of(place: Path) -> str:
    """Name the module of a file, whose path is relative to the root."""
    parts = place.with_suffix("").parts
    parts = parts[1:] if parts[0] == "custom" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    """Name the room of one of our modules, or of a name in it; '' for what is not ours."""
    parts = name.split(".")
    if parts[0] not in ("bundle", "federation"):
        return ""
    room = ".".join(parts[:2])
    return room if room in {*GROUND, *ALLOWED} else parts[0]


def refusal(place: Path, found: Import) -> str | None:
    """Say why a file (`place` is relative to the root) may not import this."""
    if found.bound == "bundle" and not is_within(found.name, "bundle"):
        return "would hide our own package `bundle`"
    room, target = room_of(module_of(place)), room_of(found.name)
    if not room or place.parts[0] in ("tests", "jobs", "apps"):
        return None
    for where, what, why in UNREACHABLE:
        if is_within(room, where) and is_within(found.name, what):
            return why
    if target in {"", room, "federation"} or (target in GROUND and room not in GROUND):
        return None
    ground = {"bundle.cli"} if room == "bundle" else {"bundle"}
    allowed = ground if room in GROUND else ALLOWED.get(room, set())
    if target in allowed:
        return None
    return f"{room} may import {sorted(allowed) or 'the ground alone'}"


def violations(place: Path, source: str) -> list[str]:
    """List a file's forbidden imports as 'file:line: import (reason)'."""
    package = module_of(place.parent / "__init__.py")
    refusals = [(found, refusal(place, found)) for found in read_imports(source, package)]
    return [f"{place}:{found.line}: {found.name} ({why})" for found, why in refusals if why]


def our_files() -> list[Path]:
    folders = (ROOT / name for name in ("apps", "bundle", "custom", "tests", "jobs"))
    return sorted(path.relative_to(ROOT) for folder in folders for path in folder.rglob("*.py"))


def graph() -> dict[str, set[str]]:
    """Which modules each of our modules imports by name, packages and what is not ours included."""
    files = [path for path in our_files() if path.parts[0] in ("bundle", "custom")]
    modules = {module_of(path): path for path in files}
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        package = module_of(path.parent / "__init__.py")
        source = (ROOT / path).read_text(encoding="utf-8")
        names = {each.name for each in read_imports(source, package)}
        # 'from bundle.data.scan import scan' names the module bundle.data.scan.
        found[module] = {
            name if name in modules else name.rpartition(".")[0] or name for name in names
        }
    return found


def reached(start: str, imports: dict[str, set[str]]) -> dict[str, list[str]]:
    """Follow imports; return each name that comes up, with the way to it."""
    ways, waiting = {start: [start]}, [start]
    while waiting:
        current = waiting.pop()
        for name in sorted(imports.get(current, ())):
            if name not in ways:
                ways[name] = [*ways[current], name]
                waiting.append(name)
    return ways


def detours(imports: dict[str, set[str]]) -> list[str]:
    """List the ways on which a module reaches what it must not, however long they are."""
    return [
        f"{' -> '.join(way)} ({why})"
        for module in imports
        for name, way in reached(module, imports).items()
        for where, what, why in UNREACHABLE
        if is_within(module, where) and is_within(name, what)
    ]


def test_every_import_keeps_to_the_layers():
    found = [
        line
        for path in our_files()
        for line in violations(path, (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(["forbidden imports:", *found])


def test_nothing_is_reached_on_a_detour():
    found = detours(graph())
    assert not found, "\n".join(["forbidden ways:", *found])


def test_every_room_has_its_row_and_every_row_its_room():
    rooms = {module_of(path) for path in our_files() if path.parts[0] in ("bundle", "custom")}
    rooms = {".".join(name.split(".")[:2]) for name in rooms} - {"federation"}
    assert rooms == {*GROUND, *ALLOWED}


def test_the_ground_is_all_that_lies_loose_in_the_bundle():
    loose = {path.stem for path in (ROOT / "bundle").glob("*.py")}
    assert loose == {"__init__", "__main__", "modalities", "regions", "atomic"}


def test_no_arrow_runs_back_up():
    # Raises CycleError, which names the rooms, where a row leads back to itself.
    order = list(TopologicalSorter(ALLOWED).static_order())
    assert order.index("bundle.data") < order.index("bundle.training")


def test_every_arrow_of_the_table_is_used():
    used: dict[str, set[str]] = {}
    for module, names in graph().items():
        used.setdefault(room_of(module), set()).update(map(room_of, names))
    unused = {room: row - used.get(room, set()) for room, row in ALLOWED.items()}
    assert not {room: row for room, row in unused.items() if row}


@pytest.mark.parametrize(
    ("place", "line", "name"),
    [
        ("bundle/modalities.py", "from bundle.data.datalist import hash_case", "bundle.data"),
        ("bundle/networks/unet.py", "import bundle.methods.base", "bundle.methods.base"),
        ("bundle/networks/unet.py", "from bundle import losses", "bundle.losses"),
        ("bundle/networks/unet.py", "from ..methods import base", "bundle.methods.base"),
        ("bundle/networks/unet.py", "from .. import evaluation", "bundle.evaluation"),
        ("bundle/methods/gmd/method.py", "from bundle.training import engine", "bundle.training"),
        ("bundle/training/engine.py", "from ..methods.base import Method", "bundle.methods.base"),
        ("bundle/training/engine.py", "import nvflare.client as flare", "nvflare.client"),
        ("bundle/data/scan.py", "from federation.site.client import run", "federation.site.client"),
        ("custom/federation/kit.py", "from bundle.methods import base", "bundle.methods"),
        ("custom/federation/kit.py", "import bundle.networks", "bundle.networks"),
        ("custom/federation/site/client.py", "import federation.server.round", "federation.server"),
        (
            "custom/federation/server/round.py",
            "from federation.site import state",
            "federation.site",
        ),
        ("custom/federation/protocol/stages.py", "import federation.filters", "federation.filters"),
        ("custom/federation/filters/privacy.py", "from ..site import state", "federation.site"),
        ("bundle/training/engine.py", "from monai import bundle", "monai.bundle"),
        ("custom/federation/kit.py", "import monai.bundle as bundle", "monai.bundle"),
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
        ("bundle/training/engine.py", "from monai.bundle import ConfigWorkflow"),
        ("bundle/training/engine.py", "import monai.bundle"),
        ("bundle/training/engine.py", "import bundle"),
        ("custom/federation/kit.py", "from bundle.atomic import write_text_atomically"),
        ("custom/federation/site/client.py", "import nvflare.client as flare"),
        ("tests/test_x.py", "from bundle.methods.base import Method"),
    ],
)
def test_other_imports_pass(place, line):
    assert violations(Path(place), line) == []


def test_a_detour_is_named_with_the_whole_way():
    imports = {
        "federation.simulate": {"bundle.data.scan"},
        "bundle.data.scan": {"bundle.atomic", "bundle.methods.base"},
    }
    (found,) = detours(imports)
    way = "federation.simulate -> bundle.data.scan -> bundle.methods.base"
    assert found == f"{way} (federation/ knows no method)"
