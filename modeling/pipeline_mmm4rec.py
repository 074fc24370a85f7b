"""`pipeline("sequential-recommendation")`: histories of external ids to ranked items with their scores."""

import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from transformers import Pipeline
from transformers.utils import logging

from .items_mmm4rec import l2_normalize
from .retrieval_mmm4rec import NAN_SCORES, HistoryTerms, TopItems

logger = logging.get_logger(__name__)

_BATCH_SIZE = 256
_DAY = 86_400
# Of 2**14 a call would take 2.5 times as long, and tens of megabytes for copies.
_EMBEDDED = 2**11  # items whose two embeddings are held at a time
# Of user vectors by a program, relative to their length; other weights of one step of training are further off.
_ENCODER_ERROR = 1e-3
# Histories of a call for which a program, which pads each of them, is faster than the layers, which pack them.
_MOST_ENCODED = 16
# What similar items are compared by: weights of the text's and the picture's cosine.
_COMPARED = {"text": (1.0, 0.0), "image": (0.0, 1.0), "both": (0.5, 0.5)}


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
    items in the same order; a processor that keeps fewer events than the model reads is made to keep as many. A base
    model is given items that it never saw, to recommend from them without training:

    ```python
    >>> recommend = pipeline("sequential-recommendation", model="org/mmm4rec-base")
    >>> recommend.set_items(catalog)
    ```

    Any thread may call it, and change its items meanwhile: calls take turns, so that one catalogue answers each.
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
        self._check_same_items()
        kept, read = self.processor.max_sequence_length, self.model.config.max_sequence_length
        if kept < read:
            # Only ever raised: another pipeline's model may read more than this one, and each cuts what is too long.
            logger.warning(
                f"the processor kept the last {kept} events of a history, the model reads {read}: it keeps {read} "
                "from now on; save it again"
            )
            self.processor.max_sequence_length = read
        self._index: Any = None
        self._encoder: Any = None
        self._encoded_weights: Any = None
        self._top_items: TopItems | None = None
        # One call of the model uses all cores already: several at once would only make each slower.
        self._turn = threading.RLock()

    def _check_same_items(self) -> None:
        """By their ids, or by their number where a model does not know its own and the processor has some."""
        model_ids, ids, num_items = self.model.item_ids, self.processor.item_ids, self.model.config.num_items
        if model_ids is None and (num_items is None or not ids or num_items == len(ids)):
            return
        if model_ids != ids:
            raise ValueError(
                f"the model and the processor hold different items ({num_items} and {len(ids)}, or in another order); "
                "call set_items(catalog) of both with the same catalogue"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_turn"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _turn=threading.RLock())

    def set_items(self, catalog: Any) -> None:
        """
        Gives model and processor the same items, in place of those they held.

        Args:
            catalog (`ItemCatalog` or any object with its attributes): With features of the model's encoder.

        Raises:
            ValueError: As [`~MMM4RecForSequentialRecommendation.set_items`].
        """
        with self._turn:
            _ = catalog.titles  # what the processor needs is missed before the model has changed
            self.model.set_items(catalog)
            self.processor.set_items(catalog)
            self._index = None

    def use_index(self, index: Any) -> None:
        """
        Lets an approximate index choose the items among which the best are found; their scores stay exact.

        Args:
            index (any object with `search(users, k)`, *optional*):
                Gives rows of the model, `(b, k)`, for user vectors `(b, H)`, 0 where it has none, such as
                [`FaissIndex`]; `None` for the exact search. Candidates are always ranked exactly.
        """
        with self._turn:
            self._index = index

    def use_encoder(self, encoder: Any) -> None:
        """
        Lets a program compute user vectors in place of the model's layers, for a faster answer to one history or a
        few (16); of more histories a call the layers, which pack them side by side, are faster and go on.

        Args:
            encoder (`Callable`, *optional*):
                As [`~MMM4RecForSequentialRecommendation.user_embeds`] takes it, such as [`OnnxUserEncoder`]; `None`
                for the model's layers. Other items ask for no other program.

        Raises:
            ValueError: If it gives other vectors than the model, now or once the model's weights have changed; then
                the model's layers compute them again.
        """
        with self._turn:
            self._encoder, self._encoded_weights = encoder, None
            self._check_encoder()

    def _check_encoder(self) -> None:
        """Compares the program with the layers, unless it has been since weights changed."""
        if self._encoder is None:
            return
        layers = self.model.model.encoder
        # Half the time of `layers.parameters()`, in every call.
        parameters = [w for module in layers.modules() for w in module._parameters.values() if w is not None]
        weights: list[Any] = [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in parameters]
        # Writing through `.data`, as averages of weights are swapped in, is counted by nobody. The small ones tell.
        weights += torch.stack([w.sum(dtype=torch.float32) for w in parameters if w.ndim == 1]).tolist()
        if weights == self._encoded_weights:
            return
        encoder, self._encoder, self._encoded_weights = self._encoder, None, None
        expected, found = _drawn_vectors(layers, encoder)
        error = (found.to(expected.device).float() - expected).norm() / expected.norm()
        if not error <= _ENCODER_ERROR:
            raise ValueError(
                f"the encoder's user vectors are {error:.2g} off the model's, {_ENCODER_ERROR:g} at most is allowed; "
                "it was made of other weights or in another precision: export it again from this model"
            )
        self._encoder, self._encoded_weights = encoder, weights

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        Saves the model and the processor, which other pipelines leave out.

        Args:
            save_directory (`str` or `os.PathLike`): The folder, made if it is absent.
            kwargs: Passed on to [`~Pipeline.save_pretrained`].
        """
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

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
        if candidates is not None and not isinstance(candidates, str):
            choose["candidates"] = list(candidates)  # each batch looks at them
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
            `"text_score"` and `"image_score"`, and `"title"` (`None` where the catalogue has none), best first. Of a
            model with `use_cooccurrence` a third part, `"cooccurrence_score"`.
        """
        read, _, choose = self._sanitize_parameters(**kwargs)
        read, choose = {**self._preprocess_params, **read}, {**self._postprocess_params, **choose}
        batch_size = batch_size or self._batch_size or _BATCH_SIZE
        with self._turn:
            if isinstance(inputs, Mapping):
                return self._recommend([inputs], read, choose)[0]
            batches = in_batches(inputs, batch_size)
            return [result for batch in batches for result in self._recommend(batch, read, choose)]

    def _recommend(
        self, histories: list[Mapping[str, Any]], read: dict[str, Any], choose: dict[str, Any]
    ) -> list[list[dict[str, Any]]]:
        # Switching every module to and fro would take longer than reading a history.
        training = [module for module in self.model.modules() if module.training]
        if training:
            self.model.eval()
        try:
            self._check_encoder()
            return self.run_single(histories, read, {}, choose)
        finally:
            for module in training:
                module.training = True

    def preprocess(self, histories: Sequence[Mapping[str, Any]], **options: Any) -> dict[str, Any]:
        """Histories to the model's inputs, and `seen`: the rows that each history holds."""
        inputs, seen = self.processor.read_histories(histories, **options)
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        if self.model.config.use_time and "timestamps" not in tensors:
            if any(seen):
                logger.warning_once("histories without timestamps are read as events a day apart, oldest first")
            mask = tensors["attention_mask"]
            tensors["timestamps"] = (mask.cumsum(1) - 1) * mask * _DAY
        # The whole history, not only the events that the model reads.
        return tensors | {"seen": seen}

    def get_inference_context(self) -> Any:
        """What the base class computes user vectors under: cheaper than `torch.no_grad` by a tenth of a call."""
        return torch.inference_mode

    def forward(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        """User vectors, beside the rows of each history and what is kept of the items."""
        # The base class would look at every number of `seen`, and take the items' tensors to the CPU. The items are
        # looked up here, once a call, because what is made in inference mode could never take part in a training.
        with torch.no_grad():
            items = self.model.kept_items()
        tensors = {name: value for name, value in inputs.items() if name != "seen"}
        outputs = super().forward(tensors | {"item_embeds": items[1]}, **options)
        return outputs | {"seen": inputs["seen"], "items": items}

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        encoder = self._encoder if len(inputs["input_ids"]) <= _MOST_ENCODED else None
        outputs = {"user_embeds": self.model.user_embeds(**inputs, encoder=encoder)}
        terms = self.model.cooccurrence_terms(inputs["input_ids"], inputs["attention_mask"])
        return outputs if terms is None else outputs | {"term_rows": terms[0], "terms": terms[1]}

    def postprocess(
        self,
        outputs: dict[str, Any],
        top_k: int = 10,
        exclude_history: bool = True,
        candidates: Iterable[Any] | None = None,
        unknown_items: str = "skip",
    ) -> list[list[dict[str, Any]]]:
        """The best items of each history that are not left out."""
        _check_top_k(top_k)
        vectors, tables = outputs["items"]
        users = outputs["user_embeds"].to(vectors.device).float()
        excluded = outputs["seen"] if exclude_history else [[] for _ in outputs["seen"]]
        terms, wanted = None, top_k
        if "terms" in outputs:
            terms = HistoryTerms(outputs["term_rows"].to(users.device), outputs["terms"].to(users.device).float())
            wanted += terms.most_lowered
        allowed = None
        if candidates is not None:
            allowed = sorted(set(self.processor.rows(candidates, unknown_items)[0]))
            rows, products = _best_candidates(users, vectors, allowed, excluded, wanted)
        elif self._index is not None:
            rows, products = self._best_by_index(users, vectors, excluded, wanted)
        else:
            # The padding item is in row 0.
            products, rows = self._exact_search(vectors).search(
                users, wanted, [[row - 1 for row in left_out] for left_out in excluded]
            )
            rows = rows + 1
        parts = {}
        if terms is not None:
            temperature = self.model.config.score_temperature
            rows, products = terms.best(
                users / temperature, vectors, rows, products / temperature, excluded, allowed, top_k
            )
            parts["cooccurrence_score"] = terms.of(rows)
        if products.isnan().any():
            # NaN is sorted before every number, so that it cannot stay below the best items.
            raise ValueError(NAN_SCORES)
        text, image = self.model.modality_scores(users, rows, tables)
        parts = {"text_score": text, "image_score": image} | parts
        item_ids, title = self.processor.item_ids, self.processor.title
        # As lists: every look into a tensor is an operation.
        lines = zip(*(values.tolist() for values in (rows, products, *parts.values())), strict=True)
        return [
            [
                {
                    "item_id": item_ids[row - 1],
                    "score": sum(scores),
                    **dict(zip(parts, scores, strict=True)),
                    "title": title(row),
                }
                for row, product, *scores in zip(*line, strict=True)
                if product > -math.inf
            ]
            for line in lines
        ]

    def _exact_search(self, vectors: Tensor) -> TopItems:
        """The search over all items but the padding item, made again when their vectors have changed."""
        vectors = vectors[1:]
        search = self._top_items
        if search is None or search.vectors.data_ptr() != vectors.data_ptr() or len(search.vectors) != len(vectors):
            search = self._top_items = TopItems(vectors)
        return search

    def _best_by_index(
        self, users: Tensor, vectors: Tensor, excluded: list[list[int]], top_k: int
    ) -> tuple[Tensor, Tensor]:
        """[b, k] twice: the best rows of those that the index finds, and their products, -inf where none is left."""
        # As many more as may have to be left out, and some for what the index ranks otherwise.
        wanted = 2 * top_k + max(len(set(rows)) for rows in excluded)
        rows = self._index.search(users, min(wanted, self.model.items.num_rows - 1)).to(users.device)
        products = torch.einsum("bh,bkh->bk", users, vectors[rows])
        length = max(1, *(len(left_out) for left_out in excluded))
        left_out = torch.tensor([[*rows, *[0] * (length - len(rows))] for rows in excluded], device=rows.device)
        masked = (rows.unsqueeze(2) == left_out.unsqueeze(1)).any(2) | (rows == 0)
        best = products.masked_fill(masked, -torch.inf).topk(min(top_k, rows.shape[1]), dim=1)
        return rows.gather(1, best.indices), best.values

    @torch.no_grad()
    def similar_items(
        self,
        items: Any,
        top_k: int = 10,
        by: str = "both",
        candidates: Iterable[Any] | None = None,
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """
        The items whose embeddings point in the most similar direction; no history takes part.

        Args:
            items (`str`, `int` or a list of them): External ids.
            top_k (`int`, *optional*, defaults to 10): Items to return; fewer where there are fewer.
            by (`"text"`, `"image"` or `"both"`, *optional*, defaults to `"both"`): What is compared.
            candidates (`list` of ids, *optional*): The only items that may be returned.

        Returns:
            `list[dict]` for one item, a list of these for several: `"item_id"`, `"score"`, which is the mean of
            `"text_score"` and `"image_score"` or one of the two, each a cosine in [-1, 1], and `"title"`.

        Raises:
            ValueError: For an item that is not in the catalogue, or another `by`.
        """
        if by not in _COMPARED:
            raise ValueError(f"by must be one of {', '.join(map(repr, _COMPARED))}, got {by!r}")
        _check_top_k(top_k)
        alone = isinstance(items, str | Integral)
        results = []
        with self._turn:
            rows, _ = self.processor.rows([items] if alone else items, "error")
            own = torch.tensor(rows, dtype=torch.long, device=self.model.device)
            allowed = None if candidates is None else sorted(set(self.processor.rows(candidates)[0]))
            for part in own.split(_BATCH_SIZE):
                results += self._similar(part, top_k, by, allowed)
        return results[0] if alone else results

    def _similar(self, own: Tensor, top_k: int, by: str, allowed: list[int] | None) -> list[list[dict[str, Any]]]:
        """Compares `_EMBEDDED` items at a time, which bounds memory; the best `top_k` for each row of `own` stay."""
        weights = _COMPARED[by]
        queries = torch.cat([weight * part for weight, part in zip(weights, self._directions(own), strict=True)], 1)
        chosen = torch.arange(1, self.model.items.num_rows, device=own.device)
        if allowed is not None:
            chosen = torch.tensor(allowed, dtype=torch.long, device=own.device)
        best: Tensor | None = None
        found = chosen.new_zeros(len(own), 0)
        for rows in chosen.split(_EMBEDDED):
            scores = queries @ torch.cat(self._directions(rows), 1).T
            scores = scores.masked_fill(rows == own.unsqueeze(1), -torch.inf)
            scores = scores if best is None else torch.cat([best, scores], 1)
            rows = torch.cat([found, rows.expand(len(own), -1)], 1)
            top = scores.topk(min(top_k, scores.shape[1]), dim=1)
            best, found = top.values, rows.gather(1, top.indices)
        if best is None:
            return [[] for _ in own]
        if best.isnan().any():
            raise ValueError(NAN_SCORES)
        mine = self._directions(own)
        parts = [
            torch.einsum("bh,bkh->bk", one, self._directions(found.flatten())[column].unflatten(0, found.shape))
            for column, one in enumerate(mine)
        ]
        # Rounding leaves a little more than 1.
        text, image = (part.clamp(-1, 1).tolist() for part in parts)
        return [
            [
                {
                    "item_id": self.processor.item_ids[row - 1],
                    "score": weights[0] * text[number][place] + weights[1] * image[number][place],
                    "text_score": text[number][place],
                    "image_score": image[number][place],
                    "title": self.processor.title(row),
                }
                for place, row in enumerate(line)
                if best[number, place] > -torch.inf
            ]
            for number, line in enumerate(found.tolist())
        ]

    def _directions(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[n] -> [n, H] twice: text and image embeddings of length 1."""
        # Projecting the features of all items for every call would take a hundred times as long as comparing them.
        tables = self.model.kept_items()[1]
        text, image = self.model.item_embeds(rows) if tables is None else (table[rows] for table in tables)
        return l2_normalize(text), l2_normalize(image)


@torch.no_grad()
def _drawn_vectors(layers: Any, encoder: Any) -> tuple[Tensor, Tensor]:
    """[4, H] twice: what the layers and a program make of drawn embeddings, of 1, 2 and all events."""
    config, weight = layers.config, layers.text_norm.weight
    length, draw = config.max_sequence_length, torch.Generator().manual_seed(0)
    mask = torch.arange(length) < torch.tensor([1, 2, length, length]).clamp_max(length).unsqueeze(1)
    times = 1_600_000_000 + torch.randint(10 * _DAY, mask.shape, generator=draw).cumsum(1)
    mask, times = mask.to(weight.device), (times * mask).to(weight.device)
    text, image = (
        torch.randn(*mask.shape, config.hidden_size, generator=draw).to(weight.device, weight.dtype) for _ in range(2)
    )
    rows = torch.arange(mask.numel(), device=weight.device).view(mask.shape)
    training = [module for module in layers.modules() if module.training]
    layers.eval()
    try:
        expected = layers.user_embeds(
            rows, text.flatten(0, 1), image.flatten(0, 1), times if config.use_time else None, mask
        )
        return expected.float(), encoder(text, image, times, mask.long())
    finally:
        for module in training:
            module.training = True


def _best_candidates(
    users: Tensor, vectors: Tensor, candidates: list[int], excluded: list[list[int]], top_k: int
) -> tuple[Tensor, Tensor]:
    """[b, k] twice: the best rows among the candidates, and their products, -inf where none is left."""
    rows = torch.tensor(candidates, dtype=torch.long, device=users.device)
    if not candidates:
        return rows.expand(len(users), 0), users.new_zeros(len(users), 0)
    place = {row: number for number, row in enumerate(candidates)}
    taken = [[place[row] for row in left_out if row in place] for left_out in excluded]
    products, found = TopItems(vectors[rows]).search(users, top_k, taken)
    return rows[found], products


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")


def in_batches(histories: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of so many histories, the last of what is left; no more of them are read than one list holds."""
    batch = []
    for history in histories:
        batch.append(history)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


__all__ = ["SequentialRecommendationPipeline"]
