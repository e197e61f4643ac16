from __future__ import annotations

import pytest
import torch
from federation.protocol.exchange import Kind, Part
from federation.server.agreement import Agreement
from federation.server.averaging import CLIPPED, NONE, TRIMMED, Voice, combine, trimmed_mean
from federation.server.counts import Counts
from federation.server.kept import PIECE, Folder, Held

MODALITIES = ("t1", "t2")
SHARED = Part(Kind.PARAMETER)


def voices(*values, cases=None, scale=1.0):
    counts = cases or [Counts(1, {"t1": 1, "t2": 1})] * len(values)
    return [
        Voice(f"site-{i}", Held({"w": torch.as_tensor(value)}), counts[i], scale)
        for i, value in enumerate(values)
    ]


def test_a_trimmed_mean_leaves_out_a_fifth_at_each_end_and_at_least_one():
    column = torch.tensor([[-1e9], [1.0], [2.0], [6.0], [1e9]], dtype=torch.float64)
    assert trimmed_mean(column, [10**9, 1, 1, 1, 1]).tolist() == [3.0]
    assert trimmed_mean(column[:3], [1, 1, 1]).tolist() == [1.0]
    ten = torch.arange(10.0, dtype=torch.float64)[:, None] ** 2
    assert trimmed_mean(ten, [1] * 10).tolist() == [(4 + 9 + 16 + 25 + 36 + 49) / 6]


def test_one_or_two_have_no_ends():
    two = torch.tensor([[1.0], [5.0]], dtype=torch.float64)
    assert trimmed_mean(two, [3, 1]).tolist() == [2.0]
    assert trimmed_mean(two[:1], [7]).tolist() == [1.0]


def test_each_number_is_trimmed_by_itself():
    own = torch.zeros(2)
    given = voices([0.0, 9.0], [1.0, -9.0], [50.0, 2.0])
    assert combine("w", SHARED, own, given, MODALITIES, TRIMMED).tolist() == [1.0, 2.0]


def test_blocks_are_trimmed_over_their_own_holders():
    part, own = Part(Kind.PARAMETER, axis=0), torch.zeros(2)
    cases = [Counts(2, {"t1": 2}), Counts(2, {"t1": 2}), Counts(4, {"t1": 4, "t2": 1})]
    given = voices([1.0, 0.0], [2.0, 0.0], [100.0, 7.0], cases=cases)
    assert combine("w", part, own, given, MODALITIES, TRIMMED).tolist() == [2.0, 7.0]
    assert combine("w", part, own, given, MODALITIES, NONE).tolist() == [50.75 + 0.0, 7.0]


def test_statistics_and_counters_are_never_trimmed():
    own = torch.zeros(1, dtype=torch.float64)
    given = voices([1.0], [2.0], [90.0])
    assert combine("w", Part(Kind.ADDITIVE), own, given, MODALITIES, TRIMMED).tolist() == [93.0]
    assert combine("w", Part(Kind.RECOUNTED), own, given, MODALITIES, TRIMMED).tolist() == [31.0]
    own = torch.zeros(1, dtype=torch.int64)
    given = voices([1], [2], [90])
    assert combine("w", Part(Kind.COUNTER), own, given, MODALITIES, TRIMMED).tolist() == [31]


def test_a_scale_is_that_of_one_sites_numbers():
    given = voices([4.0])[0]._replace(scale=0.25), *voices([2.0])
    assert combine("w", SHARED, torch.zeros(1), given, MODALITIES, CLIPPED).tolist() == [1.5]


def test_pieces_of_the_disk_give_the_same_bits_as_the_whole_in_memory(tmp_path):
    generator = torch.Generator().manual_seed(0)
    folder, own = Folder(tmp_path / "kept"), torch.zeros(2, 2, PIECE // 2 + 7)
    for part in (SHARED, Part(Kind.PARAMETER, axis=0), Part(Kind.PARAMETER, axis=1)):
        held, kept, total, weights = [], [], torch.zeros(own.shape, dtype=torch.float64), 0.0
        for number in range(4):
            value = torch.randn(own.shape, generator=generator)
            counts = Counts(number + 3, {"t1": number + 1, "t2": number + 2})
            held.append(Voice(f"{number}", Held({"w": value}), counts))
            kept.append(held[-1]._replace(update=folder.keep(f"{number}", {"w": value})))
            weight = torch.tensor(counts.all_cases, dtype=torch.float64)
            if part.axis is not None:
                form = [2 if axis == part.axis else 1 for axis in range(3)]
                weight = torch.tensor([number + 1.0, number + 2.0], dtype=torch.float64)
                weight = weight.reshape(form)
            total, weights = total + weight * value.double(), weights + weight
        expected = (total / weights).float()
        agreements = Agreement(), Agreement()
        for given, agreement in zip((held, kept), agreements, strict=True):
            found = combine("w", part, own, given, MODALITIES, NONE, agreement)
            assert found.numpy().tobytes() == expected.numpy().tobytes()
        assert agreements[0].cosines() == agreements[1].cosines()
        assert agreements[0].cosines().keys() == {"0", "1", "2", "3"}


@pytest.mark.parametrize("robust", [NONE, TRIMMED])
def test_a_block_without_holders_stays_to_the_bit(robust):
    given = voices([1.0, 5.0], cases=[Counts(2, {"t1": 2})])
    found = combine("w", Part(Kind.PARAMETER, axis=0), torch.zeros(2), given, MODALITIES, robust)
    assert found.numpy().tobytes() == torch.tensor([1.0, -0.0]).numpy().tobytes()


def test_of_sums_counted_afresh_the_sums_are_scaled_and_not_their_differences():
    own = torch.tensor([4.0, 2.0], dtype=torch.float64)
    # They have counted 10 and 5, which counts a tenth.
    given = voices([6.0, 3.0], scale=0.1)
    assert combine("w", Part(Kind.RECOUNTED), own, given, MODALITIES).tolist() == [-3.0, -1.5]
    assert combine("w", Part(Kind.ADDITIVE), own, given, MODALITIES).tolist() == pytest.approx(
        [0.6, 0.3]
    )
