"""An approximate index over a model's items, for catalogues where an exact search takes too long; needs faiss."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .extras import how_to_install
from .outputs import replace_file

if TYPE_CHECKING:
    from .modeling import MMM4RecForSequentialRecommendation

logger = logging.getLogger(__name__)

# Vectors that the cells' centres are found from, for each cell; faiss takes no more than 256.
_TRAINED_BY = 64


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(f"the index needs faiss: {how_to_install('faiss')}") from error
    return faiss


class FaissIndex:
    """
    Item vectors in cells, the nearest of which are searched, each vector in 8 bits a number.

    ```python
    >>> index = FaissIndex.build(recommend.model)
    >>> recommend.use_index(index)
    ```

    Args:
        index (`faiss.Index`): With the items' rows as ids.
    """

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def build(
        cls,
        model: "MMM4RecForSequentialRecommendation",
        num_cells: int | None = None,
        num_searched: int | None = None,
        seed: int = 0,
    ) -> "FaissIndex":
        """
        Builds the index of a model's items.

        Args:
            model ([`MMM4RecForSequentialRecommendation`]): With items. A later change of weights or items asks for
                another index.
            num_cells (`int`, *optional*, defaults to `4 * num_items ** 0.5`): Cells; at most one of 39 items.
            num_searched (`int`, *optional*, defaults to an eighth of the cells):
                Cells that a search looks into: more give a higher recall and take longer.
            seed (`int`, *optional*, defaults to 0): Of the vectors that the cells are found from.

        Raises:
            ImportError: Without faiss.
            ValueError: For a model without items, or numbers out of range.
        """
        faiss = _faiss()
        vectors = model.item_vectors()[1:].cpu().numpy()
        count, size = vectors.shape
        cells = num_cells or max(1, min(round(4 * count**0.5), count // 39))
        searched = num_searched or max(1, cells // 8)
        if not 1 <= searched <= cells <= count:
            raise ValueError(
                f"num_searched ({searched}) must be in 1..num_cells ({cells}), and num_cells at most the number of "
                f"items ({count})"
            )
        index = faiss.index_factory(size, f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
        chosen = np.random.default_rng(seed).permutation(count)[: _TRAINED_BY * cells]
        index.train(vectors[np.sort(chosen)])
        for start in range(0, count, 2**16):
            part = vectors[start : start + 2**16]
            index.add_with_ids(part, np.arange(start + 1, start + 1 + len(part)))
        index.nprobe = searched
        logger.info("indexed %d items in %d cells, %d of which are searched", count, cells, searched)
        return cls(index)

    @property
    def num_items(self) -> int:
        """`int`: Items in the index."""
        return int(self.index.ntotal)

    def search(self, users: Tensor, k: int) -> Tensor:
        """
        The rows of items with large scores, best first as far as the index can tell.

        Args:
            users (`torch.Tensor` of shape `(b, H)`): User vectors.
            k (`int`): How many.

        Returns:
            `torch.LongTensor` of shape `(b, k)`: Rows of the model, 0 where the cells hold no more.
        """
        _, rows = self.index.search(users.detach().float().cpu().numpy(), k)
        return torch.from_numpy(rows).clamp_min(0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a file."""
        with replace_file(Path(path)) as partial:
            _faiss().write_index(self.index, str(partial))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FaissIndex":
        """
        Reads what [`~FaissIndex.save`] wrote.

        Raises:
            ValueError: If the file is not there, or is no index.
        """
        faiss = _faiss()
        try:
            return cls(faiss.read_index(os.fspath(path)))
        except RuntimeError as error:
            raise ValueError(f"{path} cannot be read as an index: {' '.join(str(error).split())[:200]}") from error
