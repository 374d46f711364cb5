"""Entry points: what stpipe and asdf ask of the package."""

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
    Tell asdf where the package's schemas are.

    Returns
    -------
    list of `asdf.resource.DirectoryResourceMapping`
        The mapping of schema identifiers to files.
    """
    from asdf.resource import DirectoryResourceMapping

    return [
        DirectoryResourceMapping(
            files("soss_background.datamodels") / "schemas",
            "http://soss-background.readthedocs.io/schemas",
        )
    ]
