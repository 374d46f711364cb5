"""Sky models recover the variation of skyflats; for few skyflats, they have that of the prior."""

import numpy as np
import pytest
from astropy.io import fits
from helpers import as_sky, checksums, make_skyflat
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter1d
from stdatamodels.jwst import datamodels

from soss_background import SkyflatError, SkyModel, make_sky_model
from soss_background.cli import main
from soss_background.detector import SUBSTRIP96, SUBSTRIP256, Window
from soss_background.io.files import save_datamodel
from soss_background.io.sky_models import open_sky_model, read_prior
from soss_background.numerics.cells import bin_smooth
from soss_background.simulate import sky_image
from soss_background.sky.averaging import Sky
from soss_background.sky.deviations import find_modes, fit_modes, stripe_noise
from soss_background.sky.edge import find_edge, shift_columns
from soss_background.sky.learning import learn_sky
from soss_background.sky.nodes import make_grid
from soss_background.sky.sky_prior import build_prior, cut_prior

# Rms of the two components of the simulated skies, and of their smooth scatter.
ONE, TWO, SCATTER = 0.012, 0.006, 0.001

# A section of FULL with the edge, and one without.
SMALL, PLAIN = Window("FULL", 1920, 600, 128, 256), Window("FULL", 1920, 1000, 128, 256)


def components():
    """Return two orthogonal deviations of SUBSTRIP96, right and left of the edge, of rms one."""
    column = np.tile(np.arange(2048), (96, 1))
    images = [
        np.where(column > 700, np.sin(2 * np.pi * (column - 720) / 1328), 0),
        np.where(column < 690, np.cos(np.pi * column / 690), 0),
    ]
    return [image / np.sqrt(np.mean(image**2)) for image in images]


def draw_skies(number, seed, noise=0.001, scale=1.0):
    """Draw skies of a known mean, two known components and a smooth scatter."""
    rng, base = np.random.default_rng(seed), sky_image(SUBSTRIP96, seed=0)
    one, two = components()
    skies = []
    for index in range(number):
        smooth = np.interp(np.arange(2048), np.arange(0, 2400, 300), rng.normal(size=8))
        deviation = rng.normal() * ONE * one + rng.normal() * TWO * two + SCATTER * smooth
        sky = base * (1 + scale * deviation) * rng.uniform(0.5, 2)
        skies.append(draw_noise(sky, noise, rng, index))
    return skies


def draw_noise(sky, noise, rng, index, stripes=0.0):
    """Add white noise and white stripes to a sky, fractions of its median."""
    err = np.float32(noise * np.median(sky)) * np.ones(sky.shape, dtype=np.float32)
    level = stripes * np.median(sky)
    seen = sky + err * rng.standard_normal(sky.shape) + level * rng.standard_normal(sky.shape[1])
    dq = np.zeros(sky.shape, dtype=np.uint32)
    return Sky(seen.astype("f4"), err, err, dq, f"sky {index}", index, level, 0.0)


@pytest.fixture(scope="module")
def forty():
    """Learn from forty skies."""
    return learn_sky(draw_skies(40, 1), SUBSTRIP96)


def test_components_are_found_again(forty):
    found = forty.grid.cell_images(forty.components, forty.right)
    for image, rms in zip(components(), (ONE, TWO), strict=True):
        truth = bin_smooth(image)
        scores = np.mean(found * truth, axis=(1, 2))
        assert np.sum(scores**2) > 0.97
        total = np.sum(scores**2 * forty.variances)
        # Forty draws determine an rms to 11 %.
        assert_allclose(np.sqrt(total), rms, rtol=0.3)
    # The scatter is eight independent values on the whole window.
    assert 2 <= len(forty.variances) <= 8
    assert_array_equal(forty.variances, np.sort(forty.variances)[::-1])
    assert forty.smooth_rms < 0.003
    assert forty.number == pytest.approx(40)


def test_components_are_orthonormal_and_centred(forty):
    basis = forty.grid.sample_basis(forty.right)
    images = basis @ forty.components.T
    assert_allclose(images.T @ images / len(basis), np.eye(len(forty.variances)), atol=0.01)
    assert_allclose(forty.grid.means(basis) @ forty.components.T, 0, atol=0.01)


