"""Every command that README, docs and configs tell people to type names only what exists."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from ast import literal_eval
from pathlib import Path

import pytest
import yaml

from bundle.__main__ import VERBS

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
# Arguments of `monai.bundle run` itself, which are no ids of a config.
OF_MONAI = {"config_file", "meta_file", "logging_file", "run_id", "workflow_type"}
# Of other people's programs, which these tests cannot know.
FOREIGN = {"source", "cd", "unzip", "export", "curl", "bash", "ruff"}
# What a command names if it needs something of the user's own: scans, weights, a server.
USERS_OWN = re.compile(r"/data/|/path/to|\bdata/|runs/brats|models/model.pt|127\.0\.0\.1:8000")
# Which test runs the others, or the function behind them: a start of the command -> file::function.
SLOW, GRIDS = "tests/slow", "tests/bundle/benchmark"
RUN_BY = {
    "make demo": f"{SLOW}/test_bundle.py::test_demo_trains_evaluates_and_segments",
    "make test": "tests/test_commands.py::test_every_command_is_run_or_needs_what_the_user_has",
    "make check": "tests/test_commands.py::test_every_command_is_run_or_needs_what_the_user_has",
    "make clean": "tests/test_commands.py::test_every_chore_is_in_the_makefile",
    "make metadata": "tests/test_hygiene.py::test_the_two_metadata_files_are_byte_identical",
    "make label": f"{SLOW}/monai_label/conftest.py::lay_out",
    "make package": f"{SLOW}/test_package.py::test_packaged_again_it_is_the_same_zip",
    "python -m bundle label": f"{SLOW}/monai_label/conftest.py::lay_out",
    "python -m bundle package": f"{SLOW}/test_package.py::test_packaged_again_it_is_the_same_zip",
    "python -m bundle export": f"{SLOW}/test_package.py::test_two_scans_are_enough_and_it_exports",
    "python -m bundle scan": f"{SLOW}/test_documented_commands.py::test_they_run",
    "python -m bundle accept": "tests/bundle/data/test_marks.py::test_an_accepted_file_is_the_same",
    "python -m bundle faults": "tests/bundle/phantom/test_fault_rates.py::test_the_verb_takes",
    "python -m bundle degrade": f"{SLOW}/test_documented_commands.py::test_they_run",
    "python -m bundle partition": f"{SLOW}/test_documented_commands.py::test_they_run",
    "python -m bundle phantom": "tests/bundle/test_main.py::",
    "python -m bundle protocol": (
        "tests/bundle/protocols/test_command.py::test_a_folder_with_the_real_names_becomes"
    ),
    "python -m bundle compare": (
        "tests/bundle/evaluation/test_reference.py::test_the_verb_prints_and_writes"
    ),
    "python -m bundle prompts": "tests/bundle/prompts/test_clip.py::",
    "python -m bundle features": "tests/bundle/sentiment/test_compare.py::",
    "python -m bundle benchmark DIR --grid cost": f"{GRIDS}/test_cost.py::",
    "python -m bundle benchmark DIR --grid rebuilding": f"{GRIDS}/test_rebuilding.py::",
    "python -m bundle benchmark docs/federation_evidence --grid federation": (
        f"{SLOW}/federation/test_federated_benchmark.py::measured"
    ),
    "python -m bundle benchmark": f"{SLOW}/test_benchmark.py::",
    "python -m bundle --help": "tests/bundle/test_main.py::test_help_lists_every_verb",
    "python -m bundle settings": "tests/bundle/delivery/test_settings_page.py::test_the_verb",
    "python -m pip install": "tests/test_commands.py::test_the_install_commands_are_those_of",
    "python -m pytest": "tests/test_commands.py::test_the_tests_that_are_named_exist",
    "python -m monai.bundle run": f"{SLOW}/test_documented_commands.py::test_they_run",
    "make federation": f"{SLOW}/federation/test_simulator.py::finished",
    "make jobs": "tests/jobs/test_define.py::test_a_folder_is_byte_for_byte_what_the_definition",
    "python -m federation.simulate": f"{SLOW}/federation/test_simulator.py::finished",
    "python -m federation.server.memory_bench": "tests/federation/server/test_memory_bench.py::",
    "python -m federation.kit": "tests/federation/test_kit.py::test_",
    "python -m federation.export": "tests/federation/test_export.py::test_",
    "python jobs/define.py": "tests/jobs/test_define.py::test_the_method_rounds_and_epochs_are",
    "nvflare job": f"{SLOW}/federation/test_deployment.py::test_the_job_finishes",
    "nvflare system shutdown": f"{SLOW}/federation/test_deployment.py::test_a_shutdown_ends",
    "nvflare provision": f"{SLOW}/federation/test_deployment.py::deployment",
    "nvflare poc": f"{SLOW}/federation/test_poc.py::finished",
}
# NVFlare's own commands, as far as ours use them.
NVFLARE = {"job", "poc", "provision", "system"}


def commands() -> list[tuple[str, str]]:
    """List (file, command), continued lines joined, comments and ellipses left out."""
    found = []
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in _joined(block)]
        lines += re.findall(r"`(python -m (?:bundle|pytest) [^`<]+|make [\w-]+)`", text)
        found += [(path.relative_to(ROOT).as_posix(), line) for line in lines]
    for path in sorted(CONFIGS.glob("*.yaml")):
        head = [
            line.removeprefix("#")
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("#   ")
        ]
        found += [(f"configs/{path.name}", line) for line in _joined("\n".join(head))]
    return [(place, line) for place, line in found if line and not line.startswith("...")]


def _joined(text: str) -> list[str]:
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line.partition(" # ")[0].strip() for line in lines if not line.startswith("# ")]


def options_of(words: list[str]) -> list[str]:
    return [word[2:].partition("=")[0] for word in words if word.startswith("--")]


def complaint(command: str) -> str | None:
    """Say what a command names that does not exist; None = nothing."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[:1] == ["make"]:
        return None if words[1] in targets() else f"no target {words[1]}"
    if words[:4] == ["python", "-m", "pip", "install"]:
        return _complaint_about_install(words)
    if words[:3] == ["python", "-m", "pytest"]:
        missing = [word for word in words if word.startswith("tests/") and not exists(word)]
        return f"no file {missing}" if missing else None
    if words == ["python", "-m", "bundle", "--help"]:
        return None
    if words[:3] == ["python", "-m", "bundle"]:
        if words[3] not in VERBS:
            return f"no verb {words[3]}"
        known = inspect.signature(VERBS[words[3]]).parameters
        unknown = set(options_of(words)) - set(known)
        return f"no option {sorted(unknown)} of {words[3]}" if unknown else None
    if words[:2] == ["python", "-m"] and words[2].startswith("federation."):
        return _complaint_about_options(words, _main_of(words[2]))
    if words[:2] == ["python", "jobs/define.py"]:
        return _complaint_about_options(words, _main_of("jobs.define"))
    if words[0] == "nvflare":
        return _complaint_about_nvflare(words)
    if words[:4] == ["python", "-m", "monai.bundle", "run"]:
        return _complaint_about_run(words)
    return None if words[0] in FOREIGN else f"unknown program {words[0]}"


