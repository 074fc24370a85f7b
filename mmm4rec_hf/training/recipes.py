"""Recipes: a YAML file and `key=value` changes, checked against the dataclass that they fill."""

import dataclasses
import inspect
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mmm4rec_hf.plain_yaml import load_yaml, read_yaml
from mmm4rec_hf.suggestions import did_you_mean, nearest, remedy

Recipe = TypeVar("Recipe")


def load_recipe(kind: type[Recipe], path: str | os.PathLike[str] | None, changes: Sequence[str] = ()) -> Recipe:
    """
    Reads a recipe.

    Args:
        kind (`type`): The dataclass to fill; its fields may be dataclasses, and lists of them. Where it has a class
            variable `SECTIONS`, that names for sections without a dataclass the class whose options they hold.
        path (`str` or `os.PathLike`, *optional*): A YAML file; without it the changes are all there is.
        changes (`Sequence[str]`, *optional*):
            `key=value` each, the value in YAML; `model.hidden_size=64` reaches into a section, `domains.0.catalog=x`
            into a list.

    Returns:
        An instance of `kind`.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: For YAML that cannot be read, a key that is unknown, missing or of another type; naming the key.
    """
    where = "the command line" if path is None else os.fspath(path)
    values = {} if path is None else read_yaml(Path(path))
    for change in changes:
        _apply(values, change)
    return build(kind, values, where)


def build(kind: type[Recipe], values: Any, where: str) -> Recipe:
    """
    An instance of a dataclass from plain values, each checked against its field.

    Args:
        kind (`type`): A dataclass.
        values (`Mapping[str, Any]`): What YAML or JSON held.
        where (`str`): Where they come from, for the errors.

    Raises:
        ValueError: As [`load_recipe`].
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected `key: value` lines, got {values!r}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    _check_sections(values, list(fields), getattr(kind, "SECTIONS", {}), where)
    check_names(values, list(fields), where)
    missing = [name for name, field in fields.items() if name not in values and _is_required(field)]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} must be given")
    return kind(**{name: coerce(value, hints[name], f"{where}: {name}") for name, value in values.items()})


def check_names(names: Iterable[Any], known: Sequence[str], where: str, listed_in: str | None = None) -> None:
    """Refuses the first name that is not known, with those that may have been meant, or what lists them."""
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: no option is named {name!r}; {remedy(str(name), known, listed_in)}")


def _check_sections(names: Iterable[Any], known: Sequence[str], sections: Mapping[str, type], where: str) -> None:
    """Refuses a name at the top that belongs into a section: `learning_rate` of `training.learning_rate`."""
    for name in (str(each) for each in names if each not in known):
        options = {section: list(inspect.get_annotations(kind)) for section, kind in sections.items()}
        meant = [f"{section}.{name}" for section, there in options.items() if name in there]
        if not meant and not nearest(name, known):
            meant = [f"{section}.{near}" for section, there in options.items() for near in nearest(name, there)]
        if meant:
            raise ValueError(f"{where}: no option is named {name!r}; {did_you_mean(meant)}")


def check_options(options: Mapping[str, Any], kind: type, where: str) -> dict[str, Any]:
    """
    A section of options for a class of transformers, each of the type that the class declares for it.

    Args:
        options (`Mapping[str, Any]`): The section.
        kind (`type`): A class with annotated fields, [`~transformers.TrainingArguments`] or [`MMM4RecConfig`].
        where (`str`): The section's name, for the errors.

    Returns:
        `dict[str, Any]`: The same options; `1e-4`, which YAML reads as a string, is a number where one is declared.
    """
    # The class's own fields alone: those of a base class need not be importable.
    hints = inspect.get_annotations(kind, eval_str=True)
    library = "transformers' " if kind.__module__.startswith("transformers.") else ""
    check_names(options, list(hints), where, f"the documentation of {library}{kind.__name__}")
    return {name: coerce(value, hints[name], f"{where}: {name}") for name, value in options.items()}


def coerce(value: Any, hint: Any, where: str) -> Any:
    """A plain value as a type hint declares it; what is of a type that YAML does not have is left as it is."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(value, arguments, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"{where} must be one of {', '.join(map(repr, arguments))}, got {value!r}")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {value!r}")
        return origin(coerce(entry, arguments[0], f"{where}.{place}") for place, entry in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a section of `key: value` lines, got {value!r}")
        return dict(value)
    return _coerce_scalar(value, hint, where)


def _coerce_union(value: Any, members: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in members:
        return None
    errors = []
    for member in members:
        if member is not type(None):
            try:
                return coerce(value, member, where)
            except ValueError as error:
                errors.append(error)
    raise errors[0]


def _coerce_scalar(value: Any, hint: Any, where: str) -> Any:
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}.get(hint)
    if expected is None or type(value) is hint:
        return value
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    raise ValueError(f"{where} must be {expected}, got {value!r}")


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _apply(values: dict[str, Any], change: str) -> None:
    """Sets one value from `key=value`; sections on the way are made where they are missing."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise ValueError(f"{change!r} is no change of a recipe; write key=value, such as output_dir=out")
    *sections, name = key.split(".")
    place: Any = values
    for section in sections:
        if isinstance(place, list):
            place = place[_list_index(place, section, change)]
        else:
            if place.get(section) is None:
                place[section] = {}
            place = place[section]
        if not isinstance(place, dict | list):
            raise ValueError(f"{change!r}: {section!r} holds {place!r}, which has no parts")
    if isinstance(place, list):
        place[_list_index(place, name, change)] = load_yaml(text, change)
    else:
        place[name] = load_yaml(text, change)


def _list_index(entries: list[Any], text: str, change: str) -> int:
    if not text.isdecimal() or int(text) >= len(entries):
        raise ValueError(f"{change!r}: {text!r} must be a place in a list of {len(entries)}, from 0 on")
    return int(text)
