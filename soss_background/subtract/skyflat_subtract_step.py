"""The step that takes the sky out of a science exposure."""

import logging
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

import numpy as np
from crds.core.exceptions import CrdsError
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background.errors import SkyflatError
from soss_background.io.exposures import find_pwcpos, find_window, read_header
from soss_background.io.library import as_image
from soss_background.io.skyflats import find_files
from soss_background.io.templates import from_skyflat, read_flat, read_templates
from soss_background.numerics.integrations import usable_pixels
from soss_background.pipeline.skyflat import SkyflatPipeline
from soss_background.sky.templates import align_templates
from soss_background.sky.traces import trace_distance
from soss_background.steps.base import SkyflatStep
from soss_background.steps.crds_access import crds_reachable
from soss_background.subtract.scales import measure_scales
from soss_background.subtract.sky_fit import NoSkyError, fit_sky

__all__ = ["SkyflatSubtractStep"]

log = logging.getLogger(__name__)


class SkyflatSubtractStep(SkyflatStep):
    """Subtract the dispersed sky from a SOSS exposure."""

    class_alias = "skyflat_subtract"

    spec = """
    skyflat = force_list(default=None)  # Skyflats or BKG reference files, wildcards allowed [default: background exposures of the association, else CRDS's BKG reference]
    scale_mode = option('exposure', 'integration', 'smooth', default='exposure')  # Level of the sky: one for the exposure, one for each integration, or a parabola in time
    n_sigma = float(default=4.0, min=0.0)  # Significance above which light of stars is masked [sigma]
    subtract_wings = boolean(default=False)  # Subtract the wings of stars too; the target loses about a tenth of its light
    save_background = boolean(default=False)  # Save the sky that was subtracted
    save_residual = boolean(default=False)  # Save what is left of the mean of the integrations, over its error
    save_mask = boolean(default=False)  # Save the pixels that the fit was made of
    suffix = string(default='skyflatsubtract')  # Default suffix for output files
    """  # noqa: E501

    reference_file_types: ClassVar = ["bkg", "flat"]

    # They are looked for when they are needed.
    prefetch_references = False

    # Exposures of blank sky that a pipeline has in its association.
    background = None

    # After a run, what was subtracted, DN/s; times the flat, if the exposure is not divided by it.
    sky = None

    def process(self, step_input, background=None, *more):
        """
        Subtract the sky.

        Parameters
        ----------
        step_input : str, `~pathlib.Path`, data model or level-2 association
            The exposure, ``_rate`` or ``_rateints``; a model is left unchanged unless the step is
            part of a pipeline.
        background : list of str or data models, optional
            Exposures of blank sky, of which a template is made if none is given; by default the
            background members of the association.
        *more : object
            Not allowed.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.CubeModel` or `~stdatamodels.jwst.datamodels.ImageModel`
            The exposure without its sky. If there is nothing to subtract, the exposure as it was,
            with a status of SKIPPED.

        Raises
        ------
        SkyflatError
            If several exposures are given, a file cannot be read, or no template can be had.
        """
        self.sky = None
        members = _sort_members(self.load_as_level2_asn(step_input), step_input)
        (science,) = members["science"]
        if more or isinstance(background, str | Path):
            raise SkyflatError("Several exposures are given: run them one by one")
        background = background or self.background or members["background"]
        files = [item for item in (science, *background) if isinstance(item, str | Path)]
        self._input_paths = {Path(file).resolve() for file in files}
        for file in files:
            read_header(Path(file))
        model = self.prepare_output(science)
        if model.meta.cal_step.bkg_subtract == "COMPLETE":
            log.warning("%s: its sky has been subtracted already", model.meta.filename)
            return model
        try:
            self._subtract(model, background)
        except _NotSubtractedError as reason:
            log.warning("%s: sky not subtracted, %s", model.meta.filename, reason)
            model.meta.cal_step.bkg_subtract = "SKIPPED"
        return model

    def _subtract(self, model, background):
        """Fit the sky of an exposure and subtract it in place."""
        try:
            image, window = as_image(model), find_window(model)
        except SkyflatError as err:
            fault = str(err).removeprefix(f"{model.meta.filename}: ")
            raise _NotSubtractedError(fault) from err
        templates = self._find_templates(model, window, background)
        flat = self._find_flat(model, window, templates)
        # What is not flat-fielded is, as long as the fit lasts.
        fielded = model.meta.cal_step.flat_field == "COMPLETE"
        divisor = 1 if flat is None or fielded else flat
        reference = window.reference_pixels()
        usable = usable_pixels(image.data, image.err, image.dq) & ~reference
        try:
            fit = fit_sky(
                image.data / divisor,
                image.err / divisor,
                usable,
                _align(templates, flat, window),
                trace_distance(window, find_pwcpos(model)),
                self.n_sigma,
            )
        except NoSkyError as err:
            raise _NotSubtractedError(str(err)) from err
        planes = (fit.sky, fit.err, fit.wings * self.subtract_wings)
        sky, sky_err, wings = (np.where(reference, 0, plane * divisor) for plane in planes)
        cube, errors = (plane.reshape(-1, *window.shape) for plane in (model.data, model.err))
        scales = measure_scales(cube, sky, fit.used, self.scale_mode)
        for integration, error, scale in zip(cube, errors, scales, strict=True):
            integration -= (scale * sky + wings).astype(np.float32)
            np.hypot(error, sky_err, out=error)
        model.dq |= _common_flags(templates)
        model.meta.cal_step.bkg_subtract = "COMPLETE"
        settings = {
            "scale_mode": self.scale_mode,
            "subtract_wings": self.subtract_wings,
            "fraction_used": np.count_nonzero(fit.used) / np.count_nonzero(usable),
        }
        _report(model, fit, scales, templates, settings)
        self.sky = sky + wings
        if self.save_background:
            subtracted = datamodels.ImageModel(data=self.sky, err=sky_err)
            self._save_extra(subtracted, model, "skyflatbackground")
        if self.save_residual:
            residual = (image.data - self.sky) / image.err
            self._save_extra(datamodels.ImageModel(data=residual), model, "skyflatresidual")
        if self.save_mask:
            self._save_extra(datamodels.ImageModel(mask=fit.used), model, "skyflatused")

    def _save_extra(self, extra, model, suffix):
        """Save what else there is to see of an exposure."""
        extra.update(model)
        self.save_model(extra, suffix=suffix, force=True)

    def _find_templates(self, model, window, background):
        """Read the templates that the user gives, or make one, or ask CRDS."""
        if self.skyflat:
            paths = find_files(self.skyflat)
        elif background:
            return [self._make_template(model, window, background)]
        else:
            paths = [self._bkg_path(model)]
        return [template for path in paths for template in read_templates(path, window)]

    def _make_template(self, model, window, background):
        """Make a skyflat of exposures of blank sky."""
        pipeline = SkyflatPipeline()
        pipeline.output_dir = self.search_attr("output_dir")
        pipeline.flat_field.override_flat = self._flat_path(model)
        pipeline.flat_field.skip = pipeline.flat_field.override_flat is None
        skyflat = pipeline.run(list(background))
        return from_skyflat(skyflat, window, skyflat.meta.filename)

    def _find_flat(self, model, window, templates):
        """Read the flat, unless all is flat-fielded; what is in one state can do without."""
        states = [(model.meta.filename, model.meta.cal_step.flat_field == "COMPLETE")]
        states += [(each.name, each.flat_fielded) for each in templates]
        first, second = (
            next((name for name, fielded in states if fielded is wanted), None)
            for wanted in (True, False)
        )
        if second is None:
            return None
        try:
            path = self._flat_path(model)
            if path is not None:
                return read_flat(path, window)
        except SkyflatError:
            if first is not None:
                raise
        if first is not None:
            raise _NotSubtractedError(
                f"{first} is flat-fielded and {second} is not: give {self._option('flat')}"
            )
        log.info("No flat: templates are shifted with that of the detector in them")
        return None

    def _flat_path(self, model):
        """Find the flat that the user gives to this step or to that of the pipeline, or CRDS's."""
        flat_field = getattr(self.parent, "flat_field", None)
        path = self.get_ref_override("flat") or (
            flat_field and (flat_field.get_ref_override("flat") or flat_field.user_supplied_flat)
        )
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

    def _option(self, kind):
        """Name the option by which a reference file is given, alone or in a pipeline."""
        # That of the step that divides by it serves this one too.
        name = "flat_field" if kind == "flat" else self.name
        place = "" if self.parent is None else f"steps.{name}."
        return f"--{place}override_{kind}=FILE"

    def _ask_crds(self, model, kind):
        """Get a reference file, or end with one line that tells why there is none."""
        try:
            return self.get_reference_file(model, kind)
        except (SystemExit, CrdsError) as err:
            raise SkyflatError(
                f"No {kind} reference file: CRDS gives none ({err}), give {self._option(kind)}"
            ) from err


