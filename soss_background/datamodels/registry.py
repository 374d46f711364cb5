"""Data models that `stdatamodels.jwst.datamodels.open` recognizes."""

from stdatamodels.jwst import datamodels

__all__ = ["register"]


def register(model):
    """Let ``open`` return a class for files of its ``DATAMODL``; used as a decorator."""
    # There is no public registry: `open` uses this private table, `read_metadata` an attribute.
    datamodels._defined_models[model.__name__] = model  # noqa: SLF001
    setattr(datamodels, model.__name__, model)
    return model
