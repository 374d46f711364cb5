"""calwebb_spec2 from end to end, with sky subtraction."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from astropy.io import fits
from bottleneck import nanmedian
from crds_cache import crds_at, make_cache
from helpers import cut_series, run_program, strun
from jwst.associations.asn_from_list import asn_from_list
from jwst.associations.lib.rules_level2_base import DMSLevel2bBase
from jwst.pipeline import Spec2Pipeline
from numpy.testing import assert_allclose
from spec2_references import make_references
from stdatamodels.jwst import datamodels

from soss_background import (
    OptimalExtractStep,
    SkyflatModel,
    SkyflatPipeline,
    SkyflatSpec2Pipeline,
    SkyflatSubtractStep,
)
from soss_background.associations import make_background_associations
from soss_background.detector import SUBSTRIP256
from soss_background.errors import SkyflatError
from soss_background.pipeline import spec2
from soss_background.pipeline.background import background_skyflats
from soss_background.simulate import Simulation, simulate_time_series, simulate_visit, sky_image

PIPELINE = "soss_background.SkyflatSpec2Pipeline"
BOX = "--steps.extract_1d.soss_atoca=false"
NO_SPECTRUM = "--steps.extract_1d.skip=true"
SETTINGS = Simulation(
    window=SUBSTRIP256, n_integrations=4, exposure_time=400.0, star_density=0, sky_structure=0.5
)


class Series(NamedTuple):
    """A simulated time series: the exposure, its flat, the flux of target and sky."""

    path: Path
    flat_path: Path
    flat: np.ndarray
    sky: np.ndarray
    target: np.ndarray


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Simulate a transit."""
    folder = tmp_path_factory.mktemp("series")
    path = simulate_time_series(folder, SETTINGS, target_flux=220.0)
    with fits.open(folder / "time_series_truth.fits") as truth:
        curve = truth["TRANSIT"].data["brightness"][:, np.newaxis, np.newaxis]
        target = (curve * truth["TARGET"].data).astype(np.float32)
        flat, sky = (truth[name].data.astype(np.float32) for name in ("FLAT", "SKY"))
    return Series(path, folder / "time_series_flat.fits", flat, sky, target)


@pytest.fixture(scope="module")
def skyflat(tmp_path_factory):
    """Write a skyflat whose level differs from that of the exposure."""
    sky = 0.8 * sky_image(SUBSTRIP256, structure=SETTINGS.sky_structure)
    model = SkyflatModel(bkg=sky, bkgdn=sky.copy(), err=0.01 * sky, dq=np.zeros(sky.shape, "u4"))
    model.meta.skyflat.flat_correction = "COMPLETE"
    path = tmp_path_factory.mktemp("skyflat") / "nis_clear_gr700xd_skyflat.fits"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def environment(series, tmp_path_factory):
    """Create a CRDS cache for spec2, with neither BKG nor PHOTOM."""
    folder = tmp_path_factory.mktemp("references")
    return make_cache(folder / "cache", make_references(folder, series.flat_path))


@pytest.fixture
def crds(environment, tmp_path):
    """Use the cache in a test."""
    with crds_at(environment, tmp_path):
        yield environment


class Products(NamedTuple):
    """Results of a run: the calibrated exposure, the spectra, and the log."""

    calints: Path
    x1dints: Path
    log: str = ""


def products(folder, log=""):
    """Find the products of a run."""
    return Products(*(next(folder.glob(f"*_{kind}.fits")) for kind in ("calints", "x1dints")), log)


def spectrum(run):
    """Read the spectra of the first order, one per row."""
    with datamodels.open(run.x1dints) as model:
        assert [spec.spectral_order for spec in model.spec] == [1, 2, 3]
        return np.array(model.spec[0].spec_table["FLUX"], dtype=float)


def data(path):
    """Read the calibrated data."""
    return fits.getdata(path, "SCI")


