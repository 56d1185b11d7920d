import json
import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.util._once import Once

from contract.services import SERVICES
from mesh import config, observability
from mesh.clock import ManualClock, SystemClock
from mesh.database import sql
from mesh.database.migrate import MIGRATIONS, MigrationError, discover
from mesh.ids import LEAD_MS_MAX, RandomIds, SequenceIds
from mesh.rpc import errors
from tests.support.processes import PUBLIC_KEYS


def test_ids_are_version_7_unique_and_in_order():
    source = RandomIds()
    ids = [source.uuid7() for _ in range(20_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {(i.version, i.variant) for i in ids} == {(7, "specified in RFC 4122")}


def test_ids_stay_in_order_when_the_clock_goes_back_a_little():
    now_ns = time.time_ns()
    source = RandomIds(lambda: now_ns)
    first = source.uuid7()
    now_ns -= 5_000_000_000
    assert UUID(bytes=source.uuid7_bytes()) > first


@given(st.lists(st.integers(-(10**7), 10**7), min_size=1, max_size=60))
def test_ids_never_lead_the_clock_by_more_than_the_bound_and_stay_unique(steps_ms):
    now_ms = 1_790_000_000_000
    source = RandomIds(lambda: now_ms * 1_000_000)
    made = set()
    for step_ms in steps_ms:
        now_ms += step_ms
        ids = [source.uuid7() for _ in range(5)]
        assert all(now_ms <= each.int >> 80 <= now_ms + LEAD_MS_MAX for each in ids)
        made.update(ids)
    assert len(made) == 5 * len(steps_ms)


def test_ids_come_back_after_a_forward_jump_is_corrected():
    now_ns = time.time_ns() + 3_600_000_000_000
    source = RandomIds(lambda: now_ns)
    source.uuid7()
    now_ns -= 3_600_000_000_000
    assert [each.int >> 80 for each in (source.uuid7(), source.uuid7())] == [now_ns // 1_000_000] * 2


def test_sequence_ids_are_valid_and_repeatable():
    assert [SequenceIds().uuid7() for _ in range(2)] == [UUID("00000000-0000-7000-8000-000000000001")] * 2


def test_a_manual_clock_moves_one_organization_alone():
    clock = ManualClock(datetime(2026, 1, 31, tzinfo=UTC))
    clock.shift(UUID(int=1), 3600)
    clock.advance(1)
    assert clock.now(UUID(int=1)) - clock.now(UUID(int=2)) == timedelta(hours=1)
    assert clock.monotonic() == 1
    assert SystemClock().now().tzinfo is UTC


@given(st.dictionaries(st.integers(1, 99), st.binary(min_size=32, max_size=32), min_size=1, max_size=3))
def test_versioned_keys_round_trip(keys):
    assert config.versioned_keys(",".join(f"{v}:{k.hex()}" for v, k in keys.items())) == keys


@pytest.mark.parametrize("text", ["", "1", "1:zz", "1:00", "x:" + "0" * 64, "1:" + "0" * 64 + ",1:" + "1" * 64])
def test_wrong_versioned_keys_are_refused(text):
    with pytest.raises(ValueError, match=r"."):
        config.versioned_keys(text)


@pytest.mark.parametrize(("text", "expected"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0))])
def test_addresses(text, expected):
    assert config.host_port(text) == expected


@pytest.mark.parametrize("text", ["", "80", ":80", "host:", "host:http", "host:65536"])
def test_wrong_addresses_are_refused(text):
    with pytest.raises(ValueError, match="is not host:port"):
        config.host_port(text)


def test_a_wrong_environment_is_told_completely_and_without_values(monkeypatch, capsys):
    monkeypatch.delenv("TOLLWAY_PROCESS_KEY", raising=False)
    monkeypatch.setenv("TOLLWAY_PROCESS_PUBLIC_KEYS", PUBLIC_KEYS)
    monkeypatch.setenv("TOLLWAY_LOG_LEVEL", "hush-hush")
    with pytest.raises(SystemExit) as ended:
        config.load(config.ProcessSettings)
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert sorted(line.split(":")[0] for line in lines) == ["TOLLWAY_LOG_LEVEL", "TOLLWAY_PROCESS_KEY"]
    assert "hush-hush" not in str(lines)


def test_queries_are_named_blocks_with_their_comments():
    queries = sql.Queries("-- head\n-- name: one\n-- why\nSELECT 1;\n\n-- name: two\nSELECT 2;\n", "x")
    assert dict(queries) == {"one": "-- one\n-- why\nSELECT 1;", "two": "-- two\nSELECT 2;"}
    with pytest.raises(KeyError, match="x has no statement three"):
        queries["three"]


@pytest.mark.parametrize("text", ["-- name: a\n-- name: b\nSELECT 1", "-- name: a\nSELECT 1\n-- name: a\nSELECT 2"])
def test_empty_and_repeated_queries_are_refused(text):
    with pytest.raises(ValueError, match="empty or comes twice"):
        sql.Queries(text, "x")


class CupboardIsBare(errors.FailedPrecondition):
    """The cupboard is bare.

    Not shown.
    """


def test_an_error_says_its_reason_and_sentence_and_keeps_its_detail():
    error = CupboardIsBare("mice", metadata={"shelf": "2"}, retry_after_seconds=1.5)
    status = error.to_status()
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (status.code, status.message) == (grpc.StatusCode.FAILED_PRECONDITION.value[0], "The cupboard is bare.")
    assert (info.reason, info.domain, dict(info.metadata)) == ("CUPBOARD_IS_BARE", "tollway", {"shelf": "2"})
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert "mice" not in str(status)


def test_violations_are_reported_together():
    found = errors.Violations()
    found.raise_if_any()
    found.check(False, "a", "must be there")
    found.check(True, "b", "must be there")
    found.add("c", "must be short")
    with pytest.raises(errors.InvalidFields) as raised:
        found.raise_if_any()
    assert [v.field for v in raised.value.violations] == ["a", "c"]


def test_migrations_of_every_service_are_complete_and_numbered_without_gaps():
    for service in SERVICES:
        assert [m.version for m in discover(service)] == list(range(1, len(discover(service)) + 1)), service
        assert all(m.down_sql.strip() for m in discover(service))
    assert MIGRATIONS.is_dir()


def test_a_migration_without_its_way_back_is_refused(tmp_path):
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth" / "0001_x.up.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match=r"down\.sql beside it"):
        discover("auth", tmp_path)


