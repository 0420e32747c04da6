"""The weights that come with the package are those that were trained."""

import numpy as np
import pytest

from editorbot_core.analysis import weights as shipped
from editorbot_core.base.errors import FormatError


def test_weights_come_back_and_are_checked(tmp_path):
    arrays = {"x": np.arange(3.0)}
    shipped.save_weights("one", arrays, folder=tmp_path)
    np.testing.assert_array_equal(shipped.load_weights("one", folder=tmp_path)["x"], arrays["x"])
    shipped.load_weights.cache_clear()
    with (tmp_path / "one.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(FormatError, match="SHA-256"):
        shipped.load_weights("one", folder=tmp_path)
    with pytest.raises(FormatError, match="no digest"):
        shipped.load_weights("two", folder=tmp_path)


def test_every_shipped_file_has_its_digest():
    for path in shipped.FOLDER.glob("*.npz"):
        assert shipped.load_weights(path.stem)
