"""One sentence about the sky of an exposure."""

import numpy as np

__all__ = ["summarize_fit"]


def summarize_fit(fit, sky, science, right, fraction):
    """
    Describe the sky of an exposure in a sentence.

    Parameters
    ----------
    fit : `~soss_background.subtract.sky_fit.SkyFit`
        The fit.
    sky : ndarray of float, shape (ny, nx)
        The sky as it is in the image: in the flat state of the exposure, DN/s.
    science : ndarray of bool, shape (ny, nx)
        False for reference pixels.
    right : ndarray of bool, shape (ny, nx)
        True right of the edge; False everywhere without an edge.
    fraction : float
        Fraction of the pixels that the fit used.

    Returns
    -------
    sentence : str
        Medians of the sky left and right of its edge with their 1-sigma uncertainties, shift of the
        edge, fraction of the pixels used, and reduced chi-square. Without an edge, the sentence has
        one median and no shift.
    """
    left_error = fit.level_left_err / fit.level_left
    right_error = fit.level_right_err / fit.level_right
    used = f"fitted to {100 * fraction:.0f} % of the pixels (reduced chi-square {fit.chi2:.2f})"
    left_level = _format_level(sky[science & ~right], left_error)
    if not right.any():
        return f"the sky is {left_level}, {used}"
    right_level = _format_level(sky[science & right], right_error)
    return (
        f"the sky is {left_level} left and {right_level} right of its edge, which is shifted by "
        f"{fit.shift:+.2f} pixels, {used}"
    )


def _format_level(sky, relative_error):
    """Return the median of pixels, with its uncertainty."""
    level = float(np.median(sky))
    return f"{level:.3f} +/- {abs(level * relative_error):.3f} DN/s"
