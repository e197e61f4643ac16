from __future__ import annotations

import json
import logging
import zlib
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

import bundle
from bundle.data.volumes import CaseError
from bundle.modalities import BRATS_MODALITIES
from bundle.transforms.load import AS_NAMED, LoadModalitiesd

SHAPE = (10, 20, 30)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def load(image, case=None, **options):
    item = {"image": image} if case is None else {"image": image, "case": case}
    return LoadModalitiesd("image", BRATS_MODALITIES, **options)(item)


@pytest.fixture
def gap_case(write_volume):
    """T1 and FLAIR of case A."""
    return {m: write_volume(f"A/A_{m}.nii.gz", i, AFFINE) for i, m in enumerate(("t1", "flair"))}


@pytest.fixture
def from_dict(gap_case):
    return load({**gap_case, "t2": None}, "A")


def test_a_dict_with_gaps_makes_an_image_with_zeros_in_vocabulary_order(from_dict):
    image = from_dict["image"]
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.float32
    assert image.shape == (4, *SHAPE)
    assert np.array_equal(image.affine, AFFINE)
    assert from_dict["present"].dtype == torch.bool
    assert from_dict["present"].tolist() == [True, False, False, True]
    assert not image[1:3].any()
    written = np.random.default_rng(1).uniform(1, 2, SHAPE).astype(np.float32)
    assert np.array_equal(image[3], written)


def test_a_list_in_any_order_and_with_nulls_makes_the_same_image(gap_case, from_dict):
    for files in permutations([gap_case["t1"], gap_case["flair"], None, ""]):
        item = load(list(files))
        assert torch.equal(item["image"], from_dict["image"])
        assert torch.equal(item["present"], from_dict["present"])
        assert item["case"] == "A"


def test_a_folder_makes_the_same_image_and_ignores_what_is_no_modality(
    gap_case, from_dict, write_volume
):
    folder = write_volume("A/A_seg.nii.gz", np.zeros(SHAPE, np.uint8)).parent
    (folder / "notes.txt").write_text("t1", encoding="utf-8")
    item = load(str(folder))
    assert torch.equal(item["image"], from_dict["image"])
    assert item["case"] == "A"


def test_one_file_brings_its_siblings_but_no_other_case(gap_case, from_dict, write_volume):
    write_volume("A/B_t2.nii.gz", 7)
    for path in gap_case.values():
        item = load(str(path))
        assert torch.equal(item["image"], from_dict["image"])
        assert torch.equal(item["present"], from_dict["present"])
        assert item["case"] == "A"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A_T1.nii.gz", "A_FLAIR.nii.gz"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "BraTS-GLI-00000-000-t2f.nii.gz"),
        ("t1.nii", "flair.nii"),
    ],
)
def test_names_in_upper_case_of_2023_and_without_prefix_are_understood(write_volume, first, second):
    path = write_volume(f"case/{first}", 0, AFFINE)
    write_volume(f"case/{second}", 1, AFFINE)
    for source in (path, path.parent, [path.parent / second, path]):
        assert load(source)["present"].tolist() == [True, False, False, True]


def test_an_own_vocabulary_and_own_endings_work(write_volume):
    files = [write_volume("P_ct.nii.gz", 0), write_volume("P_suv.nii.gz", 1)]
    item = LoadModalitiesd("image", ("pet", "ct"), {"pet": ["suv"]})({"image": files})
    assert item["present"].tolist() == [True, True]
    assert torch.equal(
        item["image"][1], LoadModalitiesd("image", ("ct", "x"))({"image": files[0]})["image"][0]
    )


