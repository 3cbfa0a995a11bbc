"""Errors with codes: what survives pickling, wrapping and collecting."""

from __future__ import annotations

import copy
import pickle

import pytest

from crwn.data.base import DataError
from crwn.faults import Fault, FaultError, InvalidError, codes_of
from crwn.spec import TrainingSpec
from orchestrator.errors import LostError, StorageError, UnfinishedError, UserError, begun
from orchestrator.sweeps.places import Fault as PlacedFault
from orchestrator.sweeps.places import FileFaultsError
from tests.refusals import refused

ERRORS = (
    UserError("unknown-name", "given 'x'"),
    StorageError(("away", "late", "away"), "the storage"),
    LostError("moved", "the store"),
    InvalidError.of([Fault("too-small", "given 0"), Fault(("too-large", "too-small"), "given 9")]),
    DataError("data-set-missing", "given none"),
    FileFaultsError([PlacedFault(path=("a", 1), codes=("too-small",), message="given 0")], "x.yaml: 1 fault"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_whole_out_of_another_process(error: FaultError) -> None:
    """Its type, message, codes and attributes survive pickling, as by multiprocessing and Ray, and copying."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 (the bytes were made on this line)
        assert type(other) is type(error)
        assert (str(other), other.codes) == (str(error), error.codes)
        assert vars(other) == vars(error)


def test_each_kind_of_fault_is_named_once() -> None:
    """In the order in which they were found."""
    assert ERRORS[1].codes == ("away", "late")
    assert ERRORS[3].codes == ("too-small", "too-large")
    assert str(ERRORS[3]) == "given 0; given 9"


def test_a_fault_is_its_text() -> None:
    """It joins with other text, and keeps its codes when pickled."""
    fault = Fault("too-small", "given 0")
    sent = pickle.loads(pickle.dumps(fault))  # noqa: S301 (as above)
    assert f"{fault}!" == "given 0!"
    assert (sent, sent.codes) == (fault, ("too-small",))


def test_all_faults_of_a_spec_have_their_codes() -> None:
    """Codes of all fields are in one error, which Python callers catch as a ValueError."""
    with pytest.raises(ValueError, match="learning_rate") as caught:
        TrainingSpec(learning_rate=-1, batch_size=True, dtype="float16")
    assert codes_of(caught.value, "") == ("too-small", "wrong-type", "unknown-name")


def test_what_wraps_an_error_keeps_its_codes() -> None:
    """They say what went wrong; a library's error has none and gets the code of what was attempted."""
    with refused(UnfinishedError, "away", "late", says="Go on."), begun("Go on."):
        raise ERRORS[1]
    with refused(UnfinishedError, "system-refused", says="disk full. Go on."), begun("Go on."):
        raise OSError("disk full")
    assert codes_of(KeyError("x"), "key-missing") == ("key-missing",)


def test_a_refusal_is_of_one_type_and_codes() -> None:
    """The helper of the tests themselves: another code, another type, one code more, or a missing fact fail."""
    error = UserError(("a", "b"), "given 3 in x.yaml")

    def told(*codes: str, says: str = "") -> bool:
        try:
            with refused(UserError, *codes, says=says):
                raise error
        except AssertionError:
            return False
        return True

    assert told("a", "b", says="x.yaml")
    assert not any((told("a"), told("b", "a"), told("a", "b", "c"), told("a", "b", says="y.yaml")))
    with pytest.raises(UserError), refused(DataError, "a", "b"):
        raise error
