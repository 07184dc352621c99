"""The demo's server, which answers only this machine unless asked otherwise, and asks no other host for anything."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from clipmapper.console import progress
from clipmapper.errors import UserError

if TYPE_CHECKING:
    from perturbation.demo.page import Page

LARGEST_FILE = "50mb"  # of an upload
WAITING = 64  # events that wait for the models, beyond which the page says that it is busy
STYLE = Path(__file__).parent / "templates" / "demo.css"
FONTS = ("system-ui", "Segoe UI", "Liberation Sans", "DejaVu Sans", "sans-serif")
FIXED_WIDTH = ("ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace")

# Dark enough for white letters.
BUTTON = {"button_primary_background_fill": "*primary_600", "button_primary_background_fill_hover": "*primary_700"}


def forbid_outside() -> None:
    """Tell Gradio, before it is imported, not to report that it is used, and not to look for a new version."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def check_free(host: str, port: int) -> None:
    """Check that the server can listen there.

    Raises:
        UserError: The port is taken or may not be used, or this machine has no such address.
    """
    if not host.strip():
        raise UserError(f"host={host} is no address of this machine: give 127.0.0.1 or 0.0.0.0")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise UserError(f"port={port} is taken on {host}: end the other program, or give another port") from error
        if number == errno.EACCES:
            raise UserError(f"port={port} may not be used: give one of 1024 or more") from error
        raise UserError(f"host={host} is no address of this machine: give 127.0.0.1 or 0.0.0.0") from error


def serve(page: Page, host: str, port: int) -> None:
    """Show the page until the process is asked to end; the arguments are those of :func:`running`."""
    with running(page, host, port) as address, progress(None, ""):
        print(f"the demo is at {address} until Ctrl-C", flush=True)
        if host not in ("127.0.0.1", "localhost", "::1"):
            print(f"host={host}: everybody who reaches this machine can use it", flush=True)
        wait()


def wait() -> None:
    """Wait until a signal ends the process."""
    threading.Event().wait()


@contextmanager
def running(page: Page, host: str, port: int) -> Iterator[str]:
    """Run the server while the body runs, and yield its address.

    Args:
        page: The page.
        host: Address to listen at; ``127.0.0.1`` answers only this machine, ``0.0.0.0`` everybody who reaches it.
        port: Port to listen at; 0 takes a free one.
    """
    import gradio as gr

    from perturbation.demo.page import blocks_of

    theme = gr.themes.Default(primary_hue="indigo", font=FONTS, font_mono=FIXED_WIDTH)
    with TemporaryDirectory(prefix="clipmapper-demo-") as files:
        os.environ["GRADIO_TEMP_DIR"] = files  # uploads are removed with it
        blocks = blocks_of(page).queue(max_size=WAITING, default_concurrency_limit=4, api_open=False)
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port or _free_port(host),
            share=False,
            quiet=True,
            inbrowser=False,
            prevent_thread_lock=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=LARGEST_FILE,
            theme=theme.set(**BUTTON),
            css_paths=[STYLE],
        )
        try:
            yield address
        finally:
            blocks.close(verbose=False)


def _free_port(host: str) -> int:
    with socket.socket() as trial:
        trial.bind((host, 0))
        return int(trial.getsockname()[1])