@pytest.mark.parametrize("vectors", [False, True], ids=["4D", "as ITK writes vectors"])
@pytest.mark.parametrize("by", ["item", "transform", "dataset.json"])
def test_a_4d_file_goes_by_the_order_that_is_said_and_its_zeros_are_absent(
    write_volume, from_dict, caplog, by, vectors
):
    order = ["flair", "t2", None, "t1"]
    volumes = [from_dict["image"][BRATS_MODALITIES.index(n)] if n else AFFINE[0, 1] for n in order]
    volumes[2] = torch.rand(SHAPE)
    voxels = np.stack(volumes, -1)
    path = write_volume("B_all.nii.gz", voxels[..., None, :] if vectors else voxels, AFFINE)
    item, options = {"image": str(path), "case": "B"}, {}
    if by == "dataset.json":
        voxels = np.delete(voxels, 2, -1)
        write_volume("B_all.nii.gz", voxels[..., None, :] if vectors else voxels, AFFINE)
        names = {"0": "FLAIR", "1": "T2w", "2": "T1w"}
        path.with_name(by).write_text(json.dumps({"modality": names}))
    elif by == "item":
        item["channel_order"] = order
    else:
        options["channel_order"] = order
    with caplog.at_level(logging.INFO, "bundle"):
        item = LoadModalitiesd("image", BRATS_MODALITIES, **options)(item)
    said = {"dataset.json": "flair, t2, t1, by its dataset.json"}
    assert said.get(by, "flair, t2, (left out), t1, by channel_order") in caplog.text
    assert "counts as absent" not in caplog.text
    assert torch.equal(item["image"], from_dict["image"])
    assert torch.equal(item["present"], from_dict["present"])
    assert np.array_equal(item["image"].affine, AFFINE)


@pytest.mark.parametrize("value", [0, 5])
def test_a_constant_volume_is_absent_and_the_warning_names_its_file(
    gap_case, write_volume, caplog, value
):
    blank = write_volume("A/A_t2.nii.gz", np.full(SHAPE, value, np.float32), AFFINE)
    with caplog.at_level(logging.WARNING):
        item = load({**gap_case, "t2": blank}, "A")
    assert item["present"].tolist() == [True, False, False, True]
    assert not item["image"][2].any()
    assert f"case A: {blank} is constant everywhere, so 't2' counts as absent" in caplog.text


def test_the_copy_stays_as_scanned(gap_case):
    item = load(gap_case, "A", copy_key="scan")
    item["image"].zero_()
    assert item["scan"][0].any()


def test_no_key_begins_with_the_image_key(gap_case):
    # MONAI's Spacingd would take `image_*` for the image's metadata.
    keys = {"image", "case", "present", "nonzero"}
    assert set(load(gap_case, "A", copy_key="scan")) == keys | {"scan"}
    assert set(load(gap_case, "A", nonzero_key=None)) == keys - {"nonzero"}


def test_two_files_for_one_modality_are_refused(write_volume):
    files = [write_volume("A/A_t1ce.nii.gz"), write_volume("A/A_t1c.nii.gz")]
    for source in (files, files[0].parent, files[0]):
        with pytest.raises(
            CaseError, match=r"case A: two files for 't1ce', .*A_t1c.* and .*\. Exp"
        ):
            load(sorted(source) if isinstance(source, list) else source, "A")


def test_a_list_entry_that_tells_no_modality_is_refused_not_read_by_position(
    gap_case, write_volume
):
    strange = write_volume("A/A_scan3.nii.gz")
    with pytest.raises(
        CaseError, match=r"case A: the name of .*A_scan3.* _t1ce \(t1ce\).*position"
    ):
        load([gap_case["t1"], strange], "A")
    with pytest.raises(CaseError, match=r"A_scan3.* tells no modality"):
        load(strange, "A")


def test_an_unknown_key_is_refused(gap_case):
    with pytest.raises(ValueError, match=r"case A: unknown modality 'pd'.*Correct the name"):
        load({**gap_case, "pd": "A_pd.nii.gz"}, "A")


@pytest.mark.parametrize("form", ["dict", "list", "file"])
def test_a_missing_file_is_named(tmp_path, gap_case, form):
    missing = tmp_path / "A" / "A_t2.nii.gz"
    source = {"dict": {**gap_case, "t2": missing}, "list": [missing], "file": missing}[form]
    with pytest.raises(CaseError, match=r"case A: file .*A_t2\.nii\.gz does not exist"):
        load(source, "A")


def test_a_case_without_files_is_refused(tmp_path):
    for source in ({"t1": None}, [None], tmp_path):
        with pytest.raises(CaseError, match=r"case A: no modality is recognisable.*A_t1\.nii\.gz"):
            load(source, "A")


def test_differing_grids_name_both_files(gap_case, write_volume):
    other = write_volume("A/A_t2.nii.gz", np.random.rand(10, 20, 31).astype(np.float32), AFFINE)
    with pytest.raises(CaseError, match=r"(?s)case A: .*\(10, 20, 30\).*_t1.*\(10, 20, 31\).*A_t2"):
        load({**gap_case, "t2": other}, "A")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused(write_volume, bad):
    voxels = np.random.rand(*SHAPE).astype(np.float32)
    voxels[1, 2, 3] = bad
    with pytest.raises(
        CaseError, match=r"case A: A_t1\.nii\.gz holds 1 voxels that are NaN or inf"
    ):
        load({"t1": write_volume("A_t1.nii.gz", voxels)}, "A")
    four = np.stack([voxels] * 4, axis=-1)
    with pytest.raises(CaseError, match=r"case A: A\.nii\.gz holds 4 voxels that are NaN or inf"):
        load(write_volume("A.nii.gz", four), "A", channel_order=BRATS_MODALITIES)


