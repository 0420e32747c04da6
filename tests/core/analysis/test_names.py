"""The names of trackers and separators, readable without loading any of them."""

import subprocess
import sys

import pytest

from editorbot_core.analysis.beats.trackers import tracker_version
from editorbot_core.analysis.dsp.separators import separator_version
from editorbot_core.analysis.names import DEFAULT_SEPARATOR, DEFAULT_TRACKER, SEPARATORS, TRACKERS
from editorbot_core.base.errors import ParameterError


def test_every_name_is_known_where_it_is_used_and_no_other() -> None:
    for names, default, version in (
        (TRACKERS, DEFAULT_TRACKER, tracker_version),
        (SEPARATORS, DEFAULT_SEPARATOR, separator_version),
    ):
        assert version(default)
        for name in names:
            try:
                assert version(name)
            except ParameterError as error:
                assert "is not installed" in str(error)
        with pytest.raises(ParameterError, match=f"must be one of {', '.join(names)}, got 'none'"):
            version("none")


def test_reading_the_names_loads_nothing_heavy() -> None:
    script = (
        "import sys, editorbot_core.analysis.names; sys.exit(bool({'torch', 'numba', 'librosa'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
