"""Where a saved model lies, whether its own folder is named, that of the run that wrote it, or a Hub repository."""

import os
from pathlib import Path
from typing import Any

from .plain_json import read_json, read_object

MODEL_NAME, CONFIG_NAME, PROCESSOR_NAME = "model", "config.json", "processor_config.json"
_TYPE, _CATALOG_INFO, _SEQUENCES_INFO = "mmm4rec", "catalog.json", "prepare.json"


def find_model(name: str | os.PathLike[str], revision: str | None = None) -> str:
    """
    A model's folder or Hub name.

    Args:
        name (`str` or `os.PathLike`):
            Such a name, or the `output_dir` of `finetune` or `pretrain`, whose model lies in `model/`.
        revision (`str`, *optional*): Of a Hub repository.

    Returns:
        `str`: What `from_pretrained` takes.

    Raises:
        FileNotFoundError: For the path of a folder that is not there.
        ValueError: For a folder that holds no model, or another one's, and for a name that the Hub has not either.
    """
    folder, name = Path(name), str(name)
    if folder.is_dir():
        return _in_folder(folder)
    # Imported here: the client of the Hub takes its time, and most models are in folders.
    from mmm4rec_hf.hub import check_hub_name

    check_hub_name(name)
    if folder.parent.is_dir() and "/" in name:
        raise FileNotFoundError(f"no such folder: {name}")
    _ask_the_hub(name, revision)
    return name


def model_type(config: Path) -> Any:
    """
    The type that a model's `config.json` tells.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return read_json(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{config} holds no JSON object ({error}); save or fetch the model again") from error


def _in_folder(folder: Path) -> str:
    for candidate in (folder, folder / MODEL_NAME):
        config = candidate / CONFIG_NAME
        if config.is_file():
            found = model_type(config)
            if found != _TYPE:
                raise ValueError(f"{candidate} holds a model of type {found!r}, not {_TYPE!r}")
            for file in (config, candidate / PROCESSOR_NAME):
                _check_classes(file)
            return str(candidate)
    if (folder / _CATALOG_INFO).is_file():
        raise ValueError(
            f"{folder} is a catalogue, not a model; name what finetune wrote (serve and evaluate take it as --catalog)"
        )
    if (folder / _SEQUENCES_INFO).is_file():
        raise ValueError(
            f"{folder} holds sequences, not a model; name what finetune wrote, and evaluate's sequences after it"
        )
    raise ValueError(f"{folder} holds no model: there is no {CONFIG_NAME}, nor {MODEL_NAME}/{CONFIG_NAME}")


def _ask_the_hub(name: str, revision: str | None) -> None:
    """Fetches the configuration, so that a mistyped folder is told as one and not by what failed to load."""
    from huggingface_hub import hf_hub_download

    from mmm4rec_hf.hub import fetching

    with fetching(name, "model"):
        config = Path(hf_hub_download(name, CONFIG_NAME, revision=revision))
    found = model_type(config)
    if found != _TYPE:
        raise ValueError(f"{name} holds a model of type {found!r}, not {_TYPE!r}")
    _check_classes(config)


def _check_classes(file: Path) -> None:
    """Refuses a file whose names of classes are of another kind, which transformers reads without looking."""
    if not file.is_file():
        return
    content = read_object(file)
    classes, processor = content.get("auto_map", {}), content.get("processor_class")
    is_map = isinstance(classes, dict) and all(isinstance(name, str) for name in classes.values())
    if not is_map or not isinstance(processor, str | None):
        key, value = ("processor_class", processor) if is_map else ("auto_map", classes)
        raise ValueError(f"{file} is damaged: {key} names no class, got {value!r}; save or fetch the model again")
