"""Libraries of skies that jwst's own pipeline reads."""

from soss_background.reference.bkg_reference import make_reference, write_reference

__all__ = ["make_reference", "write_reference"]
