"""What is kept between runs is whole, or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.image import cache_directory, kept, run


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another cache than the real one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(to: Path) -> None:
    """Make something."""
    (to / "file").write_text("made", encoding="utf-8")


def fail(to: Path) -> None:
    """Make half of something."""
    write(to)
    raise RuntimeError("no room")


def test_what_was_made_is_kept() -> None:
    place = kept("thing", write)
    assert (place / "file").read_text(encoding="utf-8") == "made"
    assert kept("thing", fail) == place


def test_what_was_not_finished_is_not_kept() -> None:
    with pytest.raises(RuntimeError, match="no room"):
        kept("thing", fail)
    assert [path.name for path in cache_directory().iterdir()] == ["lock"]
    assert (kept("thing", write) / "file").exists()


def test_what_a_run_that_died_had_begun_is_removed_by_the_next_one() -> None:
    begun = cache_directory() / "making-x" / "thing"
    begun.mkdir(parents=True)
    write(begun)
    place = kept("thing", write)
    assert sorted(path.name for path in cache_directory().iterdir()) == ["lock", place.name]


def test_a_program_that_fails_says_why_and_takes_its_mounts_along(tmp_path: Path) -> None:
    script = 'mount -t tmpfs none "$1" && touch "$1/x" && echo mounted && exit 3'
    with pytest.raises(RuntimeError, match="ended with 3: mounted"):
        run("sh", "-c", script, "sh", str(tmp_path))
    assert not (tmp_path / "x").exists()