def test_a_case_with_nothing_but_constants_is_refused(write_volume):
    blank = write_volume("A_t1.nii.gz", np.zeros(SHAPE, np.float32))
    with pytest.raises(CaseError, match=r"case A: nothing is present, .*Take the case out"):
        load({"t1": blank}, "A")


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((4, 5, 6, 3), "holds 3 volumes, .* expected 4, one for each of"),
        ((4, 5, 6, 1, 5), "holds 5 volumes, .* expected 4, one for each of"),
        ((4, 5, 6, 4, 2), "must be one 3D volume, or volumes along one more dimension"),
    ],
)
def test_a_4d_file_of_another_length_is_refused(write_volume, shape, text):
    path = write_volume("A.nii.gz", np.ones(shape, np.float32))
    with pytest.raises(CaseError, match=rf"case A: A\.nii\.gz {text}"):
        load(path, "A", channel_order=BRATS_MODALITIES)


@pytest.mark.parametrize("count", [2, 4])
def test_the_order_in_a_4d_file_is_never_guessed(write_volume, count):
    path = write_volume("A.nii.gz", np.random.rand(*SHAPE, count).astype(np.float32))
    with pytest.raises(
        CaseError, match=rf"A\.nii\.gz holds {count} volumes, and nothing says which"
    ):
        load(path, "A")


def test_an_order_that_contradicts_the_dataset_json_counts_and_is_said(write_volume, caplog):
    path = write_volume("A.nii.gz", np.random.rand(*SHAPE, 2).astype(np.float32))
    note, order = path.with_name("dataset.json"), ["t2", "t1"]
    for names, warned in ((["T1", "FLAIR"], True), (["T2", "T1"], False), (["ADC", "x"], False)):
        caplog.clear()
        note.write_text(json.dumps({"channel_names": dict(enumerate(names))}))
        assert load(path, "A", channel_order=order)["present"].tolist() == [
            True,
            False,
            True,
            False,
        ]
        assert ("channel_order says ['t2', 't1'], the dataset.json of" in caplog.text) is warned


def test_an_order_that_names_no_modality_is_refused_by_who_gave_it(write_volume):
    with pytest.raises(ValueError, match="loading: channel_order: unknown modality 'pet'"):
        LoadModalitiesd("image", BRATS_MODALITIES, channel_order=["pet"])
    path = write_volume("A.nii.gz", np.random.rand(*SHAPE, 2).astype(np.float32))
    with pytest.raises(ValueError, match="case A: channel_order must be a list"):
        LoadModalitiesd("image", BRATS_MODALITIES)({"image": path, "channel_order": "t1,t2"})


def test_a_4d_file_with_a_volume_of_one_value_says_that_it_counts_as_absent(write_volume, caplog):
    voxels = np.random.rand(*SHAPE, 2).astype(np.float32)
    voxels[..., 1] = 5
    item = load(write_volume("A.nii.gz", voxels), "A", channel_order=["t1", "flair"])
    assert item["present"].tolist() == [True, False, False, False]
    assert "constant everywhere, so 'flair' counts as absent" in caplog.text


@pytest.fixture
def head(write_volume):
    """Give head(flair=0.0): paths of T1 and FLAIR, noisy balls; `flair` is around that of FLAIR."""

    def write(flair=0.0):
        ball = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0) < 16
        files = {}
        for seed, (name, air) in enumerate({"t1": 0.0, "flair": flair}.items()):
            noise = np.random.default_rng(seed).uniform(1, 2, ball.shape)
            voxels = np.where(ball, noise, air).astype(np.float32)
            files[name] = write_volume(f"H/H_{name}.nii", voxels, np.diag([3, 3, 3, 1]))
        return files

    return write


