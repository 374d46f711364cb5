"""Empirical sky models (skyflats) for JWST NIRISS SOSS exposures."""

from importlib import import_module

# asdf imports this package for all of its users, and the steps import all of jwst, which takes
# seconds. Names are therefore loaded when they are first used.
_MODULES = {
    "EncircledEnergyStep": "fluxcal.encircled_energy_step",
    "FlickerNoiseStep": "extract.flicker_noise_step",
    "InterOrderBackgroundStep": "extract.inter_order_background_step",
    "OptimalExtractStep": "extract.optimal_extract_step",
    "SavedSkyStep": "subtract.saved_sky_step",
    "SkyModel": "datamodels.sky_model",
    "SkyflatCombineStep": "combine.skyflat_combine_step",
    "SkyflatDenoiseStep": "denoise.skyflat_denoise_step",
    "SkyflatError": "errors",
    "SkyflatMaskStep": "mask.skyflat_mask_step",
    "SkyflatModel": "datamodels.skyflat",
    "SkyflatPipeline": "pipeline.skyflat",
    "SkyflatQualityStep": "quality.skyflat_quality_step",
    "SkyflatSpec2Pipeline": "pipeline.spec2",
    "SkyflatSubtractStep": "subtract.skyflat_subtract_step",
    "SossStarePipeline": "pipeline.stare",
    "SossTracesModel": "datamodels.traces",
    "SurfaceBrightnessStep": "fluxcal.surface_brightness_step",
    "TraceFitStep": "extract.trace_fit_step",
    "make_sky_model": "io.sky_models",
}

__all__ = list(_MODULES)


def __getattr__(name):
    """Load a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("soss_background")
    if name in _MODULES:
        return getattr(import_module(f"soss_background.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    """List the public names, including those that are not loaded yet."""
    return sorted({*globals(), *__all__, "__version__"})
