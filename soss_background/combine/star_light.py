"""Model the star light outside of masks from its motion.

The sky is fixed on the detector, the stars move with the dither. Each exposure is the sum of both,
and the split is ambiguous only for the smoothest light, as in the self-calibration of dithered data
(Fixsen, Moseley & Arendt 2000, ApJS 128, 651). This finds the faint wings of bright stars, which
cover every pixel in some or all exposures: masks of all wings would leave no pixel.

The motion hardly constrains light that is as smooth as the mosaic is wide, or that repeats at the
distance of its pointings. Priors split it: the sky deviates smoothly from its column profile, by a
few percent at most; star light is positive; most of the field is dark. The most probable pair of
sky and stars minimises a convex function (a maximum a posteriori estimate).
"""

import numpy as np
from astropy.stats import mad_std
from bottleneck import nanmedian, nansum
from scipy import ndimage
from scipy.optimize import Bounds, minimize

from soss_background.combine.dither import Mosaic, find_alike, measure_dither, refine_dither
from soss_background.numerics.cells import CELL, expand_smoothly, gather_blocks, subtract_common_sky
from soss_background.numerics.smoothing import gaussian_filter

__all__ = ["model_star_light"]

# Fraction of the sky at which star light is clipped in the search for the dither.
_BRIGHTEST = 0.1

# Smallest spread of the pointings, in cells, that separates stars from sky.
_MIN_DITHER = 2.0

# Rows and columns of cells that are binned to split sky and stars.
_JOINED = (2, 4)

# Cells along columns over which the sky's profile is smoothed: running median, then Gaussian.
_MEDIAN_LENGTH, _PROFILE_LENGTH = 41, 10

# Fractional change of the profile from cell to cell along a row that marks the edge, where a
# profile of cells is too coarse, and number of cells on both sides that the edge affects.
_STEEP, _EDGE_REACH = 0.02, 2

# Deviation of the sky from its profile, white noise smoothed by a Gaussian: standard deviation in
# pixels, and rms as a fraction of the sky.
_SKY_LENGTH, _SKY_RMS = 24.0, 0.01

# Cost of star light, per sigma of a joined cell, so that unconstrained cells stay dark. At half and
# at twice the cost, errors change by less than a tenth; at five times, wide wings stay in the sky.
_DARKNESS = 0.02

# Weight, in joined cells, of a column from which the rms of the stripes is measured, and their
# smallest rms in units of the noise.
_ENOUGH, _LEAST_STRIPES = 4.0, 0.1

# Accuracy of the model of bright stars, as a fraction of their flux.
_MODEL_ERROR = 0.1

# Residual of a solution, in sigma, at which a cell gets half its weight in the next one.
_OUTLYING = 3.0

# Iterations of the minimiser for each solution, and number of iterations that L-BFGS-B stores.
_STEPS, _MEMORY = (25, 25, 25), 8

# Smallest sum of weights by which the star field is divided, where hardly any exposure sees it.
_LEAST_SEEN = 0.3

# Deficit of a cell, in units of its noise, above which the modelled star is rejected.
_MISSING = 5.0


def model_star_light(cells, noise, sources, bands=None):
    """
    Split dithered exposures into a fixed sky and moving stars.

    Parameters
    ----------
    cells, noise : ndarray of float32, shape (n, my, mx)
        Means of cells of the exposures and their 1-sigma uncertainties in DN/s; NaN if missing.
    sources : ndarray of bool, shape (n, my, mx)
        True for masked cells, which constrain the stars, but not the sky.
    bands : list of slice, optional
        Rows of cells of each amplifier; by default there is one.

    Returns
    -------
    light : ndarray of float32, shape (n, my, mx)
        Star light of each exposure in DN/s; 0 in exposures whose stars the others do not predict,
        and in all if fewer than three are left, or if they are not dithered.
    """
    light = np.zeros_like(cells)
    if len(cells) < 3 or not sources.any():
        return light
    bands = bands or [slice(0, cells.shape[1])]
    residuals, sky, levels = subtract_common_sky(cells, noise, sources, bands)
    stars = np.where(sources, np.clip(residuals, 0, _BRIGHTEST * sky), 0)
    stars[~np.isfinite(residuals)] = np.nan
    dither = measure_dither(stars)
    alike = find_alike(stars, dither)
    if not alike.any() or np.ptp(dither[alike], axis=0).max() < _MIN_DITHER:
        return light
    dither = refine_dither(stars[alike], dither[alike])
    levels, sources = levels[alike], sources[alike]
    stars = np.where(sources, residuals[alike], 0)
    profile = _smooth_profile(sky)
    excess = cells[alike] / levels - profile
    edge = _find_edge_cells(profile)
    known = np.isfinite(excess) & ~edge
    excess = np.where(known, excess, 0)
    level = np.median(profile)
    sigma = np.array([nanmedian(image) for image in noise[alike] / levels])
    amplifier = np.repeat(np.arange(len(bands)), [rows.stop - rows.start for rows in bands])
    standing, trust = _standing_light(excess, known, stars, sigma, level, dither, amplifier)
    excess -= standing

    mosaic = Mosaic(dither, profile.shape)
    weight = known * trust
    seen = np.maximum(mosaic.gather(weight), _LEAST_SEEN)
    moving = mosaic.see(np.maximum(mosaic.gather(weight * excess) / seen, 0))
    # Not all light moves with the field: the field stop cuts off order-0 images.
    missing = (excess - moving < -_MISSING * noise[alike] / levels) & ~sources & ~edge
    missing = ndimage.binary_dilation(missing, np.ones((1, 5, 5), dtype=bool))
    light[alike] = np.where(missing, 0, levels * moving)
    return light


