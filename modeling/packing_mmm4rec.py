"""Where the events of a batch stand while the layers run: one history a row, or whole histories side by side.

Most histories are shorter than l, and a row of l slots for each is mostly padding. Packed, a row holds as many whole
histories as fit. Linear layers do not notice; convolutions and the state space operation ask here which slots belong
together. Only the time path, whose weights are l x l, keeps a row of its own for each history.

Letters as in modeling_mmm4rec.py, and n rows of l slots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class MMM4RecLayout:
    """
    Slots of a batch.

    Args:
        source (`torch.LongTensor` of shape `(n * l,)`):
            Which position of the flattened `(b, l)` batch each slot holds; empty slots hold some padded position.
        position (`torch.LongTensor` of shape `(n * l,)`): The slot's place in its history, from 0.
        history (`torch.LongTensor` of shape `(n, l)`): Whose event a slot holds; -1 where it is empty.
        last (`torch.LongTensor` of shape `(b,)`): The slot of each history's last event.
        packed (`bool`): Whether rows hold more than one history.
    """

    source: Tensor
    position: Tensor
    history: Tensor
    last: Tensor
    packed: bool

    @property
    def length(self) -> int:
        """`int`: l, slots of a row."""
        return self.history.shape[1]

    def gather(self, x: Tensor) -> Tensor:
        """[b, l, ...] -> [n * l, ...]: what each slot holds."""
        flat = x.flatten(0, 1)
        in_place = not self.packed and self.source.shape[0] == flat.shape[0]
        return flat if in_place else flat[self.source]

    def sequence(self) -> Tensor | None:
        """[n, l]: a number from 0 on, the same where slots hold one history; `None` where every row is one history."""
        return self.history + 1 if self.packed else None

    def window(self, size: int) -> tuple[Tensor, Tensor]:
        """The last `size` slots of each history, oldest first, `(b, size)`, and which of them are events."""
        back = torch.arange(size - 1, -1, -1, device=self.last.device)
        events = back <= self.position[self.last].unsqueeze(1)
        return (self.last.unsqueeze(1) - back).clamp_min(0), events


def one_history_a_row(mask: Tensor) -> MMM4RecLayout:
    """
    The layout that needs no look at the values: for compiled and exported models, and where padding is wanted back.

    Args:
        mask (`torch.Tensor` of shape `(b, l)`): The canonical mask, events first.
    """
    b, length = mask.shape
    rows = torch.arange(b, device=mask.device)
    return MMM4RecLayout(
        source=torch.arange(b * length, device=mask.device),
        position=torch.arange(length, device=mask.device).repeat(b),
        history=rows.unsqueeze(1).expand(b, length),
        last=rows * length + (mask.sum(1) - 1).clamp_min(0),
        packed=False,
    )


def pack_histories(mask: Tensor) -> MMM4RecLayout:
    """
    Whole histories side by side: the longest first, each into the fullest row that it fits.

    Args:
        mask (`torch.Tensor` of shape `(b, l)`): The canonical mask, events first.
    """
    b, length = mask.shape
    if b == 1:
        # Nothing to lay beside it: its events are the row.
        return one_history_a_row(mask[:, : max(1, int(mask.sum()))])
    counts = mask.sum(1).clamp_min(1).cpu()
    rows, offsets, n = _fullest_fit(counts.tolist(), length)
    first = torch.tensor(rows) * length + torch.tensor(offsets)  # the slot of each history's first event

    history = torch.full((n * length,), -1)
    position = torch.zeros(n * length, dtype=torch.long)
    owner = torch.repeat_interleave(torch.arange(b), counts)
    place = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
    slots = first[owner] + place
    history[slots], position[slots] = owner, place
    # An empty slot has nothing of its own to read: it gets a padded position; where none is padded, none is empty.
    padded = int((counts < length).int().argmax()) * length + length - 1
    source = torch.where(history >= 0, history * length + position, padded)
    device = mask.device
    return MMM4RecLayout(
        source=source.to(device),
        position=position.to(device),
        history=history.view(n, length).to(device),
        last=(first + counts - 1).to(device),
        packed=True,
    )


def _fullest_fit(counts: list[int], length: int) -> tuple[list[int], list[int], int]:
    """Row and offset of each history, and the number of rows."""
    by_room: list[list[int]] = [[] for _ in range(length + 1)]  # rows that have `room` slots left
    rows, offsets, n = [0] * len(counts), [0] * len(counts), 0
    for history in sorted(range(len(counts)), key=counts.__getitem__, reverse=True):
        count = counts[history]
        room = next((room for room in range(count, length) if by_room[room]), length)
        if room == length:
            row, n = n, n + 1
        else:
            row = by_room[room].pop()
        rows[history], offsets[history] = row, length - room
        by_room[room - count].append(row)
    return rows, offsets, n


def events_first(attention_mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """
    Where the last `length` events of each history stand, whatever its padding.

    Args:
        attention_mask (`torch.Tensor` of shape `(b, s)`): Non-zero where an event stands.
        length (`int`): l.

    Returns:
        `tuple(torch.Tensor)`: Positions in the input, `(b, l)`, 0 past the last event, and the canonical mask,
            `(b, l)`: events first.
    """
    events = attention_mask != 0
    number = events.long().cumsum(1)
    total = number[:, -1:]
    count = total.clamp_max(length)
    mask = torch.arange(length, device=events.device) < count
    # Scattered, not sorted: ONNX has no stable sort. Padding and earlier events go to one slot more, which is cut off.
    slots = number - 1 - (total - count)
    slots = torch.where(events & (slots >= 0), slots, length)
    positions = torch.arange(events.shape[1], device=events.device).expand_as(slots)
    index = torch.zeros(events.shape[0], length + 1, dtype=torch.long, device=events.device)
    return index.scatter(1, slots, positions)[:, :length], mask


__all__ = ["MMM4RecLayout", "events_first", "one_history_a_row", "pack_histories"]
