"""Compiled kernels that make training views: numba functions of one uint8 image, and their random numbers.

Every kernel is called with one set of types only. Several processes may then fill numba's cache at once: whichever
file is written last, it holds the same code.
"""
