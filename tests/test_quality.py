"""Quality of skyflats: metrics compared with the truth, their ranges, and the step."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from conftest import SMALL
from helpers import checksums, make_skyflat, strun
from numpy.lib.recfunctions import append_fields
from numpy.testing import assert_allclose

from soss_background import SkyflatDenoiseStep, SkyflatModel, SkyflatPipeline, SkyflatQualityStep
from soss_background.datamodels.quality_table import list_failures
from soss_background.denoise.smooth_sky import denoise_sky
from soss_background.detector import FULL, SUBSTRIP96, Window
from soss_background.errors import SkyflatError
from soss_background.quality.metrics import (
    METRICS,
    count_samples,
    measure_exposures,
    measure_sky,
    summarize_exposures,
)
from soss_background.simulate import draw_stars, simulate_visit, sky_image, star_image
from soss_background.steps.metric_ranges import (
    Metric,
    flag_metrics,
    format_metrics,
    read_ranges,
)

STEP = "soss_background.SkyflatQualityStep"
WINDOW = SUBSTRIP96
SCIENCE = ~WINDOW.reference_pixels()
NOISE = 0.1
HIGHEST = METRICS["denoised_ratio"].limits[1]
ECSV = """# %ECSV 1.0
# ---
# datatype:
# - {{name: name, datatype: string}}
# - {{name: {0}, datatype: float64}}
# - {{name: high, datatype: float64}}
name {0} high
{1} 0 1
{2} 0 1
"""


def measure(images, masks, bkg, err, bkgdn=None, window=WINDOW):
    """Measure exposures; None if nothing can be measured."""
    bkgdn = sky_image(window, structure=0) if bkgdn is None else bkgdn
    planes = (images, masks, bkg, err, count_samples(masks), window, bkgdn)
    return measure_exposures(*planes, (12.0, 12.0))


def observe(number=6, seed=1, light=0.0, masked=0.3, window=WINDOW):
    """Create exposures of a plain sky and masks; return them, their mean and its error."""
    rng = np.random.default_rng(seed)
    sky = sky_image(window, structure=0)
    images = sky + light + NOISE * rng.standard_normal((number, *sky.shape))
    masks = (rng.random(images.shape) < masked).astype(np.uint8)
    count = np.sum(masks == 0, axis=0)
    known = count > 0
    total = np.sum(images, axis=0, where=masks == 0)
    bkg = np.divide(total, count, out=sky.copy(), where=known, dtype=float)
    err = NOISE / np.sqrt(np.maximum(count, 1))
    return images.astype("f4"), masks, bkg.astype("f4"), err.astype("f4")


# --- metrics -----------------------------------------------------------------------------


def test_exposures_table():
    table = np.zeros(4, dtype=SkyflatModel().get_dtype("metadata"))
    table["used"] = [1, 1, 0, 1]
    table["masked_fraction"] = [0.2, 0.5, 1.0, 0.3]
    table["scale"] = [0.98, 1.0, np.nan, 1.02]
    vetting = [[1.1, 1.2, np.nan, 1.3], [0.2, 0.8, 9.0, 0.4]]
    table = append_fields(table, ["excess", "deviation"], vetting, usemask=False)
    found = summarize_exposures(table, 0.04)
    assert (found["exposures_used"], found["exposures_rejected"]) == (3, 1)
    assert (found["masked_median"], found["masked_worst"]) == (0.3, 0.5)
    assert_allclose(found["level_scatter"], 2)
    assert (found["stripe_rms"], found["excess"]) == (0.04, 1.2)
    assert_allclose([found["deviation_worst"], found["deviation_ratio"]], [0.8, 2])
    alone = summarize_exposures(table[:1], None)
    assert [alone[name] for name in ("level_scatter", "stripe_rms", "excess")] == 3 * [None]


def test_a_table_of_exposures_that_were_not_used():
    table = np.zeros(2, dtype=SkyflatModel().get_dtype("metadata"))
    found = summarize_exposures(table, None)
    assert (found["exposures_used"], found["exposures_rejected"]) == (0, 2)
    assert (found["masked_median"], found["masked_worst"]) == (None, None)


@pytest.mark.parametrize("contrast", [0.9, 1.1])
def test_levels_and_edge(contrast):
    sky = 0.7 * sky_image(FULL, contrast=contrast, structure=0)
    flags = np.zeros(sky.shape, dtype=np.uint32)
    found = measure_sky(sky, sky, 0.01 * sky, flags, FULL)
    inside = ~FULL.reference_pixels()
    columns = np.broadcast_to(np.arange(2048), sky.shape)
    left, right = (np.median(sky[inside & side]) for side in (columns < 680, columns > 730))
    assert_allclose(found["level_left"], left, rtol=0.01)
    assert_allclose(found["level_right"], right, rtol=0.01)
    assert_allclose(found["level_ratio"], right / left, rtol=0.01)
    # The edge is tilted: at row 1846 it is where it was measured.
    assert_allclose(found["step_column_1846"], 700, atol=1.5)
    assert_allclose(found["step_column_1280"] - found["step_column_1846"], -5.1, atol=0.6)
    assert 15 < found["step_width_1846"] < 50
    shifted = Window("", FULL.y0, FULL.x0 - 5, *FULL.shape)
    moved = sky_image(shifted, contrast=contrast, structure=0)
    again = measure_sky(moved, moved, sky, flags, FULL)
    assert_allclose(again["step_column_1846"] - found["step_column_1846"], 5, atol=0.2)
    assert_allclose(again["step_width_1846"], found["step_width_1846"], atol=3)


def test_noise_and_flags():
    rng = np.random.default_rng(2)
    sky = sky_image(WINDOW, structure=0)
    err = np.full(sky.shape, 0.05, dtype=np.float32)
    bkg = (sky + 0.06 * rng.standard_normal(sky.shape)).astype(np.float32)
    dq = np.where(SCIENCE, 0, 2**31).astype(np.uint32)
    dq[10:20, 100:200] |= np.uint32(2048)
    dq[30:40, 100:300] |= np.uint32(1)
    bkg[10:40, 100:300] += 50
    found = measure_sky(bkg, sky, err, dq, WINDOW)
    assert_allclose(found["noise"], 0.06, rtol=0.03)
    assert_allclose(found["noise_ratio"], 1.2, rtol=0.03)
    assert_allclose(found["hot"], 1000 / SCIENCE.sum())
    assert_allclose(found["filled"], 2000 / SCIENCE.sum())
    assert "step_column_1846" in found
    assert "step_column_768" not in found
    plain = measure_sky(bkg, None, err, dq, WINDOW)
    assert "noise" not in plain
    assert_allclose(plain["level_left"], found["level_left"], rtol=0.01)


def test_a_window_without_an_edge():
    window = Window("FULL", 1824, 1000, 64, 256)
    sky = sky_image(window, structure=0)
    found = measure_sky(sky, sky, sky, np.zeros(sky.shape, np.uint32), window)
    assert_allclose(found["level_left"], np.median(sky), rtol=1e-3)
    assert (found["level_right"], found["level_ratio"]) == (None, None)
    assert "step_column_1846" not in found


def test_a_sky_whose_edge_is_not_found():
    sky = np.full(WINDOW.shape, 5, dtype=np.float32)
    found = measure_sky(sky, sky, sky, np.zeros(sky.shape, np.uint32), WINDOW)
    names = ("level_right", "level_ratio", "step_column_1846", "step_width_1846")
    assert np.isnan([found[name] for name in names]).all()


def test_an_edge_on_a_noisy_foot():
    """Noise at the foot of the edge reaches a tenth of its height."""
    sky = sky_image(WINDOW, structure=0)
    expected = measure_sky(sky, sky, sky, np.zeros(sky.shape, np.uint32), WINDOW)
    sky[:, 651] += 0.15 * (sky[:, 760] - sky[:, 640])
    sky[:, 766] *= 0.9
    found = measure_sky(sky, sky, sky, np.zeros(sky.shape, np.uint32), WINDOW)
    for name in ("step_column_1846", "step_width_1846"):
        assert_allclose(found[name], expected[name], atol=1)


def test_good_exposures():
    images, masks, bkg, err = observe()
    found = measure(images, masks, bkg, err)
    few = np.mean((np.sum(masks == 0, axis=0) < 3)[SCIENCE])
    assert_allclose(found["few_samples"], few)
    assert_allclose(found["chi2"], 1, atol=0.02)
    assert abs(found["star_light"]) < 0.1
    assert_allclose(found["denoised_ratio"], 1, atol=0.3)
    assert found["jackknife"] < 0.1


def test_misstated_errors():
    images, masks, bkg, err = observe()
    found = measure(images, masks, bkg, 2 * err)
    assert_allclose(found["chi2"], 0.25, atol=0.01)


def test_star_light_that_leaks():
    """Unmasked star light in one of six exposures raises the metric."""
    images, masks, bkg, err = observe()
    clean = measure(images, masks, bkg, err)
    images[2] += star_image(WINDOW, draw_stars(1.0, 3))
    bkg = np.mean(np.where(masks == 0, images, bkg), axis=0)
    found = measure(images, masks, bkg, err)
    assert found["star_light"] > clean["star_light"] + 0.3
    assert found["denoised_ratio"] > 3 * clean["denoised_ratio"]


@pytest.mark.parametrize("fraction", [0.003, 0.006])
def test_stripes_that_denoising_leaves(fraction):
    """Stripes that all exposures share remain in the denoised sky, and the metric fails."""
    images, masks, bkg, err = observe()
    stripes = fraction * np.random.default_rng(3).standard_normal(WINDOW.nx).astype("f4")
    striped = sky_image(WINDOW, structure=0) * (1 + stripes)
    assert measure(images, masks, bkg, err, striped)["denoised_ratio"] > HIGHEST
    good = np.ones(WINDOW.shape, dtype=bool)
    denoised = denoise_sky(bkg * (1 + stripes), err, good)
    found = measure(images * (1 + stripes), masks, bkg * (1 + stripes), err, denoised)
    assert found["denoised_ratio"] < HIGHEST


def _own_stripes(shape, rng):
    """Draw a stripe for each column."""
    return 0.05 * rng.standard_normal(shape[1])


def _pedestal(_, rng):
    """Draw a constant."""
    return 0.03 * rng.standard_normal()


@pytest.mark.parametrize("fault", [_own_stripes, _pedestal])
def test_amplifiers_that_were_not_levelled(fault):
    """The metric detects stripes or pedestals of two amplifiers that got their common mean."""
    window, rng = Window("FULL", 960, 600, 128, 256), np.random.default_rng(4)
    images, masks, _, err = observe(window=window)
    low, high = METRICS["stripes_left"].limits
    for image in images:
        left = fault(window.shape, rng)
        for sign, band in zip((1, -1), window.amplifiers(), strict=True):
            image[band] += sign * left
    count = np.maximum(np.sum(masks == 0, axis=0), 1)
    bkg = np.sum(images, axis=0, where=masks == 0) / count
    assert measure(images, masks, bkg, err, window=window)["stripes_left"] > high
    images, masks, bkg, err = observe(window=window)
    good = measure(images, masks, bkg, err, window=window)["stripes_left"]
    assert_allclose(good, np.sqrt(1 - 0.3), rtol=0.35)
    assert low < good < high


def test_halves_that_differ():
    """A glow in every other exposure contributes half of itself to the deviation of each half."""
    images, masks, bkg, err = observe()
    images[::2, :, 1000:1300] *= 1.04
    found = measure(images, masks, bkg, err)
    expected = 100 * 0.02 * sky_image(WINDOW, structure=0)[:, 1000:1300].max() / np.median(bkg)
    assert_allclose(found["jackknife"], expected, rtol=0.05)


def test_an_exposure_that_is_left_out():
    images, masks, bkg, err = observe()
    good = measure(images, masks, bkg, err)
    images = np.concatenate([images[:3], 100 + images[:1], images[3:]])
    masks = np.concatenate([masks[:3], np.ones_like(masks[:1]), masks[3:]])
    assert measure(images, masks, bkg, err) == good


def test_exposures_smaller_than_a_cell():
    window = Window("", 1000, 800, 1, 64)
    assert measure(*observe(window=window), window=window)["star_light"] is None


def test_a_single_exposure():
    found = measure(*observe(number=1, masked=0.0))
    assert found["few_samples"] == 1
    assert {name for name, value in found.items() if value is None} == {
        "chi2", "stripes_left", "star_light", "denoised_ratio", "jackknife"
    }  # fmt: skip


def test_two_exposures():
    """Stars cannot be detected, since the residuals of two exposures are antisymmetric."""
    images, masks, bkg, err = observe(number=2, masked=0.0)
    images[1] += star_image(WINDOW, draw_stars(1.0, 3))
    found = measure(images, masks, images.mean(axis=0), err)
    assert found["star_light"] is None
    assert found["jackknife"] > 1


def test_halves_without_a_block_in_common():
    images, masks, bkg, err = observe()
    masks[::2, :, 10:] = 1
    found = measure(images, masks, bkg, err)
    assert np.isnan(found["jackknife"])


def test_a_glow_in_the_last_rows():
    """A glow is found even where the last block of the large scales has half the height."""
    images, masks, bkg, err = observe()
    images[::2, 66:, 1000:1300] *= 1.2
    assert measure(images, masks, bkg, err)["jackknife"] > 5


def test_noise_of_smoothing_where_coverage_is_uneven():
    """The noise is that expected by ERR, with holes and with halves of different size."""
    images, masks, bkg, err = observe(number=9, masked=0.2)
    rng = np.random.default_rng(5)
    for mask in masks[1::2][:3]:
        mask[:, 300:900] = 1
    masks[:, rng.random(WINDOW.shape) < 0.3] = 1
    count = np.sum(masks == 0, axis=0)
    bkg = np.where(count > 0, np.sum(images, axis=0, where=masks == 0) / np.maximum(count, 1), bkg)
    err = (NOISE / np.sqrt(np.maximum(count, 1))).astype("f4")
    assert_allclose(measure(images, masks, bkg.astype("f4"), err)["denoised_ratio"], 1, atol=0.2)


# --- ranges ------------------------------------------------------------------------------


@pytest.fixture
def table():
    values = {
        "step_column_256": 700.0,
        "step_column_1846": 730.0,
        "chi2": 1.5,  # at the end of its range
        "hot": np.nan,  # could not be measured
        "star_light": None,  # nothing to measure
        "noise": 0.05,  # without a range
    }
    ranges = {name: metric.limits for name, metric in METRICS.items()} | {"chi2": (0.5, 1.5)}
    return flag_metrics(values, METRICS, ranges, SkyflatModel().get_dtype("qc"))


def test_flags(table):
    flags = [flag.decode() for flag in table["flag"]]
    assert flags == ["pass", "fail", "pass", "fail", "no range", "no range"]
    faults = ["step_column_1846 is 730, not 680 to 725", "hot is nan, not 0 to 0.03"]
    assert list_failures(table) == faults
    assert np.isnan(table["low"][-2:]).all()
    assert table["unit"][0] == b"pixel"
    assert table["comment"][2] == METRICS["chi2"].comment.encode()


def test_printed_table(table):
    head, _, *lines = format_metrics(table)
    assert head.split() == ["name", "value", "unit", "low", "high", "flag", "comment"]
    assert len(lines) == len(table)
    assert "step_column_1846" in lines[1]
    assert "fail" in lines[1]
    assert len({line.index("pixel") for line in lines[:2]}) == 1


def write(tmp_path, text, name="ranges.yaml"):
    """Write a file of ranges; return its name."""
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


DEFINED = {"chi2": Metric("", (0.5, 1.3), "chi2"), "step_column": Metric("pixel", (680, 725), "")}


def test_defaults():
    assert read_ranges(None, DEFINED) == {"chi2": (0.5, 1.3), "step_column": (680, 725)}
    assert all(
        low <= high for low, high in filter(None, (metric.limits for metric in METRICS.values()))
    )


def test_a_yaml_file_overrides_the_defaults(tmp_path):
    """A range may apply to one row of a metric; null removes a range."""
    text = "step_column_256: [690, .inf]\nstep_column: [685.5, 720]\nchi2: null\n"
    ranges = read_ranges(write(tmp_path, text), DEFINED)
    assert ranges == {"chi2": None, "step_column": (685.5, 720), "step_column_256": (690, np.inf)}
    values = {"step_column_256": 800.0, "step_column_768": 800.0, "chi2": 9.0}
    table = flag_metrics(values, DEFINED, ranges, SkyflatModel().get_dtype("qc"))
    assert [flag.decode() for flag in table["flag"]] == ["pass", "fail", "no range"]
    assert np.isnan(table["low"][2])


def test_the_example_of_the_docs():
    ranges = read_ranges(Path(__file__).parents[1] / "docs" / "ranges.yaml", METRICS)
    assert (ranges["exposures_used"], ranges["stripe_rms"]) == ((5, np.inf), None)


def test_an_ecsv_file_overrides_the_defaults(tmp_path, table):
    """The QC table of a product is valid, and so is a table with gaps."""
    path = tmp_path / "qc.ecsv"
    Table(table).write(path, format="ascii.ecsv")
    ranges = read_ranges(path, METRICS)
    assert (ranges["chi2"], ranges["noise"]) == ((0.5, 1.5), None)
    again = flag_metrics({"chi2": 1.4}, METRICS, ranges, table.dtype)
    assert again["flag"] == b"pass"
    gaps = Table({"name": ["chi2", "step_column"], "low": [1, 2], "high": [2, 3]}, masked=True)
    gaps["low"].mask = gaps["high"].mask = [True, False]
    gaps.write(path, format="ascii.ecsv", overwrite=True)
    assert read_ranges(path, DEFINED) == {"chi2": None, "step_column": (2, 3)}


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.yaml", "chi3: [0, 1]", "a.yaml: there is no metric chi3$"),
        ("a.yaml", "chi2_256_: [0, 1]", "a.yaml: there is no metric chi2_256_$"),
        ("a.yaml", "7: [0, 1]", "a.yaml: there is no metric 7$"),
        ("a.yaml", "chi2: [1.5, 0.5]", "a.yaml: chi2: 1.5 to 0.5 ends before it begins$"),
        ("a.yaml", "chi2: [0, .nan]", "a.yaml: chi2: 0 to nan ends before it begins$"),
        ("a.yaml", "chi2: 1", r"a.yaml: chi2: 1 is not \[low, high\] or null$"),
        ("a.yaml", "chi2: [0, 1, 2]", r"a.yaml: chi2: \[0, 1, 2\] is not \[low, high\] or null$"),
        ("a.yaml", "chi2: [a, b]", r"a.yaml: chi2: \['a', 'b'\] is not \[low, high\] or null$"),
        ("a.yml", "chi2: [0, 1", "^[^\n]*a.yml: cannot be read [^\n]*$"),
        ("a.yaml", "- chi2", "a.yaml: cannot be read .not a mapping of metrics"),
        ("a.yaml", "", "a.yaml: cannot be read .not a mapping of metrics"),
        ("a.ecsv", "name low high\nchi2 0 1", "a.ecsv: cannot be read"),
        ("a.ecsv", ECSV.format("low", "chi2", "chi2"), "a.ecsv: .*a metric is listed twice"),
        ("a.ecsv", ECSV.format("lowest", "chi2", "hot"), "a.ecsv: cannot be read .'low'.$"),
        ("a.txt", "chi2: [0, 1]", "a.txt: ranges must be in a .yaml, .yml or .ecsv file"),
    ],
)
def test_faulty_ranges(tmp_path, name, text, fault):
    with pytest.raises(SkyflatError, match=fault):
        read_ranges(write(tmp_path, text, name), DEFINED)


def test_no_work_is_done_with_faulty_ranges(visit, tmp_path, monkeypatch):
    """The pipeline finds the fault before flat-fielding."""
    monkeypatch.setattr(SkyflatPipeline, "_flat_field", None)
    with pytest.raises(SkyflatError, match="nowhere.yaml: no such file"):
        strun(
            "soss_background.SkyflatPipeline",
            visit,
            f"--steps.skyflat_quality.ranges={tmp_path / 'nowhere.yaml'}",
        )


# --- step and pipeline -------------------------------------------------------------------


@pytest.fixture(scope="module")
def skyflat(visit, flat, tmp_path_factory):
    """Make a skyflat; return its file."""
    folder = tmp_path_factory.mktemp("skyflat")
    SkyflatPipeline.call(
        visit,
        steps={"flat_field": {"override_flat": flat}},
        save_results=True,
        output_dir=str(folder),
    )
    return next(folder.glob("*_skyflat.fits"))


def test_the_pipeline_measures(skyflat):
    """The metrics in the file agree with those recomputed from it."""
    qc = Table.read(skyflat, "QC")
    assert fits.getheader(skyflat)["S_SKYQC"] == "COMPLETE"
    assert list(qc.colnames) == ["name", "value", "unit", "comment", "low", "high", "flag"]
    assert "fail" not in qc["flag"]
    found = dict(zip(qc["name"], qc["value"], strict=True))
    with SkyflatModel(skyflat) as model:
        assert found["exposures_used"] == model.meta.skyflat.n_samples
        assert found["stripe_rms"] == model.meta.skyflat.stripe_rms
        few = np.mean(np.sum(model.masks == 0, axis=0)[model.dq < 2**31] < 3)
        assert_allclose(found["few_samples"], few)
        assert_allclose(found["hot"], np.mean(model.dq[model.dq < 2**31] & 2048 > 0))
    assert 0 < found["stripe_rms"] < 0.2


def test_alone(skyflat, tmp_path):
    """The step runs on a file, which is unchanged, with a range of the user."""
    before = checksums([skyflat])
    ranges = write(tmp_path, "level_left: [1, 2]")
    strun(STEP, skyflat, f"--ranges={ranges}", "--output_dir", tmp_path)
    assert checksums([skyflat]) == before
    (path,) = tmp_path.glob("*_skyflatquality.fits")
    first, again = (Table.read(file, "QC") for file in (skyflat, path))
    assert_allclose(first["value"], again["value"])
    (row,) = again[again["flag"] == "fail"]
    assert (row["name"], row["low"], row["high"]) == ("level_left", 1, 2)


def test_failures_are_logged(skyflat, tmp_path, caplog):
    SkyflatQualityStep.call(str(skyflat), ranges=write(tmp_path, "chi2: [3, 4]"))
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"{skyflat.name}: chi2 is" in warning.getMessage()
    assert "not 3 to 4" in warning.getMessage()


def test_a_denoised_sky_with_gaps_is_refused():
    skyflat = make_skyflat(window=SUBSTRIP96)
    skyflat.bkgdn[50, 1000:1003] = [np.nan, np.inf, -np.inf]
    skyflat.bkgdn[:, 0] = np.nan  # reference pixels
    with pytest.raises(SkyflatError, match="BKGDN has no value in 3 science pixels"):
        SkyflatQualityStep.call(skyflat)


def test_fail_on_qc(visit, flat, tmp_path):
    ranges = write(tmp_path, "hot: [0.5, 1]")
    options = ["--steps.skyflat_quality.fail_on_qc=1", f"--steps.skyflat_quality.ranges={ranges}"]
    pipeline = "soss_background.SkyflatPipeline"
    with pytest.raises(SkyflatError, match=r"_skyflat.fits: hot is .*, not 0.5 to 1"):
        strun(pipeline, visit, f"--steps.flat_field.override_flat={flat}", *options)
    assert not list(tmp_path.glob("*.fits"))


def test_ranges_in_a_parameter_file(skyflat, tmp_path):
    ranges = write(tmp_path, "chi2: [3, 4]")
    SkyflatQualityStep(ranges=ranges).export_config(tmp_path / "pars.asdf")
    strun("pars.asdf", skyflat)
    (path,) = tmp_path.glob("*_skyflatquality.fits")
    qc = Table.read(path, "QC")
    assert list(qc["name"][qc["flag"] == "fail"]) == ["chi2"]


def test_misstated_errors_of_exposures(visit, tmp_path):
    """ERR of the sky follows the scatter; the metric reports wrong errors of exposures."""
    copies = shutil.copytree(visit.parent, tmp_path / "visit")
    for path in copies.glob("*_rateints.fits"):
        with fits.open(path, mode="update") as hdus:
            hdus["ERR"].data *= 3
    found = {}
    for asn in (visit, copies / visit.name):
        result = SkyflatPipeline.call(asn, steps={"flat_field": {"skip": True}})
        rows = {str(row["name"]): row for row in result.qc}
        found[asn] = rows["excess"]["value"]
        assert_allclose(result.metadata["excess"], found[asn], rtol=0.1)
    first, second = found.values()
    assert_allclose(first, 1, atol=0.25)
    assert_allclose(second, first / 3, rtol=0.05)
    assert rows["excess"]["flag"] == "fail"


def test_denoised_again(skyflat):
    """Denoising removes earlier metrics."""
    denoised = SkyflatDenoiseStep.call(str(skyflat), sigma_rows=5.0)
    assert denoised.qc is None
    assert denoised.meta.cal_step.skyflat_quality is None
    assert SkyflatQualityStep.call(denoised).qc is not None


def test_what_lacks_its_masks(skyflat):
    with SkyflatModel(skyflat) as model:
        model.masks = None
        names = [str(name) for name in SkyflatQualityStep.call(model).qc["name"]]
    assert "level_left" in names
    assert "chi2" not in names


def test_without_a_stack(visit, flat):
    """Metrics of the exposures are measured before these are dropped, and not again."""
    steps = {"flat_field": {"override_flat": flat}, "skyflat_combine": {"save_stack": False}}
    bare = SkyflatPipeline.call(visit, steps=steps)
    assert bare.images is None
    assert bare.masks is None
    assert "chi2" in [str(name) for name in bare.qc["name"]]
    names = [str(name) for name in SkyflatQualityStep.call(bare).qc["name"]]
    assert "level_left" in names
    assert "chi2" not in names


def test_a_glow_in_one_exposure(tmp_path):
    """A glow too faint for rejection, but stronger than other deviations, fails the metric."""
    association = simulate_visit(tmp_path, replace(SMALL, star_density=0.0))
    path = sorted(tmp_path.glob("*_rateints.fits"))[1]
    y, x = np.indices((128, 256))
    with fits.open(path, mode="update") as hdus:
        hdus["SCI"].data += 0.6 * np.exp(-((x - 200) ** 2 + (y - 60) ** 2) / 2 / 50**2)
    skyflat = SkyflatPipeline.call(association, steps={"flat_field": {"skip": True}})
    assert skyflat.metadata["used"].all()
    rows = {str(row["name"]): row for row in skyflat.qc}
    assert rows["deviation_ratio"]["flag"] == "fail"
    assert_allclose(rows["deviation_worst"]["value"], skyflat.metadata["deviation"][1])


@pytest.mark.parametrize("flagged", ["noise", "exposures_rejected"])
def test_a_metric_without_a_default_range(skyflat, tmp_path, flagged):
    ranges = write(tmp_path, f"{flagged}: [5, 6]")
    qc = SkyflatQualityStep.call(str(skyflat), ranges=ranges).qc
    assert [str(row["name"]) for row in qc if row["flag"] == "fail"] == [flagged]


def test_star_light_of_a_visit(tmp_path, visit, flat, skyflat):
    """The metric rises where stars are not masked, and fails."""
    steps = {"flat_field": {"override_flat": flat}, "skyflat_mask": {"n_sigma": 40.0}}
    leaky = SkyflatPipeline.call(visit, steps=steps).qc
    rows = {str(row["name"]): row for row in leaky}
    good = {row["name"]: row for row in Table.read(skyflat, "QC")}
    assert rows["star_light"]["value"] > 10 * abs(good["star_light"]["value"])
    assert rows["star_light"]["flag"] == "fail"
    empty = simulate_visit(tmp_path, replace(SMALL, star_density=0.0))
    clean = SkyflatPipeline.call(empty, steps={"flat_field": {"skip": True}}).qc
    (value,) = (row["value"] for row in clean if row["name"] == "star_light")
    assert abs(value) < 0.05
