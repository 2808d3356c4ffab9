"""A small corpus with every fault in it, and how many rows must end under which reason."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.hostile import Hostile, drip, endless, flaky, picture, redirect_to, short_body, stall
from owl3.curate.config import CurateConfig
from owl3.curate.sources.prepare import SourceConfig

HOST = "photos.owl3.test"
SIZE = (200, 150)
GOOD = 40

EXPECTED = {
    "aipref_disallowed": 1,
    "blank_image": 1,
    "contaminated": 1,
    "dead_host": 6,
    "decompression_bomb": 1,
    "duplicate_exact": 1,
    "duplicate_near": 1,
    "licence_not_allowed": 1,
    "low_clip_similarity": 1,
    "not_an_image": 1,
    "not_found": 1,
    "opt_out_header": 1,
    "private_address": 2,
    "robots_disallowed": 1,
    "server_error": 1,
    "tdm_reserved": 1,
    "timeout": 1,
    "too_large": 1,
    "too_many_redirects": 1,
    "too_slow": 1,
    "truncated_image": 1,
    "wrong_length": 1,
}
KEPT = GOOD + 4 - 1  # recovered, rotated, png and big ones; one good one stands in the benchmark


def _saved(image: Image.Image, fmt: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def fill(web: Hostile) -> list[dict[str, Any]]:
    """Put the corpus on the server; return its URL table."""
    rows: list[dict[str, Any]] = []

    def row(path: str, host: str = HOST, **changes: Any) -> None:
        known = {"url": f"http://{host}{path}", "caption": f"{path} at {host}", "licence": "CC0-1.0", "similarity": 0.3}
        rows.append(known | changes)

    def page(path: str, body: bytes, status: int = 200, **headers: str) -> None:
        web.page(path, body, status, **headers)
        row(path)

    def special(path: str, act: Any, host: str = HOST) -> None:
        web.special[path] = act
        row(path, host)

    for number in range(GOOD):
        page(f"/good-{number}.jpg", picture(number, SIZE))
    row("/missing.jpg")
    special("/recovers.jpg", flaky(1, 503, picture(900)))
    page("/fails.jpg", b"", 500)
    special("/stalls.jpg", stall())
    for number in range(6):
        special(f"/dead-{number}.jpg", stall(), "dead.owl3.test")
    special("/drips.jpg", drip())
    special("/endless.jpg", endless)
    special("/short.jpg", short_body)
    page("/truncated.jpg", picture(901, (400, 300))[:3000])
    page("/page.jpg", b"<html>not a picture</html>")
    page("/bomb.png", _saved(Image.new("1", (20_000, 20_000)), "PNG"))
    page("/same-as-good-3.jpg", picture(3, SIZE))
    page("/like-good-4.jpg", picture(4, SIZE, quality=60))
    page("/noai.jpg", picture(902), X_Robots_Tag="noai")
    page("/tdm.jpg", picture(903), tdm_reservation="1")
    page("/usage.jpg", picture(904), Content_Usage="train-ai=n")
    web.robots["robots.owl3.test"] = (200, "User-agent: *\nDisallow: /")
    row("/good-1.jpg", "robots.owl3.test")
    special("/inside.jpg", redirect_to("http://10.0.0.1/x.jpg"))
    special("/metadata.jpg", redirect_to("http://169.254.169.254/latest"))
    special("/loop.jpg", redirect_to("/loop.jpg"))
    page("/blank.jpg", _saved(Image.new("RGB", (80, 80), "red"), "JPEG"))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "secret camera"
    page("/rotated.jpg", picture(905, (120, 60), exif=exif))
    page("/picture.png", picture(906, (120, 60), "PNG"))
    page("/big.jpg", picture(908, (1500, 700)))
    row("/unlike.jpg", similarity=0.1)
    row("/licensed.jpg", licence="CC-BY-NC-4.0")
    return rows


def set_up(web: Hostile, workspace: Path) -> tuple[SourceConfig, CurateConfig]:
    """Write the tables and the benchmark; return the two configs of the chain."""
    pq.write_table(pa.Table.from_pylist(fill(web)), workspace / "rows.parquet")
    (workspace / "benchmark").mkdir()
    (workspace / "benchmark" / "x.jpg").write_bytes(picture(7, SIZE))
    (workspace / "known").mkdir()
    (workspace / "known" / "y.jpg").write_bytes(picture(8, SIZE, quality=60))
    (workspace / "known" / "z.jpg").write_bytes(picture(990, SIZE))
    source = SourceConfig.model_validate(
        {"name": "web", "files": ["rows.parquet"], "columns": {"licence": "licence", "extra": ["similarity"]}}
    )
    curate = CurateConfig.model_validate(
        {
            "name": "web",
            "source": "web",
            "fetch": {
                "contact": "https://owl3.test/contact",
                "timeout": 0.5,
                "deadline_s": 3,
                "retries": 1,
                "backoff_s": 0.05,
                "min_rate_after_s": 0.3,
                "max_bytes": 3_000_000,
                "allow_private_hosts": ["*.owl3.test"],
                "hosts": {"connections_per_host": 16},
            },
            "engine": {"number_sample_per_shard": 30, "thread_count": 16},
            "rows": {
                "licences": ["CC0-1.0"],
                "scores": [{"column": "similarity", "min": 0.2, "reason": "low_clip_similarity"}],
            },
            "decontaminate": [
                {"name": "bench", "images": ["benchmark/*"]},
                {"name": "known", "images": ["known/*"], "on_image": "flag"},
            ],
        }
    )
    return source, curate
