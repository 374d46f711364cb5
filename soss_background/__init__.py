"""Empirical sky models (skyflats) for JWST NIRISS SOSS exposures."""

from importlib import import_module

# Data models and steps import jwst (seconds), and asdf imports this package for each of its users:
# they are loaded when first asked for.
_MODULES = {
    "SkyflatModel": "soss_background.datamodels",
    "SossTracesModel": "soss_background.datamodels",
    "EncircledEnergyStep": "soss_background.fluxcal.encircled_energy_step",
    "SurfaceBrightnessStep": "soss_background.fluxcal.surface_brightness_step",
    "InterOrderBackgroundStep": "soss_background.extract.inter_order_background_step",
    "OptimalExtractStep": "soss_background.extract.optimal_extract_step",
    "SossStarePipeline": "soss_background.pipeline.stare",
    "TraceFitStep": "soss_background.extract.trace_fit_step",
    "SkyflatMaskStep": "soss_background.mask.skyflat_mask_step",
    "SkyflatCombineStep": "soss_background.combine.skyflat_combine_step",
    "SkyflatDenoiseStep": "soss_background.denoise.skyflat_denoise_step",
    "SkyflatQualityStep": "soss_background.quality.skyflat_quality_step",
    "SkyflatPipeline": "soss_background.pipeline.skyflat",
    "SkyflatSpec2Pipeline": "soss_background.pipeline.spec2",
    "SkyflatSubtractStep": "soss_background.subtract.skyflat_subtract_step",
}

__all__ = [
    "EncircledEnergyStep",
    "InterOrderBackgroundStep",
    "OptimalExtractStep",
    "SkyflatCombineStep",
    "SkyflatDenoiseStep",
    "SkyflatMaskStep",
    "SkyflatModel",
    "SkyflatPipeline",
    "SkyflatQualityStep",
    "SkyflatSpec2Pipeline",
    "SkyflatSubtractStep",
    "SossStarePipeline",
    "SossTracesModel",
    "SurfaceBrightnessStep",
    "TraceFitStep",
]


def __getattr__(name):
    """Load a public name when it is first asked for (PEP 562)."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("soss_background")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    """List the public names, those not yet loaded included."""
    return sorted({*globals(), *__all__})