@pytest.fixture(scope="module")
def subtracted(series, skyflat, environment, tmp_path_factory):
    """Run the pipeline as a user does."""
    folder = tmp_path_factory.mktemp("subtracted")
    option = f"--steps.bkg_subtract.skyflat={skyflat}"
    done = run_program("strun", PIPELINE, series.path, option, BOX, home=folder, **environment)
    assert done.returncode == 0, done.stderr
    return products(folder, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def not_subtracted(series, environment, tmp_path_factory):
    """Run the pipeline without a skyflat and without a BKG reference file in CRDS."""
    folder = tmp_path_factory.mktemp("not_subtracted")
    # The name of this flat does not fit into a FITS header.
    flat = folder / "visité 1" / "flat.fits"
    flat.parent.mkdir()
    flat.symlink_to(series.flat_path)
    with crds_at(environment, folder):
        strun(PIPELINE, series.path, BOX, f"--steps.flat_field.override_flat={flat}")
    return products(folder)


def test_a_name_that_no_header_holds(not_subtracted):
    for path in (not_subtracted.calints, not_subtracted.x1dints):
        assert fits.getval(path, "R_FLAT").endswith("visite 1/flat.fits")


@pytest.fixture(scope="module")
def target_alone(series, environment, tmp_path_factory):
    """Run the pipeline without the step on noiseless data of the target alone."""
    folder = tmp_path_factory.mktemp("target_alone")
    with datamodels.open(series.path) as model:
        model.data = np.where(np.isnan(model.data), np.nan, series.target * series.flat)
        model.save(folder / series.path.name)
    with crds_at(environment, folder):
        strun(PIPELINE, series.path.name, "--steps.bkg_subtract.skip=true", BOX)
    return products(folder)


def test_all_steps(subtracted, skyflat):
    """The pipeline runs up to the spectrum; steps without a reference file are skipped."""
    for path in subtracted[:2]:
        header = fits.getheader(path)
        for step in ("S_WCS", "S_BKDSUB", "S_FLAT"):
            assert header[step] == "COMPLETE"
        assert header["S_PTHLOS"] == "SKIPPED"
        assert header["R_FLAT"] == "crds://jwst_niriss_flat_0001.fits"
    assert (header["S_EXTR1D"], header["S_PHOTOM"]) == ("COMPLETE", "SKIPPED")
    assert fits.getval(subtracted.calints, "SKYNTEMP") == 1
    with datamodels.open(subtracted.calints) as model:
        assert model.meta.skyflat_subtract.instance["templates"] == [skyflat.name]
    done = [subtracted.log.index(f"Step {name} done") for name in ("bkg_subtract", "flat_field")]
    assert done == sorted(done)


def test_no_template(not_subtracted, series):
    """Without a template, the exposure keeps its sky, which is logged."""
    with datamodels.open(not_subtracted.calints) as model:
        assert model.meta.cal_step.bkg_subtract == "SKIPPED"
        reason = "sky not subtracted, CRDS has no BKG reference file"
        assert any(reason in line for line in model.cal_logs.skyflat_spec2)
        residual = np.nanmedian(model.data - series.target - series.sky)
    assert abs(residual) < 0.01 * np.median(series.sky)


def test_flat_of_the_sky(subtracted, series):
    """The sky that is subtracted before flat-fielding is multiplied by the flat."""
    residual = (data(subtracted.calints) - series.target).mean(axis=0)
    dark = np.isfinite(residual) & (series.target[0] < 1) & ~SUBSTRIP256.reference_pixels()
    assert abs(np.median(residual[dark])) < 0.005 * np.median(series.sky)
    # The residual without the flat, without hot pixels and cosmic rays.
    pattern = series.sky * (1 - 1 / series.flat)
    dark &= np.abs(residual) < 1
    assert abs(np.polyfit(pattern[dark], residual[dark], 1)[0]) < 0.1


def test_spectrum(subtracted, not_subtracted, target_alone):
    """The spectrum and the depth of the transit are those of the target alone."""
    truth = spectrum(target_alone)
    good = truth > 0
    errors, depths = [], [depth(truth)]
    for run in (subtracted, not_subtracted):
        found = spectrum(run)
        errors.append(np.abs(found[good] / truth[good] - 1))
        depths.append(depth(found))
    with_step, without = (np.median(error) for error in errors)
    assert with_step < 0.004 < 0.2 < without
    bias = np.abs(depths - depths[0])
    assert bias[1] < 2e-4 < 8e-4 < bias[2]


def depth(spectra):
    """Measure the depth of the transit in the middle of the time series."""
    light = np.nansum(spectra, axis=1)
    return 1 - light[1:3].sum() / light[[0, 3]].sum()


def test_extraction_beside_jwst(subtracted):
    """Our spectra of the calibrated exposure agree with jwst's box, and are less noisy."""
    order = OptimalExtractStep().extract(str(subtracted.calints)).orders[1]
    with datamodels.open(subtracted.x1dints) as model:
        theirs = {
            name: model.spec[0].spec_table[name] for name in ("WAVELENGTH", "FLUX", "FLUX_ERROR")
        }
    rising = np.argsort(order.wavelength)
    each = order.extraction
    inside = (theirs["WAVELENGTH"][0] > 1.0) & (theirs["WAVELENGTH"][0] < 2.4)
    wave = theirs["WAVELENGTH"][0][inside]
    for flux, limit in ((each.flux, 0.01), (each.box_flux, 0.01)):
        ours = np.interp(wave, order.wavelength[rising], nanmedian(flux, axis=0)[rising])
        ratio = ours / nanmedian(theirs["FLUX"], axis=0)[inside]
        assert abs(nanmedian(ratio) - 1) < limit
    noise = nanmedian(each.error / each.flux, axis=0)[rising]
    noise = np.interp(wave, order.wavelength[rising], noise)
    their_noise = nanmedian(theirs["FLUX_ERROR"] / theirs["FLUX"], axis=0)[inside]
    assert nanmedian(noise / their_noise) < 1.01


@pytest.mark.usefixtures("crds")
def test_hook_of_the_plain_pipeline(subtracted, series, skyflat):
    """As a hook between jwst's skipped step and flat_field, our step does the same."""
    hook = SkyflatSubtractStep(skyflat=[str(skyflat)])
    hook.override_flat = str(series.flat_path)
    steps = {"bkg_subtract": {"skip": True}, "flat_field": {"pre_hooks": [hook]}}
    steps["extract_1d"] = {"skip": True}
    (result,) = Spec2Pipeline.call(str(series.path), steps=steps)
    assert result.meta.cal_step.bkg_subtract == "COMPLETE"
    assert result.meta.cal_step.flat_field == "COMPLETE"
    assert_allclose(result.data, data(subtracted.calints), rtol=1e-6, atol=1e-5)


@pytest.mark.usefixtures("crds")
def test_flicker_noise_as_a_hook(subtracted, series, skyflat, tmp_path):
    """The 1/f noise of the integrations, 0.05 DN/s, is subtracted between sky and flat field."""
    hook = "--steps.bkg_subtract.post_hooks=soss_background.FlickerNoiseStep,"
    option = f"--steps.bkg_subtract.skyflat={skyflat}"
    strun(PIPELINE, series.path, option, hook, NO_SPECTRUM)
    (path,) = tmp_path.glob("*_calints.fits")
    assert fits.getheader(path)["S_CLNFNS"] == "COMPLETE"
    noise = (data(subtracted.calints) - data(path)) * series.flat
    assert np.nanstd(noise) == pytest.approx(0.05 * np.sqrt(3 / 4), rel=0.3)
    # The subtracted noise does not depend on the row, apart from a slope.
    assert np.nanmax(np.nanstd(np.diff(noise, n=2, axis=1)[:, :, 10:-10], axis=1)) < 1e-3


@pytest.mark.usefixtures("crds")
def test_before_the_plain_pipeline(subtracted, series, skyflat, tmp_path):
    """Our step alone and then jwst's pipeline without its step do the same."""
    flat = f"--override_flat={series.flat_path}"
    strun("soss_background.SkyflatSubtractStep", series.path, f"--skyflat={skyflat}", flat)
    (path,) = tmp_path.glob("*_skyflatsubtract.fits")
    strun("calwebb_spec2", path, "--steps.bkg_subtract.skip=true", NO_SPECTRUM)
    (path,) = tmp_path.glob("*_calints.fits")
    assert_allclose(data(path), data(subtracted.calints), rtol=1e-6, atol=1e-5)
    assert fits.getval(path, "SKYNTEMP") == 1


@pytest.mark.usefixtures("crds")
def test_parameter_file(subtracted, series, skyflat, tmp_path):
    """A parameter file with the skyflat does the same."""
    steps = {"bkg_subtract": {"skyflat": [str(skyflat)]}, "extract_1d": {"skip": True}}
    SkyflatSpec2Pipeline(steps=steps).export_config(tmp_path / "pars.asdf")
    strun("pars.asdf", series.path)
    (path,) = tmp_path.glob("*_calints.fits")
    assert_allclose(data(path), data(subtracted.calints), rtol=1e-6, atol=1e-5)


@pytest.fixture(scope="module")
def background(tmp_path_factory):
    """Simulate exposures of blank sky, fainter than that of the target."""
    visit = simulate_visit(
        tmp_path_factory.mktemp("background"),
        replace(SETTINGS, observation="002", n_exposures=3, n_integrations=1, sky_level=0.8),
    )
    return sorted(visit.parent.glob("*_rateints.fits"))


def edited(series, folder, **values):
    """Write the exposure with other metadata; return its path."""
    path = folder / series.path.name
    with datamodels.open(series.path) as model:
        for name, value in values.items():
            model[f"meta.{name.replace('__', '.')}"] = value
        model.save(path)
    return path


@pytest.mark.usefixtures("crds")
@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({}, ["--steps.bkg_subtract.override_flat=N/A"], "is flat-fielded and .* is not: give"),
        ({"cal_step__bkg_subtract": "COMPLETE"}, [], "its sky has been subtracted already"),
        ({"instrument__filter": "F380M"}, [], "FILTER is F380M, not CLEAR or F277W"),
        ({}, ["--steps.bkg_subtract.skip=true"], "bkg_subtract.skyflat is given, but"),
    ],
)
def test_a_skyflat_that_cannot_be_applied(series, skyflat, tmp_path, values, options, message):
    """The run ends before any work, and writes nothing."""
    path = edited(series, tmp_path, **values)
    options += [f"--steps.bkg_subtract.skyflat={skyflat}", "--steps.assign_wcs.save_results=true"]
    with pytest.raises(SkyflatError, match=message):
        strun(PIPELINE, path, *options)
    assert [found.name for found in tmp_path.glob("*.*")] == [path.name]


