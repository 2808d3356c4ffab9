"""Metadata of the hub, read as a stream: nothing is stored but the rows asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from owl3.errors import InputError


def resolve_revision(hub: str, revision: str) -> str:
    """Turn a branch into the commit it means now, so that the digest names what was read.

    Raises:
        InputError: when the hub has no such dataset, or can't be reached.
    """
    if Path(hub).is_dir():
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return str(HfApi().dataset_info(hub, revision=revision).sha)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise InputError(f"hub dataset {hub!r}: {str(error).splitlines()[0][:200]}") from error


def stream_hub(hub: str, split: str, revision: str) -> Iterator[dict[str, Any]]:
    """Yield a dataset's rows in their order; media columns come as they are stored, not decoded.

    Raises:
        InputError: when it can't be read.
    """
    import datasets

    try:
        is_local = Path(hub).is_dir()
        stream = datasets.load_dataset(hub, split=split, revision=None if is_local else revision, streaming=True)
        for name, feature in (stream.features or {}).items():
            if isinstance(feature, datasets.Image | datasets.Video | datasets.Audio):
                stream = stream.cast_column(name, type(feature)(decode=False))
        for row in stream:
            yield dict(row)
    except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError, ConnectionError, ValueError) as error:
        raise InputError(f"hub dataset {hub!r}: {str(error).splitlines()[0][:200]}") from error
