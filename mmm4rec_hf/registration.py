"""
Tells transformers' Auto classes and pipelines about MMM4Rec; importing mmm4rec_hf sees to it.

The classes need torch, and most of transformers with it, which a program may never use: each is registered when
transformers' module that asks for it is loaded, at once if it was before.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register() -> None:
    """Registers each class as soon as transformers' module that looks for it is loaded, or now where it is."""
    asked = _AskedFor(dict(_REGISTRATIONS))
    sys.meta_path.insert(0, asked)
    asked.register()


def _register_config() -> None:
    from transformers import AutoConfig

    from .modeling import MMM4RecConfig

    AutoConfig.register(MMM4RecConfig.model_type, MMM4RecConfig, exist_ok=True)


def _register_models() -> None:
    from transformers import AutoModel, AutoModelForPreTraining

    from .modeling import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecModel

    AutoModel.register(MMM4RecConfig, MMM4RecModel, exist_ok=True)
    AutoModelForPreTraining.register(MMM4RecConfig, MMM4RecForSequentialRecommendation, exist_ok=True)


def _register_processor() -> None:
    from transformers import AutoProcessor

    from .modeling import MMM4RecConfig, MMM4RecProcessor

    AutoProcessor.register(MMM4RecConfig, MMM4RecProcessor, exist_ok=True)


def _register_pipeline() -> None:
    from transformers import AutoModelForPreTraining
    from transformers.pipelines import PIPELINE_REGISTRY

    from .modeling import SequentialRecommendationPipeline
    from .modeling.configuration_mmm4rec import TASK

    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=SequentialRecommendationPipeline,
            pt_model=AutoModelForPreTraining,
            type="multimodal",
        )


_REGISTRATIONS: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.processing_auto": _register_processor,
    "transformers.pipelines": _register_pipeline,
}


class _AskedFor(MetaPathFinder):
    """
    Registers after imports. Modules of transformers import each other in circles, so that it waits for the outermost
    one to end: what it loads itself then finds no module half loaded.

    Args:
        waiting (`dict[str, Callable]`): By transformers' module, what to do when it is loaded.
    """

    def __init__(self, waiting: dict[str, Callable[[], None]]) -> None:
        self.waiting = waiting
        self._depth = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(("transformers.", f"{__package__}.modeling")):
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with self._importing():
                    execute(module)
                self.register()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def register(self) -> None:
        """Registers what transformers looks for by now, unless a module is half loaded."""
        if self._depth > 0:
            return
        with self._importing():
            while loaded := [name for name in self.waiting if name in sys.modules]:
                for name in loaded:
                    self.waiting[name]()
                    del self.waiting[name]
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)

    @contextmanager
    def _importing(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1


__all__ = ["register"]
