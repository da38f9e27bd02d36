"""The folder of a fine-tuned model that transformers reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torchlasso import storage
from torchlasso.compaction.config import UNTRUE, update_config_
from torchlasso.integrations.pretrained import PREFIX, PretrainedNetwork, save_network
from torchlasso.runs.finished import FinishedRun
from torchlasso.storage import checkpoint


def write_folder(run: FinishedRun, folder: Path, metadata: Mapping[str, str]) -> str:
    """Write the folder of a fine-tuned model, and return a sentence on how to read it.

    Raises:
        ValueError: the run did not start from a pretrained model, or there is a file in the place of the folder.
    """
    pretrained, model = run.experiment.options.pretrained, run.model
    if pretrained is None or not isinstance(model, PretrainedNetwork):
        raise ValueError(f"--format transformers is for the runs of --model {PREFIX}…; this one is of another model")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; transformers reads a folder")
    network = model.network
    is_described = update_config_(network, model.named(run.experiment.example)) != UNTRUE

    def write(file: Path) -> None:
        if is_described:
            checkpoint.write_tensors(file, network.state_dict(), metadata)
        else:
            storage.save(network, file, metadata=metadata)

    line = save_network(network, pretrained, folder, is_described=is_described, write=write)
    return f"Read it with: {line}"
