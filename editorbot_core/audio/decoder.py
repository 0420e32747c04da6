"""The process that decodes untrusted audio files, each in a child of its own, and the limits they work under.

`decoder_server.py` starts this file as a script, with a socket as standard input, and asks over it in lines of JSON:

- `{"limits": {...}, "form": {...}}` with two descriptors, the audio (so that what was hashed is what is decoded) and a
  pipe to write to, is answered by `{"pid": n}`: a child that decodes into the pipe.
- `{"end": n, "kill": bool}` is answered by `{"status": n}` when the child is gone; negative for a signal.

Into the pipe go messages: one byte for the kind, a little-endian uint32 for the length, the payload. `H` carries a JSON
header, `B` interleaved float32 samples, checked and in the form that was asked for, `E` the reason of a failure, `Z`
the number of samples per channel that were decoded: the end. An output that stops without `E` or `Z` is a crash.
Decoders are C libraries that hostile files can kill or inflate: they run in a child, under limits, and not in the
caller. Forking a process that has loaded them costs a hundredth of starting one. PyAV serves where libsndfile does not
know the format (AAC, M4A, WMA, the sound of a video).
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BLOCK_FRAMES = 65_536
MESSAGE = struct.Struct("<cI")
HEADER, BLOCK, ERROR, END = b"H", b"B", b"E", b"Z"

_LINE_BYTES = 4_096
_DYING_S = 5.0

# Containers FFmpeg may open: none of the playlists (HLS, DASH, concat), which name other files and addresses.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,ac3,eac3,asf,avi,mpegts,mpeg,flv,ape,wv,tta,amr,dts,mp3,ogg,flac,wav"
)
# libsndfile's number of frames where the file does not say.
_UNKNOWN_FRAMES = 2**62


@dataclass(frozen=True)
class DecodingLimits:
    """What a file may be and cost; the one place that says so.

    Attributes:
        max_channels: Most channels.
        min_sample_rate: Hz.
        max_sample_rate: Hz.
        max_amplitude: Largest absolute sample; full scale is 1.
        max_duration_s: Longest audio that is decoded, s.
        max_file_bytes: Largest file that is opened.
        memory_bytes: Address space of the decoding process.
        cpu_s: Processor time of the decoding process, s.
        stall_s: Longest time without a message from the decoding process, s.
    """

    max_channels: int = 8
    min_sample_rate: int = 4_000
    max_sample_rate: int = 384_000
    max_amplitude: float = 16.0
    max_duration_s: float = 4 * 3600.0
    max_file_bytes: int = 8 * 2**30
    memory_bytes: int = 2 * 2**30
    cpu_s: int = 900
    stall_s: float = 60.0


@dataclass(frozen=True)
class SampleForm:
    """The form in which samples are wanted.

    Attributes:
        mono: True for the mean of the channels.
        sample_rate: Rate to resample to (soxr, HQ), Hz; None for the file's.
    """

    mono: bool = False
    sample_rate: int | None = None


class _Refusal(Exception):
    """The file breaks a limit or cannot be decoded; the text is the reason."""


def _write(descriptor: int, kind: bytes, payload: bytes | memoryview = b"") -> None:
    view = memoryview(payload)
    written = os.writev(descriptor, [MESSAGE.pack(kind, len(view)), view]) - MESSAGE.size
    while written < len(view):
        written += os.write(descriptor, view[written:])


def _limit_process(limits: DecodingLimits) -> None:
    import resource

    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _check_header(header: dict[str, Any], limits: DecodingLimits) -> None:
    rate, channels = header["sample_rate"], header["n_channels"]
    if not limits.min_sample_rate <= rate <= limits.max_sample_rate:
        raise _Refusal(f"sample rate {rate} Hz; {limits.min_sample_rate}-{limits.max_sample_rate} Hz are read")
    if not 1 <= channels <= limits.max_channels:
        raise _Refusal(f"{channels} channels; 1-{limits.max_channels} are read")


def _decode_with_libsndfile(sound: Any, limits: DecodingLimits) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """Messages of a file that libsndfile opened."""
    import numpy as np
    import soundfile

    header = {"sample_rate": sound.samplerate, "n_channels": sound.channels, "container": sound.format}
    _check_header(header, limits)
    declared = sound.frames
    yield HEADER, json.dumps(header).encode()
    block = np.empty((BLOCK_FRAMES, sound.channels), dtype=np.float32)
    # libsndfile converts slowly; from 16 bit the result is exactly the same.
    stored = np.empty(block.shape, dtype=np.int16) if sound.subtype == "PCM_16" else block
    decoded = 0
    while True:
        try:
            frames = sound.read(out=stored)
        except soundfile.LibsndfileError as error:
            raise _Refusal(f"cut short or damaged: {error.error_string}") from error
        if not len(frames):
            break
        decoded += len(frames)
        if decoded > limits.max_duration_s * sound.samplerate:
            raise _Refusal(f"longer than {limits.max_duration_s:.0f} s, the most that is decoded")
        if stored is not block:
            frames = np.multiply(frames, np.float32(2**-15), out=block[: len(frames)])
        yield BLOCK, memoryview(frames.data).cast("B")
    if sound.format == "FLAC" and decoded < declared < _UNKNOWN_FRAMES:
        raise _Refusal(f"cut short or damaged: {decoded} of {declared} samples could be decoded")


def _decode_with_ffmpeg(handle: Any, limits: DecodingLimits) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """Messages of the first audio stream of a container that FFmpeg knows."""
    import av
    import numpy as np

    with av.open(handle, options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}) as container:
        if not container.streams.audio:
            raise _Refusal("no audio stream in the file")
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        resampler = None
        decoded, rate, channels = 0, 0, 0

        def interleaved(frames: Any) -> Iterator[tuple[bytes, bytes]]:
            nonlocal decoded
            for frame in frames:
                decoded += frame.samples
                if decoded > limits.max_duration_s * rate:
                    raise _Refusal(f"longer than {limits.max_duration_s:.0f} s, the most that is decoded")
                yield BLOCK, np.ascontiguousarray(frame.to_ndarray(), dtype=np.float32).tobytes()

        for frame in container.decode(stream):
            if resampler is None:
                rate, channels = frame.sample_rate, len(frame.layout.channels)
                name = container.format.name.split(",")[0].upper()
                header = {"sample_rate": rate, "n_channels": channels, "container": name}
                _check_header(header, limits)
                yield HEADER, json.dumps(header).encode()
                # Streams may change layout on the way; the first frame's layout and rate hold for the whole file.
                resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=rate)
            yield from interleaved(resampler.resample(frame))
        if resampler is None:
            raise _Refusal("the audio stream holds no samples")
        yield from interleaved(resampler.resample(None))


def decode(descriptor: int, limits: DecodingLimits) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """Messages (kind, payload) that carry the audio of an open, seekable file.

    Raises:
        Exception: Whatever the decoders raise; the text is the reason.
    """
    import soundfile

    class ForwardSoundFile(soundfile.SoundFile):
        """Reads without seeking: soundfile seeks after every read, which makes MP3 decoders drop samples."""

        def seekable(self) -> bool:
            """False, so that reading moves on by itself."""
            return False

    try:
        sound = ForwardSoundFile(descriptor, closefd=False)
    except soundfile.LibsndfileError as error:
        os.lseek(descriptor, 0, os.SEEK_SET)
        with os.fdopen(descriptor, "rb", closefd=False) as handle:
            try:
                yield from _decode_with_ffmpeg(handle, limits)
            except (ValueError, OSError, EOFError) as other:
                reason = getattr(other, "strerror", None) or other
                raise _Refusal(f"not audio that can be decoded ({error.error_string} {reason})") from other
    else:
        with sound:
            yield from _decode_with_libsndfile(sound, limits)


def _check_samples(block: Any, limits: DecodingLimits) -> None:
    import numpy as np

    peak = max(float(block.max()), -float(block.min()))
    if not peak <= limits.max_amplitude:
        what = "samples that are not finite numbers" if not np.isfinite(block).all() else f"a peak of {peak:g}"
        raise _Refusal(f"{what}; at most {limits.max_amplitude:g} is read (full scale 1)")


def in_form(
    messages: Iterator[tuple[bytes, bytes | memoryview]], form: SampleForm, limits: DecodingLimits
) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """The messages of `decode`, checked, with the samples in another form, and the end.

    Raises:
        Exception: Whatever `messages` raise, or that samples are not finite or too large.
    """
    import numpy as np
    import soxr

    n_channels, n_samples = 0, 0
    resampler = None

    def blocks(samples: Any) -> Iterator[tuple[bytes, memoryview]]:
        samples = np.ascontiguousarray(samples, dtype=np.float32).reshape(-1, 1 if form.mono else n_channels)
        for start in range(0, len(samples), BLOCK_FRAMES):
            yield BLOCK, memoryview(samples[start : start + BLOCK_FRAMES]).cast("B")

    for kind, payload in messages:
        if kind == HEADER:
            header = json.loads(bytes(payload))
            n_channels, rate = header["n_channels"], header["sample_rate"]
            if form.sample_rate not in (None, rate):
                width = 1 if form.mono else n_channels
                resampler = soxr.ResampleStream(rate, form.sample_rate, width, dtype="float32", quality="HQ")
            yield kind, payload
            continue
        samples = np.frombuffer(payload, dtype=np.float32).reshape(-1, n_channels)
        if len(samples) == 0:
            continue
        _check_samples(samples, limits)
        n_samples += len(samples)
        if form.mono and n_channels > 1:
            samples = samples @ np.full(n_channels, 1.0 / n_channels, dtype=np.float32)
        elif form.mono:
            samples = samples[:, 0]
        yield from blocks(samples if resampler is None else resampler.resample_chunk(samples))
    if resampler is not None:
        shape = (0,) if form.mono else (0, n_channels)
        yield from blocks(resampler.resample_chunk(np.empty(shape, dtype=np.float32), last=True))
    yield END, json.dumps(n_samples).encode()


def decode_into(output: int, descriptor: int, form: SampleForm, limits: DecodingLimits) -> int:
    """Write the messages of an open file to a pipe, under limits that hold from here on; return the exit status."""
    _limit_process(limits)
    try:
        for kind, payload in in_form(decode(descriptor, limits), form, limits):
            _write(output, kind, payload)
    except BrokenPipeError:
        return 1
    except MemoryError:
        _write(output, ERROR, f"decoding needs more than {limits.memory_bytes >> 20} MiB".encode())
        return 1
    except Exception as error:
        # The reader turns any reason into an AudioError; this process has nobody else to tell.
        _write(output, ERROR, (str(error) or type(error).__name__).encode("utf-8", "replace")[:1000])
        return 1
    return 0


def _fork_decoder(connection: socket.socket, descriptors: list[int], form: SampleForm, limits: DecodingLimits) -> int:
    """A child that decodes; its process id."""
    descriptor, output = descriptors
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            connection.close()
            status = decode_into(output, descriptor, form, limits)
        finally:
            os._exit(status)
    for each in descriptors:
        os.close(each)
    return pid


def _end_decoder(pid: int, *, kill: bool) -> int:
    """Wait for a child, which is killed at once or if it does not end by itself; its status, negative for a signal."""
    deadline = time.monotonic() + (0.0 if kill else _DYING_S)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.001)


def serve(connection: socket.socket) -> None:
    """Start and end decoders as asked, until the other side closes the connection."""
    children: set[int] = set()
    try:
        while True:
            line, descriptors, _, _ = socket.recv_fds(connection, _LINE_BYTES, 2)
            if not line:
                return
            request = json.loads(line)
            if "end" in request:
                status = _end_decoder(request["end"], kill=request["kill"])
                children.discard(request["end"])
                connection.sendall(json.dumps({"status": status}).encode() + b"\n")
                continue
            form, limits = SampleForm(**request["form"]), DecodingLimits(**request["limits"])
            pid = _fork_decoder(connection, descriptors, form, limits)
            children.add(pid)
            connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")
            # Once the first file is on its way there is time to load what rarer formats need.
            importlib.import_module("av")
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


def main() -> int:
    """Serve the socket that is standard input."""
    # Children inherit what is loaded here.
    import soundfile  # noqa: F401
    import soxr  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(0)) as connection, contextlib.suppress(ConnectionError):
        serve(connection)
    return 0


if __name__ == "__main__":
    sys.exit(main())
