"""Settings of a simulation."""

from dataclasses import dataclass, field

import numpy as np

from soss_background.detector import FULL, PWCPOS, SOSS_BANDS, SUBSTRIP256, SUPERSTRIPES, Window
from soss_background.simulate.dispersed_sky import REFERENCE_SHAPE, SkyShape
from soss_background.simulate.point_spread import REFERENCE_SPREAD, PointSpread

__all__ = ["Simulation"]

# Seconds between two groups, by subarray. A superstripe reads its block and four reference columns:
# (256 + 12 rows) * (columns + 4 + 2) * 10 microseconds.
GROUP_TIMES = {
    "FULL": 10.73677,
    "SUBSTRIP256": 5.49416,
    "SUBSTRIP96": 2.21424,
    "SUB17STRIPE_SOSS": 0.06164,
    "SUB60STRIPE_SOSS": 0.17688,
    "SUB204STRIPE_SOSS": 0.5628,
    "SUB680STRIPE_SOSS": 1.83848,
}
# Integration time, s, for which `Simulation.read_noise` is given.
READ_NOISE_TIME = 100.0

# Settings with limits.
_POSITIVE = ("n_exposures", "n_integrations", "exposure_time", "sky_level", "step_contrast")
_NOT_NEGATIVE = ("seed", "star_density", "stripes", "pedestals", "read_noise", "persistence")


