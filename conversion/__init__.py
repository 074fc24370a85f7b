"""Published checkpoints and data, and ours."""

from .configuration import config_from_published
from .weights import from_published

__all__ = ["config_from_published", "from_published"]
