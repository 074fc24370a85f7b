"""Which items stood near each other in a training log, as a term of the scores beside those of the features.

Letters in shape comments: b users, l events, c items looked up, k neighbours of an item, e = c * k.
"""

import torch
from torch import Tensor, nn
from transformers.utils import logging

from .configuration_mmm4rec import MMM4RecConfig

logger = logging.get_logger(__name__)

# The j-th last item of a history counts j to this power, and two items d steps apart d to the other.
_AGE_POWER, _STEP_POWER = -0.5, -1.0


class MMM4RecCooccurrence(nn.Module):
    """
    Adds `weight * log(1 + exp(log_scale) * s_i)` to the score of item i, with s_i the sum over the last c items h_j of
    a history of `j ** -0.5 * n(h_j, i)`. n counts how often two items were at most `cooccurrence_window` steps apart
    in a history, in either order, a pair d steps apart as 1 / d; of each item the k largest are kept.

    In training the row's own target has been counted: what it added is taken off again, so that the weights learn from
    what other rows tell. Not of the paper; both weights start at 1. Without counts nothing is added.

    Args:
        config ([`MMM4RecConfig`]): With `use_cooccurrence`.
    """

    neighbours: Tensor | None
    counts: Tensor | None

    def __init__(self, config: MMM4RecConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.ones(()))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self._is_set = False
        self._allocate(config.num_items)

    def _allocate(self, num_items: int | None) -> None:
        neighbours = counts = None
        if num_items is not None:
            shape = (num_items + 1, min(self.config.num_neighbours, num_items))
            device = self.weight.device
            neighbours = torch.zeros(shape, dtype=torch.int32, device=device)
            counts = torch.zeros(shape, dtype=torch.float32, device=device)
        self.register_buffer("neighbours", neighbours)
        self.register_buffer("counts", counts)

    @property
    def is_set(self) -> bool:
        """`bool`: Whether there are counts."""
        # Looked up once: of a large catalogue it takes as long as a step.
        self._is_set = self._is_set or (self.counts is not None and bool(self.counts.any()))
        return self._is_set

    @torch.no_grad()
    def set(self, neighbours: Tensor, counts: Tensor) -> None:
        """
        Takes counts over.

        Args:
            neighbours (`torch.Tensor` of shape `(num_items + 1, n)`): Rows of the items that were near each item, each
                once, 0 where there are no more. Of more than `num_neighbours` those with the largest counts are kept.
            counts (`torch.Tensor` of shape `(num_items + 1, n)`): How often, 0 where there are no more.

        Raises:
            ValueError: Without a catalogue, or for another shape, other rows, a neighbour that stands twice in a line,
                a count of no neighbour, or counts that are negative or not finite.
        """
        if self.counts is None or self.neighbours is None:
            raise ValueError("the model holds no items; call set_items(catalog) before the counts are set")
        num_rows, most = self.counts.shape
        if neighbours.shape != counts.shape or counts.ndim != 2 or len(counts) != num_rows:
            raise ValueError(
                f"neighbours and counts have shapes {tuple(neighbours.shape)} and {tuple(counts.shape)}; both must be "
                f"({num_rows}, n): a line for each of the model's {num_rows - 1} items and the padding item"
            )
        if counts.numel() and not (counts.isfinite() & (counts >= 0)).all():
            raise ValueError("counts must be finite and not negative")
        if counts.numel() and not 0 <= int(neighbours.min()) <= int(neighbours.max()) < num_rows:
            raise ValueError(
                f"neighbours hold rows {int(neighbours.min())}..{int(neighbours.max())}, outside 0..{num_rows - 1}"
            )
        if ((neighbours == 0) & (counts > 0)).any():
            raise ValueError("a neighbour 0, which stands for none, has a count: the count must be 0 too")
        ordered = neighbours.masked_fill(counts == 0, 0).sort(1).values
        again = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)
        if again.any():
            row = int(again.any(1).nonzero()[0])
            raise ValueError(
                f"item {int(ordered[row, 1:][again[row]][0])} is a neighbour of item {row} twice; add up its counts"
            )
        kept, places = counts.float().topk(min(most, counts.shape[1]), dim=1)
        rows = neighbours.gather(1, places)
        self.neighbours.zero_()
        self.counts.zero_()
        self.neighbours[:, : rows.shape[1]] = torch.where(kept > 0, rows, 0)
        self.counts[:, : rows.shape[1]] = kept
        self.counts[0] = 0
        self._is_set = False

    @torch.no_grad()
    def set_rows(self, num_items: int, old_rows: Tensor | None) -> None:
        """
        Follows a change of the catalogue: counts of two items that both stay are kept.

        Args:
            num_items (`int`): Items from now on.
            old_rows (`torch.Tensor` of shape `(num_items,)`, *optional*):
                The row that each had, 0 for a new one; `None` where nothing is known of the old ones, whose counts are
                then dropped.
        """
        neighbours, counts = self.neighbours, self.counts
        self._allocate(num_items)
        self._is_set = False
        if old_rows is None or neighbours is None or counts is None:
            return
        device = counts.device
        old_rows = torch.cat([old_rows.new_zeros(1), old_rows]).to(device)
        new_rows = torch.zeros(len(counts), dtype=torch.long, device=device)
        new_rows[old_rows] = torch.arange(num_items + 1, device=device)
        new_rows[0] = 0
        moved = new_rows[neighbours.long()][old_rows]
        self.set(moved, torch.where(moved > 0, counts[old_rows], 0))

    def forward(self, input_ids: Tensor, mask: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        The terms that are not 0.

        Args:
            input_ids (`torch.LongTensor` of shape `(b, l)`): Rows of the items, events first, oldest first.
            mask (`torch.Tensor` of shape `(b, l)`): 1 where an event stands.
            targets (`torch.LongTensor` of shape `(b,)`, *optional*): In training, the target of each row.

        Returns:
            `tuple(torch.Tensor)`: Rows of items, each once a user, and what is added to their scores, each `(b, e)`;
            row 0 and 0 where there are no more.
        """
        assert self.neighbours is not None and self.counts is not None  # the scores need items as well
        if self.training and not torch.compiler.is_compiling() and not self.is_set:
            logger.warning_once(
                "use_cooccurrence adds nothing: no counts are set; train with MMM4RecTrainer, which counts, or call "
                "mmm4rec_hf.count_near_items(model, rows)"
            )
        context, window = self.config.cooccurrence_context, self.config.cooccurrence_window
        before, ages = _newest_first(input_ids, mask, max(context, window))
        recent = before[:, :context]  # [b, c]
        neighbours, counts = self.neighbours[recent].long(), self.counts[recent]  # [b, c, k]
        if targets is not None:
            # How often the row itself saw each recent item near its target.
            steps = ages[:window].float() ** _STEP_POWER
            own = ((before[:, None, :window] == recent.unsqueeze(2)) * steps).sum(2, keepdim=True)
            counts = torch.where(neighbours == targets[:, None, None], (counts - own).clamp_min(0), counts)
        shares = ages[:context].float() ** _AGE_POWER
        rows, sums = _once(neighbours.flatten(1), (counts * shares.unsqueeze(1)).flatten(1))
        return rows, self.weight.float() * torch.log1p(self.log_scale.float().exp() * sums)

    @torch.no_grad()
    def origins(self, input_ids: Tensor, mask: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """
        Which of the last events bring s_i.

        Args:
            input_ids (`torch.LongTensor` of shape `(b, l)`): Rows of the items, events first, oldest first.
            mask (`torch.Tensor` of shape `(b, l)`): 1 where an event stands.
            rows (`torch.LongTensor` of shape `(b, n)`): Of the items i.

        Returns:
            `tuple(torch.Tensor)`: The rows of the last c events, the newest first and 0 where there are no more, `(b,
            c)`; and what each adds to s_i, `(b, n, c)`.
        """
        assert self.neighbours is not None and self.counts is not None
        recent, ages = _newest_first(input_ids, mask, self.config.cooccurrence_context)
        is_near = self.neighbours[recent].unsqueeze(1) == rows[:, :, None, None]  # [b, n, c, k]
        counts = (is_near * self.counts[recent].unsqueeze(1)).sum(3)
        return recent, counts * ages.float() ** _AGE_POWER


def _newest_first(input_ids: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[b, l] twice -> [b, count], [count]: the last events, 0 where there are no more, and their ages, from 1."""
    ages = torch.arange(1, count + 1, device=input_ids.device)
    places = mask.sum(1, keepdim=True).long() - ages
    return torch.where(places >= 0, input_ids.gather(1, places.clamp_min(0)), 0), ages


def _once(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """[b, e] twice -> [b, e] twice: the values of equal rows summed, row 0 and 0 at the end."""
    rows, order = rows.sort(dim=1)
    values = values.gather(1, order)
    begins = torch.ones_like(rows, dtype=torch.bool)
    begins[:, 1:] = rows[:, 1:] != rows[:, :-1]
    places = begins.long().cumsum(1) - 1
    return torch.zeros_like(rows).scatter(1, places, rows), torch.zeros_like(values).scatter_add(1, places, values)


__all__ = ["MMM4RecCooccurrence"]
