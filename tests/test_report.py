"""Reports: correct numbers, all figures, and no need for other files."""

import base64
import io
import re
import shutil
import subprocess
from html import unescape
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
from soss_background.quality.guide import GUIDE
from soss_background.quality.metrics import METRICS, count_samples
from soss_background.report import skyflat_plots as plots
from soss_background.report.skyflat import report_skyflat, write_reports
from soss_background.report.views import PULL_EDGES, View, view_exposures
from soss_background.simulate import sky_image
from soss_background.steps.metric_ranges import strip_row

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
    """Parse a report: cells of its tables, links, ids, alt texts, headings, figures."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.links, self.figures = {}, [], []
        self.ids, self.alts, self.headings, self.tags = [], [], [], []
        self._rows = self._cell = None
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.links += [attrs[key] for key in ("href", "src", "xlink:href") if key in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "img":
            self.alts.append(attrs.get("alt", ""))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
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


def test_deviations_fill_their_figure():
    """The deviations fill their figure; the legend lists a threshold far above them."""
    table = Table({"used": [1, 1, 1], "deviation": [0.3, 0.4, 0.4]}).as_array()
    ax = Figure().subplots()
    plots.draw_vetting(ax, table, mad_threshold=0.05)
    assert_allclose(ax.get_ylim(), [0, 1.4 * 0.4])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "mad_threshold: 5 %, above this figure" in labels
    assert "3 times a typical one: 1.2 %, above this figure" in labels
    plots.draw_vetting(other := Figure().subplots(), table, mad_threshold=0.0045)
    labels = [text.get_text() for text in other.get_legend().get_texts()]
    assert "mad_threshold: 0.45 %" in labels


def test_a_faint_star_shows_in_a_smoothed_residual():
    """Smoothing reveals a star below the noise of blocks; masked blocks stay unknown."""
    rng = np.random.default_rng(5)
    residual = rng.normal(0, 0.5, (96, 96)).astype("f4")
    residual[50:52, 20:50] += 0.6
    residual[10:20, 60:80] = np.nan
    ax = Figure().subplots()
    plots.draw_residual(ax, View(residual, residual, residual, np.zeros(160)))
    shown = ax.images[0].get_array()
    assert_array_equal(shown.mask, np.isnan(residual))
    noise = np.std(shown[70:, :])
    assert np.mean(shown[50:52, 25:45]) / noise > 3 * 0.6 / 0.5
    assert_allclose(ax.images[0].get_clim(), [-1, 1])


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
    found, qc = metric_rows(html), Table.read(skyflat, "QC")
    assert sorted(found) == sorted(qc["name"])
    for metric in qc:
        row = found[metric["name"]]
        assert_allclose(float(row[1]), np.ma.filled(metric["value"], np.nan), rtol=0)
        assert row[3] == metric["flag"]
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
    data = [link.partition("base64,")[2] for link in links if link.startswith("data")]
    sizes = {images.imread(io.BytesIO(base64.b64decode(each))).shape[:2] for each in data}
    assert sizes == {(920, 1160), (370, 740)}
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(ids)) == len(ids)


def metric_rows(html):
    """Return the rows of the table of metrics by name, without the headings of groups."""
    return {row[0]: row for row in Html(html).tables["qc"][1:] if len(row) > 1}


def test_metrics_are_in_groups(html):
    """Each metric belongs to a group, and links to its meaning and to what to do."""
    assert {name for group in GUIDE.values() for name in group} == set(METRICS)
    page = Html(html)
    rows = page.tables["qc"][1:]
    # The simulated window is too narrow to measure the edge.
    headings = ["Exposures", "Sky", "Noise", "Stars"]
    assert [row[0] for row in rows if len(row) == 1] == headings
    assert {f"#group-{heading.lower()}" for heading in headings} <= set(page.links)
    names = [row[0] for row in rows if len(row) > 1]
    assert names.index("exposures_used") < names.index("level_left") < names.index("star_light")
    anchors = {f"#guide-{strip_row(name)}" for name in names}
    assert anchors <= set(page.links)
    text = html.read_text()
    for name in map(strip_row, names):
        (advice,) = [group[name] for group in GUIDE.values() if name in group]
        assert advice in unescape(text)


def test_fractions_are_percent(skyflat, html):
    (shown,) = re.findall(r'data-value="([^"]+)">([^<]+)</td>\s*<td>%', html.read_text())[:1]
    value = Table.read(skyflat, "QC")[2]
    assert (value["name"], value["unit"]) == ("masked_median", "fraction")
    assert float(shown[1]) == pytest.approx(100 * value["value"], rel=1e-3)
    assert float(shown[0]) == pytest.approx(value["value"])
    assert metric_rows(html)["masked_median"][4] == "0 to 85"
    assert metric_rows(html)["exposures_used"][4] == "at least 3"


def test_links_of_a_report_lead_somewhere(html):
    page = Html(html)
    targets = {link[1:] for link in page.links if link.startswith("#")}
    assert targets <= set(page.ids)
    # Each figure can be enlarged.
    assert set(page.figures) <= targets


def test_a_screen_reader_is_served(html):
    """Alt texts, headings in order, headed columns, and a keyboard reaches what scrolls."""
    page = Html(html)
    assert len(page.alts) == len(page.figures)
    assert all(page.alts)
    assert len(set(page.alts)) == len(page.alts)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert max(np.diff(page.headings)) <= 1
    for tag, attrs in page.tags:
        if tag == "th":
            assert "scope" in attrs
        if attrs.get("class") == "scroll":
            assert attrs["tabindex"] == "0"
            assert attrs["aria-label"]
    tags = [tag for tag, _ in page.tags]
    assert tags.count("main") == 1
    assert ("html", {"lang": "en"}) in page.tags


def luminance(colour):
    """Return the relative luminance of a colour, as WCAG 2 defines it."""
    digits = colour.strip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    values = np.array([int(digits[start : start + 2], 16) for start in (0, 2, 4)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_contrast_of_colours(html):
    """At least 4.5 for all text in light and dark, the level AA of WCAG 2."""
    schemes = re.findall(r":root \{(.*?)\}", html.read_text(), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w+);", scheme))
        for ground in ("paper", "card"):
            for text in ("ink", "soft", "pass", "fail"):
                pair = sorted(luminance(colours[name]) for name in (ground, text))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ground, text)


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
    assert f"--steps.skyflat_combine.exclude={EXCLUDED}\n" in text.replace("<", "\n")
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
    """Each skyflat gets a report, and an overview links to them; folders precede equal names."""
    other, twin = tmp_path / "other.fits", tmp_path / "sub" / "other.fits"
    make_skyflat(1, window=SUBSTRIP96).save(other)
    twin.parent.mkdir()
    shutil.copy(other, twin)
    verdicts = write_reports([skyflat, other, twin], tmp_path / "all.html")
    here = tmp_path.name
    assert list(verdicts) == [skyflat.name, f"{here}/other.fits", "sub/other.fits"]
    overview = Html(tmp_path / "all.html")
    names = [f"all_{skyflat.stem}.html", f"all_{here}_other.html", "all_sub_other.html"]
    assert overview.links == names
    assert overview.tables[None][1:] == list(map(list, verdicts.items()))
    assert f"<h1>{here}/other.fits</h1>" in (tmp_path / names[1]).read_text()
    assert "<h1>sub/other.fits</h1>" in (tmp_path / names[2]).read_text()


def test_two_settings_are_compared(tmp_path):
    """The overview shows the parameters that differ, not those that are the same."""
    paths = []
    for n_sigma in (3.0, 4.0):
        model = make_skyflat(1, window=SUBSTRIP96)
        parameters = {"steps.skyflat_mask.n_sigma": n_sigma, "steps.skyflat_mask.grow": 2}
        model.meta.skyflat.runs.append({"command": "strun", "parameters": parameters})
        paths.append(tmp_path / f"n{n_sigma:g}" / "sky.fits")
        paths[-1].parent.mkdir()
        model.save(paths[-1])
    write_reports(paths, tmp_path / "all.html")
    rows = Html(tmp_path / "all.html").tables[None]
    assert rows[0] == ["skyflat", "quality", "parameters that differ"]
    assert [(row[0], row[2]) for row in rows[1:]] == [
        ("n3/sky.fits", "steps.skyflat_mask.n_sigma = 3.0"),
        ("n4/sky.fits", "steps.skyflat_mask.n_sigma = 4.0"),
    ]


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
