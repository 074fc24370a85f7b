"""What is made of weights alone: computed once, and kept until one of them changes."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class WeightCache(Generic[T]):
    """
    Keeps one value that is made of the weights of modules, while gradients are off.

    Autograd counts changes in place. A tensor that takes another's place is another object: its address says nothing,
    as it may be that of one that is gone. Writing through `.data`, as averages of weights are often swapped in, is
    counted by nobody, so parameters are also compared by their sum. Buffers (features, far larger) are not: change
    those in place without `.data`.

    Args:
        known (`tuple[type]`):
            What the modules may be. With any other class in their place (adapters), or with hooks, the value can
            change without a tensor that does, so that nothing is kept.
    """

    def __init__(self, known: tuple[type[nn.Module], ...]) -> None:
        self.known = known
        self._key: Any = None
        self._tensors: list[weakref.ref[Tensor]] = []
        self._value: T | None = None

    def get(self, modules: Iterable[nn.Module], make: Callable[[], T]) -> T:
        """
        The value, made again if something changed since it was made.

        Args:
            modules (`Iterable[nn.Module]`): Hold everything that the value is made of.
            make (`Callable`): Makes it.
        """
        tensors = None if torch.is_grad_enabled() or _is_traced() else self._made_of(list(modules))
        if tensors is None:
            return make()
        key = _fingerprint(tensors)
        is_known = len(tensors) == len(self._tensors) and all(
            known() is tensor for known, tensor in zip(self._tensors, tensors, strict=True)
        )
        if self._value is None or not is_known or key != self._key:
            self.clear()
            self._value, self._key, self._tensors = make(), key, [weakref.ref(tensor) for tensor in tensors]
        return self._value

    def clear(self) -> None:
        """Forgets the value, and frees its memory."""
        self._key = self._value = None
        self._tensors = []

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles of a model do without.
        return {"known": self.known, "_key": None, "_tensors": [], "_value": None}

    def _made_of(self, modules: list[nn.Module]) -> list[Tensor] | None:
        """The tensors that the value is made of; `None` where their changes cannot be told."""
        if any(type(m) not in self.known or m._forward_hooks or m._forward_pre_hooks for m in modules):
            return None
        tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
        # Tensors made in inference mode count no changes.
        return None if any(tensor.is_inference() or tensor.is_meta for tensor in tensors) else tensors


def _fingerprint(tensors: list[Tensor]) -> Any:
    """What changes with the content of tensors, and with the precision of what is computed of them."""
    sums = torch.stack([t.sum(dtype=torch.float32) for t in tensors if isinstance(t, nn.Parameter)]).tolist()
    device = tensors[0].device.type
    # Under autocast other numbers come out.
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return precision, sums, [(t.data_ptr(), t._version, t.shape, t.dtype, t.device) for t in tensors]


def _is_traced() -> bool:
    """Whether the computation is recorded for later, when weights may be others."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


__all__ = ["WeightCache"]
