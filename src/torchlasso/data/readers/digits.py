"""The 8x8 handwritten digits that come with scikit-learn, without a download."""

from __future__ import annotations

from torchlasso._core.extras import require
from torchlasso.data.arrays import array_part
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.registry import Portion, Reader, Source, register
from torchlasso.data.splits import split_test


@register
class Digits(Reader):
    """1,797 grey images of the digits 0 to 9."""

    form = "digits"
    rank = 0

    def accepts(self, spec: str) -> bool:
        return spec == self.form

    def open(self, spec: str, columns: ColumnSelection) -> Source:
        columns.refuse(spec)
        digits = require("sklearn.datasets", "sklearn", "the data set 'digits'").load_digits()
        train, test = split_test(array_part(digits.images / 16.0, digits.target, spec))
        return Source(spec, Portion(spec, lambda: train), Portion(spec, lambda: test))
