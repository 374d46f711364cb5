"""From files and archives to associations of exposures that make a skyflat together."""

from soss_background.associations.association import make_associations, make_background_associations
from soss_background.associations.grouping import Exposure, Group, group_exposures

__all__ = [
    "Exposure",
    "Group",
    "group_exposures",
    "make_associations",
    "make_background_associations",
]
