"""Shake-Shake (Gastaldi, arXiv 1705.07485)."""