@pytest.mark.parametrize("form", ["folder", "file", "list", "dict", "4D"])
def test_a_case_that_nobody_has_checked_is_warned_of_or_refused(head, write_volume, caplog, form):
    files = head(flair=0.5)
    four = np.stack([nib.load(path).get_fdata(dtype=np.float32) for path in files.values()], -1)
    sources = {"folder": files["t1"].parent, "file": files["t1"], "dict": files}
    sources |= {
        "list": list(files.values()),
        "4D": write_volume("four.nii", four, np.diag([3, 3, 3, 1])),
    }
    options = {"channel_order": ["t1", "flair"]} if form == "4D" else {}
    item = load(sources[form], "H", odd="warn", **options)
    assert item["present"].tolist() == [True, False, False, True]
    assert "case H: flair: hardly any voxel is 0 (background" in caplog.text
    assert "case H: t1" not in caplog.text
    assert "result" not in item
    with pytest.raises(CaseError, match=r"case H: flair: hardly any voxel is 0 .*Strip the skull"):
        load(sources[form], "H", odd="refuse", **options)


def test_a_good_case_is_neither_warned_of_nor_refused(head, caplog):
    load(head(), "H", odd="refuse")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("odd", "item"), [("ignore", {}), ("warn", {"checked": True}), ("refuse", {"checked": True})]
)
def test_a_case_that_was_checked_is_not_measured_again(head, monkeypatch, odd, item):
    monkeypatch.setattr("bundle.transforms.load.CaseMeter", None)
    loader = LoadModalitiesd("image", BRATS_MODALITIES, odd=odd)
    assert loader({"image": head(flair=0.5), "case": "H", **item})["present"].any()


def test_equal_scans_are_refused_also_where_others_are_warned_of(head, write_volume):
    files = head()
    copy = nib.load(files["t1"]).get_fdata(dtype=np.float32)
    files["t2"] = write_volume("H/H_t2.nii", copy * 2, np.diag([3, 3, 3, 1]))
    with pytest.raises(CaseError, match=r"case H: t1 and t2: .*H_t1\.nii and .*H_t2\.nii\."):
        load(files, "H", odd="warn")
    stacked = np.stack([copy, copy], -1)
    with pytest.raises(CaseError, match=r"t1 and t2: they hold .* Read from \S*four\.nii\.$"):
        load(write_volume("four.nii", stacked), "H", odd="warn", channel_order=["t1", "t2"])


def test_another_word_than_the_three_is_refused():
    with pytest.raises(ValueError, match="odd: expected 'warn', 'refuse' or 'ignore', got 'no'"):
        LoadModalitiesd("image", BRATS_MODALITIES, odd="no")


@pytest.mark.parametrize("damage", [b"", b"\xff" * 1000], ids=["cut", "overwritten"])
def test_a_damaged_4d_file_is_a_case_error(write_volume, damage):
    path = write_volume("A.nii", np.random.rand(*SHAPE, 4).astype(np.float32))
    packer = zlib.compressobj(wbits=31)
    sound = packer.compress(path.read_bytes()[:50_000]) + packer.flush(zlib.Z_FULL_FLUSH)
    path.with_suffix(".nii.gz").write_bytes(sound + damage)
    with pytest.raises(CaseError, match=r"case A: .*A\.nii\.gz cannot be read"):
        load(path.with_suffix(".nii.gz"), "A", channel_order=BRATS_MODALITIES)


def test_a_4d_file_without_usable_affine_is_refused_as_3d_ones_are(write_volume):
    flat = np.eye(4)
    flat[:, 1] = flat[:, 0]
    path = write_volume("A.nii.gz", np.random.rand(4, 5, 6, 4).astype(np.float32), flat)
    with pytest.raises(CaseError, match=r"case A: A\.nii\.gz has no usable affine"):
        load(path, "A", channel_order=BRATS_MODALITIES)


def test_a_file_without_a_telling_name_is_what_the_item_says(write_volume, from_dict):
    path = write_volume("tmp7x.nii.gz", 1, AFFINE)
    loader = LoadModalitiesd("image", BRATS_MODALITIES)
    item = loader({"image": path, "modality": "flair"})
    assert item["present"].tolist() == [False, False, False, True]
    assert torch.equal(item["image"][3], from_dict["image"][3])
    for said in (["as the file is named", "t1"], "as the file is named", None):
        with pytest.raises(CaseError, match=r"case tmp7x: .* tells no modality.*`modality`"):
            loader({"image": path, "modality": said})


def test_a_telling_name_counts_more_than_what_the_item_says(gap_case):
    loader = LoadModalitiesd("image", BRATS_MODALITIES)
    item = loader({"image": gap_case["flair"], "modality": "t2"})
    assert item["present"].tolist() == [True, False, False, True]


