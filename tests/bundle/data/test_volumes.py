from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.volumes import (
    CaseError,
    Grid,
    check_grids,
    count_volumes,
    is_blank,
    read_case,
    read_grid,
    read_volume,
    read_volumes,
)

SHAPE = (10, 20, 30)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE).astype(np.float32)


def test_read_grid_takes_shape_and_affine_from_the_header(tmp_path):
    path = save(tmp_path / "a.nii.gz", noise()[..., None], np.diag([1, 2, 3, 1]))
    grid = read_grid(path, "A")
    assert grid.shape == SHAPE
    assert grid.spacing_mm == (1, 2, 3)


def test_a_missing_file_names_case_and_path(tmp_path):
    with pytest.raises(CaseError, match=r"case A: file .*a\.nii\.gz does not exist"):
        read_grid(tmp_path / "a.nii.gz", "A")


@pytest.mark.parametrize("content", [b"", b"no volume", b"\x1f\x8bno volume"])
def test_a_file_that_is_no_nifti_is_one_kind_of_error(tmp_path, content):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(CaseError, match=r"case A: .*a\.nii\.gz cannot be read as a NIfTI volume"):
        read_grid(path, "A")


def test_a_4d_file_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((4, 5, 6, 2), np.float32))
    with pytest.raises(CaseError, match=r"one 3D volume, got shape \(4, 5, 6, 2\)"):
        read_grid(path, "A")


def test_grids_of_other_shapes_name_both_files():
    grids = {
        Path("t1.nii"): Grid((4, 5, 6), np.eye(4)),
        Path("t2.nii"): Grid((4, 5, 7), np.eye(4)),
    }
    with pytest.raises(
        CaseError, match=r"Expected \(4, 5, 6\) as in t1\.nii, got \(4, 5, 7\) voxels in t2\.nii"
    ):
        check_grids(grids, "A")


def test_a_shift_counts_in_millimetres():
    def grids(shift_mm: float) -> dict[Path, Grid]:
        moved = np.eye(4)
        moved[0, 3] = shift_mm
        return {Path("a"): Grid(SHAPE, np.eye(4)), Path("b"): Grid(SHAPE, moved)}

    check_grids(grids(0.09), "A")
    with pytest.raises(CaseError, match=r"got 0\.2 mm apart in b"):
        check_grids(grids(0.2), "A")


def test_a_small_rotation_counts_by_what_it_does_to_the_far_corner():
    turned = np.eye(4)
    turned[0, 2] = 0.01  # 29 voxels away that is 0.29 mm
    grids = {Path("a"): Grid(SHAPE, np.eye(4)), Path("b"): Grid(SHAPE, turned)}
    with pytest.raises(CaseError, match=r"got 0\.29 mm apart"):
        check_grids(grids, "A")


def test_read_volume_gives_float32_with_the_scaling_applied(tmp_path):
    image = nib.Nifti1Image(noise(), np.eye(4))
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    voxels = read_volume(tmp_path / "a.nii.gz", "A").voxels
    assert voxels.dtype == np.float32
    assert voxels == pytest.approx(noise(), abs=1e-4)


def test_a_truncated_file_is_a_case_error(tmp_path):
    path = save(tmp_path / "a.nii.gz", noise())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CaseError, match=r"case A: .*a\.nii\.gz cannot be read"):
        read_volume(path, "A")


READERS = {"voxels": read_volume, "header": read_grid, "count": count_volumes}


def with_header(path: Path, **fields: object) -> Path:
    """Write a small volume whose header claims something else."""
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4))
    content = image.to_bytes()
    header = nib.Nifti1Header(content[:348])
    for name, value in fields.items():
        header[name] = value
    content = header.binaryblock + content[348:]
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", ["a.nii", "b.nii.gz"])
@pytest.mark.parametrize("offset", [np.inf, -np.inf, np.nan, 1e30, 3e9, -100])
def test_an_impossible_place_of_the_voxels_names_the_file(tmp_path, read, name, offset):
    path = with_header(tmp_path / name, vox_offset=offset)
    with pytest.raises(CaseError, match=rf"case A: .*{name} cannot be read as a NIfTI volume"):
        read(path, "A")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", ["a.nii", "b.nii.gz"])
