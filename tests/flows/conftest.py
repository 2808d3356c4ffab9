"""Tests of flows share one Prefect server: those that use it carry `xdist_group("prefect")`, so that it starts once."""

from prefect_world import kill_tree, prefect_environment, prefect_server

__all__ = ["kill_tree", "prefect_environment", "prefect_server"]
