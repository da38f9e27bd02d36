"""Models in the formats of other runtimes: write them, compare them with the original, and read them to run them."""

from torchlasso.export.exported import Exported
from torchlasso.export.onnx_files import read_onnx, to_onnx
from torchlasso.export.pt2_files import read_pt2, to_pt2

__all__ = ["Exported", "read_onnx", "read_pt2", "to_onnx", "to_pt2"]
