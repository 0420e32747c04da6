"""Reading and writing audio files.

Samples are float32, full scale 1: clips `(n_channels, n_samples)`, streamed blocks `(n_frames, n_channels)`. Every file
is decoded in a process of its own (`decoder_server`, `decoder`), which may crash or exceed its limits without harm to
this one; the content decides the format, not the name. File names need not be UTF-8: messages show them with
`base.files.path_to_text`, and every function here also accepts that text as a path.
"""

import hashlib
import json
import os
import select
import signal
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.decoder import BLOCK_FRAMES, END, ERROR, HEADER, MESSAGE, DecodingLimits, SampleForm
from editorbot_core.audio.decoder_server import Decoder, start_decoder
from editorbot_core.audio.formats import AUDIO_SUFFIXES, SOUNDFILE_SUBTYPES, check_output
from editorbot_core.base.errors import AudioError, ParameterError
from editorbot_core.base.files import atomic_path, path_to_text, text_to_path

_HASHED_BYTES = 2**18

# Largest difference between the length announced and received, s: a resampler may round.
_MISCOUNT_S = 0.01


def find_audio(folder: Path | str) -> list[Path]:
    """Files below `folder` with an audio suffix, sorted; hidden files and folders are left out.

    Raises:
        ParameterError: If `folder` is not a folder.
    """
    folder = text_to_path(folder)
    if not folder.is_dir():
        raise ParameterError(f"{path_to_text(folder)} is not a folder; give the folder that holds the songs")
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES
        ]
    return sorted(found)


class AudioStream:
    """Audio that is being decoded: iterate over its blocks, float32 (n_frames, n_channels or 1), checked and in order.

    Attributes:
        name: The path as text for messages.
        sample_rate: Rate of the file, Hz; blocks may be resampled.
        n_channels: Channels of the file; blocks may be mixed to mono.
        container: The decoder's name of the format.
        n_samples: Samples per channel in the file; 0 until the last block has been taken.
    """

    def __init__(
        self, name: str, digest: Callable[[], str], decoder: Decoder, form: SampleForm, limits: DecodingLimits
    ) -> None:
        self.name = name
        self._digest = digest
        self._decoder = decoder
        self._form = form
        self._limits = limits
        self.n_samples = 0
        self._readable = select.poll()
        self._readable.register(decoder.output, select.POLLIN)
        kind, payload = self._message()
        if kind != HEADER:
            raise AudioError(f"{name}: the decoder sent no header")
        header = json.loads(bytes(payload))
        self.sample_rate = int(header["sample_rate"])
        self.n_channels = int(header["n_channels"])
        self.container = str(header["container"])

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the file's bytes; waits until all have been read."""
        return self._digest()

    def _receive(self, n_bytes: int) -> bytearray:
        received = bytearray(n_bytes)
        view = memoryview(received)
        deadline = time.monotonic() + self._limits.stall_s
        while len(view):
            if not self._readable.poll(1e3 * max(deadline - time.monotonic(), 0.0)):
                raise AudioError(f"{self.name}: decoding made no progress for {self._limits.stall_s:g} s")
            count = os.readv(self._decoder.output, [view])
            if count == 0:
                raise AudioError(f"{self.name}: {self._death()}")
            view = view[count:]
        return received

    def _death(self) -> str:
        try:
            status = self._decoder.end(kill=False)
        except OSError as error:
            return f"the decoder ended early ({error})"
        if status >= 0:
            return f"the decoder ended early (status {status})"
        if -status in (signal.SIGXCPU, signal.SIGKILL):
            return f"decoding took more than {self._limits.cpu_s} s of processor time, or was killed"
        return f"the decoder crashed on it ({signal.Signals(-status).name})"

    def _message(self) -> tuple[bytes, bytearray]:
        kind, length = MESSAGE.unpack(bytes(self._receive(MESSAGE.size)))
        if length > BLOCK_FRAMES * self._limits.max_channels * 4:
            raise AudioError(f"{self.name}: the decoder sent a message of {length} bytes")
        payload = self._receive(length)
        if kind == ERROR:
            raise AudioError(f"{self.name}: {payload.decode('utf-8', 'replace')}")
        return kind, payload

    def __iter__(self) -> Iterator[np.ndarray]:
        width = 1 if self._form.mono else self.n_channels
        received = 0
        while True:
            kind, payload = self._message()
            if kind == END:
                break
            block = np.frombuffer(payload, dtype=np.float32).reshape(-1, width)
            if not np.isfinite(block).all():
                raise AudioError(f"{self.name}: samples that are not finite numbers")
            received += len(block)
            yield block
        self.n_samples = int(json.loads(bytes(payload)))
        if self.n_samples == 0:
            raise AudioError(f"{self.name}: the file holds no samples")
        rate = self._form.sample_rate or self.sample_rate
        if abs(received / rate - self.n_samples / self.sample_rate) > _MISCOUNT_S:
            raise AudioError(f"{self.name}: the decoder sent {received} samples of {self.n_samples}")


