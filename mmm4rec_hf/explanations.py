"""Why an item is recommended: the item of the history that is nearest to it, by text and by picture."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.modeling import SequentialRecommendationPipeline
from mmm4rec_hf.modeling.items_mmm4rec import MMM4RecItems, l2_normalize

_MODALITIES = ("text", "image")


def explain(
    items: Sequence[dict[str, Any]],
    history: Sequence[Any],
    pipeline: SequentialRecommendationPipeline,
    catalog: ItemCatalog | None = None,
) -> None:
    """
    Puts `"why"` into recommendations: under `"text"` and `"image"` the item of the history that is nearest by the
    model's own vectors, with `"item_id"`, `"title"` and `"similarity"`, a cosine; `None` where one of the two has no
    text or no picture.

    Args:
        items (`Sequence[dict]`): What the pipeline gave for the history.
        history (`Sequence` of ids): The items of the history; those that the model does not know are left out.
        pipeline (`SequentialRecommendationPipeline`): With the model and its items.
        catalog (`ItemCatalog`, *optional*):
            Knows which items have no text or no picture. Without it those count as such whose features are zeros, or
            of which the model knows it.
    """
    processor, model = pipeline.processor, pipeline.model
    seen = list(dict.fromkeys(processor.rows(history)[0]))
    rows = processor.rows([item["item_id"] for item in items])[0]
    if not seen or not rows:
        for item in items:
            item["why"] = dict.fromkeys(_MODALITIES)
        return
    own, others = (torch.tensor(part, device=model.device) for part in (rows, seen))
    with torch.no_grad():
        embeds = zip(model.item_embeds(own), model.item_embeds(others), strict=True)
        # Rounding leaves a little more than 1.
        cosines = [(l2_normalize(one) @ l2_normalize(other).T).clamp(-1, 1) for one, other in embeds]
    found = []
    for name, cosine in zip(_MODALITIES, cosines, strict=True):
        present = [_is_present(model.items, catalog, name, part) for part in (own, others)]
        left_out = (own.unsqueeze(1) == others) | ~present[0].unsqueeze(1) | ~present[1]
        found.append(cosine.masked_fill(left_out, -torch.inf).max(dim=1))
    for place, item in enumerate(items):
        item["why"] = {}
        for name, best in zip(_MODALITIES, found, strict=True):
            row, similarity = seen[int(best.indices[place])], float(best.values[place])
            near = {"item_id": processor.item_ids[row - 1], "title": processor.title(row), "similarity": similarity}
            item["why"][name] = near if similarity > -torch.inf else None


def _is_present(items: MMM4RecItems, catalog: ItemCatalog | None, name: str, rows: Tensor) -> Tensor:
    """[n] -> [n]: which of some rows have a text or a picture."""
    mask = None if catalog is None else getattr(catalog, f"{name}_mask")
    if mask is not None:
        return torch.from_numpy(mask).to(rows.device)[rows - 1]
    is_missing = getattr(items, f"{name}_is_missing")
    present: Tensor = (getattr(items, f"{name}_features")[rows] != 0).any(dim=1)
    return present if is_missing is None else present & ~is_missing[rows]
