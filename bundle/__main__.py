"""The command line `python -m bundle VERB`: everything but training, which `monai.bundle` runs.

Each verb imports its own module only, so that `scan` runs without loading MONAI. The verbs turn
what python-fire makes of a shell word into plain values; what they do is in the module they call.
python-fire answers a wrong word with a page of usage, or runs the verb first and complains then:
so verb and options are checked here before python-fire sees them.
"""

from __future__ import annotations

import difflib
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fire

from bundle import flag
from bundle.modalities import BRATS_MODALITIES
from bundle.regions import BRATS_REGIONS


def phantom(
    output_dir: str,
    sections: Any = "24,4,8",
    size: int = 48,
    spacing_mm: Any = 2.0,
    modalities: Any = BRATS_MODALITIES,
    seed: int = 0,
    difficulty: float = 1.0,
    orientation: str = "LPS",
    naming: str = "phantom",
) -> None:
    """Write a made-up data set: NIfTI volumes and their datalist.

    Args:
        output_dir: the folder to write into.
        sections: cases for training,validation,testing, such as 24,4,8.
        size: edge of the cube, voxels.
        spacing_mm: voxel size, one number or three such as 1,1,3.
        modalities: names, such as t1,t1ce,t2,flair.
        seed: of everything random.
        difficulty: 0 to 1.
        orientation: where the stored axes point, such as LPS or RAS.
        naming: whose file names: phantom, brats2018, brats2019, brats2020, brats2021 or brats2023.
    """
    from bundle.data.datalist import SECTIONS
    from bundle.phantom.data_set import write_phantom

    counts = sections if isinstance(sections, Mapping) else _section_counts(sections, SECTIONS)
    sizes = _numbers(spacing_mm)
    path = write_phantom(
        str(output_dir),
        sections=counts,
        size=size,
        spacing_mm=sizes * 3 if len(sizes) == 1 else sizes,
        modalities=_names(modalities),
        seed=seed,
        difficulty=difficulty,
        orientation=orientation,
        naming=naming,
    )
    print(f"wrote {path}")


def scan(
    root: str,
    output: str | None = None,
    modalities: Any = BRATS_MODALITIES,
    regions: Any = None,
    aliases: Any = None,
    strict: bool = False,
    split: Any = None,
    seed: int = 0,
    check: str = "voxels",
    suffixes: str | None = None,
    patient: str | None = None,
) -> None:
    """Find BraTS cases by their names, check them, and write a datalist.

    Args:
        root: a folder of cases, BraTS 2018 to 2023 and later.
        output: the datalist to write.
        modalities: names, such as t1,t1ce,t2,flair.
        regions: such as '{TC: [1, 4], WT: [1, 2, 4], ET: [4]}', which is the default.
        aliases: label values to read as others; default '{3: 4}', '{}' for none.
        strict: exit with 1 if there is any problem.
        split: shares of the patients for training,validation,testing, such as 0.7,0.1,0.2.
        seed: of the split.
        check: voxels, headers or none.
        suffixes: more endings of file names, such as 'flair=fla,fla_bet;other=adc' (quote it).
        patient: a regular expression whose group is the patient in a case's name: '(P[0-9]+)'.
    """
    from bundle.data.labels import BRATS_ALIASES
    from bundle.data.scan import scan as scan_folder

    problems = scan_folder(
        str(root),
        output=_path(output),
        modalities=_names(modalities),
        regions=BRATS_REGIONS if regions is None else regions,
        aliases=BRATS_ALIASES if aliases is None else aliases,
        split=None if split is None else _numbers(split),
        seed=seed,
        check=check,
        suffixes=suffixes,
        patient=None if patient is None else str(patient),
    )
    if strict and problems:
        raise SystemExit(1)


def faults(cases: int = 200, seed: int = 0, datalist: str | None = None) -> None:
    """Plant faults into cases, and count which of them the rules of the check find.

    Args:
        cases: how many phantom cases, and how often each fault is planted.
        seed: of the cases and the faults.
        datalist: take its labelled cases instead, all of them once for each fault.
    """
    from bundle.phantom.fault_rates import measure_rates, rates_table

    print(rates_table(measure_rates(int(cases), int(seed), _path(datalist))))


