"""A run: an experiment is trained on images in a model_dir, and evaluated."""
