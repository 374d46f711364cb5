"""Names of products, and the identities of products with the same name."""

import re

from soss_background.datamodels.exposure_table import read_value
from soss_background.errors import SkyflatError

__all__ = [
    "OBSERVATION",
    "check_path",
    "check_product_name",
    "describe_identity",
    "identify",
    "product_name",
    "read_group",
    "show",
]

# Metadata that exposures of one observation share: FITS keyword, and its required value (None for
# any).
OBSERVATION = {
    "meta.observation.program_number": ("PROGRAM", None),
    "meta.target.proposer_name": ("TARGPROP", None),
    "meta.observation.observation_number": ("OBSERVTN", None),
}

# Metadata that identify a product together with these; its name has neither program nor year.
_SEQUENCE = {
    "meta.instrument.filter": "FILTER",
    "meta.skyflat.year": "YEAR",
    "meta.skyflat.obs_group": "OBSGROUP",
}

# Longest path and longest file name of Linux, bytes.
_LONGEST_PATH, _LONGEST_NAME = 4095, 255

# Longest name that an association may give, bytes; suffix and extension follow.
_LONGEST_STEM = 200

# Characters of a value that a message shows.
_SHOWN = 60


def product_name(summary, headers, product):
    """Return a skyflat's file name; raise if OBSERVTN or a keyword of the product is not valid."""
    group = read_group(product)
    # An association may give the name, without suffix and extension.
    if "file_name" in product:
        check_product_name(product["file_name"])
        return f"{product['file_name']}_skyflat.fits"
    observation = read_value(headers[0], ("meta.observation.observation_number",), "OBSERVTN")
    if not _is_number(observation):
        fault = f"OBSERVTN {show(observation)} is not a number from 0 to 999"
        raise SkyflatError(f"{headers[0]['name']}: {fault}")
    lon = round(summary["ecliptic_lon"]) % 360
    lat = round(summary["ecliptic_lat"])
    filter_name = (headers[0].get("meta.instrument.filter") or "CLEAR").lower()
    return (
        f"nis_{filter_name}_gr700xd_LON{lon:03d}_LAT{lat:+03d}_DOY{summary['day']:03d}"
        f"_{int(observation):03d}_{group:03d}_skyflat.fits"
    )


def read_group(product):
    """Return the number of a product's sequence in its observation; raise if it is not valid."""
    group = product.get("obs_group", 0)
    if not _is_number(group):
        raise SkyflatError(f"obs_group {show(group)} is not a number from 0 to 999")
    return int(group)


def _is_number(value):
    """Return whether a value is a number that fits into the name of a product."""
    return re.fullmatch("[0-9]{1,3}", str(value)) is not None


def identify(metadata):
    """Return the identity of a product, by keyword, from flattened metadata."""
    keywords = {key: keyword for key, (keyword, _) in OBSERVATION.items()} | _SEQUENCE
    return {keyword: metadata.get(key) for key, keyword in keywords.items()}


def describe_identity(identity):
    """Return an identity as a string."""
    return ", ".join(f"{keyword} {show(value)}" for keyword, value in identity.items())


def check_product_name(name):
    """Raise SkyflatError unless a value can be the name of a product, without its suffix."""
    usable = isinstance(name, str) and name and "/" not in name and not name.startswith(".")
    if not usable or len(check_path(name)) > _LONGEST_STEM:
        raise SkyflatError(f"{show(name)}: not a valid product name")


def check_path(text):
    """Return the bytes of a path; raise SkyflatError if a file cannot have it."""
    for name in text.split("/"):
        if re.search(r"[\ud800-\udfff]", name):
            raise SkyflatError(f"{show(name)}: the name of the file is not valid UTF-8")
        if re.search(r"[\x00-\x1f\x7f]", name):
            raise SkyflatError(f"{show(name)}: control characters in the name of a file")
        if len(name.encode()) > _LONGEST_NAME:
            raise SkyflatError(f"{show(name)}: the name is too long")
    path = text.encode()
    if len(path) > _LONGEST_PATH:
        raise SkyflatError(f"{show(text)}: the name is too long")
    return path


def show(value):
    """Return a value as a short string on one line."""
    text = repr(str(value))[1:-1]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
