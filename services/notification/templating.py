"""Fills templates in: `templates/<name>.txt`, whose first line is the subject, and its twin `templates/<name>.html`.

Placeholders are written `${name}`; there is no logic in a template, so there is nothing that a value could run. Values
are escaped for HTML in the twin, and a value with a line break is refused, so that none can add a header or a line.
Both files of a template must ask for values that the text asks for: the twin says nothing that the text does not.
"""

from __future__ import annotations

import html
import string
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

from mesh.rpc.errors import Violations
from services.notification.model import Rendered

VALUE_LENGTH_MAX: Final = 1_000
_SUBJECT: Final = "Subject: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One template."""

    subject: string.Template
    text: string.Template
    html: string.Template

    @property
    def placeholders(self) -> frozenset[str]:
        """Return the names of the values that it needs."""
        return frozenset(self.subject.get_identifiers()) | frozenset(self.text.get_identifiers())


class Templates:
    """The templates of the product by name.

    Args:
        templates: By name.
    """

    def __init__(self, templates: Mapping[str, Template]) -> None:
        self._templates = dict(templates)

    @property
    def by_name(self) -> Mapping[str, Template]:
        """Return all templates."""
        return self._templates

    def check(self, violations: Violations, name: str, parameters: Mapping[str, str]) -> None:
        """Note everything that keeps a template from being filled in."""
        template = self._templates.get(name)
        if template is None:
            violations.add("template", f"must be one of: {', '.join(sorted(self._templates))}")
            return
        for missing in sorted(template.placeholders - parameters.keys()):
            violations.add(f"parameters.{missing}", "is missing")
        for unknown in sorted(parameters.keys() - template.placeholders):
            violations.add(f"parameters.{unknown}", "is not a parameter of this template")
        for key, value in sorted(parameters.items()):
            right = len(value) <= VALUE_LENGTH_MAX and value.isprintable()
            violations.check(right, f"parameters.{key}", f"must have at most {VALUE_LENGTH_MAX} printable characters")

    def render(self, name: str, parameters: Mapping[str, str]) -> Rendered:
        """Fill a template in.

        Raises:
            KeyError: There is no such template, or a value is missing.
        """
        template = self._templates[name]
        escaped = {key: html.escape(value) for key, value in parameters.items()}
        return Rendered(
            subject=template.subject.substitute(parameters),
            text=template.text.substitute(parameters),
            html=template.html.substitute(escaped),
        )


def load_templates() -> Templates:
    """Read the templates that ship with the service.

    Raises:
        ValueError: A template has no subject, no twin, or a twin that asks for other values.
    """
    folder = resources.files(__package__).joinpath("templates")
    names = [entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt")]
    return Templates(
        {
            name: parse_template(
                name,
                folder.joinpath(f"{name}.txt").read_text(encoding="utf-8"),
                folder.joinpath(f"{name}.html").read_text(encoding="utf-8"),
            )
            for name in names
        }
    )


def parse_template(name: str, text: str, html_twin: str) -> Template:
    """Read one template.

    Raises:
        ValueError: As for `load_templates`.
    """
    first, _, body = text.partition("\n\n")
    if not first.startswith(_SUBJECT) or "\n" in first:
        raise ValueError(f"{name}.txt must begin with '{_SUBJECT}' and an empty line")
    template = Template(
        subject=string.Template(first.removeprefix(_SUBJECT)),
        text=string.Template(body),
        html=string.Template(html_twin),
    )
    if not (template.text.is_valid() and template.subject.is_valid() and template.html.is_valid()):
        raise ValueError(f"{name}: a placeholder is not of the form ${{name}}")
    if not set(template.html.get_identifiers()) <= template.placeholders:
        raise ValueError(f"{name}.html asks for values that {name}.txt does not")
    return template
