"""What an edge knows of keys survives it, whichever worker learnt it and whatever was torn."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys import cache as key_cache
from edge_proxy.keys import files as key_files
from edge_proxy.keys import saver as key_saver
from edge_proxy.keys.cache import KeyCache
from edge_proxy.keys.files import KeyFiles
from edge_proxy.keys.saver import KeySaver

REVOKED = auth.KEY_STATE_REVOKED


def grant(number: int, *, version: int = 1, state: int = auth.KEY_STATE_ACTIVE) -> auth.KeyGrant:
    return auth.KeyGrant(digest=bytes([number]) * 32, state=state, version=version)


def forgotten(number: int, *, version: int) -> auth.KeyGrant:
    return grant(number, version=version, state=auth.KEY_STATE_UNSPECIFIED)


def known(folder: Path) -> dict[int, tuple[int, int]]:
    loaded = KeyFiles(folder).load()
    assert loaded is not None
    return {message.digest[0]: (message.version, message.state) for message in loaded.grants}


def test_changes_stand_over_the_snapshot_in_the_order_of_versions(tmp_path: Path) -> None:
    one, other = KeyFiles(tmp_path), KeyFiles(tmp_path)
    one.replace([grant(1), grant(2), grant(3), grant(4)])
    one.append([grant(1, version=3, state=REVOKED), grant(5)])
    other.append([grant(1, version=2), forgotten(2, version=1), forgotten(3, version=0)])
    active = auth.KEY_STATE_ACTIVE
    assert known(tmp_path) == {1: (3, REVOKED), 3: (1, active), 4: (1, active), 5: (1, active)}
    assert (tmp_path / "keys.log").stat().st_mode & 0o777 == 0o600


def test_a_snapshot_of_a_worker_that_knows_less_does_not_undo_a_change(tmp_path: Path) -> None:
    one, behind = KeyFiles(tmp_path), KeyFiles(tmp_path)
    one.replace([grant(1)])
    one.append([grant(1, version=2, state=REVOKED)])
    for _ in range(3):
        # The log is empty after the first time; the worker may stay behind for long.
        behind.replace([grant(1)])
        assert known(tmp_path) == {1: (2, REVOKED)}
        assert (tmp_path / "keys.log").stat().st_size == 0
    # Whoever else writes it, and when: what is newer stands.
    KeyFiles(tmp_path).replace([grant(1), grant(2)])
    behind.replace([grant(1)])
    assert known(tmp_path) == {1: (2, REVOKED)}
    behind.replace([])
    assert known(tmp_path) == {}


def test_changes_alone_are_not_enough_to_start_on(tmp_path: Path) -> None:
    files = KeyFiles(tmp_path)
    assert files.load() is None
    files.append([grant(1)])
    assert files.load() is None


def test_the_log_is_bounded_by_folding_it_into_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_files, "LOG_BYTES_MAX", 2_000)
    files = KeyFiles(tmp_path)
    files.replace([grant(1)])
    for version in range(2, 200):
        files.append([grant(1, version=version), grant(2, version=version, state=REVOKED)])
        assert (tmp_path / "keys.log").stat().st_size < 2_200
    assert known(tmp_path) == {1: (199, auth.KEY_STATE_ACTIVE), 2: (199, REVOKED)}
    (tmp_path / "keys.snapshot").unlink()
    for version in range(200, 300):
        files.append([grant(1, version=version)])
    assert (tmp_path / "keys.log").stat().st_size < 2_200


def test_what_imported_keys_begin_with_is_kept_through_changes_and_folding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = KeyFiles(tmp_path)
    files.replace([grant(1)], ("acme_", "old-"))
    files.append([grant(1, version=2)])
    assert files.load().prefixes == ("acme_", "old-")
    monkeypatch.setattr(key_files, "LOG_BYTES_MAX", 0)
    files.append([grant(1, version=3)])
    assert (tmp_path / "keys.log").stat().st_size == 0
    assert files.load().prefixes == ("acme_", "old-")


def test_a_torn_record_hides_no_other(tmp_path: Path) -> None:
    files = KeyFiles(tmp_path)
    files.replace([grant(1), grant(2), grant(3)])
    path = tmp_path / "keys.log"
    files.append([grant(1, version=2, state=REVOKED)])
    whole = path.stat().st_size
    files.append([grant(2, version=2, state=REVOKED)])
    for cut in range(whole, path.stat().st_size):
        os.truncate(path, cut)
        files.append([grant(3, version=2, state=REVOKED)])
        states = {number: state for number, (_, state) in known(tmp_path).items()}
        assert states == {1: REVOKED, 2: auth.KEY_STATE_ACTIVE, 3: REVOKED}, cut
        os.truncate(path, whole)
        files.append([grant(2, version=2, state=REVOKED)])


def test_a_change_is_fsynced_before_it_counts_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = KeyFiles(tmp_path)
    files.append([grant(1)])
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    files.append([grant(2)])
    assert synced == [(tmp_path / "keys.log").stat().st_size]


def test_a_lock_that_is_never_given_back_is_an_error_and_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_files, "LOCK_SECONDS_MAX", 0.02)
    files = KeyFiles(tmp_path)
    files.append([grant(1)])
    with (tmp_path / "keys.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="temporarily unavailable"):
            files.append([grant(2)])


async def test_a_change_is_on_the_disk_before_the_next_snapshot(tmp_path: Path) -> None:
    cache, files = KeyCache(), KeyFiles(tmp_path)
    files.replace([grant(1)])
    saver = KeySaver(cache, files, writes_snapshots=False)
    running = asyncio.create_task(saver.run())
    cache.push([grant(1, version=2, state=REVOKED)], fresh_until=0.0)
    async with asyncio.timeout(60):
        while known(tmp_path) != {1: (2, REVOKED)}:
            await asyncio.sleep(0.001)
    running.cancel()


async def test_too_many_changes_are_told_as_unwritten_until_a_snapshot_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_cache, "UNSAVED_MAX", 1)
    cache, files = KeyCache(), KeyFiles(tmp_path)
    saver = KeySaver(cache, files, writes_snapshots=False)
    cache.push([grant(1, state=REVOKED), grant(2, state=REVOKED)], fresh_until=0.0)
    await saver.save_changes()
    assert files.load() is None, "what is not loaded is no snapshot"
    cache.put_stored([], now=0.0)
    cache.push([grant(1, version=2, state=REVOKED)], fresh_until=0.0)
    with monkeypatch.context() as full:
        full.setattr(key_files.snapshot, "write", _no_space)
        await saver.save_changes()
    assert not saver.is_writing
    await saver.save_changes()
    assert saver.is_writing
    assert known(tmp_path) == {1: (2, REVOKED), 2: (1, REVOKED)}


def _no_space(*_values: object) -> None:
    raise OSError(28, "No space left on device")


async def test_what_cannot_be_written_is_told_and_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_saver, "RETRY_SECONDS", 0.001)
    folder = tmp_path / "not_there_yet"
    cache = KeyCache()
    saver = KeySaver(cache, KeyFiles(folder), writes_snapshots=True)
    running = asyncio.create_task(saver.run())
    cache.put_stored([grant(1), grant(2)], now=0.0)
    cache.push([grant(1, version=2, state=REVOKED)], fresh_until=0.0)
    async with asyncio.timeout(60):
        while saver.is_writing:
            await asyncio.sleep(0.001)
        folder.mkdir()
        while not saver.is_writing:
            await asyncio.sleep(0.001)
    running.cancel()
    await saver.save_snapshot()
    assert known(folder) == {1: (2, REVOKED), 2: (1, auth.KEY_STATE_ACTIVE)}
