"""How many seeds a comparison takes, against the sweeps that find it."""

import numpy as np
import pytest

from raygan.report.compare import contrast
from raygan.report.planning import detectable, seeds_needed


def test_a_detectable_difference_is_found_in_80_percent_of_sweeps():
    generator, sd, n = np.random.default_rng(0), 0.03, 6
    shift = np.log1p(detectable(sd, n, 3) / 100)
    found = [
        contrast(generator.normal(shift, sd, n), generator.normal(0, sd, n)).p <= 0.05 / 3
        for _ in range(3000)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)  # Welch has a little less freedom


def test_the_seeds_needed_are_the_fewest_that_suffice():
    needed = seeds_needed(0.03, 5, 3)
    assert detectable(0.03, needed, 3) <= 5 < detectable(0.03, needed - 1, 3)
    assert seeds_needed(0.03, 5, 1) < needed < seeds_needed(0.06, 5, 3)
    assert seeds_needed(0.001, 50) == 3
    assert seeds_needed(0.9, 0.1) is None
    assert detectable(0.03, 2) is None
