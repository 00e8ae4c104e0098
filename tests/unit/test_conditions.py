"""The condition bank: one condition for each noise, the same for every model."""

import numpy as np
import pytest

from reprojax.errors import InputError
from reprojax.sampling.conditions import ConditionBank, class_conditions, image_conditions


def test_classes_take_turns_and_blocks_join_to_the_whole():
    bank = class_conditions(7, 3)
    assert bank.values.tolist() == [0, 1, 2, 0, 1, 2, 0] and bank.values.dtype == np.int32
    parts = [bank.block(start, start + 2) for start in range(0, 7, 2)]
    np.testing.assert_array_equal(np.concatenate(parts), bank.values)
    assert len(bank.first(4)) == 4 and len(bank.first(99)) == 7
    assert bank.groups().tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_the_fingerprint_is_of_structure_and_values():
    bank = class_conditions(6, 3)
    assert bank.fingerprint() == class_conditions(6, 3).fingerprint()
    others = [
        class_conditions(6, 2),
        class_conditions(5, 3),
        ConditionBank({"label": bank.values}, 3),
        ConditionBank(bank.values.astype(np.int64), 3),
    ]
    assert len({b.fingerprint() for b in (bank, *others)}) == 5
    assert bank.describe() == {
        "fingerprint": bank.fingerprint(),
        "n": 6,
        "kind": "labels",
        "num_classes": 3,
    }


def test_a_pytree_of_several_arrays_is_a_condition_too():
    values = {"label": np.array([0, 0, 1], np.int32), "mask": np.array([[1, 2], [1, 3], [1, 2]])}
    bank = ConditionBank(values)
    assert len(bank) == 3 and len(set(bank.groups().tolist())) == 3
    assert bank.block(1, 3)["mask"].tolist() == [[1, 3], [1, 2]]


def test_real_images_without_labels_are_refused():
    assert image_conditions(np.array([1, 0]), 2).values.tolist() == [1, 0]
    with pytest.raises(InputError, match="labels"):
        image_conditions(None, 2)
