"""A saved sky: subtracted from count rates and ramps, added back, and exported."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from astropy.io import fits
from helpers import checksums, cut_series, edit_file, strun
from jwst.clean_flicker_noise import CleanFlickerNoiseStep
from numpy.testing import assert_allclose, assert_array_equal
from stdatamodels.jwst import datamodels

from soss_background import OptimalExtractStep, SavedSkyStep, SkyflatSubtractStep, TraceFitStep
from soss_background.cli import main
from soss_background.detector import SUBSTRIP96
from soss_background.errors import SkyflatError
from soss_background.io.saved_skies import open_saved_sky
from soss_background.io.templates import read_templates
from soss_background.simulate import Simulation, simulate_time_series
from soss_background.sky.traces import expected_trace
from soss_background.subtract.saved_sky import group_times

# The read noise is low, as in longer ramps.
SETTINGS = Simulation(
    seed=6,
    window=SUBSTRIP96,
    n_integrations=8,
    exposure_time=8 * 13.3,
    star_density=0,
    stripes=0.2,
    read_noise=0.01,
)


class Series(NamedTuple):
    """A time series: rates, ramps, flat, the saved sky, and rates without the sky."""

    rates: object
    ramps: object
    flat: object
    sky: object
    subtracted: object
    truth: object


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Simulate a transit and subtract its sky."""
    folder = tmp_path_factory.mktemp("series")
    rates = simulate_time_series(folder, SETTINGS, target_flux=220.0, ramps=True)
    flat, truth = folder / "time_series_flat.fits", folder / "time_series_truth.fits"
    template = folder / "template.npy"
    np.save(template, fits.getdata(truth, "SKY"))
    arguments = (f"--skyflat={template}", f"--override_flat={flat}", f"--output_dir={folder}")
    strun("soss_background.SkyflatSubtractStep", rates, *arguments, "--save_background=true")
    (sky,) = folder.glob("*_skyflatbackground.fits")
    (subtracted,) = folder.glob("*_skyflatsubtract.fits")
    (ramps,) = folder.glob("*_ramp.fits")
    return Series(rates, ramps, flat, sky, subtracted, truth)


def test_group_times():
    """The time of a group is the mean of its frames: one in NISRAPID, four in NIS."""
    times = group_times(3, group_time=5.5, frame_time=5.5, n_frames=1)
    assert_allclose(times, [5.5, 11, 16.5])
    times = group_times(3, group_time=22.0, frame_time=5.5, n_frames=4)
    assert_allclose(times, np.array([2.5, 6.5, 10.5]) * 5.5)


def test_saved_sky(series):
    """The file has the sky, its error, and the keywords of its levels and edge."""
    header = fits.getheader(series.sky)
    subtracted = fits.getheader(series.subtracted)
    for key in ("SKYLEFT", "SKYLERR", "SKYRIGHT", "SKYRERR", "SKYSHIFT", "SKYCHI2"):
        assert header[key] == subtracted[key]
    assert fits.getheader(series.sky, "SCI")["BUNIT"] == "DN/s"
    assert (fits.getdata(series.sky, "ERR")[10:90, 10:-10] > 0).all()


def test_rates(series, tmp_path):
    """The step subtracts the same as SkyflatSubtractStep, and adding back restores the data."""
    before = checksums([series.rates, series.sky])
    strun("soss_background.SavedSkyStep", series.rates, f"--sky={series.sky}")
    (path,) = tmp_path.glob("*_savedsky.fits")
    with datamodels.open(path) as mine, datamodels.open(series.subtracted) as theirs:
        assert_allclose(mine.data, theirs.data, rtol=1e-6, atol=1e-5)
        assert_allclose(mine.err, theirs.err, rtol=1e-6)
        assert_array_equal(mine.dq, theirs.dq)
        assert mine.meta.cal_step.bkg_subtract == "COMPLETE"
    strun(
        "soss_background.SavedSkyStep", path, f"--sky={series.sky}", "--add=true", "--suffix=back"
    )
    (path,) = tmp_path.glob("*_back.fits")
    with datamodels.open(path) as mine, datamodels.open(series.rates) as theirs:
        assert_allclose(mine.data, theirs.data, rtol=1e-5, atol=1e-4)
        assert_allclose(mine.err, theirs.err, rtol=1e-5)
        assert mine.meta.cal_step.bkg_subtract is None
    assert checksums([series.rates, series.sky]) == before


