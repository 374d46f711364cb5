"""Expected traces: the table compared with a PASTASOSS reference file, and the pupil wheel."""

import logging

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose
from scipy.optimize import curve_fit
from spec2_references import make_pastasoss
from stdatamodels.jwst import datamodels
from test_real import REAL

from soss_background import TraceFitStep
from soss_background.detector import PWCPOS, SUBSTRIP96, SUBSTRIP256
from soss_background.errors import SkyflatError
from soss_background.io.exposures import find_pwcpos
from soss_background.simulate.traces import get_trace
from soss_background.sky.traces import ORDERS, expected_trace
from soss_background.steps.crds_access import open_pastasoss


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Open a PASTASOSS reference file of the simulator's traces, which have different nodes."""
    path = tmp_path_factory.mktemp("reference") / "pastasoss.asdf"
    make_pastasoss(path)
    with datamodels.PastasossModel(path) as model:
        yield model


@pytest.mark.parametrize("window", [SUBSTRIP256, SUBSTRIP96], ids=lambda window: window.name)
@pytest.mark.parametrize("offset", [-0.25, -0.1, 0, 0.1, 0.25])
def test_table_agrees_with_reference_file(reference, window, offset):
    for order in (1, 2):
        table = expected_trace(order, window, PWCPOS + offset)
        other = expected_trace(order, window, PWCPOS + offset, reference)
        both = np.isfinite(table.row) & np.isfinite(other.row)
        assert np.count_nonzero(both) >= np.isfinite(table.row).sum() - 1
        assert_allclose(table.row[both], other.row[both], rtol=0, atol=0.02)


