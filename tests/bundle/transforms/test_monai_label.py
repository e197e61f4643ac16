from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from bundle.data.volumes import CaseError
from bundle.modalities import BRATS_MODALITIES
from bundle.transforms.load import LoadModalitiesd
from bundle.transforms.monai_label import SERVER, answer, settle_format


class HTTPException(Exception):
    def __init__(self, status_code: int, detail: str) -> None:
        super().__init__(detail)
        self.status_code = status_code


@pytest.fixture
def server(monkeypatch):
    fastapi = ModuleType("fastapi")
    fastapi.HTTPException = HTTPException
    monkeypatch.setitem(sys.modules, "fastapi", fastapi)
    monkeypatch.setitem(sys.modules, SERVER, ModuleType(SERVER))


def test_in_the_server_an_error_becomes_what_the_client_reads(server, tmp_path):
    with pytest.raises(HTTPException, match=r"case a: file .*a_t1.nii.gz does not exist") as caught:
        LoadModalitiesd("image", BRATS_MODALITIES)({"image": tmp_path / "a_t1.nii.gz"})
    assert caught.value.status_code == 422
    assert isinstance(caught.value.__cause__, CaseError)


def test_elsewhere_an_error_stays_what_it_is(monkeypatch):
    monkeypatch.delitem(sys.modules, SERVER, raising=False)
    error = CaseError("wrong")
    assert answer(error) is error


def test_the_server_writes_a_nifti_file_where_no_ending_tells_otherwise(server, tmp_path):
    def settled(source, **item):
        settle_format(item, source)
        return item

    single = tmp_path / "a.nrrd"
    assert settled(str(single)) == {}
    assert settled(tmp_path) == settled([str(single), None]) == {"result_extension": ".nii.gz"}
    assert settled(tmp_path, result_extension=".nrrd") == {"result_extension": ".nrrd"}


def test_elsewhere_no_item_is_changed(monkeypatch):
    monkeypatch.delitem(sys.modules, SERVER, raising=False)
    item = {}
    settle_format(item, Path("."))
    assert item == {}
