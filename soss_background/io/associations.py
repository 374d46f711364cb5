"""Association files."""

import json
from collections import defaultdict
from pathlib import Path

from jwst.associations.asn_from_list import asn_from_list
from jwst.associations.lib.rules_level2_base import DMSLevel2bBase
from jwst.associations.lib.rules_level3_base import DMS_Level3_Base

from soss_background.datamodels.names import check_path, check_product_name, read_group, show
from soss_background.errors import SkyflatError
from soss_background.io.files import allow_member_paths, explain_fault, real_path, save_whole

__all__ = [
    "background_exposures",
    "first_exposure",
    "group_members",
    "is_association",
    "read_association",
    "save_association",
    "save_exposure_association",
    "science_exposures",
]


def is_association(item):
    """Return whether an input is an association file."""
    return isinstance(item, str | Path) and Path(item).suffix.lower() == ".json"


def read_association(path):
    """Return an association, whose products list members with file name and exptype."""
    with explain_fault(path, "not a valid association"):
        # jwst's function reads anything but JSON as YAML, which may take hours.
        association = _parse(path)
        members = [each for product in association["products"] for each in product["members"]]
        for key in ("expname", "exptype"):
            odd = [member[key] for member in members if not isinstance(member[key], str)]
            if odd:
                raise TypeError(f"{key} is {show(odd[0])}")
    try:
        for member in members:
            check_path(member["expname"])
        for product in association["products"]:
            _check_names(product)
    except SkyflatError as err:
        raise SkyflatError(f"{path}: {err}") from err
    if not association["products"]:
        raise SkyflatError(f"{path}: no product")
    return association


def _check_names(product):
    """Raise SkyflatError unless the group and the name that a product gives are valid."""
    read_group(product)
    if "file_name" in product:
        check_product_name(product["file_name"])


def group_members(product):
    """Return the names of a product's members by exptype; an empty list for missing types."""
    members = defaultdict(list)
    for member in product["members"]:
        members[member["exptype"].lower()].append(member["expname"])
    return members


def science_exposures(path, product):
    """Return the paths of the science exposures of a product of an association file."""
    names = group_members(product)["science"]
    if not names:
        raise SkyflatError(f"{path}: product {show(product.get('name'))} has no science member")
    return [path.absolute().parent / name for name in names]


def background_exposures(path, product):
    """Return the paths of the background exposures of a product of an association file."""
    return [path.absolute().parent / name for name in group_members(product)["background"]]


def first_exposure(path):
    """Return the path of the first science exposure of an association file."""
    return science_exposures(path, read_association(path)["products"][0])[0]


def _parse(path):
    """Parse a JSON file."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError as err:
        raise ValueError("nested too deeply") from err


def save_association(path, exposures, name, *, program, target, observation, **product):
    """Write the association of a skyflat; other keywords become entries of its product."""
    names = [_member_name(exposure, path.parent) for exposure in exposures]
    association = asn_from_list(names, rule=DMS_Level3_Base, product_name=name)
    association.data |= {
        "asn_type": "skyflat",
        "asn_id": f"o{observation}",
        "program": program,
        "target": target,
    }
    association["products"][0] |= product
    _write(path, association)


def save_exposure_association(path, segments, backgrounds):
    """Write the association of an exposure: headers of its segments and background exposures."""
    names = [_member_name(header["path"], path.parent) for header in (*segments, *backgrounds)]
    association = asn_from_list(names[:1], rule=DMSLevel2bBase)
    association.data |= {
        "asn_type": "spec2",
        "program": segments[0].get("meta.observation.program_number", "noprogram"),
    }
    kinds = ["science"] * len(segments) + ["background"] * len(backgrounds)
    association["products"][0] |= {
        "name": path.name.removesuffix("_spec2_asn.json"),
        "members": [
            {"expname": name, "exptype": kind} for name, kind in zip(names, kinds, strict=True)
        ],
    }
    _write(path, association)


def _write(path, association):
    """Write an association file."""
    with allow_member_paths():
        _, text = association.dump()
    save_whole(lambda partial: partial.write_text(f"{text}\n"), path)


def _member_name(exposure, folder):
    """Return the path of an exposure, relative to the folder if the exposure is below it."""
    exposure, folder = real_path(exposure.parent) / exposure.name, real_path(folder)
    return str(exposure.relative_to(folder) if exposure.is_relative_to(folder) else exposure)
