"""The step that subtracts the sky from a science exposure."""

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from crds.core.exceptions import CrdsError
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background.errors import SkyflatError
from soss_background.io.exposures import find_pwcpos, find_sky_fault, find_window, header_of
from soss_background.io.files import note_inputs
from soss_background.io.library import as_image
from soss_background.io.priors import check_alone, read_sky
from soss_background.io.templates import find_sources, is_flat_fielded, read_flat
from soss_background.numerics.integrations import usable_pixels
from soss_background.sky.traces import trace_distance
from soss_background.steps.base import SkyflatStep
from soss_background.steps.crds_access import crds_reachable, open_pastasoss
from soss_background.steps.parameters import ListParameter, check_flat, name_item
from soss_background.subtract.scales import measure_scales
from soss_background.subtract.sky_fit import NoSkyError, fit_sky

__all__ = ["SkyflatSubtractStep"]

log = logging.getLogger(__name__)

# Warning for background exposures of an association for which the user gives a sky.
IGNORED = "its background exposures are ignored, since skyflat or override_bkg is given"


@dataclass(frozen=True)
class Subtraction:
    """
    The sky of an exposure, in the flat state of the exposure.

    Attributes
    ----------
    image, err : ndarray of float, shape (ny, nx)
        Mean of the integrations with the sky, and its 1-sigma uncertainty, DN/s.
    sky, sky_err : ndarray of float, shape (ny, nx)
        The sky of that mean and its 1-sigma uncertainty, DN/s.
    used : ndarray of bool, shape (ny, nx)
        True for pixels used in the fit.
    """

    image: np.ndarray
    err: np.ndarray
    sky: np.ndarray
    sky_err: np.ndarray
    used: np.ndarray


