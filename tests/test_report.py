"""Reports: correct numbers, all figures, and no need for other files."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from helpers import checksums, make_skyflat
from matplotlib import image as images
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from soss_background import SkyflatModel, SkyflatPipeline, SkyflatQualityStep
from soss_background.cli import main
from soss_background.detector import SUBSTRIP96, Window
from soss_background.errors import SkyflatError
from soss_background.quality.metrics import count_samples
from soss_background.report import skyflat_plots as plots
from soss_background.report.skyflat import report_skyflat, write_reports
from soss_background.report.views import PULL_EDGES, view_exposures
from soss_background.simulate import sky_image

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
EXCLUDED = "jw04479001001_03101_00002_nis_rateints.fits"


@pytest.fixture(scope="module")
def skyflat(visit, flat, tmp_path_factory):
    """Create a skyflat with an exposure that is left out; return its file."""
    folder = tmp_path_factory.mktemp("skyflat")
    steps = {"flat_field": {"override_flat": flat}, "skyflat_combine": {"exclude": [EXCLUDED]}}
    SkyflatPipeline.call(visit, steps=steps, save_results=True, output_dir=str(folder))
    return next(folder.glob("*_skyflat.fits"))


@pytest.fixture(scope="module")
def html(skyflat, tmp_path_factory):
    """Write the report on the skyflat."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    report_skyflat(skyflat).save_html(path)
    return path


