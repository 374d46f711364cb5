"""The step that subtracts the sky from science exposures."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from crds.core.exceptions import CrdsError
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background.datamodels.header_text import to_ascii
from soss_background.detector import SUPERSTRIPES, has_edge
from soss_background.errors import SkyflatError
from soss_background.io.companions import check_companion, read_companion
from soss_background.io.exposures import (
    REQUIRED_CLEAR,
    find_fault,
    find_pwcpos,
    find_sky_fault,
    find_window,
    header_of,
)
from soss_background.io.files import add_history
from soss_background.io.library import check_count_rates
from soss_background.io.priors import check_alone, read_sky
from soss_background.io.segments import (
    SegmentLibrary,
    Segments,
    average_segments,
    describe_numbers,
)
from soss_background.io.templates import find_sources, inspect_sky, read_flat
from soss_background.numerics.integrations import usable_pixels
from soss_background.sky.edge import right_of_edge
from soss_background.sky.traces import trace_distance
from soss_background.steps.base import SkyflatMixin, SkyflatStep
from soss_background.steps.crds_access import catch_crds_exit, crds_reachable, open_pastasoss
from soss_background.steps.parameters import BAD_PIXELS, ListParameter, check_flat, name_item
from soss_background.subtract.contaminants import find_contaminants
from soss_background.subtract.pedestals import BlockOffsets
from soss_background.subtract.scales import measure_scales
from soss_background.subtract.sky_fit import NoSkyError, fit_sky
from soss_background.subtract.summary import summarize_fit

__all__ = ["SkyflatSubtractStep", "with_edge"]

log = logging.getLogger(__name__)

# Deviations of a sky, in units of those of its prior, above which templates do not describe it.
_LARGEST_MISFIT = 3.0

# Paths of the metadata of FILTER and SUBARRAY.
_FILTER, _SUBARRAY = "meta.instrument.filter", "meta.subarray.name"

# Warning for background exposures of an association for which the user gives a sky.
IGNORED = "its background exposures are ignored, since skyflat or override_bkg is given"

# Why background exposures are not combined.
_COMBINED = (
    "this step does not combine background exposures. Run SkyflatSpec2Pipeline or "
    "SossStarePipeline, which do"
)


@dataclass(frozen=True, repr=False)
class Subtraction:
    """
    The sky of an exposure, in the flat state of the exposure.

    Attributes
    ----------
    mean : `~stdatamodels.jwst.datamodels.ImageModel`
        Mean of the integrations of all segments, with the sky.
    sky, sky_err : ndarray of float, shape (ny, nx)
        The sky of that mean and its 1-sigma uncertainty, DN/s.
    used : ndarray of bool, shape (ny, nx)
        True for pixels used in the fit.
    flags : ndarray of uint32, shape (ny, nx)
        JWST data quality flags of the sky.
    cards : list of list
        Keyword, value and comment of each result of the fit.
    templates : list of str
        Name of the sky model, or names of the templates.
    segments : list of str
        File names of the segments in the fit.
    contaminants : ndarray of bool, shape (ny, nx), or None
        True for pixels of sources in the exposure with F277W; None without one.
    """

    mean: datamodels.ImageModel
    sky: np.ndarray
    sky_err: np.ndarray
    used: np.ndarray
    flags: np.ndarray
    cards: list
    templates: list
    segments: list
    contaminants: np.ndarray | None


class SkyflatSubtractStep(SkyflatStep):
    """Subtract the dispersed sky from SOSS exposures."""

    class_alias = "skyflat_subtract"

    spec = f"""
    skyflat = force_list(default=None)  # Sky model, or skyflats, BKG reference files, .npy templates; wildcards and folders allowed [default: CRDS's BKG reference]
    scale_mode = option('exposure', 'integration', default='exposure')  # Level of the sky: one for the exposure, or one for each integration
    f277w = string(default=None)  # Exposure of the same field with F277W, whose field stars and images of order 0 are masked
    n_sigma = float(default=4.0, min=0.0)  # Significance above which stars are masked [sigma]
    {BAD_PIXELS}
    save_combined_background = boolean(default=False)  # In a pipeline: save the skyflat of background exposures, or reuse an existing one
    save_background = boolean(default=False)  # Save the subtracted sky, which SavedSkyStep subtracts from other products of the exposure
    save_residual = boolean(default=False)  # Save the sky-subtracted mean of the integrations, divided by its uncertainty
    save_mask = boolean(default=False)  # Save masks of the pixels used in the fit, and of the sources of f277w
    suffix = string(default='skyflatsubtract')  # Default suffix for output files
    """  # noqa: E501

    named_files: ClassVar = ("skyflat", "f277w", "bad_pixels")

    skyflat = ListParameter()

    reference_file_types: ClassVar = ["bkg", "flat", "pastasoss"]

    # The step gets reference files when it needs them.
    prefetch_references = False

    # The sky of the exposure to which a segment belongs, if a pipeline has fitted it before.
    fitted = None

    def process(self, *inputs):
        """
        Subtract the sky.

        The segments of an exposure get one sky, that of the mean of all their integrations.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, data model, association, or list of these
            Exposures, ``_rate`` or ``_rateints``, and segments of time series in any order; models
            are left unchanged unless the step is part of a pipeline. A second argument that is a
            list holds exposures of blank sky, as jwst's pipeline passes them; by default they are
            the background members of the association. Only the pipelines of this package combine
            them.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.CubeModel` or `~stdatamodels.jwst.datamodels.ImageModel`
            A single exposure without its sky. If there is nothing to subtract, the unchanged
            exposure with a status of SKIPPED. Several exposures or segments are a
            `~soss_background.io.segments.SegmentLibrary` of these, which reads and changes one at a
            time.

        Raises
        ------
        SkyflatError
            If a file cannot be read, a segment is given twice, or there is no sky.
        """
        background = []
        if len(inputs) == 2 and isinstance(inputs[1], list):
            inputs, background = inputs[:1], inputs[1]
        if self.save_combined_background and self.parent is None:
            raise SkyflatError(f"save_combined_background is set, but {_COMBINED}")
        exposures = self.open_segments(*inputs)
        for segments in exposures:
            segments.background = background or segments.background
        if not isinstance(self.parent, SkyflatMixin):  # pipelines check before their first step
            self.check(exposures)
        for segments in exposures:
            self.check_outputs(*segments.names)
        library = SegmentLibrary.join([self._subtract(segments) for segments in exposures])
        return library if isinstance(inputs[0], Segments) else library.unpacked()

    def check(self, exposures):
        """
        Raise, before any work, if the user's files or models cannot be applied to exposures.

        Parameters
        ----------
        exposures : list of `~soss_background.io.segments.Segments`
            The exposures.
        """
        if self.skyflat and self.get_ref_override("bkg"):
            raise SkyflatError("skyflat and override_bkg are given: give one of them")
        for segments in exposures:
            self._check_status(segments)
        self._check_filters(exposures)
        for segments in exposures:
            self.flag_segments(segments)
            self._check_flat(segments)
        for segments in with_edge(exposures) if self.f277w else ():
            self._check_f277w(segments.headers[0], name_item(segments.sources[0]))

    def _check_status(self, segments):
        """Raise if the user names a sky, or runs the step alone, but it cannot be subtracted."""
        header, name = segments.headers[0], name_item(segments.sources[0])
        is_subtracted = header.get("meta.cal_step.bkg_subtract") == "COMPLETE"
        named = self._names_sky(segments.background)
        fault = find_sky_fault(header)
        if fault and (named or (is_subtracted and self.parent is None)):
            raise SkyflatError(f"{name}: {fault}")
        if self.scale_mode == "integration" and header.get(_SUBARRAY) in SUPERSTRIPES:
            raise SkyflatError(
                f"{name}: scale_mode=integration cannot be used with {header[_SUBARRAY]}, whose "
                "blocks of columns have pedestals"
            )

    def _check_filters(self, exposures):
        """Raise if a sky, or a background exposure that makes one, has another filter."""
        # override_bkg replaces the reference file of exposures whose sky has an edge.
        served = exposures if self.skyflat else with_edge(exposures)
        for source in self._all_sources():
            _check_filter(source, _find_filter(source), served)
        for segments in exposures:
            sources = self.named_sources(segments.headers[0].get(_FILTER))
            check_alone(sources)
            for each in () if sources else segments.background:
                _check_filter(each, header_of(each).get(_FILTER), [segments])

    def _check_flat(self, segments):
        """Raise if the exposure or its sky needs a flat that cannot be applied."""
        header, name = segments.headers[0], name_item(segments.sources[0])
        sources = self.named_sources(header.get(_FILTER))
        states = [(name, header.get("meta.cal_step.flat_field") == "COMPLETE")]
        states += [(name_item(each), inspect_sky(each).flat_fielded) for each in sources]
        is_named = len(states) > 1 or _is_smooth(header)
        if is_named and all(fielded for _, fielded in states):
            check_flat(header, self.get_ref_override("flat"))
        conflict = _find_conflict(states)
        if conflict and self._flat_path(segments.sources[0]) is None:
            raise SkyflatError(self._describe_conflict(conflict))

    def _check_f277w(self, header, name):
        """Raise if the exposure with F277W does not show the field of another with CLEAR."""
        if fault := find_fault(header, REQUIRED_CLEAR):
            raise SkyflatError(f"{name}: {fault}, but f277w is given")
        check_companion(Path(self.f277w), header, name)

    def _names_sky(self, background):
        """Return whether the user names files for the step, so that it must be applied."""
        overrides = [self.get_ref_override(kind) for kind in ("bkg", "flat")]
        return bool(
            self.skyflat
            or self.f277w
            or self.bad_pixels
            or background
            or any(each not in (None, "N/A") for each in overrides)
        )

    def _all_sources(self):
        """Return the models, arrays and files of skies that the user names."""
        return find_sources(self.skyflat or [self.get_ref_override("bkg")])

    def named_sources(self, filter_name):
        """Return the models, arrays and files of skies that the user names for a FILTER."""
        return [each for each in self._all_sources() if _find_filter(each) == filter_name]

    def _subtract(self, segments):
        """Return a library of the segments of an exposure without their sky."""
        self.flag_segments(segments)
        subtraction = self.fitted or self.fit(segments)
        if subtraction is None:
            return segments.library().then(_mark_skipped)
        return segments.library().then(partial(self.remove, subtraction), subtraction)

    def fit(self, segments):
        """
        Fit the sky of an exposure, and save the requested images.

        Parameters
        ----------
        segments : `~soss_background.io.segments.Segments`
            The exposure.

        Returns
        -------
        Subtraction or None
            The sky; None, with a warning, if there is nothing to subtract.

        Raises
        ------
        SkyflatError
            If a sky that the user names cannot be subtracted.
        """
        if segments.headers[0].get("meta.cal_step.bkg_subtract") == "COMPLETE":
            log.warning("%s: its sky has been subtracted already", segments.name)
            return None
        try:
            subtraction = self._fit(segments)
        except _NotSubtractedError as reason:
            fault = f"{segments.name}: sky not subtracted, {reason}"
            if self._names_sky(segments.background):
                raise SkyflatError(fault) from reason
            log.warning("%s", fault)
            return None
        self._save_extras(subtraction)
        return subtraction

    def _fit(self, segments):
        """Fit the sky of an exposure; raise _NotSubtractedError if there is nothing to subtract."""
        masks = self.f277w and not _is_smooth(segments.headers[0])
        contaminants = self._find_contaminants() if masks else None
        image, members, pedestal_rms = _average(segments)
        window, pwcpos = find_window(image), find_pwcpos(image)
        sources = self._find_sources(image, segments.background)
        source = read_sky(sources, window, pwcpos, image.meta.instrument.filter)
        flat = self._find_flat(image, window, source.states)
        # The fit needs a flat-fielded exposure.
        fielded = image.meta.cal_step.flat_field == "COMPLETE"
        divisor = 1 if flat is None or fielded else flat
        reference = window.reference_pixels()
        usable = usable_pixels(image.data, image.err, image.dq) & ~reference
        try:
            fit = fit_sky(
                image.data / divisor,
                image.err / divisor,
                usable,
                source.make_prior(flat),
                self._trace_distance(image, window, pwcpos),
                self.n_sigma,
                blocks=window.column_blocks(),
                pedestal_rms=pedestal_rms,
                sources=contaminants,
            )
        except NoSkyError as err:
            raise _NotSubtractedError(str(err)) from err
        fraction = np.count_nonzero(fit.used) / np.count_nonzero(usable)
        numbers = describe_numbers(segments.numbers[index] for index in members)
        cards = _list_cards(fit, fraction, source.number, numbers)
        if masks:
            name = to_ascii(Path(self.f277w).name)
            cards.append(["SKYF277W", name, "exposure whose sources are masked"])
        subtraction = Subtraction(
            image,
            *(np.where(reference, 0, plane * divisor) for plane in (fit.sky, fit.err)),
            fit.used,
            source.flags & ~np.uint32(dqflags.pixel["DO_NOT_USE"]),  # gaps are filled
            cards,
            [name for name, _ in source.states],
            [segments.names[index] for index in members],
            contaminants,
        )
        _log_fit(segments.name, fit, subtraction, window, fraction)
        return subtraction

    def _find_contaminants(self):
        """Return True for the pixels of sources in the exposure with F277W."""
        image = read_companion(self.f277w)
        window, pwcpos = find_window(image), find_pwcpos(image)
        try:
            sources = find_contaminants(
                image.data,
                image.err,
                usable_pixels(image.data, image.err, image.dq) & ~window.reference_pixels(),
                window,
                self._trace_distance(image, window, pwcpos),
                subtracted=image.meta.cal_step.bkg_subtract == "COMPLETE",
                n_sigma=self.n_sigma,
            )
        except NoSkyError as err:
            raise SkyflatError(f"{self.f277w}: no sources can be found, {err}") from err
        log.info("%s: %.2f %% of its pixels show sources", self.f277w, 100 * sources.mean())
        return sources

    def remove(self, subtraction, model):
        """
        Subtract the sky of an exposure from one of its segments, or from their mean, in place.

        Parameters
        ----------
        subtraction : Subtraction
            The sky, see `fit`.
        model : `~stdatamodels.jwst.datamodels.CubeModel` or ``ImageModel``
            The segment, or ``subtraction.mean``.

        Returns
        -------
        model : `~stdatamodels.jwst.datamodels.CubeModel` or ``ImageModel``
            The same model.
        """
        sky, sky_err = subtraction.sky, subtraction.sky_err
        cube, errors = (plane.reshape(-1, *sky.shape) for plane in (model.data, model.err))
        scales = np.ones(len(cube))
        if self.scale_mode == "integration":
            scales = measure_scales(cube, subtraction.mean.data, sky, subtraction.used)
        for integration, error, scale in zip(cube, errors, scales, strict=True):
            integration -= (scale * sky).astype(np.float32)
            np.hypot(error, sky_err, out=error)
        model.dq |= subtraction.flags
        model.meta.cal_step.bkg_subtract = "COMPLETE"
        _record(model, subtraction, self.scale_mode, scales)
        return model

    def _trace_distance(self, model, window, pwcpos):
        """Return the distance of pixels from the target's first two orders."""
        with open_pastasoss(self, model) as reference:
            return trace_distance(window, pwcpos, reference, model.meta.instrument.filter)

    def _save_extras(self, subtraction):
        """Save sky, residual and mask if requested."""
        mean, sky, extras = subtraction.mean, subtraction.sky, {}
        if self.save_background:
            planes = {"data": sky, "err": subtraction.sky_err, "dq": subtraction.flags}
            extras["skyflatbackground"] = planes
        if self.save_residual:
            err = np.where(mean.err > 0, mean.err, np.nan)
            extras["skyflatresidual"] = {"data": (mean.data - sky) / err}
        if self.save_mask:
            extras["skyflatused"] = {"mask": subtraction.used}
            if subtraction.contaminants is not None:
                extras["skyflatsources"] = {"mask": subtraction.contaminants}
        for suffix, planes in extras.items():
            extra = datamodels.ImageModel(**planes)
            extra.update(mean)
            _record(extra, subtraction, self.scale_mode)
            self.save_model(extra, suffix=suffix, force=True)

    def _find_sources(self, model, background):
        """Return the skies of the user or of the pipeline, or a BKG reference file."""
        filter_name = model.meta.instrument.filter
        sources = self.named_sources(filter_name)
        if background and not sources:
            raise SkyflatError(
                f"{model.meta.filename}: {_COMBINED}, or run SkyflatPipeline on them and give its "
                f"skyflat ({self._place()}skyflat=FILE)"
            )
        if background and self.parent is None:
            log.warning("%s: %s", model.meta.filename, IGNORED)
        if sources or not has_edge(filter_name):
            return sources
        return [self._bkg_path(model)]

    def _find_flat(self, model, window, states):
        """Read the flat; return None if it is not needed, or missing and not required."""
        states = [(model.meta.filename, model.meta.cal_step.flat_field == "COMPLETE"), *states]
        if all(fielded for _, fielded in states):
            return None
        conflict = _find_conflict(states)
        try:
            flat = self._flat_path(model)
            if flat is not None:
                return read_flat(flat, window)
        except SkyflatError:
            if conflict:
                raise
        if conflict:
            raise _NotSubtractedError(self._describe_conflict(conflict))
        log.info("No flat: the sky is fitted without it")
        return None

    def _describe_conflict(self, conflict):
        """Return the fault of a flat-fielded file and one that is not flat-fielded."""
        first, second = conflict
        return f"{first} is flat-fielded and {second} is not: give {self._option('flat')}"

    def given_flat(self):
        """Return the user's flat for this step or for flat_field of its pipeline, or None."""
        flat = self.get_ref_override("flat")
        flat_field = getattr(self.parent, "flat_field", None)
        if not flat and flat_field:
            flat = flat_field.get_ref_override("flat") or flat_field.user_supplied_flat
        return flat or None

    def _flat_path(self, model):
        """Find the flat of the user, or CRDS's."""
        path = self.given_flat()
        if not path:
            path = self._ask_crds(model, "flat") if crds_reachable() else "N/A"
        return None if path == "N/A" else path

    def _bkg_path(self, model):
        """Find the BKG reference file that the user gives, or CRDS's."""
        if self.get_ref_override("bkg") is None and not crds_reachable():
            raise SkyflatError(
                "No BKG reference file: CRDS cannot be reached. Give skyflats (skyflat=FILES) or a "
                f"reference file ({self._option('bkg')}), or set CRDS_PATH to reach CRDS."
            )
        path = self._ask_crds(model, "bkg")
        if path == "N/A":
            raise _NotSubtractedError("CRDS has no BKG reference file for it")
        return Path(path)

    def save_model(self, model, *args, **kwargs):
        """Save a segment or a library of them, except those whose sky is not subtracted."""
        is_model = isinstance(model, datamodels.JwstDataModel)
        if is_model and model.meta.cal_step.bkg_subtract == "SKIPPED":
            log.warning("%s: nothing is saved, its sky is not subtracted", model.meta.filename)
            return None
        return super().save_model(model, *args, **kwargs)

    def _option(self, kind):
        """Return the option that gives a reference file, alone or in a pipeline."""
        # The flat of the flat-field step is used for this step, too.
        flat_field = getattr(self.parent, "flat_field", None)
        serves = kind == "flat" and flat_field and not flat_field.skip
        return f"{self._place('flat_field' if serves else None)}override_{kind}=FILE"

    def _place(self, name=None):
        """Return the prefix of an option of a step on the command line; by default of this step."""
        return "--" if self.parent is None else f"--steps.{name or self.name}."

    def _ask_crds(self, model, kind):
        """Get a reference file, or raise an error with the reason in one line."""
        try:
            with catch_crds_exit():
                return self.get_reference_file(model, kind)
        except CrdsError as err:
            raise SkyflatError(
                f"No {kind} reference file: CRDS gives none ({err}), give {self._option(kind)}"
            ) from err


class _NotSubtractedError(Exception):
    """Exception for an exposure without anything to subtract."""


def _average(segments):
    """Return the mean of segments, the indices of those in it, and the rms of its pedestals."""
    offsets, in_blocks = BlockOffsets(), segments.headers[0].get(_SUBARRAY) in SUPERSTRIPES

    def measure(model):
        window = find_window(model)
        cube = model.data.reshape(-1, *window.shape)
        offsets.add(cube, ~window.reference_pixels(), window.column_blocks())

    try:
        image, members = average_segments(segments, measure if in_blocks else None)
        check_count_rates(image)
    except SkyflatError as err:
        fault = str(err).removeprefix(f"{segments.name}: ")
        raise _NotSubtractedError(fault) from err
    return image, members, offsets.expect_rms()


def _log_fit(name, fit, subtraction, window, fraction):
    """Log the sky of an exposure; warn if its templates do not describe it."""
    science = ~window.reference_pixels()
    right = right_of_edge(subtraction.sky, window.x0)
    right &= has_edge(subtraction.mean.meta.instrument.filter)
    log.info("%s: %s", name, summarize_fit(fit, subtraction.sky, science, right, fraction))
    if fit.pedestals.size:
        rms = np.sqrt(np.mean(fit.pedestals**2))
        log.info("%d blocks of columns: pedestals of %.3g DN/s rms", fit.pedestals.size, rms)
    names = ", ".join(subtraction.templates) or "none, a smooth surface is fitted"
    log.info("Templates: %s", names)
    if fit.misfit > _LARGEST_MISFIT:
        log.warning(
            "%s: its sky differs %.1f times as much from its templates as their prior expects",
            name,
            fit.misfit,
        )


def with_edge(exposures):
    """Return the exposures, `Segments`, whose sky has an edge; all if there are none."""
    return [each for each in exposures if not _is_smooth(each.headers[0])] or exposures


def _find_filter(source):
    """Return the FILTER of a sky; CLEAR, as of exoTEDRF's arrays, if it is unknown."""
    return inspect_sky(source).filter_name or "CLEAR"


def _check_filter(source, filter_name, exposures):
    """Raise if the FILTER of a sky, unless it is None, is that of no exposure."""
    filters = [each.headers[0].get(_FILTER) for each in exposures]
    if filter_name not in (None, *filters):
        raise SkyflatError(
            f"{name_item(source)}: FILTER is {filter_name}, but {filters[0]} in "
            f"{exposures[0].name}: a sky serves exposures with its own filter"
        )


def _is_smooth(header):
    """Return whether the sky of an exposure needs no template."""
    return not has_edge(header.get(_FILTER))


def _mark_skipped(model):
    """Record that there was nothing to subtract from a segment; return it."""
    if model.meta.cal_step.bkg_subtract != "COMPLETE":
        model.meta.cal_step.bkg_subtract = "SKIPPED"
    return model


def _find_conflict(states):
    """Return the names of a flat-fielded sky and of one that is not; None unless both exist."""
    names = {fielded: name for name, fielded in reversed(states)}
    return (names[True], names[False]) if len(names) == 2 else None


def _list_cards(fit, fraction, number, segments):
    """Return keyword, value and comment of each result of a fit."""
    cards = [
        ["SKYLEFT", fit.level_left, "[DN/s] scale of the prior, left of the edge"],
        ["SKYLERR", fit.level_left_err, "[DN/s] its uncertainty"],
        ["SKYRIGHT", fit.level_right, "[DN/s] scale of the prior, right of the edge"],
        ["SKYRERR", fit.level_right_err, "[DN/s] its uncertainty"],
        ["SKYSHIFT", fit.shift, "[pixel] shift of the edge from the prior"],
        ["SKYCHI2", fit.chi2, "reduced chi-square of the fit"],
        ["SKYMISFT", fit.misfit, "rms deviation from the prior, in its sigmas"],
        ["SKYFRAC", fraction, "fraction of the pixels used"],
        ["SKYNTEMP", number, "number of templates, or skyflats of the model"],
    ]
    cards = [[key, round(value, 6), comment] for key, value, comment in cards]
    return [*cards, ["SKYSEGS", segments, "segments (EXSEGNUM) of the fit"]]


def _record(model, subtraction, scale_mode, scales=()):
    """Record a subtraction in the header, the history, and the tree of a data model."""
    _add_cards(model, subtraction.cards)
    model.meta.skyflat_subtract = {key.lower(): value for key, value, _ in subtraction.cards} | {
        "scale_mode": scale_mode,
        "templates": subtraction.templates,
        "segments": subtraction.segments,
        "scales": [round(float(scale), 6) for scale in scales],
    }
    results = [
        f"{key} = {value if isinstance(value, str) else f'{value:.5g}'}"
        for key, value, _ in subtraction.cards
    ]
    text = ", ".join([*results, f"scale_mode = {scale_mode}"])
    add_history(model, f"soss_background subtracted the sky: {text}")


def _add_cards(model, cards):
    """Add cards to the primary header, next to other cards without a schema."""
    if "extra_fits.PRIMARY.header" in model:
        names = {card[0] for card in cards}
        known = [list(card) for card in model.extra_fits.PRIMARY.header if card[0] not in names]
        model.extra_fits.PRIMARY.header = known + cards
    elif "extra_fits" in model:
        model.extra_fits.PRIMARY = {"header": cards}
    else:
        model.extra_fits = {"PRIMARY": {"header": cards}}
