"""Lists the sources of data as a table, and shows examples of them as a contact sheet.

python tools/show_sources.py
python tools/show_sources.py --preview=all.png
python tools/show_sources.py --source=glyphs --preview=glyphs.png
"""

import argparse

from rich.console import Console
from rich.table import Table

from meta_rules.errors import exits_cleanly
from meta_rules.tasks import contact_sheet, sources


def table(infos):
    """A `rich` table of `SourceInfo`s."""
    shown = Table(title="Sources of data", caption=f"also: {', '.join(sources.path_usages())}")
    for column in ("name", "shape", "classes", "train / validation / test", "ready"):
        shown.add_column(column, no_wrap=True)
    shown.add_column("origin", overflow="fold")
    for info in infos:
        sizes = " / ".join("?" if size is None else f"{size:,}" for size in info.splits.values())
        shown.add_row(
            info.name,
            "?" if info.shape is None else " x ".join(map(str, info.shape)),
            "?" if info.classes is None else str(info.classes),
            sizes,
            "yes" if info.available else "no",
            # The advice that follows is the same for all; it is printed once, below.
            f"{info.origin} ({info.reason.partition(';')[0]})" if info.reason else info.origin,
        )
    return shown


@exits_cleanly
def main(arguments=None):
    """Parses the command line and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", help="show this one only, by name, with path and options")
    parser.add_argument("--preview", metavar="FILE.png", help="write examples to this picture")
    parser.add_argument("--split", default="train", choices=sources.SPLITS, help="split to preview")
    parser.add_argument("--size", type=int, help="side to resize pictures to")
    parser.add_argument("--colour", action="store_true", help="keep colours")
    parser.add_argument("--seed", type=int, default=0, help="of the sources that are drawn")
    options = parser.parse_args(arguments)

    infos = [sources.describe(name) for name in ([options.source] if options.source else sources.names())]
    console = Console()
    # Piped into a file, a table of 80 columns would break every line.
    console = console if console.is_terminal else Console(width=160)
    console.print(table(infos))
    missing = [info for info in infos if not info.available]
    if options.source and missing:
        console.print(missing[0].reason, markup=False, highlight=False)
    elif missing:
        console.print(
            "What is not ready: `tfds build NAME` where there is a network, or your own copy through "
            "tools/prepare_dataset.py.",
            markup=False,
            highlight=False,
        )
    if options.source:
        for key, option in sorted(sources.options(options.source).items()):
            console.print(
                f"  ?{key}=  {option.meaning} (default: {option.default})", markup=False, highlight=False
            )
    if options.preview:
        wanted = {"size": options.size, "colour": options.colour, "seed": options.seed}
        if options.source:
            rows = contact_sheet.rows_by_class(sources.load(options.source, options.split, **wanted))
        else:
            ready = [info.name for info in infos if info.available]
            rows = [contact_sheet.row_of(sources.load(name, options.split, **wanted)) for name in ready]
        contact_sheet.write(contact_sheet.sheet(rows), options.preview)
        console.print(f"Wrote {options.preview}.", markup=False, highlight=False)


if __name__ == "__main__":
    main()
