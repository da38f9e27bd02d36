"""Data for training and prediction: files, folders, named data sets and functions.

>>> from torchlasso.data import load
>>> load("digits").classes
('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
"""

from torchlasso.data.image_decoding import ImageOptions
from torchlasso.data.labels import class_indices
from torchlasso.data.loading import load, load_part, load_rows
from torchlasso.data.records import Dataset, Part
from torchlasso.data.splits import holdout
from torchlasso.data.standardizer import Standardizer

__all__ = [
    "Dataset",
    "ImageOptions",
    "Part",
    "Standardizer",
    "class_indices",
    "holdout",
    "load",
    "load_part",
    "load_rows",
]
