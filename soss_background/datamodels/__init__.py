"""The package's data models, known to `stdatamodels.jwst.datamodels.open`."""

from stdatamodels.jwst import datamodels as _jwst_datamodels

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.datamodels.traces import SossTracesModel

__all__ = ["SkyflatModel", "SossTracesModel"]

# `open` finds the class by DATAMODL in this private table, `read_metadata` as an attribute.
for _model in (SkyflatModel, SossTracesModel):
    _jwst_datamodels._defined_models[_model.__name__] = _model  # noqa: SLF001
    setattr(_jwst_datamodels, _model.__name__, _model)
