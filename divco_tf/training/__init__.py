"""Co-training of networks: the losses, the step, and what it asks of Keras."""
