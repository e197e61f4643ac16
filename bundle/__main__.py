"""The command line `python -m bundle VERB`: everything but training, which `monai.bundle` runs.

Each verb imports its own module only, so that `scan` runs without loading MONAI. What a word of the
shell becomes is the annotation of its parameter, see `bundle.cli.kinds`; what a verb does is in the
module that it calls.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence

from bundle.cli.command import HELP, run_command
from bundle.cli.errors import end_of
from bundle.cli.kinds import Names, Numbers, PathText, Table
from bundle.cli.terminal import bear_every_letter
from bundle.cli.words import suggestion
from bundle.modalities import BRATS_MODALITIES
from bundle.regions import BRATS_REGIONS


def phantom(
    output_dir: PathText,
    sections: tuple[int, ...] | Table = (24, 4, 8),
    anatomy: str = "icbm152",
    spacing_mm: Numbers | None = None,
    modalities: Names = BRATS_MODALITIES,
    seed: int = 0,
    orientation: str = "LPS",
    naming: str = "phantom",
    grid: str | None = None,
    head: bool | None = None,
    thick_slices: bool | None = None,
    scanner_seed: int | None = None,
    size: int | None = None,
    difficulty: float | None = None,
    workers: int | None = None,
) -> None:
    """Write a made-up data set: NIfTI volumes and their datalist.

    Args:
        output_dir: the folder to write into.
        sections: cases for training,validation,testing, such as 24,4,8.
        anatomy: icbm152, a head from the ICBM 2009a template, or simple, an ellipsoid.
        spacing_mm: voxel size, one number or three such as 1,1,3; default 3, or 2 of an ellipsoid.
        modalities: names, such as t1,t1ce,t2,flair.
        seed: of everything random.
        orientation: where the stored axes point, such as LPS or RAS.
        naming: whose file names: phantom, brats2018, brats2019, brats2020, brats2021 or brats2023.
        grid: brain, or brats: 240 x 240 x 155 voxels of 1 mm; icbm152 alone.
        head: with skull, scalp, eyes and noise in the air; icbm152 alone.
        thick_slices: slices of 1 to 6 mm; icbm152 alone.
        scanner_seed: one scanner for all cases, as at one site; icbm152 alone.
        size: edge of the cube, voxels, default 48; simple alone.
        difficulty: 0 to 1, which is the default; simple alone.
        workers: processes side by side; default one for each processor, at most 4.
    """
    from bundle.data.datalist import SECTIONS
    from bundle.phantom.data_set import write_phantom
    from bundle.phantom.workers import default_workers

    counts = _section_counts(sections, SECTIONS) if isinstance(sections, tuple) else sections
    path = write_phantom(
        output_dir,
        sections=counts,
        anatomy=anatomy,
        spacing_mm=spacing_mm * 3 if spacing_mm and len(spacing_mm) == 1 else spacing_mm,
        modalities=modalities,
        seed=seed,
        orientation=orientation,
        naming=naming,
        grid=grid,
        head=head,
        thick_slices=thick_slices,
        scanner_seed=scanner_seed,
        size=size,
        difficulty=difficulty,
        workers=default_workers() if workers is None else workers,
    )
    print(f"wrote {path}")


def scan(
    root: PathText,
    output: PathText | None = None,
    modalities: Names = BRATS_MODALITIES,
    regions: Table | None = None,
    aliases: Table | None = None,
    strict: bool = False,
    split: Numbers | None = None,
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
        root,
        output=output,
        modalities=modalities,
        regions=BRATS_REGIONS if regions is None else regions,
        aliases=BRATS_ALIASES if aliases is None else aliases,
        split=split,
        seed=seed,
        check=check,
        suffixes=suffixes,
        patient=None if patient is None else str(patient),
    )
    if strict and problems:
        raise SystemExit(1)


def faults(cases: int = 200, seed: int = 0, datalist: PathText | None = None) -> None:
    """Plant faults into cases, and count which of them the rules of the check find.

    Args:
        cases: how many phantom cases, and how often each fault is planted.
        seed: of the cases and the faults.
        datalist: take its labelled cases instead, all of them once for each fault.
    """
    from bundle.phantom.fault_rates import measure_rates, rates_table

    print(rates_table(measure_rates(cases, seed, datalist)))


def degrade(
    datalist: PathText,
    output: PathText,
    ratio: float | None = None,
    rates: Table | str | None = None,
    sections: Names = ("training",),
    seed: int = 0,
    modalities: Names = BRATS_MODALITIES,
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

    degrade_datalist(datalist, output, ratio, rates, sections, seed, modalities)


def partition(
    datalist: PathText,
    output_dir: PathText,
    csv: PathText | None = None,
    plan: str | None = None,
    seed: int = 0,
    modalities: Names = BRATS_MODALITIES,
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

    partition_datalist(datalist, output_dir, csv, plan, seed, modalities)


def protocol(
    name: str | None = None,
    root: PathText | None = None,
    lists: tuple[PathText, ...] = (),
    output: PathText | None = None,
    fold: int | None = None,
    validation: float = 0.0,
    partial: bool = False,
) -> None:
    """Write the datalist of a published protocol; without a name, list the names.

    Args:
        name: such as hga2020-2468.
        root: the folder of the BraTS release, as its owners ship it.
        lists: a clone of the repository that has the lists, or several with commas.
        output: the datalist to write.
        fold: the fold that is tested, for a protocol with folds.
        validation: share of the training patients to validate on, where the protocol has none.
        partial: go on although cases of the lists are not there; the datalist names them.
    """
    from bundle.protocols.command import list_protocols, write_protocol
    from bundle.protocols.table import find_protocol

    if name is None:
        print(list_protocols())
        return
    find_protocol(name)
    if root is None or output is None:
        raise ValueError(
            f"protocol {name}: expected --root BRATS, --lists CLONE and --output FILE. Give all "
            "three."
        )
    write_protocol(name, root, lists, output, fold, validation, partial)


def prompts(
    output: PathText,
    model: str = "ViT-B-32",
    pretrained: PathText = "laion2b_s34b_b79k",
    source: str = "clip",
    modalities: Names = BRATS_MODALITIES,
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

    if source == "clip":
        from bundle.prompts.clip import clip_prompt_bank

        bank = clip_prompt_bank(modalities, model, pretrained)
    else:
        bank = prompt_bank(modalities, source, seed=seed)
    save_prompt_bank(bank, output)
    print(f"wrote {output}")
    print(bank.describe())


def benchmark(
    output_dir: PathText,
    grid: str = "main",
    workers: int = 2,
    only: str | None = None,
    report_only: bool = False,
    keep: bool = False,
    device: str | None = None,
    datalist: PathText | None = None,
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

    try:
        fine = make_benchmark(output_dir, grid, workers, only, report_only, keep, device, datalist)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if not fine:
        raise SystemExit(1)


def compare(
    scores: PathText,
    reference: PathText,
    output: PathText | None = None,
    modalities: Names = BRATS_MODALITIES,
) -> None:
    """Compare an evaluation's scores with another table of the same cases, case by case.

    Args:
        scores: the scores.csv of an evaluation.
        reference: another scores.csv, or ReLiSS's per_case_metrics.csv.
        output: a Markdown file that gets the table, too.
        modalities: names in the order of scores.csv, such as t1,t1ce,t2,flair.
    """
    from bundle.evaluation.reference import compare as compare_tables

    print(compare_tables(scores, reference, modalities, output), end="")


def features(
    output_dir: PathText = "runs/features",
    file: PathText | None = None,
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

    compare(output_dir, file, ratio, epochs, seed)


def package(
    output: PathText = "runs",
    weights: PathText | None = None,
    overlay: tuple[PathText, ...] = (),
    data: str | None = None,
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

    print(f"wrote {write_package(output, weights, overlay, data)}")


def export(
    output: PathText,
    weights: PathText | None = None,
    overlay: tuple[PathText, ...] = (),
    image_only: bool = False,
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

    trained = find_trained(weights, overlay)
    path = write_export(trained.network(), output, trained.note(), image_only)
    print(f"wrote {path}")


def accept(path: PathText) -> None:
    """Say that an expert has corrected a segmentation of ours, so that it may serve as label.

    Args:
        path: the file, whose header then says so in place of naming this program.
    """
    from bundle.data.marks import accept as accept_file

    print(f"{path}: accepted, it was {accept_file(str(path))!r}")


def label(
    output_dir: PathText = "runs/label",
    weights: PathText | None = None,
    overlay: tuple[PathText, ...] = (),
    studies: PathText | None = None,
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

    server = prepare(output_dir, weights, overlay, studies, app, port)
    print(f"app: {server.app}\nstudies: {server.studies}")
    if not start:
        print(shlex.join(server.command()))
        return
    print(f"the server will be at http://127.0.0.1:{server.port}; Ctrl-C stops it")
    sys.stdout.flush()
    if status := server.run():
        raise SystemExit(status)


def settings(output: PathText | None = None) -> None:
    """Write docs/settings.md: every setting of the configs, its default and its meaning.

    Args:
        output: the file to write; default docs/settings.md of this bundle.
    """
    from bundle.delivery.settings_page import write_settings

    print(f"wrote {write_settings(output)}")


VERBS: dict[str, Callable[..., None]] = {
    "phantom": phantom,
    "scan": scan,
    "faults": faults,
    "degrade": degrade,
    "partition": partition,
    "protocol": protocol,
    "prompts": prompts,
    "benchmark": benchmark,
    "compare": compare,
    "features": features,
    "package": package,
    "export": export,
    "accept": accept,
    "label": label,
    "settings": settings,
}
PROGRAM = "python -m bundle"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: the words after `python -m bundle`; None = those of this process.

    Returns:
        The exit status: 0, or that of `end_of`: 2 where the user has to change something.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in (*HELP, "help"):
        print(_verbs_help())
        return 0
    verb = words[0]
    if verb not in VERBS:
        near = suggestion(verb, list(VERBS))
        return end_of(ValueError(f"no verb {verb!r}.{near} `{PROGRAM} --help` lists the verbs."))
    return run_command(VERBS[verb], words[1:], f"{PROGRAM} {verb}")


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


def _section_counts(numbers: Sequence[int], sections: Sequence[str]) -> dict[str, int]:
    if len(numbers) > len(sections):
        raise ValueError(f"sections: expected up to {len(sections)} numbers, got {len(numbers)}")
    return dict(zip(sections, numbers, strict=False))


if __name__ == "__main__":
    bear_every_letter()
    sys.exit(main())
