"""The package's data models, known to `stdatamodels.jwst.datamodels.open`."""

from stdatamodels.jwst import datamodels as _jwst_datamodels

from soss_background.datamodels.skyflat import SkyflatModel

__all__ = ["SkyflatModel"]

# `open` finds the class by DATAMODL in this private table, `read_metadata` as an attribute.
_jwst_datamodels._defined_models[SkyflatModel.__name__] = SkyflatModel  # noqa: SLF001
_jwst_datamodels.SkyflatModel = SkyflatModel