class SkyflatSubtractStep(SkyflatStep):
    """Subtract the dispersed sky from a SOSS exposure."""

    class_alias = "skyflat_subtract"

    spec = """
    skyflat = force_list(default=None)  # Sky model, or skyflats, BKG reference files, .npy templates; wildcards and folders allowed [default: CRDS's BKG reference]
    scale_mode = option('exposure', 'integration', default='exposure')  # Level of the sky: one for the exposure, or one for each integration
    n_sigma = float(default=4.0, min=0.0)  # Significance above which stars are masked [sigma]
    save_background = boolean(default=False)  # Save the subtracted sky, which SavedSkyStep subtracts from other products of the exposure
    save_residual = boolean(default=False)  # Save the mean of the integrations without sky, divided by its uncertainty
    save_mask = boolean(default=False)  # Save the mask of the pixels used in the fit
    suffix = string(default='skyflatsubtract')  # Default suffix for output files
    """  # noqa: E501

    named_files: ClassVar = ("skyflat",)

    skyflat = ListParameter()

    reference_file_types: ClassVar = ["bkg", "flat", "pastasoss"]

    # The step looks for reference files when it needs them.
    prefetch_references = False

    def process(self, step_input, background=(), keep=None):
        """
        Subtract the sky.

        Parameters
        ----------
        step_input : str, `~pathlib.Path`, data model or level-2 association
            The exposure, ``_rate`` or ``_rateints``; a model is left unchanged unless the step is
            part of a pipeline.
        background : list of str or data models, optional
            Exposures of blank sky, as jwst's pipeline passes them; by default the background
            members of the association. Only the pipelines of this package combine them.
        keep : callable, optional
            Called with the `Subtraction`, if the sky is subtracted.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.CubeModel` or `~stdatamodels.jwst.datamodels.ImageModel`
            The exposure without its sky. If there is nothing to subtract, the exposure as it was,
            with a status of SKIPPED.

        Raises
        ------
        SkyflatError
            If several exposures are given, a file cannot be read, or there is no sky.
        """
        if isinstance(background, str | Path):
            raise SkyflatError("Several exposures are given: run them one by one")
        members = sort_members(self.load_as_level2_asn(step_input), step_input)
        (science,) = members["science"]
        background = background or members["background"]
        self.check(science, background)
        model = self.open_whole(science)
        if isinstance(model, datamodels.ReferenceFileModel):
            raise SkyflatError(f"{name_item(science)}: a reference file, not an exposure")
        self.check_outputs(model.meta.filename)
        if model.meta.cal_step.bkg_subtract == "COMPLETE":
            log.warning("%s: its sky has been subtracted already", model.meta.filename)
            return model
        try:
            subtraction = self._subtract(model, background)
        except _NotSubtractedError as reason:
            fault = f"{model.meta.filename}: sky not subtracted, {reason}"
            if self._names_sky(background):
                raise SkyflatError(fault) from reason
            log.warning("%s", fault)
            model.meta.cal_step.bkg_subtract = "SKIPPED"
            return model
        self._save_extras(model, subtraction)
        if keep:
            keep(subtraction)
        return model

    def check(self, science, background):
        """
        Raise, before any work, if what the user names cannot be applied to an exposure.

        Parameters
        ----------
        science : str, `~pathlib.Path` or data model
            The exposure.
        background : list of str or data models
            Exposures of blank sky.
        """
        note_inputs(science)
        header, name = header_of(science), name_item(science)
        named = self._names_sky(background)
        is_subtracted = header.get("meta.cal_step.bkg_subtract") == "COMPLETE"
        fault = find_sky_fault(header)
        if fault and (named or (is_subtracted and self.parent is None)):
            raise SkyflatError(f"{name}: {fault}")
        if self.skyflat and self.get_ref_override("bkg"):
            raise SkyflatError("skyflat and override_bkg are given: give one of them")
        sources = self._named_sources()
        check_alone(sources)
        states = [(name, header.get("meta.cal_step.flat_field") == "COMPLETE")]
        states += [(name_item(each), is_flat_fielded(each)) for each in sources]
        if len(states) > 1 and all(fielded for _, fielded in states):
            check_flat(header, self.get_ref_override("flat"))
        conflict = _find_conflict(states)
        if conflict and self._flat_path(science) is None:
            raise SkyflatError(self._describe_conflict(conflict))

    def _names_sky(self, background):
        """Return whether the user names a sky or a flat, so that the sky must be subtracted."""
        overrides = [self.get_ref_override(kind) for kind in ("bkg", "flat")]
        return bool(
            self.skyflat or background or any(each not in (None, "N/A") for each in overrides)
        )

    def _named_sources(self):
        """Return the models, arrays and files of skies that the user names."""
        return find_sources(self.skyflat or [self.get_ref_override("bkg")])

    def _subtract(self, model, background):
        """Fit the sky of an exposure and subtract it in place."""
        try:
            image, window = as_image(model), find_window(model)
        except SkyflatError as err:
            fault = str(err).removeprefix(f"{model.meta.filename}: ")
            raise _NotSubtractedError(fault) from err
        pwcpos = find_pwcpos(model)
        source = read_sky(self._find_sources(model, background), window, pwcpos)
        flat = self._find_flat(model, window, source.states)
        # The fit needs a flat-fielded exposure.
        fielded = model.meta.cal_step.flat_field == "COMPLETE"
        divisor = 1 if flat is None or fielded else flat
        reference = window.reference_pixels()
        usable = usable_pixels(image.data, image.err, image.dq) & ~reference
        try:
            fit = fit_sky(
                image.data / divisor,
                image.err / divisor,
                usable,
                source.make_prior(flat),
                self._trace_distance(model, window, pwcpos),
                self.n_sigma,
            )
        except NoSkyError as err:
            raise _NotSubtractedError(str(err)) from err
        sky, sky_err = (np.where(reference, 0, plane * divisor) for plane in (fit.sky, fit.err))
        # An image is its own mean.
        before = [np.array(plane) for plane in (image.data, image.err)]
        scales = self._remove(model, sky, sky_err, fit.used)
        model.dq |= source.flags & ~np.uint32(dqflags.pixel["DO_NOT_USE"])  # gaps are filled
        model.meta.cal_step.bkg_subtract = "COMPLETE"
        fraction = np.count_nonzero(fit.used) / np.count_nonzero(usable)
        _report(model, fit, fraction, source, {"scale_mode": self.scale_mode, "scales": scales})
        return Subtraction(*before, sky, sky_err, fit.used)

    def _remove(self, model, sky, sky_err, used):
        """Subtract a sky from all integrations in place; return their scales."""
        cube, errors = (plane.reshape(-1, *sky.shape) for plane in (model.data, model.err))
        scales = np.ones(len(cube))
        if self.scale_mode == "integration":
            scales = measure_scales(cube, sky, used)
        for integration, error, scale in zip(cube, errors, scales, strict=True):
            integration -= (scale * sky).astype(np.float32)
            np.hypot(error, sky_err, out=error)
        return scales

    def _trace_distance(self, model, window, pwcpos):
        """Return the distance of pixels from the target's first two orders."""
        with open_pastasoss(self, model) as reference:
            return trace_distance(window, pwcpos, reference)

    def _save_extras(self, model, subtraction):
        """Save sky, residual and mask if requested."""
        sky, extras = subtraction.sky, {}
        if self.save_background:
            extras["skyflatbackground"] = {"data": sky, "err": subtraction.sky_err}
        if self.save_residual:
            err = np.where(subtraction.err > 0, subtraction.err, np.nan)
            extras["skyflatresidual"] = {"data": (subtraction.image - sky) / err}
        if self.save_mask:
            extras["skyflatused"] = {"mask": subtraction.used}
        for suffix, planes in extras.items():
            extra = datamodels.ImageModel(**planes)
            extra.update(model, extra_fits=True)
            extra.meta.skyflat_subtract = model.meta.skyflat_subtract
            self.save_model(extra, suffix=suffix, force=True)

    def _find_sources(self, model, background):
        """Return the skies of the user or of the pipeline, or a BKG reference file."""
        sources = self._named_sources()
        if background and not sources:
            raise SkyflatError(
                f"{model.meta.filename}: this step does not combine background exposures. Run "
                "SkyflatSpec2Pipeline or SossStarePipeline, which do, or run SkyflatPipeline on "
                f"them and give its skyflat ({self._place()}skyflat=FILE)"
            )
        if background and self.parent is None:
            log.warning("%s: %s", model.meta.filename, IGNORED)
        return sources or [self._bkg_path(model)]

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
        log.info("No flat: templates are shifted together with the flat of the detector")
        return None

    def _describe_conflict(self, conflict):
        """Return the fault of a flat-fielded file and another that is not."""
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
        """Save the exposure, unless its sky is not subtracted."""
        if model.meta.cal_step.bkg_subtract == "SKIPPED":
            log.warning("%s: nothing is saved, its sky is not subtracted", model.meta.filename)
            return None
        return super().save_model(model, *args, **kwargs)

    def _option(self, kind):
        """Return the option that gives a reference file, alone or in a pipeline."""
        # The flat of the flat-field step serves this step too.
        flat_field = getattr(self.parent, "flat_field", None)
        serves = kind == "flat" and flat_field and not flat_field.skip
        return f"{self._place('flat_field' if serves else None)}override_{kind}=FILE"

    def _place(self, name=None):
        """Return what precedes an option of this step or of another on the command line."""
        return "--" if self.parent is None else f"--steps.{name or self.name}."

    def _ask_crds(self, model, kind):
        """Get a reference file, or raise an error with the reason in one line."""
        try:
            return self.get_reference_file(model, kind)
        except (SystemExit, CrdsError) as err:
            raise SkyflatError(
                f"No {kind} reference file: CRDS gives none ({err}), give {self._option(kind)}"
            ) from err


