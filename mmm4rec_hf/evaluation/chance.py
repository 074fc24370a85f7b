"""What a random order would reach, and a word where a model reaches no more."""

import logging
import math
from collections.abc import Sequence

import numpy as np

logger = logging.getLogger(__name__)


def warn_at_chance(
    name: str,
    hit_rate: float,
    k: int,
    num_users: int,
    num_candidates: int | Sequence[int] | np.ndarray,
    num_targets: int | None = None,
) -> bool:
    """
    Warns of a hit rate that a random order has as well: within two standard errors of chance, or below.

    Args:
        name (`str`): What the metric is called.
        hit_rate (`float`): HR@K.
        k (`int`): Its cut-off.
        num_users (`int`): Whose mean it is. The standard error takes a user's targets for one draw, as they may hit
            and miss together.
        num_candidates (`int` or `Sequence[int]` of length `num_targets`): Items that are ranked, for all targets or
            for each. Where there are no more than K, every order hits.
        num_targets (`int`, *optional*, defaults to `num_users`): How many targets they have.

    Returns:
        `bool`: Whether there was reason to.
    """
    candidates = np.atleast_1d(np.asarray(num_candidates))
    chance = float(np.minimum(1.0, k / candidates).mean())
    if chance >= 1 or hit_rate > chance + 2 * math.sqrt(chance * (1 - chance) / num_users):
        return False
    fewest, most = int(candidates.min()), int(candidates.max())
    logger.warning(
        "%s is %.4f over %s; a random order of %s items has %.4f: the model ranks no better than chance. Check "
        "learning_rate, and that items and features are in the same order",
        name,
        hit_rate,
        f"{num_users} users" if num_targets in (None, num_users) else f"{num_targets} targets of {num_users} users",
        fewest if fewest == most else f"{fewest} to {most}",
        chance,
    )
    return True
