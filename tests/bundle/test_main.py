from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle.__main__ import VERBS, main
from bundle.cli.kinds import PathText
from bundle.cli.words import parameters_of


def make_case(root: Path, case: str) -> None:
    (root / case).mkdir(parents=True)
    t1, flair = np.random.default_rng(list(case.encode())).random((2, 10, 20, 30))
    for name, content in (("t1", t1), ("flair", flair), ("seg", (t1 > 0.5) * 1.0)):
        image = nib.Nifti1Image(content.astype(np.float32), np.eye(4))
        nib.save(image, root / case / f"{case}_{name}.nii")


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    for case in "abcd":
        make_case(tmp_path / "data", case)
    path = tmp_path / "datalist.json"
    assert (
        main(["scan", str(tmp_path / "data"), "--output", str(path), "--split", "0.5,0.5,0"]) == 0
    )
    return path


def sizes(path: Path) -> list[int]:
    content = json.loads(path.read_text())
    return [len(content[section]) for section in ("training", "validation", "testing")]


def test_the_verbs_work_one_after_the_other(datalist, tmp_path):
    assert sizes(datalist) == [2, 2, 0]
    thin = tmp_path / "thin.json"
    arguments = ["degrade", str(datalist), str(thin), "--rates", "t1=1,flair=0"]
    assert main([*arguments, "--sections", "training,validation"]) == 0
    content = json.loads(thin.read_text())
    assert {tuple(i["image"]) for i in content["training"]} == {("flair",)}
    assert main(["partition", str(datalist), str(tmp_path / "sites"), "--plan", "x:t1;flair"]) == 0
    assert sizes(tmp_path / "sites" / "site-2.json") == [1, 1, 0]


def test_rates_may_come_as_a_dict(datalist, tmp_path):
    thin = tmp_path / "thin.json"
    assert main(["degrade", str(datalist), str(thin), "--rates", "{t1: 1.0}"]) == 0
    assert json.loads(thin.read_text())["degraded"]["rates"]["t1"] == 1


