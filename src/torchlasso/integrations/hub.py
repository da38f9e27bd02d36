"""Sparse and compacted models on the Hugging Face Hub, with a model card."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from torchlasso._core.arguments import shown
from torchlasso._core.extras import require
from torchlasso._core.specs import unknown
from torchlasso.integrations.model_cards import TEMPLATE, card_fields, check_measured, take_picture
from torchlasso.storage import load, save

try:
    from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
except ModuleNotFoundError:
    require("huggingface_hub", "hub", "torchlasso.integrations.hub")
    raise

ModelT = TypeVar("ModelT", bound="SparseHubMixin")

WEIGHTS = "torchlasso.safetensors"
CARD = ("measured", "frontier")  # the keys of what a card has beside what is counted
LOADING = """The weights are data: no code of this repository runs. With the class `{name}`, which makes
the model of the full size,

```python
model = {name}.from_pretrained("FOLDER OR REPOSITORY")
```

or, for any model of the same layers, `torchlasso.load("{weights}", into=model)`."""


class SparseHubMixin(PyTorchModelHubMixin, library_name="torchlasso", tags=["sparse"], model_card_template=TEMPLATE):
    """A mixin for models: ``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` for sparse, compacted weights.

    Use it like ``huggingface_hub.PyTorchModelHubMixin``. It writes ``config.json`` with the arguments of the model, a
    model card, and the weights with :func:`torchlasso.save`, so that zeros take almost no space. ``from_pretrained``
    makes the model of the full size and loads the weights with :func:`torchlasso.load`, which makes it as small as the
    saved one, on the device ``map_location``; they always have to fit, as with ``strict=True``. It reads nothing but
    these two files, and unpickles nothing.

    The card has the share of zeros and the sizes, counted from the model, and what ``model_card_kwargs`` has:

    - ``measured``: name ↦ number or text, such as ``{"test error": "1.8 %"}``: your measurements;
    - ``frontier``: the file of a picture, a PNG, such as :func:`torchlasso.figures.save` writes of the frontier.

    Examples:
        >>> import tempfile, torch
        >>> class Net(torch.nn.Sequential, SparseHubMixin):
        ...     def __init__(self, width: int = 64):
        ...         super().__init__(torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))
        >>> net, folder = Net(width=32), Path(tempfile.mkdtemp())
        >>> _ = torch.nn.init.zeros_(net[0].weight[:30])
        >>> net.save_pretrained(folder, model_card_kwargs={"measured": {"test error": "1.8 %"}})
        >>> sorted(path.name for path in folder.iterdir())
        ['README.md', 'config.json', 'torchlasso.safetensors']
        >>> torch.equal(Net.from_pretrained(folder)[0].weight, net[0].weight)
        True
    """

    _left_out: tuple[str, ...] = ()  # the arguments that config.json has no place for

    def __new__(cls: type[ModelT], *args: Any, **kwargs: Any) -> ModelT:
        instance: ModelT = super().__new__(cls, *args, **kwargs)
        given = {**dict(zip(list(cls._hub_mixin_init_parameters)[1:], args, strict=False)), **kwargs}
        left_out = tuple(name for name, value in given.items() if not cls._is_jsonable(value))
        if left_out:
            instance._left_out = left_out
        return instance

    def save_pretrained(
        self, save_directory: str | Path, *, model_card_kwargs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> str | None:
        """Write a folder with the weights, the configuration and the card.

        Args:
            save_directory: is made if necessary.
            model_card_kwargs: ``measured`` and ``frontier``, see the class.
            kwargs: see ``huggingface_hub.PyTorchModelHubMixin.save_pretrained``.

        Returns:
            The address of the commit with ``push_to_hub=True``; None otherwise.

        Raises:
            TypeError: the measurements are not numbers or texts by name.
            ValueError: ``model_card_kwargs`` has other keys.
            FileNotFoundError: there is no such picture.

        Warns:
            UserWarning: an argument of the model is left out, since JSON cannot hold it.
        """
        given = dict(model_card_kwargs or {})
        for key in given:
            if key not in CARD:
                raise unknown("key of model_card_kwargs", str(key), CARD)
        check_measured(given.get("measured"), "save_pretrained")
        if self._left_out and kwargs.get("config") is None:
            again = ", ".join(f"{name}=..." for name in self._left_out)
            warnings.warn(
                f"save_pretrained: config.json leaves out {', '.join(self._left_out)}, which JSON cannot hold; load "
                f"it with {type(self).__name__}.from_pretrained(folder, {again})",
                stacklevel=2,
            )
        take_picture(given.get("frontier"), Path(save_directory))
        found: str | None = super().save_pretrained(save_directory, model_card_kwargs=given, **kwargs)
        return found

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the card of the model."""
        loading = LOADING.format(name=type(self).__name__, weights=WEIGHTS)
        fields = card_fields(_module(self), loading, kwargs.pop("measured", None), kwargs.pop("frontier", None))
        return super().generate_model_card(*args, **fields, **kwargs)

    def _save_pretrained(self, save_directory: Path) -> None:
        save(_module(self), save_directory / WEIGHTS)

    @classmethod
    def _from_pretrained(
        cls: type[ModelT],
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        **model_kwargs: Any,
    ) -> ModelT:
        file = Path(model_id, WEIGHTS)
        if not Path(model_id).is_dir():
            found = hf_hub_download(
                model_id,
                WEIGHTS,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
            file = Path(found)
        model = cls(**model_kwargs)
        load(file, into=_module(model))
        _module(model).to(map_location).eval()
        return model


def _module(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"SparseHubMixin is for classes of torch.nn.Module; got {shown(model)}")
    return model
