"""From a model's folder, or its Hub name, to a recommender."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from mmm4rec_hf.items import ItemCatalog, ItemEncoder
from mmm4rec_hf.items.download import PictureDownloader
from mmm4rec_hf.items.recorded import recorded_encoder
from mmm4rec_hf.items.storage import INFO_NAME
from mmm4rec_hf.modeling import SequentialRecommendationPipeline
from mmm4rec_hf.modeling.configuration_mmm4rec import TASK
from mmm4rec_hf.saved_models import find_model
from mmm4rec_hf.training.saving import CATALOG_NAME

from .recommender import Recommender

logger = logging.getLogger(__name__)

FindEncoder = Callable[[Mapping[str, Mapping[str, Any]]], ItemEncoder]


def load_recommender(
    model: str | Path,
    *,
    catalog: str | Path | None = None,
    find_encoder: FindEncoder | None = recorded_encoder,
    device: Any = None,
    download: bool = False,
    **options: Any,
) -> Recommender:
    """
    Loads what `mmm4rec serve` serves.

    Args:
        model (`str` or `Path`): What `finetune` wrote (its output folder or `model` in it), or a Hub name.
        catalog (`str` or `Path`, *optional*):
            The items to recommend, a saved catalogue's folder or Hub name, with its features, which one without any
            leaves to a model that knows its items. By default the one saved with the model; a model without one, or
            with one of other items, is served with the ids and titles it knows, which have no pictures.
        find_encoder (`Callable`, *optional*, defaults to [`recorded_encoder`]):
            Gives the encoder of new items for a catalogue's `feature_info`, or raises `ValueError` with the reason
            why there is none, which the page then tells. `None` for a server that takes no new items.
        device (*optional*): As [`~transformers.pipeline`] takes it.
        download (`bool`, *optional*, defaults to `False`): Whether pictures that are addresses are fetched.
        options: Of [`Recommender`].

    Returns:
        `Recommender`

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no such model, it holds no items, or the catalogue does not fit it, as where another
            encoder made its features.
    """
    folder = find_model(model)
    pipeline: Any = transformers.pipeline(  # type: ignore[call-overload]
        TASK, model=folder, device=device, trust_remote_code=False
    )
    items = _catalog(folder, catalog, pipeline)
    has_features = items.text_features is not None or items.image_features is not None
    is_known = pipeline.processor.item_ids == items.item_ids
    # The model holds the features of the catalogue that was saved with it; another of the same ids may have others.
    if not is_known or (catalog is not None and has_features):
        pipeline.set_items(items)
    elif catalog is not None:
        logger.warning("%s has no features: the model keeps those it has of these items", catalog)
        pipeline.processor.set_items(items)
    problem, encoder = "it was started without an item encoder", None
    if find_encoder is not None:
        try:
            encoder = find_encoder(items.feature_info) if items.text_features is not None else None
            problem = "the catalogue has no features to put new ones beside; give --catalog"
        except ValueError as error:
            problem = str(error)
            logger.warning("new items cannot be added: %s", problem)
    logger.info("%s: %d items", folder, len(items))
    # Two parts of a path tell `films/run` from `books/run`; the rest is nobody's business.
    options = {"name": "/".join(Path(model).parts[-2:])} | options
    return Recommender(
        pipeline,
        items,
        encoder=encoder,
        encoder_problem=problem,
        fetch=PictureDownloader() if download else None,
        **options,
    )


def _catalog(model: str | Path, catalog: str | Path | None, pipeline: SequentialRecommendationPipeline) -> ItemCatalog:
    """The catalogue that was named, the one saved with the model, or the ids and titles that the model knows."""
    if catalog is not None:
        return ItemCatalog.from_pretrained(catalog)
    saved, processor = saved_catalog(model), pipeline.processor
    if saved is not None and (not processor.item_ids or saved.item_ids == processor.item_ids):
        return saved
    if not processor.item_ids:
        raise ValueError(f"{model} holds no items: it is a base model; give it a catalogue by --catalog FOLDER")
    if saved is not None:
        logger.warning(
            "%s/%s holds other items (%d) than the model (%d), as one of an earlier model does, and is left out; "
            "save the model's own catalogue there, or name one by --catalog",
            *(model, CATALOG_NAME, len(saved), len(processor.item_ids)),
        )
    else:
        logger.warning("%s comes without a catalogue: its items are served by title, without pictures", model)
    titles = [{"title": processor.title(row)} for row in range(1, len(processor.item_ids) + 1)]
    return ItemCatalog(processor.item_ids, titles)


def saved_catalog(model: str | Path) -> ItemCatalog | None:
    """
    The catalogue that was saved with a model.

    Args:
        model (`str` or `Path`): The model's folder, or its Hub name.
    """
    folder = Path(model) if Path(model).is_dir() else _fetched(str(model))
    if not (folder / CATALOG_NAME / INFO_NAME).is_file():
        return None
    # What came from the Hub names no files of this machine.
    root = None if Path(model).is_dir() else folder / CATALOG_NAME
    return ItemCatalog.from_pretrained(folder / CATALOG_NAME, root=root)


def _fetched(name: str) -> Path:
    """What a model's repository on the Hub has of a catalogue; an empty folder's path where the Hub fails."""
    try:
        return Path(snapshot_download(name, allow_patterns=f"{CATALOG_NAME}/*"))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        logger.warning("a catalogue of %s, if it has one, cannot be fetched: %s", name, " ".join(str(error).split()))
        return Path(CATALOG_NAME)
