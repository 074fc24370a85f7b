"""Where a saved model lies, whether its own folder is named or that of the run that wrote it."""

import logging
from pathlib import Path

MODEL_NAME, CONFIG_NAME = "model", "config.json"


def saved_model(name: str) -> str:
    """
    A model's folder or Hub name.

    Args:
        name (`str`): Such a name, or the `output_dir` of `finetune`, whose model lies in `model/`.

    Raises:
        FileNotFoundError: For the path of a folder that is not there, which the Hub would be asked for otherwise.
        ValueError: For a folder that holds no model.
    """
    folder = Path(name)
    if folder.is_dir():
        for candidate in (folder, folder / MODEL_NAME):
            if (candidate / CONFIG_NAME).is_file():
                return str(candidate)
        raise ValueError(f"{name} holds no model: there is no {CONFIG_NAME}, nor {MODEL_NAME}/{CONFIG_NAME}")
    # A Hub name is `name` or `organization/name`.
    if folder.is_absolute() or name.startswith(".") or name.count("/") > 1 or folder.parent.is_dir() and "/" in name:
        raise FileNotFoundError(f"no such folder: {name}")
    # What is told in the end, in one line, is that the Hub cannot be reached: not each try before.
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    return name