def _sha256_of_descriptor(descriptor: int) -> str:
    # Positioned reads: the decoder shares the descriptor's offset.
    hasher = hashlib.sha256()
    buffer = bytearray(_HASHED_BYTES)
    offset = 0
    while count := os.preadv(descriptor, [buffer], offset):
        hasher.update(memoryview(buffer)[:count])
        offset += count
    return hasher.hexdigest()


def _open_regular_file(path: Path, name: str, limits: DecodingLimits) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AudioError(f"{name}: cannot be opened: {reason}") from error
    status = os.fstat(descriptor)
    problem = ""
    if not stat.S_ISREG(status.st_mode):
        problem = "not a regular file"
    elif status.st_size == 0:
        problem = "the file is empty"
    elif status.st_size > limits.max_file_bytes:
        problem = f"{status.st_size} bytes; at most {limits.max_file_bytes} are read"
    if problem:
        os.close(descriptor)
        raise AudioError(f"{name}: {problem}")
    return descriptor


def check_audio_file(path: Path | str, *, limits: DecodingLimits | None = None) -> None:
    """Refuse a path that cannot be an audio file; the content is not read.

    Raises:
        AudioError: If the file is not regular, empty, too large, or cannot be opened.
    """
    os.close(_open_regular_file(text_to_path(path), path_to_text(path), limits or DecodingLimits()))