def degrade(
    datalist: str,
    output: str,
    ratio: float | None = None,
    rates: Any = None,
    sections: Any = "training",
    seed: int = 0,
    modalities: Any = BRATS_MODALITIES,
) -> None:
    """Take modalities away from the cases of a datalist, the same ones every time.

    Args:
        datalist: the datalist to start from.
        output: the datalist to write.
        ratio: chance, 0 to 1, that a case loses a modality, the same for every modality.
        rates: or a chance for each, such as t1=0.2,t1ce=0.4,t2=0.6,flair=0.8.
        sections: the sections to change, such as training,validation.
        seed: decides, together with a case's name, what the case loses.
        modalities: names, such as t1,t1ce,t2,flair.
    """
    from bundle.data.degrade import degrade as degrade_datalist

    names = _names(modalities)
    degrade_datalist(str(datalist), str(output), ratio, rates, _names(sections), seed, names)


def partition(
    datalist: str,
    output_dir: str,
    csv: str | None = None,
    plan: str | None = None,
    seed: int = 0,
    modalities: Any = BRATS_MODALITIES,
) -> None:
    """Share the cases of a datalist out over the sites of a federation.

    Args:
        datalist: the datalist to share out.
        output_dir: gets a datalist for every site and datalist.json with all of them.
        csv: columns Partition_ID,Subject_ID and optionally Modalities (t1+flair).
        plan: or the sites' modalities, such as 'a:t1+t1ce+t2+flair;b:t1ce+flair;t2' (quote it).
        seed: of the shuffle.
        modalities: names, such as t1,t1ce,t2,flair.
    """
    from bundle.data.partition import partition as partition_datalist

    names = _names(modalities)
    partition_datalist(str(datalist), str(output_dir), _path(csv), plan, seed, names)


def prompts(
    output: str,
    model: str = "ViT-B-32",
    pretrained: str = "laion2b_s34b_b79k",
    source: str = "clip",
    modalities: Any = BRATS_MODALITIES,
    seed: int = 0,
) -> None:
    """Write a text embedding for every modality subset; CLIP needs the extra `clip`.

    Args:
        output: the file to write, such as prompts.pt.
        model: open_clip's name of the CLIP model.
        pretrained: a tag of open_clip's, which is fetched, or a weight file.
        source: clip, random, one_hot or presence; only clip reads the text.
        modalities: names in the network's order, such as t1,t1ce,t2,flair.
        seed: of random.
    """
    from bundle.prompts.bank import prompt_bank, save_prompt_bank

    names = _names(modalities)
    if source == "clip":
        from bundle.prompts.clip import clip_prompt_bank

        bank = clip_prompt_bank(names, str(model), str(pretrained))
    else:
        bank = prompt_bank(names, str(source), seed=seed)
    save_prompt_bank(bank, str(output))
    print(f"wrote {output}")
    print(bank.describe())


def benchmark(
    output_dir: str,
    grid: str = "universal",
    workers: int = 2,
    only: str | None = None,
    report_only: bool = False,
    keep: bool = False,
    device: str | None = None,
    datalist: str | None = None,
) -> None:
    """Train and test a grid of methods, and write a report; a stopped grid goes on.

    Args:
        output_dir: the grid's folder; a run that has a result there is not made again.
        grid: on the phantom universal, methods or federation (many hours each; the last one needs
            the extra `fl`), cost or rebuilding (minutes), or smoke (a minute); on a datalist's
            cases, cases (for a GPU) or cases_small.
        workers: how many runs at a time, one processor core each; federated runs go one by one.
        only: a regular expression; make the runs whose names hold a match.
        report_only: make no run; report on the results that are there.
        keep: keep the checkpoints of the runs.
        device: such as cuda; without it the phantom's grids stay on the CPU.
        datalist: of grid cases or cases_small; its training cases get gaps.
    """
    from bundle.benchmark.command import benchmark as make_benchmark

    pattern = None if only is None else str(only)
    try:
        fine = make_benchmark(
            str(output_dir), grid, workers, pattern, report_only, keep, device, _path(datalist)
        )
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if not fine:
        raise SystemExit(1)


def features(
    output_dir: str = "runs/features",
    file: str | None = None,
    ratio: float = 0.5,
    epochs: int = 10,
    seed: int = 0,
) -> None:
    """Compare trainings on text, audio and vision features: with gradient decoupling or not.

    Args:
        output_dir: gets scores.csv and table.md, and features.npz where no file is given.
        file: features in CMU-MOSI's usual layout, as .npz; without it a set is made up.
        ratio: chance, 0 to 1, that a training sample lacks a modality for good.
        epochs: passes over the training samples.
        seed: of the made-up set, of what is missing, of weights and order.
    """
    from bundle.sentiment.compare import compare

    compare(str(output_dir), _path(file), ratio, epochs, seed)


