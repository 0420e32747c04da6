"""An evaluation in files that people and other programs read."""

import json

import pandas as pd
import pytest

from editorbot_core.editing.baselines import BASELINES
from editorbot_core.evaluation.report import evaluation_figures, write_evaluation
from tests.core.evaluation.conftest import shared_evaluation


def test_what_is_written_can_be_read_and_is_small(tmp_path):
    evaluation = shared_evaluation()
    paths = write_evaluation(tmp_path / "results", evaluation)
    names = {path.name for path in paths}
    assert {"evaluation.json", "evaluation.csv", "evaluation.parquet", "evaluation.txt"} < names
    assert {path.name for path in (tmp_path / "results").iterdir()} == names
    document = json.loads((tmp_path / "results/evaluation.json").read_text(), parse_constant=pytest.fail)
    assert document["schema"] == "editorbot.evaluation/1"
    assert document["summary"]["knowing"]["quality"] == pytest.approx(evaluation.table().at["knowing", "quality"])
    assert document["wins"]["knowing"]["one_cut"] == evaluation.wins("knowing", "one_cut")._asdict()
    assert len(document["rows"]) == 5 * (len(BASELINES) + 1)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "results/evaluation.parquet"), evaluation.rows)
    images = [path for path in paths if path.suffix == ".png"]
    assert len(images) == 3
    for path in images:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 100_000
    assert list(evaluation_figures(evaluation)) == ["quality", "profile", "wins"]
