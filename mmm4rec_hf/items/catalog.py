"""The items of a shop: ids, texts, pictures, and the features that the models read."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mmm4rec_hf.modeling.ids_mmm4rec import canonical_id

from .batch_encoder import NO_ENCODER
from .encoder import ItemEncoder
from .encoding import encode_catalog, unlike_item
from .features import MODALITIES, check_features, check_mask, is_known_by_name, what_counts
from .fields import (
    check_new_fields,
    check_new_texts,
    check_text_fields,
    name_alike,
    rename_field,
    title_by_both_names,
    with_title,
)
from .images import absolute_pictures, check_readable, is_in_hub_cache, is_picture, is_url, load_picture
from .recorded import encoder_for_more
from .sources import read_items
from .storage import fetch_catalog, load_catalog, naming_damage, push_catalog, save_catalog
from .text import PUBLISHED_TEXT_FIELDS, title_text

logger = logging.getLogger(__name__)


class ItemCatalog:
    """Items in a fixed order, with features once they are encoded. Row i of every array is `item_ids[i]`.

    Args:
        item_ids (`Iterable[str | int]`): External ids, each once.
        records (`Sequence[Mapping[str, Any]]`, *optional*):
            The fields of each item: `title` and other texts, and `image`, a reference as [`load_picture`] takes it.
        root (`str` or `os.PathLike`, *optional*):
            The folder that relative picture paths start from, and that no path given as a text may lead out of.
        text_features (`np.ndarray` of shape `(num_items, text_feature_size)`, *optional*): Float32.
        image_features (`np.ndarray` of shape `(num_items, image_feature_size)`, *optional*): Float32.
        text_mask (`np.ndarray` of shape `(num_items,)`, *optional*): False where an item has no text.
        image_mask (`np.ndarray` of shape `(num_items,)`, *optional*): False where an item has no usable picture.
        feature_info (`dict[str, dict]`, *optional*): What the features were made with, by modality.
        source_fields (`dict[str, str]`, *optional*):
            What the shop's own file calls the fields `item_id`, `title` and `image`: new items may do so as well.

    Raises:
        ValueError: For an id given twice, lengths that do not agree, or features that are not finite.
    """

    def __init__(
        self,
        item_ids: Iterable[str | int],
        records: Sequence[Mapping[str, Any]] | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        text_features: Any = None,
        image_features: Any = None,
        text_mask: Any = None,
        image_mask: Any = None,
        feature_info: Mapping[str, Mapping[str, Any]] | None = None,
        source_fields: Mapping[str, str] | None = None,
    ) -> None:
        self.item_ids = [canonical_id(item_id) for item_id in item_ids]
        self._rows = {item_id: row for row, item_id in enumerate(self.item_ids)}
        if len(self._rows) != len(self.item_ids):
            twice = next(item_id for row, item_id in enumerate(self.item_ids) if self._rows[item_id] != row)
            raise ValueError(f"item id {twice!r} stands more than once in the catalogue; each item needs its own")
        self.records: list[dict[str, Any]] = (
            [dict(r) for r in records] if records is not None else [{} for _ in self.item_ids]
        )
        if len(self.records) != len(self.item_ids):
            raise ValueError(f"{len(self.item_ids)} item ids and {len(self.records)} records were given")
        self.root = None if root is None else Path(root)
        self.text_features = None if text_features is None else check_features(text_features, self.item_ids, "text")
        self.image_features = (
            None if image_features is None else check_features(image_features, self.item_ids, "image")
        )
        self.text_mask = check_mask(text_mask, self.text_features, "text")
        self.image_mask = check_mask(image_mask, self.image_features, "image")
        self.feature_info: dict[str, dict[str, Any]] = {key: dict(info) for key, info in (feature_info or {}).items()}
        self.source_fields: dict[str, str] = {str(ours): str(name) for ours, name in (source_fields or {}).items()}
        self._encoder: ItemEncoder | None = None

    @classmethod
    def from_items(
        cls,
        source: Any,
        *,
        format: str = "auto",
        id_column: str | None = None,
        title_column: str | None = None,
        image_column: str | None = None,
        root: str | os.PathLike[str] | None = None,
        follow_links: bool = False,
    ) -> "ItemCatalog":
        """Reads a catalogue.

        Args:
            source (path, data frame, `datasets.Dataset` or `Iterable[Mapping]`):
                A file of JSON lines, CSV, TSV or Parquet, a folder that holds one named `items`, MovieLens' films,
                RecBole's `.item` file, a data frame, a data set, or dictionaries. Fields `text_features` and
                `image_features` are taken as such.
            format (`str`, *optional*, defaults to `"auto"`):
                `"amazon-2018"` or `"amazon-2023"` for metadata files, `"movielens"` or `"recbole"` where the names of
                the files do not say so.
            id_column (`str`, *optional*):
                The field of the item id; by default found by its usual names. Another one that is called `item_id` is
                left out, and logged.
            title_column (`str`, *optional*): The field of the title, if it is not called `title`; one that is, is left
                out likewise.
            image_column (`str`, *optional*): The field of the picture, if it is not called `image`; likewise.
            root (`str` or `os.PathLike`, *optional*):
                Where relative picture paths start, by default the file's own folder. No path of a file may lead out of
                it; `root="/"` allows all absolute ones.
            follow_links (`bool`, *optional*, defaults to `False`):
                Whether links in that folder may lead out of it. Paths of pictures are made absolute then.

        Returns:
            `ItemCatalog`: Without features, unless the source has them.

        Raises:
            FileNotFoundError: For a path, or a `root`, that does not exist.
            ValueError: If nothing can be read, or the id's field is unclear.
            TypeError: For records that are no dictionaries, and ids that are neither strings nor integers.
        """
        _check_root(root)
        item_ids, records = read_items(source, format, id_column)
        # The id comes last: another field of its name may be the title.
        names = {"title": title_column, "image": image_column, "item_id": id_column}
        source_fields = {ours: name for ours, name in names.items() if name is not None}
        for ours, theirs in source_fields.items():
            if ours != "item_id" and not any(theirs in record for record in records):
                there = ", ".join(dict.fromkeys(repr(name) for record in records for name in record))
                raise ValueError(f"{ours}_column={theirs!r} is no field of any item; there are {there or 'none'}")
            if ours == "item_id":
                lost = sum(record.pop(ours, None) is not None for record in records)
            else:
                lost = sum(rename_field(record, theirs, ours) for record in records)
            if lost:
                logger.warning(
                    "%d items have a field %r beside %r, which was told to be it; the first was left out",
                    *(lost, ours, theirs),
                )
        return cls._made_of(source, item_ids, records, source_fields, root, follow_links)

    @classmethod
    def _made_of(
        cls,
        source: Any,
        item_ids: list[str],
        records: list[dict[str, Any]],
        source_fields: Mapping[str, str],
        root: str | os.PathLike[str] | None,
        follow_links: bool = False,
    ) -> "ItemCatalog":
        """The catalogue of what was read, with features where the source has them."""
        if root is None and isinstance(source, str | os.PathLike):
            root = Path(source) if Path(source).is_dir() else Path(source).parent
        if follow_links:
            records = absolute_pictures(records, root, follow_links=True)
        text_features, image_features = (_take_features(records, modality) for modality in MODALITIES)
        features: dict[str, Any] = {"text_features": text_features, "image_features": image_features}
        return cls(item_ids, records, root=root, source_fields=source_fields, **features)

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str | int) and canonical_id(item_id) in self._rows

    def __getitem__(self, item_id: str | int) -> dict[str, Any]:
        """The record of an item."""
        return self.records[self._row(item_id)]

    def __repr__(self) -> str:
        sizes = [
            f"{modality} features of size {features.shape[1]}"
            for modality, features in (("text", self.text_features), ("image", self.image_features))
            if features is not None
        ]
        return f"ItemCatalog({len(self):,} items, {', '.join(sizes) or 'no features'})"

    @property
    def titles(self) -> list[str | None]:
        """`list[str]`: The title of each item, one that is no text as it stands in texts; `None` where it has none."""
        return [title_text(record) for record in self.records]

    def picture(self, item_id: str | int) -> Image.Image | None:
        """Opens an item's picture, `None` where it has none; see [`load_picture`] for what is raised."""
        reference = self[item_id].get("image")
        return load_picture(reference, root=self.root) if is_picture(reference) else None

    def select(self, item_ids: Iterable[str | int]) -> "ItemCatalog":
        """The catalogue of some items, in the order given.

        Raises:
            ValueError: If an item is not in the catalogue.
        """
        wanted = [canonical_id(item_id) for item_id in item_ids]
        unknown = [item_id for item_id in wanted if item_id not in self._rows]
        if unknown:
            raise ValueError(f"{len(unknown)} items are not in the catalogue, first {unknown[0]!r}")
        rows = [self._rows[item_id] for item_id in wanted]
        arrays: dict[str, Any] = {n: None if array is None else array[rows] for n, array in self._arrays().items()}
        selected = ItemCatalog(wanted, [self.records[row] for row in rows], **self._about(), **arrays)
        selected._encoder = self._encoder
        return selected

    def encode(
        self,
        encoder: ItemEncoder,
        output_dir: str | os.PathLike[str] | None = None,
        *,
        batch_size: int = 16,
        shard_size: int = 1024,
        overwrite: bool = False,
    ) -> "ItemCatalog":
        """Computes the features of all items.

        Under `torchrun` or `accelerate launch` the processes share the work, and each returns the whole catalogue.

        Args:
            encoder (`ItemEncoder`): What turns texts and pictures into features.
            output_dir (`str` or `os.PathLike`, *optional*):
                A folder to keep finished shards in. A run that finds shards of these items there goes on behind them,
                and tries the pictures again that could not be used, but for addresses where it may not fetch.
                A function, of which a name is all that is known, encodes a batch of theirs again, to be told from
                another one of the name.
            batch_size (`int`, *optional*, defaults to 16): Items a batch.
            shard_size (`int`, *optional*, defaults to 1024): Items a file, the most that a kill loses.
            overwrite (`bool`, *optional*, defaults to `False`): Whether another encoder's features there may go.

        Returns:
            `ItemCatalog`: The same items with features; [`~ItemCatalog.add_items`] will use the same encoder.

        Raises:
            ValueError: If `output_dir` holds another encoder's features, a feature is not finite, or no item has one
                of the encoder's text fields. Of the default ones any may be absent.
        """
        if len(self) == 0:
            raise ValueError("the catalogue is empty: there is nothing to encode")
        named = self
        if encoder.reads_texts:
            source_fields = with_title(self.source_fields, self.records, encoder.text_fields)
            theirs = source_fields.get("title", "title")
            records = [title_by_both_names(record, theirs, encoder.text_fields) for record in self.records]
            if encoder.text_fields != PUBLISHED_TEXT_FIELDS:
                check_text_fields(records, encoder.text_fields)
            about = self._about() | {"source_fields": source_fields}
            named = ItemCatalog(self.item_ids, records, **(about | self._arrays()))
        return named._encode(encoder, output_dir, batch_size=batch_size, shard_size=shard_size, overwrite=overwrite)

    def _encode(
        self, encoder: ItemEncoder, output_dir: str | os.PathLike[str] | None = None, **options: Any
    ) -> "ItemCatalog":
        """These records as they are, with features."""
        arrays = encode_catalog(self, encoder, output_dir, **options)
        about = self._about() | {"feature_info": {**self.feature_info, **encoder.info}}
        encoded = ItemCatalog(self.item_ids, self.records, **(about | self._arrays() | arrays))
        encoded._encoder = encoder
        return encoded

    def add_items(
        self,
        items: Any,
        *,
        encoder: ItemEncoder | None = None,
        root: Any = None,
        unreadable_pictures: Literal["error", "missing"] = "error",
    ) -> None:
        """Appends items. In a catalogue with features the new ones are encoded alike.

        Args:
            items (`Any`):
                As for [`~ItemCatalog.from_items`]. Features may come with the items. Fields may have the names of the
                file that the catalogue was made of, or usual ones, see [`~ItemCatalog.name_alike`].
            encoder (`ItemEncoder`, *optional*):
                By default the one that [`~ItemCatalog.encode`] was called with; of a loaded catalogue the one that is
                recorded, which is loaded by its Hub name, or fetched where it comes as a package.
            root (`str` or `os.PathLike`, *optional*): Where their relative picture paths start, if not at `self.root`.
            unreadable_pictures (`"error"` or `"missing"`, *optional*, defaults to `"error"`):
                What becomes of a picture that is to be encoded and cannot be read: an error, or it counts as missing
                with a warning, as in [`~ItemCatalog.encode`]. Addresses are fetched or not as the encoder says, and
                count as missing where that fails.

        Raises:
            FileNotFoundError: For a file, or a `root`, that does not exist.
            ValueError: If an item is there already or has two ids that differ, a picture cannot be read, features are
                needed and the encoder is another one or not to be had (the error says which it is, and the call that
                gives it), nothing of what the items say is read, or a field's name is nearly that of one that is.
                Others that neither texts are made of nor the catalogue's items have are logged.
        """
        if unreadable_pictures not in ("error", "missing"):
            raise ValueError(f"unreadable_pictures must be 'error' or 'missing', got {unreadable_pictures!r}")
        _check_root(root)
        item_ids, records = read_items(items, known_id=self.source_fields.get("item_id"))
        source_fields, with_pictures = self._names(), self.image_features is not None
        # Before a picture's path is looked at, by whatever name it goes.
        records = [name_alike(record, source_fields, self._text_fields(), with_pictures) for record in records]
        self._add(ItemCatalog._made_of(items, item_ids, records, {}, root), encoder, unreadable_pictures)

    def add_named(self, item_id: str | int, record: Mapping[str, Any], *, encoder: ItemEncoder | None = None) -> None:
        """
        Appends an item whose fields are named as this catalogue's are, as [`~ItemCatalog.name_alike`] names them: none
        is taken for another, so that `image` alone is the picture.

        Args:
            item_id (`str` or `int`): Its id.
            record (`Mapping[str, Any]`): Its fields.
            encoder (`ItemEncoder`, *optional*): As for [`~ItemCatalog.add_items`].

        Raises:
            ValueError: As [`~ItemCatalog.add_items`].
        """
        self._add(ItemCatalog([item_id], [record]), encoder, "error")

    def _add(self, added: "ItemCatalog", encoder: ItemEncoder | None, unreadable_pictures: str) -> None:
        """Appends the items of a catalogue, encoded where they have to be."""
        known = [item_id for item_id in added.item_ids if item_id in self._rows]
        if known:
            raise ValueError(
                f"{len(known)} items are in the catalogue already, first {known[0]!r}; remove them before"
            )
        if unreadable_pictures == "error" and self._reads_pictures() and added.image_features is None:
            # Before an encoder is loaded, and before paths that lead out of their folder are left out.
            check_readable(added.item_ids, added.records, added.root or self.root)
        if added.root is not None and added.root != self.root:
            added.records = absolute_pictures(added.records, added.root)
        elif added.root is None:
            added.root = self.root
        if self.text_features is not None and added.text_features is None:
            check_new_texts(added.item_ids, added.records, self._text_fields(), self._names())
            known_fields = set().union(*self.records)
            check_new_fields(added.item_ids, added.records, self._text_fields(), known_fields)
        if any(array is not None and getattr(added, name) is None for name, array in self._arrays().items()):
            added = added._encode(self._encoder_for_more(encoder))
        arrays = {
            name: None if array is None else np.concatenate([array, getattr(added, name)])
            for name, array in self._arrays().items()
        }
        self._encoder = added._encoder or self._encoder
        self._become(self.item_ids + added.item_ids, self.records + added.records, arrays)

    def name_alike(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """
        An item's record with its title and picture named as this catalogue's are.

        Args:
            record (`Mapping[str, Any]`):
                The fields of a new item. One may have the name that the file had which the catalogue was made of, or
                a usual one, such as `name` for the title.

        Raises:
            ValueError: If several fields may be one that the catalogue's features are made of, or differ where they
                are one.
        """
        return name_alike(record, self._names(), self._text_fields(), self.image_features is not None)

    def remove_items(self, item_ids: Iterable[str | int]) -> None:
        """Removes items; the others keep their order.

        Raises:
            ValueError: If an item is not in the catalogue.
        """
        leaving = {self._row(item_id) for item_id in item_ids}
        kept = [row for row in range(len(self)) if row not in leaving]
        arrays = {name: None if array is None else array[kept] for name, array in self._arrays().items()}
        self._become([self.item_ids[row] for row in kept], [self.records[row] for row in kept], arrays)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *, save_images: bool = False) -> None:
        """Writes `items.jsonl`, `features.safetensors` and `catalog.json`.

        Args:
            save_directory (`str` or `os.PathLike`):
                The folder, made where it is missing. A catalogue that it holds is replaced.
            save_images (`bool`, *optional*, defaults to `False`):
                Whether pictures are copied below it. Otherwise their paths and addresses are kept as they are, and
                pictures held in memory are left out, with a warning.

        Raises:
            ValueError: If files of these names are there without a catalogue, or, with `save_images`, a picture in
                `images/` would be replaced that no save wrote.
        """
        save_catalog(self, Path(save_directory), save_images)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> "ItemCatalog":
        """Loads a saved catalogue.

        Args:
            name (`str` or `os.PathLike`): A folder, or the name of a data set on the Hub.
            root (`str` or `os.PathLike`, *optional*):
                Where relative picture paths start, by default that folder. No relative path may lead out of it, and no
                absolute one of a data set of the Hub, of a folder in its cache, or where it is given; a folder's own
                are followed otherwise, as `mmm4rec encode` writes them.
            revision (`str`, *optional*): Of the data set.
            token (`str` or `bool`, *optional*): For a private data set.

        Raises:
            ValueError: If there is no catalogue, or its parts do not fit each other.
        """
        folder = Path(name)
        is_ours = root is None and folder.is_dir() and not is_in_hub_cache(folder)
        if not folder.is_dir():
            folder = fetch_catalog(os.fspath(name), revision, token)
        parts = load_catalog(folder)
        if is_ours:
            _trust_absolute_paths(parts["records"])
        with naming_damage(folder):
            return cls(**parts, root=root or folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        license: str | None = None,
        save_images: bool = False,
    ) -> str:
        """Uploads the catalogue as a data set.

        Args:
            repo_id (`str`): `organization/name`.
            private (`bool`, *optional*): Whether a new repository is private.
            token (`str` or `bool`, *optional*): By default the one that `hf auth login` stored.
            revision (`str`, *optional*): The branch, made where it is missing.
            license (`str`, *optional*): Identifier of the Hub, such as `cc-by-4.0`, for the card.
            save_images (`bool`, *optional*, defaults to `False`): As for [`~ItemCatalog.save_pretrained`].

        Returns:
            `str`: The address of the commit.

        Raises:
            ValueError: If the Hub refuses the upload.
        """
        return push_catalog(
            self, repo_id, save_images, private=private, token=token, revision=revision, license=license
        )

    def _arrays(self) -> dict[str, np.ndarray | None]:
        return {
            "text_features": self.text_features,
            "image_features": self.image_features,
            "text_mask": self.text_mask,
            "image_mask": self.image_mask,
        }

    def _reads_pictures(self) -> bool:
        """Whether its features are of pictures, and not zeros in their place."""
        info = self.feature_info.get("image", {})
        return self.image_features is not None and info.get("encoder") != NO_ENCODER

    def _text_fields(self) -> Sequence[str]:
        """The fields that texts are, or by default would be, made of."""
        return self.feature_info.get("text", {}).get("fields") or PUBLISHED_TEXT_FIELDS

    def _names(self) -> dict[str, str]:
        """What the shop's file calls our fields; of the title also where a file's reader did not tell."""
        return with_title(self.source_fields, self.records, self._text_fields())

    def _about(self) -> dict[str, Any]:
        """What holds of all items alike."""
        return {"root": self.root, "feature_info": self.feature_info, "source_fields": self.source_fields}

    def _row(self, item_id: str | int) -> int:
        key = canonical_id(item_id)
        if key not in self._rows:
            raise ValueError(f"item {key!r} is not in the catalogue of {len(self):,} items")
        return self._rows[key]

    def _become(
        self, item_ids: list[str], records: list[dict[str, Any]], arrays: dict[str, np.ndarray | None]
    ) -> None:
        about: dict[str, Any] = self._about() | arrays
        changed = ItemCatalog(item_ids, records, **about)
        changed._encoder = self._encoder
        vars(self).update(vars(changed))

    def _encoder_for_more(self, encoder: ItemEncoder | None) -> ItemEncoder:
        encoder = encoder or self._encoder
        if encoder is None:
            made = [name for name in MODALITIES if self._arrays()[f"{name}_features"] is not None]
            encoder = self._encoder = encoder_for_more(self.feature_info, made)
        for modality, info in encoder.info.items():
            if modality in self.feature_info and what_counts(info) != what_counts(self.feature_info[modality]):
                raise ValueError(
                    f"the {modality} features were made with {self.feature_info[modality]}, the encoder given is "
                    f"{info}; features of two encoders cannot be compared"
                )
        if encoder is not self._encoder:
            self._check_functions(encoder)
        return encoder

    def _check_functions(self, encoder: ItemEncoder) -> None:
        """Refuses a function that has the name of the one that made features here, and gives others."""
        for modality in MODALITIES:
            features, mask = (self._arrays()[f"{modality}_{part}"] for part in ("features", "mask"))
            info = encoder.info.get(modality)
            if info is None or features is None or mask is None or modality not in self.feature_info:
                continue
            if is_known_by_name(info):
                vectors = ((row, features[row]) for row in np.flatnonzero(mask).tolist())
                unlike = unlike_item(self, encoder, modality, vectors)
                if unlike is not None:
                    raise ValueError(
                        f"{info['encoder']} gives item {unlike!r} other {modality} features than it has; features of "
                        "two encoders cannot be compared: give the function that made them, or encode the catalogue "
                        "again"
                    )


def _check_root(root: str | os.PathLike[str] | None) -> None:
    """Refuses a folder of pictures that was named and is not there, before items are read and none has one."""
    # The folder of a file in the working directory is "".
    if root is not None and not os.path.isdir(root or "."):
        raise FileNotFoundError(f"no such folder: {os.fspath(root)} (given as root=, where paths of pictures start)")


def _take_features(records: list[dict[str, Any]], modality: str) -> list[Any] | None:
    """Moves a feature field out of the records."""
    name = f"{modality}_features"
    vectors = [record.pop(name, None) for record in records]
    present = [vector is not None for vector in vectors]
    if not any(present):
        return None
    if not all(present):
        raise ValueError(f"{present.count(False)} of {len(present)} items have no {name}; give them to all or to none")
    return vectors


def _trust_absolute_paths(records: Iterable[dict[str, Any]]) -> None:
    """Makes them what [`picture_path`] follows anywhere."""
    for record in records:
        reference = record.get("image")
        if isinstance(reference, str) and not is_url(reference) and os.path.isabs(reference):
            record["image"] = Path(reference)
