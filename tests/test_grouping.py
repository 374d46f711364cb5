"""Grouping of exposures that belong together."""

import itertools
from datetime import datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from soss_background.associations.grouping import Exposure, group_exposures

START = datetime(2023, 12, 31, 18)

observations = st.tuples(
    st.sampled_from(["01541", "04479"]), st.sampled_from(["A", "B"]), st.sampled_from(["001", "2"])
)
exposures = st.lists(
    st.builds(
        lambda observation, hours, number, pwcpos: Exposure(
            observation, START + timedelta(hours=hours), Path(f"{number}.fits"), pwcpos
        ),
        observations,
        st.integers(0, 200),
        st.integers(0, 10**6),
        st.floats(245.6, 246.0),
    ),
    unique_by=lambda exposure: exposure.path,
    max_size=30,
)
settings = {
    "gap_days": st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    "by_pwcpos": st.none() | st.floats(0.0, 0.2),
}


def at(days, pwcpos=245.8, observation=("04479", "SKY", "001")):
    """Create an exposure that begins after some days."""
    return Exposure(observation, START + timedelta(days=days), Path(f"{days}.fits"), pwcpos)


def days(groups):
    """Return the groups as the days on which their exposures begin."""
    return [[(e.start - START) / timedelta(days=1) for e in group.exposures] for group in groups]


@given(exposures, st.randoms(), st.fixed_dictionaries(settings))
def test_any_order_gives_the_same_groups(given_exposures, random, rules):
    shuffled = random.sample(given_exposures, len(given_exposures))
    assert group_exposures(shuffled, **rules) == group_exposures(given_exposures, **rules)


@given(exposures, st.fixed_dictionaries(settings))
def test_groups_partition_the_exposures(given_exposures, rules):
    groups = group_exposures(given_exposures, **rules)
    members = [exposure for group in groups for exposure in group.exposures]
    assert sorted(members) == sorted(given_exposures)


@given(exposures, st.fixed_dictionaries(settings))
def test_what_groups_have_in_common(given_exposures, rules):
    """Observation, sequence and wheel agree in a group, and groups cannot be joined."""
    gap, tolerance = timedelta(days=rules["gap_days"]), rules["by_pwcpos"]
    groups = group_exposures(given_exposures, **rules)
    for group in groups:
        starts = [exposure.start for exposure in group.exposures]
        assert {exposure.observation for exposure in group.exposures} == {group.observation}
        assert all(b - a <= gap for a, b in itertools.pairwise(starts))
        assert starts == sorted(starts)
        positions = [exposure.pwcpos for exposure in group.exposures]
        assert tolerance is None or max(positions) - min(positions) <= tolerance + 1e-6
    for one, other in itertools.pairwise(groups):
        if one.observation == other.observation and tolerance is None:
            assert other.exposures[0].start - one.exposures[-1].start > gap


@given(exposures, st.fixed_dictionaries(settings))
def test_numbers(given_exposures, rules):
    groups = group_exposures(given_exposures, **rules)
    for _, siblings in itertools.groupby(groups, lambda group: group.observation):
        siblings = list(siblings)
        numbers = [group.number for group in siblings]
        assert numbers == list(range(len(siblings)))
        starts = [group.exposures[0].start for group in siblings]
        assert starts == sorted(starts)


def test_a_gap_of_exactly_the_limit_does_not_part():
    just_more = 1 + 1e-6 / 86400
    assert days(group_exposures([at(0), at(1), at(2)])) == [[0, 1, 2]]
    assert len(group_exposures([at(0), at(just_more)])) == 2
    assert days(group_exposures([at(0), at(0.1)], gap_days=0.1)) == [[0, 0.1]]
    assert len(group_exposures([at(0), at(0.1)], gap_days=0)) == 2


def test_new_year_is_a_day_as_any_other():
    (group,) = group_exposures([at(0), at(0.2), at(0.3)])
    assert [exposure.start.year for exposure in group.exposures] == [2023, 2023, 2024]


def test_two_targets_in_one_observation():
    groups = group_exposures(
        [at(day, observation=("04479", f"SKY-{target}", "001")) for day, target in ((0, 2), (1, 1))]
    )
    assert [(group.observation[1], group.number) for group in groups] == [
        ("SKY-1", 0),
        ("SKY-2", 0),
    ]


@given(exposures, st.fixed_dictionaries(settings), st.integers(0, 200))
def test_later_exposures_change_no_earlier_group(given_exposures, rules, hours):
    """Products keep their numbers when later exposures of the observation arrive."""
    limit = START + timedelta(hours=hours)
    earlier = group_exposures([e for e in given_exposures if e.start < limit], **rules)
    kept = [
        group._replace(exposures=[e for e in group.exposures if e.start < limit])
        for group in group_exposures(given_exposures, **rules)
    ]
    assert [group for group in kept if group.exposures] == earlier


def test_drift_of_the_pupil_wheel():
    """A slow drift is split where it exceeds the tolerance; the wheel may return."""
    drift = [at(0.1 * step, 245.7 + 0.02 * step) for step in range(6)]
    assert len(group_exposures(drift)) == 1
    assert days(group_exposures(drift, by_pwcpos=0.04)) == [[0, 0.1, 0.2], [0.3, 0.4, 0.5]]
    there_and_back = [at(0, 245.7), at(0.5, 245.9), at(1, 245.7)]
    assert days(group_exposures(there_and_back, by_pwcpos=0.05)) == [[0, 1], [0.5]]
    far_and_back = [at(0, 245.7), at(0.9, 245.9), at(1.8, 245.7)]
    groups = group_exposures(far_and_back, by_pwcpos=0.05)
    assert days(groups) == [[0], [0.9], [1.8]]
    assert [group.number for group in groups] == [0, 1, 2]
