"""The small chain of the cards' tests, and a browser where there is one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cards.conftest import fill, make_card
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from owl3.report.build import build_report

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report about the small chain; returns its index.html."""
    folder = tmp_path_factory.mktemp("report")
    fill(folder / "workspace")
    make_card(folder / "workspace", folder / "datacards")
    return build_report(folder / "workspace", folder / "datacards", folder / "pages")


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """Debian's Chromium, headless. `.ci/run` installs it; without it, these tests are skipped with this reason."""
    if not (CHROMIUM.is_file() and CHROMEDRIVER.is_file()):
        pytest.skip("needs Debian's packages chromium and chromium-driver, which are not on this machine")
    profile = tempfile.mkdtemp(prefix="owl3-browser-")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    try:
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)
