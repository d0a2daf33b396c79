"""Make the bundled digits: the first 1,000 images of each class of MNIST's training set, in MNIST's order.

python scripts/bundle_digits.py path/to/mnist.npz
"""

import sys
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "equipoise" / "data" / "digits.npz"


def main(source: str) -> None:
    with np.load(source) as mnist:
        x, y = mnist["x_train"], mnist["y_train"]
    keep = np.sort(np.concatenate([np.flatnonzero(y == digit)[:1000] for digit in range(10)]))
    np.savez_compressed(OUT, x=x[keep], y=y[keep].astype(np.uint8))
    print(f"{OUT}: {len(keep)} images, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
