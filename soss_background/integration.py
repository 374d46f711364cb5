"""Entry points of stpipe and asdf."""

import sys
from importlib import import_module
from importlib.resources import files

__all__ = ["get_resource_mappings", "get_steps"]


def get_steps():
    """
    List the package's steps for stpipe.

    Returns
    -------
    list of tuple (str, str, bool)
        Class name, alias, and whether it is a pipeline.
    """
    return [
        ("soss_background.SkyflatMaskStep", "skyflat_mask", False),
        ("soss_background.SkyflatCombineStep", "skyflat_combine", False),
        ("soss_background.SkyflatDenoiseStep", "skyflat_denoise", False),
        ("soss_background.SkyflatQualityStep", "skyflat_quality", False),
        ("soss_background.SkyflatSubtractStep", "skyflat_subtract", False),
        ("soss_background.InterOrderBackgroundStep", "inter_order_background", False),
        ("soss_background.TraceFitStep", "trace_fit", False),
        ("soss_background.OptimalExtractStep", "optimal_extract", False),
        ("soss_background.EncircledEnergyStep", "encircled_energy", False),
        ("soss_background.SurfaceBrightnessStep", "surface_brightness", False),
        ("soss_background.SkyflatPipeline", "skyflat", True),
        ("soss_background.SossStarePipeline", "soss_stare", True),
        ("soss_background.SkyflatSpec2Pipeline", "skyflat_spec2", True),
    ]


def get_resource_mappings():
    """
    Locate the package's schemas for asdf.

    asdf asks before it reads its first file. If the models of jwst are loaded by then, so are those
    of this package, which `stdatamodels.jwst.datamodels.open` recognizes from there on.

    Returns
    -------
    list of `asdf.resource.DirectoryResourceMapping`
        The mapping of schema identifiers to files.
    """
    from asdf.resource import DirectoryResourceMapping

    if hasattr(sys.modules.get("stdatamodels.jwst.datamodels"), "_defined_models"):
        for name in ("skyflat", "traces"):
            import_module(f"soss_background.datamodels.{name}")
    return [
        DirectoryResourceMapping(
            files("soss_background.datamodels") / "schemas",
            "http://soss-background.readthedocs.io/schemas",
        )
    ]
