"""What every test gets: a log that no test before it has configured."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("busy machines", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machines")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands run within a test configure the whole process's logging; the next test must not notice."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in root.manager.loggerDict if name.startswith("tgi"))]
    before = root.handlers[:], [(logger, logger.level) for logger in loggers]
    yield
    root.handlers[:] = before[0]
    for name in root.manager.loggerDict:
        if name.startswith("tgi"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    for logger, level in before[1]:
        logger.setLevel(level)
    logging.captureWarnings(False)
