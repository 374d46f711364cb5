"""Reference files of jwst's step from a sky model: templates that represent its skies."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from helpers import make_skyflat
from numpy.testing import assert_allclose
from stdatamodels.jwst import datamodels

from soss_background import SkyflatError, make_sky_model
from soss_background.cli import main
from soss_background.detector import SUBSTRIP96, SUBSTRIP256
from soss_background.io.files import save_datamodel
from soss_background.io.templates import read_templates
from soss_background.reference import make_model_reference, write_reference
from soss_background.reference.representatives import represent_prior
from soss_background.simulate import sky_image
from soss_background.sky.edge import find_edge, shift_columns
from soss_background.sky.match import bin_sky, cross_residuals
from soss_background.sky.sky_prior import SkyPrior

SCIENCE = ~SUBSTRIP96.reference_pixels()


def draw_sky(number):
    """Draw a sky with a random colour and edge."""
    rng = np.random.default_rng(number)
    waves = np.sin(np.outer(np.arange(1, 6), np.linspace(0, np.pi, SUBSTRIP96.nx)))
    sky = shift_columns(sky_image(SUBSTRIP96, seed=3), 3 * rng.normal())
    return sky * (1 + 0.01 * rng.normal(size=5) @ waves)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Learn a sky model of SUBSTRIP96 from ten skyflats that are not flat-fielded; save it."""
    path = tmp_path_factory.mktemp("model") / "nis_skymodel.fits"
    skyflats = []
    for number in range(10):
        skyflat = make_skyflat(number % 9 + 1, SUBSTRIP96, sky=draw_sky(number))
        skyflat.meta.observation.observation_number = f"{number:03d}"
        skyflats.append(skyflat)
    save_datamodel(make_sky_model(skyflats), path)
    return path


def measure_best(templates):
    """Return the residual rms of new skies after the best template is subtracted, in percent."""
    known = [bin_sky(sky, SCIENCE) for sky in templates]
    skies = [bin_sky(draw_sky(number), SCIENCE) for number in range(50, 60)]
    residuals = cross_residuals([*skies, *known])[: len(skies), len(skies) :]
    return 100 * residuals.min(axis=1)


def test_templates_fit_skies_of_no_skyflat(model):
    """More templates fit better, and better than the same number of skyflats."""
    left = [
        measure_best(make_model_reference(model, "SUBSTRIP96", number=number)[0].data).mean()
        for number in (1, 4, 10)
    ]
    assert left[0] > left[1] > left[2]
    assert left[2] < measure_best([draw_sky(number) for number in range(10)]).mean()


