"""How weights are updated: the rules, their settings, and the learning rate over a run."""