@pytest.mark.usefixtures("crds")
def test_a_fault_in_one_line(series, monkeypatch, capsys):
    """A fault ends in one line, although jwst would print a traceback."""

    def fail(*_):
        raise SkyflatError("too few pixels show a sky")

    monkeypatch.setattr(spec2, "background_skyflats", fail)
    with pytest.raises(SkyflatError, match="^too few pixels show a sky$"):
        SkyflatSpec2Pipeline.call(series.path)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("crds")
def test_an_error_of_a_jwst_step_in_one_line(series, skyflat, capsys):
    """jwst would raise its traceback as a message."""
    pipeline = SkyflatSpec2Pipeline(steps={"bkg_subtract": {"skyflat": str(skyflat)}})
    with (
        mock.patch.object(pipeline.flat_field, "process", side_effect=ValueError("two\nshapes")),
        pytest.raises(SkyflatError, match=f"^{series.path.name}: ValueError: two shapes$"),
    ):
        pipeline.run(series.path)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("crds")
def test_a_fault_of_an_exposure_is_found_once(series, tmp_path, monkeypatch, caplog):
    """A fault of an exposure is not reported for each of its segments."""
    faults = []

    def fail(*_):
        faults.append("sources cover all pixels")
        raise SkyflatError(faults[-1])

    monkeypatch.setattr(spec2.SkyflatSubtractStep, "fit", fail)
    paths = cut_series(series.path, tmp_path / "cut", (2, 2))
    with pytest.raises(SkyflatError, match="sources cover all pixels"):
        SkyflatSpec2Pipeline.call(paths)
    assert len(faults) == caplog.text.count("ERROR    soss_background.pipeline.spec2") == 1


