"""Ingestion: processes that analyse one song at a time each, and the pool that feeds them.

A worker is `python -m editorbot_core.songs.ingestion LOCK`: a JSON request per line on its standard input, a JSON
answer per line on its output. It imports no torch, needs no `if __name__ == "__main__"` in the program that uses the
library, and may crash on a file without affecting the others. Paths are sent as hexadecimal bytes, since file names
need not be valid text.
"""

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock

from editorbot_core.base.errors import AudioError, EditorBotError

_WAIT_S = 3_600.0


@dataclass(frozen=True)
class Analysis:
    """A worker's result for one file.

    Attributes:
        sha256: Digest of the file, or "" if it could not be read.
        duration_s: Length, s; this and all numbers below are 0 if the file was rejected.
        sample_rate: Of the file, Hz.
        n_channels: Of the file.
        loudness_db: Integrated loudness, LUFS.
        n_beats: Beats found.
        tempo: Beats per minute.
        grid_confidence: Confidence of the grid, in [0, 1].
        grid_version: Version of the tracker or of the person's correction that made the grid; given for rejected
            files, too.
        reason: Why the file was rejected, or "".
        lasting: True if the reason is the content of the file, so that another attempt would fail as well.
    """

    sha256: str = ""
    duration_s: float = 0.0
    sample_rate: int = 0
    n_channels: int = 0
    loudness_db: float = 0.0
    n_beats: int = 0
    tempo: float = 0.0
    grid_confidence: float = 0.0
    grid_version: str = ""
    reason: str = ""
    lasting: bool = False


def features_path(store: Path | str, sha256: str) -> Path:
    """Path of the features of a song in a store."""
    return Path(store) / "features" / f"{sha256[:16]}.parquet"


def analyse_into(
    path: Path, store: Path, *, corrections: Path | None = None, tracker: str = "", separator: str = ""
) -> Analysis:
    """Analyse one file and store its features, unless they are in `store`; a file that cannot be used gives a reason.

    Args:
        path: The audio file.
        store: Folder that holds `features/`.
        corrections: Folder of people's corrections, which override the tracker; None for the one in `store`.
        tracker: Which tracker finds the beats, one of `analysis.names.TRACKERS`; "" for the default.
        separator: What divides songs into stems, one of `analysis.names.SEPARATORS`; "" for the default.
    """
    from editorbot_core.analysis.beats.corrections import CORRECTION, correction_version, load_correction
    from editorbot_core.analysis.beats.trackers import tracker_version
    from editorbot_core.analysis.dsp.separators import separator_version
    from editorbot_core.analysis.features.extraction import analyse
    from editorbot_core.analysis.features.table import read_features, save_features
    from editorbot_core.analysis.names import DEFAULT_SEPARATOR, DEFAULT_TRACKER
    from editorbot_core.audio.files import sha256_audio
    from editorbot_core.base.files import path_to_text
    from editorbot_core.base.home import corrections_folder

    corrections, tracker = corrections or corrections_folder(store), tracker or DEFAULT_TRACKER
    separator = separator or DEFAULT_SEPARATOR
    sha256 = version = ""
    try:
        sha256 = sha256_audio(path)
        version = correction_version(corrections, sha256) or tracker_version(tracker)
        stems = separator_version(separator)
        target = features_path(store, sha256)
        if target.exists():
            try:
                stored = read_features(target)
                return _from_stored(stored.features.grid, stored.metadata, sha256, version, stems)
            except (EditorBotError, KeyError, ValueError):
                # Damaged, or written by another version: analysed again below.
                target.unlink()
        correction = load_correction(corrections, sha256)
        song = analyse(path, grid=correction.grid if correction else None, tracker=tracker, separator=separator)
        if song.sha256 != sha256:
            raise AudioError(f"{path_to_text(path)}: the file was changed while it was read; try again")
        grid = song.features.grid
        metadata = {
            "sha256": song.sha256,
            "tracker": CORRECTION if correction else version,
            "grid_version": version,
            "separator": stems,
            "source_sample_rate": str(song.sample_rate),
            "source_n_channels": str(song.n_channels),
            "loudness_db": repr(song.loudness_db),
        }
        save_features(target, song.features, metadata=metadata)
        return _from_stored(grid, metadata, song.sha256, version, stems)
    except AudioError as error:
        reason = _without_path(str(error), path)
        return Analysis(sha256=sha256, grid_version=version, reason=reason, lasting=bool(sha256))
    except (EditorBotError, OSError, MemoryError, ValueError, ArithmeticError) as error:
        return Analysis(sha256=sha256, grid_version=version, reason=f"{type(error).__name__}: {error}")


