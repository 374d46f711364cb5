"""
Write the table of SOSS traces in soss_background/sky from the public data of pastasoss.

    pip install pastasoss
    python trace_table.py ../soss_background/sky/soss_traces.json

It also prints the rows of the simulator's table (simulate/traces.py), at 41 columns of a spline
fitted to the reference traces; they differ by at most 0.007 pixels.

The table holds every 32nd row of the reference traces and the wavelength polynomials, expanded in
powers of column / 2048 and of the offset of the pupil wheel in degrees. Read back for offsets of
-0.3 to 0.3 degrees, its rows differ from those of pastasoss 1.2.4 by at most 0.004 pixels (order 1)
and 0.002 pixels (order 2); its wavelengths agree to 1e-6 micron within the fitted range of offsets.
"""

import json
import sys
from pathlib import Path

import numpy as np
from numpy.polynomial import polynomial
from pastasoss.soss_traces import (
    REFERENCE_TRACE_FILES,
    REFERENCE_WAVECAL_MODELS,
    get_reference_trace,
)
from scipy.interpolate import make_lsq_spline

# Nominal position of the pupil wheel, degrees, and columns between the nodes of a trace.
NOMINAL, SPACING = 245.76, 32

COLUMNS = 2048


def describe_trace(order):
    """Collect nodes, centre of rotation and wavelength polynomial of an order."""
    columns, rows, origin = get_reference_trace(REFERENCE_TRACE_FILES[f"order{order}"])
    nodes = np.append(np.arange(0, len(columns) - 1, SPACING), len(columns) - 1)
    coefficients, offsets = expand_wavelengths(order)
    return {
        "origin": origin.tolist(),
        "columns": columns[nodes].tolist(),
        "rows": np.round(rows[nodes], 4).tolist(),
        "offsets": np.round(offsets, 6).tolist(),
        "wavelength": coefficients.tolist(),
    }


def smooth_rows(order, number=41):
    """Fit a cubic spline to a trace; return its rows at evenly spaced knots."""
    columns, rows, _ = get_reference_trace(REFERENCE_TRACE_FILES[f"order{order}"])
    knots = np.linspace(columns[0], columns[-1], number)
    padded = np.concatenate([[columns[0]] * 3, knots, [columns[-1]] * 3])
    return np.round(make_lsq_spline(columns, rows, padded)(knots), 3).tolist()


def expand_wavelengths(order):
    """Return coefficients [column, offset] of the wavelength, and the range of the offset."""
    model = json.loads(Path(REFERENCE_WAVECAL_MODELS[f"order{order}"]).read_text())["model"]
    low, high = (np.array(model["scaler"][key], dtype=float) for key in ("data_min_", "data_max_"))
    if low[1] > 1:  # positions of the wheel, not offsets
        low[1], high[1] = low[1] - NOMINAL, high[1] - NOMINAL
    span = high - low
    column = np.array([-low[0] / span[0], COLUMNS / span[0]])
    offset = np.array([-low[1] / span[1], 1 / span[1]])
    degree = model["poly_deg"]
    total = np.zeros((degree + 1, degree + 1))
    values = iter([model["intercept"], *model["coef"]])
    for power in range(degree + 1):
        for of_offset in range(power + 1):
            along = polynomial.polypow(column, power - of_offset)
            across = polynomial.polypow(offset, of_offset)
            total[: len(along), : len(across)] += next(values) * np.outer(along, across)
    return total, (low[1], high[1])


if __name__ == "__main__":
    table = {str(order): describe_trace(order) for order in (1, 2)}
    Path(sys.argv[1]).write_text(json.dumps(table) + "\n")
    for order in (1, 2):
        print(order, smooth_rows(order))
