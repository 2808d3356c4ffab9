"""Tests of flows share one Prefect server."""

from prefect_world import kill_tree, prefect_environment, prefect_server

__all__ = ["kill_tree", "prefect_environment", "prefect_server"]
