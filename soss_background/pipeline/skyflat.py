"""The pipeline that makes skyflats."""

import logging

from tqdm import tqdm

from soss_background.combine import metadata
from soss_background.combine.skyflat_combine_step import SkyflatCombineStep
from soss_background.datamodels import SkyflatModel
from soss_background.denoise.skyflat_denoise_step import SkyflatDenoiseStep
from soss_background.errors import SkyflatError
from soss_background.exposures import iterate_images, read_headers
from soss_background.mask.skyflat_mask_step import SkyflatMaskStep
from soss_background.stpipe import FlatFieldStep, SkyflatPipelineBase

__all__ = ["SkyflatPipeline"]

log = logging.getLogger(__name__)


class SkyflatPipeline(SkyflatPipelineBase):
    """
    Make skyflats of dithered exposures of blank sky.

    The steps are flat_field, skyflat_mask, skyflat_combine and skyflat_denoise.
    """

    class_alias = "skyflat"

    spec = """
    suffix = string(default='skyflat')  # Default suffix for output files
    """

    step_defs = {  # noqa: RUF012 - as stpipe has it
        "flat_field": FlatFieldStep,
        "skyflat_mask": SkyflatMaskStep,
        "skyflat_combine": SkyflatCombineStep,
        "skyflat_denoise": SkyflatDenoiseStep,
    }

    # References are looked for in `process`, when the input has been found to be good.
    prefetch_references = False

    def process(self, *inputs):
        """
        Make the skyflat of each product.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, list, data model or `~jwst.datamodels.ModelLibrary`
            An association file, files, models, or a library of exposures of one sky.

        Returns
        -------
        SkyflatModel or list of SkyflatModel
            A skyflat for each product; the masked exposures instead if skyflat_combine is skipped.
        """
        libraries = self.open_exposures(inputs)
        self._check_names(libraries)
        self.prefetch(libraries[0])
        results = [self._make_skyflat(library) for library in libraries]
        return results[0] if len(results) == 1 else results

    def _make_skyflat(self, library):
        """Take the exposures of one product through all steps."""
        self._flat_field(library)
        library = self.skyflat_mask.run(library)
        result = self.skyflat_combine.run(library)
        if self.skyflat_combine.skip:
            log.warning("skyflat_combine is skipped: the masked exposures are the result")
            self.suffix = self.skyflat_mask.suffix
            return result
        return self.skyflat_denoise.run(result)

    def _flat_field(self, library):
        """Divide the exposures by the flat, unless that has been done."""
        images = tqdm(
            iterate_images(library, modify=True),
            desc="Flat-fielding",
            total=len(library),
            unit="exposure",
            disable=None,
        )
        for image in images:
            if image.meta.cal_step.flat_field == "COMPLETE":
                log.info("%s: flat-fielded already", image.meta.filename)
                continue
            self.flat_field.run(image)
            if image.meta.cal_step.flat_field != "COMPLETE" and not self.flat_field.skip:
                log.warning("%s: not flat-fielded", image.meta.filename)

    @staticmethod
    def _check_names(libraries):
        """Make sure, before any work is done, that every product has a name of its own."""
        names = set()
        for library in libraries:
            headers = read_headers(library)
            table = metadata.describe_exposures(headers, SkyflatModel().get_dtype("metadata"))
            name = metadata.product_name(metadata.summarize(table), headers, library)
            if name in names:
                raise SkyflatError(f"{name}: the name of two products, run them one by one")
            names.add(name)
