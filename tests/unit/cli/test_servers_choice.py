"""Which servers are started and which are taken as they are."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from aiokafka.errors import KafkaConnectionError

from cli import subscriptions
from cli.demo_data import TENANTS
from cli.stack import StackError
from cli.stack.installation import Options
from cli.stack.layout import Layout
from cli.stack.ports import DEFAULT_PORTS, Ports
from cli.stack.servers import kafka, running
from cli.stack.servers.smtp import Mailbox
from tests.support.processes import process_variables


class Started:
    def __init__(self, name, log, **more):
        self.name, self.log = name, log
        self.process = type("Process", (), {"pid": len(log) + 1})
        vars(self).update(more)
        log.append(f"{name} up")

    def stop(self):
        self.log.append(f"{self.name} down")


@pytest.fixture
def log(monkeypatch):
    log = []

    async def set_up(*_arguments):
        log.append("set up")

    monkeypatch.setattr(
        running, "start_postgres", lambda **given: Started("postgres", log, port=given["port"], admin_dsn="admin")
    )
    monkeypatch.setattr(running, "start_redis", lambda **_given: Started("redis", log, url="redis://own/0"))
    monkeypatch.setattr(kafka, "start_kafka", lambda **_given: Started("kafka", log, bootstrap="own:9092"))
    monkeypatch.setattr(running, "_set_up", set_up)
    return log


def run(tmp_path, **options):
    layout = Layout(data_dir=tmp_path)
    chosen = Options(data_dir=tmp_path, given_ports={}, **options)
    return running.running_servers(chosen, layout, Ports(by_part=DEFAULT_PORTS), lambda _text: None)


def test_our_own_are_started_and_stopped_in_the_opposite_order(tmp_path, log):
    with run(tmp_path, with_kafka=True) as running:
        assert set(running.pids) == {"postgres", "redis", "kafka"}
        assert running.installation.redis_url == "redis://own/0"
        assert running.installation.kafka_bootstrap == "own:9092"
        assert running.installation.postgres.port == DEFAULT_PORTS["postgres"]
    assert log == ["postgres up", "redis up", "kafka up", "set up", "kafka down", "redis down", "postgres down"]


def test_external_ones_are_taken_as_they_are(tmp_path, log):
    with run(
        tmp_path,
        with_kafka=True,
        postgres_admin_dsn="postgresql://admin:x@db.example:6000/postgres",
        redis_url="redis://there/1",
        kafka_bootstrap="there:9092",
    ) as running:
        assert running.pids == {}
        assert (running.installation.postgres.host, running.installation.postgres.port) == ("db.example", 6000)
        assert running.installation.redis_url == "redis://there/1"
        assert running.installation.kafka_bootstrap == "there:9092"
    assert log == ["set up"]


def test_a_wrong_address_is_refused(tmp_path, log):
    with pytest.raises(StackError, match="ADMIN_DSN"), run(tmp_path, postgres_admin_dsn="db.example"):
        pytest.fail("it is no address")


class FakeAdmin:
    def __init__(self, existing, error=None):
        self.existing, self.error = existing, error
        self.created = []

    async def start(self):
        if self.error:
            raise self.error

    async def list_topics(self):
        return self.existing

    async def create_topics(self, topics):
        self.created += [(topic.name, topic.num_partitions) for topic in topics]

    async def close(self):
        pass


@pytest.mark.parametrize(
    ("existing", "created"),
    [([], [("usage-events", 12)]), (["usage-events"], [])],
)
async def test_topics_that_are_missing_are_created(existing, created, monkeypatch):
    admin = FakeAdmin(existing)
    monkeypatch.setattr(kafka, "AIOKafkaAdminClient", lambda **_given: admin)
    await kafka.create_topics("there:9092")
    assert admin.created == created


async def test_a_broker_that_is_not_there_is_one_clear_error(monkeypatch):
    admin = FakeAdmin([], KafkaConnectionError("nobody"))
    monkeypatch.setattr(kafka, "AIOKafkaAdminClient", lambda **_given: admin)
    with pytest.raises(StackError, match="there:9092"):
        await kafka.create_topics("there:9092")


async def test_every_tenant_is_subscribed_under_a_key_of_its_own():
    asked = []

    class Billing:
        async def CreateSubscription(self, request):
            asked.append((request.organization_id, request.plan_id, request.idempotency_key))

    await subscriptions.subscribe(type("Clients", (), {"billing": Billing()}))
    assert [(organization, plan) for organization, plan, _ in asked] == [
        (str(tenant.organization_id), tenant.plan_id) for tenant in TENANTS
    ]
    assert len({key for _, _, key in asked}) == len(asked)


def test_a_refused_subscription_is_said_in_one_line(monkeypatch, capsys):
    async def refuse(_settings):
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")

    for name, value in process_variables("cli").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(subscriptions, "_main", refuse)
    with pytest.raises(SystemExit) as ended:
        subscriptions.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "billing answers UNAVAILABLE: gone\n"


def test_a_mail_is_kept_whole_with_its_recipients(tmp_path):
    envelope = type("Envelope", (), {"rcpt_tos": ["a@x", "b@x"], "content": b"Subject: s\r\n\r\nbody"})
    box = Mailbox(tmp_path)
    assert asyncio.run(box.handle_DATA(None, None, envelope)).startswith("250")
    (mail,) = tmp_path.iterdir()
    assert mail.suffix == ".eml"
    assert mail.read_bytes() == b"X-Envelope-To: a@x, b@x\r\nSubject: s\r\n\r\nbody"