class _NotSubtractedError(Exception):
    """There is nothing to subtract."""


def _sort_members(association, name):
    """Sort the members of the product of an association by their kind."""
    if len(association["products"]) != 1:
        raise SkyflatError(f"{name}: {len(association['products'])} products, run them one by one")
    members = defaultdict(list)
    for member in association["products"][0]["members"]:
        members[member["exptype"].lower()].append(member["expname"])
    if len(members["science"]) != 1:
        raise SkyflatError(f"{name}: {len(members['science'])} science members, not one")
    return members


def _align(templates, flat, window):
    """Align flat-fielded templates, or those that are in one state with the exposure."""
    divisors = [1 if flat is None or each.flat_fielded else flat for each in templates]
    pairs = list(zip(templates, divisors, strict=True))
    skies = [each.sky / divisor for each, divisor in pairs]
    noises = [each.noise / divisor for each, divisor in pairs]
    try:
        return align_templates(skies, noises, window.x0)
    except ValueError as err:
        raise SkyflatError(f"{', '.join(each.name for each in templates)}: {err}") from err


def _common_flags(templates):
    """Combine flags: those of all templates, but no gaps, for these are filled."""
    flags = np.bitwise_and.reduce([each.dq for each in templates])
    return flags & ~np.uint32(dqflags.pixel["DO_NOT_USE"])