def _smooth_profile(sky):
    """Smooth a sky along columns, which suppresses the remaining stars."""
    filled = np.where(np.isfinite(sky), sky, nanmedian(sky, axis=0))
    filled[np.isnan(filled)] = nanmedian(sky)
    smooth = ndimage.median_filter(filled, (_MEDIAN_LENGTH, 1), mode="nearest")
    return ndimage.gaussian_filter1d(smooth, _PROFILE_LENGTH, axis=0, mode="nearest")


def _find_edge_cells(profile):
    """Return True for cells at the edge, where star light is measured in other exposures."""
    steep = np.abs(np.gradient(profile, axis=1)) > _STEEP * np.abs(profile)
    return ndimage.binary_dilation(steep, np.ones((1, 2 * _EDGE_REACH + 1), dtype=bool))


def _standing_light(excess, known, stars, sigmas, level, dither, amplifier):
    """
    Return the fixed excess over a profile (sky and stripes), and the trust in each cell.

    ``amplifier`` is the number of the amplifier that reads each row of cells.
    """
    shape = excess.shape[1:]
    count = np.array([_join(part) for part in known])
    joined, bright = (
        np.array([_join(image) for image in images]) / np.maximum(count, 1)
        for images in (excess, np.where(known, stars, 0))
    )
    sigma = np.median(sigmas) / np.sqrt(np.prod(_JOINED))
    known = count / np.prod(_JOINED) * (np.median(sigmas) / sigmas[:, None, None]) ** 2
    mosaic = Mosaic(dither / _JOINED, count.shape[1:])
    stack = (joined / sigma, known, bright / sigma)
    stack = (part.astype(np.float32) for part in stack)
    # An amplifier of less than a binned row has none.
    joined_amplifier = np.unique(amplifier[:: _JOINED[0]], return_inverse=True)[1]
    amplifier = np.repeat(joined_amplifier, _JOINED[0])[: shape[0]]
    split = _Split(*stack, level / sigma, mosaic, joined_amplifier)
    sky, stripes, trust = split.solve()
    standing = sigma * expand_smoothly(sky, shape, _JOINED)
    along_rows = (stripes.shape[1], shape[1]), (1, _JOINED[1])
    stripes = np.array([expand_smoothly(part, *along_rows) for part in sigma * stripes])
    trust = np.array([expand_smoothly(image, shape, _JOINED) for image in trust])
    return standing + stripes[:, amplifier], trust


