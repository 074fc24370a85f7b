"""Published checkpoints and data, and ours."""

from .configuration import config_from_published, config_to_published
from .published import Conversion, convert_published, convert_to_published, load_published
from .weights import from_published, to_published

__all__ = [
    "Conversion",
    "config_from_published",
    "config_to_published",
    "convert_published",
    "convert_to_published",
    "from_published",
    "load_published",
    "to_published",
]
