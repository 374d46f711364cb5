"""The pipeline that creates skyflats."""

import logging
from typing import ClassVar

from jwst.datamodels import ModelContainer, ModelLibrary
from tqdm import tqdm

from soss_background.combine.skyflat_combine_step import SkyflatCombineStep
from soss_background.denoise.skyflat_denoise_step import SkyflatDenoiseStep
from soss_background.errors import SkyflatError
from soss_background.io.exposures import borrow_image, describe_products, read_headers
from soss_background.mask.skyflat_mask_step import SkyflatMaskStep
from soss_background.quality.skyflat_quality_step import SkyflatQualityStep
from soss_background.steps.base import SkyflatPipelineBase
from soss_background.steps.jwst_steps import FlatFieldStep

__all__ = ["SkyflatPipeline"]

log = logging.getLogger(__name__)


class SkyflatPipeline(SkyflatPipelineBase):
    """
    Create skyflats from dithered exposures of blank sky.

    The steps are flat_field, skyflat_mask, skyflat_combine, skyflat_denoise and skyflat_quality.
    """

    class_alias = "skyflat"

    input_suffixes: ClassVar = (
        "skyflatmask",
        "skyflatcombine",
        "skyflatdenoise",
        "skyflatquality",
        "skyflat",
    )

    spec = """
    in_memory = boolean(default=False)  # Keep the exposures in memory instead of in hidden files next to the products
    """  # noqa: E501

    step_defs: ClassVar = {
        "flat_field": FlatFieldStep,
        "skyflat_mask": SkyflatMaskStep,
        "skyflat_combine": SkyflatCombineStep,
        "skyflat_denoise": SkyflatDenoiseStep,
        "skyflat_quality": SkyflatQualityStep,
    }

    # `process` looks for references after it has checked the input.
    prefetch_references = False

    def process(self, *inputs):
        """
        Create the skyflat of each product.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, list, data model or `~jwst.datamodels.ModelLibrary`
            An association file, files, models, or a library of exposures of one sky.

        Returns
        -------
        SkyflatModel
            The skyflat, or a `~jwst.datamodels.ModelContainer` for several products. If
            skyflat_combine is skipped, a `~jwst.datamodels.ModelLibrary` of the masked exposures.

        Raises
        ------
        SkyflatError
            If an exposure cannot be used, the flat is not available, or skyflat_combine is skipped
            for several products.
        """
        libraries = self.open_exposures(inputs)
        if self.skyflat_combine.skip and len(libraries) > 1:
            raise SkyflatError(
                f"{len(libraries)} products: skyflat_combine can be skipped for one product only"
            )
        # Find faults before any work is done.
        descriptions = describe_products(libraries)
        if not self.skyflat_combine.skip:
            self.check_products(descriptions)
        self.skyflat_quality.read_ranges()
        self.skyflat_combine.check(libraries)
        headers = [header for library in libraries for header in read_headers(library)]
        for header in headers:
            self.flat_field.check(header)
        if any(header.get("meta.cal_step.flat_field") != "COMPLETE" for header in headers):
            self.prefetch(libraries[0])
        results = [self._make_skyflat(library) for library in libraries]
        return results[0] if len(results) == 1 else ModelContainer(results)

    def save_model(self, model, suffix=None, *args, **kwargs):
        """Save a skyflat, or the masked exposures under the suffix of their step."""
        if isinstance(model, ModelLibrary) and self.suffix == self.default_suffix():
            suffix = self.skyflat_mask.suffix
        return super().save_model(model, suffix, *args, **kwargs)

    def default_suffix(self):
        """Return the suffix of products."""
        return "skyflat"

    def _make_skyflat(self, library):
        """Run all steps on the exposures of one product."""
        self._flat_field(library)
        library = self.skyflat_mask.run(library)
        result = self.skyflat_combine.run(library)
        if self.skyflat_combine.skip:
            log.warning("skyflat_combine is skipped: the masked exposures are the result")
            return result
        skyflat = self.skyflat_quality.run(self.skyflat_denoise.run(result))
        if not self.skyflat_combine.save_stack:
            skyflat.images = skyflat.masks = skyflat.meta.bunit_images = None
        return skyflat

    def _flat_field(self, library):
        """Divide the exposures by the flat, unless they are flat-fielded already."""
        with library:
            indices = tqdm(range(len(library)), "Flat-fielding", unit="exposure", disable=None)
            for index in indices:
                _, image = borrow_image(library, index)
                name = image.meta.filename
                if image.meta.cal_step.flat_field == "COMPLETE":
                    log.info("%s: flat-fielded already", name)
                else:
                    image = self.flat_field.run(image)
                    self._check_flat_fielded(image)
                if image.meta.cal_step.flat_field == "COMPLETE":
                    # No later step needs them, and they would double the size of the files.
                    image.var_poisson = image.var_rnoise = image.var_flat = None
                library.shelve(image, index)

    def _check_flat_fielded(self, image):
        """Raise if the flat was not applied; warn if there is no flat."""
        if self.flat_field.skip or image.meta.cal_step.flat_field == "COMPLETE":
            return
        name, flat = image.meta.filename, image.meta.ref_file.flat.name
        if flat not in (None, "N/A"):
            raise SkyflatError(f"{name}: {flat} was not applied, does it fit the exposure?")
        log.warning("%s: not flat-fielded, CRDS has no flat for it", name)