def test_segments(series, tmp_path):
    """They are changed one by one; a segment of another exposure ends the run before any output."""
    paths = cut_series(series.rates, tmp_path / "cut", (5, 3))
    strun("soss_background.SavedSkyStep", *paths, f"--sky={series.sky}", "--output_dir=out")
    found = [fits.getdata(path) for path in sorted(Path("out").iterdir())]
    assert [len(data) for data in found] == [5, 3]
    assert_allclose(np.concatenate(found), fits.getdata(series.subtracted), atol=1e-5)
    edit_file(paths[1], lambda model: model.meta.subarray.instance.update(name="SUBSTRIP256"))
    with pytest.raises(SkyflatError, match="SUBARRAY"):
        strun("soss_background.SavedSkyStep", *paths, f"--sky={series.sky}", "--output_dir=none")
    assert not list(Path("none").iterdir())


def test_ramps(series):
    """The sky times the time of the group is subtracted from each group."""
    with datamodels.open(series.ramps) as model:
        before = model.data.copy()
        result = SavedSkyStep.call(model, sky=str(series.sky))
        assert_array_equal(model.data, before)
        time = model.meta.exposure.group_time
    sky = fits.getdata(series.sky)
    for integration in (0, 7):
        for group in (0, 5):
            expected = (group + 1) * time * sky
            removed = before[integration, group] - result.data[integration, group]
            assert_allclose(removed, expected, atol=2e-3)
    back = SavedSkyStep.call(result, sky=str(series.sky), add=True)
    assert_allclose(back.data, before, atol=4e-3)


def fit_slopes(ramps):
    """Return the count rates of ramps, by least squares."""
    times = np.arange(ramps.data.shape[1]) * ramps.meta.exposure.group_time
    times -= times.mean()
    return np.tensordot(times, ramps.data, axes=(0, 1)) / np.sum(times**2)


class _ScaledMean(CleanFlickerNoiseStep):
    """Subtract columns of the difference from the scaled mean group, as in the literature."""

    def process(self, input_data):
        model = self.prepare_output(input_data)
        mean = model.data.mean(axis=0)
        for integration, light in zip(model.data, self.light, strict=True):
            difference = np.where(self.free, integration - light * mean, np.nan)
            integration -= np.nanmean(difference, axis=1, keepdims=True)
        return model

    def finalize_result(self, *_):
        """Use no reference file of CRDS."""


def test_noise_of_groups(series):
    """Without the sky, the noise of the groups is subtracted without affecting a transit."""
    flat = fits.getdata(series.flat)
    sky, light = fits.getdata(series.sky), fits.getdata(series.truth, "TRANSIT")["brightness"]
    row = expected_trace(1, SUBSTRIP96, SETTINGS.pwcpos).row
    free = ~(np.abs(np.arange(SUBSTRIP96.ny)[:, np.newaxis] - row) < 16)
    hooks = {
        "pre_hooks": [SavedSkyStep(sky=str(series.sky))],
        "post_hooks": [SavedSkyStep(sky=str(series.sky), add=True)],
    }
    traces = TraceFitStep.call(str(series.subtracted))
    scatter = {}
    for name, parameters in {"left on": {}, "off": hooks}.items():
        step = _ScaledMean(**parameters)
        step.skip, step.free, step.light = False, free, light
        cleaned = step.run(str(series.ramps))
        assert cleaned.meta.cal_step.bkg_subtract is None
        with datamodels.open(series.subtracted) as model:
            model.data = ((fit_slopes(cleaned) - sky) / flat).astype(np.float32)
            order = OptimalExtractStep().extract(model, traces).orders[1]
        flux = np.nansum(order.extraction.flux[:, :1000], axis=1) / light
        scatter[name] = np.std(flux) / np.mean(flux)
    assert scatter["off"] < 0.8 * scatter["left on"], scatter


def test_export(series, tmp_path, capsys):
    """This package accepts the exported array as a template, too."""
    output = tmp_path / "sky.npy"
    assert main(["export", str(series.sky), "-o", str(output)]) == 1
    assert "not flat-fielded, give its flat (--flat FILE)" in capsys.readouterr().err
    assert main(["export", str(series.sky), "--flat", str(series.flat), "-o", str(output)]) == 0
    array, truth = np.load(output), fits.getdata(series.truth, "SKY")
    assert array.dtype == float
    assert array.shape == SUBSTRIP96.shape
    assert abs(np.median((array / truth)[8:88, 8:-8]) - 1) < 0.03
    (template,) = read_templates(output, SUBSTRIP96)
    assert template.flat_fielded
    assert main(["export", str(series.rates), "-o", str(output)]) == 1
    assert "not a sky that SkyflatSubtractStep saved" in capsys.readouterr().err


def break_subarray(model):
    model.meta.subarray.name = "SUBSTRIP256"


