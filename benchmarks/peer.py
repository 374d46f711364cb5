"""The peer: the algorithm of SOSSBackgrounds (2024), on public libraries.

One pass over the exposures without matching their levels: their sigma-clipped median, segmentation
against it, the median of unmasked pixels, filled holes, non-local means with one sigma.

    python peer.py FLAT EXPOSURES...

reads the first integrations of all exposures into memory, divides them by the flat, and computes
the sky without writing it.
"""

import sys
import warnings

import numpy as np
from astropy.io import fits
from astropy.stats import sigma_clip
from bottleneck import nanmedian
from maskfill import maskfill
from photutils.segmentation import detect_sources, detect_threshold
from scipy import ndimage
from skimage.restoration import denoise_nl_means, estimate_sigma

__all__ = ["peer_sky"]

# Rows and columns of reference pixels that are trimmed.
_TRIM = np.s_[4:-4, 4:-4]


def peer_sky(images, errors, flags):
    """
    Compute a sky as the peer does.

    Parameters
    ----------
    images, errors : ndarray of float32, shape (n, ny, nx)
        Exposures and their uncertainties in DN/s.
    flags : ndarray of uint32, shape (n, ny, nx)
        JWST data quality flags.

    Returns
    -------
    sky, denoised : ndarray of float, shape (ny, nx)
        The sky before and after denoising in DN/s; NaN on the reference pixels.
    """
    images, errors, flags = (stack[:, *_TRIM] for stack in (images, errors, flags))
    first = _clipped_median(images)
    masked = [
        np.where(_find_sources(image, err, first) | (dq > 0), np.nan, image)
        for image, err, dq in zip(images, errors, flags, strict=True)
    ]
    sky = _clipped_median(np.array(masked))
    sky, _ = maskfill(sky, np.isnan(sky))
    sigma = estimate_sigma(sky)
    denoised = denoise_nl_means(sky, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma)
    return tuple(np.pad(plane, 4, constant_values=np.nan) for plane in (sky, denoised))


def _clipped_median(images):
    """Take the median of exposures, clipped at one sigma."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input data contains invalid values")
        clipped = sigma_clip(images, sigma=1, axis=0, masked=False, cenfunc="median")
    return nanmedian(clipped, axis=0)


def _find_sources(image, err, sky):
    """Segment regions brighter than the sky by two sigma, and grow them by a pixel."""
    image = np.where(np.isfinite(image) & np.isfinite(sky), image, 0)
    err, sky = np.nan_to_num(err), np.nan_to_num(sky)
    threshold = detect_threshold(image, 2.0, background=sky, error=err)
    segments = detect_sources(image, threshold, n_pixels=10, connectivity=8)
    if segments is None:
        return np.zeros(image.shape, dtype=bool)
    return ndimage.binary_dilation(segments.data > 0)


def _read(flat, exposures):
    """Read the first integrations of exposures, flat-fielded."""
    flat, stacks = fits.getdata(flat, "SCI"), ([], [], [])
    for path in exposures:
        with fits.open(path) as hdus:
            planes = hdus["SCI"].data[0] / flat, hdus["ERR"].data[0] / flat, hdus["DQ"].data[0]
            for stack, plane in zip(stacks, planes, strict=True):
                stack.append(plane)
    images, errors, flags = (np.array(stack) for stack in stacks)
    return images.astype(np.float32), errors.astype(np.float32), flags


if __name__ == "__main__":
    peer_sky(*_read(sys.argv[1], sys.argv[2:]))
