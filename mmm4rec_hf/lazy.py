"""Names of a package that load the file which holds them on first use."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def load_on_use(package: str, files: Mapping[str, str]) -> Callable[[str], Any]:
    """
    What a package's `__getattr__` is.

    Args:
        package (`str`): Its name.
        files (`Mapping[str, str]`): For each public name the module that holds it, such as `".metrics"`.

    Returns:
        `Callable[[str], Any]`: From a name to what it means; an `AttributeError` for any other name.
    """

    def find(name: str) -> Any:
        if name in files:
            return getattr(importlib.import_module(files[name], package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