def test_the_mean_is_that_of_the_skies(forty):
    truth = sky_image(SUBSTRIP96, seed=0)
    for side in (forty.right == 0, forty.right == 1):
        assert np.median(forty.shape[side]) == pytest.approx(1, abs=1e-5)
        ratio = forty.shape[side] / truth[side]
        # The mean of forty deviations of 1.5 % is a sixth of that.
        assert np.std(ratio / ratio.mean()) < 0.005
    assert np.all(forty.err > 0)


@pytest.mark.parametrize(("number", "most"), [(1, 0), (2, 0), (3, 1), (12, 10)])
def test_few_skies_have_the_variance_of_the_prior(number, most):
    statistics = learn_sky(draw_skies(number, 5), SUBSTRIP96)
    assert len(statistics.variances) <= most
    if number == 1:
        assert statistics.smooth_rms == 0.015
        assert statistics.ratio_rms == 0.1
        assert statistics.shift_rms == 4.0
    assert 0.002 < statistics.smooth_rms < 0.02
    prior = cut_prior(statistics, SUBSTRIP96, SUBSTRIP96)
    # The mean of few skies is itself uncertain.
    assert prior.ratio_rms == pytest.approx(statistics.ratio_rms * np.sqrt(1 + 1 / number))


def test_a_single_sky_has_the_prior():
    sky = sky_image(SUBSTRIP96).astype("f4")
    prior = build_prior([as_sky(sky, SUBSTRIP96, 0.001)], SUBSTRIP96)
    rms = np.sqrt(np.sum(prior.deviations**2, axis=0))
    # 1.5 % without the mean of each side, times the root of two.
    assert 0.008 < np.median(rms) < 0.022
    assert_allclose(prior.sky / np.median(prior.sky[prior.right == 0]), prior.sky, rtol=1e-6)
    assert_allclose(prior.sky, sky / np.median(sky[prior.right == 0]), rtol=1e-4)
    left = bin_smooth(prior.right) == 0
    assert_allclose(prior.deviations[:, left].mean(axis=1), 0, atol=5e-4)
    assert all(each.dtype == np.float32 for each in (prior.sky, prior.right, prior.noise))


def test_predictions_hold_a_new_sky(forty):
    """New skies deviate from the mean as much as the prior predicts."""
    prior = cut_prior(forty, SUBSTRIP96, SUBSTRIP96)
    right = bin_smooth(prior.right)
    usable = (right == 0) | (right == 1)
    design = np.array([(1 - right)[usable], right[usable], *prior.deviations[:6, usable]])
    squares = []
    for sky in draw_skies(12, 77, noise=0):
        ratio = bin_smooth(sky.sky / prior.sky)[usable]
        found = np.linalg.lstsq(design.T, ratio / np.median(ratio))[0]
        squares.append(np.mean(found[2:] ** 2))
    assert 0.3 < np.mean(squares) < 2


def test_noise_is_no_variation():
    """Identical skies with noise and stripes show hardly any variation."""
    rng, base = np.random.default_rng(3), sky_image(SUBSTRIP96, seed=0)
    skies = [draw_noise(base, 0.02, rng, index, stripes=0.02) for index in range(12)]
    blind = [sky._replace(stripes=0.0) for sky in skies]
    seen, not_seen = (learn_sky(each, SUBSTRIP96) for each in (skies, blind))
    assert seen.smooth_rms < 0.004
    assert np.sum(seen.variances) < 1e-5
    total = [each.smooth_rms**2 + each.variances.sum() for each in (seen, not_seen)]
    assert total[0] < 0.5 * total[1]
    # Unsmoothed noise of the pixels is not part of the scatter of the sky.
    assert seen.scatter < 0.004


def test_narrow_structure_is_scatter_of_pixels():
    """Variations within 60 columns are neither components nor smooth scatter."""
    rng, base, skies = np.random.default_rng(4), sky_image(SUBSTRIP96, seed=0), []
    for index in range(12):
        narrow = gaussian_filter1d(rng.normal(size=2048), 10)
        sky = base * (1 + 0.008 * narrow / narrow.std())
        skies.append(draw_noise(sky, 0.0005, rng, index))
    statistics = learn_sky(skies, SUBSTRIP96)
    assert statistics.scatter == pytest.approx(0.008, rel=0.35)
    # A Gaussian of 10 columns has a correlation that falls to 1/e within 20.
    assert 12 < statistics.correlation < 35
    assert statistics.smooth_rms < 0.01
    assert np.median(statistics.err) > 0.006