@dataclass(frozen=True)
class Simulation:
    """
    The settings of a simulated visit; change them with `dataclasses.replace`.

    Attributes
    ----------
    seed : int
        Seed of all random numbers.
    window : `~soss_background.detector.Window`
        The pixels that are read out: a subarray, or any rectangle of the full detector.
    filter_name : str
        "CLEAR" or "F277W".
    n_exposures, n_integrations : int
        Number of dithered exposures, and of integrations in each.
    exposure_time : float
        Time of a whole exposure, s.
    sky_level : float
        Factor of the commissioning sky (4.7 and 7.4 DN/s left and right of its edge), or of that
        of F277W (0.45 DN/s).
    step_contrast : float
        Factor of the sky right of its edge.
    sky_structure : float
        Factor of the sky's structure in two dimensions; 0 leaves the column profile.
    level_scatter, colour_scatter : float
        rms of the level and of the edge contrast from exposure to exposure, fractions.
    sky_profile : ndarray, shape (2048,), or None
        Sky along the columns, DN/s, instead of the simulator's own profile.
    sky_shape : `~soss_background.simulate.SkyShape`
        Edge, colours and additional structure of the sky.
    level_drift : float
        Linear change of the level from the first to the last exposure, fraction.
    pwcpos : float
        Position of the pupil wheel, degrees.
    star_density : float
        0 for no stars, 1 for faint flux of stars (more than 0.3 % of the sky) over about half of
        the full frame, 3 for a crowded field.
    star_slope : float
        Slope of the cumulative number of stars with flux.
    star_spectra : str
        "cool" (black bodies of about 4500 K), "all" (2800 to 9000 K) or "flat".
    galaxies : float
        Fraction of the stars that are galaxies.
    order0 : bool
        Whether stars have images of order 0.
    spread : `~soss_background.simulate.PointSpread`
        The point-spread function.
    trace_shifts : tuple of tuple of float
        Shift of the traces of each order: Legendre coefficients over the columns, pixels.
    persistence : float
        Fraction of the stars' flux in an exposure that persists in the next one.
    persistence_decay : float
        Factor by which persistence declines from one exposure to the next.
    stripes : float
        rms of the 1/f stripes of an integration, DN/s.
    stripe_power : float
        Power spectrum of the stripes over the columns: frequency to the power of minus this.
    stripe_sharing : float
        Fraction of the variance of the stripes that all amplifiers share; the rest is independent.
    pedestals : float
        rms of the constant of each amplifier and integration, DN/s; in superstripes, of each block
        of columns and integration.
    flagged_hot, unflagged_hot : float
        Fractions of pixels with a steady excess, with and without a DQ flag.
    dead : float
        Fraction of dead pixels, flagged.
    lost : float
        Fraction of pixels that are NaN and DO_NOT_USE; they differ in every integration.
    cosmic_rays : float
        Hits per pixel and second.
    unflagged_cosmic_rays : float
        Fraction of these hits that the jump detection misses.
    snowballs : float
        Snowballs in 100 s over the full detector.
    photon_noise : bool
        Whether to add photon noise.
    read_noise : float
        rms of the read noise of an integration of 100 s, DN/s; scales as time ** -1.5, and for
        superstripes with the square root of the time between groups relative to SUBSTRIP256.
    flat_pixel_rms, flat_large_rms : float
        rms of the flat field from pixel to pixel and on scales of 256 pixels, fractions; both 0
        for no flat field.
    flat_pixel_error, flat_large_error : float
        rms of the errors of the flat reference file, as above; it differs from the flat field.
    error_factor : float
        Factor of the uncertainties (ERR, VAR_POISSON, VAR_RNOISE as standard deviations): 1 for
        those that are correct.
    lon, lat : float
        Barycentric mean ecliptic longitude and latitude of the telescope's V1 axis, degrees.
    start : str
        Start of the first exposure, ISO 8601, UTC.
    program, observation, target : str
        Program and observation numbers, and the target's name (TARGPROP).
    families : tuple of tuple of str
        Nuisances and their families, if `choose_families` chose them; for the record only.
    """

    seed: int = 1
    window: Window = FULL
    filter_name: str = "CLEAR"
    n_exposures: int = 10
    n_integrations: int = 3
    exposure_time: float = 300.0
    sky_level: float = 1.0
    step_contrast: float = 1.0
    sky_structure: float = 1.0
    level_scatter: float = 0.004
    colour_scatter: float = 0.001
    sky_profile: np.ndarray | None = field(default=None, compare=False)
    sky_shape: SkyShape = REFERENCE_SHAPE
    level_drift: float = 0.0
    pwcpos: float = PWCPOS
    star_density: float = 1.0
    star_slope: float = 0.9
    star_spectra: str = "cool"
    galaxies: float = 0.0
    order0: bool = True
    spread: PointSpread = REFERENCE_SPREAD
    trace_shifts: tuple = ()
    persistence: float = 0.0
    persistence_decay: float = 0.5
    stripes: float = 0.05
    stripe_power: float = 1.0
    stripe_sharing: float = 1.0
    pedestals: float = 0.0
    flagged_hot: float = 0.003
    unflagged_hot: float = 0.003
    dead: float = 0.002
    lost: float = 0.0005
    cosmic_rays: float = 1.6e-5
    unflagged_cosmic_rays: float = 0.05
    snowballs: float = 0.0
    photon_noise: bool = True
    read_noise: float = 0.08
    flat_pixel_rms: float = 0.01
    flat_large_rms: float = 0.02
    flat_pixel_error: float = 0.0
    flat_large_error: float = 0.0
    error_factor: float = 1.0
    lon: float = 9.0
    lat: float = -2.0
    start: str = "2023-11-16T00:00:00"
    program: str = "4479"
    observation: str = "001"
    target: str = "SKYFLAT-1"
    families: tuple = field(default=(), compare=False)

    def __post_init__(self):
        """Raise ValueError for settings that cannot be simulated."""
        for name, value in vars(self).items():
            if isinstance(value, float) and not np.isfinite(value):
                raise ValueError(f"{name} is {value}, not a finite number")
        if self.filter_name not in SOSS_BANDS:
            raise ValueError(f"filter_name is {self.filter_name}, not CLEAR or F277W")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must not be negative")

    @property
    def integration_time(self):
        """Time of one integration, s; in superstripes, of one block of columns."""
        return self.exposure_time / self.n_integrations / len(self.window.column_blocks())

    @property
    def groups(self):
        """Number of groups of an integration, at least two."""
        return max(2, round(self.integration_time / GROUP_TIMES[self.window.name]))

    @property
    def slope_noise(self):
        """Read noise of one integration of this length, DN/s."""
        noise = self.read_noise * (self.integration_time / READ_NOISE_TIME) ** -1.5
        if self.window.name in SUPERSTRIPES:
            noise *= (GROUP_TIMES[self.window.name] / GROUP_TIMES[SUBSTRIP256.name]) ** 0.5
        return noise