def package(
    output: str = "runs", weights: str | None = None, overlay: Any = None, data: str | None = None
) -> None:
    """Write the bundle and its weights as one zip for MONAI's tools.

    Args:
        output: the zip, or the folder that gets it.
        weights: a flat state dict; default models/model.pt, else demo/models/model.pt.
        overlay: the config files that were laid over train.json in the training, such as
            configs/brats2018.yaml; known for the demonstration's weights.
        data: what the weights were trained on, in words; metadata and docs/README.md say it.
    """
    from bundle.delivery.package import package as write_package

    overlays = () if overlay is None else _names(overlay)
    path = write_package(str(output), _path(weights), overlays, _path(data))
    print(f"wrote {path}")


def export(
    output: str, weights: str | None = None, overlay: Any = None, image_only: bool = False
) -> None:
    """Write the trained network for other programs, as .onnx or PyTorch's .pt2.

    Args:
        output: the file; ONNX needs the extra `export`.
        weights: a flat state dict; default models/model.pt, else demo/models/model.pt.
        overlay: the config files that were laid over train.json in the training; known for the
            demonstration's weights.
        image_only: leave `present` out. A channel of zeros is then absent: give it whole cases,
            not windows.
    """
    from bundle.delivery.export import export as write_export
    from bundle.delivery.trained_model import find_trained

    trained = find_trained(_path(weights), () if overlay is None else _names(overlay))
    path = write_export(trained.network(), str(output), trained.note(), image_only)
    print(f"wrote {path}")


def label(
    output_dir: str = "runs/label",
    weights: str | None = None,
    overlay: Any = None,
    studies: str | None = None,
    app: str = "patchwork",
    port: int = 8000,
    start: bool = True,
) -> None:
    """Serve the trained network with MONAI Label on this machine.

    Args:
        output_dir: gets the app, a copy of the bundle, into which trainings write, and the studies.
        weights: a flat state dict; default models/model.pt, else demo/models/model.pt.
        overlay: the config files that were laid over train.json in the training; known for the
            demonstration's weights.
        studies: a folder with scans, one file for each, or the address of a DICOMweb server;
            default made-up ones.
        app: patchwork (with a strategy of ours) or monaibundle (MONAI Label's app as it is).
        port: where to listen.
        start: false = lay everything out, and print the command that starts the server.
    """
    from bundle.delivery.label_server import prepare

    overlays = () if overlay is None else _names(overlay)
    server = prepare(output_dir, _path(weights), overlays, _path(studies), str(app), int(port))
    print(f"app: {server.app}\nstudies: {server.studies}")
    if not flag(start):
        print(shlex.join(server.command()))
        return
    print(f"the server will be at http://127.0.0.1:{server.port}; Ctrl-C stops it")
    sys.stdout.flush()
    if status := server.run():
        raise SystemExit(status)


def settings(output: str | None = None) -> None:
    """Write docs/settings.md: every setting of the configs, its default and its meaning.

    Args:
        output: the file to write; default docs/settings.md of this bundle.
    """
    from bundle.delivery.settings_page import write_settings

    print(f"wrote {write_settings(_path(output))}")


VERBS: dict[str, Callable[..., None]] = {
    "phantom": phantom,
    "scan": scan,
    "faults": faults,
    "degrade": degrade,
    "partition": partition,
    "prompts": prompts,
    "benchmark": benchmark,
    "features": features,
    "package": package,
    "export": export,
    "label": label,
    "settings": settings,
}
PROGRAM = "python -m bundle"
HELP = {"--help", "-h", "help"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: the words after `python -m bundle`; None = those of this process.

    Returns:
        The exit status: 0, or 2 where the user has to change something (said on stderr).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in HELP:
        print(_verbs_help())
        return 0
    try:
        _check_verb(words[0])
        if HELP & set(words[1:]):
            print(_verb_help(words[0]))
            return 0
        _check_options(words[0], words[1:])
        fire.Fire(VERBS, command=words, name=PROGRAM)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _verbs_help() -> str:
    """List the verbs, each with the first line of its docstring."""
    lines = [f"  {verb:10} {(call.__doc__ or '').splitlines()[0]}" for verb, call in VERBS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} VERB ...",
            "",
            *lines,
            "",
            f"`{PROGRAM} VERB --help` lists the options of a verb.",
            "`python -m monai.bundle run` trains, evaluates and segments: see README.md.",
        ]
    )