class Html(HTMLParser):
    """Parse a report: cells of its tables, links, ids of its figures."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.links, self.figures = {}, [], []
        self._rows = self._cell = None
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[key] for key in ("href", "src", "xlink:href") if key in attrs]
        if tag == "figure":
            self.figures.append(attrs["id"])
        if tag == "table":
            self._rows = self.tables.setdefault(attrs.get("id"), [])
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._cell = ""
            self._value = attrs.get("data-value")

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._rows[-1].append(self._value or self._cell)
            self._cell = None


# --- what is drawn -----------------------------------------------------------------------


def stack(number=4, shape=(64, 96), seed=1):
    """Draw exposures of a plain sky of 5 DN/s; return them with masks, their mean and its error."""
    rng = np.random.default_rng(seed)
    images = (5 + 0.1 * rng.standard_normal((number, *shape))).astype("f4")
    masks = (rng.random(images.shape) < 0.2).astype(np.uint8)
    coverage = count_samples(masks)
    bkg = np.sum(images, axis=0, where=masks == 0) / np.maximum(coverage, 1)
    err = 0.1 / np.sqrt(np.maximum(coverage, 1))
    return images, masks, bkg.astype("f4"), err.astype("f4"), coverage


def test_coverage():
    _, masks, *_, coverage = stack()
    assert_array_equal(coverage, 4 - masks.sum(axis=0))


def test_variation_is_that_of_numpy():
    images, masks, bkg, err, coverage = stack()
    _, variation = view_exposures(images, masks, bkg, err, coverage)
    samples = np.where(masks == 0, images, np.nan)
    several = coverage > 1
    expected = 100 * np.nanstd(samples[:, several], axis=0, ddof=1) / bkg[several]
    assert_allclose(variation[several], expected, rtol=1e-4)
    assert np.isnan(variation[~several]).all()


def test_residuals_and_masks_are_medians_of_blocks():
    images, masks, bkg, err, coverage = stack()
    images[2, 8:16, 16:24] += 1
    views, _ = view_exposures(images, masks, bkg, err, coverage)
    assert_allclose(views[2].residual[1, 2], 20, atol=2)
    assert abs(np.median(views[2].residual)) < 0.2
    assert_allclose(views[2].image[1, 2], 6, atol=0.1)
    assert_allclose(views[1].masked[0, 0], masks[1, :8, :8].mean())


def test_pulls_are_normal():
    views, _ = view_exposures(*stack(6, (256, 256)))
    counts = sum(view.pulls for view in views)
    middle = (PULL_EDGES[1:] + PULL_EDGES[:-1]) / 2
    assert_allclose(np.sqrt(np.sum(counts * middle**2) / counts.sum()), 1, atol=0.02)


def test_an_exposure_that_is_left_out_is_shown_at_the_level_of_the_sky():
    images, masks, bkg, err, coverage = stack()
    # Stars cover a third of it, which are not masked.
    odd = 3 * images[:1]
    odd[0, 32:40] *= 1.5
    odd[0, :, :32] *= 1.3
    views, variation = view_exposures(
        np.concatenate([images, odd]), np.concatenate([masks, np.ones_like(masks[:1])]),
        bkg, err, coverage,
    )  # fmt: skip
    assert_array_equal(variation, view_exposures(images, masks, bkg, err, coverage)[1])
    assert not views[-1].pulls.any()
    assert_allclose(np.median(views[-1].residual[:4, 4:]), 0, atol=0.5)
    assert_allclose(np.median(views[-1].residual[4, 4:]), 50, atol=2)
    assert_allclose(np.median(views[-1].residual[:4, :4]), 30, atol=2)


def test_plots_show_what_they_are_given():
    """The public functions draw their data on given axes."""
    views, variation = view_exposures(*stack())
    coverage = stack()[-1]
    window = Window("FULL", 2048 - 64, 700, 64, 96)
    (ax,) = Figure().subplots(1, 1, squeeze=False)[0]
    plots.draw_coverage(ax, coverage, window)
    shown = ax.images[0].get_array()
    assert shown.mask[-4:].all()
    assert_array_equal(shown[:-4], coverage[:-4])
    # In pixels of the full frame.
    assert_allclose([*ax.get_xlim(), *ax.get_ylim()], [699.5, 795.5, 1983.5, 2047.5])
    (ax,) = Figure().subplots(1, 1, squeeze=False)[0]
    plots.draw_variation(ax, variation, window)
    assert_array_equal(ax.images[0].get_array().filled(-1), np.nan_to_num(variation, nan=-1))
    (ax,) = Figure().subplots(1, 1, squeeze=False)[0]
    plots.draw_pulls(ax, views)
    assert len(ax.lines) == len(views) + 2


def test_profiles():
    sky = sky_image(SUBSTRIP96, structure=0)
    axes = Figure().subplots(1, 3)
    plots.draw_column_profile(axes[0], {"BKG": sky}, SUBSTRIP96)
    columns, profile = axes[0].lines[0].get_data()
    assert_allclose(profile[100], np.median(sky[:, 100]), rtol=1e-5)
    assert_array_equal(columns, np.arange(2048))
    assert np.isnan(profile[0])
    plots.draw_row_profiles(axes[1], sky, SUBSTRIP96)
    assert [line.get_label() for line in axes[1].lines] == ["left of the edge", "right of the edge"]
    assert_allclose(np.median(axes[1].lines[0].get_ydata()), 0, atol=1e-5)
    plots.draw_edge(axes[2], sky, SUBSTRIP96)
    columns, risen = axes[2].lines[0].get_data()
    assert_allclose(columns[np.argmin(np.abs(risen - 0.5))], 700, atol=3)
    assert_allclose([risen[0], risen[-1]], [0, 1], atol=0.03)


def test_a_sky_without_an_edge_can_be_drawn():
    window = Window("FULL", 1824, 1000, 64, 256)
    axes = Figure().subplots(1, 2)
    plots.draw_edge(axes[0], sky_image(window), window)
    plots.draw_row_profiles(axes[1], sky_image(window), window)
    assert len(axes[1].lines) == 1


def test_vetting_plot():
    table = Table({"used": [1, 0, 1], "deviation": [0.3, 8.0, 0.4]}).as_array()
    ax = Figure().subplots()
    plots.draw_vetting(ax, table, mad_threshold=0.05)
    heights = {patch.get_x() + 0.4: patch.get_height() for patch in ax.patches}
    assert_allclose([heights[key] for key in sorted(heights)], [0.3, 8.0, 0.4])
    assert_array_equal(ax.lines[0].get_ydata(), [5, 5])
    assert_allclose(ax.lines[1].get_ydata(), 3 * 0.35)


def test_structure():
    """The structure shows a remaining star, but not the edge."""
    sky = sky_image(SUBSTRIP96, structure=0)
    sky[30:32, 1000:1100] *= 1.02
    ax = Figure().subplots()
    plots.draw_structure(ax, sky, SUBSTRIP96)
    shown = ax.images[0].get_array()
    assert_allclose(shown[30:32, 1000:1100], 2, atol=0.2)
    assert abs(np.ma.median(shown[:, 600:800])) < 0.1


# --- the report --------------------------------------------------------------------------


def test_numbers_are_those_of_the_file(skyflat, html):
    found, qc = Html(html).tables["qc"][1:], Table.read(skyflat, "QC")
    assert [row[0] for row in found] == list(qc["name"])
    assert_allclose([float(row[1]) for row in found], qc["value"], rtol=0)
    assert [row[3] for row in found] == list(qc["flag"])
    exposures, table = Html(html).tables["exposures"], Table.read(skyflat, "METADATA")
    columns = exposures.pop(0)
    rows = [dict(zip(columns, row, strict=True)) for row in exposures]
    assert [row["exposure"] for row in rows] == list(table["filename"])
    for row, true in zip(rows, table, strict=True):
        assert row["deviation"] == f"{true['deviation']:.2f} %"
        assert row["not used"] == f"{100 * true['masked_fraction']:.1f} %"
    assert [row["decision"] for row in rows[:3]] == ["used", "not used: left out by hand", "used"]
    header = fits.getheader(skyflat)
    assert f"<dd>{header['LON']:.2f}°</dd>" in html.read_text()


def test_needs_no_other_file_and_no_network(html):
    text = html.read_text()
    links = Html(html).links
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"url\((?!#)|@import|<script|<link", text)
    # Figures have twice as many pixels as they are shown with.
    data = [link.removeprefix("data:image/png;base64,") for link in links]
    sizes = {images.imread(io.BytesIO(base64.b64decode(each))).shape[:2] for each in data}
    assert sizes == {(920, 1160), (370, 740)}
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(ids)) == len(ids)


def test_figures(html):
    expected = [
        "bkg",
        "bkgdn",
        "structure",
        "err",
        "coverage",
        "column_profile",
        "edge",
        "row_profiles",
    ]
    expected += ["deviations", "variation", "pulls"]
    expected += [f"exposure_{number:03d}" for number in range(1, 6)]
    assert Html(html).figures == expected


def test_how_it_was_made(skyflat, html):
    text = html.read_text()
    assert f"--steps.skyflat_combine.exclude={EXCLUDED}," in text
    assert "soss_background.SkyflatPipeline \\\n" in text
    assert "steps.skyflat_denoise.sigma_rows" in text
    assert fits.getheader(skyflat)["ASNTABLE"] in text


def test_a_model_is_shown_and_left_open(skyflat, tmp_path):
    with SkyflatModel(skyflat) as model:
        report_skyflat(model).save_html(tmp_path / "a.html")
        assert model.bkg[64, 100] > 0
    report_skyflat(skyflat).save_html(tmp_path / "b.html")
    first, second = ((tmp_path / name).read_text() for name in ("a.html", "b.html"))
    assert Html(tmp_path / "a.html").tables == Html(tmp_path / "b.html").tables
    assert first.count("<figure") == second.count("<figure")


def test_a_skyflat_with_little_in_it(tmp_path):
    """A report works without BKGDN, exposures and QC, and escapes the name."""
    model = make_skyflat(1, window=SUBSTRIP96)
    model.bkgdn = model.metadata = None
    model.meta.target.proposer_name = "<b>&"
    model.save(tmp_path / "plain.fits")
    report = report_skyflat(tmp_path / "plain.fits")
    assert report.verdict == "The quality has not been measured"
    report.save_html(tmp_path / "plain.html")
    html = Html(tmp_path / "plain.html")
    assert html.figures == ["bkg", "structure", "err", "column_profile", "edge", "row_profiles"]
    assert "&lt;b&gt;&amp;" in (tmp_path / "plain.html").read_text()


def test_without_a_stack(visit, flat, tmp_path):
    """The report explains that metrics of the exposures were measured before these were dropped."""
    steps = {"flat_field": {"override_flat": flat}, "skyflat_combine": {"save_stack": False}}
    report = report_skyflat(SkyflatPipeline.call(visit, steps=steps))
    assert "chi2" in [row["name"] for row in report.metrics]
    report.save_html(tmp_path / "bare.html")
    assert "cannot be shown" in (tmp_path / "bare.html").read_text()
    assert "pulls" not in Html(tmp_path / "bare.html").figures


def test_a_skyflat_without_a_sky(tmp_path):
    model = make_skyflat(1, window=SUBSTRIP96)
    model.bkg[:] = np.nan
    model.save(tmp_path / "nan.fits")
    with pytest.raises(SkyflatError, match="nan.fits: no sky in it"):
        report_skyflat(tmp_path / "nan.fits")


def test_nothing_is_read_for_a_place_that_cannot_be_written_to(skyflat, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert main(["report", str(skyflat), "-o", "taken/report.html"]) == 1
    assert "taken: not a folder" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "a file"


def test_one_of_several_is_broken(skyflat, tmp_path):
    """If one skyflat is broken, nothing is written."""
    (tmp_path / "broken.fits").write_bytes(skyflat.read_bytes()[:400_000])
    with pytest.raises(SkyflatError, match="broken.fits: truncated in extension"):
        write_reports([skyflat, tmp_path / "broken.fits"], tmp_path / "all.html")
    assert not list(tmp_path.glob("*.html"))


def test_command_line(skyflat, tmp_path, capsys):
    before = checksums([skyflat])
    assert main(["report", str(skyflat), "-o", "new/sky.html"]) == 0
    assert "metrics are within their range" in capsys.readouterr().out
    assert (tmp_path / "new" / "sky.html").is_file()
    assert checksums([skyflat]) == before


def test_several_skyflats(skyflat, tmp_path):
    """Each skyflat gets a report, and an overview links to them, even if names are equal."""
    other, twin = tmp_path / "other.fits", tmp_path / "sub" / "other.fits"
    make_skyflat(1, window=SUBSTRIP96).save(other)
    twin.parent.mkdir()
    shutil.copy(other, twin)
    verdicts = write_reports([skyflat, other, twin], tmp_path / "all.html")
    assert list(verdicts) == [skyflat.name, str(other), str(twin)]
    overview = Html(tmp_path / "all.html")
    names = [f"all_{skyflat.stem}.html", "all_other.html", "all_other_2.html"]
    assert overview.links == names
    assert overview.tables[None][1:] == list(map(list, verdicts.items()))
    assert str(other) in (tmp_path / names[1]).read_text()
    assert str(twin) in (tmp_path / names[2]).read_text()


def test_a_bad_metric_is_reported(skyflat, tmp_path):
    ranges = str(tmp_path / "ranges.yaml")
    Path(ranges).write_text("chi2: [3, 4]")
    report = report_skyflat(SkyflatQualityStep.call(str(skyflat), ranges=ranges))
    assert report.flag == "fail"
    assert "chi2 is" in report.verdict
    report.save_html(tmp_path / "bad.html")
    assert '<p class="fail">' in (tmp_path / "bad.html").read_text()


@pytest.mark.parametrize(
    ("name", "fault"), [("nowhere.fits", "no such file"), ("text.fits", "cannot be read")]
)
def test_what_is_no_skyflat(tmp_path, capsys, name, fault):
    (tmp_path / "text.fits").write_text("no FITS")
    assert main(["report", name]) == 1
    assert f"{name}: {fault}" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not here")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 500)])
def test_in_a_browser(html, tmp_path, scheme, width):
    """Chromium draws the report in light and dark, without overflow on a phone."""
    settings = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    screenshot = tmp_path / "report.png"
    probe = tmp_path / "probe.html"
    script = "<script>document.title = document.documentElement.scrollWidth</script></body>"
    probe.write_text(html.read_text().replace("</body>", script))
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", settings, f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900", f"--screenshot={screenshot}", "--dump-dom",
            probe.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "details::details-content" in done.stdout
    (scroll,) = re.findall(r"<title>(\d+)</title>", done.stdout)
    assert int(scroll) <= width
    pixels = images.imread(screenshot)[..., :3]
    paper = np.median(pixels.reshape(-1, 3), axis=0)
    assert (paper.mean() > 0.9) == (scheme == "light")
    assert pixels.std() > 0.05
