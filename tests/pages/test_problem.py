from __future__ import annotations

import pytest

from natproxy.pages.problem import problem_page
from tests.pages.samples import read


@pytest.mark.parametrize(("is_portal", "way"), [(True, "Your caches"), (False, "All caches")])
def test_it_says_what_is_wrong_and_leads_back(is_portal: bool, way: str) -> None:
    tree = read(problem_page(404, "There is no such cache", "Look again.", is_portal=is_portal))
    assert (tree.one("h1").text, tree.one("main").one(class_="card").text) == ("There is no such cache", "Look again.")
    assert tree.one("nav").one("a").text == way
    assert tree.one("nav").one("a").attributes["href"] == "/"
