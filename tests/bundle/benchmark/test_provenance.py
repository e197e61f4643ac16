from __future__ import annotations

import subprocess
import sys

from bundle.benchmark.provenance import code_digest, files_of


def test_a_record_names_the_configs_and_the_loaded_modules(plan_run):
    import bundle.networks.unet  # noqa: F401 - to have it loaded

    run = plan_run("main", "ours")
    files = files_of(run)
    configs = {name for stage in run.stages for name in stage.configs}
    assert {f"configs/{name}" for name in configs} <= files.keys()
    assert {"configs/evaluate.json", "bundle/networks/unet.py"} <= files.keys()
    assert all(len(digits) == 8 for digits in files.values())
    assert not any(
        name.startswith("bundle/benchmark/")
        for name in files.keys() - {f"bundle/benchmark/{name}.py" for name in ("configs", "runs")}
    )


def test_what_a_run_does_not_load_is_not_named():
    script = (
        "from bundle.benchmark.plan import Run\n"
        "from bundle.benchmark.provenance import files_of\n"
        "print(sorted(files_of(Run('n', 'l', 'main', 0.0, 0, ()))))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "bundle/modalities.py" not in said.stdout
    assert "bundle/__init__.py" in said.stdout


def test_the_digest_of_all_code_is_the_same_when_asked_again():
    assert code_digest() == code_digest()
    assert len(code_digest()) == 8