def test_levels_and_ratios_of_skies():
    rng, base, skies = np.random.default_rng(6), sky_image(SUBSTRIP96, seed=0), []
    right = np.arange(2048) > 700
    ratios, levels = 1 + 0.03 * rng.normal(size=12), rng.uniform(0.5, 2, 12)
    for index, (ratio, level) in enumerate(zip(ratios, levels, strict=True)):
        skies.append(draw_noise(level * base * (1 + (ratio - 1) * right), 0.001, rng, index))
    statistics = learn_sky(skies, SUBSTRIP96)
    found = statistics.levels[:, 1] / statistics.levels[:, 0]
    assert_allclose(found / found.mean(), ratios / ratios.mean(), rtol=1e-3)
    assert_allclose(
        statistics.levels[:, 0] / statistics.levels[0, 0], levels / levels[0], rtol=1e-3
    )
    # Between their rms and the 10 % of the prior.
    expected = np.sqrt((4 * 0.1**2 + 11 * np.var(ratios / ratios.mean(), ddof=1)) / 15)
    assert statistics.ratio_rms == pytest.approx(expected, rel=0.02)


def test_values_at_nodes_are_kept(forty):
    spread = forty.grid.spread(forty.components)
    assert spread.shape == (len(forty.variances), 2, 2, 17)
    assert_allclose(forty.grid.gather(spread), forty.components)
    # Each side keeps its outermost value beyond the edge.
    assert_array_equal(spread[:, 0, :, -1], spread[:, 0, :, forty.grid.n_left - 1])
    assert_array_equal(spread[:, 1, :, 0], spread[:, 1, :, forty.grid.first_right])


def test_skies_of_one_visit_count_once():
    skies = draw_skies(4, 9)
    copies = [sky._replace(visit="same") for sky in [skies[0]] * 3]
    statistics = learn_sky([*copies, *skies[1:]], SUBSTRIP96)
    assert statistics.number == pytest.approx(4, abs=0.01)
    assert_allclose(statistics.weights[:3].sum(), 0.25, atol=0.01)
    alone = learn_sky(copies, SUBSTRIP96)
    assert alone.number == pytest.approx(1)
    assert (alone.smooth_rms, alone.ratio_rms) == (0.015, 0.1)


def test_left_out_pixels_do_not_count():
    right = np.zeros((96, 2048), dtype=np.float32)
    right[:, 700:] = 1
    modes = find_modes(right, make_grid(right))
    deviation = np.zeros((24, 256))
    deviation[:, 200:] = 0.1
    share = np.ones((24, 256))
    share[:, 200:] = 0
    white = np.full((24, 256), 0.01)
    values, noise, gain = fit_modes(modes, deviation, white, share)
    assert_allclose(values, 0, atol=1e-12)
    assert np.linalg.eigvalsh(noise).min() > -1e-12
    # Stripes of 1 % remain in the modes; correlated 1/f stripes more than white ones.
    pink, plain = (
        np.trace(stripe_noise(gain, white, slope, [slice(0, 96)])[:5, :5]) for slope in (-1, 0)
    )
    assert pink > 2 * plain > 0


def test_the_edge_follows_the_pupil_wheel():
    base, rng, skies = sky_image(SUBSTRIP96, seed=0).astype("f4"), np.random.default_rng(1), []
    for index, pwcpos in enumerate(np.linspace(245.6, 245.9, 6)):
        sky = shift_columns(base, 20 * (pwcpos - 245.75))
        skies.append(draw_noise(sky, 0.001, rng, index)._replace(pwcpos=pwcpos))
    statistics = learn_sky(skies, SUBSTRIP96)
    assert statistics.pwcpos_slope == pytest.approx(20, rel=0.05)
    assert statistics.shift_rms < 4
    plain, turned = (
        cut_prior(statistics, SUBSTRIP96, SUBSTRIP96, pwcpos=pwcpos) for pwcpos in (None, 245.9)
    )
    shift = find_edge(turned.sky) - find_edge(plain.sky)
    assert shift == pytest.approx(3, rel=0.1)
    assert statistics.edge.shape == (3, 96)
    assert_allclose(statistics.edge[1], find_edge(plain.sky), atol=5)
    # Wheel positions that hardly differ give no slope.
    near = learn_sky([sky._replace(pwcpos=245.7) for sky in skies[:3]], SUBSTRIP96)
    assert near.pwcpos_slope == 0


