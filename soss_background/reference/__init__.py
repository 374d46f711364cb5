"""Libraries of skies in the format of jwst's own pipeline."""

from soss_background.reference.bkg_reference import make_reference, write_reference
from soss_background.reference.model_reference import make_model_reference

__all__ = ["make_model_reference", "make_reference", "write_reference"]
