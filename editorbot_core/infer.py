"""Edit one song: audio in, edited audio and its edit decision list out."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from editorbot_core.analysis.names import add_separator, add_tracker, check_separator, check_tracker
from editorbot_core.audio.formats import check_output
from editorbot_core.base.console import add_device, check_count, check_device, check_file, command_line, say
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.home import champion_path, champion_reward_path, corrections_folder, home_folder

if TYPE_CHECKING:
    from editorbot_core.audio.clip import AudioClip
    from editorbot_core.editing.edits import EditDecisionList
    from editorbot_core.policy.files import LoadedPolicy
    from editorbot_core.rewards.learned import RewardEnsemble
    from editorbot_core.songs.song import Song

DEFAULT_KEEP = 0.5
KEEP_RANGE = (0.1, 4.0)


@dataclass(frozen=True)
class RenderedEdit:
    """An edit and its audio; the segments of the EDL are the ones that were rendered."""

    edl: "EditDecisionList"
    clip: "AudioClip"


def edit_song(
    clip: "AudioClip",
    song: "Song",
    loaded: "LoadedPolicy",
    *,
    target_s: float,
    n_candidates: int = 1,
    reward: "RewardEnsemble | None" = None,
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
    from editorbot_core.audio.render import render_edit
    from editorbot_core.policy.editors import candidate_edits

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
        rendering = render_edit(clip, edl.segments)
        results.append(RenderedEdit(replace(edl, segments=rendering.segments), rendering.clip))
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = "Edit a song to another length so that it still sounds like the song."
    add = parser.add_argument
    add("--audio", type=Path, required=True, help="the song, any common format")
    add("--output", type=Path, required=True, help="where the edit goes: .wav, .flac, .ogg, .mp3 or .m4a")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--duration", type=float, metavar="SECONDS", help="length of the edit")
    length.add_argument("--keep", type=float, metavar="RATIO", help=f"length over the song's (default: {DEFAULT_KEEP})")
    add(
        "--candidates", type=int, default=1, metavar="N", help="different edits, best first, as out.wav, out.2.wav, ..."
    )
    add("--edl", type=Path, metavar="FILE", help="also write the edit decision list as JSON")
    add("--checkpoint", type=Path, help="policy (.pt); default: the champion of the last `make run`")
    add("--reward_model", type=Path, help="chooses the edit (.pt); default: the one the champion was trained on")
    add_tracker(parser)
    add_separator(parser)
    add_device(parser)
    add("--seed", type=int, default=0, help="other seeds, other candidates (default: 0)")


def _checked_weights(arguments: argparse.Namespace) -> tuple[Path, Path | None]:
    """Files of the policy and of the reward model, if there is one."""
    policy, reward = arguments.checkpoint, arguments.reward_model
    if reward is not None:
        check_file(reward, "--reward_model")
    if policy is not None:
        check_file(policy, "--checkpoint")
        return policy, reward
    policy = champion_path(home_folder())
    if not policy.is_file():
        raise ParameterError("there is no champion yet; train one with `make run`, or name a policy: --checkpoint")
    default = champion_reward_path(home_folder())
    return policy, default if reward is None and default.is_file() else reward


def _check_length(duration: float | None, keep: float | None) -> None:
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ParameterError(f"--duration {duration:g} cannot be met: it must be a positive number of seconds")
    low, high = KEEP_RANGE
    if keep is not None and not low <= keep <= high:
        raise ParameterError(f"--keep {keep:g} cannot be met: it must be between {low:g} and {high:g}")


def run(arguments: argparse.Namespace) -> None:
    """Check the arguments, then analyse the song and edit it."""
    check_count("--candidates", arguments.candidates)
    _check_length(arguments.duration, arguments.keep)
    check_device(arguments.device)
    check_tracker(arguments.tracker)
    check_separator(arguments.separator)
    check_file(arguments.audio, "--audio")
    check_output(arguments.output)
    outputs = [numbered(arguments.output, i + 1) for i in range(arguments.candidates)]
    if arguments.audio.resolve() in [path.resolve() for path in outputs]:
        raise ParameterError(f"--output {arguments.output} would overwrite the song; name another file")
    policy_path, reward_path = _checked_weights(arguments)
    from editorbot_core.audio.files import read_audio, write_audio
    from editorbot_core.base.devices import resolve_device
    from editorbot_core.editing.interchange import write_edl
    from editorbot_core.policy.files import load_policy
    from editorbot_core.rewards.learned import RewardEnsemble
    from editorbot_core.songs.library import analyse_song

    device = resolve_device(arguments.device)
    loaded = load_policy(policy_path, device)
    reward = None if reward_path is None else RewardEnsemble.load(reward_path, device=device)
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


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m editorbot_core.infer`; returns its exit status."""
    return command_line(add_arguments, run, prog="python -m editorbot_core.infer", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
