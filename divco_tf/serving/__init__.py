"""Exports that TF Serving loads."""