def _from_stored(grid: Any, metadata: dict[str, str], sha256: str, version: str, stems: str) -> Analysis:
    from editorbot_core.analysis.names import DEFAULT_SEPARATOR

    if metadata["sha256"] != sha256 or metadata["grid_version"] != version:
        raise ValueError("features of another file, or on other beats")
    if metadata.get("separator", DEFAULT_SEPARATOR) != stems:
        raise ValueError("features with other stems")
    return Analysis(
        sha256=sha256,
        duration_s=grid.duration,
        sample_rate=int(metadata["source_sample_rate"]),
        n_channels=int(metadata["source_n_channels"]),
        loudness_db=float(metadata["loudness_db"]),
        n_beats=grid.n_beats,
        tempo=grid.tempo,
        grid_confidence=grid.confidence,
        grid_version=version,
    )


def _without_path(message: str, path: Path) -> str:
    from editorbot_core.base.files import path_to_text

    return message.removeprefix(f"{path_to_text(path)}: ")


class AnalysisPool:
    """Warm worker processes; `analyse` may be called from several threads at once.

    This is not `concurrent.futures.ProcessPoolExecutor`: a file that kills its worker must fail alone, where that pool
    breaks as a whole; and workers start with no module of the calling program, so they load no torch, and a program
    without an `if __name__ == "__main__"` guard may use the library.
    """

    def __init__(
        self, n_processes: int, store: Path, *, corrections: Path | None = None, tracker: str = "", separator: str = ""
    ) -> None:
        self._request = {
            "store": os.fsencode(store).hex(),
            "corrections": os.fsencode(corrections).hex() if corrections else "",
            "tracker": tracker,
            "separator": separator,
        }
        self._lock = store / ".compile.lock"
        self._idle: queue.Queue[subprocess.Popen[bytes]] = queue.Queue()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._asked: set[subprocess.Popen[bytes]] = set()
        self._changing = threading.Lock()
        self._closed = False
        for _ in range(n_processes):
            self._idle.put(self._start())

    def __enter__(self) -> "AnalysisPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
        with self._changing:
            if self._closed:
                raise EditorBotError("the pool is closed")
            process = subprocess.Popen(
                [sys.executable, "-m", "editorbot_core.songs.ingestion", str(self._lock)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[2],
                env={**os.environ, **threads},
            )
            self._processes.add(process)
        return process

    def _kill(self, process: "subprocess.Popen[bytes]") -> int:
        if process.poll() is None:
            process.kill()
        return process.wait()

    def _end(self, process: "subprocess.Popen[bytes]") -> int:
        """Kill a worker, if it still lives, and close its pipes; return its status."""
        status = self._kill(process)
        if process.stdout is not None:
            process.stdout.close()
        if process.stdin is not None:
            # A dead worker's pipe breaks on closing if a request was still buffered.
            with contextlib.suppress(OSError):
                process.stdin.close()
        return status

    def analyse(self, path: Path) -> Analysis:
        """Have a worker analyse one file; a worker that crashes on it is replaced."""
        process = self._idle.get()
        with self._changing:
            if self._closed:
                self._idle.put(process)
                return Analysis(reason="the analysis was stopped")
            self._asked.add(process)
        try:
            answer = _ask(process, {"path": os.fsencode(path).hex(), **self._request})
        except (OSError, ValueError) as error:
            with self._changing:
                self._processes.discard(process)
                self._asked.discard(process)
            status = self._end(process)
            if self._closed:
                return Analysis(reason="the analysis was stopped")
            process = self._start()
            cause = signal.Signals(-status).name if status < 0 else f"status {status}"
            return Analysis(reason=f"the analysis process died ({cause}; {error})")
        finally:
            with self._changing:
                self._asked.discard(process)
                if self._closed:
                    self._end(process)
            self._idle.put(process)
        return Analysis(**answer)

    def close(self) -> None:
        """End the workers; threads that wait for a result get one that says so."""
        with self._changing:
            self._closed = True
            while self._processes:
                process = self._processes.pop()
                # Closing a pipe does not wake a thread that waits on it; that thread closes the pipe itself.
                (self._kill if process in self._asked else self._end)(process)


def _ask(process: "subprocess.Popen[bytes]", request: dict[str, str]) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    deadline = time.monotonic() + _WAIT_S
    line = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(deadline - time.monotonic(), 0.0)):
                raise ValueError(f"no answer within {_WAIT_S:.0f} s")
            received = os.read(process.stdout.fileno(), 65_536)
            if not received:
                raise ValueError("it closed its output")
            line += received
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise ValueError("the answer is not an object")
    return answer


def main(arguments: list[str]) -> int:
    """The worker: answer requests until standard input ends; return the exit status."""
    from editorbot_core.analysis.features.extraction import warm_up

    # Output of libraries goes to standard error, so that it cannot come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with FileLock(arguments[0]):
        warm_up()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        path, store = (Path(os.fsdecode(bytes.fromhex(request[key]))) for key in ("path", "store"))
        corrections = Path(os.fsdecode(bytes.fromhex(request["corrections"]))) if request["corrections"] else None
        choices = {name: request[name] for name in ("tracker", "separator")}
        analysis = analyse_into(path, store, corrections=corrections, **choices)
        answers.write(json.dumps(asdict(analysis), allow_nan=False).encode() + b"\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
