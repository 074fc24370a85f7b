"""The best items of each user out of a catalogue of any size: exact, by blocks, without a score of every item kept.

A coarse pass scores all items, in bfloat16 where the CPU multiplies it, and keeps the best score of each small group
of items. How far a coarse score can be off is bounded, so the few groups that may hold one of the best items are known
for certain; their items alone are scored again in float32.

Letters in shape comments: b users, n items, H width.
"""

import torch
from torch import Tensor

# Items scored at a time: with 256 users 16 MB of float32 scores.
_BLOCK = 2**14
_GROUP = 16
# Up to this many scores all of them are computed at once.
_FEW_SCORES = 2**22
# Up to this many users the product reads the items as they lie: twice as fast and more, then the order is level.
_FEW_USERS = 16
# User and item pairs that are scored again at a time.
_PAIRS = 2**17
# Pairs of which the scores are held at once (64 MB).
_AGAIN = 2**24
# What rounding to bfloat16 changes at most, and what the sums of float32 do, of the product of two lengths.
_BFLOAT16_ROUNDING = 2**-8
_SUMS = 2**-15
NAN_SCORES = "scores hold NaN; the model's weights or its items' features do: train or encode again"


class TopItems:
    """
    Finds the items with the largest products.

    Args:
        vectors (`torch.Tensor` of shape `(n, H)`): Item vectors, float32. They are not copied.
    """

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors
        self._coarse: Tensor | None = None
        self._longest = self._longest_error = 0.0
        self._holds_nan = False

    @torch.no_grad()
    def search(self, users: Tensor, k: int, excluded: list[list[int]] | None = None) -> tuple[Tensor, Tensor]:
        """
        The best items of each user.

        Args:
            users (`torch.Tensor` of shape `(b, H)`): User vectors, float32.
            k (`int`): How many.
            excluded (`list[list[int]]`, *optional*): Rows that each user must not get.

        Returns:
            `tuple(torch.Tensor)`: Products and rows, each `(b, min(k, n))`, best first; -inf where nothing is left.

        Raises:
            ValueError: If a vector holds NaN, which no coarse score can be told for; of a small catalogue it is
                returned, before all other products.
        """
        k = min(k, len(self.vectors))
        pairs = _pairs(excluded, users.device)
        if len(users) * len(self.vectors) <= _FEW_SCORES:
            scores = self._scores(users)
            scores[pairs[0], pairs[1]] = -torch.inf
            best = scores.topk(k, dim=1)
            return best.values, best.indices
        if self._coarse is None:
            self._prepare()
        if self._holds_nan or users.isnan().any():
            raise ValueError(NAN_SCORES)
        groups = self._best_of_groups(users, pairs)
        # k groups hold an item of at least the k-th best coarse score less what that can be off.
        floor = self._floor(users, groups.topk(min(k, groups.shape[1]), dim=1).values[:, -1:])
        wanted = groups >= floor
        del groups
        # Where very many items are level, few users at a time.
        most = int(wanted.sum(1).max()) * _GROUP
        parts = [
            self._score_again(users, chosen, wanted, pairs, k)
            for chosen in torch.arange(len(users), device=users.device).split(max(1, _AGAIN // most))
        ]
        return torch.cat([values for values, _ in parts]), torch.cat([rows for _, rows in parts])

    def _scores(self, users: Tensor) -> Tensor:
        """[b, H] -> [b, n]: all products."""
        if len(users) > _FEW_USERS:
            return users @ self.vectors.T
        # One column alone would go to a routine for vectors, which can take twice as long as that for matrices.
        columns = users.repeat(2, 1) if len(users) == 1 else users
        return (self.vectors @ columns.T).T[: len(users)].contiguous()

    def _prepare(self) -> None:
        # Taking one vector off all items changes no ranking, and the shorter they are the smaller the error.
        mean = self.vectors.mean(0)
        self._holds_nan = bool(mean.isnan().any())
        dtype = torch.bfloat16 if _multiplies_bfloat16(self.vectors.device) else torch.float32
        coarse = torch.empty_like(self.vectors, dtype=dtype)
        for start in range(0, len(coarse), _BLOCK):
            part = self.vectors[start : start + _BLOCK] - mean
            coarse[start : start + _BLOCK] = part
            rounded = coarse[start : start + _BLOCK].float()
            self._longest = max(self._longest, float(rounded.norm(dim=1).max()))
            self._longest_error = max(self._longest_error, float((part - rounded).norm(dim=1).max()))
        self._coarse = coarse

    def _floor(self, users: Tensor, kth: Tensor) -> Tensor:
        """[b, H], [b, 1] -> [b, 1]: no item with a coarse score below it is better than the k-th, for certain."""
        assert self._coarse is not None  # _prepare ran
        user_error = (users - users.to(self._coarse.dtype).float()).norm(dim=1, keepdim=True)
        # By Cauchy and Schwarz, with the rounding errors as they are.
        error = users.norm(dim=1, keepdim=True) * (self._longest_error + _SUMS * self._longest)
        error = error + user_error * self._longest
        floor = kth - 2 * error
        if self._coarse.dtype == torch.bfloat16:
            # The scores were rounded as well; a little more makes up for reckoning from the rounded one.
            floor = floor - 2.1 * _BFLOAT16_ROUNDING * (kth.abs() + 2 * error)
        return floor

    def _best_of_groups(self, users: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
        """[b, H] -> [b, ceil(n / group)] float32: the best coarse score of each group that is not excluded."""
        assert self._coarse is not None  # _prepare ran
        coarse, count = self._coarse, len(self.vectors)
        num_groups = -(-count // _GROUP)
        best = torch.full((num_groups, len(users)), -torch.inf, device=users.device)
        narrow = users.to(coarse.dtype).T.contiguous()
        user, row = pairs
        order = row.argsort()
        user, row = user[order], row[order]
        starts = torch.arange(0, count, _BLOCK, device=row.device)
        ends = torch.searchsorted(row, torch.cat([starts, starts.new_tensor([count])])).tolist()
        for number, start in enumerate(range(0, count, _BLOCK)):
            scores = coarse[start : start + _BLOCK] @ narrow
            inside = slice(ends[number], ends[number + 1])
            scores[row[inside] - start, user[inside]] = -torch.inf
            whole = len(scores) // _GROUP
            first = start // _GROUP
            best[first : first + whole] = scores[: whole * _GROUP].unflatten(0, (whole, _GROUP)).amax(1)
            if whole * _GROUP < len(scores):
                best[first + whole] = scores[whole * _GROUP :].amax(0)
        return best.T

    def _score_again(
        self, users: Tensor, chosen: Tensor, wanted: Tensor, pairs: tuple[Tensor, Tensor], k: int
    ) -> tuple[Tensor, Tensor]:
        """[b, H], [c], [b, groups] -> [c, k] twice: the best of the chosen users' wanted groups."""
        count, first = len(self.vectors), int(chosen[0])
        user, group = wanted[chosen].nonzero().unbind(1)
        rows = group.unsqueeze(1) * _GROUP + torch.arange(_GROUP, device=group.device)
        scores = torch.empty_like(rows, dtype=torch.float32)
        for part in torch.arange(len(rows), device=rows.device).split(_PAIRS // _GROUP):
            items = self.vectors[rows[part].clamp_max(count - 1)]
            scores[part] = torch.einsum("gh,gih->gi", users[first + user[part]], items)
        taken = torch.isin((first + user).unsqueeze(1) * count + rows, pairs[0] * count + pairs[1])
        scores = scores.masked_fill(taken | (rows >= count), -torch.inf)
        # One line a user, as long as the longest.
        lengths = torch.bincount(user, minlength=len(chosen))
        place = torch.arange(len(user), device=user.device) - (lengths.cumsum(0) - lengths)[user]
        lines = users.new_full((len(chosen), int(lengths.max()), _GROUP), -torch.inf)
        lines[user, place] = scores
        found = torch.zeros_like(lines, dtype=torch.long)
        found[user, place] = rows.clamp_max(count - 1)  # what stands for no item scores -inf
        best = lines.flatten(1).topk(k, dim=1)
        return best.values, found.flatten(1).gather(1, best.indices)


class HistoryTerms:
    """
    What is added to the scores of a few items of each user, see [`MMM4RecCooccurrence`].

    Args:
        rows (`torch.Tensor` of shape `(b, e)`): Rows of the model, each once a user; 0 where there are no more.
        terms (`torch.Tensor` of shape `(b, e)`): What is added to their scores.
    """

    def __init__(self, rows: Tensor, terms: Tensor) -> None:
        self.rows, order = rows.sort(dim=1)
        self.terms = terms.gather(1, order)

    @property
    def most_lowered(self) -> int:
        """`int`: Of how many items of one user the score is lowered: as many more must be found without terms."""
        return int((self.terms < 0).sum(1).max())

    def of(self, rows: Tensor) -> Tensor:
        """[b, k] -> [b, k]: the terms of rows, 0 where they have none."""
        places, found = _places(self.rows, rows)
        return torch.where(found, self.terms.gather(1, places), 0)

    @torch.no_grad()
    def best(
        self,
        users: Tensor,
        vectors: Tensor,
        rows: Tensor,
        products: Tensor,
        excluded: list[list[int]],
        allowed: list[int] | None,
        top_k: int,
    ) -> tuple[Tensor, Tensor]:
        """
        The best items once terms are added.

        Args:
            users (`torch.Tensor` of shape `(b, H)`): User vectors over the temperature.
            vectors (`torch.Tensor` of shape `(r, H)`): Item vectors, by row of the model.
            rows (`torch.Tensor` of shape `(b, k)`): The best rows without terms, `most_lowered` more than are wanted.
            products (`torch.Tensor` of shape `(b, k)`): Their scores without terms, -inf where none is left.
            excluded (`list[list[int]]`): Rows that each user must not get.
            allowed (`list[int]`, *optional*): The only rows that anyone may get.
            top_k (`int`): How many are wanted.

        Returns:
            `tuple(torch.Tensor)`: Rows and scores, each `(b, min(top_k, ...))`, best first; -inf where none is left.
        """
        # Those with a term are scored here, whether they were found or not.
        products = products.masked_fill(_places(self.rows, rows)[1], -torch.inf)
        scores = torch.empty_like(self.terms)
        for part in torch.arange(len(users), device=users.device).split(max(1, _PAIRS // self.rows.shape[1])):
            scores[part] = torch.einsum("bh,beh->be", users[part], vectors[self.rows[part]])
        left_out = self.rows == 0
        longest = max(map(len, excluded))
        if longest:
            padded = torch.tensor([[*line, *[0] * (longest - len(line))] for line in excluded], device=rows.device)
            left_out = left_out | _places(padded.sort(dim=1).values, self.rows)[1]
        if allowed is not None:
            left_out = left_out | ~torch.isin(self.rows, torch.tensor(allowed, dtype=torch.long, device=rows.device))
        scores = (scores + self.terms).masked_fill(left_out, -torch.inf)
        products, rows = torch.cat([products, scores], 1), torch.cat([rows, self.rows], 1)
        best = products.topk(min(top_k, products.shape[1]), dim=1)
        return rows.gather(1, best.indices), best.values


def _places(lines: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """[b, e] ascending, [b, k] -> [b, k] twice: where each row stands in its line, and whether it does."""
    places = torch.searchsorted(lines, rows.contiguous()).clamp_max(lines.shape[1] - 1)
    return places, lines.gather(1, places) == rows


def _pairs(excluded: list[list[int]] | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Users and rows that do not go together."""
    pairs = [(user, row) for user, rows in enumerate(excluded or []) for row in rows]
    user, row = torch.tensor(pairs, dtype=torch.long, device=device).view(-1, 2).unbind(1)
    return user, row


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a CPU has instructions for it; without, it is slower than float32."""
    tell = getattr(torch.cpu, "get_capabilities", None)  # of newer releases of torch
    return device.type == "cpu" and tell is not None and bool(tell().get("avx512_bf16"))


__all__ = ["NAN_SCORES", "HistoryTerms", "TopItems"]
