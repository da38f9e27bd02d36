"""Sparse training with the ``Trainer`` of transformers, and folders that its smaller models are read from."""

from torchlasso.integrations.transformers.callback import SparseTrainingCallback, sparsify
from torchlasso.integrations.transformers.saving import save_small

__all__ = ["SparseTrainingCallback", "save_small", "sparsify"]
