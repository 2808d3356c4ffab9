"""Limits and manners of a fetch: how long, how large, how often, from where, and who asks."""

from importlib import metadata

from pydantic import Field, field_validator

from owl3.config import Config
from owl3.curate.hosts import HostConfig
from owl3.curate.rights import RightsConfig
from owl3.media import IMAGE_FORMATS, MAX_PIXELS


class DownloadConfig(Config):
    """Limits of one fetch. `timeout` and `retries` are img2dataset's flags, and mean what they mean there."""

    contact: str = ""
    """Mail address or page where a site's owner reaches whoever runs this; part of the user agent."""
    agent: str = Field(default="owl3", pattern=r"^[A-Za-z0-9_-]+$")
    """Product token: what robots.txt and X-Robots-Tag would name."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds for connecting, and between two reads."""
    deadline_s: float = Field(default=60.0, gt=0)
    """Seconds for a URL altogether: redirects, retries and pauses included; waiting for its host's turn is not."""
    retries: int = Field(default=2, ge=0)
    backoff_s: float = Field(default=1.0, ge=0)
    """Pause before the first retry; doubles each time."""
    max_bytes: int = Field(default=32_000_000, gt=0)
    min_bytes_per_s: float = Field(default=1_000.0, ge=0)
    min_rate_after_s: float = Field(default=5.0, ge=0)
    """The minimum rate counts from here on."""
    max_redirects: int = Field(default=5, ge=0)
    max_pixels: int = Field(default=MAX_PIXELS, gt=0)
    formats: tuple[str, ...] = IMAGE_FORMATS
    decode_deadline_s: float = Field(default=20.0, gt=0)
    allow_private_hosts: tuple[str, ...] = ()
    """Host names or patterns that may have addresses which are not public."""
    block_domains: tuple[str, ...] = ()
    """Domains never asked, with all their subdomains."""
    page_hosts: tuple[str, ...] = ()
    """Hosts (or patterns) whose URLs are pages with a clip: yt-dlp says where it is. For clips; needs `owl3[pages]`."""
    hosts: HostConfig = HostConfig()
    rights: RightsConfig = RightsConfig()

    @field_validator("formats")
    @classmethod
    def _are_known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(formats) - set(IMAGE_FORMATS)
        if unknown:
            raise ValueError(f"unknown formats {', '.join(sorted(unknown))}; known: {', '.join(IMAGE_FORMATS)}")
        return formats

    @property
    def user_agent(self) -> str:
        """Who fetches, and whom to write to."""
        version = metadata.version("owl3")
        return f"{self.agent}/{version} (+{self.contact})" if self.contact else f"{self.agent}/{version}"
