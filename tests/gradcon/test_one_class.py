"""One class is normal: no image in two parts, no stranger that its own class's model has learned."""

import pytest
import torch

from tutorial_lib.data.embedded import digits
from tutorial_lib.gradcon import one_class_split


def test_splits_of_one_class():
    everything = digits()
    for normal in (0, 7):
        split = one_class_split("digits", normal)
        sources = [set(part.source.tolist()) for part in (split.train, split.validation, split.normal)]
        assert sum(map(len, sources)) == len(set.union(*sources)) == int((everything.labels == normal).sum())
        for part in (split.train, split.validation, split.normal):
            assert (part.labels == normal).all()
        assert not (split.strange.labels == normal).any()
        assert len(split.strange) == len(split.normal) == round(0.3 * int((everything.labels == normal).sum()))
        assert len(split.validation) == round(0.1 * (len(split.train) + len(split.validation)))
        # no stranger was ever a training image of another class's model
        other = one_class_split("digits", int(split.strange.labels[0]))
        assert split.strange.source[0] in other.normal.source
    again = one_class_split("digits", 7)
    assert torch.equal(again.strange.source, split.strange.source)
    with pytest.raises(ValueError, match="classes 0 to 9, got 10"):
        one_class_split("digits", 10)
    with pytest.raises(ValueError, match="digits, mnist, cifar10"):
        one_class_split("letters", 0)