def test_an_empty_path_is_no_image():
    with pytest.raises(CaseError, match="no image: the path is empty"):
        load("")


def test_loading_opens_and_unpacks_every_file_once(gap_case, file_reads):
    with file_reads() as reads:
        load({**gap_case, "t2": None}, "A")
    assert reads.opened == {"A_t1.nii.gz": 1, "A_flair.nii.gz": 1}
    assert reads.unpacked == 2


def test_everything_that_is_wrong_with_a_case_is_said_at_once(gap_case, write_volume):
    missing = gap_case["t1"].with_name("A_t1ce.nii.gz")
    other = write_volume("A/A_t2.nii.gz", np.ones((10, 20, 31), np.float32), AFFINE)
    with pytest.raises(CaseError) as error:
        load({**gap_case, "t1ce": missing, "t2": other}, "A")
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert "A_t1ce.nii.gz does not exist" in lines[0]
    assert "(10, 20, 31)" in lines[1]


@pytest.mark.parametrize(
    ("stated", "modality"),
    [("FLAIR", "flair"), ("T1c", "t1ce"), ("t2f", "flair"), ("T1Gd", "t1ce"), ("T1-ce", "t1ce")],
)
def test_a_stated_modality_may_be_spelled_as_any_release_does(write_volume, stated, modality):
    path = write_volume("scan.nii.gz", 3, AFFINE)
    item = LoadModalitiesd("image", BRATS_MODALITIES)({"image": str(path), "modality": stated})
    there = [name == modality for name in BRATS_MODALITIES]
    assert item["present"].tolist() == there


@pytest.mark.parametrize("stated", ["PD", "seg", "dwi_b1000", "t1+t2", "-"])
def test_a_stated_modality_that_is_none_is_refused(write_volume, stated):
    for name in ("scan.nii.gz", "p01_t1.nii.gz"):
        item = {"image": str(write_volume(name, 3, AFFINE)), "modality": stated}
        with pytest.raises(
            CaseError, match=r"'.*' of .* is none\. Expected one of t1, t1ce, t2, flair, in any"
        ):
            LoadModalitiesd("image", BRATS_MODALITIES)(item)


def test_a_name_that_tells_another_modality_counts_and_is_said(write_volume, caplog):
    path = write_volume("p01_t1.nii.gz", 3, AFFINE)
    for stated in ("T1n", "t1", "", AS_NAMED, [AS_NAMED, *BRATS_MODALITIES], None):
        LoadModalitiesd("image", BRATS_MODALITIES)({"image": str(path), "modality": stated})
    assert "is taken for" not in caplog.text
    item = LoadModalitiesd("image", BRATS_MODALITIES)({"image": str(path), "modality": "FLAIR"})
    assert item["present"].tolist() == [True, False, False, False]
    assert "p01_t1.nii.gz is taken for t1, as its name ends, not for 'FLAIR'" in caplog.text


@pytest.mark.parametrize("stated", ["ADC_1", "adc1"])
def test_stated_modalities_that_differ_in_a_separator_alone_are_told_apart(write_volume, stated):
    path = write_volume("scan.nii.gz", 3, AFFINE)
    item = LoadModalitiesd("image", ("adc_1", "adc1"))({"image": str(path), "modality": stated})
    assert item["present"].tolist() == [stated == "ADC_1", stated == "adc1"]


def test_a_client_may_choose_what_the_config_offers_for_named_files():
    path = Path(bundle.ROOT) / "configs" / "inference.json"
    offered = ConfigParser(json.loads(path.read_text())).get_parsed_content("displayable_configs")
    assert offered["modality"] == [AS_NAMED, *BRATS_MODALITIES]


@pytest.mark.parametrize(
    "file", ["a" * 300 + "_t1.nii", "a\0_t1.nii", "\ud800_t1.nii", "a/" * 2500]
)
def test_a_path_that_no_file_can_have_names_the_case(file):
    for source in (file, {"t1": file}, [None, file]):
        with pytest.raises(CaseError, match="case p7: expected the path of a file, of at most"):
            load(source, "p7")


@pytest.mark.parametrize("source", [5, None, {"t1": 3}, [["a.nii"]]])
def test_what_is_no_path_is_said(source):
    with pytest.raises(CaseError, match=r"case \(no name\): expected a path, a list of paths, or"):
        load(source)
