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
from torchlasso._core.text import first_line
from torchlasso.integrations.hub_config import CONFIG, check_config
from torchlasso.integrations.model_cards import TEMPLATE, card_fields, check_measured, take_picture
from torchlasso.storage import load, save
from torchlasso.storage.container import Stored

try:
    from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
except ModuleNotFoundError:
    require("huggingface_hub", "hub", "torchlasso.integrations.hub")
    raise

ModelT = TypeVar("ModelT", bound="SparseHubMixin")

DOWNLOADING = ("revision", "token", "cache_dir", "force_download", "local_files_only")
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
    these two files, and unpickles nothing. An argument in ``config.json`` has to be of the type that the class says,
    and one that the class does not take is ignored with a warning.

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
    def from_pretrained(cls: type[ModelT], pretrained_model_name_or_path: str | Path, **kwargs: Any) -> ModelT:
        """Return the model of a folder or a repository.

        Args:
            pretrained_model_name_or_path: the folder, or the name of the repository.
            kwargs: arguments of the model, which count instead of those in ``config.json``; and ``revision``,
                ``token``, ``cache_dir``, ``force_download``, ``local_files_only``, ``map_location`` and ``strict``, see
                ``huggingface_hub.PyTorchModelHubMixin.from_pretrained``.

        Raises:
            FileNotFoundError: there is no such folder, or no file of weights in it.
            ValueError: the configuration or the weights are damaged, or do not fit the class.

        Warns:
            UserWarning: ``config.json`` has an argument that the class does not take.
        """
        name = str(pretrained_model_name_or_path)
        if name and Path(name).is_dir():
            file = Path(name, CONFIG) if Path(name, CONFIG).exists() else None
        else:
            file = _downloaded(name, CONFIG, {key: kwargs[key] for key in DOWNLOADING if key in kwargs})
        parameters = dict(list(cls._hub_mixin_init_parameters.items())[1:])  # without self
        check_config(cls, parameters, file, kwargs, cls._hub_mixin_jsonable_custom_types)
        model: ModelT = super().from_pretrained(name, **kwargs)
        return model

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
        if not file.is_file():
            others = ", ".join(sorted(each.name for each in file.parent.glob("*.safetensors")))
            raise FileNotFoundError(
                f"there is no {file}, the weights that save_pretrained of SparseHubMixin writes"
                + (f"; there is {others}, which torchlasso.load may read into a model" if others else "")
            )
        try:
            model = cls(**model_kwargs)
        except Exception as error:  # of any kind: the constructor is the user's
            given = ", ".join(f"{key}={shown(value)}" for key, value in model_kwargs.items())
            raise ValueError(
                f"{cls.__name__}({given}) cannot be made, with the arguments of {CONFIG} and of the call: "
                f"{first_line(error)}"
            ) from error
        _cast_as_stored(_module(model), file)
        load(file, into=_module(model))
        _module(model).to(map_location).eval()
        return model


def _downloaded(name: str, file: str, options: Mapping[str, Any]) -> Path | None:
    """Return a file of a repository; None if it cannot be had, which is said for the weights."""
    try:
        return Path(hf_hub_download(name, file, **options))
    except HfHubHTTPError:
        return None
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"there is no folder {name!r}, nor a repository of this name: {first_line(error)}"
        ) from error


def _cast_as_stored(module: nn.Module, file: Path) -> None:
    """Give a model that its class makes in one precision the one in which it was saved, such as bfloat16."""
    stored = {outline.dtype for outline in Stored.open(file).outlines.values() if outline.dtype.is_floating_point}
    own = {w.dtype for w in module.state_dict().values() if w.dtype.is_floating_point}
    if len(stored) == len(own) == 1:
        module.to(stored.pop())


def _module(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"SparseHubMixin is for classes of torch.nn.Module; got {shown(model)}")
    return model
