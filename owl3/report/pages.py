"""Templates of the report, on top of the cards' page."""

from __future__ import annotations

import jinja2

from owl3.cards.render import template_environment


def page_environment() -> jinja2.Environment:
    """Templates of the report, on top of the cards' page."""
    cards = template_environment()
    assert cards.loader is not None
    return cards.overlay(loader=jinja2.ChoiceLoader([jinja2.PackageLoader("owl3.report"), cards.loader]))
