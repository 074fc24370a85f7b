"""A catalogue with its encoder's processor, and a recommender with all that it needs, as folders."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmm4rec_hf.items.images import absolute_pictures
from mmm4rec_hf.items.storage import FEATURES_NAME, IMAGES_NAME, INFO_NAME, ITEMS_NAME, WRITTEN_NAME, save_catalog
from mmm4rec_hf.modeling import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.modeling.card_mmm4rec import CARD_NAME, CardFacts
from mmm4rec_hf.modeling.hub_mmm4rec import PROCESSOR_FILES
from mmm4rec_hf.modeling.ids_mmm4rec import ITEM_IDS_NAME
from mmm4rec_hf.outputs import refuse_other_files, replace_folder, write_json
from mmm4rec_hf.saved_models import CONFIG_NAME, model_type

from .cards import save_card
from .record import LAYOUT_NAME

if TYPE_CHECKING:
    from mmm4rec_hf.items import ItemCatalog, ItemEncoder

logger = logging.getLogger(__name__)

CATALOG_NAME = "catalog"
PROCESSOR_NAME = "processor"
# What is written of a model without items, as `refuse_other_files` takes it. Weights as transformers names them, also
# those of a variant: a copy that a user calls model_before.safetensors is none.
BASE_MODEL_FILES = (
    *(CONFIG_NAME, "generation_config.json", CARD_NAME, "*_mmm4rec.py", "model.safetensors.index*.json"),
    *("model.safetensors", "model.*.safetensors", "model-?????-of-?????.safetensors"),
)
# What `save_recommender` writes besides: items, the processor with the files of its tokenizer, and the catalogue.
MODEL_FILES = (
    *(*BASE_MODEL_FILES, ITEM_IDS_NAME, LAYOUT_NAME, *sorted(PROCESSOR_FILES)),
    *(f"{CATALOG_NAME}/{name}" for name in (INFO_NAME, ITEMS_NAME, FEATURES_NAME, WRITTEN_NAME, f"{IMAGES_NAME}/")),
)


def save_encoded_catalog(catalog: "ItemCatalog", encoder: "ItemEncoder", folder: str | os.PathLike[str]) -> None:
    """
    Saves a catalogue, and in `processor/` the tokenizer and the image processor that its features were made with.

    Args:
        catalog (`ItemCatalog`): With features.
        encoder (`ItemEncoder`): What made them.
        folder (`str` or `os.PathLike`): Where to; relative picture paths are made absolute.
    """
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Set for each call, and saved: whether this run or an earlier one encoded the texts must make no difference.
        backend.no_truncation()
        backend.no_padding()
    processor = MMM4RecProcessor(image_processor=encoder.image_processor, tokenizer=encoder.tokenizer)
    # Together: features of one encoder must never lie beside the processor of another.
    beside = {PROCESSOR_NAME: processor.save_pretrained}
    save_catalog(_with_absolute_paths(catalog), Path(folder), save_images=False, beside=beside)


def _with_absolute_paths(catalog: "ItemCatalog") -> "ItemCatalog":
    """A copy whose pictures are found from any folder."""
    copy = catalog.select(catalog.item_ids)
    copy.records = absolute_pictures(catalog.records, catalog.root)
    return copy


def load_processor(catalog_folder: str | os.PathLike[str]) -> MMM4RecProcessor:
    """The processor saved beside a catalogue; one that reads histories alone where there is none."""
    folder = Path(catalog_folder) / PROCESSOR_NAME
    if not folder.is_dir():
        logger.warning("%s is not there: the saved model will read histories, but no new items", folder)
        return MMM4RecProcessor()
    return MMM4RecProcessor.from_pretrained(folder)


def refuse_other_model(folder: Path, own: Sequence[str] = MODEL_FILES) -> None:
    """
    Makes sure that a folder which a model is saved to, and where all that has other names is kept, holds no files of
    these names that are not a model's of ours.

    Args:
        folder (`Path`): The folder, which need not be there.
        own (`Sequence[str]`, *optional*): What is written there, as [`refuse_other_files`] takes it.

    Raises:
        ValueError: If `folder` holds a model of another type, or one whose `config.json` is damaged; and of a folder
            without one as [`refuse_other_files`].
    """
    config = folder / CONFIG_NAME
    # Each model of the Hub has such a file: it alone does not tell whose the folder is.
    if config.is_file():
        try:
            found = model_type(config)
        except ValueError as error:
            raise ValueError(
                f"{config} holds no JSON object: the model there may be another's, and would be lost; name another "
                "folder, or move this away"
            ) from error
        if found != MMM4RecConfig.model_type:
            raise ValueError(
                f"{folder} holds a model of type {found!r}, not {MMM4RecConfig.model_type!r}, which would be lost; "
                "name another folder, or move this away"
            )
    refuse_other_files(folder, own, keep_others=True)


def save_recommender(
    model: MMM4RecForSequentialRecommendation,
    processor: MMM4RecProcessor,
    catalog: "ItemCatalog",
    folder: str | os.PathLike[str],
    facts: CardFacts | None = None,
    layout: Mapping[str, str] | None = None,
) -> None:
    """
    Saves what `pipeline("sequential-recommendation", folder)` loads: model, card and processor, and the catalogue in
    `catalog/`. An earlier folder of that name stays until the new one is whole, and what else was put into it, such as
    a LICENSE, is kept.

    Args:
        model ([`MMM4RecForSequentialRecommendation`]): With the catalogue's items.
        processor ([`MMM4RecProcessor`]): Is given the catalogue's items, and the model's sequence length.
        catalog (`ItemCatalog`): In the order of the model's rows.
        folder (`str` or `os.PathLike`): Where to.
        facts ([`CardFacts`], *optional*): For the model's card.
        layout (`Mapping[str, str]`, *optional*):
            Of a model that leaves the folder of its run: how its log was laid out, as [`layout_of_log`] gives it, so
            that `recommend` reads such a log as before.

    Raises:
        ValueError: If the folder holds no such model, but another one, or files or folders of the names that one has.
    """
    folder = Path(folder)
    refuse_other_model(folder)
    processor.set_items(catalog)
    processor.max_sequence_length = model.config.max_sequence_length
    with replace_folder(folder, MODEL_FILES, keep_others=True) as partial:
        model.save_pretrained(partial)
        save_card(model, partial, facts or CardFacts())
        processor.save_pretrained(partial)
        _with_absolute_paths(catalog).save_pretrained(partial / CATALOG_NAME)
        if layout:
            write_json(partial / LAYOUT_NAME, dict(layout))