def _complaint_about_install(words: list[str]) -> str | None:
    missing = [word for word in words if word.endswith(".txt") and not exists(word)]
    extras = re.findall(r"\[(.*)\]", words[-1])
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    known = re.findall(r"^(\w+) = \[", project.partition("optional-dependencies]")[2], re.MULTILINE)
    unknown = {extra for text in extras for extra in text.split(",")} - set(known)
    return f"no file {missing}, no extra {sorted(unknown)}" if missing or unknown else None


def exists(name: str) -> bool:
    return (ROOT / name.partition("::")[0]).exists()


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


def _main_of(module: str) -> ast.FunctionDef | None:
    """Find the function that a module runs as a command; it is read, not run."""
    path = ROOT / f"{module.replace('federation.', 'custom/federation/').replace('.', '/')}.py"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    called = re.search(r"^    main\(\s*(\w+),", text, re.MULTILINE)
    functions = {f.name: f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef)}
    return functions.get(called.group(1)) if called else None


def _complaint_about_options(words: list[str], main: ast.FunctionDef | None) -> str | None:
    if main is None:
        return f"no command {words[1:3]}"
    known = {argument.arg for argument in (*main.args.args, *main.args.kwonlyargs)}
    # What goes into **kwargs is told in the docstring, under the name of these.
    others = main.args.kwarg.arg if main.args.kwarg else "\0"
    told = ast.get_docstring(main).partition(f"{others}:")[2].partition("\n\n")[0]
    known |= set(re.findall(r"\w+", told))
    unknown = set(options_of(words)) - known
    return f"no option {sorted(unknown)} of {main.name}" if unknown else None


def _complaint_about_nvflare(words: list[str]) -> str | None:
    if words[1] not in NVFLARE:
        return f"nvflare has no command {words[1]}"
    ours = [word for word in words if word.startswith("jobs/")]
    missing = [name for name in ours if not (ROOT / name).exists()]
    return f"no file {missing}" if missing else None


