"""A model of scikit-learn that kills the process that fits it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from sklearn.linear_model import Lasso


class KilledOnce(Lasso):
    """A lasso whose first fit in another process than the one that made the file ``mark`` kills its process."""

    def __init__(self, alpha: float = 0.1, mark: str = "") -> None:
        super().__init__(alpha)
        self.mark = mark

    def fit(self, X: Any, y: Any) -> KilledOnce:
        mark = Path(self.mark)
        if mark.exists() and mark.read_text() != str(os.getpid()):
            mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y)
