"""The report in a real browser: clicked through, at two widths, by keyboard, on paper, and without the network."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

pytestmark = pytest.mark.timeout(120)

WIDTHS = {"phone": 390, "desktop": 1280}


def _open(browser: webdriver.Chrome, page: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())


def _click(browser: webdriver.Chrome, element: WebElement) -> None:
    """Scroll there at once (the page scrolls smoothly, and a click does not wait for it), then click."""
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", element)
    element.click()


def _requests(browser: webdriver.Chrome) -> list[str]:
    """URLs that were asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_every_page_is_clean_at_every_width(report: Path, browser: webdriver.Chrome, width: int) -> None:
    """No console message, no request elsewhere, no sideways scrolling, no picture that fails to show."""
    pages = sorted(report.parent.rglob("*.html"))
    assert len(pages) > 5
    for page in pages:
        _requests(browser)
        _open(browser, page, width)
        assert browser.get_log("browser") == [], page.name
        assert not [url for url in _requests(browser) if url.startswith(("http", "ws", "ftp"))], page.name
        overflow = browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, page.name
        broken = browser.execute_script(
            "return [...document.images].filter(i => i.complete && !i.naturalWidth && i.loading != 'lazy').length"
        )
        assert broken == 0, page.name


def test_a_reader_clicks_from_the_report_to_a_step_and_a_card_and_back(report: Path, browser: webdriver.Chrome) -> None:
    _open(browser, report, WIDTHS["desktop"])
    _click(browser, browser.find_element(By.CSS_SELECTOR, '#runs a[href^="steps/toy-pretrain-"]'))
    assert "Step 0 of 8" in browser.find_element(By.TAG_NAME, "header").text
    assert len(browser.find_elements(By.CSS_SELECTOR, "article.sample")) == 2
    _click(browser, browser.find_elements(By.CSS_SELECTOR, "nav a")[2])
    assert "aria-current" in browser.page_source
    _click(browser, browser.find_element(By.LINK_TEXT, "Back to the report"))
    _click(browser, browser.find_element(By.LINK_TEXT, "demo/1.0.0"))
    assert browser.title == "Owl3 demo scenes 1.0.0 · datacard"
    assert browser.find_elements(By.CSS_SELECTOR, "ul.pictures img")


def test_a_reader_clicks_to_the_drawn_trace_and_back(report: Path, browser: webdriver.Chrome) -> None:
    _open(browser, report, WIDTHS["phone"])
    _click(browser, browser.find_element(By.LINK_TEXT, "The whole trace, drawn"))
    assert browser.find_elements(By.CSS_SELECTOR, ".graph g.hit")
    assert len(browser.find_elements(By.CSS_SELECTOR, "ul.pictures img")) == 1
    _click(browser, browser.find_element(By.LINK_TEXT, "Back to the report"))
    assert browser.current_url.endswith("index.html#trace")


def test_a_keyboard_is_enough(report: Path, browser: webdriver.Chrome) -> None:
    _open(browser, report, WIDTHS["desktop"])
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to content"
    reached = set()
    for _ in range(45):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        active = browser.switch_to.active_element
        reached.add(active.get_attribute("href") or active.get_attribute("aria-label"))
    links = {link.get_attribute("href") for link in browser.find_elements(By.CSS_SELECTOR, "main a, nav a")}
    assert links <= reached
    assert "Lineage graph" in reached  # what scrolls sideways can be scrolled without a mouse


def test_what_a_screen_reader_needs_is_there(report: Path, browser: webdriver.Chrome) -> None:
    _open(browser, report, WIDTHS["desktop"])
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    assert len(browser.find_elements(By.TAG_NAME, "h1")) == 1
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('img')].filter(i => !i.hasAttribute('alt')).length"
        " + [...document.querySelectorAll('svg')].filter(s => !s.getAttribute('aria-label')).length"
    )
    assert unnamed == 0


def test_screenshots_show_a_page_and_not_a_blank(report: Path, browser: webdriver.Chrome, tmp_path: Path) -> None:
    for name, width in WIDTHS.items():
        _open(browser, report, width)
        path = tmp_path / f"{name}.png"
        assert browser.save_screenshot(str(path))
        with Image.open(path) as image:
            assert image.width == width
            colours = image.convert("RGB").getcolors(1 << 24)
            assert colours is not None
            assert len(colours) > 50


def test_the_report_prints(report: Path, browser: webdriver.Chrome) -> None:
    _open(browser, report, WIDTHS["desktop"])
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    data = base64.b64decode(printed["data"])
    assert data.startswith(b"%PDF")
    assert len(io.BytesIO(data).getvalue()) > 20_000


def test_a_caption_with_a_script_stays_text(browser: webdriver.Chrome, tmp_path: Path) -> None:
    from owl3.report.pages import page_environment

    hostile = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
    sample = {
        "kind": hostile,
        "images": 0,
        "text_tokens": 1,
        "trained_tokens": 1,
        "sample_id": "0" * 32,
        "units": [{"turn": False, "parts": [{"role": "user", "text": hostile}]}],
        "not_shown": 0,
    }
    page = tmp_path / "hostile.html"
    page.write_text("<title>whole</title>" + page_environment().get_template("sample.html.jinja").render(sample=sample))
    _open(browser, page, WIDTHS["desktop"])
    assert browser.title == "whole"
    assert not browser.find_elements(By.TAG_NAME, "img")
