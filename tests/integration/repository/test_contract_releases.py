"""What was released may not change its meaning: buf compares with the descriptor set of the last release."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROTO = "tollway/auth/v1/auth_service.proto"
MESSAGES = "tollway/auth/v1/organizations.proto"


@pytest.fixture
def contract(tmp_path):
    shutil.copytree(ROOT / "proto" / "tollway", tmp_path / "proto" / "tollway")
    (tmp_path / "releases").mkdir()
    return tmp_path


def run(contract, *arguments):
    command = [sys.executable, str(ROOT / "proto" / "releases.py"), "--source", str(contract / "proto")]
    done = subprocess.run(
        [*command, "--releases", str(contract / "releases"), *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def change(contract, before, after):
    path = contract / "proto" / MESSAGES
    text = path.read_text()
    assert text.count(before) >= 1
    path.write_text(text.replace(before, after, 1))


def test_without_a_release_there_is_nothing_to_break(contract):
    assert run(contract) == (0, "buf breaking: no release yet, nothing to compare with\n")


def test_a_release_is_kept_and_additions_go_on_being_welcome(contract):
    assert run(contract, "--release", "0.1.0")[0] == 0
    assert [path.name for path in (contract / "releases").iterdir()] == ["0.1.0.binpb"]
    with (contract / "proto" / PROTO).open("a") as proto:
        proto.write("\n// Added.\nmessage Added {}\n")
    assert run(contract) == (0, "")


def test_a_number_that_changes_its_meaning_breaks_the_last_release(contract):
    for version in ("0.9.0", "0.10.0"):
        assert run(contract, "--release", version)[0] == 0
    change(contract, "string organization_id = 1;", "bytes organization_id = 1;")
    status, said = run(contract)
    assert status == 1
    assert "organization_id" in said
    status, said = run(contract, "--release", "0.11.0")
    assert (status, "not fit for a release" in said) == (1, True)
    assert not (contract / "releases" / "0.11.0.binpb").exists()


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9", "1.0", "v0.2.0", "../0.2.0"])
def test_a_version_that_is_none_or_not_above_the_newest_is_refused(contract, version):
    assert run(contract, "--release", "0.1.0")[0] == 0
    assert run(contract, "--release", version)[0] == 1
    assert len(list((contract / "releases").iterdir())) == 1


def test_the_same_contract_gives_the_same_bytes(contract):
    assert run(contract, "--release", "0.1.0")[0] == run(contract, "--release", "0.2.0")[0] == 0
    one, other = sorted((contract / "releases").iterdir())
    assert one.read_bytes() == other.read_bytes()
