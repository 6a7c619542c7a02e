"""Configurations as they are stored and compared: flat, and with the defaults of settings that an older file lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.common import config_for

Config = Any  # an ml_collections.ConfigDict, whose attributes a type checker cannot know


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns 'a.b' -> value of every leaf of a nested dictionary."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def with_defaults(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a stored configuration with the defaults of the settings that it does not have.

    It was written before they existed, and the defaults are what the code did then. An architecture's own options
    are left as they are.
    """
    filled = dict(stored)
    for name, default in config_for("vae", "dsprites").to_dict().items():
        if isinstance(default, dict) and name != "architecture":
            own = dict(stored.get(name, {}))
            filled[name] = own | {key: value for key, value in default.items() if key not in own}
        else:
            filled.setdefault(name, default)
    return filled


def first_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Returns 'key is a there and b here' for the first key in which two flat dictionaries differ, or None."""
    for key in sorted({*found, *wanted}, key=lambda key: (not key.endswith("name"), key)):  # names tell most
        if found.get(key) != wanted.get(key):
            return f"{key} is {found.get(key)!r} there and {wanted.get(key)!r} here"
    return None
