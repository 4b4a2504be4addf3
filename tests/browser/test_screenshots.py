"""The pictures of docs/images/ are there, of the pages that they are said to be of, and small."""

from __future__ import annotations

import struct

import pytest

from tests.browser.screenshots import IMAGES, MOST_BYTES, PICTURES, Picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_is_there(picture: Picture) -> None:
    content = (IMAGES / picture.name).read_bytes()
    assert content.startswith(SIGNATURE)
    size = struct.unpack(">II", content[16:24])
    assert size == (picture.screen.width * picture.scale, picture.screen.height * picture.scale)
    assert len(content) <= MOST_BYTES


def test_there_are_no_others() -> None:
    assert {path.name for path in IMAGES.glob("*.png")} == {picture.name for picture in PICTURES}