def test_windows_of_a_model_and_a_flat():
    skies = [sky_image(SUBSTRIP256, seed=seed).astype("f4") for seed in (1, 2)]
    named = [
        Sky(sky, 0.001 * sky, 0.01 * sky, np.zeros(sky.shape, "u4"), "sky", number)
        for number, sky in enumerate(skies)
    ]
    statistics = learn_sky(named, SUBSTRIP256)
    prior = cut_prior(statistics, SUBSTRIP256, SUBSTRIP96)
    assert prior.sky.shape == prior.right.shape == prior.noise.shape == (96, 2048)
    assert prior.deviations.shape[1:] == (24, 256)
    assert np.median(prior.sky[prior.right == 0]) == pytest.approx(1)
    whole = cut_prior(statistics, SUBSTRIP256, SUBSTRIP256)
    ratio = prior.sky / whole.sky[10:106]
    assert_allclose(ratio, ratio[0, 0], rtol=1e-5)
    # Variations that are constant in the smaller window contribute to the error of the ratio.
    assert prior.ratio_rms > whole.ratio_rms
    flat = np.random.default_rng(0).uniform(0.8, 1.2, (96, 2048))
    divided = cut_prior(statistics, SUBSTRIP256, SUBSTRIP96, divisor=flat)
    quotient = divided.sky * flat / prior.sky
    assert_allclose(quotient, quotient[0, 0], rtol=1e-5)
    assert_array_equal(divided.deviations, prior.deviations)


def test_a_poor_sky_counts_less():
    """Its weight follows from its uncertainty on large scales, which its noise does not show."""
    sky = sky_image(SMALL, seed=1)
    bend = 1 + 0.1 * np.linspace(-1, 1, SMALL.ny)[:, np.newaxis] ** 2
    good, poor = as_sky(sky, SMALL, name="good"), as_sky(sky * bend, SMALL, name="poor")
    errors = []
    for smooth_error in (0.0, 0.1):
        prior = build_prior([good, poor._replace(smooth_error=smooth_error)], SMALL)
        ratio = prior.sky / sky
        errors.append(np.std(ratio / ratio.mean()))
    assert errors[1] < 0.1 * errors[0]


def test_skies_of_a_visit_count_as_one():
    skies = [as_sky(sky_image(SMALL, seed=seed), SMALL) for seed in (1, 2)]
    alone = build_prior(skies, SMALL).sky
    same, apart = (
        build_prior([*(skies[0]._replace(visit=visit) for visit in visits), skies[1]], SMALL).sky
        for visits in ([1] * 5, range(5))
    )
    # Those of a visit have less noise together.
    assert np.std(same - alone) < 0.3 * np.std(apart - alone)


def test_the_edge_of_templates_follows_the_pupil_wheel():
    base = sky_image(SMALL)
    pwcpos = 245.65 + 0.02 * np.arange(10)
    skies = [
        as_sky(shift_columns(base, 100 * (each - 245.75)), SMALL)._replace(pwcpos=each)
        for each in pwcpos
    ]
    edges = [find_edge(build_prior(skies, SMALL, pwcpos=each).sky, 600) for each in pwcpos]
    assert_allclose(np.diff(edges), 2, atol=0.2)


def test_a_window_without_edge():
    skies = [as_sky(sky_image(PLAIN, seed=seed), PLAIN) for seed in (1, 2, 3)]
    prior = build_prior(skies, PLAIN)
    assert not prior.right.any()
    assert np.median(prior.sky) == pytest.approx(1, rel=1e-5)
    assert len(prior.deviations) > 0
    left, right = prior.shifted(1.5)
    assert not right.any()
    assert left.shape == PLAIN.shape


