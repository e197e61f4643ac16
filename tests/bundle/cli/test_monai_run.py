from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fire.parser import DefaultParseValue

from bundle.cli import monai_run
from bundle.cli.errors import tell_last
from bundle.cli.monai_run import is_news, refusals, take_over

ROOT = Path(__file__).resolve().parents[3]


def told(*words: str) -> list[str]:
    return list(refusals(["run", "--config_file", "['configs/train.json','a.yaml']", *words]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--dataset_dir", "2024_01_15"],
            "the number 20240115, which MONAI's command line makes of",
        ),
        (["--output_dir=1e5"], "the number 100000.0,"),
        (["--ckpt_dir", "0x10"], "the number 16,"),
        (["--cache_dir", "a,b"], "the tuple ('a', 'b'),"),
        (["--bundle_root", "[a]"], "the list ['a'],"),
        (["--pretrained_file", "True"], "the bool True,"),
        (["--prompt-file", "{a}"], "the set {'a'},"),
        (["--train#handlers#3#log_dir", "7"], "the number 7,"),
        (["--validate#handlers#0#path=007.5"], "the number 7.5,"),
    ],
)
def test_a_path_that_arrives_as_something_else_is_refused(words, said):
    (refusal,) = told(*words)
    name, word = re.fullmatch(r"--([^= ]+)[= ](.*)", " ".join(words)).groups()
    name = name.replace("-", "_")
    assert refusal.startswith(f"{name}: expected a path, got {said}")
    assert refusal.endswith(f"""Quote it twice, --{name} '"{word}"', or write ./{word}.""")
    assert told(f"--{name}", f'"{word}"') == told(f"--{name}", f"./{word}") == []
    assert DefaultParseValue(f'"{word}"') == word


@pytest.mark.parametrize(
    ("word", "left"), [("runs#1", "runs"), ("a#b#c", "a"), ("(a)", "a"), ("'x' #y", "x")]
)
@pytest.mark.parametrize("name", ["output_dir", "prompt_source"])
def test_a_text_that_would_lose_something_is_refused_for_any_setting(name, word, left):
    (refusal,) = told(f"--{name}={word}")
    assert refusal.startswith(f"{name}: expected {word!r}, got {left!r}, which MONAI's")


@pytest.mark.parametrize(
    "words", [["--output_dir=~/x"], ["--ckpt_dir", "~"], ["--a_file", "'~/b'"]]
)
def test_a_home_that_no_shell_has_put_in_is_refused(words):
    (refusal,) = told(*words)
    assert ": no shell has put your folder in the place of ~. Write --" in refusal


@pytest.mark.parametrize(
    "words", [["--cache_dir", "null"], ["--output_dir="], ["--ckpt_dir", "--amp"]]
)
def test_a_path_that_is_none_is_refused(words):
    (refusal,) = told(*words)
    assert re.search(r"expected a path, got '(null)?'\. Write --\w+ None for none\.$", refusal)


@pytest.mark.parametrize(
    "words",
    [
        ["--dataset_dir", "/data/2024_01_15", "--output_dir", "./1e5", "--ckpt_dir=a-b/c d"],
        ["--cache_dir", "None", "--meta_file", "['a.json']"],
        ["--output_dir", "/data/a#b", "--pretrained_file", "runs/ä.pt"],
        ["--max_epochs", "3", "--spacing", "[2.0, 2.0, 2.0]", "--resume", "false", "--amp"],
        [
            "--train#trainer#max_epochs",
            "2",
            "--evaluate_subsets",
            "['t1+t2']",
            "--device",
            "cuda:0",
        ],
        ["--modalities", "t1,t2", "--regions", "{WT: [1, 2]}", "--learning_rate", "1e-3"],
    ],
)
def test_what_arrives_as_it_was_typed_is_let_through(words):
    assert told(*words) == []


def test_one_dash_is_as_good_as_two_as_python_fire_reads_it():
    assert "got 'runs', which" in next(refusals(["run", "-output_dir", "runs#1"]))
    assert "got the number 20240115" in next(refusals(["run", "-dataset_dir=2024_01_15"]))
    assert list(refusals(["run", "--seed", "-1"])) == []


