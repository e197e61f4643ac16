"""The command line: `python -m bundle VERB`, data sets in and out; training is `monai.bundle`'s.

Each verb imports its own module only, so that `scan` runs without loading MONAI. The verbs turn
what python-fire makes of a shell word into plain values; what they do is in the module they call.
"""

from __future__ import annotations

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
    """Write the phantom data set: NIfTI volumes and their datalist, made up but hard enough.

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
) -> None:
    """Find BraTS cases by their names, print a census and every problem, write a datalist.

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
    """
    from bundle.data.scan import scan as scan_folder
    from bundle.data.volumes import BRATS_ALIASES

    problems = scan_folder(
        str(root),
        output=_path(output),
        modalities=_names(modalities),
        regions=BRATS_REGIONS if regions is None else regions,
        aliases=BRATS_ALIASES if aliases is None else aliases,
        split=None if split is None else _numbers(split),
        seed=seed,
        check=check,
    )
    if strict and problems:
        raise SystemExit(1)


def degrade(
    datalist: str,
    output: str,
    ratio: float | None = None,
    rates: Any = None,
    sections: Any = "training",
    seed: int = 0,
    modalities: Any = BRATS_MODALITIES,
) -> None:
    """Write a datalist whose cases lack modalities at random but for good.

    Args:
        datalist: the datalist to start from.
        output: the datalist to write.
        ratio: chance to be dropped, 0 to 1, the same for every modality.
        rates: or one for each, such as t1=0.2,t1ce=0.4,t2=0.6,flair=0.8.
        sections: which sections to degrade, such as training,validation.
        seed: with a case's name it decides what the case lacks.
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
    """Share out a datalist among the sites of a federation.

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
    """Write one text embedding for every modality subset; CLIP's need the extra `clip`.

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
    """Train and test a whole grid, and report; a stopped one goes on.

    Args:
        output_dir: the grid's folder; runs that have a result there are not made again.
        grid: on the phantom universal or methods (many hours each), methods_whole (longer still),
            cost or rebuilding (minutes), or smoke (a minute); on a datalist's cases, cases (for a
            GPU) or cases_small.
        workers: how many runs at a time, one processor core each.
        only: make the runs in whose names this regular expression is found.
        report_only: make no run, only the report on those that are there.
        keep: leave the checkpoints of the runs.
        device: such as cuda; without it the phantom's grids stay on the CPU.
        datalist: for these two; its training cases are to get gaps.
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
    """Train a regressor on text, audio and vision features with and without gradient decoupling.

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
    """Write the bundle as one zip, weights inside, that MONAI's tools take as it is.

    Args:
        output: the zip, or the folder that gets it.
        weights: a flat state dict; default models/model.pt, else demo/models/model.pt.
        overlay: the config files that were laid over train.json in the training, such as
            configs/brats2018.yaml; known for the demonstration's weights.
        data: what the weights were trained on, in words, for metadata and model card.
    """
    from bundle.delivery.package import package as write_package

    overlays = () if overlay is None else _names(overlay)
    path = write_package(str(output), _path(weights), overlays, _path(data))
    print(f"wrote {path}")


def export(
    output: str, weights: str | None = None, overlay: Any = None, image_only: bool = False
) -> None:
    """Write the trained network as one file for other programs: .onnx or PyTorch's .pt2.

    Args:
        output: the file; ONNX needs the extra `export`.
        weights: a flat state dict; default models/model.pt, else demo/models/model.pt.
        overlay: the config files that were laid over train.json in the training; known for the
            demonstration's weights.
        image_only: leave `present` out: a channel that is zero everywhere is then absent, which
            holds for whole cases, not for windows.
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
    """Serve the bundle with MONAI Label on this machine, for 3D Slicer and others.

    Args:
        output_dir: gets the app, a copy of the bundle (trainings write there) and the studies.
        weights: a flat state dict; default models/model.pt, else demo/models/model.pt.
        overlay: the config files that were laid over train.json in the training; known for the
            demonstration's weights.
        studies: a folder with scans, one file for each, or the address of a DICOMweb server;
            default made-up ones.
        app: patchwork (with a strategy of ours) or monaibundle (MONAI Label's app as it is).
        port: where to listen.
        start: false = only lay everything out, and say how to start it.
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


VERBS: dict[str, Callable[..., None]] = {
    "phantom": phantom,
    "scan": scan,
    "degrade": degrade,
    "partition": partition,
    "prompts": prompts,
    "benchmark": benchmark,
    "features": features,
    "package": package,
    "export": export,
    "label": label,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: the words after `python -m bundle`; None = those of this process.

    Returns:
        The exit status: 0, or 2 where the user has to change something (said on stderr).
    """
    try:
        fire.Fire(
            VERBS, command=None if arguments is None else list(arguments), name="python -m bundle"
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


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
