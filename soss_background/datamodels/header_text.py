"""Strings for FITS headers and tables, which hold printable ASCII only."""

import unicodedata
from contextlib import contextmanager

__all__ = ["ascii_headers", "to_ascii"]


def to_ascii(text):
    """Transliterate a string: drop accents and characters that ASCII lacks; it stays on a line."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    # A name in another script must not become empty.
    plain = plain if plain.strip() else "?" * len(text)
    return "".join(character if character.isprintable() else " " for character in plain)


@contextmanager
def ascii_headers(model):
    """Transliterate the strings that a data model writes to FITS headers, within the context."""
    replaced = []
    for node, key in _list_header_values(model):
        text = node[key]
        if isinstance(text, str) and not (text.isascii() and text.isprintable()):
            replaced.append((node, key, text))
            node[key] = to_ascii(text)
    try:
        yield
    finally:
        for node, key, text in replaced:
            # Saving changes the file name.
            if node[key] == to_ascii(text):
                node[key] = text


def _list_header_values(model):
    """Yield a container, and the key of a header value in it, for all header values of a model."""
    tree = model.instance
    yield from _list_keywords(tree, model.schema)
    for extension in tree.get("extra_fits", {}).values():
        for card in extension.get("header", []):
            yield from ((card, place) for place in (1, 2))
    history = tree.get("history", [])
    entries = history.get("entries", []) if isinstance(history, dict) else history
    yield from ((entry, "description") for entry in entries if isinstance(entry, dict))


def _list_keywords(node, schema):
    """Yield a container and a key for all values below a node that have a FITS keyword."""
    if not isinstance(node, dict):
        return
    for key, subschema in schema.get("properties", {}).items():
        if key not in node:
            continue
        if "fits_keyword" in subschema:
            yield node, key
        items = node[key] if isinstance(node[key], list) else []
        for item in items:
            yield from _list_keywords(item, subschema.get("items", {}))
        yield from _list_keywords(node[key], subschema)
