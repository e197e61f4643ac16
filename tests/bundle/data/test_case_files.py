from __future__ import annotations

import numpy as np
import pytest

from bundle.data.case_files import find_files, spell_out
from bundle.data.volumes import CaseError
from bundle.modalities import BRATS_MODALITIES


@pytest.fixture
def gap_case(write_volume):
    """T1 and FLAIR of case A."""
    return {m: write_volume(f"A/A_{m}.nii.gz", i) for i, m in enumerate(("t1", "flair"))}


def test_every_form_names_the_same_files_and_spells_out_the_same_item(gap_case):
    files = {name: str(path) for name, path in gap_case.items()}
    forms = [gap_case["t1"], gap_case["t1"].parent, list(gap_case.values()), gap_case]
    for source in forms:
        assert find_files(source, BRATS_MODALITIES, "A") == gap_case
        assert spell_out({"image": source, "label": "x"}, BRATS_MODALITIES) == {
            "image": files,
            "label": "x",
            "case": "A",
        }


def test_a_4d_file_has_nothing_to_spell_out(write_volume):
    path = write_volume("B.nii.gz", np.ones((2, 3, 4, 4), np.float32))
    assert spell_out({"image": path}, BRATS_MODALITIES) == {"image": path, "case": "B"}


def test_files_of_which_none_is_a_modality_name_the_endings(write_volume):
    folder = write_volume("A/A_map.nii.gz").parent
    with pytest.raises(CaseError, match=r"no modality is recognisable in .*_flair \(flair\)"):
        find_files(folder, BRATS_MODALITIES, "A")
