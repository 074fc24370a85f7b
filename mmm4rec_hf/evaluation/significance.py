"""How sure a number is: intervals by resampling users, and a paired test between two runs."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

# What `mmm4rec evaluate` and `mmm4rec report` say of a comparison: two methods, which may disagree close to 0.05.
COMPARISON_WORDS = (
    "interval: of the mean difference, 1,000 draws of users with replacement (percentile bootstrap); p: two-sided, "
    "10,000 draws of the sign of each user's difference (paired randomisation test); near p = 0.05 they may disagree"
)
# What a table says where `has_width` is false.
NO_INTERVAL_WORDS = "without an interval: one user, or the same value of every user, which draws of users cannot vary"
# Resamples x users held at once; a block of this size takes 80 MB.
_BLOCK_CELLS = 10_000_000


def bootstrap_intervals(
    values: np.ndarray,
    users: Sequence[str] | np.ndarray,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Percentile intervals of means, by drawing users with replacement; the targets of one user stay together.

    Args:
        values (`np.ndarray` of shape `(num_targets, num_metrics)`): Of each target.
        users (`Sequence[str]` of length `num_targets`): Whose target it is.
        num_resamples (`int`, *optional*, defaults to 1000): Draws of all users.
        confidence (`float`, *optional*, defaults to 0.95): The share of draws inside the interval.
        seed (`int`, *optional*, defaults to 0): Of the draws.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Lower and upper ends, each of shape `(num_metrics,)`. Where there is one user,
        or every user has the same value, both ends are the mean and say nothing of how sure it is: see [`has_width`].

    Raises:
        ValueError: If there is no target, or an argument is out of its range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    sums, sizes = _by_user(values, users)
    rng = np.random.default_rng(seed)
    means = []
    for block in _blocks(num_resamples, len(sizes)):
        drawn = rng.integers(0, len(sizes), size=(block, len(sizes)))
        times = np.stack([np.bincount(row, minlength=len(sizes)) for row in drawn]).astype(np.float64)
        means.append((times @ sums) / (times @ sizes)[:, None])
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low, high


def has_width(low: float, high: float) -> bool:
    """Whether the ends of [`bootstrap_intervals`] are an interval: equal ones, but for rounding, tell of no spread."""
    return not math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12)


def paired_p_values(
    differences: np.ndarray, users: Sequence[str] | np.ndarray, *, num_resamples: int = 10_000, seed: int = 0
) -> np.ndarray:
    """
    Two-sided p values of a paired randomisation test: under the null hypothesis either run could have had either
    value, so that the sign of each user's difference is a coin's.

    Args:
        differences (`np.ndarray` of shape `(num_targets, num_metrics)`): One run's values less the other's.
        users (`Sequence[str]` of length `num_targets`): Whose target it is; a user's targets change sign together.
        num_resamples (`int`, *optional*, defaults to 10000): Draws of signs; no p value is below one over this.
        seed (`int`, *optional*, defaults to 0): Of the draws.

    Returns:
        `np.ndarray` of shape `(num_metrics,)`: Shares of draws with a mean at least as far from 0.
    """
    sums, _ = _by_user(differences, users)
    # Sums of equal numbers in another order differ in their last bits and must still count as equally far.
    observed = np.abs(sums.sum(axis=0)) * (1 - 1e-9)
    rng = np.random.default_rng(seed)
    as_far = np.zeros(sums.shape[1])
    for block in _blocks(num_resamples, len(sums)):
        signs = rng.integers(0, 2, size=(block, len(sums)), dtype=np.int8) * 2.0 - 1
        as_far += (np.abs(signs @ sums) >= observed).sum(axis=0)
    return (as_far + 1) / (num_resamples + 1)


def _by_user(values: np.ndarray, users: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of each user's values, `(num_users, num_metrics)`, and the number of them, `(num_users,)`."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        raise ValueError("there are no users to resample: the split is empty")
    if values.ndim != 2 or len(values) != len(users):
        raise ValueError(f"values must be [targets, metrics] for {len(users)} users, got {list(values.shape)}")
    _, place = np.unique(np.asarray(users, dtype=str), return_inverse=True)
    sums = np.zeros((place.max() + 1, values.shape[1]))
    np.add.at(sums, place, values)
    return sums, np.bincount(place).astype(np.float64)


def _blocks(num_resamples: int, num_users: int) -> Iterator[int]:
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    size = max(1, _BLOCK_CELLS // num_users)
    for start in range(0, num_resamples, size):
        yield min(size, num_resamples - start)
