"""Co-training: losses, schedules, optimizers, the model, the loop."""
