from __future__ import annotations

import msgspec
import pytest

from bench.results import Results, decode, encode
from tests.bench.samples import PART


def test_results_are_read_as_they_were_written() -> None:
    results = Results({"relay": PART})
    assert decode(encode(results)) == results


def test_what_is_written_has_four_digits() -> None:
    part = msgspec.structs.replace(PART, seconds=1.23456789)
    assert decode(encode(Results({"relay": part}))).parts["relay"].seconds == 1.235


@pytest.mark.parametrize("text", [b"", b"{}", b'{"parts": {}, "version": 1}', b'{"parts": []}'])
def test_what_is_no_result_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="results"):
        decode(text)
