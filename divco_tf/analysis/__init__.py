"""Does it pay? Metrics, diversity, statistics, sweeps over experiments and their report."""
