"""The routes file as YAML: read whole, with what YAML itself lets pass and a routes file must not have.

YAML takes the last of two equal keys without a word, so a second `routes:` would replace the first. Anchors are
allowed;
what they expand to is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

CHARACTERS_MAX: Final = 16 << 20
NODES_MAX: Final = 2_000_000
# A routes file needs six. The reader in C is recursive and would end the process.
DEPTH_MAX: Final = 50

# Workers read the file between requests, so it is read once, and in C where PyYAML was built with libyaml.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NotYaml(Exception):
    """The text is not a YAML document that can be read."""


def load(text: str, violations: list[str]) -> Any:
    """Return the document and add a violation for each key that stands twice in one place.

    Raises:
        NotYaml: It cannot be read at all.
    """
    if len(text) > CHARACTERS_MAX:
        raise NotYaml(f"has more than {CHARACTERS_MAX} characters")
    try:
        _check_depth(text)
        loader = _LOADER(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _Walk(violations).visit(root, "")
        return loader.construct_document(root)
    except RecursionError:
        raise NotYaml("is nested too deeply, or contains itself") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # PyYAML takes a value's tag at its word: `!!timestamp x` is an AttributeError, `!!bool x` a KeyError.
        raise NotYaml(f"is not YAML: {' '.join(str(error).split())}") from None


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise NotYaml("is nested too deeply, or contains itself")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Walk:
    def __init__(self, violations: list[str]) -> None:
        self._violations = violations
        self._nodes = 0

    def visit(self, node: yaml.Node, path: str) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise NotYaml(f"has more than {NODES_MAX} values, anchors expanded")
        if isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, f"{path}[{index}]")

    def _visit_mapping(self, node: yaml.MappingNode, path: str) -> None:
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            below = f"{path}.{name}".lstrip(".")
            if name in lines:
                line = key.start_mark.line + 1
                self._violations.append(f"{below}: stands twice, in lines {lines[name]} and {line}")
            lines.setdefault(name, key.start_mark.line + 1)
            self.visit(value, below)


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, for logs and terminals."""
    return "".join(character if character.isprintable() else " " for character in text)


def interpolate(value: Any, environment: Mapping[str, str], pattern: Any, path: str, violations: list[str]) -> Any:
    """Replace `${NAME}` in every string; a variable that is not set is a violation."""
    if isinstance(value, dict):
        return {
            key: interpolate(below, environment, pattern, f"{path}.{key}".lstrip("."), violations)
            for key, below in value.items()
        }
    if isinstance(value, list):
        return [
            interpolate(below, environment, pattern, f"{path}[{index}]", violations)
            for index, below in enumerate(value)
        ]
    if not isinstance(value, str):
        return value
    missing = [name for name in pattern.findall(value) if name not in environment]
    violations += [f"{path}: environment variable {name} is not set" for name in missing]
    return pattern.sub(lambda found: environment.get(found[1], "http://unset.invalid"), value)
