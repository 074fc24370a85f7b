"""What a random order would reach, and a word where a model reaches no more."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .significance import bootstrap_intervals, has_width

logger = logging.getLogger(__name__)


def warn_at_chance(
    name: str,
    hits: np.ndarray,
    k: int,
    num_candidates: int | Sequence[int] | np.ndarray,
    users: Sequence[Any] | np.ndarray | None = None,
) -> bool:
    """
    Warns of a hit rate that a random order has as well.

    It does where the hit rate is within two standard errors of chance, or below, and the interval over users (see
    [`bootstrap_intervals`]) does not lie above chance either. The standard error takes a user's targets for one draw,
    as they may hit and miss together; the interval tells how far they did.

    Args:
        name (`str`): What the metric is called.
        hits (`np.ndarray` of shape `(num_targets,)`): HR@K of each target.
        k (`int`): Its cut-off.
        num_candidates (`int` or `Sequence[int]` of length `num_targets`): Items that are ranked, for all targets or
            for each. Where there are no more than K, every order hits.
        users (`Sequence` of length `num_targets`, *optional*): Whose target each is; by default each is a draw of its
            own.

    Returns:
        `bool`: Whether there was reason to.
    """
    candidates = np.atleast_1d(np.asarray(num_candidates))
    chance = float(np.minimum(1.0, k / candidates).mean())
    owners = np.arange(len(hits)) if users is None else np.asarray(users)
    num_users, hit_rate = len(np.unique(owners)), float(hits.mean())
    if k >= candidates.max() or hit_rate > chance + 2 * math.sqrt(chance * (1 - chance) / num_users):
        return False
    (low,), (high,) = bootstrap_intervals(hits[:, None], owners)
    if low > chance and has_width(low, high):
        return False
    logger.warning(
        "%s is %.4f over %s; a random order of %s items has %.4f: the model ranks no better than chance. Check "
        "learning_rate, and that items and features are in the same order",
        name,
        hit_rate,
        told_number(len(hits), None if users is None else num_users),
        " to ".join(map(str, sorted({int(candidates.min()), int(candidates.max())}))),
        chance,
    )
    return True


def told_number(num_targets: int, num_users: int | None) -> str:
    """`20 users` with a target each, `40 targets of 20 users`, or `40 targets` of users that are not known."""
    if num_users == num_targets:
        return f"{num_users:,} user{'s' * (num_users != 1)}"
    targets = f"{num_targets:,} target{'s' * (num_targets != 1)}"
    return targets if num_users is None else f"{targets} of {told_number(num_users, num_users)}"
