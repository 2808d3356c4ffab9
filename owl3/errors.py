"""What can go wrong, and which exit code it becomes.

    Owl3Error            2  a person's mistake or a bad input: one line that names file and key and says what to do
    ├── ConfigError      2  a recipe or an option is wrong
    ├── InputError       2  a file, folder or URL is missing, damaged or of another kind
    │   └── StaleError   2  an artifact exists, but was made by another recipe or other parents
    ├── CheckFailed      1  a check found something false (lint, audit, gates)
    └── Interrupted      3  stopped part-way; running the same command again resumes
        └── Stopped      3  because somebody asked for it: nothing that is tried again by itself

A bad *sample* is none of these: it is a drop, counted with its reason. A bug of ours is an `AssertionError`.
"""

from owl3.secrecy import hide


class Owl3Error(Exception):
    """A person's mistake or a bad input; the message is one line that says what to do, and holds no secret."""

    exit_code: int = 2

    def __init__(self, message: str) -> None:
        super().__init__(hide(message))


class ConfigError(Owl3Error):
    """A recipe, an option or a combination of them is wrong."""


class InputError(Owl3Error):
    """A file, folder or URL is missing, damaged or of another kind than asked for."""


class StaleError(InputError):
    """An artifact exists, but was made by another recipe or from other parents."""


class CheckFailed(Owl3Error):
    """A check ran to its end and found something false."""

    exit_code = 1


class Interrupted(Owl3Error):
    """Work stopped part-way and left resumable state."""

    exit_code = 3


class Stopped(Interrupted):
    """Somebody asked the work to stop, so nobody should take it up again by himself."""
