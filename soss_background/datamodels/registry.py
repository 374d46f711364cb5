"""Data models that `stdatamodels.jwst.datamodels.open` recognizes."""

import io

from astropy.io import fits
from stdatamodels.jwst import datamodels

__all__ = ["register"]


def register(model):
    """Let ``open`` return a class for files of its ``DATAMODL``, and make it picklable."""
    # There is no public registry; `open` uses this private table, `read_metadata` an attribute.
    datamodels._defined_models[model.__name__] = model  # noqa: SLF001
    setattr(datamodels, model.__name__, model)
    model.__reduce__ = _reduce
    return model


def _reduce(model):
    """Pickle a data model as the content of its file, since tables of FITS cannot be pickled."""
    content, names = io.BytesIO(), (model.meta.filename, model.meta.date)
    model.to_fits(content)
    model.meta.date = names[1]  # saving changes it
    return _restore, (type(model), content.getvalue(), *names)


def _restore(kind, content, filename, date):
    """Return the data model that a file holds."""
    with fits.open(io.BytesIO(content)) as hdus:
        model = kind(hdus)
    model.meta.filename, model.meta.date = filename, date
    return model
