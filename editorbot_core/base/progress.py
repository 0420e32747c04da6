"""Progress and metrics of long work, reported to callables.

A `Progress` is called as `progress(stage, done, total)`; the library never draws anything itself.
"""

import sys
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

# Called with metrics by name, and the step they belong to.
Log = Callable[[dict[str, float], int], None]
# Called with a stage's name, the steps done, and the steps in all.
Progress = Callable[[str, int, int], None]


class ProgressBars:
    """A bar per stage, with the stage's name and the time left, on a text stream; as a context it closes the last."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: tqdm | None = None
        self._stage = ""
        self._finished = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of `stage` are finished."""
        if done >= total and stage == self._finished:
            return
        if self._bar is None or stage != self._stage:
            self.close()
            self._stage = stage
            self._bar = tqdm(
                total=total, desc=stage, file=self._stream, dynamic_ncols=True, mininterval=0.5, leave=True
            )
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        self._finished = stage if done >= total else ""
        if done >= total:
            self.close()

    def __enter__(self) -> "ProgressBars":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the bar that is open, if any."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            self._stage = ""