def test_lists_and_associations_are_unchanged(series, tmp_path):
    """Lists of any kind are accepted, and a given association keeps its products."""
    paths = cut_series(series.path, tmp_path, (2, 2))
    pipeline = SkyflatSpec2Pipeline()
    for form in (list, tuple):
        names = [
            _science(each) for each in pipeline._associate([form(map(str, paths))])["products"]
        ]
        assert names == [str(path) for path in paths]
    names = [(str(path), "science") for path in paths]
    given = asn_from_list(names, rule=DMSLevel2bBase, with_exptype=True)
    members = [member for product in given["products"] for member in product["members"]]
    given["products"] = [{"name": "a", "members": members}]
    assert len(pipeline._associate([given])["products"]) == 2
    assert given["products"] == [{"name": "a", "members": members}]


def _science(product):
    """Return the science member of a product."""
    (member,) = product["members"]
    return member["expname"]


def test_other_modes_in_a_mixture(series, skyflat, tmp_path, caplog):
    """Exposures of other modes are calibrated without the step; those of SOSS are checked."""
    other = edited(series, tmp_path, instrument__filter="F380M")
    pipeline = SkyflatSpec2Pipeline()
    step = pipeline.bkg_subtract
    step.skyflat, step.override_flat = skyflat, str(series.flat_path)
    (mine,), (others,) = (pipeline.open_segments(path) for path in (series.path, other))
    pipeline._check([mine, others])
    with pytest.raises(SkyflatError, match="FILTER is F380M"):
        pipeline._check([others])
    with background_skyflats(step, others, {}):
        assert step.skip
    assert not step.skip
    assert f"{other.name}: sky not subtracted, FILTER is F380M, not CLEAR" in caplog.text


