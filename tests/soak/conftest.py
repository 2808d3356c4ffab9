"""Long tests of flows have a Prefect server, as the short ones do."""

from prefect_world import prefect_environment, prefect_server

__all__ = ["prefect_environment", "prefect_server"]
