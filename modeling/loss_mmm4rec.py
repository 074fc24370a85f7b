"""Losses over items: all of them, the targets of a batch, or a sample.

Letters in shape comments: b rows, r items with the padding item (row 0), c columns, n drawn items, H width. All losses
are computed in float32, whatever the vectors' type, and leave out rows whose label is -100.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
# Scores that the full cross entropy may hold at once (64 MB); beyond it goes over the items in chunks.
PLAIN_SCORES = 2**24
_CHUNK_SCORES = 2**22
# Shares that the full cross entropy over chunks keeps for its gradients (256 MB), and the sum of them from which on
# their reference was too low to compute with.
_KEPT_SCORES = 2**26
_FAR = 1e18


def full_cross_entropy(
    user_embeds: Tensor,
    item_embeds: Tensor,
    labels: Tensor,
    temperature: float,
    *,
    score_padding_item: bool = False,
    num_items_in_batch: Tensor | int | None = None,
    terms: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """
    Cross entropy over all items, whose scores are held only where they are few. Of a large catalogue `(b, chunk)`
    scores are computed at a time; a bounded number of them is kept for the gradients, the others are computed again.

    Args:
        user_embeds (`torch.Tensor` of shape `(b, H)`): User vectors.
        item_embeds (`torch.Tensor` of shape `(num_items + 1, H)`): Item vectors, row 0 the padding item.
        labels (`torch.LongTensor` of shape `(b,)`): Row of each target.
        temperature (`float`): Divides the scores.
        score_padding_item (`bool`, *optional*, defaults to `False`): Whether row 0 competes, as published.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*):
            Divides the sum over rows: the targets of the whole accumulated batch. Without it the rows with a label.
        terms (`tuple(torch.Tensor)`, *optional*):
            Rows of items, each once a user but row 0, and what is added to their scores, each `(b, e)`.

    Returns:
        `torch.Tensor`: A scalar, float32.

    Raises:
        ValueError: If a label is no item's row.
    """
    check_labels(labels, len(item_embeds), score_padding_item)
    with torch.autocast(user_embeds.device.type, enabled=False):
        users, items = user_embeds.float() / temperature, item_embeds.float()
        first = 0 if score_padding_item else 1
        if len(users) * len(items) > PLAIN_SCORES:
            targets = labels.clamp_min(first)
            losses = _ChunkedCrossEntropy.apply(users, items, targets, first, max(1, _CHUNK_SCORES // len(users)))
            if terms is not None:
                losses = _with_terms(losses, users, items, targets, terms)
        else:
            scores = users @ items[first:].T
            if terms is not None:
                scores = F.pad(scores, (first, 0)).scatter_add(1, *terms)[:, first:]
            losses = F.cross_entropy(scores, (labels - first).clamp_min(0), reduction="none")
    return reduce_losses(losses, labels, num_items_in_batch)


def _with_terms(losses: Tensor, users: Tensor, items: Tensor, targets: Tensor, terms: tuple[Tensor, Tensor]) -> Tensor:
    """
    [b], [b, H], [r, H], [b], [b, e] twice -> [b]: losses over all items, once a few of a row's scores are raised.

    Of the sum of exponentials only the few are looked at again: log sum exp(s + t) is
    log sum exp(s) + log(1 + sum exp(s - log sum exp(s)) (exp(t) - 1)).
    """

    rows, added = terms
    # One call for both: its gradient is as large as all item vectors.
    scores = _FewScores.apply(users, items, torch.cat([targets.unsqueeze(1), rows], 1))
    total = losses + scores[:, 0]
    # Row 0 stands for none, and may score more than all others.
    shares = (scores[:, 1:] - total.unsqueeze(1)).masked_fill(rows == 0, -torch.inf).exp()
    own = (added * (rows == targets.unsqueeze(1))).sum(1)
    return losses + torch.log1p((shares * added.expm1()).sum(1)) - own


class _FewScores(torch.autograd.Function):
    """
    [b, H], [r, H], [b, e] -> [b, e]: products of each user with a few items of its own. The vectors of these items,
    which together would be larger than the scores of all, are made some users at a time, and again for the gradients.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(users, items, rows)
        scores = users.new_empty(rows.shape)
        for part in _FewScores._parts(users, rows):
            scores[part] = torch.einsum("bh,beh->be", users[part], items[rows[part]])
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        users, items, rows = ctx.saved_tensors
        user_grad, item_grad = torch.empty_like(users), torch.zeros_like(items)
        for part in _FewScores._parts(users, rows):
            user_grad[part] = torch.einsum("be,beh->bh", grad[part], items[rows[part]])
            of_items = grad[part].unsqueeze(2) * users[part].unsqueeze(1)
            item_grad.index_add_(0, rows[part].flatten(), of_items.flatten(0, 1))
        return user_grad, item_grad, None

    @staticmethod
    def _parts(users: Tensor, rows: Tensor) -> list[slice]:
        size = max(1, _CHUNK_SCORES // (rows.shape[1] * users.shape[1]))
        return [slice(start, start + size) for start in range(0, len(users), size)]


def cross_entropy_of_scores(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """
    [`full_cross_entropy`] of scores that are there.

    Args:
        logits (`torch.Tensor` of shape `(b, num_items + 1)`): Scores, those of items that do not compete very low.
        labels (`torch.LongTensor` of shape `(b,)`): Row of each target.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): As [`full_cross_entropy`].

    Returns:
        `torch.Tensor`: A scalar, float32.
    """
    check_labels(labels, logits.shape[1], score_padding_item=True)
    losses = F.cross_entropy(logits.float(), labels, reduction="none", ignore_index=IGNORED)
    return reduce_losses(losses, labels, num_items_in_batch)


def in_batch_cross_entropy(
    user_embeds: Tensor,
    target_embeds: Tensor,
    labels: Tensor,
    temperature: float,
    *,
    mask_same_target: bool = True,
    item_log_q: Tensor | None = None,
    gather: bool = False,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """
    Cross entropy over the targets of the batch, each row's own against those of the others.

    With `item_log_q` the score of each other target is lowered by log(n q), n the number of others and q the item's
    share of the targets of the training set: popular items stand in a batch more often, and the sum over the batch
    then estimates the sum over all items (logQ correction). A row's own target is always there and is not corrected.

    Args:
        user_embeds (`torch.Tensor` of shape `(b, H)`): User vectors.
        target_embeds (`torch.Tensor` of shape `(b, H)`): Item vector of each row's target.
        labels (`torch.LongTensor` of shape `(b,)`): Number of each target, the same for the same item.
        temperature (`float`): Divides the scores.
        mask_same_target (`bool`, *optional*, defaults to `True`):
            Whether another row with the same target is no negative; as published it is one.
        item_log_q (`torch.Tensor` of shape `(num_items + 1,)`, *optional*): Logarithm of each item's share.
        gather (`bool`, *optional*, defaults to `False`):
            Whether the targets of all processes are negatives. Gradients flow back to the process of a target.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): As [`full_cross_entropy`].

    Returns:
        `torch.Tensor`: A scalar, float32.

    Raises:
        ValueError: With `item_log_q`, if a label is no item's row: the padding item has no share.
    """
    if item_log_q is not None:
        check_labels(labels, len(item_log_q), score_padding_item=False)
    columns, column_labels, offset = target_embeds, labels, 0
    if gather:
        columns, column_labels, offset = gather_targets(target_embeds, labels)
    places = offset + torch.arange(len(labels), device=labels.device)
    with torch.autocast(user_embeds.device.type, enabled=False):
        scores = user_embeds.float() @ columns.float().T / temperature  # [b, c]
    own = places[:, None] == torch.arange(len(columns), device=labels.device)
    present = column_labels != IGNORED
    left_out = ~present.expand_as(own)
    if mask_same_target:
        left_out = left_out | (labels[:, None] == column_labels)
    if item_log_q is not None:
        others = (present.sum() - 1).clamp_min(1)
        correction = item_log_q.float()[column_labels.clamp_min(0)] + others.log()
        scores = scores - correction.expand_as(own).masked_fill(own, 0)
    scores = scores.masked_fill(left_out & ~own, float("-inf"))
    return reduce_losses(F.cross_entropy(scores, places, reduction="none"), labels, num_items_in_batch)


def sampled_cross_entropy(
    user_embeds: Tensor,
    target_embeds: Tensor,
    negative_embeds: Tensor,
    labels: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
    temperature: float,
    *,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """
    Sampled softmax: each row's own target against items that were drawn for the whole batch. A drawn item's score is
    lowered by the logarithm of how often it is expected in the draw, so that the sum over the draw estimates the sum
    over all items; where it is a row's own target it is left out for that row.

    Args:
        user_embeds (`torch.Tensor` of shape `(b, H)`): User vectors.
        target_embeds (`torch.Tensor` of shape `(b, H)`): Item vector of each row's target.
        negative_embeds (`torch.Tensor` of shape `(n, H)`): Item vectors of the drawn items.
        labels (`torch.LongTensor` of shape `(b,)`): Row of each target.
        negatives (`torch.LongTensor` of shape `(n,)`): Rows of the drawn items, see [`draw_negatives`].
        log_expected (`torch.Tensor` of shape `(n,)`): log(n q) of each, q its probability in one draw.
        temperature (`float`): Divides the scores.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): As [`full_cross_entropy`].

    Returns:
        `torch.Tensor`: A scalar, float32.
    """
    with torch.autocast(user_embeds.device.type, enabled=False):
        users = user_embeds.float() / temperature
        own = (users * target_embeds.float()).sum(-1, keepdim=True)  # [b, 1]
        scores = users @ negative_embeds.float().T - log_expected.float()  # [b, n]
    scores = scores.masked_fill(labels[:, None] == negatives, float("-inf"))
    losses = F.cross_entropy(torch.cat([own, scores], 1), torch.zeros_like(labels), reduction="none")
    return reduce_losses(losses, labels, num_items_in_batch)


def draw_negatives(
    num_rows: int, count: int, item_log_q: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """
    Draws items with replacement.

    Args:
        num_rows (`int`): Items and the padding item, which is never drawn.
        count (`int`): n.
        item_log_q (`torch.Tensor` of shape `(num_rows,)`, *optional*):
            Logarithm of each item's probability in one draw; uniform without it.
        device (`torch.device`): Where to.

    Returns:
        `tuple(torch.Tensor)`: Rows of the drawn items, `(n,)`, and log(n q) of each, `(n,)`.
    """
    if item_log_q is None:
        rows = torch.randint(1, num_rows, (count,), device=device)
        log_q = torch.full((count,), 1 / (num_rows - 1), device=device).log()
    else:
        rows = torch.multinomial(item_log_q.exp(), count, replacement=True)
        log_q = item_log_q[rows]
    return rows, log_q + torch.tensor(float(count), device=device).log()


def check_labels(labels: Tensor, num_rows: int, score_padding_item: bool) -> None:
    """Refuses labels that are no item's row, other than -100."""
    if torch.compiler.is_compiling():
        return
    first = 0 if score_padding_item else 1
    outside = ((labels < first) | (labels >= num_rows)) & (labels != IGNORED)
    if outside.any():
        raise ValueError(
            f"label {int(labels[outside][0])} is none of the model's items 1..{num_rows - 1}; build the dataset and "
            "the model from the same item ids"
        )


def reduce_losses(losses: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """[b], [b] -> the sum over rows that have a label, over their number or the given one."""
    valid = labels != IGNORED
    total = losses.masked_fill(~valid, 0).sum()
    if num_items_in_batch is None:
        return total / valid.sum().clamp_min(1)
    if isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(total.device)
    return total / num_items_in_batch


def gather_targets(target_embeds: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """
    The targets of all processes.

    Args:
        target_embeds (`torch.Tensor` of shape `(b, H)`): Item vector of each of this process's targets.
        labels (`torch.LongTensor` of shape `(b,)`): Their numbers. Processes may have batches of different sizes.

    Returns:
        `tuple(torch.Tensor, torch.Tensor, int)`: All vectors, `(c, H)`, all labels, `(c,)`, -100 where a process had
        fewer rows than another, and where this process's own begin.
    """
    world = dist.get_world_size()
    sizes = [torch.zeros((), dtype=torch.long, device=labels.device) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor(len(labels), device=labels.device))
    largest = int(torch.stack(sizes).max())
    missing = largest - len(labels)
    labels = F.pad(labels, (0, missing), value=IGNORED)
    all_labels = [torch.empty_like(labels) for _ in range(world)]
    dist.all_gather(all_labels, labels)
    embeds = _AllGather.apply(F.pad(target_embeds, (0, 0, 0, missing)))
    return embeds, torch.cat(all_labels), dist.get_rank() * largest


class _AllGather(torch.autograd.Function):
    """Rows of all processes, below each other; the gradient of a row is the sum of all processes' gradients of it."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[dist.get_rank() * ctx.rows :][: ctx.rows]


class _ChunkedCrossEntropy(torch.autograd.Function):
    """
    [b, H], [r, H], [b] -> [b]; items from row `first` on compete, `chunk` of them at a time.

    With a reference score m a row, the shares exp(score - m) of the first chunks are kept for the gradients, as many
    as `_KEPT_SCORES` allows; those of the others are computed again.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, users: Tensor, items: Tensor, targets: Tensor, first: int, chunk: int
    ) -> Tensor:
        num_kept = _KEPT_SCORES // (len(users) * chunk) if any(ctx.needs_input_grad) else 0
        competing = items[first:].split(chunk)
        # Any m serves that is not far from the largest score, and the largest of one chunk is near enough in practice.
        reference = (users @ competing[0].T).amax(1, keepdim=True)
        total, kept = _sum_of_shares(users, competing, reference, num_kept)
        if not (total < _FAR).all():
            for part in competing[1:]:
                reference = torch.maximum(reference, (users @ part.T).amax(1, keepdim=True))
            total, kept = _sum_of_shares(users, competing, reference, num_kept)
        ctx.save_for_backward(users, items, targets, reference, total, *kept)
        ctx.first, ctx.chunk = first, chunk
        return (total.log() + reference).squeeze(1) - (users * items[targets]).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        users, items, targets, reference, total, *kept = ctx.saved_tensors
        grad = grad[:, None]
        grad_users, grad_items = torch.zeros_like(users), torch.empty_like(items)
        grad_items[: ctx.first] = 0
        weights = grad / total
        weighted = weights * users
        buffer = users.new_empty(len(users), min(ctx.chunk, len(items)))
        with torch.autocast(users.device.type, enabled=False):
            parts = zip(items[ctx.first :].split(ctx.chunk), grad_items[ctx.first :].split(ctx.chunk), strict=True)
            for number, (part, grad_part) in enumerate(parts):
                shares = kept[number] if number < len(kept) else _shares(users, part, reference, buffer)
                grad_users.addmm_(shares, part)
                torch.mm(shares.T, weighted, out=grad_part)
        grad_users.mul_(weights).addcmul_(grad, items[targets], value=-1)
        grad_items.index_add_(0, targets, grad * users, alpha=-1)
        return grad_users, grad_items, None, None, None


def _sum_of_shares(
    users: Tensor, competing: tuple[Tensor, ...], reference: Tensor, num_kept: int
) -> tuple[Tensor, list[Tensor]]:
    """[b, 1], the sum over items of exp(score - reference), and the shares of the first chunks."""
    total = torch.zeros_like(reference)
    kept: list[Tensor] = []
    # One buffer: fresh memory for each chunk would cost as much time as the exponentials.
    buffer = users.new_empty(len(users), len(competing[0]))
    for number, part in enumerate(competing):
        shares = _shares(users, part, reference, torch.empty_like(buffer) if number < num_kept else buffer)
        total += shares.sum(1, keepdim=True)
        if number < num_kept:
            kept.append(shares)
    return total, kept


def _shares(users: Tensor, part: Tensor, reference: Tensor, buffer: Tensor) -> Tensor:
    """[b, H], [c, H], [b, 1] -> [b, c]: exp(score - reference), in the buffer's memory."""
    return torch.addmm(reference, users, part.T, beta=-1, out=buffer[:, : len(part)]).exp_()


__all__ = [
    "check_labels",
    "cross_entropy_of_scores",
    "draw_negatives",
    "full_cross_entropy",
    "gather_targets",
    "in_batch_cross_entropy",
    "reduce_losses",
    "sampled_cross_entropy",
]