SAMPLED = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


@pytest.mark.parametrize(
    ("traceparent", "sampled"), [(SAMPLED, True), (SAMPLED[:-1] + "0", False), (None, False), ("x", False), ("", False)]
)
def test_sampling_is_read_from_the_flags(traceparent, sampled):
    assert observability.is_sampled(traceparent) is sampled


class Recorder(SpanExporter):
    def __init__(self):
        self.spans = []

    def export(self, spans):
        self.spans += spans
        return SpanExportResult.SUCCESS


def test_only_sampled_requests_make_spans_and_children_follow_their_parent(monkeypatch):
    # A process has one provider for good, and another test may have set it.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    recorder = Recorder()
    observability.configure_tracing("test", recorder)
    with observability.span("quiet", SAMPLED[:-1] + "0") as quiet:
        assert observability.traceparent_of(quiet, "as it was") == "as it was"
    with observability.span("loud", SAMPLED, links=[SAMPLED, "junk"], attributes={"n": 1}) as loud:
        inner = observability.current_traceparent()
        assert inner == observability.traceparent_of(loud, None)
        assert inner.split("-")[1] == "1" * 32
    observability.flush_traces()
    (span,) = recorder.spans
    assert (span.name, format(span.parent.span_id, "016x"), len(span.links)) == ("loud", "2" * 16, 1)


def test_logs_are_json_lines_with_service_time_and_level(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    structlog.reset_defaults()
    observability.configure_logging("metering", level="info", form="json")
    log = structlog.get_logger()
    log.debug("hidden")
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        log.info("shown", status="OK")
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert {"service", "time", "level", "event", "request_id", "status"} <= set(line)
    assert (line["service"], line["level"], line["request_id"]) == ("metering", "info", "r1")
    structlog.reset_defaults()


def test_a_log_line_that_cannot_be_written_breaks_nothing(monkeypatch):
    class Full:
        def write(self, _text=""):
            raise OSError(28, "No space left on device")

        flush = write

    monkeypatch.setattr(sys, "stdout", Full())
    observability.configure_logging("test", level="info", form="json")
    structlog.get_logger().error("disk_is_full")
    monkeypatch.undo()
    structlog.reset_defaults()