@pytest.mark.usefixtures("crds")
@pytest.mark.parametrize("form", ["files", "association"])
def test_segments(form, series, skyflat, subtracted, tmp_path):
    """Segments get the sky of the whole exposure, and keep their names."""
    paths = cut_series(series.path, tmp_path / "cut", (1, 3))
    given = paths[::-1]
    if form == "association":
        members = [{"expname": path.name, "exptype": "science"} for path in given]
        content = {"asn_type": "spec2", "asn_id": "a", "asn_pool": "none"}
        content["products"] = [{"name": "a_series", "members": members}]
        given = [tmp_path / "cut" / "a_asn.json"]
        given[0].write_text(json.dumps(content))
    strun(PIPELINE, *given, f"--steps.bkg_subtract.skyflat={skyflat}", NO_SPECTRUM)
    found = [tmp_path / path.name.replace("rateints", "calints") for path in paths]
    assert sorted(tmp_path.glob("*.fits")) == found
    for keyword in ("SKYLEFT", "SKYSEGS"):
        assert len({fits.getval(path, keyword) for path in found}) == 1
    assert_allclose(
        np.concatenate([data(path) for path in found]), data(subtracted.calints), atol=1e-4
    )


# jwst warns of associations whose members are elsewhere.
@pytest.mark.filterwarnings("ignore:Input association file contains path:UserWarning")
@pytest.mark.usefixtures("crds")
def test_background_members(series, background, tmp_path):
    """The sky is created from the background members of an association in any folder."""
    (row,) = make_background_associations([series.path], background, background[0].parent)
    assert row["n"] == 3
    strun(PIPELINE, row["association"], NO_SPECTRUM)
    (path,) = tmp_path.glob("*_calints.fits")
    with datamodels.open(path) as model:
        assert model.meta.cal_step.bkg_subtract == "COMPLETE"
        (template,) = model.meta.skyflat_subtract.instance["templates"]
        assert template.startswith("nis_clear_gr700xd_LON")
        residual = np.nanmedian(model.data[:, :-4, 4:-4] - series.target[:, :-4, 4:-4])
    assert abs(residual) < 0.01 * np.median(series.sky)


