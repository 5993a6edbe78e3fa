"""A sweep, or a run, as one HTML page."""
