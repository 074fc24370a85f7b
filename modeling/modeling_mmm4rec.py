"""MMM4Rec (arXiv 2506.02916): a multi-modal state space model for sequential recommendation.

Letters in shape comments: b batch, l `max_sequence_length`, H `hidden_size`, E `inner_size`, h heads, p `head_dim`,
g groups, n `state_size`.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput, can_return_tuple, logging

from .cache_mmm4rec import WeightCache
from .configuration_mmm4rec import MMM4RecConfig
from .cooccurrence_mmm4rec import MMM4RecCooccurrence
from .encoder_mmm4rec import MMM4RecEncoder, MMM4RecModelOutput
from .ids_mmm4rec import load_item_ids, save_item_ids
from .items_mmm4rec import MMM4RecItems, agreed_encoder, check_catalog, l2_normalize, missing_items, previous_rows
from .loss_mmm4rec import (
    check_labels,
    cross_entropy_of_scores,
    draw_negatives,
    full_cross_entropy,
    in_batch_cross_entropy,
    sampled_cross_entropy,
)
from .packing_mmm4rec import events_first
from .pretrained_mmm4rec import MMM4RecPreTrainedModel
from .transfer_mmm4rec import check_complete, hub_arguments, load_report_held, take_catalog, without_items

logger = logging.get_logger(__name__)

UserEncoder = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

_LARGEST_TABLE = 2**25  # values of an item table that is kept beside the item vectors (128 MB)
_EMBEDDED_ROWS = 2**14  # items of a larger one that are embedded at a time


@dataclass
class MMM4RecOutput(ModelOutput):
    """
    Output of [`MMM4RecForSequentialRecommendation`].

    Args:
        loss (`torch.FloatTensor`, a scalar, *optional*, with `labels`):
            Cross entropy as `item_loss` says, the mean over rows that have a label; in evaluation `"sampled"` is over
            all items.
        logits (`torch.FloatTensor` of shape `(b, num_items + 1)`, *optional*):
            Scores; column 0 is the padding item, which holds the lowest float32 unless `score_padding_item`. `None` in
            training with `labels`: the loss does without all of them.
        user_embeds (`torch.FloatTensor` of shape `(b, H)`): User vectors.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): As in [`MMM4RecModelOutput`].
        text_hidden_states (`tuple(torch.FloatTensor)`, *optional*): As in [`MMM4RecModelOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    user_embeds: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    text_hidden_states: tuple[Tensor, ...] | None = None


class MMM4RecModel(MMM4RecPreTrainedModel):
    """
    The backbone: item features and times of a history to a user vector, free of any catalogue.

    Args:
        config ([`MMM4RecConfig`]): Configuration.
    """

    main_input_name = "text_features"
    _keys_to_ignore_on_load_unexpected = [r"^items\."]

    def __init__(self, config: MMM4RecConfig):
        super().__init__(config)
        self.text_projection = nn.Linear(config.text_feature_size, config.hidden_size)
        self.image_projection = nn.Linear(config.image_feature_size, config.hidden_size)
        self.encoder = MMM4RecEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_projection

    def set_input_embeddings(self, value: nn.Linear) -> None:
        self.text_projection = value

    @can_return_tuple
    def forward(
        self,
        text_features: Tensor | None = None,
        image_features: Tensor | None = None,
        timestamps: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> MMM4RecModelOutput:
        r"""
        Args:
            text_features (`torch.FloatTensor` of shape `(b, s, text_feature_size)`):
                Text features of the items of each history, oldest first; of more than l events the last l count.
            image_features (`torch.FloatTensor` of shape `(b, s, image_feature_size)`): Their image features.
            timestamps (`torch.LongTensor` of shape `(b, s)`, *optional* without `use_time`):
                When each event happened, in unix seconds.
            attention_mask (`torch.Tensor` of shape `(b, s)`, *optional*):
                1 where an event stands, 0 for padding, on either side; without it every position is an event.
            output_hidden_states (`bool`, *optional*): Whether to return every layer's output.

        Returns:
            [`MMM4RecModelOutput`]
        """
        if text_features is None or image_features is None:
            raise ValueError("MMM4RecModel needs both text_features and image_features")
        if attention_mask is None:
            attention_mask = torch.ones(text_features.shape[:2], device=text_features.device)
        timestamps = check_timestamps(timestamps, attention_mask, self.config)
        index, mask = events_first(attention_mask, self.config.max_sequence_length)
        embeds = []
        for features, projection in (
            (text_features, self.text_projection),
            (image_features, self.image_projection),
        ):
            if features.shape[:2] != attention_mask.shape:
                raise ValueError(
                    f"features of shape {tuple(features.shape)} do not fit an attention_mask of shape "
                    f"{tuple(attention_mask.shape)}"
                )
            features = features.gather(1, index.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
            # Not a product: padding may hold anything, and 0 times NaN is NaN.
            features = features.to(projection.weight.dtype).masked_fill(~mask.unsqueeze(-1), 0)
            embeds.append(projection(features))
        if timestamps is not None:
            timestamps = timestamps.gather(1, index) * mask
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return self.encoder(*embeds, timestamps, mask, output_hidden_states)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        Saves the backbone, whose configuration names no catalogue, also where it is part of a model that holds one.

        Args:
            save_directory (`str` or `os.PathLike`): The folder, made if it is absent.
            kwargs: Passed on to [`~PreTrainedModel.save_pretrained`].
        """
        num_items, self.config.num_items = self.config.num_items, None
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.num_items = num_items

    def _saved_config(self) -> MMM4RecConfig:
        config = copy.deepcopy(self.config)
        config.num_items = None
        return config


def check_timestamps(timestamps: Tensor | None, attention_mask: Tensor, config: MMM4RecConfig) -> Tensor | None:
    """The timestamps as int64, or `None` for a model without time; errors name what is wrong."""
    if not config.use_time:
        return None
    if timestamps is None:
        raise ValueError("timestamps (unix seconds, int64) are needed: this model was configured with use_time=True")
    if timestamps.is_floating_point():
        raise TypeError(
            f"timestamps must be integers, got {timestamps.dtype}: float32 holds unix seconds to two minutes only"
        )
    if timestamps.shape != attention_mask.shape:
        raise ValueError(
            f"timestamps of shape {tuple(timestamps.shape)} do not fit histories of shape "
            f"{tuple(attention_mask.shape)}"
        )
    return timestamps.long()


def check_rows(name: str, rows: Tensor, num_rows: int) -> None:
    """Refuses what is no item's row: one below 0 would be read from the end of a table."""
    if torch.compiler.is_compiling():
        return
    outside = (rows < 0) | (rows >= num_rows)
    if outside.any():
        raise ValueError(
            f"{name} hold {int(rows[outside][0])}, which is none of the model's items 1..{num_rows - 1}; build them "
            "and the model from the same item ids"
        )


class MMM4RecForSequentialRecommendation(MMM4RecPreTrainedModel):
    """
    The backbone with a catalogue: histories of items to scores of every item.

    Args:
        config ([`MMM4RecConfig`]): Configuration; with `num_items=None` set a catalogue before anything is scored.
    """

    main_input_name = "input_ids"

    def __init__(self, config: MMM4RecConfig):
        super().__init__(config)
        self.model = MMM4RecModel(config)
        self.items = MMM4RecItems(config)
        self.cooccurrence = MMM4RecCooccurrence(config) if config.use_cooccurrence else None
        self._item_ids: list[str] | None = None
        self._cache: WeightCache[tuple[Tensor, tuple[Tensor, Tensor] | None]] = WeightCache((nn.Linear, MMM4RecItems))
        self.post_init()
        # The backbone's silence about items must not be inherited: here they are weights like the others.
        self._keys_to_ignore_on_load_unexpected = None

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Linear) -> None:
        self.model.set_input_embeddings(value)

    @property
    def item_ids(self) -> list[str] | None:
        """`list[str]`, *optional*: External ids of rows 1..num_items; `None` where a catalogue was not set by ids."""
        return self._item_ids

    def set_items(self, catalog: Any) -> None:
        """
        Sets or replaces the catalogue. What was learned for an item (bias, fusion weights, counts of which items stood
        near it) stays with its id; new items start at the values of an untrained model and can be recommended at once.

        Args:
            catalog (`ItemCatalog` or any object with `item_ids`, `text_features` and `image_features`):
                Features of shape `(num_items, text_feature_size)` and `(num_items, image_feature_size)`; with
                `text_mask` and `image_mask` as well where the model has `learned_missing`, and `feature_info`, from
                which the configuration takes `feature_encoder` the first time.

        Raises:
            ValueError: As [`check_catalog`], [`missing_items`] and [`agreed_encoder`].
        """
        item_ids, text, image = check_catalog(catalog, self.config)
        missing = missing_items(catalog, self.config)
        feature_encoder = agreed_encoder(catalog, self.config)
        old_rows = previous_rows(item_ids, self._item_ids)
        learned = self.items.learned_by_row & dict(self.items.named_parameters()).keys()
        if old_rows is None and learned:
            logger.warning(f"dropped {', '.join(sorted(learned))}: this model does not know its items by id")
        self.items.set(text, image, old_rows, like=self.model.text_projection.weight, missing=missing)
        if self.cooccurrence is not None:
            self.cooccurrence.set_rows(len(item_ids), old_rows)
        self.config.num_items = len(item_ids)
        self.config.feature_encoder = feature_encoder
        self._item_ids = item_ids

    def set_item_frequencies(self, counts: Tensor) -> None:
        """
        Tells how often each item is a target of the training data, which the in-batch loss with `use_log_q` and the
        sampled loss with `negative_sampling="frequency"` ask for. [`MMM4RecTrainer`] counts by itself. The frequencies
        are not saved with the model.

        Args:
            counts (`torch.Tensor` of shape `(num_items + 1,)`): By row; an item that never was one counts as 1.

        Raises:
            ValueError: For another shape, or counts that are negative or not finite.
        """
        self.items.set_frequencies(counts)

    def set_cooccurrence(self, neighbours: Tensor, counts: Tensor) -> None:
        """
        Tells which items stood near each other in the training log, for a model with `use_cooccurrence`.
        [`MMM4RecTrainer`] counts by itself; the counts are saved with the model.

        Args:
            neighbours (`torch.Tensor` of shape `(num_items + 1, n)`): As [`near_items`] gives them.
            counts (`torch.Tensor` of shape `(num_items + 1, n)`): Likewise.

        Raises:
            ValueError: Without `use_cooccurrence`, and as [`MMM4RecCooccurrence.set`].
        """
        if self.cooccurrence is None:
            raise ValueError("counts of near items are read with use_cooccurrence=True only")
        self.cooccurrence.set(neighbours, counts)

    def cooccurrence_terms(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """
        What is added to scores beside the products of user and item vectors; `None` without `use_cooccurrence`.

        Args:
            input_ids (`torch.LongTensor` of shape `(b, s)`): As [`~MMM4RecForSequentialRecommendation.forward`].
            attention_mask (`torch.Tensor` of shape `(b, s)`, *optional*): As there.

        Returns:
            `tuple(torch.Tensor)`: Rows of items, each once a user, and terms, as [`MMM4RecCooccurrence.forward`].
        """
        if self.cooccurrence is None:
            return None
        mask = input_ids != 0 if attention_mask is None else attention_mask
        input_ids, _, mask = self._last_rows(input_ids, mask)
        terms: tuple[Tensor, Tensor] = self.cooccurrence(input_ids, mask)
        return terms

    def item_embeds(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Text and image embeddings e of every item, each `(num_items + 1, H)`, or of the given rows, `(n, H)`."""
        items = self.items
        if items.text_features is None or items.image_features is None:
            raise ValueError(
                "this model holds no items; load it with from_pretrained(..., catalog=catalog) or call "
                "set_items(catalog) before scoring"
            )
        text = self.model.text_projection(items.text_features if rows is None else items.text_features[rows])
        image = self.model.image_projection(items.image_features if rows is None else items.image_features[rows])
        text, image = items.with_missing(text, image, rows)
        if items.text_bias is not None and items.image_bias is not None:
            text = text + (items.text_bias if rows is None else items.text_bias[rows])
            image = image + (items.image_bias if rows is None else items.image_bias[rows])
        return text, image

    def fused_item_embeds(self, text: Tensor, image: Tensor, rows: Tensor | None = None) -> Tensor:
        """[n, H], [n, H] -> [n, H] float32: scores are user vectors times these, over the temperature."""
        text, image = l2_normalize(text), l2_normalize(image)
        weights = self.items.fusion_weights(rows)
        return text + image if weights is None else weights[..., :1] * text + weights[..., 1:] * image

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """
        What scores are made of, `(num_items + 1, H)`, float32: user vectors times these, over the temperature.
        Computed once and kept until a weight or the catalogue changes. Not to be written to.
        """
        return self.kept_items()[0]

    def kept_items(self) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """
        [`~MMM4RecForSequentialRecommendation.item_vectors`] and, of a catalogue that is not too large, what
        [`~MMM4RecForSequentialRecommendation.item_embeds`] returns for all items; both kept while gradients are off.
        """
        return self._cache.get(
            (self.model.text_projection, self.model.image_projection, self.items), self._embed_items
        )

    def _embed_items(self) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        if self._keeps_tables():
            tables = self.item_embeds()
            return self.fused_item_embeds(*tables), tables
        # Of a large catalogue never all of both tables at once.
        rows = torch.arange(self.items.num_rows, device=self.device)
        vectors = torch.empty(len(rows), self.config.hidden_size, device=self.device)
        for part in rows.split(_EMBEDDED_ROWS):
            vectors[part[0] : part[-1] + 1] = self.fused_item_embeds(*self.item_embeds(part), part)
        return vectors, None

    def _keeps_tables(self) -> bool:
        # Which items a history holds is not known while a model is compiled.
        return self.items.num_rows * self.config.hidden_size <= _LARGEST_TABLE or torch.compiler.is_compiling()

    def user_embeds(
        self,
        input_ids: Tensor,
        timestamps: Tensor | None = None,
        attention_mask: Tensor | None = None,
        item_embeds: tuple[Tensor, Tensor] | None = None,
        encoder: UserEncoder | None = None,
    ) -> Tensor:
        """
        User vectors without the scores of items.

        Args:
            input_ids (`torch.LongTensor` of shape `(b, s)`): As [`~MMM4RecForSequentialRecommendation.forward`].
            timestamps (`torch.LongTensor` of shape `(b, s)`, *optional*): As there.
            attention_mask (`torch.Tensor` of shape `(b, s)`, *optional*): As there.
            item_embeds (`tuple(torch.Tensor)`, *optional*):
                What [`~MMM4RecForSequentialRecommendation.item_embeds`] returned, where it serves many batches.
            encoder (`Callable`, *optional*):
                What computes user vectors `(b, H)` in place of the layers, such as an exported program of them. It is
                called with text and image embeddings, `(b, l, H)`, timestamps (zeros without `use_time`) and mask,
                both `(b, l)` and int64, events first.

        Returns:
            `torch.Tensor` of shape `(b, H)`.
        """
        input_ids, timestamps, mask = self._last_events(input_ids, timestamps, attention_mask)
        if item_embeds is None:
            if not self._keeps_tables():
                tables = None
            else:
                tables = self.item_embeds() if torch.is_grad_enabled() else self.kept_items()[1]
            input_ids, text, image = self._tables_for(input_ids, tables)
        else:
            text, image = item_embeds
        if encoder is not None:
            times = torch.zeros_like(input_ids) if timestamps is None else timestamps
            return encoder(F.embedding(input_ids, text), F.embedding(input_ids, image), times, mask.long())
        return self.model.encoder.user_embeds(input_ids, text, image, timestamps, mask)

    def _tables_for(self, input_ids: Tensor, tables: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of two tables for each event, `(b, l)`, and the tables, `(n, H)`: those given, or of these events."""
        if tables is not None:
            return input_ids, *tables
        rows, places = input_ids.unique(return_inverse=True)
        return places, *self.item_embeds(rows)

    @torch.no_grad()
    def modality_scores(
        self, user_embeds: Tensor, item_rows: Tensor, item_embeds: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        The two parts of scores.

        Args:
            user_embeds (`torch.Tensor` of shape `(b, H)`): User vectors.
            item_rows (`torch.LongTensor` of shape `(b, k)`): Rows of the items.
            item_embeds (`tuple(torch.Tensor)`, *optional*):
                What [`~MMM4RecForSequentialRecommendation.item_embeds`] returned, where it is at hand.

        Returns:
            `tuple(torch.Tensor)`: Text and image part, each `(b, k)`; their sum is the score.

        Raises:
            ValueError: If a row is no item's.
        """
        check_rows("item_rows", item_rows, self.items.num_rows)
        parts = []
        places, *tables = self._tables_for(item_rows, item_embeds)
        weights = self.items.fusion_weights(item_rows.flatten())
        users = user_embeds.float().unsqueeze(-1)
        for column, embeds in enumerate(tables):
            part = torch.bmm(l2_normalize(embeds[places]), users).squeeze(-1)
            if weights is not None:
                part = part * weights.expand(places.numel(), 2)[:, column].view_as(part)
            parts.append(part / self.config.score_temperature)
        return parts[0], parts[1]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        timestamps: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> MMM4RecOutput:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(b, s)`):
                Rows 1..num_items of the items of each history, oldest first; 0 is padding.
            timestamps (`torch.LongTensor` of shape `(b, s)`, *optional* without `use_time`):
                When each event happened, in unix seconds.
            attention_mask (`torch.Tensor` of shape `(b, s)`, *optional*):
                1 where an event stands; without it, where `input_ids` is not 0.
            labels (`torch.LongTensor` of shape `(b,)`, *optional*):
                Row of the item that came next; the loss leaves out rows with -100.
            output_hidden_states (`bool`, *optional*): Whether to return every layer's output.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Divides the sum of the rows' losses: with gradients that are accumulated over batches, the number of
                labels in all of them. Without it the loss is the mean of this batch.

        Returns:
            [`MMM4RecOutput`]

        Raises:
            ValueError: If the model holds no items, an id or a label is none of them, the batch is empty, or shapes do
                not fit.
        """
        if input_ids is None:
            raise ValueError("MMM4RecForSequentialRecommendation needs input_ids")
        input_ids, timestamps, mask = self._last_events(input_ids, timestamps, attention_mask)
        with_states = bool(self.config.output_hidden_states if output_hidden_states is None else output_hidden_states)
        logits = loss = None
        if labels is not None and self.training and self.config.item_loss != "full":
            users, states, loss = self._loss_over_few(
                input_ids, timestamps, mask, labels, num_items_in_batch, with_states
            )
        else:
            terms = None
            if self.cooccurrence is not None:
                terms = self.cooccurrence(input_ids, mask, labels if self.training else None)
            if torch.is_grad_enabled():
                text, image = self.item_embeds()
                fused = self.fused_item_embeds(text, image)
            else:
                fused, tables = self.kept_items()
                input_ids, text, image = self._tables_for(input_ids, tables)
            users, states = self._encode(input_ids, text, image, timestamps, mask, with_states)
            if labels is None or not self.training:
                logits = self._logits(users, fused, terms)
            if labels is not None:
                loss = self._loss_over_all(users, fused, logits, labels, num_items_in_batch, terms)
        return MMM4RecOutput(
            loss=loss,
            logits=logits,
            user_embeds=users,
            hidden_states=states.hidden_states,
            text_hidden_states=states.text_hidden_states,
        )

    def _last_events(
        self, input_ids: Tensor, timestamps: Tensor | None, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """[b, s], [b, s], [b, s] -> [b, l] each: the last events first, and their mask."""
        if attention_mask is None:
            attention_mask = input_ids != 0
        timestamps = check_timestamps(timestamps, attention_mask, self.config)
        input_ids, index, mask = self._last_rows(input_ids, attention_mask)
        if timestamps is not None:
            timestamps = timestamps.gather(1, index) * mask
        return input_ids, timestamps, mask

    def _last_rows(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[b, s], [b, s] -> [b, l] each: the items of the last events, where they stood, and their mask."""
        if len(input_ids) == 0:
            raise ValueError(f"input_ids of shape {tuple(input_ids.shape)} hold no history; a batch has at least one")
        index, mask = events_first(attention_mask, self.config.max_sequence_length)
        input_ids = input_ids.gather(1, index) * mask
        # Without items another error says so.
        if self.items.num_rows:
            check_rows("input_ids", input_ids, self.items.num_rows)
        return input_ids, index, mask

    def _encode(
        self,
        input_ids: Tensor,
        text: Tensor,
        image: Tensor,
        timestamps: Tensor | None,
        mask: Tensor,
        output_hidden_states: bool,
    ) -> tuple[Tensor, MMM4RecModelOutput]:
        """[b, l], [n, H], [n, H], [b, l], [b, l] -> [b, H] and what was asked for; ids are rows of the tables."""
        encoder = self.model.encoder
        if not output_hidden_states:
            return encoder.user_embeds(input_ids, text, image, timestamps, mask), MMM4RecModelOutput()
        output = encoder(F.embedding(input_ids, text), F.embedding(input_ids, image), timestamps, mask, True)
        return output.user_embeds, output

    def _loss_over_all(
        self,
        user_embeds: Tensor,
        fused: Tensor,
        logits: Tensor | None,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None,
        terms: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """The loss where every item's vector is at hand: in training by all items, and in evaluation."""
        config = self.config
        check_labels(labels, len(fused), config.score_padding_item)
        if config.item_loss == "in_batch":
            targets = fused[labels.clamp_min(0)]
            return self._in_batch_loss(user_embeds, targets, labels, num_items_in_batch)
        if logits is not None:
            return cross_entropy_of_scores(logits, labels, num_items_in_batch)
        return full_cross_entropy(
            user_embeds,
            fused,
            labels,
            config.score_temperature,
            score_padding_item=config.score_padding_item,
            num_items_in_batch=num_items_in_batch,
            terms=terms,
        )

    def _loss_over_few(
        self,
        input_ids: Tensor,
        timestamps: Tensor | None,
        mask: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None,
        output_hidden_states: bool,
    ) -> tuple[Tensor, MMM4RecModelOutput, Tensor]:
        """The in-batch and the sampled loss in training, for which only the items that take part are embedded."""
        config, num_rows = self.config, self.items.num_rows
        check_labels(labels, num_rows, config.score_padding_item)
        targets = labels.clamp_min(0)
        negatives, log_expected = targets.new_empty(0), None
        if config.item_loss == "sampled":
            log_q = self._log_q() if config.needs_item_frequencies else None
            negatives, log_expected = draw_negatives(num_rows, config.num_sampled_negatives, log_q, labels.device)
        rows, places = torch.cat([input_ids.flatten(), targets, negatives]).unique(return_inverse=True)
        history, target_places, negative_places = places.split([input_ids.numel(), len(targets), len(negatives)])
        text, image = self.item_embeds(rows)
        users, states = self._encode(history.view_as(input_ids), text, image, timestamps, mask, output_hidden_states)
        fused = self.fused_item_embeds(text, image, rows)
        if log_expected is None:
            loss = self._in_batch_loss(users, fused[target_places], labels, num_items_in_batch)
        else:
            loss = sampled_cross_entropy(
                users,
                fused[target_places],
                fused[negative_places],
                labels,
                negatives,
                log_expected,
                config.score_temperature,
                num_items_in_batch=num_items_in_batch,
            )
        return users, states, loss

    def _in_batch_loss(
        self, user_embeds: Tensor, targets: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        config = self.config
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        return in_batch_cross_entropy(
            user_embeds,
            targets,
            labels,
            config.score_temperature,
            mask_same_target=config.mask_same_target,
            item_log_q=self._log_q() if config.use_log_q else None,
            # In evaluation a process may be alone.
            gather=config.gather_negatives and self.training and several,
            num_items_in_batch=num_items_in_batch,
        )

    def _log_q(self) -> Tensor:
        if self.items.log_q is None:
            raise ValueError(
                "the loss needs to know how often each item is a target: call model.set_item_frequencies(counts), or "
                "train with MMM4RecTrainer, which counts them"
            )
        return self.items.log_q

    def _logits(self, user_embeds: Tensor, fused: Tensor, terms: tuple[Tensor, Tensor] | None) -> Tensor:
        # [b, H], [I+1, H] -> [b, I+1]. In half precision neighbours in the ranking would tie.
        with torch.autocast(user_embeds.device.type, enabled=False):
            logits = user_embeds.float() @ fused.float().T / self.config.score_temperature
            if terms is not None:
                logits = logits.scatter_add(1, *terms)
        if not self.config.score_padding_item:
            padding = torch.arange(logits.shape[1], device=logits.device) == 0
            logits = logits.masked_fill(padding, torch.finfo(logits.dtype).min)
        return logits

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *args: Any,
        catalog: Any = None,
        fresh_projections: bool = False,
        **kwargs: Any,
    ) -> Any:
        r"""
        Loads a model as every transformers model, with a few more rules. With `num_items=None` it has no items,
        whatever the checkpoint holds.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A Hub name or a folder.
            catalog (`ItemCatalog`, *optional*):
                The catalogue to recommend from, for the start of a fine-tuning: the backbone (and a fusion shared by
                all items) is kept, what belonged to the checkpoint's own catalogue is dropped, and both are logged.
            fresh_projections (`bool`, *optional*, defaults to `False`):
                With a catalogue, whether what projects texts and pictures starts anew, of the width of the catalogue's
                features, whatever encoder made them: the layers alone are kept.

        Raises:
            ValueError: If the checkpoint lacks weights that cannot start fresh, the catalogue does not fit, or
                projections are to start fresh without one.
        """
        if fresh_projections and catalog is None:
            raise ValueError("fresh_projections=True starts a fine-tuning: give the shop's items as catalog=")
        output_loading_info = kwargs.pop("output_loading_info", False)
        if catalog is not None:
            kwargs = without_items(kwargs)
        with load_report_held(is_held=catalog is not None) as show_load_report:
            loaded: Any = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        model, info = loaded
        # Who asks for the loading info, or gives the weights as a dictionary, judges for himself.
        if not output_loading_info and pretrained_model_name_or_path is not None:
            check_complete(pretrained_model_name_or_path, info["missing_keys"])
        if catalog is not None:
            take_catalog(model, pretrained_model_name_or_path, catalog, info, fresh_projections, show_load_report)
        elif pretrained_model_name_or_path is not None and model.config.num_items is not None:
            options = hub_arguments(kwargs)
            model._item_ids = load_item_ids(pretrained_model_name_or_path, model.config.num_items, options)
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """
        Saves the model with its catalogue: as every transformers model, and the item ids beside it.

        Args:
            save_directory (`str` or `os.PathLike`): The folder, made if it is absent.
            is_main_process (`bool`, *optional*, defaults to `True`): Whether this process writes the shared files.
            push_to_hub (`bool`, *optional*, defaults to `False`): Whether to upload the folder as well.
            kwargs: Passed on to [`~PreTrainedModel.save_pretrained`].
        """
        if is_main_process:
            os.makedirs(save_directory, exist_ok=True)
            save_item_ids(save_directory, self._item_ids)
        super().save_pretrained(save_directory, is_main_process=is_main_process, push_to_hub=push_to_hub, **kwargs)


__all__ = [
    "MMM4RecForSequentialRecommendation",
    "MMM4RecModel",
    "MMM4RecModelOutput",
    "MMM4RecOutput",
]
