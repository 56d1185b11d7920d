"""Path templates of google.api.http."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_gateway.rest.template import compile_template


@pytest.mark.parametrize(
    ("template", "path", "bound"),
    [
        ("/v1/plans", "/v1/plans", {}),
        ("/v1/plans", "/v1/plans/", None),
        ("/v1/plans", "/v1/plansx", None),
        ("/v1/{organization_id}/keys", "/v1/7/keys", {"organization_id": "7"}),
        ("/v1/{organization_id}/keys", "/v1//keys", None),
        ("/v1/{organization_id}/keys", "/v1/7/8/keys", None),
        ("/v1/keys/{key_id}:revoke", "/v1/keys/7:revoke", {"key_id": "7"}),
        ("/v1/keys/{key_id}:revoke", "/v1/keys/7:renew", None),
        ("/v1/keys/{key_id}", "/v1/keys/7:revoke", None),
        ("/v1/keys/{key_id}", "/v1/keys/7%3Arevoke", {"key_id": "7:revoke"}),
        ("/v1/keys/{key_id}", "/v1/keys/a%2Fb", {"key_id": "a/b"}),
        ("/v1/{name=things/*}", "/v1/things/7", {"name": "things/7"}),
        ("/v1/{name=things/*}:undo", "/v1/things/7:undo", {"name": "things/7"}),
        ("/v1/{file.path=**}", "/v1/a/b/c", {"file.path": "a/b/c"}),
        ("/v1/*/x", "/v1/anything/x", {}),
        ("/v1/invoices:preview", "/v1/invoices:preview", {}),
    ],
)
def test_a_template_matches_what_it_says(template: str, path: str, bound: dict[str, str] | None) -> None:
    assert compile_template(template).match(path) == bound


@pytest.mark.parametrize("value", ["%", "%zz", "%ff"])
def test_a_value_that_is_not_percent_encoded_text_is_told(value: str) -> None:
    with pytest.raises(ValueError):
        compile_template("/v1/{x}").match(f"/v1/{value}")


@pytest.mark.parametrize("text", ["v1", "/v1//x", "/v1/{x y}", "/v1/a b", "/v1/x:a!b"])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        compile_template(text)


@given(st.text(min_size=1))
def test_any_text_comes_back_out_of_a_path(value: str) -> None:
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        return
    assert compile_template("/v1/{x}/y").match(f"/v1/{quote(value, safe='')}/y") == {"x": value}