def test_one_template_is_the_mean():
    sky = sky_image(SUBSTRIP96).astype("f4")
    sky /= np.median(sky[:, :600])
    deviations = np.zeros((1, 24, 256), dtype="f4")
    cells = (SUBSTRIP96.ny // 24, SUBSTRIP96.nx // 256)
    assert cells == (4, 8)
    deviations[:, :, 100:] = 0.02 * np.sin(np.linspace(0, 6, 156))
    right = np.float32(sky > 1.2)
    prior = SkyPrior(sky, right, 0.01 * sky, deviations, 0.1, 3.0)
    (one,), share, shift = represent_prior(prior, 1)
    assert share == 1
    assert abs(shift[0]) < 0.3
    assert_allclose(one[SCIENCE], sky[SCIENCE], rtol=0.02)
    skies, shares, shifts = represent_prior(prior, 5)
    assert shares.sum() == pytest.approx(1)
    assert np.all(np.diff(shares) <= 0)
    found = [find_edge(each) for each in skies]
    assert_allclose(np.subtract(found, find_edge(sky)), shifts, atol=0.3)
    # Each is the mean of its cluster, so their mean, weighted by their shares, is the mean sky.
    assert_allclose(np.tensordot(shares, skies, 1)[:, 760:], sky[:, 760:], rtol=5e-3)


def test_the_file(model, tmp_path):
    """jwst and our step read the contents of the file."""
    path = tmp_path / "bkg.fits"
    reference, table = make_model_reference(model, "SUBSTRIP96", number=3, author="A. Person")
    write_reference(reference, path)
    with fits.open(path) as hdus:
        header = hdus[0].header
        assert hdus["SCI"].data.shape == hdus["ERR"].data.shape == (3, *SUBSTRIP96.shape)
        assert not hdus["SCI"].data[:, ~SCIENCE].any()
        assert np.all(hdus["SCI"].data[:, SCIENCE] > 0)
        assert np.all(hdus["ERR"].data[:, SCIENCE] > 0)
        assert np.all(hdus["DQ"].data[:, ~SCIENCE] > 0)
        levels = np.median(hdus["SCI"].data[:, :, 10:600], axis=(1, 2))
    assert_allclose(levels, 4.7, rtol=0.03)
    expected = {"REFTYPE": "BKG", "PEDIGREE": "MODEL", "AUTHOR": "A. Person", "SUBSIZE2": 96}
    assert {key: header[key] for key in expected} == expected
    assert header["DESCRIP"] == "3 skies of a sky model of SOSS, SUBSTRIP96"
    stored = Table.read(path, "TEMPLATES")
    assert stored.colnames == ["TEMPLATE", "SHARE", "SHIFT"]
    assert_allclose(stored["SHARE"], table["SHARE"])
    history = str(header["HISTORY"])
    assert "sky model nis_skymodel.fits" in history
    assert history.count("Skyflat of the model") == 10
    assert len(read_templates(path, SUBSTRIP96)) == 3


def test_a_flat_is_multiplied(tmp_path):
    """The flat is that of the model, or one that the user gives."""
    values = np.random.default_rng(1).uniform(0.9, 1.1, SUBSTRIP96.shape).astype("f4")
    flat = datamodels.FlatModel(data=values)
    flat.meta.subarray.name, flat.meta.subarray.xstart = "SUBSTRIP96", 1
    flat.meta.subarray.ystart = SUBSTRIP96.y0 + 1
    flat.save(tmp_path / "flat.fits")
    plain, fielded = (
        make_sky_model([make_skyflat(1, SUBSTRIP96, flat=name)]) for name in ("", "flat.fits")
    )
    one, _ = make_model_reference(plain, "SUBSTRIP96", number=1)
    for given in (None, "flat.fits"):
        other, _ = make_model_reference(fielded, "SUBSTRIP96", number=1, flat=given)
        assert_allclose(other.data, one.data * values, rtol=1e-5)
        assert_allclose(other.err, one.err * values, rtol=1e-5)
    fielded.meta.ref_file.flat.name = None
    with pytest.raises(SkyflatError, match="R_FLAT does not record its flat"):
        make_model_reference(fielded, "SUBSTRIP96")


def test_command_line(model, capsys):
    options = ["-n", "2", "--subarray", "SUBSTRIP96", "-o", "bkg.fits"]
    assert main(["reference", "--model", str(model), *options]) == 0
    printed = capsys.readouterr().out
    assert "TEMPLATE SHARE SHIFT" in printed
    assert f"2 templates of {model}, see bkg.fits" in printed
    reference, _ = make_model_reference(model, "SUBSTRIP96", number=2)
    with datamodels.SossBkgModel("bkg.fits") as again:
        np.testing.assert_array_equal(again.data, reference.data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either skyflats or a sky model (--model FILE)"),
        (["a_skyflat.fits", "--model", "m.fits"], "give either skyflats or a sky model"),
        (["a_skyflat.fits", "-n", "3"], "-n is the number of templates of a sky model"),
        (["--model", "m.fits", "--plane", "BKG"], "--plane applies to skyflats only"),
        (["--model", "m.fits"], "m.fits: no such file"),
        (["--model", "{model}"], "its SUBSTRIP96 lacks pixels of SUBSTRIP256"),
        (["--model", "{model}", "--pedigree", "GUESS"], "GUESS is not a PEDIGREE"),
        (["--model", "{model}", "-o", "{model}"], "is an input"),
    ],
)
def test_faults(model, arguments, message, tmp_path, capsys):
    before = model.read_bytes()
    arguments = [each.format(model=model) for each in arguments]
    assert main(["reference", "-o", "bkg.fits", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert model.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_faulty_choices(model):
    with pytest.raises(SkyflatError, match="at least one template"):
        make_model_reference(model, number=0)
    with pytest.raises(SkyflatError, match="SUB80 is none of the subarrays"):
        make_model_reference(model, "SUB80")


def test_its_size_is_that_of_the_subarray():
    skyflat = make_skyflat(1, SUBSTRIP256)
    reference, _ = make_model_reference(make_sky_model([skyflat]), "SUBSTRIP96", number=2)
    assert reference.data.shape == (2, *SUBSTRIP96.shape)
