"""Templates and style of the report, on top of the cards' page."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

from owl3 import __version__
from owl3.cards.render import stylesheet, template_environment


def page_environment() -> jinja2.Environment:
    """Templates of the report, on top of the cards' page; each knows its style and who wrote it."""
    cards = template_environment()
    assert cards.loader is not None
    pages = cards.overlay(loader=jinja2.ChoiceLoader([jinja2.PackageLoader("owl3.report"), cards.loader]))
    own = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    pages.globals = {**cards.globals, "css": Markup(stylesheet() + own), "owl3_version": __version__}
    return pages
