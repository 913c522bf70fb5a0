"""Makes a TensorFlow Datasets directory from your own copy of a set of pictures, without a network.

    python tools/prepare_dataset.py --input=mnist.npz --name=mnist --data_dir=~/tensorflow_datasets

The input is an npz file (x_train, y_train, x_test, y_test, or x, y), a folder of IDX files (packed or not),
or a folder with one sub-folder of pictures a class (or with train/ and test/ that have these). Read it back
with `tfds.load("mnist", data_dir=..., download=False)`, or by the name `mnist` in gin.
"""

import argparse

from meta_rules.errors import exits_cleanly
from meta_rules.tasks import prepare
from meta_rules.tasks.sources import tfds_builder


@exits_cleanly
def main(arguments=None):
    """Parses the command line and prepares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input", required=True, metavar="PATH", help="npz file, IDX folder or folder of pictures"
    )
    parser.add_argument("--name", required=True, help="name of the set, as tfds.load will be given it")
    parser.add_argument(
        "--data_dir", help="folder of prepared sets; $TFDS_DATA_DIR or ~/tensorflow_datasets if not given"
    )
    parser.add_argument(
        "--version", help="version of the set; the library's own for a name that it knows, else 1.0.0"
    )
    parser.add_argument("--resize", type=int, help="bring the pictures of a folder to this side")
    parser.add_argument("--overwrite", action="store_true", help="replace a set that is there")
    options = parser.parse_args(arguments)

    folder, counts = prepare.prepare(
        options.input,
        options.name,
        tfds_builder.data_dir(options.data_dir),
        version=options.version,
        overwrite=options.overwrite,
        resize=options.resize,
    )
    print(f"Wrote {folder}: {', '.join(f'{count} {split}' for split, count in counts.items())}.")


if __name__ == "__main__":
    main()