@pytest.mark.filterwarnings("ignore:Input association file contains path:UserWarning")
@pytest.mark.usefixtures("crds")
def test_the_skyflat_of_background_members_is_saved_and_used_again(
    series, background, tmp_path, caplog
):
    """The skyflat is created once for all segments, with a report, and the next run finds it."""
    paths = cut_series(series.path, tmp_path / "cut", (2, 2))
    (row,) = make_background_associations(paths, background, tmp_path / "asn")
    assert (row["segments"], row["n"]) == (2, 3)
    option, process = "--steps.bkg_subtract.save_combined_background=true", SkyflatPipeline.process
    with mock.patch.object(SkyflatPipeline, "process", autospec=True) as make:
        make.side_effect = process
        for _ in range(2):
            strun(PIPELINE, row["association"], NO_SPECTRUM, option)
    assert make.call_count == 1
    (skyflat,) = tmp_path.glob("nis_clear_gr700xd_*_skyflat.fits")
    assert skyflat.with_suffix(".html").is_file()
    assert "skyflat.fits: its exposures, parameters and version are the same" in caplog.text
    for path in tmp_path.glob("*_calints.fits"):
        with datamodels.open(path) as model:
            assert model.meta.skyflat_subtract.instance["templates"] == [skyflat.name]
    with pytest.raises(SkyflatError, match="save_combined_background is set, but no background"):
        SkyflatSpec2Pipeline.call(
            str(series.path), steps={"bkg_subtract": {"save_combined_background": True}}
        )


@pytest.mark.usefixtures("crds")
def test_bkg_reference_file(series, skyflat, subtracted, tmp_path):
    """A BKG reference file, which is not flat-fielded, gives the same result as the skyflat."""
    with SkyflatModel(skyflat) as model:
        sky = np.where(series.flat > 0, model.bkgdn * series.flat, 0).astype(np.float32)[np.newaxis]
    reference = datamodels.SossBkgModel(data=sky, err=0.01 * sky, dq=np.zeros(sky.shape, "u4"))
    reference.save(tmp_path / "bkg.fits")
    strun(PIPELINE, series.path, "--steps.bkg_subtract.override_bkg=bkg.fits", NO_SPECTRUM)
    (path,) = tmp_path.glob("*_calints.fits")
    assert fits.getval(path, "S_BKDSUB") == "COMPLETE"
    difference = data(path) - data(subtracted.calints)
    assert abs(np.nanmedian(difference)) < 0.002 * np.median(series.sky)


def test_steps_of_the_package_save_as_they_do_alone():
    """Only the saving of jwst's own steps is changed."""
    pipeline = SkyflatSpec2Pipeline()
    assert "SkyflatSubtractStep" in pipeline.bkg_subtract.save_model.__func__.__qualname__
    assert "SkyflatMixin" in pipeline.extract_1d.save_model.__func__.__qualname__


def test_a_flat_of_jwsts_step_that_is_missing(series):
    with pytest.raises(SkyflatError, match="missing.fits: no such file"):
        SkyflatSpec2Pipeline.call(
            str(series.path), steps={"flat_field": {"override_flat": "missing.fits"}}
        )
