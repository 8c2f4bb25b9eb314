"""All that is Ray: nodes, Tune, Train, workers."""

from raygan.sweep.cluster import ray_quirks

ray_quirks.set_in_environment(ray_quirks.FIRST_SETTINGS)
