"""Strings for FITS headers and tables, which hold printable ASCII only."""

import unicodedata
from contextlib import contextmanager

__all__ = ["ascii_headers", "to_ascii"]


def to_ascii(text):
    """Transliterate a string to ASCII on one line; drop accents and unknown characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    # A name in a non-Latin script must not become empty.
    plain = plain if plain.strip() else "?" * len(text)
    return "".join(character if character.isprintable() else " " for character in plain)


@contextmanager
def ascii_headers(model):
    """Transliterate the strings that a data model writes to FITS headers, within the context."""
    replaced = {}
    for path in _list_header_values(model):
        text = _follow(model, path)[path[-1]]
        if isinstance(text, str) and not (text.isascii() and text.isprintable()):
            replaced[path] = text
            _follow(model, path)[path[-1]] = to_ascii(text)
    try:
        yield
    finally:
        # Saving replaces branches of the tree, and changes the file name.
        for path, text in replaced.items():
            node = _follow(model, path)
            if node[path[-1]] == to_ascii(text):
                node[path[-1]] = text


def _follow(model, path):
    """Return the container of a value in the tree of a model."""
    node = model.instance
    for key in path[:-1]:
        node = node[key]
    return node


def _list_header_values(model):
    """Yield the path of each header value in the tree of a model."""
    tree = model.instance
    yield from _list_keywords(tree, model.schema, ())
    for name, extension in tree.get("extra_fits", {}).items():
        for index in range(len(extension.get("header", []))):
            card = ("extra_fits", name, "header", index)
            yield from ((*card, 1), (*card, 2))
    history = tree.get("history", [])
    place = ("history", "entries") if isinstance(history, dict) else ("history",)
    for index, entry in enumerate(history.get("entries", []) if len(place) > 1 else history):
        if isinstance(entry, dict):
            yield (*place, index, "description")


def _list_keywords(node, schema, place):
    """Yield the paths of the values below a node that have a FITS keyword."""
    if not isinstance(node, dict):
        return
    for key, subschema in schema.get("properties", {}).items():
        if key not in node:
            continue
        if "fits_keyword" in subschema:
            yield (*place, key)
        for index, item in enumerate(node[key] if isinstance(node[key], list) else []):
            yield from _list_keywords(item, subschema.get("items", {}), (*place, key, index))
        yield from _list_keywords(node[key], subschema, (*place, key))
