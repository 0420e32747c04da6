"""A training history is a table: columns of equal length, whatever was logged when."""

import json
from pathlib import Path

import pytest

from editorbot_core.base.errors import FormatError
from editorbot_core.training.history import ALWAYS, TrainingHistory, close_log, line, open_log


def test_columns_stay_equally_long(tmp_path: Path) -> None:
    history = TrainingHistory()
    history.append({"step": 10, "total_reward": 0.5})
    history.append({"step": 20, "total_reward": 0.75, "eval/score": 1.0})
    history.append({"step": 30})
    assert {len(values) for values in history.columns().values()} == {3}
    assert history.columns()["eval/score"] == [None, 1.0, None]
    assert set(ALWAYS) <= set(history.columns())
    history.save(tmp_path / "history.json")
    assert TrainingHistory(json.loads((tmp_path / "history.json").read_text())).columns() == history.columns()


def test_unequal_columns_are_refused() -> None:
    with pytest.raises(FormatError, match="equally long"):
        TrainingHistory({"step": [1, 2], "total_reward": [0.5]})


def test_the_log_is_a_line_per_update_and_appended_to(tmp_path: Path) -> None:
    for step in (1, 2):
        log = open_log(tmp_path / "logs" / "training.log", level="INFO")
        log.info(line({"step": step, "total_reward": 0.123456}))
        log.debug("not shown")
        close_log(log)
    lines = (tmp_path / "logs" / "training.log").read_text().splitlines()
    assert [text.split("INFO ")[1] for text in lines] == [
        "step 1  total_reward 0.1235",
        "step 2  total_reward 0.1235",
    ]
