"""Which stages there are: what the installed packages offer under ``jobledger.stages``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel

from .errors import PipelineError
from .stage import Stage

STAGE_GROUP = "jobledger.stages"


class StageRegistry:
    """Makes stages by their names; a stage's code is imported when it is first asked for.

    Args:
        factories: For each name a callable that returns the stage.
    """

    def __init__(self, factories: Mapping[str, Callable[[], Any]]) -> None:
        self._factories = dict(factories)

    @property
    def names(self) -> list[str]:
        """The known stages, sorted."""
        return sorted(self._factories)

    def __contains__(self, name: str) -> bool:
        return name in self._factories

    def create(self, name: str) -> Stage[Any]:
        """Return a new stage.

        Raises:
            PipelineError: when nobody offers it, or when what is offered is no stage.
        """
        if name not in self._factories:
            raise PipelineError(f"There is no stage {name!r}; known ones: {', '.join(self.names)}.")
        stage = self._factories[name]()
        if not callable(getattr(stage, "run", None)) or not _is_model(getattr(stage, "Settings", None)):
            raise PipelineError(f"The stage {name!r} has no run() or no Settings model; its package must be mended.")
        checked: Stage[Any] = stage
        return checked


def _is_model(candidate: object) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


@lru_cache(maxsize=1)
def installed_stages() -> StageRegistry:
    """Return the stages of the installed packages, as they were when this process first asked.

    Raises:
        PipelineError: when two packages offer different stages under one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=STAGE_GROUP):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise PipelineError(
                f"Two packages offer the stage {point.name!r}: {other.value} and {point.value}; uninstall one."
            )
    return StageRegistry({name: _loader(point) for name, point in found.items()})


def _loader(point: EntryPoint) -> Callable[[], Any]:
    def load() -> Any:
        try:
            return point.load()()
        except (ImportError, AttributeError) as error:
            raise PipelineError(f"The stage {point.name!r} ({point.value}) cannot be loaded: {error}") from error

    return load
