from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import fire
import pytest
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle import run as monai_run

import bundle
from bundle.training.known_settings import check_settings, references

ROOT = Path(bundle.ROOT)
CONFIGS = ROOT / "configs"
# What a test runs in place of a training: the check alone.
ONLY_CHECK = {"run_id": "asked", "init_id": "none", "final_id": "none", "logging_file": False}
# Each with all that it needs; evaluate.json lies over train.json.
COMPLETE = {
    "train": ["train.json"],
    "inference": ["inference.json"],
    "evaluate": ["train.json", "evaluate.json"],
    "pretrain": ["train.json", "pretrain.yaml"],
}


def check(names, *files, **settings) -> None:
    """Check a config in this process, as a host would."""
    parser = ConfigParser()
    parser.read_config([*(str(CONFIGS / name) for name in names), *map(str, files)])
    parser.update({"bundle_root": bundle.ROOT, **settings})
    parser.get_parsed_content("root_check")


def check_run(names, *files, **settings) -> None:
    """Check a config through MONAI's own `run`."""
    paths = [*(str(CONFIGS / name) for name in names), *map(str, files)]
    settings = {"asked": ["@root_check"], **settings}
    monai_run(config_file=paths, **ONLY_CHECK, **settings)


def refusal(call, *args, **settings) -> str:
    with pytest.raises(RuntimeError) as refused:
        call(*args, **settings)
    cause = refused.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ValueError)
    return str(cause)


@pytest.mark.parametrize("call", [check, check_run])
@pytest.mark.parametrize(
    ("workflow", "spelt", "meant"),
    [
        ("inference", "save_uncertanty", "save_uncertainty"),
        ("inference", "window_bach", "window_batch"),
        ("train", "learning-rte", "learning_rate"),
        ("train", "Resume", "resume"),
        ("train", "train#trainer#max_epoch", "train#trainer#max_epochs"),
        ("train", "train#trainr", "train#trainer"),
        ("train", "train#handlers#0#sead", "train#handlers#0#seed"),
        ("train", "train.trainer.max_epochs", "train#trainer#max_epochs"),
        ("train", "network_def#filter", "network_def#filters"),
        ("train", "network_def::filter", "network_def#filters"),
        ("train", "train#dataset#in_memry", "train#dataset#in_memory"),
        ("evaluate", "evaluate_subset", "evaluate_subsets"),
        ("evaluate", "validate#datset", "validate#dataset"),
        ("pretrain", "maskin", "masking"),
    ],
)
def test_a_misspelt_setting_is_refused_with_what_was_meant(call, workflow, spelt, meant):
    text = refusal(call, COMPLETE[workflow], **{spelt: 3})
    assert f"no setting {spelt.replace('::', '#')}. Did you mean {meant}?" in text


def test_all_unknown_settings_are_named_at_once_and_what_is_like_nothing_has_no_suggestion():
    text = refusal(check, ["train.json"], fliters=8, zebra=1)
    assert "no setting fliters. Did you mean filters? no setting zebra. Every id" in text


@pytest.mark.parametrize(
    ("id_", "said"),
    [
        ("+imports", "only an overlay merges, the command line replaces"),
        ("+handlers", "only an overlay merges"),
        ("~validate", "nothing takes a setting away"),
    ],
)
def test_what_only_looks_like_a_merge_is_refused(id_, said):
    assert f"no setting {id_}: {said}" in refusal(check, ["train.json"], **{id_: []})


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"learning_rat": 0.1}, "no setting learning_rat. Did you mean learning_rate?"),
        ({"lr_schedular": {"_target_": "torch.optim.lr_scheduler.LinearLR"}}, "lr_scheduler?"),
        ({"dataset_dri": "$@bundle_root + '/data'"}, "Did you mean dataset_dir?"),
        ({"train#dataset#cachedir": None}, "Did you mean train#dataset#cache_dir?"),
        ({"+regoins": {"ET": [4]}}, "no setting regoins. Did you mean regions?"),
    ],
)
def test_an_overlays_slip_is_refused(tmp_path, content, line):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(yaml.safe_dump(content))
    for call in (check, check_run):
        if any(id_.startswith("+") for id_ in content):
            with pytest.warns(UserWarning, match="Can't merge entry"):
                assert line in refusal(call, ["train.json"], overlay)
        else:
            assert line in refusal(call, ["train.json"], overlay)


@pytest.mark.parametrize(
    "content",
    [
        {"my_rate": 0.1, "learning_rate": "@my_rate"},
        {"my_rate": 0.1, "learning_rate": "$2 * @my_rate"},
        {"my_loss": {"_target_": "DiceLoss"}, "criteria#dice#loss": "@my_loss"},
        {"my": {"rates": [0.1]}, "learning_rate": "@my#rates#0"},
        {"shared": {"_target_": "DiceLoss"}, "criteria#dice#loss": "%shared"},
        {"common": {"rate": 0.0021, "loader": {"pin": 0}}, "learning_rate": "%common#rate"},
        {"base": {"lr": 0.0022}, "my_rate": "%base#lr", "learning_rate": "@my_rate"},
        {"train#samples": 3, "batch_size": "@train#samples"},
        {"_anchor": {"a": 1}, "display": ["$print(@device)"]},
        {"regions": {"ED": [2]}, "min_voxels": {"ED": 9}, "made_for": {"mine": 1}},
        {"criteria": {"mine": {"_target_": "DiceLoss"}}},
        {"criteria#focal": {"_target_": "FocalLoss"}, "train#key_metric#mine": None},
        {"network_def": {"_target_": "torch.nn.Identity", "unheard_of": 1}},
        {"train#dataset#in_memory": True, "train#trainer#accumulation_steps": 2},
        {"train#dataloader#prefetch_factor": 2},
    ],
)
def test_what_an_overlay_defines_and_uses_is_taken(tmp_path, content):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(yaml.safe_dump(content))
    check(["train.json"], overlay)
    check_run(["train.json"], overlay)


