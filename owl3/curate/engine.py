"""img2dataset's flags, under their own names: how pictures are resized and stored, and how many work on them."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from owl3.config import Config
from owl3.curate.inspector import Finish
from owl3.curate.resize import Interpolation, ResizeMode, Resizing

ROW_COLUMN = "owl3_row"
"""Carried through img2dataset: a row's number in the table of its shard."""
_MAX_PNG_LEVEL = 9
_BLURRED_QUALITY = 95
_NOT_WHAT_BUT_HOW = {
    *("processes_count", "thread_count", "distributor", "subjob_size", "max_shard_retry", "stall_s", "gateway_host")
}


class EngineConfig(Config):
    """img2dataset's own flags, under their own names; what differs from its defaults is marked."""

    processes_count: int = Field(default=1, ge=1)
    thread_count: int = Field(default=64, ge=1)  # img2dataset: 256
    image_size: int = Field(default=1024, ge=1)  # img2dataset: 256
    resize_mode: ResizeMode = "keep_ratio_largest"
    resize_only_if_bigger: bool = True  # img2dataset: False, which scales small pictures up
    upscale_interpolation: Interpolation = "lanczos"
    downscale_interpolation: Interpolation = "area"
    encode_quality: int = Field(default=95, ge=0, le=100)
    encode_format: Literal["jpg", "png", "webp"] = "jpg"
    skip_reencode: bool = True  # img2dataset: False; a JPEG that needs no resizing is stored as it came
    extract_exif: bool = False  # img2dataset: True; EXIF says where and with whose camera a picture was taken
    number_sample_per_shard: int = Field(default=10_000, ge=1)
    distributor: Literal["multiprocessing", "pyspark", "ray", "none"] = "multiprocessing"
    """Which of img2dataset's; `none` is ours: no img2dataset, children of this process resize, to the same bytes."""
    subjob_size: int = Field(default=1_000, ge=1)
    gateway_host: str = "127.0.0.1"
    """Ours. Address of this machine at which workers of a ray or spark cluster reach it; all fetching stays here."""
    max_shard_retry: int = Field(default=1, ge=0)
    stall_s: float = Field(default=300.0, gt=0)
    """Ours. With no row answered and no shard done for so long, img2dataset is taken to hang and started again."""

    @model_validator(mode="after")
    def _fits_format(self) -> Self:
        if self.encode_format == "png" and self.encode_quality > _MAX_PNG_LEVEL:
            raise ValueError(
                f"encode_quality {self.encode_quality} is for jpg and webp; with encode_format: png it says how hard "
                f"to compress, 0 to {_MAX_PNG_LEVEL}"
            )
        if self.distributor == "none" and self.extract_exif:
            raise ValueError("extract_exif is img2dataset's; with distributor: none it has no effect, take it out")
        if self.encode_format != "jpg" and self.skip_reencode:
            raise ValueError(
                f"skip_reencode stores a {self.encode_format} as it came, camera and place included, which are taken "
                "out of jpg alone; set engine.skip_reencode to false"
            )
        return self

    @property
    def jpeg_quality(self) -> int:
        """Of pictures that we change ourselves; they become JPEGs, whatever the others are."""
        return _BLURRED_QUALITY if self.encode_format == "png" else self.encode_quality

    @property
    def resizing(self) -> Resizing:
        """The flags that shape a picture."""
        return Resizing(**self.model_dump(include={*Resizing.__slots__}))

    @property
    def finish(self) -> Finish:
        """Which pictures are not left to img2dataset."""
        if self.distributor == "none":
            return "all"
        return "unusual" if self.extract_exif else "untouched"

    def recipe(self) -> dict[str, Any]:
        """The flags that shape the output; how many processes and threads work on it is not among them."""
        return self.model_dump(mode="json", exclude=_NOT_WHAT_BUT_HOW)

    def flags(self) -> dict[str, Any]:
        """What `img2dataset.download` is called with, beside input and output."""
        return self.model_dump(exclude={"stall_s", "max_shard_retry", "gateway_host"}) | {
            "input_format": "parquet",
            "url_col": "url",
            "output_format": "webdataset",
            "save_additional_columns": [ROW_COLUMN],
            "compute_hash": None,  # ours are of the bytes as fetched and as stored
            "timeout": 86_400,  # the gateway always answers: within its deadline, once a host's slot is free
            "retries": 0,  # the gateway retries
            "disallowed_header_directives": [],  # the gateway has read the real server's headers
            "max_shard_retry": 1,
        }
