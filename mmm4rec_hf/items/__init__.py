"""Items: their texts and pictures in, their features out."""

from .batch_encoder import BatchEncoder
from .catalog import ItemCatalog
from .encoder import ItemEncoder

__all__ = ["BatchEncoder", "ItemCatalog", "ItemEncoder"]
