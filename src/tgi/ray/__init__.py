"""Replicas on Ray Serve: it places, starts, restarts, scales and replaces them; we choose among them.

Importing this package does not import Ray. `app` and `model` are what a Serve config file names (`tgi.ray:app`).
"""

from __future__ import annotations

from typing import Any


def app(arguments: dict[str, Any]) -> Any:
    """The router as a Serve application; arguments: those of `application.RouterSettings`."""
    from tgi.ray.application import router_application

    return router_application(arguments)


def model(arguments: dict[str, Any]) -> Any:
    """One model as a Serve application; arguments: as an entry of `models` in deploy.yaml, and `router`."""
    from tgi.ray.application import model_application

    return model_application(arguments)
