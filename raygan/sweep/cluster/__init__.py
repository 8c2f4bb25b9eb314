"""All that is Ray: nodes, Tune, Train, workers."""
