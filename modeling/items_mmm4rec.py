"""The catalogue inside a model: features, item biases and fusion weights; everything that belongs to item ids."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from .configuration_mmm4rec import MMM4RecConfig
from .ids_mmm4rec import canonical_id

logger = logging.get_logger(__name__)

_CHECKED = 2**16  # rows whose features are looked at together


def l2_normalize(x: Tensor, eps: float = 1e-12) -> Tensor:
    """Rows of length 1, float32; rows of length at most `eps` become 0 and give no gradient: it would be 1 / eps."""
    x = x.float()
    norm = x.square().sum(-1, keepdim=True).clamp_min(eps**2).sqrt()
    return torch.where(norm <= eps, torch.zeros_like(x), x / norm)  # NaN stays NaN


class MMM4RecItems(nn.Module):
    """
    Rows 1..I hold the catalogue's items, row 0 the padding item, whose features are zeros.

    Args:
        config ([`MMM4RecConfig`]): With `num_items=None` there are no rows yet.
    """

    text_features: Tensor | None
    image_features: Tensor | None
    text_is_missing: Tensor | None
    image_is_missing: Tensor | None
    log_q: Tensor | None

    def __init__(self, config: MMM4RecConfig):
        super().__init__()
        self.config = config
        # A pair for all items needs no catalogue; a pair an item is made with its row.
        self.fusion_factor = nn.Parameter(torch.zeros(2)) if config.fusion == "dynamic_shared" else None
        # Shared by all items as well, so that they serve any catalogue.
        size = config.hidden_size
        self.missing_text = nn.Parameter(torch.zeros(size)) if config.learned_missing else None
        self.missing_image = nn.Parameter(torch.zeros(size)) if config.learned_missing else None
        self._allocate(config.num_items)

    def _allocate(self, num_items: int | None) -> None:
        text = image = text_bias = image_bias = text_is_missing = image_is_missing = None
        if num_items is not None:
            rows = num_items + 1
            text = torch.zeros(rows, self.config.text_feature_size)
            image = torch.zeros(rows, self.config.image_feature_size)
            if self.config.learned_missing:
                text_is_missing = torch.zeros(rows, dtype=torch.bool)
                image_is_missing = torch.zeros(rows, dtype=torch.bool)
            if self.config.use_item_bias:
                text_bias = nn.Parameter(torch.zeros(rows, self.config.hidden_size))
                image_bias = nn.Parameter(torch.zeros(rows, self.config.hidden_size))
            if self.config.fusion == "dynamic_instance":
                self.fusion_factor = nn.Parameter(torch.zeros(rows, 2))
        self.register_buffer("text_features", text)
        self.register_buffer("image_features", image)
        self.register_buffer("text_is_missing", text_is_missing)
        self.register_buffer("image_is_missing", image_is_missing)
        # Belongs to the training data and not to the model: it is neither saved nor kept for another catalogue.
        self.register_buffer("log_q", None, persistent=False)
        self.is_log_q_counted = False  # by a trainer: the next one counts its own rows
        self.text_bias = text_bias
        self.image_bias = image_bias

    @property
    def num_rows(self) -> int:
        """`int`: Items and the padding item; 0 before a catalogue is set."""
        return 0 if self.text_features is None else len(self.text_features)

    def with_missing(self, text: Tensor, image: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Puts the learned vector in place of embeddings whose text or picture is missing.

        Args:
            text (`torch.Tensor` of shape `(n, H)`): Text embeddings of `rows`, without item biases.
            image (`torch.Tensor` of shape `(n, H)`): Image embeddings.
            rows (`torch.LongTensor` of shape `(n,)`, *optional*): By default all rows.
        """
        no_text, no_image = self.text_is_missing, self.image_is_missing
        if no_text is None or no_image is None:
            return text, image
        return self.fill(text, image, *((no_text, no_image) if rows is None else (no_text[rows], no_image[rows])))

    def fill(self, text: Tensor, image: Tensor, no_text: Tensor, no_image: Tensor) -> tuple[Tensor, Tensor]:
        """
        Puts the learned vectors where something is missing, and in training where `modality_dropout` leaves it out;
        without `learned_missing` nothing changes.

        Args:
            text (`torch.Tensor` of shape `(n, H)`): Text embeddings, without item biases.
            image (`torch.Tensor` of shape `(n, H)`): Image embeddings.
            no_text (`torch.BoolTensor` of shape `(n,)`): Whose text is missing.
            no_image (`torch.BoolTensor` of shape `(n,)`): Whose picture is missing.
        """
        if self.missing_text is None or self.missing_image is None:
            return text, image
        if self.training and self.config.modality_dropout and torch.is_grad_enabled():
            draw = torch.rand(len(text), device=text.device)
            half = self.config.modality_dropout / 2
            # Never both.
            leave_text, leave_image = (draw < half) & ~no_image, (draw >= 1 - half) & ~no_text
            no_text, no_image = no_text | leave_text, no_image | leave_image
        text = torch.where(no_text.unsqueeze(-1), self.missing_text.to(text.dtype), text)
        return text, torch.where(no_image.unsqueeze(-1), self.missing_image.to(image.dtype), image)

    @property
    def learned_by_row(self) -> set[str]:
        """`set[str]`: Names of the parameters that hold one row an item, where there are any."""
        names = {"text_bias", "image_bias"}
        return names | {"fusion_factor"} if self.config.fusion == "dynamic_instance" else names

    def fusion_weights(self, rows: Tensor | None = None) -> Tensor | None:
        """
        Weights of the text and the image score, `(2,)` or `(num_items + 1, 2)`, or `None` where both are 1; with
        `rows`, `(n,)`, the second is `(n, 2)`.
        """
        if self.fusion_factor is None:
            return None
        factor = self.fusion_factor if rows is None or self.fusion_factor.ndim == 1 else self.fusion_factor[rows]
        return factor.float().softmax(-1)

    @torch.no_grad()
    def set_frequencies(self, counts: Tensor) -> None:
        """
        Tells how often each item is a target of the training data, for the losses that correct for it.

        Args:
            counts (`torch.Tensor` of shape `(num_items + 1,)`): By row; the padding item's is not read.

        Raises:
            ValueError: For another shape, or counts that are negative or not finite.
        """
        if counts.shape != (self.num_rows,):
            raise ValueError(
                f"item frequencies have shape {tuple(counts.shape)}; it must be ({self.num_rows},): one a row of the "
                f"model, which holds {self.num_rows - 1} items and the padding item"
            )
        counts = counts.double()
        if not (counts.isfinite() & (counts >= 0)).all():
            raise ValueError("item frequencies must be finite and not negative")
        # An item that was never a target counts as one that was once: it must be possible to draw it.
        counts = counts.clamp_min(1)
        counts[0] = 0
        self.is_log_q_counted = False
        self.log_q = (counts / counts.sum()).log().float().to(self.get_buffer("text_features").device)

    @torch.no_grad()
    def set(
        self,
        text: Tensor,
        image: Tensor,
        old_rows: Tensor | None,
        like: Tensor,
        missing: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        """
        Replaces the catalogue.

        Args:
            text (`torch.Tensor` of shape `(num_items, text_feature_size)`): Text features, one row an item.
            image (`torch.Tensor` of shape `(num_items, image_feature_size)`): Image features.
            old_rows (`torch.Tensor` of shape `(num_items,)`, *optional*):
                The row that each item had before, 0 for a new one: what was learned for an item stays with it.
            like (`torch.Tensor`): A weight of the model, whose device and dtype the rows take.
            missing (`tuple(torch.BoolTensor)`, *optional*):
                Whose text and whose picture is missing, each of shape `(num_items,)`; read with `learned_missing`.

        Raises:
            ValueError: For features that the model's precision cannot hold, naming the place; nothing has changed.
        """
        _check_range(text, "text", like.dtype)
        _check_range(image, "image", like.dtype)
        before = {name: value for name, value in self.named_parameters() if name in self.learned_by_row}
        self._allocate(len(text))
        self.to(device=like.device, dtype=like.dtype)
        for name, features in (("text_features", text), ("image_features", image)):
            self.get_buffer(name)[1:] = features
        for name, is_missing in zip(("text_is_missing", "image_is_missing"), missing, strict=True):
            if self.config.learned_missing and is_missing is not None:
                self.get_buffer(name)[1:] = is_missing
        for name, old in before.items():
            new = self.get_parameter(name)
            new[0] = old[0]
            if old_rows is not None:
                known = (old_rows > 0).to(old.device)
                new[1:][known] = old[old_rows.to(old.device)[known]]


def _check_range(features: Tensor, modality: str, dtype: torch.dtype) -> None:
    """Refuses finite features that would be infinite in the precision of a model."""
    if dtype == features.dtype:
        return
    for start, part in enumerate(features.split(_CHECKED)):
        finite = part.to(dtype).isfinite().all(dim=1)
        if not finite.all():
            place = start * _CHECKED + int((~finite).nonzero()[0, 0]) + 1
            raise ValueError(
                f"the {modality} features of item number {place} of the catalogue are beyond "
                f"{torch.finfo(dtype).max:.6g}, the largest {str(dtype).removeprefix('torch.')}; load the model in "
                "float32 or bfloat16"
            )


def check_catalog(catalog: Any, config: MMM4RecConfig) -> tuple[list[str], Tensor, Tensor]:
    """
    Item ids and features of a catalogue, checked against a model's configuration.

    Args:
        catalog (`ItemCatalog` or any object with its attributes):
            `item_ids`, `text_features` of shape `(num_items, text_feature_size)` and `image_features` of shape
            `(num_items, image_feature_size)`, in the same order.
        config ([`MMM4RecConfig`]): The model's configuration.

    Returns:
        `tuple`: The ids as strings, and both features as float32 tensors.

    Raises:
        ValueError: For an empty catalogue, an id given twice, absent features, a wrong shape, or values that are not
            finite.
    """
    item_ids = [canonical_id(item_id) for item_id in catalog.item_ids]
    if not item_ids:
        raise ValueError("the catalogue is empty; a model needs at least one item")
    if len(set(item_ids)) != len(item_ids):
        seen: set[str] = set()
        twice = next(i for i in item_ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise ValueError(f"item id {twice!r} stands more than once in the catalogue; each item needs an id of its own")
    features = []
    for name, size in (("text", config.text_feature_size), ("image", config.image_feature_size)):
        values = getattr(catalog, f"{name}_features")
        if values is None:
            raise ValueError(f"the catalogue has no {name} features; encode it first: catalog.encode(encoder)")
        tensor = torch.as_tensor(values).float()
        if tuple(tensor.shape) != (len(item_ids), size):
            raise ValueError(
                f"the catalogue's {name} features have shape {tuple(tensor.shape)}, the model needs "
                f"({len(item_ids)}, {size}): one row an item, {name}_feature_size wide; encode it with the encoder "
                f"that the model was trained with, or give {name}_feature_size to the MMM4RecConfig of a new one"
            )
        finite = tensor.isfinite().all(dim=1)
        if not finite.all():
            bad = item_ids[int((~finite).nonzero()[0, 0])]
            raise ValueError(f"the {name} features of item {bad!r} hold NaN or infinity; encode the item again")
        features.append(tensor)
    return item_ids, features[0], features[1]


def missing_items(catalog: Any, config: MMM4RecConfig) -> tuple[Tensor | None, Tensor | None]:
    """
    Which items lack a text and which a picture.

    Args:
        catalog (`ItemCatalog` or any object with its attributes):
            May have `text_mask` and `image_mask`, bool of shape `(num_items,)`, False where an item has none; and
            `feature_info`, which tells what stands in the features there.
        config ([`MMM4RecConfig`]): The model's configuration.

    Returns:
        `tuple(torch.BoolTensor)`: Each of shape `(num_items,)`, `None` where the catalogue has no mask.

    Raises:
        ValueError: If the catalogue leaves it to the model what stands for a missing one, and the model has no vector.
    """
    info = getattr(catalog, "feature_info", None) or {}
    masks: list[Tensor | None] = []
    for name in ("text", "image"):
        mask = getattr(catalog, f"{name}_mask", None)
        is_missing = None if mask is None else ~torch.as_tensor(mask, dtype=torch.bool)
        left_to_model = info.get(name, {}).get("missing") == "learned"
        if left_to_model and not config.learned_missing and is_missing is not None and is_missing.any():
            raise ValueError(
                f"{int(is_missing.sum())} items of the catalogue have no {name}, and it was encoded with "
                "missing='learned', which leaves them to a model with learned_missing=True; this one has False: "
                "configure it so, or encode with missing='white' or 'zeros'"
            )
        masks.append(is_missing)
    return masks[0], masks[1]


def agreed_encoder(catalog: Any, config: MMM4RecConfig) -> dict[str, dict[str, Any]] | None:
    """
    What makes a model's features, once a catalogue is set: features of two encoders do not mean the same.

    Args:
        catalog (`ItemCatalog` or any object with its attributes):
            May have `feature_info`: for `"text"` and `"image"` a dictionary with `encoder`, `revision` and `pooling`.
        config ([`MMM4RecConfig`]): The model's configuration.

    Returns:
        `dict`: The new value of `config.feature_encoder`.

    Raises:
        ValueError: If the catalogue's features were made by another encoder than the model's.
    """
    info = getattr(catalog, "feature_info", None) or {}
    known = config.feature_encoder or {}
    agreed = dict(known)
    for name in ("text", "image"):
        if name not in info:
            if name in known:
                logger.warning_once(
                    f"the catalogue does not tell what made its {name} features; the model's were made by "
                    f"{_described(known[name])}"
                )
            continue
        given = encoder_identity(info[name])
        if name in known and not _is_same_encoder(known[name], given):
            raise ValueError(
                f"the model reads {name} features of {_described(known[name])}, the catalogue's were made by "
                f"{_described(given)}; encode the catalogue with the model's encoder, or train for the new one from "
                "model.config.feature_encoder = None on"
            )
        agreed.setdefault(name, given)
    return agreed or None


def encoder_identity(info: Mapping[str, Any]) -> dict[str, Any]:
    """What tells encoders apart, of all that a catalogue records of one: `encoder`, `revision` and `pooling`."""
    return {key: info.get(key) for key in ("encoder", "revision", "pooling")}


def _is_same_encoder(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    revisions = [str(encoder.get("revision") or "") for encoder in (one, other)]
    # A digest of a folder's weights tells more than the folder's name; a commit of the Hub is of another kind.
    comparable = all(revisions) and revisions[0].startswith("sha256:") == revisions[1].startswith("sha256:")
    what = "revision" if comparable else "encoder"
    return bool(one.get(what) == other.get(what) and one.get("pooling") == other.get("pooling"))


def _described(encoder: Mapping[str, Any]) -> str:
    details = [f"{key} {encoder[key]}" for key in ("revision", "pooling") if encoder.get(key)]
    return f"{encoder.get('encoder')!r}" + (f" ({', '.join(details)})" if details else "")


def previous_rows(item_ids: Sequence[str], old_ids: Sequence[str] | None) -> Tensor | None:
    """Row of each of `item_ids` in a model that holds `old_ids`, 0 where it is new; `None` where nothing was held."""
    if old_ids is None:
        return None
    rows = {item_id: row for row, item_id in enumerate(old_ids, start=1)}
    return torch.tensor([rows.get(item_id, 0) for item_id in item_ids])


__all__ = [
    "MMM4RecItems",
    "agreed_encoder",
    "check_catalog",
    "encoder_identity",
    "l2_normalize",
    "missing_items",
    "previous_rows",
]
