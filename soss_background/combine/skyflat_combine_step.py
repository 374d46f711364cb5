"""The step that combines exposures into a skyflat."""

import logging
import statistics
from typing import ClassVar

import numpy as np
from jwst.datamodels import ModelContainer
from tqdm import tqdm

from soss_background import __version__
from soss_background.combine.sky import NoSkyError, NothingToCombineError, combine_exposures
from soss_background.datamodels import exposure_table as metadata
from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError, count
from soss_background.io.exposures import (
    borrow,
    describe_members,
    describe_products,
    header_window,
    iterate_images,
    read_headers,
    root_name,
)
from soss_background.io.store import Stack
from soss_background.steps.base import SkyflatStep
from soss_background.steps.parameters import ListParameter, name_item

__all__ = ["SkyflatCombineStep"]

log = logging.getLogger(__name__)

# Parameters of the step that are passed to the algorithm.
_PARAMETERS = ("n_sigma", "hot_sigma", "mad_threshold")

# Standard deviations (pixels) along columns of the Gaussian that fills gaps: gaps of stars, and
# gaps of a target, which are hundreds of rows high and across which the edge must not blur.
_STAR_ROWS, _TARGET_ROWS = 8.0, 64.0


class SkyflatCombineStep(SkyflatStep):
    """Combine masked exposures of the sky into an empirical sky model."""

    class_alias = "skyflat_combine"

    input_suffixes: ClassVar = ("skyflatmask", "skyflat")
    named_files: ClassVar = ("bad_pixels",)
    named: ClassVar = ("exclude",)

    exclude = ListParameter()

    spec = """
    n_sigma = float(default=5.0, min=1.0)  # Deviation from the sky above which a sample is left out [sigma]
    hot_sigma = float(default=6.0, min=1.0)  # Deviation from its column above which a pixel of the sky is hot [sigma]
    mad_threshold = float(default=0.05, min=0.0, max=1.0)  # Deviation from the others above which an exposure is left out, if it is also three times a typical deviation [fraction of the sky]
    exclude = force_list(default=None)  # Names of exposures to leave out, with or without suffix
    bad_pixels = string(default=None)  # Pixels to leave out of all exposures: a FITS image, nonzero where bad, or a table (FITS, CSV, ECSV, text) of x and y, counted from 0
    in_memory = boolean(default=False)  # Keep the exposures in memory instead of in hidden files next to the products
    save_stack = boolean(default=True)  # Keep the exposures and their masks in the product
    author = string(default='soss_background')  # Value of the keyword AUTHOR of the product
    suffix = string(default='skyflatcombine')  # Default suffix for output files
    """  # noqa: E501

    def process(self, *inputs):
        """
        Combine the exposures of each product.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, list, data model or `~jwst.datamodels.ModelLibrary`
            An association file, files, models, or a library of exposures of one sky: images or
            cubes, DN/s. Their ``mask``, if present, is 1 for pixels that show the sky, else 0.

        Returns
        -------
        SkyflatModel
            The skyflat in DN/s, not yet denoised; a `~jwst.datamodels.ModelContainer` for several
            products.

        Raises
        ------
        SkyflatError
            If an exposure cannot be used, none is left, or an exposure to leave out is missing.
        """
        libraries = self.open_exposures(inputs)
        descriptions = describe_products(libraries)
        if self.parent is None:
            self.check(libraries)
            self.check_products(descriptions)
        skyflats = [self._combine(*pair) for pair in zip(libraries, descriptions, strict=True)]
        return skyflats[0] if len(skyflats) == 1 else ModelContainer(skyflats)

    def check(self, libraries):
        """Raise unless the exposures and pixels to leave out are in the libraries."""
        headers = [header for library in libraries for header in read_headers(library)]
        roots = {root_name(header["name"]) for header in headers}
        for name in map(name_item, self.exclude or []):
            if root_name(name) not in roots:
                raise SkyflatError(f"{name}, which is to be left out, is not among the exposures")
        for window in {header_window(read_headers(library)[0]) for library in libraries}:
            self.read_bad_pixels(window)

    def _combine(self, library, description):
        """Return the skyflat of a library of exposures."""
        headers, name = read_headers(library), description.name
        flat_state, skyflat, table = _flat_state(headers), SkyflatModel(), description.table.copy()
        if len(library) == 1:
            log.warning("One exposure only: its stars and stripes cannot be separated from the sky")
        names = {root_name(name_item(item)) for item in self.exclude or []}
        excluded = [i for i, header in enumerate(headers) if root_name(header["name"]) in names]
        window = header_window(headers[0])
        if flat_state != "COMPLETE":
            log.warning("The exposures are not flat-fielded: FLATCORR is SKIPPED")

        stack = Stack(len(library), self.scratch())
        parameters = {name: getattr(self, name) for name in _PARAMETERS}
        try:
            combined = combine_exposures(
                _Exposures(library),
                stack,
                summaries=getattr(library, "summaries", None),
                bands=window.amplifiers(),
                bad=self.read_bad_pixels(window),
                flat_error=_flat_error(library),
                excluded=excluded,
                gap_rows=_TARGET_ROWS if _target_reach(headers) else _STAR_ROWS,
                **parameters,
            )
        except NothingToCombineError as err:
            raise SkyflatError(f"{name}: {err}") from err
        except NoSkyError as err:
            exposure = headers[err.index]["name"]
            raise SkyflatError(f"{exposure}: has no sky, its median is not positive") from err
        if combined.unmasked:
            exposures = count(combined.unmasked, "exposure")
            log.warning("%s without a mask: run skyflat_mask first", exposures)
        table["used"] = [not reason for reason in combined.reasons]
        table["reason"] = combined.reasons
        for column in ("scale", "offset", "masked_fraction", "deviation", "excess"):
            table[column] = getattr(combined, column)
        _log_vetting(table)

        skyflat.bkg, skyflat.err, skyflat.dq = combined.sky, combined.err, combined.dq
        # A pipeline measures the exposures before it drops them.
        if self.save_stack or self.parent is not None:
            skyflat.images, skyflat.masks = combined.images, combined.left_out
        self._describe(skyflat, table, description.summary, library, headers)
        skyflat.meta.filename = name
        skyflat.meta.skyflat.flat_correction = flat_state
        skyflat.meta.skyflat.stripe_rms = combined.stripe_rms
        skyflat.meta.skyflat.stripe_slope = combined.stripe_slope
        skyflat.meta.cal_step.skyflat_mask = "SKIPPED" if combined.unmasked else "COMPLETE"
        return skyflat

    def _describe(self, skyflat, table, summary, library, headers):
        """Write the keywords, the name and the table of exposures."""
        with library:
            first = borrow(library, 0)
            skyflat.update(first, only="PRIMARY")
            library.shelve(first, 0, modify=False)
        meta = skyflat.meta
        for key, value in summary.items():
            setattr(meta.skyflat, key, value)
        meta.skyflat.members = describe_members(library)
        meta.skyflat.target_reach = _target_reach(headers) or None
        meta.skyflat.n_samples = int(table["used"].sum())
        meta.author = self.author
        meta.skyflat.software_version = __version__
        meta.description = f"Empirical GR700XD sky of {meta.skyflat.n_samples} exposures"
        for key, reduce in (("start_time", min), ("mid_time", statistics.mean), ("end_time", max)):
            times = [header.get(f"meta.exposure.{key}") for header in headers]
            setattr(meta.exposure, key, None if None in times else reduce(times))
        ends = [header.get("meta.observation.date_end") for header in headers]
        meta.observation.date_end = None if None in ends else max(ends)
        meta.cal_step.skyflat_combine = "COMPLETE"
        meta.bunit_bkg = meta.bunit_err = "DN/s"
        if skyflat.images is not None:
            meta.bunit_images = "DN/s"
        skyflat.metadata = table
        for column, unit in metadata.UNITS.items():
            skyflat.metadata.columns[column].unit = unit