def _verb_help(verb: str) -> str:
    """Say how a verb is called; its docstring names every option, the signature the defaults."""
    parameters = inspect.signature(VERBS[verb]).parameters.values()
    needed = [each.name.upper() for each in parameters if each.default is each.empty]
    given = [each for each in parameters if each.default not in (each.empty, None)]
    usage = " ".join([PROGRAM, verb, *needed, "[--OPTION VALUE] ..."])
    defaults = [f"    --{each.name} {_as_word(each.default)}" for each in given]
    lines = [f"usage: {usage}", "", inspect.getdoc(VERBS[verb]) or ""]
    return "\n".join([*lines, *(["", "Defaults:", *defaults] if defaults else [])])


def _as_word(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _check_verb(verb: str) -> None:
    if verb not in VERBS:
        raise ValueError(
            f"no verb {verb!r}.{_suggestion(verb, VERBS)} `{PROGRAM} --help` lists the verbs."
        )


def _check_options(verb: str, words: Sequence[str]) -> None:
    """Refuse an option that does not exist before anything runs.

    Args:
        verb: one of VERBS.
        words: what follows the verb, as python-fire is going to read it.

    Raises:
        ValueError: no such option, a value too few or too many.
    """
    if "--" in words:
        return  # what follows is for python-fire itself
    parameters = inspect.signature(VERBS[verb]).parameters
    see = f"`{PROGRAM} {verb} --help` lists the options."
    given, values, index = set(), [], 0
    while index < len(words):
        word, index = words[index], index + 1
        if not _is_option(word):
            values.append(word)
            continue
        option, equals, _ = word.lstrip("-").partition("=")
        has_value = bool(equals) or (index < len(words) and not _is_option(words[index]))
        name = _parameter(option.replace("-", "_"), has_value, parameters)
        if name is None:
            dashed = {f"--{parameter}": parameter for parameter in parameters}
            unknown = word.partition("=")[0]
            raise ValueError(f"{verb}: no option {unknown}.{_suggestion(unknown, dashed)} {see}")
        given.add(name)
        index += has_value and not equals
    free = [name for name in parameters if name not in given]
    if len(values) > len(free):
        raise ValueError(f"{verb}: one value too many, {values[len(free)]!r}. {see}")
    for name in free[len(values) :]:
        if parameters[name].default is inspect.Parameter.empty:
            raise ValueError(f"{verb}: no value for {name.upper()}. {see}")


def _is_option(word: str) -> bool:
    """Tell an option from a value as python-fire does; -1 is a value."""
    return word.startswith("--") or re.match("-[a-zA-Z]", word) is not None


def _parameter(option: str, has_value: bool, parameters: Mapping[str, Any]) -> str | None:
    """Return the parameter that python-fire takes an option for; None = it would take none."""
    if option in parameters:
        return option
    if not has_value and option.startswith("no") and option[2:] in parameters:
        return option[2:]
    short = [name for name in parameters if name[0] == option]
    return short[0] if len(short) == 1 else None


def _suggestion(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {near[0]}?" if near else f" Expected one of {', '.join(known)}."


def _path(value: Any) -> str | None:
    """Undo python-fire's reading of a folder called 2020 as a number."""
    return None if value is None else str(value)


def _words(value: Any) -> list[Any]:
    """Split 'a,b', which python-fire hands over as a string or already as a tuple."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return [word.strip() for word in str(value).split(",") if word.strip()]


def _names(value: Any) -> tuple[str, ...]:
    return tuple(str(word) for word in _words(value))


def _numbers(value: Any) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in _words(value))
    except ValueError as error:
        raise ValueError(f"expected numbers such as 0.7,0.1,0.2, got {value!r}") from error


def _section_counts(value: Any, sections: Sequence[str]) -> dict[str, int]:
    counts = [int(number) for number in _numbers(value)]
    if len(counts) > len(sections):
        raise ValueError(f"sections: expected up to {len(sections)} numbers, got {value!r}")
    return dict(zip(sections, counts, strict=False))


if __name__ == "__main__":
    sys.exit(main())
