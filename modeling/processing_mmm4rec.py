"""Processor of MMM4Rec: item texts and pictures for the item encoder, histories of external ids for the model."""

import json
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoImageProcessor
from transformers.dynamic_module_utils import custom_object_save
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.utils import PROCESSOR_NAME, logging

from .fetching_mmm4rec import optional_file
from .hub_mmm4rec import UPLOAD_OPTIONS, push_folder
from .ids_mmm4rec import canonical_id
from .timestamps_mmm4rec import to_unix_time

logger = logging.get_logger(__name__)

ITEMS_NAME = "items.jsonl"
_HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class MMM4RecProcessorKwargs(ProcessingKwargs, total=False):
    _defaults = {"text_kwargs": {"padding": True, "truncation": True}}  # type: ignore[misc]


class MMM4RecProcessor(ProcessorMixin):
    r"""
    Texts and pictures go to the tokenizer and the image processor of the item encoder; histories become what
    [`MMM4RecForSequentialRecommendation`] reads.

    Args:
        image_processor (`BaseImageProcessor`, *optional*): Image processor of the item encoder.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Tokenizer of the item encoder.
        max_sequence_length (`int`, *optional*, defaults to 20): Events of a history that are kept, the last ones.
        history_padding_side (`"right"` or `"left"`, *optional*, defaults to `"right"`):
            Side on which histories are padded.
    """

    valid_processor_kwargs = MMM4RecProcessorKwargs

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        max_sequence_length: int = 20,
        history_padding_side: str = "right",
    ):
        if history_padding_side not in ("left", "right"):
            raise ValueError(f"history_padding_side must be 'left' or 'right', got {history_padding_side!r}")
        length: Any = max_sequence_length  # as a file may hold it; True is an integer of Python's
        if not isinstance(length, Integral) or isinstance(length, bool):
            raise TypeError(f"max_sequence_length must be an integer, got {max_sequence_length!r}")
        if max_sequence_length < 1:
            raise ValueError(f"max_sequence_length must be at least 1, got {max_sequence_length}")
        self.chat_template = None
        # A shop without pictures, or features that were made elsewhere: either may be absent, which the mixin refuses.
        for name, part in (("image_processor", image_processor), ("tokenizer", tokenizer)):
            if part is not None:
                self.check_argument_for_proper_class(name, part)
            setattr(self, name, part)
        self.max_sequence_length = int(max_sequence_length)
        self.history_padding_side = history_padding_side
        self._item_ids: list[str] = []
        self._titles: list[str | None] = []
        self._rows: dict[str, int] = {}

    @property
    def item_ids(self) -> list[str]:
        """`list[str]`: External ids of the model's rows 1..num_items."""
        return self._item_ids

    def title(self, row: int) -> str | None:
        """Title of the item in a row of the model, `None` where the catalogue names none."""
        return self._titles[row - 1]

    def set_items(self, catalog: Any) -> None:
        """
        Sets the items that histories may hold, in the order of the model's rows.

        Args:
            catalog (`ItemCatalog` or any object with `item_ids` and `titles`):
                External ids and a title, or `None`, for each.
        """
        self._set_items(catalog.item_ids, catalog.titles)

    def _set_items(self, item_ids: Iterable[Any], titles: Iterable[str | None]) -> None:
        ids = [canonical_id(item_id) for item_id in item_ids]
        rows = {item_id: row for row, item_id in enumerate(ids, start=1)}
        if len(rows) != len(ids):
            twice = next(item_id for row, item_id in enumerate(ids, start=1) if rows[item_id] != row)
            raise ValueError(f"item id {twice!r} stands more than once; each item needs an id of its own")
        self._item_ids, self._titles, self._rows = ids, list(titles), rows

    def rows(self, items: Iterable[Any], unknown_items: str = "skip") -> tuple[list[int], list[int]]:
        """
        Rows of external ids.

        Args:
            items (`Iterable` of `str` or `int`): External ids.
            unknown_items (`"skip"` or `"error"`, *optional*, defaults to `"skip"`):
                What to do with an id that the catalogue does not hold; what is skipped is warned of once.

        Returns:
            `tuple[list[int], list[int]]`: The rows, and the positions in `items` at which they stand.
        """
        if unknown_items not in ("skip", "error"):
            raise ValueError(f"unknown_items must be 'skip' or 'error', got {unknown_items!r}")
        if not self._rows:
            raise ValueError(
                "this processor knows no items; call set_items(catalog) or load one that was saved with items"
            )
        if isinstance(items, str):
            raise TypeError(f"items must be a list of ids, got {items!r}; a single one goes into a list")
        rows, positions = [], []
        for position, item in enumerate(items):
            row = self._rows.get(canonical_id(item))
            if row is not None:
                rows.append(row)
                positions.append(position)
            elif unknown_items == "error":
                raise ValueError(
                    f"item {item!r} is not in the catalogue of {len(self._item_ids)} items; add it with "
                    "catalog.add_items, or pass unknown_items='skip'"
                )
            else:
                # Without the id: a text of its own would be another warning for every item.
                logger.warning_once(
                    "items that the catalogue does not hold are skipped; unknown_items='error' names one"
                )
        return rows, positions

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        histories: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
        **kwargs: Unpack[MMM4RecProcessorKwargs],
    ) -> BatchFeature:
        r"""
        Args:
            images (a picture or a list of them, *optional*): Pictures of items.
            text (`str` or `list[str]`, *optional*): Texts of items.
            histories (`list[dict]`, *optional*):
                Each with `"items"` (external ids) and `"timestamps"` (what [`to_unix_time`] reads; left out for a
                model without time); `"user_id"`, if there is one, stands in errors. Events are put in time order,
                those of one time stay in the order given.
            kwargs:
                For histories: `return_tensors`, `time_unit` (`"s"`, `"ms"`, `"us"`, `"ns"`; told by magnitude by
                default), `unknown_items` (see [`~MMM4RecProcessor.rows`]), `empty_histories` (`"error"`, or
                `"default"`: such a user gets the ranking of someone without events) and `padding` (`True`: to the
                longest of the batch; `"max_length"`). For texts and pictures: what their tokenizer and image processor
                take.

        Returns:
            [`BatchFeature`]: The encoder's inputs; or `input_ids`, `attention_mask` and `timestamps`, each `(b, s)`
            with s at most `max_sequence_length`.
        """
        if histories is None:
            if images is not None and self.image_processor is None:
                raise ValueError("images were given, but this processor has no image_processor")
            if text is not None and self.tokenizer is None:
                raise ValueError("text was given, but this processor has no tokenizer")
            return super().__call__(images=images, text=text, **kwargs)
        if images is not None or text is not None:
            raise ValueError("give either histories or texts and pictures of items, not both in one call")
        return_tensors: Any = kwargs.pop("return_tensors", None)
        inputs, _ = self.read_histories(histories, **kwargs)
        return BatchFeature(inputs, tensor_type=return_tensors)

    def read_histories(
        self,
        histories: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        time_unit: str | None = None,
        unknown_items: str = "skip",
        empty_histories: str = "error",
        padding: bool | str = True,
    ) -> tuple[dict[str, np.ndarray], list[list[int]]]:
        """
        What the processor makes of histories, and all that they hold.

        Args:
            histories (`list[dict]`): As for a call of the processor.
            time_unit, unknown_items, empty_histories, padding: As there.

        Returns:
            `tuple`: The arrays of `input_ids`, `attention_mask` and `timestamps`, each `(b, s)`; and the rows of each
            whole history, in the order given, which may be longer than what the model reads.
        """
        if empty_histories not in ("error", "default"):
            raise ValueError(f"empty_histories must be 'error' or 'default', got {empty_histories!r}")
        if isinstance(histories, str) or not isinstance(histories, Iterable):
            raise TypeError(f"histories must be a list of dictionaries, got {histories!r}")
        histories = [histories] if isinstance(histories, Mapping) else list(histories)
        if not histories:
            raise ValueError("histories is empty; give at least one")
        times = self._times(histories, time_unit)
        sequences, held = [], []
        for number, history in enumerate(histories):
            rows, positions = self.rows(history["items"], unknown_items)
            held.append(rows)
            if not rows and empty_histories == "error":
                ids = list(history["items"])
                reason = (
                    f"none of its {len(ids)} ids is in the catalogue, the first is {ids[0]!r}" if ids else "no events"
                )
                raise ValueError(
                    f"{_name(number, history)} holds no known item ({reason}); leave the user out, or pass "
                    "empty_histories='default', which gives the ranking of someone without events, one for all of them"
                )
            kept = np.array(rows, dtype=np.int64)
            kept_times = None
            if times is not None:
                seconds, nanoseconds = (part[positions] for part in times[number])
                order = np.lexsort((nanoseconds, seconds))
                kept, kept_times = kept[order], seconds[order]
            last = slice(-self.max_sequence_length, None)
            sequences.append((kept[last], None if kept_times is None else kept_times[last]))
        return self._pad(sequences, padding), held

    @staticmethod
    def _times(
        histories: Sequence[Mapping[str, Any]], time_unit: str | None
    ) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """Unix seconds of each history, and nanoseconds after them; one unit is told for all histories together."""
        for number, history in enumerate(histories):
            if not isinstance(history, Mapping):
                raise TypeError(
                    f'history {number} is {history!r}; expected a dictionary with "items" and "timestamps"'
                )
            name = _name(number, history)
            if "items" not in history:
                raise ValueError(f'{name} has no "items", only {list(history)}')
            stamps = history.get("timestamps")
            for field, values in (("items", history["items"]), ("timestamps", stamps)):
                if not _is_list(values) and not (values is None and field == "timestamps"):
                    raise TypeError(f"{field} of {name} must be a list, got {values!r}")
            if (stamps is None) != (histories[0].get("timestamps") is None):
                raise ValueError(f"{name} and history 0 differ in having timestamps; give them for all or none")
            if stamps is not None and len(stamps) != len(history["items"]):
                raise ValueError(
                    f"{name} has {len(history['items'])} items and {len(stamps)} timestamps; give one each"
                )
        if histories[0].get("timestamps") is None:
            return None
        stamps = [stamp for history in histories for stamp in history["timestamps"]]
        ends = np.cumsum([len(history["timestamps"]) for history in histories])[:-1]
        seconds, nanoseconds = (np.split(part, ends) for part in to_unix_time(stamps, time_unit))
        return list(zip(seconds, nanoseconds, strict=True))

    def _pad(
        self, sequences: list[tuple[np.ndarray, np.ndarray | None]], padding: bool | str
    ) -> dict[str, np.ndarray]:
        longest = (
            max(1, *(len(rows) for rows, _ in sequences)) if padding != "max_length" else self.max_sequence_length
        )
        names = ["input_ids", "attention_mask"] + (["timestamps"] if sequences[0][1] is not None else [])
        padded = {name: np.zeros((len(sequences), longest), dtype=np.int64) for name in names}
        for number, (rows, times) in enumerate(sequences):
            start = 0 if self.history_padding_side == "right" else longest - len(rows)
            place = (number, slice(start, start + len(rows)))
            padded["input_ids"][place] = rows
            padded["attention_mask"][place] = 1
            if times is not None:
                padded["timestamps"][place] = times
        return padded

    @property
    def model_input_names(self) -> list[str]:
        """`list[str]`: Names of what texts and pictures become."""
        parts = [part for part in (self.tokenizer, self.image_processor) if part is not None]
        return list(dict.fromkeys(name for part in parts for name in part.model_input_names))

    def to_dict(self) -> dict[str, Any]:
        """`dict`: What `processor_config.json` holds; parts that are absent are named."""
        output = super().to_dict() | {"auto_map": {"AutoProcessor": "processing_mmm4rec.MMM4RecProcessor"}}
        absent = [name for name in self.get_attributes() if getattr(self, name) is None]
        for name in absent:
            output.pop(name, None)
        return output | {"absent_parts": absent} if absent else output

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """
        Saves the tokenizer, the image processor, the options, the items and the code of the processor.

        Args:
            save_directory (`str` or `os.PathLike`): The folder, made if it is absent.
            push_to_hub (`bool`, *optional*, defaults to `False`): Whether to upload the folder as well.
            kwargs: Passed on to [`~ProcessorMixin.save_pretrained`]; for the upload `repo_id`, by default the
                folder's name, and what [`push_folder`] takes.

        Returns:
            `list[str]`: The files of the processor itself.
        """
        os.makedirs(save_directory, exist_ok=True)
        path = Path(save_directory) / ITEMS_NAME
        if self._item_ids:
            partial = path.with_suffix(".partial")
            with partial.open("w", encoding="utf-8") as file:
                for item_id, title in zip(self._item_ids, self._titles, strict=True):
                    file.write(json.dumps({"item_id": item_id, "title": title}, ensure_ascii=False) + "\n")
            partial.replace(path)
        elif (Path(save_directory) / PROCESSOR_NAME).is_file():
            path.unlink(missing_ok=True)  # of the processor that was saved here before
        upload = {name: kwargs.pop(name) for name in UPLOAD_OPTIONS if name in kwargs}
        repo_id = kwargs.pop("repo_id", Path(save_directory).name)
        present = [getattr(self, name) for name in self.get_attributes() if getattr(self, name) is not None]
        if len(present) == len(self.get_attributes()):
            written = super().save_pretrained(save_directory, **kwargs)
        else:
            custom_object_save(self, save_directory, config=[self])  # type: ignore[arg-type]
            for part in present:
                part.save_pretrained(save_directory)
            self.to_json_file(Path(save_directory) / PROCESSOR_NAME)
            written = [str(Path(save_directory) / PROCESSOR_NAME)]
        if push_to_hub:
            push_folder(save_directory, repo_id, **{"commit_message": "Upload processor"} | upload)
        return written

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """
        Uploads the processor with its items and its code.

        Args:
            repo_id (`str`): `organization/name`.
            options: `private`, `token`, `revision`, `create_pr`, `commit_message` and `commit_description`, as
                [`push_folder`] takes them.

        Returns:
            [`~huggingface_hub.CommitInfo`]

        Raises:
            ValueError: If the Hub refuses the upload.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_folder(folder, repo_id, **{"commit_message": "Upload processor"} | options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """
        Loads a processor with its items.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A Hub name or a folder.
            args, kwargs: Passed on to [`~ProcessorMixin.from_pretrained`]. Code of the tokenizer's or the image
                processor's own is run where `trust_remote_code=True` is given, and never asked for.

        Raises:
            OSError: If the Hub fails to send the items, or to say whether there are any.
            ValueError: If a file of it is damaged.
        """
        hub_kwargs = {name: value for name, value in kwargs.items() if name in _HUB_KWARGS}
        # Of None transformers makes a question on the terminal, which a "y" that was meant for something else answers.
        kwargs["trust_remote_code"] = bool(kwargs.get("trust_remote_code"))
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        path = optional_file(pretrained_model_name_or_path, ITEMS_NAME, **hub_kwargs)
        if path is not None:
            try:
                with path.open(encoding="utf-8") as file:
                    records = [json.loads(line) for line in file]
                items = [(record["item_id"], record["title"]) for record in records]
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ValueError(
                    f"{ITEMS_NAME} of {pretrained_model_name_or_path} is damaged: {error}; save the processor again"
                ) from error
            processor._set_items((item_id for item_id, _ in items), (title for _, title in items))
        return processor

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As of every processor; what is in it is checked."""
        problem = None
        try:
            settings, options = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        except AttributeError:
            settings, options, problem = {}, {}, "it holds no object"
        parts, absent = cls.get_attributes(), settings.get("absent_parts", [])
        if not isinstance(absent, list) or any(name not in parts for name in absent):
            problem = f"absent_parts must be a list of {' and '.join(parts)}, got {absent!r}"
        length = settings.get("max_sequence_length", 1)
        if type(length) is not int or length < 1:
            problem = f"max_sequence_length must be an integer of at least 1, got {length!r}"
        if problem is not None:
            raise ValueError(
                f"{PROCESSOR_NAME} of {pretrained_model_name_or_path} is damaged: {problem}; save the processor again"
            )
        return settings, options

    @classmethod
    def _get_arguments_from_pretrained(
        cls, name: Any, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list:
        absent = (processor_dict or {}).get("absent_parts", [])
        if not absent:
            return super()._get_arguments_from_pretrained(name, processor_dict, **kwargs)
        parts: list[Any] = []
        for attribute in cls.get_attributes():
            if attribute in absent:
                parts.append(None)
            elif attribute == "tokenizer":
                parts.append(cls._load_tokenizer_from_pretrained(attribute, name, **kwargs))
            else:
                parts.append(AutoImageProcessor.from_pretrained(name, **kwargs))
        return parts


def _name(number: int, history: Mapping[str, Any]) -> str:
    """What to call a history in errors."""
    return f"history {number}" + (f" (user {history['user_id']!r})" if "user_id" in history else "")


def _is_list(values: Any) -> bool:
    """Whether values have an order and can be read twice; a string would be a list of its letters."""
    return isinstance(values, Collection) and not isinstance(values, str | bytes | Mapping | Set)


MMM4RecProcessor.register_for_auto_class()

__all__ = ["MMM4RecProcessor"]
