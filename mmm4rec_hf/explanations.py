"""Why an item is recommended: the item of the history that is nearest to it, by text, by picture and in the log."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.modeling import SequentialRecommendationPipeline
from mmm4rec_hf.modeling.items_mmm4rec import MMM4RecItems, l2_normalize

_MODALITIES = ("text", "image")


def explain(
    items: Sequence[dict[str, Any]],
    history: Mapping[str, Any],
    pipeline: SequentialRecommendationPipeline,
    catalog: ItemCatalog | None = None,
    time_unit: str | None = None,
) -> None:
    """
    Puts `"why"` into recommendations: under `"text"` and `"image"` the item of the history that is nearest by the
    model's own vectors, with `"item_id"`, `"title"` and `"similarity"`, a cosine; `None` where one of the two has no
    text or no picture. Where the model holds counts of a log, under `"cooccurrence"` the item that the recommended one
    stood near most, the last events weighing more: `"share"` is its part of all that the last ones count; `None` where
    it stood near none of them.

    Args:
        items (`Sequence[dict]`): What the pipeline gave for the history.
        history (`Mapping`): As the pipeline took it; items that the model does not know are left out.
        pipeline (`SequentialRecommendationPipeline`): With the model and its items.
        catalog (`ItemCatalog`, *optional*):
            Knows which items have no text or no picture. Without it those count as such whose features are zeros, or
            of which the model knows it.
        time_unit (`str`, *optional*): Of the history's times, as the pipeline was told.
    """
    processor, model = pipeline.processor, pipeline.model
    inputs, (held,) = processor.read_histories([history], time_unit, empty_histories="default")
    seen = list(dict.fromkeys(held))
    rows = processor.rows([item["item_id"] for item in items])[0]
    has_counts = model.cooccurrence is not None and model.cooccurrence.is_set
    for item in items:
        item["why"] = dict.fromkeys((*_MODALITIES, *(["cooccurrence"] if has_counts else [])))
    if not seen or not rows:
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
        for name, best in zip(_MODALITIES, found, strict=True):
            row, similarity = seen[int(best.indices[place])], float(best.values[place])
            if similarity > -torch.inf:
                item["why"][name] = _named(processor, row) | {"similarity": similarity}
    if has_counts:
        events, mask = (
            torch.from_numpy(inputs[name]).to(model.device).long() for name in ("input_ids", "attention_mask")
        )
        recent, parts = model.cooccurrence.origins(events, mask, own.unsqueeze(0))
        for item, counted in zip(items, parts[0].tolist(), strict=True):
            # An item may stand at several of the last places.
            sums: dict[int, float] = {}
            for row, part in zip(recent[0].tolist(), counted, strict=True):
                sums[row] = sums.get(row, 0.0) + part
            row, most = max(sums.items(), key=lambda entry: entry[1])
            if most > 0:
                item["why"]["cooccurrence"] = _named(processor, row) | {"share": most / sum(sums.values())}


def _named(processor: Any, row: int) -> dict[str, Any]:
    return {"item_id": processor.item_ids[row - 1], "title": processor.title(row)}


def _is_present(items: MMM4RecItems, catalog: ItemCatalog | None, name: str, rows: Tensor) -> Tensor:
    """[n] -> [n]: which of some rows have a text or a picture."""
    mask = None if catalog is None else getattr(catalog, f"{name}_mask")
    if mask is not None:
        return torch.from_numpy(mask).to(rows.device)[rows - 1]
    is_missing = getattr(items, f"{name}_is_missing")
    present: Tensor = (getattr(items, f"{name}_features")[rows] != 0).any(dim=1)
    return present if is_missing is None else present & ~is_missing[rows]
