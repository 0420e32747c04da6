"""Progress bars: a bar per stage, closed when the stage is done."""

import io

from editorbot_core.base.progress import ProgressBars


def test_a_bar_per_stage_with_its_name() -> None:
    stream = io.StringIO()
    bars = ProgressBars(stream)
    for done in range(4):
        bars("analyse songs", done, 3)
    bars("analyse songs", 3, 3)
    bars("warm start", 1, 2)
    bars.close()
    text = stream.getvalue()
    assert text.count("analyse songs: 100%") == 1
    assert "warm start:  50%" in text
