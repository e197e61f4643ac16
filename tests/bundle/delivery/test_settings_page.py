from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from bundle.__main__ import main
from bundle.delivery.settings_page import CONFIGS, MEANINGS, TARGET, settings_page


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CONFIGS, tmp_path / "configs"))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


def plain(page: str) -> str:
    """The page without the blanks that align its tables."""
    return re.sub(r" +\|", " |", page)


def test_the_page_is_what_the_configs_say():
    written = TARGET.read_text(encoding="utf-8")
    assert written == settings_page(), "run `python -m bundle settings`"


def test_the_verb_writes_the_page(tmp_path, capsys):
    assert main(["settings", "--output", str(tmp_path / "2020.md")]) == 0
    assert (tmp_path / "2020.md").read_bytes() == TARGET.read_bytes()
    assert capsys.readouterr().out == f"wrote {tmp_path / '2020.md'}\n"


def test_every_id_of_every_config_has_one_row():
    rows = re.findall(r"^\| `(\w+)` ", settings_page(), re.MULTILINE)
    for name in ("train", "inference", "evaluate"):
        config = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
        for id_ in config:
            if "#" not in id_ and id_[0] != "+":
                assert rows.count(id_) == 1, id_


def test_a_default_that_differs_between_configs_is_shown_for_both(configs):
    row = "| `num_workers` | `4`; `0` in inference.json | train, inference | "
    assert row in plain(settings_page())
    change(configs / "train.json", '"num_workers": 4', '"num_workers": 7')
    assert row.replace("`4`", "`7`") in plain(settings_page(configs))


def test_an_id_without_a_meaning_and_a_meaning_without_an_id_are_refused(configs):
    change(configs / "train.json", '"num_workers": 4', '"num_wokers": 4')
    change(configs / "inference.json", '"num_workers": 0,', "")
    expected = r"Add \['num_wokers'\], remove \['num_workers'\]"
    with pytest.raises(ValueError, match=expected):
        settings_page(configs)


def test_a_meaning_that_is_not_used_is_refused(configs, tmp_path):
    meanings = tmp_path / "meanings.yaml"
    meanings.write_text(MEANINGS.read_text(encoding="utf-8") + "  tea: how strong\n")
    with pytest.raises(ValueError, match=r"Add none, remove \['tea'\]"):
        settings_page(configs, meanings)


def test_an_overlay_that_does_not_tell_its_effect_is_refused(configs):
    change(configs / "method_gmd.yaml", "# Effect: ", "# Efect: ")
    with pytest.raises(ValueError, match=r"method_gmd\.yaml has no paragraph 'Effect'"):
        settings_page(configs)


def test_an_overlay_that_explains_nothing_is_refused_at_every_point(configs):
    (configs / "method_new.yaml").write_text("strength: 3\nfilters: 8\n")
    with pytest.raises(ValueError, match=r"no paragraph 'purpose'.*'Cost'.*'Effect'.*strength"):
        settings_page(configs)


def test_an_overlays_own_ids_are_told_with_their_comments(configs):
    head = "# New.\n#\n#   make demo\n#\n# Cost: none,\n# really.\n#\n# Effect: a | b.\n"
    (configs / "method_new.yaml").write_text(f"{head}strength: 3    # of tea\nfilters: 8\n")
    page = settings_page(configs)
    section = page[page.index("### `method_new.yaml`") :].partition("\n###")[0]
    assert section.startswith("### `method_new.yaml`\n\nNew.\n\n- **Cost:** none, really.\n")
    assert "- **Effect:** a | b.\n" in section
    assert "| `strength` | `3` | of tea |" in plain(section)
    assert "filters" not in section