class _NotSubtractedError(Exception):
    """Raised when there is nothing to subtract."""


def sort_members(association, name):
    """Return the members of an association by exptype; raise unless one of them is science."""
    if len(association["products"]) != 1:
        raise SkyflatError(f"{name}: {len(association['products'])} products, run them one by one")
    members = group_members(association["products"][0])
    if len(members["science"]) != 1:
        raise SkyflatError(f"{name}: {len(members['science'])} science members, not one")
    return members


def group_members(product):
    """Return the members of a product by exptype, an empty list for one that it lacks."""
    members = defaultdict(list)
    for member in product["members"]:
        members[member["exptype"].lower()].append(member["expname"])
    return members


def _find_conflict(states):
    """Return a name that is flat-fielded and one that is not, None unless there are both."""
    names = {fielded: name for name, fielded in reversed(states)}
    return (names[True], names[False]) if len(names) == 2 else None


def _report(model, fit, fraction, source, settings):
    """Record the fit in the log, the header, and the tree of the data model."""
    names = [name for name, _ in source.states]
    cards = [
        ["SKYLEFT", fit.level_left, "[DN/s] scale of the prior, left of the edge"],
        ["SKYLERR", fit.level_left_err, "[DN/s] its uncertainty"],
        ["SKYRIGHT", fit.level_right, "[DN/s] scale of the prior, right of the edge"],
        ["SKYRERR", fit.level_right_err, "[DN/s] its uncertainty"],
        ["SKYSHIFT", fit.shift, "[pixel] shift of the edge from the prior"],
        ["SKYCHI2", fit.chi2, "reduced chi-square of the fit"],
        ["SKYFRAC", fraction, "fraction of the pixels used"],
        ["SKYNTEMP", source.number, "number of templates, or skyflats of the model"],
    ]
    cards = [[key, round(value, 6), comment] for key, value, comment in cards]
    _add_cards(model, cards)
    model.meta.skyflat_subtract = {key.lower(): value for key, value, _ in cards} | {
        "scale_mode": settings["scale_mode"],
        "templates": names,
        "scales": [round(float(scale), 6) for scale in settings["scales"]],
    }
    text = ", ".join(f"{key} = {value:.5g}" for key, value, _ in cards)
    text += f", scale_mode = {settings['scale_mode']}"
    log.info("%s: %s", model.meta.filename, text)
    log.info("Templates: %s", ", ".join(names))
    model.add_history_entry(f"soss_background subtracted the sky: {text}")


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
