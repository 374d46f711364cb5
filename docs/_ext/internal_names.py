"""Show names of ours that have no entry on the API page, such as helpers, without a link."""

import pkgutil


def keep_internal_name(_app, _env, node, contnode):
    """Return the plain name if it exists; a name that does not exist stays an error."""
    target = node.get("reftarget", "")
    for name in (target, f"{node.get('py:module')}.{target}"):
        if name.startswith("soss_background."):
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError):
                continue
            return contnode
    return None


def setup(app):
    """Register the handler of references without a target."""
    app.connect("missing-reference", keep_internal_name)
    return {"parallel_read_safe": True}
