"""The process that decodes an untrusted audio file, and the limits it works under.

`audio.py` starts this file as a script, with the audio as standard input (an open descriptor, so that what was hashed
is what is decoded) and reads messages from its standard output: one byte for the kind, a little-endian uint32 for the
length, the payload. `H` carries a JSON header, `B` interleaved float32 samples, `E` the reason of a failure, `Z`
nothing: the end. An output that stops without `E` or `Z` is a crash. Decoders are C libraries that hostile files can
kill or inflate, which is why they run here, under limits, and not in the caller. Nothing but numpy and soundfile is
imported, and PyAV only where libsndfile does not know the format (AAC, M4A, WMA, the sound of a video).
"""

import json
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

BLOCK_FRAMES = 65_536
MESSAGE = struct.Struct("<cI")
HEADER, BLOCK, ERROR, END = b"H", b"B", b"E", b"Z"

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

    def to_json(self) -> str:
        """The limits as one line, for the command line of the process."""
        return json.dumps(asdict(self))


class _Refusal(Exception):
    """The file breaks a limit or cannot be decoded; the text is the reason."""


def _write(descriptor: int, kind: bytes, payload: bytes | memoryview = b"") -> None:
    for part in (MESSAGE.pack(kind, len(payload)), payload):
        view = memoryview(part)
        while len(view):
            view = view[os.write(descriptor, view) :]


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
    decoded = 0
    while True:
        try:
            frames = sound.read(out=block)
        except soundfile.LibsndfileError as error:
            raise _Refusal(f"cut short or damaged: {error.error_string}") from error
        if not len(frames):
            break
        decoded += len(frames)
        if decoded > limits.max_duration_s * sound.samplerate:
            raise _Refusal(f"longer than {limits.max_duration_s:.0f} s, the most that is decoded")
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


def main(arguments: list[str]) -> int:
    """Decode standard input under the limits given as JSON; return the exit status."""
    import soundfile  # noqa: F401  (loaded before the limits hold)

    given = json.loads(arguments[0]) if arguments else {}
    limits = DecodingLimits(**{f.name: given[f.name] for f in fields(DecodingLimits) if f.name in given})
    _limit_process(limits)
    output = sys.stdout.fileno()
    try:
        for kind, payload in decode(sys.stdin.fileno(), limits):
            _write(output, kind, payload)
        _write(output, END)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
