from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bundle.data.volumes import CaseError
from bundle.modalities import BRATS_MODALITIES
from bundle.transforms.load import LoadModalitiesd
from bundle.transforms.monai_label import SERVER, answer, settle_format, tell


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


def test_the_answer_gets_the_warnings_beside_what_is_in_it(server):
    item = {"result": {"score": 1}, "image": "a"}
    tell(item, ["case a: odd", "case a: odd, too"])
    assert item["result"] == {"score": 1, "warnings": ["case a: odd", "case a: odd, too"]}
    untouched = {"image": "a"}
    tell(untouched, [])
    assert untouched == {"image": "a"}


def test_elsewhere_no_answer_is_told(monkeypatch):
    monkeypatch.delitem(sys.modules, SERVER, raising=False)
    item = {}
    tell(item, ["odd"])
    assert item == {}


@pytest.fixture
def odd_case(write_volume):
    """A folder with a FLAIR whose background is 0.5."""
    ball = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0) < 16
    voxels = np.where(ball, np.random.default_rng(0).uniform(1, 2, ball.shape), 0.5)
    return write_volume("H/H_flair.nii", voxels.astype(np.float32), np.diag([3, 3, 3, 1])).parent


def test_the_writer_of_monai_label_answers_with_the_warnings(server, odd_case):
    """The server sends what its writer returns as JSON, the answer's `params`."""
    item = LoadModalitiesd("image", BRATS_MODALITIES, odd="warn")({"image": str(odd_case)})
    (line,) = item["result"]["warnings"]
    assert line.startswith("case H: flair: hardly any voxel is 0 (background: ")
    pytest.importorskip("monailabel")
    from monailabel.transform.writer import Writer

    data = {**item, "pred": item["image"][0], "result_write_to_file": False}
    _, answered = Writer(label="pred", json="result")(data)
    assert json.loads(json.dumps(answered))["warnings"] == [line]


def test_a_strict_server_answers_422_with_what_is_wrong(server, odd_case):
    with pytest.raises(HTTPException, match="case H: flair: hardly any voxel is 0") as caught:
        LoadModalitiesd("image", BRATS_MODALITIES, odd="refuse")({"image": str(odd_case)})
    assert caught.value.status_code == 422


def test_a_client_may_say_the_order_of_a_4d_file_and_gets_422_if_it_is_wrong(server, write_volume):
    path = write_volume("tmp4d.nii", np.random.rand(4, 5, 6, 2).astype(np.float32))
    loader = LoadModalitiesd("image", BRATS_MODALITIES)
    item = loader({"image": str(path), "channel_order": ["flair", "t2"]})
    assert item["present"].tolist() == [False, False, True, True]
    wrong = {None: "nothing says which modality", ("x", "t1"): "unknown modality 'x'"}
    for said, text in wrong.items():
        with pytest.raises(HTTPException, match=text) as caught:
            loader({"image": str(path), "channel_order": said})
        assert caught.value.status_code == 422
