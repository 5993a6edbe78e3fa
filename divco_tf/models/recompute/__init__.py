"""Activations that are computed again for the gradient, to save memory."""