def test_skies_with_and_without_edge_are_refused():
    one = as_sky(sky_image(SMALL, seed=1), SMALL, name="one")
    flat = as_sky(np.ones(SMALL.shape), SMALL, name="other")
    with pytest.raises(ValueError, match="other: its sky has no edge, but that of one has one"):
        build_prior([one, flat], SMALL)


@pytest.fixture(scope="module")
def skyflats(tmp_path_factory):
    """Write three skyflats of a part of FULL."""
    folder = tmp_path_factory.mktemp("skyflats")
    paths = []
    for number in (1, 2, 3):
        skyflat = make_skyflat(number, SMALL)
        skyflat.meta.observation.observation_number = f"{number:03d}"
        skyflat.meta.skyflat.stripe_rms = 0.01
        paths.append(folder / f"{number}_skyflat.fits")
        skyflat.save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def models(skyflats):
    """Learn from one and from three skyflats, which are unchanged."""
    before = checksums(skyflats)
    models = {n: make_sky_model(skyflats[:n], author="A. Uthor") for n in (1, 3)}
    assert checksums(skyflats) == before
    return models


@pytest.mark.parametrize("suffix", [".fits", ".asdf"])
@pytest.mark.parametrize("number", [1, 3])
def test_round_trip(models, tmp_path, suffix, number):
    model = models[number]
    path = tmp_path / f"sky_skymodel{suffix}"
    save_datamodel(model, path)
    with datamodels.open(path) as reopened:
        assert type(reopened) is SkyModel
        for name in ("sky", "right", "err", "dq", "components", "variances", "edge", "members"):
            written, read = getattr(model, name), getattr(reopened, name)
            assert (written is None) == (read is None)
            if written is not None and written.dtype.names is None:
                assert_array_equal(read, written)
            elif written is not None:
                assert all(
                    len(read) == len(written) and np.array_equal(read[key], written[key])
                    for key in written.dtype.names
                    if written.dtype[key].kind != "S"
                )
        assert reopened.meta.author == "A. Uthor"
        assert reopened.meta.sky_model.n_skies == number
    one, other = (read_prior(each, SMALL) for each in (model, path))
    for name in ("sky", "right", "noise", "deviations"):
        assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.ratio_rms, one.shift_rms) == (other.ratio_rms, other.shift_rms)


def test_keywords_and_members(skyflats, models, tmp_path):
    path = tmp_path / "sky_skymodel.fits"
    save_datamodel(models[3], path)
    header = fits.getheader(path)
    assert header["DATAMODL"] == "SkyModel"
    expected = {"NSKIES": 3, "FLATCORR": "SKIPPED", "SUBSTRT2": 1921, "EXP_TYPE": "NIS_SOSS"}
    assert {key: header[key] for key in expected} == expected
    for key in "RATIO RATIORMS SCATTER CORRLEN SHIFTRMS PWCSLOPE NCOMP SMOOTH LEVEL".split():
        assert np.isfinite(header[key]), key
    assert "3 skyflats" in str(header["HISTORY"])
    assert "3_skyflat.fits" in str(header["HISTORY"])
    members = fits.getdata(path, "MEMBERS")
    assert list(members["filename"]) == [skyflat.name for skyflat in skyflats]
    assert list(members["observation"]) == ["001", "002", "003"]
    assert_allclose(members["weight"].sum(), 1)
    assert_allclose(members["pwcpos"], [245.76, 245.77, 245.78])
    skies = [fits.getdata(skyflat, "BKGDN") for skyflat in skyflats]
    # Most of the columns are right of the edge.
    assert_allclose(
        members["level"] * members["ratio"], [np.median(s[:, 130:]) for s in skies], rtol=0.1
    )


