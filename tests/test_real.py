"""Real frames of the instrument, if their folder exists."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import as_sky, strun
from numpy.testing import assert_allclose
from stdatamodels.jwst import datamodels

from soss_background import OptimalExtractStep, SkyflatPipeline, TraceFitStep
from soss_background.denoise.smooth_sky import denoise_sky
from soss_background.detector import SUBSTRIP96, SUBSTRIP256, Window
from soss_background.simulate import Simulation, simulate_visit, write_exposure
from soss_background.simulate.comparison import compare_with_truth, sky_errors
from soss_background.sky.edge_model import trace_edge
from soss_background.sky.sky_prior import build_prior
from soss_background.sky.traces import trace_distance
from soss_background.subtract.sky_fit import fit_sky

REAL = Path(__file__).parents[2] / "shared" / "real"
STEP = "soss_background.SkyflatMaskStep"

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the real arrays are not here")

# Boxes (first row, last row, first column, last column) of stars and sky, found by eye.
FRAMES = {
    "jw01512001001_03102_00001_nis_substrip256_pwcpos245.778671.npy": {
        "star": {
            "order 1": (70, 90, 10, 200),
            "order 1, bright": (30, 70, 1100, 1900),
            "order 2": (140, 155, 10, 400),
            "order 2, upper": (150, 175, 500, 700),
            "order 3": (100, 108, 10, 80),
            "order 3, far": (213, 228, 10, 80),
            "order 0 of a field star": (148, 172, 1935, 1950),
        },
        "sky": {
            "above order 2": (200, 250, 250, 600),
            "below order 1": (5, 40, 20, 250),
            "right of the step": (190, 250, 900, 1000),
            "far right": (200, 250, 1880, 2040),
        },
    },
    "wasp96b_f277w_substrip256.npy": {
        "star": {
            "order 1": (60, 90, 10, 400),
            "order 0": (195, 220, 996, 1010),
            "order 0, second": (95, 115, 1158, 1172),
            "order 0, third": (140, 165, 1454, 1462),
            "order 0, fourth": (25, 45, 1892, 1905),
            "order 0, fifth": (200, 220, 1826, 1838),
            "faint star": (195, 215, 1325, 1331),
            "fainter star": (62, 75, 1853, 1858),
        },
        "sky": {
            "above order 1": (180, 250, 20, 400),
            "middle": (150, 230, 450, 700),
            "above the stars": (160, 190, 1100, 1240),
            "right": (100, 150, 1600, 1800),
        },
    },
}


@pytest.fixture
def wrapped(request, tmp_path):
    """Write a real frame as an exposure; return its path, its name, and a cache for its masks."""
    frame = np.load(REAL / request.param)
    err = np.sqrt(0.1**2 + np.clip(frame, 0, None) / 1.6 / 100).astype("f4")
    path = tmp_path / "jw01512001001_03102_00001_nis_rate.fits"
    return write_exposure(path, frame, err, simulation=Simulation(window=SUBSTRIP256))


@pytest.mark.parametrize("wrapped", FRAMES, indirect=True)
def test_stars_are_masked_and_the_sky_is_not(wrapped, request):
    strun(STEP, wrapped)
    with datamodels.open(str(wrapped).replace("_rate", "_skyflatmask")) as image:
        masked = image.mask == 0
    boxes = FRAMES[request.node.callspec.params["wrapped"]]
    for kind, low, high in (("star", 0.9, 1), ("sky", 0, 0.12)):
        for name, (y0, y1, x0, x1) in boxes[kind].items():
            fraction = masked[y0:y1, x0:x1].mean()
            assert low <= fraction <= high, f"{kind}: {name}: {fraction:.2f} masked"


def test_sky_of_the_real_template(tmp_path):
    """The sky of simulated exposures has the column profile of the real template."""
    template = np.load(REAL / "gr700xd_background_substrip96.npy")
    profile = np.median(template[4:-4], axis=0)
    settings = Simulation(window=Window("FULL", 1856, 560, 192, 384), sky_profile=profile)
    visit = simulate_visit(tmp_path / "visit", replace(settings, n_exposures=8))
    SkyflatPipeline.call(
        visit,
        output_file="real.fits",
        steps={"flat_field": {"override_flat": str(tmp_path / "visit" / "flat.fits")}},
    )
    comparison = compare_with_truth("real_skyflat.fits", tmp_path / "visit" / "truth.fits")
    _, metrics = sky_errors(comparison.bkgdn, comparison.truth, comparison.science)
    assert metrics["scatter"] < 0.4
    assert metrics["rms"] < 0.6
    assert metrics["edge"] < 0.8
    shape = np.median(comparison.bkgdn[4:-4], axis=0)
    assert_allclose(shape[300] / shape[100], profile[860] / profile[660], rtol=0.02)


@pytest.mark.parametrize("stripe_rms", [0.0, 0.003, 0.006])
def test_the_real_edge_among_stripes(stripe_rms):
    """The edge of the commissioning template is followed and stays sharp."""
    template = np.load(REAL / "gr700xd_background_substrip96.npy")[4:-4, 4:-4].astype("f4")
    columns = np.arange(template.shape[1])
    bias, scatter = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 0.01, template.shape)
        stripes = stripe_rms * rng.standard_normal(len(columns))
        image = (template * (1 + noise + stripes)).astype("f4")
        edge = trace_edge(image, np.ones_like(image))
        # Half of the rise is at column 698; the tilt is 0.03 columns per row.
        assert_allclose(edge.column.mean(), 694, atol=5)
        assert_allclose(np.ptp(edge.column), 0.03 * len(template), atol=1.5)
        error = denoise_sky(image, 0.01 * template, template > 0) / template - 1
        bias.append(error.mean(axis=0))
        scatter.append(np.std(error.mean(axis=0)[np.abs(columns - 694) > 60]))
    near = np.abs(columns - 698) < 40
    # The template has a noise of 0.15 % per column.
    assert np.sqrt(np.mean(np.mean(bias, axis=0)[near] ** 2)) < 0.002 + 0.25 * stripe_rms
    assert np.mean(scatter) < 0.0008 + 0.26 * stripe_rms


@pytest.fixture(scope="module")
def real_star():
    """Return a function that fits rows of a real frame, plus a multiple of its template."""
    frame = np.load(REAL / "jw01512001001_03102_00001_nis_substrip256_pwcpos245.778671.npy")
    strip = np.load(REAL / "gr700xd_background_substrip96.npy")
    profile = np.median(strip[4:-4], axis=0)
    profile[:4], profile[-4:] = profile[4], profile[-5]
    template = np.tile(profile, (256, 1))
    template[10:106] = np.where(strip > 0, strip, profile)
    usable = np.isfinite(frame) & (frame != 0)
    noise = 1.4826 * np.median(np.abs(np.diff(frame[200:250, 200:600], axis=0))) / np.sqrt(2)
    err = np.sqrt(noise**2 * (1 + np.clip(frame, 0, None) / 6)).astype(np.float32)
    distance = trace_distance(SUBSTRIP256, 245.778671)

    def fit(window=SUBSTRIP256, added=0.0):
        first = window.y0 - SUBSTRIP256.y0
        rows = slice(first, first + window.ny)
        prior = build_prior([as_sky(template[rows], window, 0.003)], window)
        image = (frame + added * template)[rows].astype(np.float32)
        return fit_sky(image, err[rows], usable[rows], prior, distance[rows])

    return frame, template, fit


def test_sky_of_a_real_star(real_star):
    """No edge remains under a bright star after the commissioning template is subtracted."""
    frame, _, fit = real_star
    found = fit()
    residual = frame - found.sky - found.wings
    boxes = {
        "left": np.s_[200:250, 60:650],
        "left, below": np.s_[6:20, 60:650],
        "right": np.s_[225:250, 745:900],
    }
    for name, box in boxes.items():
        part = residual[box][found.used[box]]
        assert abs(np.median(part)) < 0.06 * np.median(found.sky[box]), name
    # The residual step is not larger than the variation of its surroundings.
    before, after = (
        np.median((frame - found.sky)[215:250, part]) for part in (slice(655, 685), slice(730, 760))
    )
    assert abs(after - before) < 0.1 * np.median(found.sky)


def test_response_to_added_sky(real_star):
    """The level left of the edge, where wings are faint, rises as much as the sky does."""
    _, template, fit = real_star
    rise = fit(added=0.5).sky - fit().sky
    left, right = np.s_[4:-4, 10:670], np.s_[4:-4, 760:2000]
    assert_allclose(np.median(rise[left] / (0.5 * template[left])), 1, atol=0.02)
    assert_allclose(np.median(rise[right] / (0.5 * template[right])), 1, atol=0.1)


def test_fewer_rows_of_a_real_star_show_the_same_sky(real_star):
    """The sky of SUBSTRIP96 agrees with that of SUBSTRIP256 within the stated errors."""
    _, _, fit = real_star
    whole, cut = fit(), fit(SUBSTRIP96)
    for side in ("left", "right"):
        levels = [getattr(each, f"level_{side}") for each in (whole, cut)]
        errors = [getattr(each, f"level_{side}_err") for each in (whole, cut)]
        assert abs(levels[1] - levels[0]) < np.hypot(*errors)
        assert abs(levels[1] / levels[0] - 1) < 0.035
        # The template does not describe the rows beyond SUBSTRIP96, which raises their errors.
        assert errors[1] / max(cut.misfit, 1) > errors[0] / max(whole.misfit, 1)


def test_spectra_of_a_real_star(tmp_path):
    """The traces agree with pastasoss, and the spectra are as smooth as those of a hot star."""
    frame = np.load(REAL / "jw01512001001_03102_00001_nis_substrip256_pwcpos245.778671.npy")
    noise = 0.5 + np.sqrt(np.clip(frame, 0, None) / 6)
    path = tmp_path / "jw01512001001_03102_00001_nis_rate.fits"
    settings = Simulation(window=SUBSTRIP256, pwcpos=245.778671)
    write_exposure(path, frame.astype("f4"), noise.astype("f4"), simulation=settings)
    traces = TraceFitStep.call(str(path))
    orders = OptimalExtractStep().extract(str(path), traces).orders
    for order, columns, distance in ((1, (500, 2030), 1.5), (2, (800, 1700), 3.0)):
        slices = traces.slices[traces.slices["order"] == order]
        used = slices["used"] == 1
        assert np.count_nonzero(used) > 30
        assert np.std(slices["residual"][used]) < 0.3
        assert np.abs(slices["row"] - slices["expected"])[used].max() < distance
        each = orders[order].extraction
        inside = (each.band.columns >= columns[0]) & (each.band.columns < columns[1])
        flux = each.flux[0, inside]
        assert (flux > 0).mean() > 0.99
        rough = np.abs(np.diff(flux, 2)) / flux[1:-1]
        assert np.nanmedian(rough) < 0.02
        assert_allclose(np.nanmedian(each.box_flux[0, inside] / flux), 1, atol=0.01)
