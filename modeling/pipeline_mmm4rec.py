"""`pipeline("sequential-recommendation")`: histories of external ids to ranked items with their scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Pipeline
from transformers.utils import logging

logger = logging.get_logger(__name__)

_BATCH_SIZE = 256
_DAY = 86_400


class SequentialRecommendationPipeline(Pipeline):
    """
    Recommends items for histories.

    ```python
    >>> from transformers import pipeline
    >>> import mmm4rec_hf

    >>> recommend = pipeline("sequential-recommendation", model="org/mmm4rec-movies")
    >>> recommend({"items": ["50", "172"], "timestamps": [891035000, 891035500]}, top_k=5)
    [{"item_id": "181", "score": 4.1, "text_score": 2.4, "image_score": 1.7, "title": "Return of the Jedi"}, ...]
    ```

    The model is a [`MMM4RecForSequentialRecommendation`] and the processor a [`MMM4RecProcessor`] that hold the same
    items in the same order.
    """

    model: Any
    processor: Any

    _load_processor: Any = True
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError("the sequential-recommendation pipeline needs a processor; pass processor=...")
        model_ids = self.model.item_ids
        if model_ids is not None and model_ids != self.processor.item_ids:
            raise ValueError(
                f"the model and the processor hold different items ({len(model_ids)} and "
                f"{len(self.processor.item_ids)}, or in another order); call set_items(catalog) of both with the same "
                "catalogue"
            )

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        exclude_history: bool | None = None,
        candidates: Iterable[Any] | None = None,
        unknown_items: str | None = None,
        empty_histories: str | None = None,
        time_unit: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        read = {"unknown_items": unknown_items, "empty_histories": empty_histories, "time_unit": time_unit}
        choose = {"top_k": top_k, "exclude_history": exclude_history, "candidates": candidates}
        read = {name: value for name, value in read.items() if value is not None}
        choose = {name: value for name, value in choose.items() if value is not None}
        if "unknown_items" in read:
            choose["unknown_items"] = read["unknown_items"]
        return read, {}, choose

    def __call__(
        self,
        inputs: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """
        Args:
            inputs (`dict` or an iterable of them):
                Histories: `"items"`, external ids, and `"timestamps"`, in any form that the processor reads. Without
                them a model that reads times gets events a day apart, oldest first, and a warning is given once.
            batch_size (`int`, *optional*, defaults to 256): Histories that are scored at once.
            top_k (`int`, *optional*, defaults to 10): Items to return; fewer where fewer are left.
            exclude_history (`bool`, *optional*, defaults to `True`): Whether items of the history are left out.
            candidates (`list` of ids, *optional*): The only items that may be returned.
            unknown_items (`"skip"` or `"error"`, *optional*, defaults to `"skip"`): Ids not in the catalogue.
            empty_histories (`"error"` or `"default"`, *optional*, defaults to `"error"`): Users without events.
            time_unit (`str`, *optional*): Unit of integer timestamps; told by their magnitude by default.

        Returns:
            `list[dict]` for one history, a list of these for several: `"item_id"`, `"score"` and its two parts
            `"text_score"` and `"image_score"`, and `"title"` (`None` where the catalogue has none), best first.
        """
        read, _, choose = self._sanitize_parameters(**kwargs)
        read, choose = {**self._preprocess_params, **read}, {**self._postprocess_params, **choose}
        batch_size = batch_size or self._batch_size or _BATCH_SIZE
        if isinstance(inputs, Mapping):
            return self._recommend([inputs], read, choose)[0]
        return [result for batch in _batches(inputs, batch_size) for result in self._recommend(batch, read, choose)]

    def _recommend(
        self, histories: list[Mapping[str, Any]], read: dict[str, Any], choose: dict[str, Any]
    ) -> list[list[dict[str, Any]]]:
        was_training = self.model.training
        self.model.eval()
        try:
            return self.run_single(histories, read, {}, choose)
        finally:
            self.model.train(was_training)

    def preprocess(self, histories: Sequence[Mapping[str, Any]], **options: Any) -> dict[str, Any]:
        """Histories to the model's inputs, and the rows that each history holds."""
        inputs = dict(self.processor(histories=histories, return_tensors="pt", **options))
        if self.model.config.use_time and "timestamps" not in inputs:
            logger.warning_once("histories without timestamps are read as events a day apart, oldest first")
            mask = inputs["attention_mask"]
            inputs["timestamps"] = (mask.cumsum(1) - 1) * mask * _DAY
        # The whole history, not only the events that the model reads.
        unknown_items = options.get("unknown_items", "skip")
        return inputs | {"seen": [self.processor.rows(history["items"], unknown_items)[0] for history in histories]}

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        seen = inputs.pop("seen")
        outputs = self.model(**inputs)
        return {"logits": outputs.logits, "user_embeds": outputs.user_embeds, "seen": seen}

    def postprocess(
        self,
        outputs: dict[str, Any],
        top_k: int = 10,
        exclude_history: bool = True,
        candidates: Iterable[Any] | None = None,
        unknown_items: str = "skip",
    ) -> list[list[dict[str, Any]]]:
        """The best items of each history that are not masked."""
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        scores: Tensor = outputs["logits"].float()
        masked = torch.zeros_like(scores, dtype=torch.bool)
        if candidates is not None:
            masked[:] = True
            masked[:, self.processor.rows(candidates, unknown_items)[0]] = False
        masked[:, 0] = True  # the padding item
        if exclude_history:
            for number, rows in enumerate(outputs["seen"]):
                masked[number, rows] = True
        best = scores.masked_fill(masked, float("-inf")).topk(min(top_k, scores.shape[1]), dim=1).indices
        keep = ~masked.gather(1, best)
        user_embeds = outputs["user_embeds"].to(self.model.device)
        parts = self.model.modality_scores(user_embeds, best.to(self.model.device))
        text, image = (part.tolist() for part in parts)
        return [
            [
                {
                    "item_id": self.processor.item_ids[row - 1],
                    "score": text[number][place] + image[number][place],
                    "text_score": text[number][place],
                    "image_score": image[number][place],
                    "title": self.processor.title(row),
                }
                for place, row in enumerate(rows)
                if keep[number, place]
            ]
            for number, rows in enumerate(best.tolist())
        ]


def _batches(histories: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    batch = []
    for history in histories:
        batch.append(history)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


__all__ = ["SequentialRecommendationPipeline"]