def _report(model, fit, scales, templates, settings):
    """Tell what was fitted in the log, the header, and the tree of the data model."""
    names = [each.name for each in templates]
    cards = [
        ["SKYLEFT", fit.level_left, "[DN/s] level left of the step, times template"],
        ["SKYLERR", fit.level_left_err, "[DN/s] its uncertainty"],
        ["SKYRIGHT", fit.level_right, "[DN/s] level right of the step, times template"],
        ["SKYRERR", fit.level_right_err, "[DN/s] its uncertainty"],
        ["SKYSHIFT", fit.shift, "[pixel] shift of the step from the templates"],
        ["SKYCHI2", fit.chi2, "reduced chi-square of the fit"],
        ["SKYFRAC", settings["fraction_used"], "fraction of the pixels used"],
        ["SKYNTEMP", len(templates), "number of templates"],
    ]
    cards = [[key, round(value, 6), comment] for key, value, comment in cards]
    _add_cards(model, cards)
    model.meta.skyflat_subtract = {key.lower(): value for key, value, _ in cards} | {
        "scale_mode": settings["scale_mode"],
        "subtract_wings": settings["subtract_wings"],
        "templates": names,
        "scales": [round(float(scale), 6) for scale in scales],
    }
    text = ", ".join(f"{key} = {value:.5g}" for key, value, _ in cards)
    text += f", scale_mode = {settings['scale_mode']}"
    text += ", wings too" if settings["subtract_wings"] else ""
    log.info("%s: %s", model.meta.filename, text)
    log.info("Templates: %s", ", ".join(names))
    model.add_history_entry(f"soss_background subtracted the sky: {text}")


def _add_cards(model, cards):
    """Add cards to the primary header, beside others that the schema does not know."""
    if "extra_fits.PRIMARY.header" in model:
        names = {card[0] for card in cards}
        known = [list(card) for card in model.extra_fits.PRIMARY.header if card[0] not in names]
        model.extra_fits.PRIMARY.header = known + cards
    elif "extra_fits" in model:
        model.extra_fits.PRIMARY = {"header": cards}
    else:
        model.extra_fits = {"PRIMARY": {"header": cards}}
