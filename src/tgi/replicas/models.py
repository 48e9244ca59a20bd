"""The models behind one address: which replicas serve a name, and what is said of a name that nobody serves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from tgi.api.openai.types import NAMELESS_MODELS
from tgi.errors import ModelNotFoundError, UnhealthyError
from tgi.replicas.replica import Replica

LONGEST_SHOWN = 200
MOST_NAMED = 20


@dataclass(slots=True, weakref_slot=True)
class Model:
    """One model under all of its names."""

    name: str
    entries: dict[str, Any] = field(default_factory=dict)
    """Names -> entries of /v1/models."""
    replicas: list[int] = field(default_factory=list)
    """Those that serve it, whether they can be used now or not."""
    allowed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """Those that can be used now, bool, one a replica; numbers that came later are missing."""
    expected: bool = False
    """It is to be there although no replica may serve it now."""

    def usable(self, size: int) -> np.ndarray:
        """`allowed`, bool, with `size` entries, one a replica; the caller must not change it."""
        if len(self.allowed) < size:
            self.allowed = np.pad(self.allowed, (0, size - len(self.allowed)))
        return self.allowed


class Models:
    """All models, in the order of the replicas that serve them."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self._by_name: dict[str, Model] = {}
        self._in_use: WeakValueDictionary[str, Model] = WeakValueDictionary()
        """Those that requests hold too: a model that comes back is the one that they wait for."""

    def expect(self, names: Iterable[str]) -> None:
        """The models that there are to be, the first one first: they are listed before any replica has started."""
        for model in self._models.values():
            model.expected = False
        expected = {}
        for name in names:
            expected[name] = self._models.get(name) or Model(name, {name: _unseen(name)})
            expected[name].expected = True
        others = {name: model for name, model in self._models.items() if model.replicas and name not in expected}
        self._models = expected | others
        self._in_use.update(self._models)
        self._name()

    def refresh(self, replicas: Sequence[Replica]) -> None:
        """Something changed at a replica. Models go with the last replica that had them, unless they are expected."""
        for model in self._models.values():
            model.replicas, model.allowed = [], np.zeros(0, bool)
        numbers = max((replica.number for replica in replicas), default=-1) + 1
        for replica in replicas:
            if not replica.models:
                continue
            name = next(iter(replica.models))
            model = self._models.setdefault(name, self._in_use.get(name) or Model(name))
            if not model.replicas:
                model.entries, model.allowed = {}, np.zeros(numbers, bool)
            model.entries |= replica.models
            model.replicas.append(replica.number)
            model.allowed[replica.number] = replica.up
        self._models = {name: model for name, model in self._models.items() if model.replicas or model.expected}
        self._in_use.update(self._models)
        self._name()

    def _name(self) -> None:
        self._by_name = {}
        for model in self._models.values():
            self._by_name |= {name: model for name in model.entries if name not in self._by_name}

    @property
    def first(self) -> Model:
        """Raises UnhealthyError when nothing is known of any replica yet."""
        if not self._models:
            raise UnhealthyError("No replica has answered yet: try again in a moment")
        return next(iter(self._models.values()))

    @property
    def entries(self) -> list[Any]:
        """What `/v1/models` lists."""
        return [entry for model in self._models.values() for entry in model.entries.values()]

    def entry(self, name: str) -> Any:
        """Raises ModelNotFoundError."""
        model = self.first if name in NAMELESS_MODELS else self._by_name.get(name)
        if model is None:
            raise self._unknown(name)
        return model.entries.get(name, model.entries[model.name])

    def find(self, name: str | None) -> Model:
        """The model that a request names. Where there is only one, its replicas judge the name.

        Raises ModelNotFoundError, UnhealthyError.
        """
        first = self.first
        if len(self._models) == 1 or name is None or name in NAMELESS_MODELS or "://" in name:
            return first
        model = self._by_name.get(name)
        if model is None:
            raise self._unknown(name)
        return model

    def of_path(self, path: str) -> tuple[Model, str] | None:
        """`/<name>/generate` -> the model and `/generate`."""
        for name, model in self._by_name.items():
            prefix = f"/{name}"
            if path.startswith(f"{prefix}/") or path == prefix:
                return model, path[len(prefix) :] or "/"
        return None

    def _unknown(self, name: str) -> ModelNotFoundError:
        names = list(self._by_name)
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        listed = ", ".join(f"`{one}`" for one in names[:MOST_NAMED])
        message = f"The model `{name[:LONGEST_SHOWN]}` does not exist: there are {listed}{more}"
        return ModelNotFoundError(message, param="model", code="model_not_found")


def _unseen(name: str) -> dict[str, Any]:
    """The entry of a model of which no replica has started yet."""
    return {"id": name, "object": "model", "created": 0, "owned_by": name}
