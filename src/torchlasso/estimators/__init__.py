"""Estimators in the manner of scikit-learn that read few features."""

from torchlasso.estimators.classifier import SparseClassifier
from torchlasso.estimators.regressor import SparseRegressor

__all__ = ["SparseClassifier", "SparseRegressor"]
