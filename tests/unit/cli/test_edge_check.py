from __future__ import annotations

from click.testing import CliRunner

from cli.commands.group import tollway

GOOD = "version: 1\nupstreams: {u: {urls: ['${UPSTREAM}']}}\nroutes:\n  - {id: a, match: {path: /}, upstream: u}\n"


def check(path, environment):
    return CliRunner().invoke(tollway, ["edge", "check", str(path)], env=environment)


def test_a_good_routes_file_is_counted(tmp_path):
    path = tmp_path / "routes.yaml"
    path.write_text(GOOD)
    result = check(path, {"UPSTREAM": "http://u"})
    assert (result.exit_code, result.output) == (0, f"{path}: 1 routes, 1 upstreams\n")


def test_each_problem_of_a_routes_file_is_one_line(tmp_path):
    path = tmp_path / "routes.yaml"
    path.write_text(GOOD + "  - {id: a, match: {path: /b}, upstream: v}\n")
    result = check(path, {"UPSTREAM": "http://ü.example"})
    assert result.exit_code == 1
    assert result.output.startswith("upstreams.u.urls: 'http://ü.example' has characters")
    path.write_text(GOOD + "  - {id: a, match: {path: /b}, upstream: v}\n")
    assert check(path, {"UPSTREAM": "http://u"}).output.splitlines() == [
        "routes[1].upstream: no upstream is called 'v'",
        "routes[1].id: 'a' is taken by routes[0]",
    ]


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    result = check(tmp_path / "none.yaml", {})
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