def test_a_users_error_is_one_line_and_status_2(datalist, tmp_path, capsys):
    capsys.readouterr()
    assert main(["degrade", str(datalist), str(tmp_path / "o.json"), "--ratio", "2"]) == 2
    assert main(["scan", str(tmp_path / "nowhere")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: rate of 't1': expected a number from 0 to 1, got 2")
    assert second.startswith("error: expected a folder of cases")


def test_strict_turns_problems_into_status_1(datalist, tmp_path):
    (tmp_path / "data" / "a" / "a_t1.nii").write_bytes(b"broken")
    for words in ([], ["--strict", "false"], ["--strict=no"], ["--no-strict"]):
        assert main(["scan", str(tmp_path / "data"), *words]) == 0
    with pytest.raises(SystemExit) as stop:
        main(["scan", str(tmp_path / "data"), "--strict"])
    assert stop.value.code == 1


def test_the_phantom_verb_offers_what_the_phantom_takes():
    from bundle.phantom.data_set import write_phantom

    assert list(inspect.signature(VERBS["phantom"]).parameters) == list(
        inspect.signature(write_phantom).parameters
    )


def test_the_prompts_verb_writes_a_bank_without_clip_too(tmp_path, capsys):
    from bundle.prompts.bank import prompt_bank

    output = tmp_path / "2020"
    assert main(["prompts", str(output), "--source", "presence", "--modalities", "a,b"]) == 0
    assert prompt_bank(("a", "b"), file=str(output)).provenance["source"] == "presence"
    assert "embeddings: 3 subsets x 2" in capsys.readouterr().out


def test_the_prompts_verb_says_what_is_wrong_and_writes_nothing(tmp_path, capsys):
    output = tmp_path / "prompts.pt"
    assert main(["prompts", str(output), "--source", "one-hot"]) == 2
    assert main(["prompts", str(output), "--pretrained", "laion3b"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: prompt source: expected one of ['file', 'random', 'one_hot'")
    assert second.startswith("error: pretrained: 'laion3b' is neither a file nor a tag of ViT-B-32")
    assert not output.exists()


def test_the_prompts_verb_has_the_defaults_of_the_function_that_it_calls():
    from bundle.prompts.clip import clip_prompt_bank

    verb = inspect.signature(VERBS["prompts"]).parameters
    wanted = inspect.signature(clip_prompt_bank).parameters
    for name in ("model", "pretrained"):
        assert verb[name].default == wanted[name].default


def test_the_features_verb_has_the_defaults_of_the_function_that_it_calls():
    from bundle.sentiment.compare import compare

    verb = inspect.signature(VERBS["features"]).parameters
    wanted = inspect.signature(compare).parameters
    assert list(verb) == list(wanted)
    assert all(verb[name].default == wanted[name].default for name in list(wanted)[1:])


def test_the_features_verb_reads_a_file_and_names_one_that_is_not_there(tmp_path, capsys):
    from bundle.sentiment.phantom import write_feature_phantom

    file, out = tmp_path / "mosi.npz", tmp_path / "2020"
    write_feature_phantom(file, {"train": 40, "valid": 5, "test": 10})
    arguments = ["features", "--output_dir", str(out), "--epochs", "1", "--file"]
    assert main([*arguments, str(file)]) == 0
    assert (out / "table.md").read_text() in capsys.readouterr().out
    assert not (out / "features.npz").exists()
    assert main([*arguments, str(tmp_path / "nowhere.npz")]) == 2
    assert "error: expected a file of feature sequences, found none" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb_with_a_line(words, capsys):
    assert main(words) == 0
    shown = capsys.readouterr().out
    for verb, call in VERBS.items():
        assert re.search(rf"^  {verb} +\S.*\.$", shown, re.MULTILINE), verb
        assert call.__doc__.splitlines()[0] in shown
    assert shown.splitlines()[-2] == "`python -m bundle VERB --help` lists the options of a verb."


@pytest.mark.parametrize("verb", VERBS)
def test_no_parameter_of_a_verb_is_left_to_guess(verb):
    kinds = {each.name: each.kind for each in parameters_of(VERBS[verb]).values()}
    assert Any not in kinds.values()
    # A file or a folder, of which ~ may be the start.
    for name in {"root", "output", "output_dir", "datalist", "weights", "csv", "file"} & set(kinds):
        assert kinds[name] in (PathText, PathText | None), name


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_names_every_option(verb, capsys):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python -m bundle {verb}")
    for name, parameter in inspect.signature(VERBS[verb]).parameters.items():
        assert re.search(rf"^    (\w+, )*{name}\b.*:", shown, re.MULTILINE), name
        if parameter.default is parameter.empty:
            assert name.upper() in shown.splitlines()[0]


LIST_VERBS = "`python -m bundle --help` lists the verbs."
NO = "error: scan: no option"
LIST_SCAN = "`python -m bundle scan --help` lists the options."
ALL_VERBS = ", ".join(VERBS)


@pytest.mark.parametrize(
    ("words", "last"),
    [
        ("scna", f"error: no verb 'scna'. Did you mean scan? {LIST_VERBS}"),
        ("benhcmark x --help", f"error: no verb 'benhcmark'. Did you mean benchmark? {LIST_VERBS}"),
        ("dance", f"error: no verb 'dance'. Expected one of {ALL_VERBS}. {LIST_VERBS}"),
        ("--strict", f"error: no verb '--strict'. Expected one of {ALL_VERBS}. {LIST_VERBS}"),
        ("scan D --outptu x", f"{NO} --outptu. Did you mean --output? {LIST_SCAN}"),
        ("scan D --Split=1", f"{NO} --Split. Did you mean --split? {LIST_SCAN}"),
        ("scan D --strict y --alias", f"{NO} --alias. Did you mean --aliases? {LIST_SCAN}"),
        ("scan --seed 1", f"error: scan: no value for ROOT. {LIST_SCAN}"),
        ("scan a b c d e f g h i j k l", f"error: scan: one value too many, 'l'. {LIST_SCAN}"),
    ],
)  # fmt: skip
def test_a_wrong_word_gets_one_line_and_status_2(words, last, capsys):
    assert main(words.split()) == 2
    shown = capsys.readouterr()
    assert shown.err == f"{last}\n"
    assert shown.out == ""


def test_an_option_that_fits_nothing_gets_the_list_of_options(capsys):
    assert main(["features", "--zzz"]) == 2
    assert capsys.readouterr().err == (
        "error: features: no option --zzz. "
        "Expected one of --output_dir, --file, --ratio, --epochs, --seed. "
        "`python -m bundle features --help` lists the options.\n"
    )


def test_an_option_is_given_by_place_by_name_or_by_its_first_letter(datalist, tmp_path):
    root, out = str(tmp_path / "data"), str(tmp_path / "out.json")
    for words in (
        ["scan", root, "--output", out],
        ["scan", f"--root={root}", f"--output={out}"],
        ["scan", root, "-o", out, "--nostrict"],
        ["scan", root, out],
        ["degrade", str(datalist), out, "--ratio", "1", "--seed", "-1"],
        ["partition", str(datalist), "--output-dir", str(tmp_path / "sites"), "--plan", "t1;flair"],
    ):
        Path(out).unlink(missing_ok=True)
        assert main(words) == 0, words
        assert Path(out).exists() or (tmp_path / "sites" / "datalist.json").exists(), words


def test_no_verb_lists_the_verbs_and_loads_no_heavy_module():
    script = (
        "import runpy, sys\n"
        "sys.argv = ['bundle']\n"
        "try: runpy.run_module('bundle', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import bundle.data.scan, bundle.data.degrade, bundle.data.partition\n"
        "print('loaded:', sorted({'monai', 'matplotlib'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(verb in ran.stdout for verb in VERBS)
    assert ran.stdout.splitlines()[-1] == "loaded: []"


def test_words_that_python_would_read_stay_words(datalist, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").rename(tmp_path / "1e5")
    for output in ("None", "0x10.json", "runs#1", "[a]", "a,b", "2024_01_15"):
        assert main(["scan", "1e5", "--check=none", "--output", output]) == 0
        assert sizes(tmp_path / output) == [4, 0, 0]
    assert main(["degrade", "2024_01_15", "--output=~/True", "--rates={t1:1, flair: 0e0}"]) == 0
    assert json.loads((tmp_path / "True").read_text())["degraded"]["rates"]["t1"] == 1