@pytest.mark.parametrize(
    ("names", "setting", "owner"),
    [
        (["train.json"], "save_uncertainty", "inference.json"),
        (["train.json"], "evaluate_section", "evaluate.json"),
        (["inference.json"], "learning_rate", "train.json"),
        (["train.json"], "masking", "pretrain.yaml"),
        (["train.json"], "specialist_subset", "method_specialist.yaml"),
    ],
)
def test_a_setting_of_another_config_is_refused_on_the_command_line(names, setting, owner):
    text = refusal(check_run, names, **{setting: 1})
    assert f"no setting {setting} in {names[0]}: it is one of {owner}" in text


def test_an_overlay_may_serve_several_configs():
    for names in (["train.json"], ["inference.json"], ["train.json", "pretrain.yaml"]):
        check_run([*names, "demo.yaml"])
        check_run([*names, "brats2021_small.yaml"])


@pytest.mark.parametrize("bundle_root", [".", bundle.ROOT])
def test_a_file_of_arguments_is_checked_too(tmp_path, bundle_root):
    words = {"config_file": str(CONFIGS / "inference.json"), "bundle_root": bundle_root}
    file = tmp_path / "args.json"
    for setting, said in (
        ("save_rebuild", "Did you mean save_rebuilt?"),
        ("learning_rate", "in inference.json: it is one of train.json"),
    ):
        file.write_text(str({**words, setting: 1}).replace("'", '"'))
        text = refusal(monai_run, args_file=str(file), asked=["@root_check"], **ONLY_CHECK)
        assert said in text


def test_hosts_set_what_they_need():
    check(["inference.json"], use_click=False, device="cpu")
    handlers = ConfigParser.load_config_file(str(CONFIGS / "train.json"))["train"]["handlers"]
    settings = {"train#handlers": handlers, "train#dataset#data": [], "device": "cpu"}
    check_run(["train.json"], **settings, **{"train#trainer#max_epochs": 1})
    check_run(["train.json"], experiment_name="mine", run_name="one", tracking_uri="x")


def test_a_workflow_may_run_anything_by_any_name():
    settings = {"go": ["@root_check"], "prepare": "$print('')", "look": ["$print(@filters)"]}
    made = ConfigWorkflow(
        [str(CONFIGS / "train.json")],
        logging_file=False,
        run_id="go",
        init_id="prepare",
        **settings,
    )
    made.initialize()
    made.run()


def commands() -> list[str]:
    """Collect every run of MONAI that our texts and the heads of our overlays show."""
    files = [
        ROOT / "README.md",
        ROOT / "Makefile",
        *ROOT.glob("docs/*.md"),
        *CONFIGS.glob("*.yaml"),
    ]
    found = []
    for path in sorted(files):
        text = re.sub(r"\\\n#?\s*", " ", path.read_text(encoding="utf-8"))
        runs = re.findall(r"-m monai\.bundle (run .*?)\s*(?:#.*|`.*|\\n.*)?$", text, re.MULTILINE)
        found += [run for run in runs if "configs/" in run and "..." not in run]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("command", commands())
def test_no_documented_command_is_refused(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [*shlex.split(command), "--asked", "['@root_check']"]
    words += [word for name, value in ONLY_CHECK.items() for word in (f"--{name}", str(value))]
    if "mine.yaml" not in command:
        fire.Fire({"run": monai_run}, command=words)


def test_commands_are_found():
    assert len(commands()) > 20


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_no_overlay_is_refused(path):
    # Those that change a part of another overlay come after it.
    after = {"gmd": "method_gmd.yaml", "lckd": "method_lckd.yaml", "pretrain": "pretrain.yaml"}
    below = [after[name] for name in after if path.name == f"federation_{name}.yaml"]
    check(["train.json", *below], path)
    check_run(["train.json", *below], path)


def test_the_check_is_quick():
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("train.json", "demo.yaml")])
    parser.get_parsed_content("root_check")
    parser["again"] = "$bundle.training.known_settings.check_settings()"
    parser["run"] = ["@again"]
    parser.parse()
    parser.get_parsed_content("device")
    start = time.perf_counter()
    parser.get_parsed_content("again")
    assert time.perf_counter() - start < 0.05


def test_without_a_config_there_is_nothing_to_check():
    assert check_settings() is True


def test_references_are_found_wherever_they_stand():
    config = {"a": "@b#c", "d": [{"e": "$@f + @g::h"}], "i": "i@j", "k": "$@k"}
    assert references(config) == {"b", "f", "g", "k"}
    assert references(config, without="k") == {"b", "f", "g"}
    assert references(config, deep=True) == {"b", "b#c", "f", "g", "g#h", "k"}
