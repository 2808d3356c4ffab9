"""How long work tells that it goes on, without knowing about terminals."""

from typing import Protocol


class Progress(Protocol):
    """Receives what is being done. The CLI shows it; libraries and tests stay silent."""

    def start(self, label: str, total: int | None = None) -> None:
        """Begin a piece of work of `total` units (None: unknown)."""

    def advance(self, units: int = 1) -> None:
        """Count finished units of the current piece."""

    def finish(self, note: str = "") -> None:
        """End the current piece, with a short result to show."""


class Silent:
    """Shows nothing."""

    def start(self, label: str, total: int | None = None) -> None:
        """Ignore."""

    def advance(self, units: int = 1) -> None:
        """Ignore."""

    def finish(self, note: str = "") -> None:
        """Ignore."""


SILENT: Progress = Silent()
