"""The step that masks field stars."""

import logging

import numpy as np
from tqdm import tqdm

from soss_background.detector import PWCPOS, has_edge
from soss_background.errors import SkyflatError
from soss_background.io.exposures import header_window, is_dithered, iterate_images, read_headers
from soss_background.io.library import ExposureLibrary
from soss_background.mask.source_mask import find_sources
from soss_background.mask.target import target_reach
from soss_background.numerics.cells import CELL, cell_bands, expand_cells
from soss_background.numerics.summaries import ExposureSummaries
from soss_background.sky.commissioning import commissioning_profile
from soss_background.sky.traces import BRIGHT_TRACE, trace_distance, trace_excess
from soss_background.steps.base import SkyflatStep

__all__ = ["SkyflatMaskStep"]

log = logging.getLogger(__name__)


class SkyflatMaskStep(SkyflatStep):
    """
    Mask the dispersed light of field stars in dithered exposures of the sky.

    Every exposure gets a ``mask``: 1 for a background pixel that may be used, 0 for star light and
    bad pixels.
    """

    class_alias = "skyflat_mask"

    spec = """
    n_sigma = float(default=4.0, min=1.0)  # Significance above which smoothed flux is a source [sigma]
    min_fraction = float(default=0.003, min=0.0, max=0.2)  # Surface brightness above which flux is a source [fraction of the sky]
    grow = integer(default=1, min=0)  # Growth of the masks [cells of 4 x 8 pixels]
    in_memory = boolean(default=False)  # Keep the exposures in memory instead of in hidden files next to the products
    suffix = string(default='skyflatmask')  # Default suffix for output files
    """  # noqa: E501

    def process(self, *inputs):
        """
        Mask the exposures of a product.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, list, data model or `~jwst.datamodels.ModelLibrary`
            An association file, files, models, or a library of exposures of one sky.

        Returns
        -------
        `~jwst.datamodels.ModelLibrary`
            The exposures as images with masks.

        Raises
        ------
        SkyflatError
            If an exposure cannot be used, see `soss_background.io.exposures.open_libraries`, or if
            the association has several products.
        """
        libraries = self.open_exposures(inputs)
        if len(libraries) > 1:
            raise SkyflatError(
                f"{len(libraries)} products: mask the exposures of one at a time, or run "
                "SkyflatPipeline"
            )
        self.check_outputs(*(header["name"] for header in read_headers(libraries[0])))
        self._mask(libraries[0])
        return libraries[0]

    def _mask(self, library):
        """Set the mask of every exposure of a library."""
        if len(library) == 1:
            log.warning("One exposure only: its stars are found without comparison with others")
        progress = {"total": len(library), "unit": "exposure", "disable": None}
        summaries = ExposureSummaries()
        for image in tqdm(iterate_images(library), desc="Reading exposures", **progress):
            summaries.add(image.data, image.err, image.dq)
        means, noise = summaries.cells()
        headers = read_headers(library)
        window = header_window(headers[0])
        filter_name = headers[0]["meta.instrument.filter"]
        distance = _cell_distance(window, means.shape[1:], filter_name)
        _warn_of_target(means, distance)
        reaches = np.array([target_reach(plane, distance, self.min_fraction) for plane in means])
        target = distance < reaches[:, np.newaxis, np.newaxis]
        sources = target | find_sources(
            np.where(target, np.nan, means),
            noise,
            profile=_sky_profile(window, means.shape[-1]) if has_edge(filter_name) else None,
            n_sigma=self.n_sigma,
            min_fraction=self.min_fraction,
            grow=self.grow,
            bands=cell_bands(window.amplifiers()),
            # Stars do not move between exposures of a target, unless the pointings differ.
            dithered=not target.any() or is_dithered(headers),
        )
        if sources.all(axis=(1, 2)).any():
            log.warning("An exposure has too few usable pixels to find its stars: all are masked")
        images = tqdm(iterate_images(library, modify=True), desc="Masking stars", **progress)
        for index, image in enumerate(images):
            stars = expand_cells(sources[index], image.data.shape)
            image.mask = (summaries.usable(index) & ~stars).astype(np.uint32)
            image.meta.cal_step.skyflat_mask = "COMPLETE"
            log.info("%s: %.1f %% masked as sources", image.meta.filename, 100 * stars.mean())
            if reaches[index]:
                image.meta.skyflat = {"target_reach": reaches[index]}
                log.warning(
                    "%s: the target is masked up to %.0f pixels from its traces",
                    image.meta.filename, reaches[index],
                )  # fmt: skip
        if isinstance(library, ExposureLibrary):  # which forgets them when an exposure is changed
            library.summaries = summaries


def _cell_distance(window, shape, filter_name):
    """Return the distance of cells from the traces of a target, pixels."""
    rows, columns = (
        np.arange(number) * size + size // 2 for number, size in zip(shape, CELL, strict=True)
    )
    distance = trace_distance(window, PWCPOS, filter_name=filter_name)
    return distance[np.ix_(np.minimum(rows, window.ny - 1), np.minimum(columns, window.nx - 1))]


def _warn_of_target(means, distance):
    """Warn if the cells of the exposures show the trace of a target."""
    excess = np.array([trace_excess(plane, distance) for plane in means])
    if np.any(excess > BRIGHT_TRACE):
        log.warning(
            "%d of %d exposures show the trace of a target, %.3g times as bright as the sky: a "
            "skyflat needs exposures of blank sky",
            np.count_nonzero(excess > BRIGHT_TRACE), len(excess), np.nanmax(excess),
        )  # fmt: skip


def _sky_profile(window, number):
    """Return the shape of the sky along the cells of a row."""
    return commissioning_profile(window.x0 + (np.arange(number) + 0.5) * CELL[1])
