"""Of the quickstart: what a trained run predicts for the test images, into a file: MODEL_DIR FILE.npz."""

import os
import sys

import numpy as np

from divco_tf.tools.shared import app


def main(model_dir: str, path: str) -> None:
    """Writes images uint8 [N, H, W, 3] and the ensemble's probabilities [N, K]."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    app.load_tensorflow()
    import divco_tf
    from divco_tf.training import losses

    stack = divco_tf.load(model_dir)
    source = divco_tf.open_source("digits", "test")
    images = source.read_batch(np.arange(len(source)))
    logits = stack(divco_tf.Preprocessing.for_dataset(divco_tf.get_dataset("digits"))(images))
    np.savez(path, images=images, probabilities=losses.ensemble_probabilities(logits))
    print(f"{len(images)} test images and the trained ensemble's probabilities: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