def break_flat_state(model):
    model.meta.cal_step.flat_field = "COMPLETE"


def break_status(model):
    model.meta.cal_step.bkg_subtract = "COMPLETE"


def break_linearity(model):
    model.meta.cal_step.linearity = None


def break_times(model):
    model.meta.exposure.group_time = None


def break_exposure(model):
    model.meta.observation.exposure_number = "00007"


def break_pixels(model):
    model.pixeldq = None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (break_subarray, "SUBARRAY: SUBSTRIP256, that of .*: SUBSTRIP96"),
        (break_flat_state, "flat-fielded .*: True, that of .*: False"),
        (break_status, "its sky has been subtracted already"),
        (break_linearity, r"its ramps are not linear \(S_LINEAR is not COMPLETE\)"),
        (break_times, "TGROUP is missing"),
        (break_exposure, "exposure_number: 00007, that of .*: 0000"),
        (break_pixels, "PIXELDQ is missing"),
    ],
)
def test_skies_that_do_not_fit(series, edit, message):
    refuse(series.ramps, edit, message, series.sky)


def refuse(path, edit, message, sky):
    """Edit an exposure, and check that the step refuses it."""
    with datamodels.open(path) as model:
        broken = model.copy()
    edit(broken)
    with pytest.raises(SkyflatError, match=message):
        SavedSkyStep.call(broken, sky=str(sky))


def break_unit(model):
    model.meta.bunit_data = "MJy/sr"


def break_errors(model):
    model.err = None


@pytest.mark.parametrize(
    ("edit", "message"),
    [(break_unit, "BUNIT is MJy/sr, not DN/s"), (break_errors, "ERR is missing")],
)
def test_rates_that_do_not_fit(series, edit, message):
    refuse(series.rates, edit, message, series.sky)


def test_flags(series, tmp_path):
    """The flags of the sky are set as by SkyflatSubtractStep; others are unchanged."""
    hot, saturated = (datamodels.dqflags.pixel[key] for key in ("HOT", "SATURATED"))
    flagged = tmp_path / "flagged.fits"
    with datamodels.ImageModel(series.sky) as sky:
        assert not (sky.dq & datamodels.dqflags.pixel["DO_NOT_USE"]).any()
        sky.dq[40, 500] |= hot
        sky.save(flagged)
    for path, plane in ((series.rates, "dq"), (series.ramps, "pixeldq")):
        with datamodels.open(path) as model:
            getattr(model, plane)[..., 40, 500] = saturated
            result = getattr(SavedSkyStep.call(model, sky=str(flagged)), plane)
            assert (result[..., 40, 500] == hot | saturated).all()
            assert (result[..., 41, 500] == getattr(model, plane)[..., 41, 500]).all()
            assert (getattr(model, plane)[..., 40, 500] == saturated).all()


def test_faults_of_the_exposure_are_not_those_of_the_sky(series):
    with pytest.raises(ZeroDivisionError), open_saved_sky(series.sky) as sky:
        assert sky.data.shape == SUBSTRIP96.shape
        raise ZeroDivisionError


def test_a_damaged_sky(series, tmp_path):
    damaged = tmp_path / "damaged.fits"
    with datamodels.ImageModel(series.sky) as sky:
        sky.err = None
        sky.save(damaged)
    with pytest.raises(SkyflatError, match="damaged.fits: ERR is missing"):
        SavedSkyStep.call(str(series.rates), sky=str(damaged))


def test_what_cannot_be_done(series, tmp_path):
    with pytest.raises(SkyflatError, match="its sky is not subtracted, and cannot be added back"):
        SavedSkyStep.call(str(series.rates), sky=str(series.sky), add=True)
    with pytest.raises(SkyflatError, match="sky is missing"):
        SavedSkyStep.call(str(series.rates))
    with pytest.raises(SkyflatError, match="none.fits: no such file"):
        SavedSkyStep.call(str(series.rates), sky="none.fits")
    with pytest.raises(SkyflatError, match="a reference file, not an exposure"):
        SavedSkyStep.call(str(series.flat), sky=str(series.sky))
    assert not list(tmp_path.iterdir())


def test_levels_of_integrations(series):
    """A sky with a level for each integration is refused."""
    settings = {"skyflat": [fits.getdata(series.truth, "SKY")], "scale_mode": "integration"}
    step = SkyflatSubtractStep(save_background=True, **settings)
    step.override_flat = str(series.flat)
    step.run(str(series.rates))
    (sky,) = Path().glob("*_skyflatbackground.fits")
    with pytest.raises(SkyflatError, match="level differs from integration .* scale_mode=exposure"):
        SavedSkyStep.call(str(series.rates), sky=str(sky))
