"""From stored images to views: facts of the datasets, sources, kernels, policies, the pipeline."""
