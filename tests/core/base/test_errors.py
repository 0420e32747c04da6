"""Every error is one of EditorBot's, and says by its exit status whose fault it is."""

import pytest

from editorbot_core.base.errors import AudioError, EditorBotError, FormatError, GateError, ParameterError, StoreError


@pytest.mark.parametrize(
    ("error", "status"),
    [(ParameterError, 2), (AudioError, 2), (FormatError, 2), (StoreError, 1), (GateError, 1), (EditorBotError, 1)],
)
def test_wrong_input_is_2_and_what_broke_is_1(error: type[EditorBotError], status: int) -> None:
    assert issubclass(error, EditorBotError)
    assert error("what was expected").exit_status == status
    assert str(error("what was expected")) == "what was expected"


def test_a_wrong_value_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="seconds"):
        raise ParameterError("seconds")