def test_wavelengths_agree_with_reference_file(reference):
    """The file of these tests has the wavelengths of the nominal position."""
    for order in ORDERS:
        table = expected_trace(order, SUBSTRIP256, PWCPOS)
        other = expected_trace(order, SUBSTRIP256, PWCPOS, reference)
        both = np.isfinite(table.wavelength) & np.isfinite(other.wavelength)
        # 0.02 pixels of order 1 are 2e-5 micron.
        assert_allclose(table.wavelength[both], other.wavelength[both], rtol=0, atol=2e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_simulator_agrees_with_the_table(order):
    for offset in (-0.25, 0, 0.25):
        table = expected_trace(order, SUBSTRIP256, PWCPOS + offset)
        trace = get_trace(str(order), PWCPOS + offset)
        rows = np.interp(np.arange(SUBSTRIP256.nx), trace.x, trace.y) - SUBSTRIP256.y0
        # The outermost columns may lie beyond the rotated trace, where both extrapolate.
        assert np.nanmax(np.abs(table.row - rows)[8:2040]) < 0.02


def hydrogen(lower, upper):
    """Return the vacuum wavelength of a hydrogen line, micron."""
    return 1 / (10.96775831 * (1 / lower**2 - 1 / upper**2))


# Lines of each order in the real frame, by the quantum numbers of hydrogen, and how far off their
# wavelengths may be, micron; a pixel is 0.00097, 0.00047 and 0.0003 micron.
LINES = {
    1: ([(3, 4), (3, 5), (3, 6), (3, 7), (3, 8), (4, 7), (4, 6)], 0.0005),
    2: ([(2, 3), (3, 7), (3, 8), (3, 9), (3, 6)], 0.0007),
    3: ([(3, 9), (3, 10), (3, 11), (3, 12), (3, 13)], 0.0005),
}


def line_place(flux, guess):
    """Fit a Gaussian line in a parabolic continuum; return its column."""
    columns = np.arange(guess - 22, guess + 23)
    offset = columns - guess

    def model(x, level, slope, bend, depth, centre, width):
        line = depth * np.exp(-(((x - centre) / width) ** 2) / 2)
        return level + slope * x + bend * x**2 - line

    start = [flux[columns].max(), 0, 0, np.ptp(flux[columns]), 0, 3]
    return guess + curve_fit(model, offset, flux[columns], start, maxfev=20000)[0][4]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real arrays are not here")
@pytest.mark.parametrize("order", ORDERS)
def test_lines_of_a_real_star(order):
    """The hydrogen lines of a hot star are at the columns of their wavelengths."""
    pwcpos = 245.778671
    frame = np.load(REAL / f"jw01512001001_03102_00001_nis_substrip256_pwcpos{pwcpos}.npy")
    trace = expected_trace(order, SUBSTRIP256, pwcpos)
    distance = np.abs(np.arange(256)[:, np.newaxis] - trace.row)
    flux = np.nansum(np.where(distance < 16, frame.astype(float), 0), axis=0)
    lines, limit = LINES[order]
    errors = []
    for lower, upper in lines:
        wavelength = hydrogen(lower, upper)
        guess = int(np.nanargmin(np.abs(trace.wavelength - wavelength)))
        place = line_place(flux, guess)
        errors.append(np.interp(place, np.arange(2048), trace.wavelength) - wavelength)
    assert np.abs(errors).max() < limit
    assert np.abs(np.median(errors)) < 0.0006


@pytest.mark.skipif(not REAL.is_dir(), reason="the real arrays are not here")
@pytest.mark.parametrize(
    ("order", "columns", "typical", "limit"),
    [(1, (400, 2040), 0.0005, 0.0009), (2, (700, 1740), 0.0005, 0.0016), (3, (4, 880), 1e-5, 5e-5)],
)
def test_wavelengths_of_a_spectrace_file(order, columns, typical, limit):
    """They agree at the nominal position if the columns of the file count from 1."""
    table = fits.getdata(REAL / "jwst_niriss_spectrace_0023.fits", order)
    rising = np.argsort(table["X"])
    inside = np.arange(*columns)
    known = np.interp(inside, table["X"][rising] + 1, table["WAVELENGTH"][rising])
    error = np.abs(expected_trace(order, SUBSTRIP256, PWCPOS).wavelength[inside] - known)
    assert np.median(error) < typical
    assert error.max() < limit


def make_exposure(pwcpos):
    """Create an exposure without pixels."""
    exposure = datamodels.ImageModel()
    exposure.meta.filename = "some_rate.fits"
    exposure.meta.instrument.pupil_position = pwcpos
    return exposure


@pytest.mark.parametrize("pwcpos", [245.47, 245.778671, 246.05])
def test_pwcpos_of_the_header_is_used(pwcpos, caplog):
    assert find_pwcpos(make_exposure(pwcpos)) == pwcpos
    assert not caplog.records


@pytest.mark.parametrize(
    ("pwcpos", "fault"),
    [(None, "is missing"), (0.0, "is 0"), (246.5, "is 246.5"), (245.4, "is 245.4")],
)
def test_nominal_pwcpos_is_used_with_a_warning(pwcpos, fault, caplog):
    """At 246.5, the wavelengths of order 1 would be 4.0 to 5.4 micron."""
    with caplog.at_level(logging.WARNING):
        found = find_pwcpos(make_exposure(pwcpos))
    assert found == PWCPOS
    assert f"some_rate.fits: PWCPOS {fault}, 245.76 degrees are used instead" in caplog.text
    wavelength = expected_trace(1, SUBSTRIP256, found).wavelength
    assert_allclose([np.nanmin(wavelength), np.nanmax(wavelength)], [0.85, 2.83], atol=0.01)


def test_no_reference_file_without_crds():
    with open_pastasoss(TraceFitStep(), make_exposure(PWCPOS)) as reference:
        assert reference is None


def test_another_reference_file(tmp_path):
    path = tmp_path / "flat.fits"
    datamodels.FlatModel(data=np.ones((4, 4), np.float32)).save(path)
    with pytest.raises(SkyflatError, match="flat.fits: not a PASTASOSS reference file"):
        open_pastasoss(TraceFitStep(override_pastasoss=str(path)), make_exposure(PWCPOS))
    path.write_text("nothing")
    with pytest.raises(SkyflatError, match="flat.fits: cannot be read"):
        open_pastasoss(TraceFitStep(override_pastasoss=str(path)), make_exposure(PWCPOS))