def test_a_header_that_claims_too_many_voxels_is_refused_before_room_is_made(tmp_path, read, name):
    path = with_header(tmp_path / name, dim=[5, 900, 900, 900, 1, 4, 1, 1])
    with pytest.raises(
        CaseError, match=r"claims 900 x 900 x 900 x 1 x 4 voxels, expected at most 536870912"
    ):
        read(path, "A")


@pytest.mark.parametrize(("name", "held"), [("a.nii", 608), ("b.nii.gz", 608)])
@pytest.mark.parametrize("side", [5, 800])
def test_a_file_that_holds_less_than_its_header_claims_takes_no_memory(tmp_path, name, held, side):
    path = with_header(tmp_path / name, dim=[3, side, side, side, 1, 1, 1, 1])
    tracemalloc.start()
    claimed = 352 + 4 * side**3
    with pytest.raises(CaseError, match=f"holds {held} bytes, its header claims {claimed}"):
        read_volume(path, "A")
    assert tracemalloc.get_traced_memory()[1] < 6e6
    tracemalloc.stop()


def test_voxels_of_no_bytes_are_refused(tmp_path):
    path = with_header(tmp_path / "a.nii", datatype=1, bitpix=1, dim=[3, 800, 800, 800, 1, 1, 1, 1])
    with pytest.raises(CaseError, match=r"a\.nii cannot be read"):
        read_volume(path, "A")


@pytest.mark.parametrize("name", ["a.nii", "b.nii.gz"])
def test_a_little_padding_behind_the_voxels_passes_and_more_does_not(tmp_path, name):
    opened = gzip.open if name.endswith(".gz") else open
    for padding, fits in ((100, True), (2**16, True), (2**16 + 1, False), (2**25, False)):
        save(tmp_path / name, noise())
        with opened(tmp_path / name, "ab") as file:
            file.write(bytes(padding))
        if fits:
            assert np.array_equal(read_volume(tmp_path / name, "A").voxels, noise())
            continue
        tracemalloc.start()
        with pytest.raises(CaseError, match="more than 65536 bytes lie behind its voxels"):
            read_volume(tmp_path / name, "A")
        assert tracemalloc.get_traced_memory()[1] < 6e6
        tracemalloc.stop()


def test_nan_and_infinite_voxels_are_counted(tmp_path):
    voxels = noise()
    voxels[0, 0, :3] = np.nan, np.inf, np.nan
    path = save(tmp_path / "a.nii.gz", voxels)
    with pytest.raises(
        CaseError, match=r"a\.nii\.gz holds 3 voxels that are NaN or infinite of 6000"
    ):
        read_volume(path, "A")


@pytest.mark.parametrize(
    ("value", "changed", "blank"), [(0, 0, True), (7, 7, True), (0, 1, True), (7, 8, False)]
)
def test_a_volume_of_one_value_inside_the_brain_is_blank(value, changed, blank):
    voxels = np.full(SHAPE, value, np.float32)
    voxels[3, 4, 5] = changed
    assert is_blank(voxels) is blank


def test_a_flipped_byte_that_still_loads_is_found_by_the_checksum(tmp_path):
    path = save(tmp_path / "a.nii.gz", noise())
    assert read_volume(path, "A").voxels.shape == SHAPE
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum itself: every voxel loads as before
    path.write_bytes(content)
    assert np.array_equal(nib.load(path).get_fdata(dtype=np.float32), noise())
    with pytest.raises(CaseError, match=r"case A: .*a\.nii\.gz cannot be read .*CRC check failed"):
        read_volume(path, "A")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-20], "ended before the end-of-stream marker"),
        (lambda content: content[:-2], "ended before the end-of-stream marker"),
        (lambda content: content + b"garbage!", "Not a gzipped file"),
        (lambda content: content[:40] + b"\xff" * 40 + content[80:], "Error -3"),
    ],
    ids=["cut in the voxels", "cut in the checksum", "more than a file", "overwritten"],
)
def test_a_packed_file_is_read_to_its_end(tmp_path, damage, reason):
    path = save(tmp_path / "a.nii.gz", noise())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CaseError, match=rf"case A: .*a\.nii\.gz cannot be read .*{reason}"):
        read_volume(path, "A")