class _Split:
    """
    Split exposures into the most probable smooth sky, positive stars and stripes.

    Parameters
    ----------
    excess : ndarray of float32, shape (n, my, mx)
        Exposures minus their sky's profile, in units of the noise.
    known : ndarray of float32, shape (n, my, mx)
        Known fraction of each binned cell, times the inverse variance of the exposure.
    stars : ndarray of float32, shape (n, my, mx)
        First guess of the star light in units of the noise.
    level : float
        Level of the sky in units of the noise.
    mosaic : Mosaic
        The pointings.
    amplifier : ndarray of int, shape (my,)
        Number of the amplifier that reads each row.
    """

    def __init__(self, excess, known, stars, level, mosaic, amplifier):
        self.excess, self.mosaic, self.amplifier = excess, mosaic, amplifier
        self.first_rows = np.searchsorted(amplifier, np.arange(amplifier[-1] + 1))
        seen = np.maximum(mosaic.gather(known), _LEAST_SEEN)
        self.first_field = np.maximum(mosaic.gather(known * stars) / seen, 0)
        # Weights use the mean star, since some exposures do not see a star that they should see.
        self.weight = weight = known / (1 + (_MODEL_ERROR * mosaic.see(self.first_field)) ** 2)
        # Scale white noise smoothed by a Gaussian to the rms of the sky's deviation.
        self.length = _SKY_LENGTH / (np.array(CELL) * _JOINED)
        self.amplitude = np.float32(_SKY_RMS * level * np.sqrt(4 * np.pi * np.prod(self.length)))
        # Scale the unknowns to similar curvatures, so that the minimiser converges fast.
        self.scales = [
            1 / np.sqrt(np.maximum(mosaic.gather(weight), _LEAST_SEEN)),
            1 / np.sqrt(1 + len(excess) * self.amplitude**2 / 4),
        ]
        self.shapes = [mosaic.shape, excess.shape[1:]]
        self.stiffness = self._measure_stiffness(excess - mosaic.see(self.first_field))

    def solve(self):
        """
        Find the most probable sky and stripes.

        Returns
        -------
        sky, stripes : ndarray of float32, shapes (my, mx) and (n, n_amplifiers, mx)
            The fixed sky, and the stripes of each exposure, in units of the noise.
        trust : ndarray of float32, shape (n, my, mx)
            1 where sky and stars explain an exposure, down to 0 where they do not.
        """
        start = self._pack([self.first_field, np.zeros(self.shapes[1])], np.divide)
        lowest = np.full(start.size, -np.inf)
        lowest[: self.first_field.size] = 0
        bounds, options = Bounds(lowest, np.inf), {"maxcor": _MEMORY, "ftol": 0, "gtol": 0}
        weight = self.weight
        for steps in _STEPS:
            options["maxiter"] = steps
            start = minimize(
                self._cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
            ).x
            field, wave = self._unpack(start)
            sky = self._sky(wave)
            left = self.excess - sky - self.mosaic.see(field)
            stripes, _ = self._stripes(left)
            self.stiffness = self._measure_stiffness(left)
            # Stray or persistent light is neither fixed nor moves with the stars: lower its weight.
            left -= stripes[:, self.amplifier]
            trust = 1 / (1 + weight * (left / _OUTLYING) ** 2)
            self.weight = weight * trust
        return sky, stripes, trust

    def _cost(self, unknowns):
        """Return the negative logarithm of the probability, and its gradient."""
        field, wave = self._unpack(unknowns)
        left = self.excess - self._sky(wave) - self.mosaic.see(field)
        stripes, price = self._stripes(left)
        left -= stripes[:, self.amplifier]
        pull = self.weight * left
        cost = 0.5 * (np.vdot(pull, left) + np.vdot(wave, wave) + price) + _DARKNESS * field.sum()
        # A Gaussian is symmetric, so it is its own transpose.
        gradient = [_DARKNESS - self.mosaic.gather(pull), wave - self._sky(pull.sum(axis=0))]
        return float(cost), self._pack(gradient, np.multiply)

    def _unpack(self, unknowns):
        """Split the unknowns into the star field and the white noise that generates the sky."""
        ends = np.cumsum([np.prod(shape) for shape in self.shapes])[:-1]
        parts = zip(np.split(unknowns, ends), self.shapes, self.scales, strict=True)
        return [(part.reshape(shape) * scale).astype(np.float32) for part, shape, scale in parts]

    def _pack(self, parts, scaled):
        """Join unknowns divided by their scales, or their gradient multiplied by the scales."""
        pairs = zip(parts, self.scales, strict=True)
        return np.concatenate([scaled(*pair).ravel() for pair in pairs]).astype(float)

    def _sky(self, wave):
        """Return the sky's deviation from its profile, generated by white noise."""
        return self.amplitude * gaussian_filter(wave, self.length)

    def _stripes(self, images):
        """
        Return the most probable stripes of exposures without sky and stars, and their cost.

        A stripe is a free offset of the exposure, which corrects its level, plus a normal deviate.
        """
        total, weight = self._sum_columns(images)
        trust = weight if self.stiffness == 0 else weight / (weight / self.stiffness + 1)
        mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
        offset = np.sum(trust * mean, axis=(1, 2)) / np.maximum(trust.sum(axis=(1, 2)), 1e-3)
        offset = offset[:, np.newaxis, np.newaxis]
        deviation = (total - offset * weight) / np.maximum(weight + self.stiffness, 1e-3)
        return offset + deviation, self.stiffness * np.vdot(deviation, deviation)

    def _measure_stiffness(self, images):
        """Return the inverse variance of the stripes of exposures, 0 if it is unknown."""
        total, weight = self._sum_columns(images)
        enough = weight > _ENOUGH
        deviations = [
            exposure[known] / precision[known] - np.median(exposure[known] / precision[known])
            for exposure, precision, known in zip(total, weight, enough, strict=True)
            if known.any()
        ]
        if not deviations:
            return np.float32(0)
        variance = mad_std(np.concatenate(deviations)) ** 2 - np.median(1 / weight[enough])
        return np.float32(1 / max(variance, _LEAST_STRIPES**2))

    def _sum_columns(self, images):
        """Return the weighted sum of each column of an amplifier and exposure, and the weights."""
        return (
            np.add.reduceat(part, self.first_rows, axis=1)
            for part in (self.weight * images, self.weight)
        )


def _join(image):
    """Sum cells in blocks."""
    return nansum(gather_blocks(image, _JOINED), axis=-1)
