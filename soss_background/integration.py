"""Entry points of stpipe and asdf."""

import sys
from importlib import import_module
from importlib.resources import files

__all__ = ["get_resource_mappings", "get_steps"]


def get_steps():
    """Return class name, alias, and whether it is a pipeline, of each of the package's steps."""
    return [
        ("soss_background.SkyflatMaskStep", "skyflat_mask", False),
        ("soss_background.SkyflatCombineStep", "skyflat_combine", False),
        ("soss_background.SkyflatDenoiseStep", "skyflat_denoise", False),
        ("soss_background.SkyflatQualityStep", "skyflat_quality", False),
        ("soss_background.SkyflatSubtractStep", "skyflat_subtract", False),
        ("soss_background.SavedSkyStep", "saved_sky", False),
        ("soss_background.FlickerNoiseStep", "flicker_noise", False),
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
    """Return the mapping of the package's schemas to files, for asdf."""
    from asdf.resource import DirectoryResourceMapping

    # asdf calls this before it reads its first file. If the models of jwst are loaded by then, load
    # those of this package too, so that `stdatamodels.jwst.datamodels.open` recognizes them.
    if hasattr(sys.modules.get("stdatamodels.jwst.datamodels"), "_defined_models"):
        for name in ("skyflat", "sky_model", "traces"):
            import_module(f"soss_background.datamodels.{name}")
    return [
        DirectoryResourceMapping(
            files("soss_background.datamodels") / "schemas",
            "http://soss-background.readthedocs.io/schemas",
        )
    ]
