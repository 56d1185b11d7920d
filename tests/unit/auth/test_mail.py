"""Links in e-mails lead to the dashboard and nowhere else."""

from __future__ import annotations

import pytest

from services.auth.config import check_dashboard_url
from services.auth.mail import Page
from tests.support.accounts import DASHBOARD_URL, mail


def test_every_page_lies_below_the_dashboard() -> None:
    for page in Page:
        assert mail().link(page).startswith(f"{DASHBOARD_URL}/")


@pytest.mark.parametrize("url", ["https://d.example", "https://d.example/", "http://127.0.0.1:8000/app//"])
def test_a_slash_at_the_end_is_no_matter(url: str) -> None:
    assert check_dashboard_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["", "d.example", "ftp://d.example", "javascript:alert(1)", "https://", "https://d.example?a=b", "https://d#x",
     "https://user@d.example", "https://d.example/a b", "https://d.example/\n"],
)  # fmt: skip
def test_what_pages_cannot_be_put_behind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_dashboard_url(url)
