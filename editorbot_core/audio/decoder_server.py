"""The decoders of this process: children of a server that has everything loaded, one child per file (`decoder.py`)."""

import atexit
import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from editorbot_core.audio import decoder
from editorbot_core.audio.decoder import DecodingLimits, SampleForm

# Two blocks of stereo.
_PIPE_BYTES = 2**20
_LINE_BYTES = 4_096
_CLOSING_S = 2.0


class Decoder:
    """A child that decodes one file.

    Attributes:
        output: Descriptor of the pipe that its messages come from.
    """

    def __init__(self, server: "DecoderServer", pid: int, output: int) -> None:
        self.output = output
        self._server = server
        self._pid = pid
        self._status: int | None = None

    def end(self, *, kill: bool) -> int:
        """Wait until it has ended by itself, or kill it; its exit status, negative for a signal.

        Raises:
            OSError: If the process that started it is gone.
        """
        if self._status is None:
            self._status = self._server.end(self._pid, kill=kill)
        return self._status

    def close(self) -> None:
        """End it and close the pipe."""
        os.close(self.output)
        # A server that has died cannot end it; its next write to the closed pipe does.
        with contextlib.suppress(OSError):
            self.end(kill=True)


class DecoderServer:
    """A process that forks decoders, and the connection to it; threads may share it.

    Raises:
        OSError: From every method but `close`, if the process is gone.
    """

    def __init__(self, script: Path) -> None:
        self._lock = threading.Lock()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            # The script is started by its path and -P keeps its folder off the module path: nothing else is imported.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                close_fds=True,
            )

    def _ask(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        with self._lock:
            socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors)
            line = b""
            while not line.endswith(b"\n"):
                received = self._connection.recv(_LINE_BYTES)
                if not received:
                    raise ConnectionError("the process that starts decoders has ended")
                line += received
        answer: dict[str, Any] = json.loads(line)
        return answer

    def start(self, descriptor: int, form: SampleForm, limits: DecodingLimits) -> Decoder:
        """A decoder of an open file."""
        output, theirs = os.pipe()
        try:
            if hasattr(fcntl, "F_SETPIPE_SZ"):
                # Where the user's share of pipe memory is used up, the ordinary size does.
                with contextlib.suppress(OSError):
                    fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            request = {"form": asdict(form), "limits": asdict(limits)}
            pid = int(self._ask(request, [descriptor, theirs])["pid"])
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(theirs)
        return Decoder(self, pid, output)

    def end(self, pid: int, *, kill: bool) -> int:
        """Wait for a decoder or kill it, once; its exit status, negative for a signal."""
        return int(self._ask({"end": pid, "kill": kill}, [])["status"])

    def close(self) -> None:
        """End the process and the decoders that still run."""
        self._connection.close()
        try:
            self._process.wait(_CLOSING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_servers: dict[Path, DecoderServer] = {}
_starting = threading.Lock()


def _forget_servers() -> None:
    """In a forked child: the servers belong to the parent."""
    global _servers, _starting
    _servers, _starting = {}, threading.Lock()


def _close_servers() -> None:
    while _servers:
        _servers.popitem()[1].close()


os.register_at_fork(after_in_child=_forget_servers)
atexit.register(_close_servers)


def decoder_server() -> DecoderServer:
    """The server of this process, started at the first call."""
    script = Path(decoder.__file__)
    with _starting:
        if script not in _servers:
            _servers[script] = DecoderServer(script)
        return _servers[script]


def start_decoder(descriptor: int, form: SampleForm, limits: DecodingLimits) -> Decoder:
    """A decoder of an open file; a server that has died is replaced.

    Raises:
        OSError: If no process can be started.
    """
    server = decoder_server()
    try:
        return server.start(descriptor, form, limits)
    except ConnectionError:
        with _starting:
            if _servers.get(Path(decoder.__file__)) is server:
                del _servers[Path(decoder.__file__)]
        server.close()
        return decoder_server().start(descriptor, form, limits)
