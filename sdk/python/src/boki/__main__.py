"""`python -m boki app.py`: serves the functions of a file."""

from __future__ import annotations

import sys

from ._serve import serve_file


def main(arguments: list[str]) -> None:
    # Starting fast matters when code is reloaded: the usual form needs no parser.
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        serve_file(arguments[0], name=None, concurrency=100)
        return
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m boki",
        description="Serves the functions of a file that have @boki.function or @boki.http.",
        epilog="The server is that of BOKI_URL, or 127.0.0.1:2654.",
    )
    parser.add_argument("file", help="the file, such as app.py")
    parser.add_argument("--name", help="what a human calls the worker; otherwise the file's name")
    parser.add_argument(
        "--concurrency",
        type=int,
        default=100,
        help="how many calls it takes at once on each level of nesting (100)",
    )
    options = parser.parse_args(arguments)
    serve_file(options.file, name=options.name, concurrency=options.concurrency)


main(sys.argv[1:])
