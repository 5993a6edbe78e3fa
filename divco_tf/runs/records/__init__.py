"""The files in a model_dir: experiment.json, metrics.json, checkpoints."""
