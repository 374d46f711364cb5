"""Draw how each stage reduces the errors of the reference visit, for the documentation.

python accuracy_figure.py OUTPUT.png
"""

import sys
from unittest.mock import patch

import numpy as np
from astropy.nddata import block_reduce
from datasets import REFERENCE, observe_visit
from matplotlib.figure import Figure
from skies import ABLATIONS, limit_sky, our_sky

from soss_background.numerics.integrations import usable_pixels
from soss_background.simulate.comparison import plain_median, sky_errors

# Pixels on a side of the blocks whose median errors are drawn.
_BLOCK = 8


def main(output):
    """Compute the stages and draw them."""
    visit = observe_visit(REFERENCE)
    science = ~visit.window.reference_pixels()
    stages = {name: sky_errors(sky, visit.truth, science) for name, sky in _stages(visit).items()}
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    panels = figure.subplots(2, 3)
    for ax, (name, (error, _)) in zip(panels.flat[:5], stages.items(), strict=True):
        shown = ax.imshow(
            block_reduce(error, _BLOCK, np.nanmedian),
            origin="lower", cmap="RdBu_r", vmin=-1, vmax=1, extent=(0, 2048, 0, 2048),
        )  # fmt: skip
        ax.set(title=name, xlabel="column", ylabel="row")
    figure.colorbar(shown, ax=panels[:, :2], label="error [% of the median sky]", shrink=0.6)
    _draw_budget(panels[1, 2], {name: metrics for name, (_, metrics) in stages.items()})
    figure.savefig(output, dpi=80)


def _stages(visit):
    """Compute the sky of each stage."""
    usable = usable_pixels(visit.images, visit.errors, visit.flags)
    median = plain_median(np.where(usable, visit.images, np.nan))
    with patch.object(*ABLATIONS["star light not subtracted"]):
        masked, _ = our_sky(visit)
    combined, denoised = our_sky(visit)
    return {
        "plain median of the exposures": median,
        "masked, levels and stripes solved": masked.sky,
        "star light subtracted (BKG)": combined.sky,
        "denoised (BKGDN)": denoised,
        "limit: no star light, no stripes": limit_sky(visit)[1],
    }


def _draw_budget(ax, metrics):
    """Draw the errors of each stage as bars."""
    kinds = {"scatter": "scatter", "blocks": "32 x 32 blocks", "edge": "at the edge"}
    width = 0.8 / len(metrics)
    for index, (name, values) in enumerate(metrics.items()):
        places = np.arange(len(kinds)) + (index - 2) * width
        ax.bar(places, [values[kind] for kind in kinds], width, label=name)
    ax.set(yscale="log", ylabel="error [% of the median sky]", title="Error budget")
    ax.set_xticks(np.arange(len(kinds)), kinds.values())
    ax.set_ylim(top=60)
    ax.legend(fontsize="x-small", loc="upper left")


if __name__ == "__main__":
    main(sys.argv[1])