def test_an_unpacked_file_that_was_cut_says_how_much_is_there(tmp_path):
    path = save(tmp_path / "a.nii", noise())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(
        CaseError, match=r"a\.nii cannot .*it holds 5000 bytes, its header claims 24352"
    ):
        read_volume(path, "A")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_of_nifti_are_read_packed_or_not(tmp_path, kind, ending):
    image = kind(noise(), np.diag([1, 2, 3, 1]))
    image.to_filename(tmp_path / f"a{ending.lower()}")
    path = (tmp_path / f"a{ending.lower()}").rename(tmp_path / f"b{ending}")
    volume = read_volume(path, "A")
    assert np.array_equal(volume.voxels, noise())
    assert volume.grid.spacing_mm == (1, 2, 3)


def test_a_case_is_read_file_by_file_and_each_of_them_once(tmp_path, file_reads):
    files = {
        "t1": save(tmp_path / "t1.nii.gz", noise()),
        "t2": save(tmp_path / "t2.nii", np.zeros(SHAPE, np.float32)),
    }
    with file_reads() as reads:
        case = read_case(files, "A")
    assert np.array_equal(case.voxels["t1"], noise())
    assert list(case.voxels) == ["t1"]
    assert case.blank == ["t2"]
    assert case.grid.shape == SHAPE
    assert reads.opened == {"t1.nii.gz": 1, "t2.nii": 1}
    assert reads.unpacked == 1
    assert not read_case(files, "A", keep=False).voxels


def test_a_case_says_everything_that_is_wrong_with_it(tmp_path):
    files = {
        "t1": save(tmp_path / "t1.nii", noise()),
        "t1ce": tmp_path / "nowhere.nii",
        "t2": save(tmp_path / "t2.nii", np.full(SHAPE, np.nan, np.float32)),
        "flair": save(tmp_path / "flair.nii", noise()[:5]),
    }
    with pytest.raises(CaseError) as error:
        read_case(files, "A")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "nowhere.nii does not exist" in lines[0]
    assert "t2.nii holds 6000 voxels that are NaN" in lines[1]
    assert "got (5, 20, 30) voxels in flair.nii" in lines[2]


def test_a_4d_file_comes_volume_by_volume(tmp_path):
    voxels = np.stack([noise(0), noise(1)], -1)
    path = save(tmp_path / "a.nii.gz", voxels)
    assert count_volumes(path, "A") == 2
    read, grid = read_volumes(path, "A", ("t1", "t2"))
    np.testing.assert_array_equal(read, np.stack([noise(0), noise(1)]))
    assert grid.shape == SHAPE
    assert count_volumes(save(tmp_path / "b.nii.gz", noise()), "A") == 1


@pytest.mark.parametrize("shape", [(*SHAPE, 1, 3), (*SHAPE, 3, 1), (*SHAPE, 3)])
def test_volumes_may_lie_along_the_fifth_dimension_as_itk_writes_vectors(tmp_path, shape):
    voxels = np.stack([noise(0), noise(1), noise(2)], -1).reshape(shape)
    path = save(tmp_path / "a.nii", voxels)
    assert count_volumes(path, "A") == 3
    read, grid = read_volumes(path, "A", ("t1", None, "t2"))
    np.testing.assert_array_equal(read, [noise(0), noise(1), noise(2)])
    assert grid.shape == SHAPE
    with pytest.raises(CaseError, match=r"a\.nii holds 3 volumes, .* expected 2, one for each of"):
        read_volumes(path, "A", ("t1", "t2"))