class _Exposures:
    """The exposures of a library as arrays, which can be iterated several times."""

    def __init__(self, library):
        self._library = library

    def __iter__(self):
        """Yield image, errors, flags and mask (True: masked, or None) of each exposure."""
        progress = {"total": len(self._library), "unit": "exposure", "disable": None}
        for image in tqdm(iterate_images(self._library), "Reading exposures", **progress):
            yield image.data, image.err, image.dq, None if image.mask is None else image.mask == 0


def _target_reach(headers):
    """Return the largest distance from the traces of a target that is masked, 0 for none."""
    return max(header.get("meta.skyflat.target_reach") or 0 for header in headers)


def _flat_error(library):
    """Return the relative uncertainty of the flat field, which the first exposure records, or 0."""
    with library:
        first = borrow(library, 0)
        variance, data = first.var_flat, first.data
        library.shelve(first, 0, modify=False)
    if variance is None:
        return 0.0
    known = (variance > 0) & (data > 0)
    return np.divide(np.sqrt(variance), data, out=np.zeros_like(data), where=known)


def _flat_state(headers):
    """Return the state of the flat-field correction, which all exposures share."""
    states = {
        header["name"]: header.get("meta.cal_step.flat_field") == "COMPLETE" for header in headers
    }
    if len(set(states.values())) > 1:
        flat, not_flat = (next(n for n, s in states.items() if s == wanted) for wanted in (1, 0))
        raise SkyflatError(f"{not_flat}: not flat-fielded, but {flat} is")
    return "COMPLETE" if all(states.values()) else "SKIPPED"


def _log_vetting(table):
    """Log the comparison of each exposure with the others, and the reason to leave it out."""
    for row in table:
        name, words = row["filename"].decode(), ""
        if np.isfinite(row["deviation"]):
            words = f", deviates by {row['deviation']:.2f} % from the sky"
        if row["used"]:
            unused = 100 * row["masked_fraction"]
            log.info("%s: level %.4f, %.1f %% not used%s", name, row["scale"], unused, words)
        else:
            log.warning("%s: not used, %s%s", name, row["reason"].decode(), words)