def sha256_audio(path: Path | str, *, limits: DecodingLimits | None = None) -> str:
    """Hexadecimal SHA-256 of a file that `check_audio_file` accepts.

    Raises:
        AudioError: As `check_audio_file`.
    """
    descriptor = _open_regular_file(text_to_path(path), path_to_text(path), limits or DecodingLimits())
    try:
        return _sha256_of_descriptor(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_audio(
    path: Path | str, *, mono: bool = False, sample_rate: int | None = None, limits: DecodingLimits | None = None
) -> Iterator[AudioStream]:
    """Decode the file at `path` block by block.

    Args:
        path: Any format that libsndfile or FFmpeg decodes; the content decides, not the suffix.
        mono: True for the mean of the channels.
        sample_rate: Rate to resample to (soxr, HQ), Hz; None keeps the file's.
        limits: Bounds on the file and on the cost of decoding it.

    Raises:
        AudioError: If the file is not regular, breaks a limit, holds values that are not finite, or cannot be decoded;
            the message names the file and the reason. It may be raised while iterating.
    """
    form, limits = SampleForm(mono, sample_rate), limits or DecodingLimits()
    name = path_to_text(path)
    descriptor = _open_regular_file(text_to_path(path), name, limits)
    try:
        before = os.fstat(descriptor)
        with ThreadPoolExecutor(1) as hashing, closing(start_decoder(descriptor, form, limits)) as decoder:
            digest = hashing.submit(_sha256_of_descriptor, descriptor).result
            yield AudioStream(name, digest, decoder, form, limits)
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise AudioError(f"{name}: the file was changed while it was read; try again")
    finally:
        os.close(descriptor)


def read_audio(
    path: Path | str, *, sample_rate: int | None = None, mono: bool = False, limits: DecodingLimits | None = None
) -> AudioClip:
    """Read a whole file.

    Args:
        path: Any format that libsndfile or FFmpeg decodes; the content decides, not the suffix.
        sample_rate: Rate to resample to, Hz; None keeps the file's.
        mono: True for the mean of the channels.
        limits: Bounds on the file and on the cost of decoding it.

    Raises:
        AudioError: As `open_audio`.

    Examples:
        Half a second of a 440 Hz tone, written as 24-bit WAV and read at half its rate:

        >>> from tempfile import TemporaryDirectory
        >>> tone = np.sin(2 * np.pi * 440 * np.arange(22_050) / 44_100).astype(np.float32)
        >>> with TemporaryDirectory() as folder:
        ...     write_audio(f"{folder}/tone.wav", AudioClip(tone[None], 44_100))
        ...     clip = read_audio(f"{folder}/tone.wav", sample_rate=22_050)
        >>> clip.samples.shape, clip.sample_rate
        ((1, 11025), 22050)
    """
    with open_audio(path, mono=mono, sample_rate=sample_rate, limits=limits) as stream:
        blocks = list(stream)
    samples = np.empty((blocks[0].shape[1], sum(len(block) for block in blocks)), dtype=np.float32)
    position = 0
    blocks.reverse()
    while blocks:
        block = blocks.pop()
        samples[:, position : position + len(block)] = block.T
        position += len(block)
    return AudioClip(samples, sample_rate or stream.sample_rate)


def write_audio(path: Path | str, clip: AudioClip) -> None:
    """Write `clip` in one step, in the format of the path's suffix: wav and flac (24 bit), ogg, mp3, m4a.

    Samples beyond full scale are clipped.

    Raises:
        ParameterError: If the suffix is not one of these, the clip holds no samples or values that are not finite, or
            the format cannot hold its rate or channels.
    """
    path = text_to_path(path)
    suffix = path.suffix.lower()
    if clip.n_samples == 0 or not np.isfinite(clip.samples).all():
        raise ParameterError(f"{path_to_text(path)}: nothing to write, or samples that are not finite")
    check_output(path)
    if suffix == ".m4a":
        _write_aac(path, clip)
        return
    container, subtype = SOUNDFILE_SUBTYPES[suffix]
    try:
        with (
            atomic_path(path) as temporary,
            soundfile.SoundFile(
                os.fsencode(temporary), "w", clip.sample_rate, clip.n_channels, subtype=subtype, format=container
            ) as sound,
        ):
            # libsndfile 1.2.2 crashes on long Ogg writes in one call.
            for start in range(0, clip.n_samples, BLOCK_FRAMES):
                sound.write(np.ascontiguousarray(clip.samples[:, start : start + BLOCK_FRAMES].T))
    except soundfile.LibsndfileError as error:
        raise ParameterError(
            f"{path_to_text(path)}: {container} cannot hold {clip.n_channels} channels at {clip.sample_rate} Hz: "
            f"{error.error_string}"
        ) from error


def _write_aac(path: Path, clip: AudioClip) -> None:
    import av

    layouts = {1: "mono", 2: "stereo"}
    if clip.n_channels not in layouts:
        raise ParameterError(f"{path_to_text(path)}: m4a is written with 1 or 2 channels; got {clip.n_channels}")
    try:
        with (
            atomic_path(path) as temporary,
            temporary.open("wb") as handle,
            av.open(handle, "w", format="ipod") as container,
        ):
            stream = container.add_stream("aac", rate=clip.sample_rate)
            stream.layout = layouts[clip.n_channels]
            stream.bit_rate = 128_000 * clip.n_channels
            for start in range(0, clip.n_samples, BLOCK_FRAMES):
                block = np.ascontiguousarray(clip.samples[:, start : start + BLOCK_FRAMES].clip(-1.0, 1.0))
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layouts[clip.n_channels])
                frame.sample_rate = clip.sample_rate
                # With time stamps the encoder's delay is recorded, and players and decoders skip it.
                frame.pts, frame.time_base = start, Fraction(1, clip.sample_rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (ValueError, OSError) as error:
        raise ParameterError(f"{path_to_text(path)}: cannot be written as m4a: {error}") from error
