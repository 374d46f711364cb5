"""Full-size run from end to end: ten FULL exposures by strun, compared with the truth."""

import numpy as np
import pytest
from helpers import run_program

from soss_background.simulate import Simulation, simulate_visit
from soss_background.simulate.comparison import compare_with_truth, sky_errors


@pytest.mark.full_size
def test_ten_full_exposures(tmp_path):
    visit = simulate_visit(tmp_path / "visit", Simulation(seed=2))
    flat = tmp_path / "visit" / "flat.fits"
    done = run_program(
        "strun",
        "soss_background.SkyflatPipeline",
        visit,
        f"--steps.flat_field.override_flat={flat}",
        home=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (product,) = tmp_path.glob("*_skyflat.fits")
    assert product.name == "nis_clear_gr700xd_LON009_LAT-02_DOY320_001_000_skyflat.fits"
    comparison = compare_with_truth(product, tmp_path / "visit" / "truth.fits")
    assert comparison.bkg.shape == (2048, 2048)
    assert np.isfinite(comparison.bkgdn).all()
    _, plain = sky_errors(comparison.median, comparison.truth, comparison.science)
    _, ours = sky_errors(comparison.bkgdn, comparison.truth, comparison.science)
    for metric, value in ours.items():
        assert value < 0.5 * plain[metric], metric
    limits = {"scatter": 0.18, "p99": 0.6, "rms": 0.3, "blocks": 0.16, "edge": 0.35}
    for metric, limit in limits.items():
        assert ours[metric] < limit, metric
    pull = comparison.bkg / np.median(comparison.bkg / comparison.truth) - comparison.truth
    pull = (pull / np.where(comparison.science, comparison.err, np.inf))[comparison.science]
    assert 0.95 < 1.4826 * np.median(np.abs(pull)) < 1.1