def test_a_switch_inside_a_component_must_be_a_value_of_its_own():
    (refusal,) = told("--validate#key_metric#mean_dice#hd95", "false", "--train#trainer#amp=False")
    assert refusal == (
        "validate#key_metric#mean_dice#hd95: expected True or False, got the text 'false', which "
        "counts as true where no config reads it. Write --validate#key_metric#mean_dice#hd95 False."
    )
    assert told("--resume", "false", "--a#_disabled_", "true", "--a#b", "'false'") == []


def test_a_refused_word_ends_the_run_at_once(monkeypatch, capsys):
    monkeypatch.setattr(monai_run, "bear_every_letter", lambda: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "--dataset_dir", "2024_01_15"])
    handler = logging.StreamHandler()
    monkeypatch.setattr(logging.root, "handlers", [handler])
    with pytest.raises(SystemExit) as stop:
        take_over()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: dataset_dir: expected a path, got the number 20240115")
    assert sys.excepthook is tell_last
    assert handler.filters == [is_news]


LINES = (
    "Engine run is terminating due to exception: x",
    "Exception: x",
    "Current run is terminating",
)


@pytest.mark.parametrize(
    ("error", "kept"), [(ValueError("x"), "a warning"), (KeyError("x"), "a warning and all lines")]
)
def test_engines_do_not_log_again_what_is_told_at_the_end(error, kept, monkeypatch):
    records = [logging.makeLogRecord({"msg": line, "levelno": 40}) for line in LINES]
    other = logging.makeLogRecord({"msg": "case a is left out", "levelno": 40})
    assert all(is_news(record) for record in records)
    try:
        raise error
    except type(error):
        assert [is_news(record) for record in (other, *records)] == [
            True,
            *[kept != "a warning"] * 3,
        ]
        monkeypatch.setenv("PATCHWORK_TRACEBACK", "1")
        assert all(is_news(record) for record in records)


def test_under_monais_command_line_a_component_that_fails_says_one_line(tmp_path):
    """Beside MONAI's own warning that a config is code."""
    config = {
        "imports": ["$import bundle"],
        "output_dir": "",
        "made": {
            "_target_": "bundle.data.datalist.read_datalist",
            "path": str(tmp_path / "P\u00e4t.json"),
            "modalities": ["t1", "flair"],
            "regions": {"WT": [1]},
        },
        "run": ["$bundle.ROOT", "$@made"],
    }
    (tmp_path / "train.json").write_text(json.dumps(config))
    words = ["--config_file", str(tmp_path / "train.json"), "--output_dir", "./2024_01_15"]
    ran = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    ours = [line for line in ran.stderr.splitlines() if not line.startswith("parsing config_file")]
    assert [line.partition(" does not exist")[0] for line in ours] == [
        rf"error: datalist {tmp_path}/P\xe4t.json"
    ]
    assert ran.returncode != 0
    assert "Traceback" not in ran.stdout


def settings_of_configs() -> dict[str, object]:
    """Read all configs: file name -> content."""
    paths = [path for path in (ROOT / "configs").iterdir() if path.suffix in (".json", ".yaml")]
    read = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}
    del read["metadata.json"]
    return read


def test_every_switch_of_the_configs_is_read_from_words():
    """`--resume false` arrives as the text 'false', which Python takes for true."""
    configs = settings_of_configs()
    defaults = [item for content in configs.values() for item in content.items()]
    switches = {name for name, default in defaults if isinstance(default, bool) and "#" not in name}
    assert {"resume", "validation", "save_rebuilt", "pictures", "election_required"} <= switches
    text = json.dumps(list(configs.values()))
    for name in sorted({*switches, "amp"}):
        uses = re.findall(rf"(.{{12}})@{name}\b", text)
        assert uses, name
        plain = [use for use in uses if use != "bundle.flag("]
        assert not plain, f"{name}: expected bundle.flag(@{name}) in every place, got {plain}"
