"""Libraries of skies in the format of jwst's own pipeline."""

from soss_background.reference.bkg_reference import make_reference, write_reference

__all__ = ["make_reference", "write_reference"]
