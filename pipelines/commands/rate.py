"""`editorbot rate`: the rating page alone."""

import argparse

from editorbot_core.base.console import add_ports, check_ports
from editorbot_core.base.home import home_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = "Serve the page on which people compare edits, on this machine; Ctrl-C stops it."
    add_ports(parser, port=8000)


def run(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    check_ports(port=arguments.port)
    from editorbot_core.preferences.rating.server import run_rating_page

    run_rating_page(home_folder(), port=arguments.port)
