"""Our extension of MONAI Label's app: the next case is the one whose modalities contradict most."""

from __future__ import annotations

import pytest

from bundle.delivery.package import NAME

pytestmark = pytest.mark.slow


def test_it_can_all_that_the_stock_app_can_and_asks_for_the_most_uncertain_case(patchwork):
    info = patchwork.call("GET", "info/").json()
    assert set(info["strategies"]) == {"random", "first", "disagreement"}
    assert set(info["scoring"]) == {"disagreement"}
    assert NAME in info["models"]
    early = patchwork.call("POST", "activelearning/disagreement", json={})
    assert early.status_code == 409
    assert "no unlabelled case has a score yet" in early.json()["detail"]

    query, wanted = {"run_sync": "true"}, {"device": "cpu"}
    scored = patchwork.call("POST", "scoring/disagreement", params=query, json=wanted)
    assert scored.json() == {"total": 5, "skipped": 0, "executed": 5}
    again = patchwork.call("POST", "scoring/disagreement", params=query, json=wanted)
    assert again.json() == {"total": 5, "skipped": 5, "executed": 0}
    images = patchwork.call("GET", "datastore/", params={"output": "all"}).json()["objects"]
    scores = {name: entry["image"]["info"]["disagreement"] for name, entry in images.items()}
    by_case = {name.rsplit("_", 1)[0]: score for name, score in scores.items()}
    assert all(by_case[name.rsplit("_", 1)[0]] == score for name, score in scores.items())
    assert len(set(by_case.values())) == 5
    assert min(by_case.values()) > 0

    order = sorted(by_case, key=by_case.__getitem__, reverse=True)
    for case in order:
        asked = patchwork.call("POST", "activelearning/disagreement", json={}).json()
        assert asked["id"].rsplit("_", 1)[0] == case
        assert asked["weight"] == by_case[case]
        # One labelled file settles the case: its siblings are not asked for again.
        content = (patchwork.studies / f"{asked['id']}.nii.gz").read_bytes()
        query = {"image": asked["id"], "tag": "final"}
        files = {"label": ("label.nii.gz", content)}
        assert patchwork.call("PUT", "datastore/label", params=query, files=files).ok
    assert patchwork.call("POST", "activelearning/disagreement", json={}).json() == {}


def test_two_copies_in_one_server_are_refused_by_name(starting):
    clash = starting["clash"]
    assert clash.process.wait(240) != 0
    said, models = clash.log.read_text(), clash.root.parent
    assert f"a package called 'bundle' is already loaded from {models / 'first'}" in said
    assert f"wants the one in {models / 'second'}" in said
    assert "Run the two bundles in separate processes" in said
