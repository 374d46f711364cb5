"""The sentence that the log has about the sky of an exposure."""

import numpy as np
import pytest

from soss_background.detector import SUBSTRIP256, Window
from soss_background.simulate import sky_image
from soss_background.sky.edge import right_of_edge
from soss_background.subtract.sky_fit import SkyFit
from soss_background.subtract.summary import summarize_fit


def make_fit(sky, **changes):
    """Return a fit whose levels have errors of 1 and 3 %."""
    levels = {"level_left": 5.0, "level_left_err": 0.05, "level_right": 4.0}
    others = {"level_right_err": 0.12, "shift": -0.314, "chi2": 1.057, "misfit": 0.9}
    planes = {"sky": sky, "err": sky, "wings": sky, "used": sky > 0, "pedestals": np.zeros(0)}
    return SkyFit(**planes, **(levels | others | changes))


def test_both_sides_of_the_edge():
    """Medians of the image, without its reference pixels, and errors of the levels."""
    sky = 2 * sky_image(SUBSTRIP256, structure=0)
    reference = SUBSTRIP256.reference_pixels()
    sky[reference] = 0
    left, right = np.median(sky[:-4, 4:700]), np.median(sky[:-4, 700:-4])
    sides = right_of_edge(sky)
    sentence = summarize_fit(make_fit(sky), sky, ~reference, sides, 0.432)
    words = sentence.split()
    assert float(words[3]) == pytest.approx(left, rel=0.01)
    assert float(words[5]) == pytest.approx(0.01 * left, rel=0.03)
    assert float(words[9]) == pytest.approx(right, rel=0.01)
    assert float(words[11]) == pytest.approx(0.03 * right, rel=0.03)
    assert sentence == (
        f"the sky is {words[3]} +/- {words[5]} DN/s left and {words[9]} +/- {words[11]} DN/s "
        "right of its edge, which is shifted by -0.31 pixels, fitted to 43 % of the pixels "
        "(reduced chi-square 1.06)"
    )


def test_an_image_without_the_edge():
    window = Window("FULL", 1824, 1000, 64, 256)
    sky = np.full(window.shape, 3.0)
    sentence = summarize_fit(make_fit(sky), sky, sky > 0, right_of_edge(sky, window.x0), 0.5)
    assert sentence == (
        "the sky is 3.000 +/- 0.030 DN/s, fitted to 50 % of the pixels (reduced chi-square 1.06)"
    )
