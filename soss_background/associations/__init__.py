"""Associations of the exposures of a skyflat, and tables of exposures in archives."""

from soss_background.associations.association import make_associations, make_background_associations

__all__ = ["make_associations", "make_background_associations"]
