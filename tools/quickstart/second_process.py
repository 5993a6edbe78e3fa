"""Of the quickstart: a client that knows TensorFlow only. SAVED_MODEL FILE.npz -> the largest difference."""

import os
import sys

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf


def main(saved_model: str, path: str) -> None:
    """Compares the export's predictions with those in the file; exits with 1 where they differ by 1e-5 or more."""
    with np.load(path) as expected:
        images, probabilities = expected["images"], expected["probabilities"]
    serve = tf.saved_model.load(saved_model).signatures["images"]
    answers = serve(images=tf.constant(images, tf.float32))
    difference = np.abs(answers["probabilities"].numpy() - probabilities).max()
    print(f"divco_tf imported: {'divco_tf' in sys.modules}")
    print(f"largest difference of {len(images)} predictions from the trained model's: {difference:.2g}")
    print(f"largest disagreement between branches: {answers['disagreement'].numpy().max():.4f} nats")
    sys.exit(int(difference >= 1e-5))


if __name__ == "__main__":
    main(*sys.argv[1:])
