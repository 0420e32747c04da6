"""Edit one song: audio in, edited audio and its edit decision list out."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from editorbot_core.analysis.names import DEFAULT_SEPARATOR, DEFAULT_TRACKER, SEPARATORS, TRACKERS
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import read_audio, write_audio
from editorbot_core.audio.render import align_joins, render
from editorbot_core.base.console import run_command, say
from editorbot_core.base.devices import resolve_device
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.home import champion_path, champion_reward_path, corrections_folder, home_folder
from editorbot_core.editing.edits import EditDecisionList
from editorbot_core.editing.interchange import write_edl
from editorbot_core.policy.editors import candidate_edits
from editorbot_core.policy.files import LoadedPolicy, load_policy
from editorbot_core.rewards.learned import RewardEnsemble
from editorbot_core.songs.library import analyse_song
from editorbot_core.songs.song import Song

DEFAULT_KEEP = 0.5
KEEP_RANGE = (0.1, 4.0)


@dataclass(frozen=True)
class RenderedEdit:
    """An edit and its audio; the segments of the EDL are the ones that were rendered."""

    edl: EditDecisionList
    clip: AudioClip


def edit_song(
    clip: AudioClip,
    song: Song,
    loaded: LoadedPolicy,
    *,
    target_s: float,
    n_candidates: int = 1,
    reward: RewardEnsemble | None = None,
    seed: int = 0,
) -> list[RenderedEdit]:
    """Up to `n_candidates` different edits, best first.

    Args:
        clip: The song's audio as it should come out: its channels and rate are kept.
        song: The analysed song.
        loaded: The policy.
        target_s: Duration asked for, s.
        n_candidates: How many edits.
        reward: Chooses among the policy's edits and searched ones; without one, the policy's own probability ranks.
        seed: Of the samples.
    """
    edls = candidate_edits(
        loaded.policy,
        song,
        target_s,
        n=n_candidates,
        reward=reward,
        guided=reward is not None,
        seed=seed,
        model=loaded.model,
    )
    results = []
    for edl in edls:
        aligned = replace(edl, segments=align_joins(clip, edl.segments))
        results.append(RenderedEdit(aligned, render(clip, aligned.segments)))
    return results


def target_duration(duration_s: float, *, duration: float | None, keep: float | None) -> float:
    """The duration to aim at, s, from seconds or a ratio; half of the song if neither is given.

    Raises:
        ParameterError: If it is not a positive number or too far from the song's length.
    """
    target_s = duration if duration is not None else duration_s * (DEFAULT_KEEP if keep is None else keep)
    low, high = (ratio * duration_s for ratio in KEEP_RANGE)
    if not math.isfinite(target_s) or not low <= target_s <= high:
        raise ParameterError(
            f"a target of {target_s:.1f} s cannot be met: the song lasts {duration_s:.1f} s, and between "
            f"{low:.1f} and {high:.1f} s can be made of it"
        )
    return target_s


def numbered(path: Path, number: int) -> Path:
    """`out.wav`, `out.2.wav`, `out.3.wav`, ..."""
    return path if number == 1 else path.with_name(f"{path.stem}.{number}{path.suffix}")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description="Edit a song to another length so that it still sounds like the song."
    )
    add = parser.add_argument
    add("--audio", type=Path, required=True, help="the song, any common format")
    add("--output", type=Path, required=True, help="where the edit goes: .wav, .flac, .ogg or .mp3")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--duration", type=float, metavar="SECONDS", help="length of the edit")
    length.add_argument("--keep", type=float, metavar="RATIO", help=f"length over the song's (default: {DEFAULT_KEEP})")
    add(
        "--candidates", type=int, default=1, metavar="N", help="different edits, best first, as out.wav, out.2.wav, ..."
    )
    add("--edl", type=Path, metavar="FILE", help="also write the edit decision list as JSON")
    add("--checkpoint", type=Path, help="policy (.pt); default: the champion of the last `make run`")
    add("--reward_model", type=Path, help="chooses the edit (.pt); default: the one the champion was trained on")
    add(
        "--tracker",
        choices=TRACKERS,
        default=DEFAULT_TRACKER,
        help=f"finds the beats, unless `editorbot grid` corrected them (default: {DEFAULT_TRACKER})",
    )
    add(
        "--separator",
        choices=SEPARATORS,
        default=DEFAULT_SEPARATOR,
        help=f"divides the song into stems; as in training (default: {DEFAULT_SEPARATOR})",
    )
    add("--device", default="auto", help="cuda, cuda:N or cpu (default: cuda if there is one, else cpu)")
    add("--seed", type=int, default=0, help="other seeds, other candidates (default: 0)")
    return parser


def _policy(path: Path | None, device: str) -> LoadedPolicy:
    if path is None:
        path = champion_path(home_folder())
        if not path.is_file():
            raise ParameterError("there is no champion yet; train one with `make run`, or name a policy: --checkpoint")
    return load_policy(path, device)


def _reward(arguments: argparse.Namespace, device: str) -> RewardEnsemble | None:
    if arguments.reward_model is not None:
        return RewardEnsemble.load(arguments.reward_model, device=device)
    default = champion_reward_path(home_folder())
    if arguments.checkpoint is None and default.is_file():
        return RewardEnsemble.load(default, device=device)
    return None


def _run(arguments: argparse.Namespace) -> None:
    if arguments.candidates < 1:
        raise ParameterError(f"--candidates must be at least 1, got {arguments.candidates}")
    outputs = [numbered(arguments.output, i + 1) for i in range(arguments.candidates)]
    if arguments.audio.resolve() in [path.resolve() for path in outputs]:
        raise ParameterError(f"--output {arguments.output} would overwrite the song; name another file")
    device = resolve_device(arguments.device)
    loaded = _policy(arguments.checkpoint, device)
    reward = _reward(arguments, device)
    song = analyse_song(
        arguments.audio,
        corrections=corrections_folder(home_folder()),
        tracker=arguments.tracker,
        separator=arguments.separator,
    )
    target_s = target_duration(song.duration, duration=arguments.duration, keep=arguments.keep)
    clip = read_audio(arguments.audio)
    edits = edit_song(
        clip, song, loaded, target_s=target_s, n_candidates=arguments.candidates, reward=reward, seed=arguments.seed
    )
    for number, (output, edit) in enumerate(zip(outputs, edits, strict=False), start=1):
        write_audio(output, edit.clip)
        line = f"{output}  {edit.clip.duration_s:.1f} s of {song.duration:.1f} s, {len(edit.edl.segments) - 1} joins"
        if arguments.edl is not None:
            edl_path = numbered(arguments.edl, number)
            write_edl(edl_path, edit.edl)
            line += f"  {edl_path}"
        say(line)
    if len(edits) < arguments.candidates:
        say(f"the policy has only {len(edits)} different edits of this song at this length")


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m editorbot_core.infer") -> int:
    """The command; returns its exit status."""
    arguments = _parser(prog).parse_args(argv)
    return run_command(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
