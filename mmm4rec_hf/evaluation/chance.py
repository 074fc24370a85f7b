"""What a random order would reach, and a word where a model reaches no more."""

import logging
import math

logger = logging.getLogger(__name__)


def warn_at_chance(name: str, hit_rate: float, k: int, num_users: int, num_candidates: int) -> bool:
    """
    Warns of a hit rate that a random order has as well: within two standard errors of chance, or below.

    Args:
        name (`str`): What the metric is called.
        hit_rate (`float`): HR@K.
        k (`int`): Its cut-off.
        num_users (`int`): Whose mean it is.
        num_candidates (`int`): Items that are ranked. Where there are no more than K, every order hits.

    Returns:
        `bool`: Whether there was reason to.
    """
    chance = k / num_candidates
    if chance >= 1 or hit_rate > chance + 2 * math.sqrt(chance * (1 - chance) / num_users):
        return False
    logger.warning(
        "%s is %.4f over %d users; a random order of %d items has %.4f: the model ranks no better than chance. Check "
        "learning_rate, and that items and features are in the same order",
        name,
        hit_rate,
        num_users,
        num_candidates,
        chance,
    )
    return True
