"""docs/settings.md: every setting, its default and its meaning, read from the configs.

Defaults come from the JSON configs. JSON takes no comments, so the meanings of their ids stand in
setting_meanings.yaml beside this file. An overlay tells its own: its head says what it is, what it
costs and what it was measured to do, and a comment behind an id says what the id means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import bundle
from bundle.atomic import write_text_atomically
from bundle.evaluation.tables import markdown

CONFIGS = Path(bundle.ROOT) / "configs"
MEANINGS = Path(__file__).with_name("setting_meanings.yaml")
TARGET = Path(bundle.ROOT) / "docs" / "settings.md"
WORKFLOWS = ("train.json", "inference.json", "evaluate.json")
# Longer defaults are left to the file that holds them.
_LONGEST = 72
_INTRODUCTION = """\
# Settings

`python -m bundle settings` writes this page from the files in `configs/`.

Every id of the configs is a setting. Give it on the command line (`--batch_size 1`), or in an
overlay of your own: `--config_file "['configs/train.json','mine.yaml']"`. A later file wins, and
the command line wins over all files. `'$None'` on the command line means null. A default that
starts with `$` is a Python expression, and `@name` stands for the value of another id.

An id that no config knows is refused before anything is loaded, with the one that is spelt most
like it. So is a name that a part of the configs does not take (`--train#trainer#max_epoch`), and,
on the command line, an id of other configs than those given. An overlay may define ids of its own:
they are known where something uses them, as `@name`. An id that begins with `_` is not looked at.
"""


@dataclass(frozen=True)
class Overlay:
    """A YAML overlay as its author describes it.

    Attributes:
        name: of the file.
        purpose, cost, effect: paragraphs of its head.
        settings: id -> (value, meaning), for ids that no JSON config has.
    """

    name: str
    purpose: str
    cost: str
    effect: str
    settings: Mapping[str, tuple[Any, str]]


def write_settings(output: str | None = None) -> Path:
    """Write the page and return its path; `output` None = docs/settings.md of this bundle.

    Raises:
        ValueError: see `settings_page`.
    """
    path = TARGET if output is None else Path(output)
    write_text_atomically(path, settings_page())
    return path


def settings_page(configs: Path = CONFIGS, meanings: Path = MEANINGS) -> str:
    """Compose the page.

    Args:
        configs: the folder of the configs.
        meanings: a YAML file, heading -> id -> meaning.

    Returns:
        Markdown.

    Raises:
        ValueError: an id without a meaning, a meaning without an id, or an overlay whose head lacks
            a paragraph; the message names every one.
    """
    workflows = {name: json.loads((configs / name).read_text("utf-8")) for name in WORKFLOWS}
    groups = yaml.safe_load(meanings.read_text(encoding="utf-8"))
    known = {id_ for config in workflows.values() for id_ in config if _is_own(id_)}
    told = {id_ for group in groups.values() for id_ in group}
    if known != told:
        raise ValueError(
            f"{meanings.name}: expected a meaning for each id of {', '.join(WORKFLOWS)}. Add "
            f"{sorted(known - told) or 'none'}, remove {sorted(told - known) or 'none'}."
        )
    sections = [_INTRODUCTION]
    for heading, group in groups.items():
        rows = [_row(id_, meaning, workflows) for id_, meaning in group.items()]
        sections.append(
            f"## {heading}\n\n" + markdown(["id", "default", "config", "meaning"], rows, left=4)
        )
    sections.append("## Overlays\n\nA file that is laid over `train.json`, or over another file.\n")
    sections += [_overlay_section(each) for each in read_overlays(configs, known)]
    return "\n".join(sections)


def read_overlays(configs: Path, known: set[str]) -> list[Overlay]:
    """Read what the overlays say of themselves.

    Args:
        configs: the folder with the overlays, *.yaml.
        known: ids that are explained elsewhere.

    Returns:
        The overlays, by name.

    Raises:
        ValueError: a head without purpose, cost or effect, or an id of an overlay's own without a
            comment in any overlay that has it.
    """
    found, meanings = [], {}
    for path in sorted(configs.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        values = {id_: value for id_, value in yaml.safe_load(text).items() if _is_own(id_)}
        own = {id_: value for id_, value in values.items() if id_ not in known}
        comments = dict(re.findall(r"^(\w+):.*?\s# (.+)$", text, re.MULTILINE))
        meanings = {id_: comments[id_] for id_ in own if id_ in comments} | meanings
        found.append((path.name, _head(text), own))
    wrong = [
        f"{name} has no paragraph '{part}'"
        for name, head, _ in found
        for part in ("purpose", "Cost", "Effect")
        if not head.get(part)
    ]
    wrong += [
        f"{name} has no comment behind {id_}"
        for name, _, own in found
        for id_ in own
        if id_ not in meanings
    ]
    if wrong:
        raise ValueError(
            f"overlays must explain themselves: {'; '.join(wrong)}. Add what is missing."
        )
    return [
        Overlay(
            name,
            *(head[part] for part in ("purpose", "Cost", "Effect")),
            {id_: (value, meanings[id_]) for id_, value in own.items()},
        )
        for name, head, own in found
    ]


def _is_own(id_: str) -> bool:
    """True = the id is the config's own, not a change to a part of another config."""
    return "#" not in id_ and not id_.startswith("+")


def _head(text: str) -> dict[str, str]:
    """Split the comment at the top of an overlay into its paragraphs."""
    lines = re.match(r"(?:#.*\n)*", text).group().splitlines()
    blocks = "\n".join(line[1:].removeprefix(" ") for line in lines).split("\n\n")
    paragraphs = [" ".join(block.split()) for block in blocks if not block.startswith("  ")]
    head = {"purpose": paragraphs[0]} if paragraphs else {}
    for paragraph in paragraphs:
        name, _, rest = paragraph.partition(": ")
        if name in ("Cost", "Effect"):
            head[name] = rest
    return head


def _row(id_: str, meaning: str, workflows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    defaults = {name: _shown(config[id_]) for name, config in workflows.items() if id_ in config}
    first, *others = dict.fromkeys(defaults.values())
    differing = [f"{value} in {name}" for name, value in defaults.items() if value in others]
    names = ", ".join(name.removesuffix(".json") for name in defaults)
    return [f"`{id_}`", "; ".join([first, *differing]), names, meaning]


def _overlay_section(overlay: Overlay) -> str:
    lines = [f"### `{overlay.name}`\n\n{overlay.purpose}\n"]
    lines.append(f"- **Cost:** {overlay.cost}\n- **Effect:** {overlay.effect}\n")
    rows = [[f"`{id_}`", _shown(value), said] for id_, (value, said) in overlay.settings.items()]
    if rows:
        lines.append(markdown(["id", "value", "meaning"], rows, left=3))
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and "_target_" in value:
        text = value["_target_"].rpartition(".")[2]
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`" if len(text) <= _LONGEST else "see the file"
