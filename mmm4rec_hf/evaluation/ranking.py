"""Ranks of targets among a model's items: item vectors computed once, scores a block of items at a time.

Letters in shape comments: b users, r rows of the model (items and the padding item), g kinds of items, v different
item vectors, H width. Kinds are numbered vector by vector.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from mmm4rec_hf.modeling import MMM4RecForSequentialRecommendation

BLOCK_SIZE = 8192
# Values of a table of embeddings that is kept (128 MB); of a larger catalogue those of a batch's items are made anew.
LARGEST_TABLE = 2**25


class ItemRanker:
    """
    Ranks targets among the items of a model as it is now. Memory grows with users in a batch x `block_size`, and with
    items x width; never with users x items.

    Given the user vectors, the ranks do not change with the batch or the block: items that look the same to the model
    are scored as one, so that they tie exactly, and scores are float64, because float32 products round by the shape of
    the operands, and among many items one lies within that of a target every few users.

    Args:
        model ([`MMM4RecForSequentialRecommendation`]): With items.
        exclude_history (`bool`, *optional*, defaults to `False`):
            Whether the items of a user's history leave the ranking (never the target). The published protocol keeps
            them.
        sampled (`int`, *optional*):
            Ranks each target among that many items, drawn once and the same for every user, instead of among all
            items. Such numbers are far higher and not comparable with others.
        coverage_at (`Sequence[int]`, *optional*): Cut-offs at which items that stand in someone's ranking are kept.
        seed (`int`, *optional*, defaults to 0): Of the draw.
        block_size (`int`, *optional*, defaults to 8192): Items scored at a time.

    Raises:
        ValueError: If the model holds no items, or an argument is out of its range.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: "MMM4RecForSequentialRecommendation",
        *,
        exclude_history: bool = False,
        sampled: int | None = None,
        coverage_at: Sequence[int] = (),
        seed: int = 0,
        block_size: int = BLOCK_SIZE,
    ) -> None:
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1, got {block_size}")
        self.num_rows = model.items.num_rows
        is_small = self.num_rows * model.config.hidden_size <= LARGEST_TABLE
        self.item_embeds: tuple[Tensor, Tensor] | None = model.item_embeds() if is_small else None
        """What `model.user_embeds` takes: text and image embeddings of every item, `(num_items + 1, H)` each."""
        self.exclude_history = exclude_history
        self.coverage_at = tuple(coverage_at)
        self.sampled = sampled
        competes = self._competing_rows(model.config.score_padding_item, seed)
        self.num_candidates = int(competes.sum())

        vector_of_row, first_rows = alike_items(model)
        kinds, vector_of_kind = _told_apart(model, vector_of_row)
        sizes = torch.bincount(kinds[competes], minlength=len(vector_of_kind))
        # Apple's devices have no float64.
        self.device = torch.device("cpu") if model.device.type == "mps" else model.device
        self.temperature = model.config.score_temperature
        self.vectors = torch.empty(len(first_rows), model.config.hidden_size, device=self.device)  # [v, H]
        blocks = zip(self.vectors.split(block_size), first_rows.to(model.device).split(block_size), strict=True)
        for vectors, rows in blocks:
            text, image = model.item_embeds(rows) if self.item_embeds is None else (x[rows] for x in self.item_embeds)
            vectors.copy_(model.fused_item_embeds(text, image, rows))
            if not vectors.isfinite().all():
                raise ValueError("item vectors hold NaN or infinity: they cannot be ranked; check the model")
        self.kinds, self.sizes, self.competes = (x.to(self.device) for x in (kinds, sizes, competes))
        self.vector_of_kind = vector_of_kind.to(self.device)
        # Kinds, which are numbered vector by vector, so many at a time: from, to, and the vectors that they have.
        starts = range(0, len(vector_of_kind), block_size)
        ends = [min(start + block_size, len(vector_of_kind)) for start in starts]
        self._blocks = [
            (start, end, int(vector_of_kind[start]), int(vector_of_kind[end - 1]) + 1)
            for start, end in zip(starts, ends, strict=True)
        ]
        self.covered = torch.zeros(len(self.coverage_at), self.num_rows, dtype=torch.bool, device=self.device)
        """Items that stood in a ranking up to each cut-off of `coverage_at`, ties in the order of rows."""
        # Rows that compete, kind by kind, where each kind begins among them, and the place of each in its kind.
        rows = self.competes.nonzero().flatten()
        self._members = rows[self.kinds[rows].argsort(stable=True)]
        self._starts = torch.nn.functional.pad(self.sizes.cumsum(0), (1, 0))
        self._places = torch.arange(len(rows), device=self.device) - self._starts[self.kinds[self._members]]

    def _competing_rows(self, score_padding_item: bool, seed: int) -> Tensor:
        competes = torch.ones(self.num_rows, dtype=torch.bool)
        competes[0] = score_padding_item
        if self.sampled is None:
            return competes
        if not 1 <= self.sampled < self.num_rows:
            raise ValueError(
                f"sampled must be between 1 and the model's {self.num_rows - 1} items, got {self.sampled}"
            )
        drawn = torch.randperm(self.num_rows - 1, generator=torch.Generator().manual_seed(seed))[: self.sampled] + 1
        return torch.zeros_like(competes).index_fill_(0, drawn, True)

    @torch.no_grad()
    def rank(
        self,
        user_embeds: Tensor,
        labels: Tensor,
        history: Tensor | None = None,
        terms: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        Ranks the targets of a batch.

        Args:
            user_embeds (`torch.Tensor` of shape `(b, H)`): User vectors.
            labels (`torch.LongTensor` of shape `(b,)`): Row of each target.
            history (`torch.LongTensor` of shape `(b, s)`, *optional*):
                All items of each history, 0 where padded; needed with `exclude_history`.
            terms (`tuple(torch.Tensor)`, *optional*): What `model.cooccurrence_terms` gives for these histories.

        Returns:
            `tuple(torch.Tensor)`: Items above and level with each target, the target included, int64 of shape
            `(b, 2)`, see [`ranking_counts`]; and the cross entropy of the target over the candidates in nats, the
            history's items included, float64 of shape `(b,)`.

        Raises:
            ValueError: For user vectors that are not finite, a target that is no item, or a history that is missing.
        """
        self._check(user_embeds, labels, history)
        users = user_embeds.to(self.device).double() / self.temperature
        labels = labels.to(self.device)
        own, is_candidate = self.kinds[labels], self.competes[labels]
        own_vector = self.vector_of_kind[own]
        product = (users * self.vectors[own_vector].double()).sum(1, keepdim=True)  # [b, 1]
        target, raised = product, None
        if terms is not None:
            raised = self._kinds_of(terms[0].to(self.device)), terms[1].to(self.device).double()
            target = product + (raised[1] * (raised[0] == own[:, None])).sum(1, keepdim=True)
        left_out = (
            self._left_out(history.to(self.device), labels) if self.exclude_history and history is not None else None
        )

        # Of a draw the target may be no part; it is then level with itself alone.
        level = (~is_candidate).long()
        above = torch.zeros_like(level)
        total = torch.where(is_candidate, -torch.inf, target.squeeze(1))
        best = None
        for start, end, first, last in self._blocks:
            scores = users @ self.vectors[first:last].double().T  # [b, block]
            row = ((own_vector >= first) & (own_vector < last)).nonzero().flatten()
            scores[row, own_vector[row] - first] = product[row, 0]
            if end - start > last - first:
                # Each product once, whatever the number of its kinds, so that those without a term tie.
                scores = scores[:, self.vector_of_kind[start:end] - first]
            if raised is not None:
                scores = _add_inside(scores, *raised, start)
            sizes = self.sizes[start:end]
            total = torch.logaddexp(total, (scores + sizes.log()).logsumexp(1))
            if left_out is not None:
                sizes = self._without(sizes.expand_as(scores), self._kinds_of(left_out), start)
            above += ((scores > target) * sizes).sum(1)
            level += ((scores == target) * sizes).sum(1)
            if self.coverage_at:
                best = self._better(best, scores, sizes.expand_as(scores), start)
        if best is not None:
            self._cover(*best[1:], left_out)
        return torch.stack([above, level], 1), total - target.squeeze(1)

    def _check(self, user_embeds: Tensor, labels: Tensor, history: Tensor | None) -> None:
        if not user_embeds.isfinite().all():
            row = int((~user_embeds.isfinite()).any(dim=1).nonzero()[0, 0])
            raise ValueError(f"user vectors hold NaN or infinity (first in row {row}): they cannot be ranked")
        outside = (labels < 1) | (labels >= self.num_rows)
        if outside.any():
            raise ValueError(
                f"target {int(labels[outside][0])} is outside the catalogue's items 1..{self.num_rows - 1}; build the "
                "dataset and the model from the same item ids"
            )
        if self.exclude_history and history is None:
            raise ValueError("exclude_history needs each user's whole history: batches of HistoryCollator have it")

    def _left_out(self, history: Tensor, labels: Tensor) -> Tensor:
        """[b, s], [b] -> [b, s]: rows that leave the ranking, each once and never the target; 0 elsewhere."""
        rows = history.sort(1).values
        again = torch.zeros_like(rows, dtype=torch.bool)
        again[:, 1:] = rows[:, 1:] == rows[:, :-1]
        return rows.masked_fill(again | (rows == labels[:, None]) | ~self.competes[rows], 0)

    def _kinds_of(self, rows: Tensor) -> Tensor:
        """[b, s] -> [b, s], -1 for row 0."""
        return torch.where(rows > 0, self.kinds[rows], -1)

    def _without(self, sizes: Tensor, kinds: Tensor, start: int) -> Tensor:
        """[b, block], [b, s] -> [b, block]: how many items of each kind are left for each user."""
        return _add_inside(sizes, kinds, torch.full_like(kinds, -1), start)

    def _better(
        self, best: tuple[Tensor, Tensor, Tensor] | None, scores: Tensor, sizes: Tensor, start: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best kinds of each user so far: scores, kinds, and how many items of the kind are left, [b, k] each."""
        scores = scores.masked_fill(sizes == 0, -torch.inf)
        top, places = scores.topk(min(max(self.coverage_at), scores.shape[1]), dim=1)
        found = (top, places + start, sizes.gather(1, places))
        if best is None:
            return found
        merged = [torch.cat(pair, 1) for pair in zip(best, found, strict=True)]
        places = merged[0].topk(min(max(self.coverage_at), merged[0].shape[1]), dim=1).indices
        return merged[0].gather(1, places), merged[1].gather(1, places), merged[2].gather(1, places)

    def _cover(self, kinds: Tensor, sizes: Tensor, left_out: Tensor | None) -> None:
        """[b, k] each: marks the items at the top of each user's ranking."""
        before = sizes.cumsum(1) - sizes
        is_whole = sizes == self.sizes[kinds]
        for number, k in enumerate(self.coverage_at):
            taken = torch.minimum((k - before).clamp_min(0), sizes)
            # Of a kind that is whole for a user the first items are taken: the most that any user takes covers all.
            reach = torch.zeros_like(self.sizes)
            reach.scatter_reduce_(0, kinds[is_whole], taken[is_whole], "amax")
            self.covered[number, self._members] |= self._places < reach[self.kinds[self._members]]
            for user, place in ((taken > 0) & ~is_whole).nonzero().tolist():
                assert left_out is not None  # otherwise every kind is whole
                kind = kinds[user, place]
                members = self._members[self._starts[kind] : self._starts[kind + 1]]
                # What stands for none is row 0, which may compete itself.
                seen = left_out[user]
                members = members[~torch.isin(members, seen[seen > 0])]
                self.covered[number, members[: taken[user, place]]] = True

    def coverage(self, covered: Tensor | None = None) -> dict[str, float]:
        """
        Shares of the candidates that stood in someone's ranking so far.

        Args:
            covered (`torch.Tensor`, *optional*): In place of `covered`: that of several processes together.

        Returns:
            `dict[str, float]`: `coverage@K` for each K of `coverage_at`.
        """
        counts = (self.covered if covered is None else covered).sum(1).tolist()
        return {f"coverage@{k}": n / self.num_candidates for k, n in zip(self.coverage_at, counts, strict=True)}


def _add_inside(values: Tensor, kinds: Tensor, added: Tensor, start: int) -> Tensor:
    """[b, block], [b, s], [b, s] -> [b, block]: with what is added to kinds of the block from `start` on."""
    inside = (kinds >= start) & (kinds < start + values.shape[1])
    places = (kinds - start).clamp(0, values.shape[1] - 1)
    return values.scatter_add(1, places, added * inside)


class HistoryCollator:
    """
    A collator's batch, and beside it all items of each history, whatever the collator crops.

    Args:
        collate (`Callable`): Makes the batch of rows that have `input_ids`.
    """

    def __init__(self, collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Tensor]]) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch with `history`, int64 of shape `(b, s)`, 0 where padded."""
        batch = self.collate(rows)
        histories = [torch.from_numpy(np.array(row["input_ids"], dtype=np.int64)) for row in rows]
        return batch | {"history": torch.nn.utils.rnn.pad_sequence(histories, batch_first=True)}


def alike_items(model: "MMM4RecForSequentialRecommendation") -> tuple[Tensor, Tensor]:
    """
    Which items look the same to a model: features, and what it learned for the item, equal bit by bit.

    Args:
        model ([`MMM4RecForSequentialRecommendation`]): With items.

    Returns:
        `tuple(torch.Tensor)`: The kind of each row, `(num_items + 1,)`, and the first row of each kind, `(g,)`, both
        int64 on the CPU.
    """
    items = model.items
    tensors = [items.text_features, items.image_features, items.text_is_missing, items.image_is_missing]
    tensors += [parameter for name, parameter in items.named_parameters() if name in items.learned_by_row]
    columns = [
        x.detach().cpu().contiguous().view(torch.uint8).view(len(x), -1).numpy() for x in tensors if x is not None
    ]
    kinds: dict[bytes, int] = {}
    first_rows: list[int] = []
    kind_of_row: list[int] = []
    for row in range(items.num_rows):
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            digest.update(column[row])
        kind = kinds.setdefault(digest.digest(), len(kinds))
        if kind == len(first_rows):
            first_rows.append(row)
        kind_of_row.append(kind)
    return torch.tensor(kind_of_row), torch.tensor(first_rows)


def _told_apart(model: "MMM4RecForSequentialRecommendation", vector_of_row: Tensor) -> tuple[Tensor, Tensor]:
    """
    [r] -> [r], [g]: the kind of each row, and the vector of each kind. Items of one vector are of one kind, but those
    that are a neighbour of some item: their scores may have a term of their own.
    """
    near = torch.zeros_like(vector_of_row)
    if model.cooccurrence is not None and model.cooccurrence.neighbours is not None:
        rows = model.cooccurrence.neighbours.unique().long().cpu()
        near[rows] = rows
    keys, kinds = (vector_of_row * len(near) + near).unique(return_inverse=True)
    return kinds, keys // len(near)
