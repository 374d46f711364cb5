"""The mean of integrations, compared with the expected one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stdatamodels.jwst.datamodels import dqflags

from soss_background.numerics.integrations import average_integrations, usable_pixels

DO_NOT_USE = dqflags.pixel["DO_NOT_USE"]
JUMP = dqflags.pixel["JUMP_DET"]


def cube(data, err, dq=0):
    data = np.array(data, dtype=np.float32).reshape(-1, 1, 1)
    err = np.array(err, dtype=np.float32).reshape(-1, 1, 1)
    dq = np.broadcast_to(np.array(dq, dtype=np.uint32), data.size).reshape(-1, 1, 1)
    return data, err, dq, np.zeros_like(data), err**2


def test_inverse_variance_mean():
    averages = average_integrations(*cube([1, 4], [1, 2]))
    assert_allclose(averages["data"], (1 + 4 / 4) / (1 + 1 / 4))
    assert_allclose(averages["err"], 1 / np.sqrt(1 + 1 / 4))
    assert_allclose(averages["var_rnoise"], averages["err"] ** 2)


@pytest.mark.parametrize(
    ("data", "err", "dq"),
    [
        ([1, 100], [1, 1], [JUMP, DO_NOT_USE]),
        ([1, np.nan], [1, 1], [JUMP, 0]),
        ([1, 100], [1, 0], [JUMP, 0]),
        ([1, 100], [1, np.nan], [JUMP, 0]),
        ([1, 100], [1, np.inf], [JUMP, 0]),
    ],
)
def test_bad_integrations_are_left_out(data, err, dq):
    averages = average_integrations(*cube(data, err, dq))
    assert averages["data"] == 1
    assert averages["err"] == 1
    assert averages["dq"] == JUMP


def test_no_usable_integration():
    averages = average_integrations(*cube([1, np.nan], [0, 1], [JUMP, 0]))
    assert np.isnan(averages["data"])
    assert np.isnan(averages["err"])
    assert averages["dq"] == DO_NOT_USE | JUMP


def test_poisson_noise_does_not_bias_the_mean():
    rng = np.random.default_rng(1)
    counts = rng.poisson(200, size=(4, 200, 200)).astype(np.float32)
    err = np.sqrt(counts)
    dq = np.zeros(counts.shape, dtype=np.uint32)
    averages = average_integrations(counts, err, dq, counts, np.zeros_like(counts))
    assert_allclose(averages["data"].mean(), 200, rtol=2e-4)
    naive = np.average(counts, weights=1 / err**2)
    assert naive < 200 * (1 - 2e-3)  # the purpose of the method
    assert_allclose(np.std(averages["data"]) / np.mean(averages["err"]), 1, rtol=0.02)


def test_usable_pixels():
    data = np.array([1, np.nan, 1, 1, 1, 1], dtype=np.float32)
    err = np.array([1, 1, 0, -1, np.nan, 1], dtype=np.float32)
    dq = np.array([JUMP, 0, 0, 0, 0, DO_NOT_USE], dtype=np.uint32)
    assert_array_equal(usable_pixels(data, err, dq), [1, 0, 0, 0, 0, 0])
