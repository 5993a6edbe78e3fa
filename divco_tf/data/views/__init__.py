"""Views of images: what is drawn is data (policies, augmentations), how it is applied are compiled kernels."""