def _complaint_about_run(words: list[str]) -> str | None:
    given = words[words.index("--config_file") + 1]
    names = literal_eval(given) if given.startswith("[") else [given]
    missing = [name for name in names if not (ROOT / name).is_file()]
    if missing:
        return f"no file {missing}"
    known = set(OF_MONAI)
    for name in names:
        text = (ROOT / name).read_text(encoding="utf-8")
        known |= (json.loads(text) if name.endswith(".json") else yaml.safe_load(text)).keys()
    unknown = {option.partition("#")[0] for option in options_of(words)} - known
    return f"no id {sorted(unknown)} in {names}" if unknown else None


def test_every_command_names_only_what_exists():
    complaints = [(place, line, complaint(line)) for place, line in commands()]
    wrong = [f"{place}: {line}: {said}" for place, line, said in complaints if said]
    assert not wrong, "\n".join(["commands that cannot work:", *wrong])


def test_every_command_is_run_or_needs_what_the_user_has():
    wrong = []
    for place, command in commands():
        if command.split()[0] in FOREIGN or USERS_OWN.search(command):
            continue
        starts = [start for start in RUN_BY if command.startswith(start)]
        if not starts:
            wrong.append(f"{place}: {command}: name the test that runs it in RUN_BY")
            continue
        file, _, function = RUN_BY[max(starts, key=len)].partition("::")
        if f"def {function}" not in (ROOT / file).read_text(encoding="utf-8"):
            wrong.append(f"{place}: {command}: {file} has no {function}")
    assert not wrong, "\n".join(["commands that nothing runs:", *wrong])


def test_every_link_leads_somewhere():
    wrong = []
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "jobs" / "README.md"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists():
                wrong.append(f"{page.relative_to(ROOT)}: no file {link}")
            elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
                wrong.append(f"{page.relative_to(ROOT)}: no heading {link}")
    assert not wrong, "\n".join(["links that lead nowhere:", *wrong])


def test_every_path_that_a_text_names_exists():
    """So that a file cannot move away from under the documentation; x and NAME stand for others."""
    wrong = []
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:apps|bundle|configs|custom|jobs|tests)/[\w./]+)`", text):
            if not exists(name) and not re.search(r"NAME|/(test_)?x\.py$", name):
                wrong.append(f"{page.relative_to(ROOT)}: no file {name}")
    assert not wrong, "\n".join(["files that have moved:", *wrong])


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_chore_is_in_the_makefile():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert set(phony.split()) == targets()


def test_the_install_commands_are_those_of_the_makefile():
    """The Makefile's are run whenever an environment is made; people's differ in the extras."""
    plain = "pip install -c constraints.txt -e "
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    makefile = makefile.replace("--quiet --constraint", "-c").replace("--editable", "-e")
    assert f"{plain}.\n" in makefile
    installs = [line for _, line in commands() if line.startswith("python -m pip")]
    assert len(installs) >= 2
    assert all(line.replace('"', "").startswith(f"python -m {plain}.") for line in installs)


def test_the_tests_that_are_named_exist():
    named = {RUN_BY[start].partition("::")[0] for start in RUN_BY}
    assert [name for name in sorted(named) if not exists(name)] == []


def test_there_are_commands_of_every_kind():
    found = [command for _, command in commands()]
    for start in ("make ", "python -m bundle ", "python -m monai.bundle run"):
        assert sum(command.startswith(start) for command in found) >= 3, start


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("make nothing", "no target nothing"),
        ("python -m bundle dance", "no verb dance"),
        ("python -m bundle phantom DIR --siize 3", "no option"),
        ("python -m monai.bundle run --config_file configs/nowhere.json", "no file"),
        ("python -m monai.bundle run --config_file configs/train.json --epochs 3", "no id"),
        ("pythn -m bundle phantom", "unknown program"),
        ("python -m federation.dance", "no command"),
        ("python -m federation.simulate --rouns 3", "no option"),
        ("python -m federation.kit site-1 --learning_rate 3", "no option"),
        ("python jobs/define.py --round 3", "no option"),
        ("python -m pip install -c constrains.txt -e .", "no file ['constrains.txt']"),
        ("python -m pip install -c constraints.txt -e '.[fl,tea]'", "no extra ['tea']"),
        ("python -m pytest tests/test_nothing.py", "no file"),
        ("nvflare dance", "nvflare has no command"),
        ("nvflare job submit -j jobs/nothing", "no file"),
    ],
)
def test_what_does_not_exist_is_named(command, word):
    assert word in complaint(command)


def test_anchors_are_githubs():
    assert anchors("# A: b, `c-d`\n```bash\n# not this\n```\n## E f") == {"a-b-c-d", "e-f"}
