"""Estimators in the manner of scikit-learn that read few features."""

from torchlasso.estimators.classifier import SparseClassifier, SparseClassifierCV
from torchlasso.estimators.cox import SparseCox, SparseCoxCV
from torchlasso.estimators.regressor import SparseRegressor, SparseRegressorCV
from torchlasso.estimators.selector import FeatureSelector
from torchlasso.estimators.stability import StabilitySelection

__all__ = [
    "FeatureSelector",
    "SparseClassifier",
    "SparseClassifierCV",
    "SparseCox",
    "SparseCoxCV",
    "SparseRegressor",
    "SparseRegressorCV",
    "StabilitySelection",
]
