"""Work that goes on in threads while a test does something else."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Background(ABC):
    """Some workers, each with a number, from the beginning of a `with` block to its end."""

    def __init__(self, at_once: int) -> None:
        self.ending = threading.Event()
        self._threads = [threading.Thread(target=self.work, args=(number,)) for number in range(at_once)]

    @abstractmethod
    def work(self, number: int) -> None:
        """Until `ending` is set."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ending.set()
        for thread in self._threads:
            thread.join()
