"""From files and archives to associations of exposures that make a skyflat together."""

from soss_background.associations.association import make_associations, make_background_associations

__all__ = ["make_associations", "make_background_associations"]