def test_trends_of_many_visits(models, tmp_path):
    skyflats = []
    for number in range(1, 10):
        sky = sky_image(SMALL, seed=1) * (1.5 - 0.08 * number + 0.02 * (number % 2))
        skyflat = make_skyflat(number, SMALL, sky=sky)
        skyflat.meta.observation.observation_number = f"{number:03d}"
        skyflat.meta.skyflat.ecliptic_lat = 5.0 * number
        skyflat.metadata["pwcpos"] = 245.76
        skyflats.append(skyflat)
    model = make_sky_model(skyflats)
    (trend,) = model.trends
    assert trend["quantity"] in ("level", b"level")
    assert trend["latitude"] < -1
    assert len(models[3].trends) == 0
    model.save(tmp_path / "sky.fits")
    assert len(fits.getdata(tmp_path / "sky.fits", "TRENDS")) == 1


def faulty(number, window=SMALL, **changes):
    """Return a skyflat with other metadata."""
    skyflat = make_skyflat(number, window)
    for key, value in changes.items():
        skyflat[f"meta.{key}"] = value
    return skyflat


@pytest.mark.parametrize(
    ("others", "fault"),
    [
        ([], "No skyflats are given"),
        (["no_skyflat.fits"], "no_skyflat.fits: no such file"),
        ([make_skyflat(1, SMALL), make_skyflat(2, PLAIN)], "skyflats of the same pixels"),
        (
            [make_skyflat(1, SMALL, flat="f.fits"), make_skyflat(2, SMALL)],
            "LON002_skyflat.fits: not flat-fielded, but nis_clear_gr700xd_LON001",
        ),
        (
            [make_skyflat(1, SMALL), make_skyflat(2, SMALL, sky=np.ones(SMALL.shape))],
            "no sky in it",
        ),
    ],
)
def test_faults_end_in_one_line(others, fault):
    with pytest.raises(SkyflatError, match=fault) as raised:
        make_sky_model(others)
    assert "\n" not in str(raised.value)


def test_faulty_models_are_refused(skyflats, models):
    with pytest.raises(SkyflatError, match="1_skyflat.fits: not a sky model"):
        open_sky_model(skyflats[0])
    model = models[1].copy()
    with pytest.raises(SkyflatError, match="lacks pixels of SUBSTRIP96"):
        read_prior(model, SUBSTRIP96)
    model.meta.filename = "m_skymodel.fits"
    for change, fault in {
        "right": "m_skymodel.fits: RIGHT is missing",
        "meta.sky_model.ratio": "ratio of the sky model is missing",
    }.items():
        broken = model.copy()
        broken[change] = None
        with pytest.raises(SkyflatError, match=fault):
            open_sky_model(broken)
    broken = model.copy()
    broken.sky[3, 3] = np.nan
    with pytest.raises(SkyflatError, match="SKY is not finite everywhere"):
        open_sky_model(broken)
    broken = model.copy()
    broken.meta.sky_model.n_components = 2
    with pytest.raises(SkyflatError, match="NCOMP=2"):
        open_sky_model(broken)


def test_truncated_and_other_files_are_refused(models, tmp_path):
    save_datamodel(models[3], tmp_path / "m_skymodel.fits")
    content = (tmp_path / "m_skymodel.fits").read_bytes()
    (tmp_path / "cut.fits").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.fits").write_text("no FITS")
    for name, fault in {
        "cut.fits": "truncated",
        "text.fits": "cannot be read",
        "no": "no such",
    }.items():
        with pytest.raises(SkyflatError, match=f"{name}: .*{fault}") as raised:
            read_prior(tmp_path / name, SMALL)
        assert len(str(raised.value).splitlines()) == 1


def test_the_command(skyflats, tmp_path, capsys):
    names, folder = [str(skyflat) for skyflat in skyflats], str(skyflats[0].parent)
    assert main(["model", folder, "-o", "a_skymodel.fits", "--plot", "a.png"]) == 0
    printed = capsys.readouterr().out
    assert "3 skyflats" in printed
    assert "ratio right/left is 1.58" in printed
    assert "a_skymodel.fits and a.png" in printed
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["model", names[0], "-o", "one_skymodel.asdf", "--author", "Me"]) == 0
    assert "those of the prior" in capsys.readouterr().out
    with SkyModel("one_skymodel.asdf") as model:
        assert model.meta.author == "Me"
    before = checksums(skyflats)
    assert main(["model", *names, "-o", names[0]]) == 1
    assert "is an input" in capsys.readouterr().err
    assert checksums(skyflats) == before
