"""A real Apache Kafka broker: its artifacts from Maven, run on the machine's Java, one node in KRaft mode.

`mvn` resolves the artifacts once; the class path that it names is kept beside the broker's data. The log directory is
formatted once, and counts only when Kafka's own `meta.properties` is in it.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from cli.stack import StackError
from cli.stack.ports import LOOPBACK, is_free
from cli.stack.process import die_with_parent, last_line, open_log, stop_process

KAFKA_VERSION: Final = "4.1.1"
SLF4J_VERSION: Final = "1.7.36"
JAVA_VERSION_MIN: Final = 17
CLUSTER_ID: Final = "dG9sbHdheS1sb2NhbC0wMA"
TOPIC: Final = "usage-events"
PARTITION_COUNT: Final = 12
RETENTION_MS: Final = 30 * 24 * 3_600 * 1_000
DOWNLOAD_SECONDS_MAX: Final = 600.0
FORMAT_SECONDS_MAX: Final = 60.0
START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 30.0
POLL_SECONDS: Final = 0.1
HEAP_OPTIONS: Final = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC")

_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tollway</groupId><artifactId>local-kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{SLF4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunningKafka:
    """A started broker."""

    process: subprocess.Popen[bytes]
    bootstrap: str

    def stop(self) -> None:
        """Stop it and wait for its end."""
        stop_process(self.process, STOP_SECONDS_MAX)


def start_kafka(*, folder: Path, port: int, controller_port: int, log_path: Path) -> RunningKafka:
    """Start the broker on `folder`, downloading and formatting on first use, and return when it listens.

    Raises:
        StackError: in one line, whatever the reason.
    """
    java, class_path = _java(), _class_path(folder, log_path)
    data = folder / "data"
    properties = folder / "server.properties"
    properties.write_text(_properties(data, port, controller_port))
    command = [java, *HEAP_OPTIONS, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", class_path]
    if not (data / "meta.properties").exists():
        arguments = ["kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", CLUSTER_ID]
        _run([*command, *arguments, "--config", str(properties)], "formatting Kafka", log_path, FORMAT_SECONDS_MAX)
    with open_log(log_path, append=True) as log:
        process = subprocess.Popen(
            [*command, "kafka.Kafka", str(properties)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 only the main thread forks
        )
    _wait_until_listening(process, port, log_path)
    return RunningKafka(process=process, bootstrap=f"{LOOPBACK}:{port}")


async def create_topics(bootstrap: str) -> None:
    """Create the topics that are missing. The client waits until the broker answers.

    Raises:
        StackError: when the broker cannot be reached or refuses.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    settings = {"retention.ms": str(RETENTION_MS)}
    topics = [
        NewTopic(TOPIC, num_partitions=PARTITION_COUNT, replication_factor=1, topic_configs=settings),
    ]
    try:
        await admin.start()
        existing = await admin.list_topics()
        missing = [topic for topic in topics if topic.name not in existing]
        if missing:
            await admin.create_topics(missing)
    except TopicAlreadyExistsError:
        return  # somebody else made it between our two questions
    except (KafkaError, OSError) as error:
        raise StackError(f"Kafka at {bootstrap} refuses its topics: {error}") from error
    finally:
        await admin.close()


def _java() -> str:
    java = shutil.which("java")
    version = _java_version(java) if java else None
    if java is None or (version is not None and version < JAVA_VERSION_MIN):
        found = f"this machine has Java {version}" if version else "this machine has none"
        raise StackError(
            f"--kafka needs Java {JAVA_VERSION_MIN} or newer and {found}: install it, or set TOLLWAY_KAFKA_BOOTSTRAP"
        )
    return java


def _java_version(java: str) -> int | None:
    """Return the feature version; None where the program says something else than expected, and may yet work."""
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(match[1]) if match else None


def _class_path(folder: Path, log_path: Path) -> str:
    """Return Kafka's class path, asking Maven the first time."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "class-path"
    if kept.exists():
        class_path = kept.read_text()
        if all(Path(jar).exists() for jar in class_path.split(":")):
            return class_path
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError("--kafka needs Maven to fetch Kafka: install mvn, or set TOLLWAY_KAFKA_BOOTSTRAP")
    pom = folder / "pom.xml"
    pom.write_text(_POM)
    written = folder / "class-path.new"
    quiet = ["-q", "-B", "-Dstyle.color=never"]
    goal = ["dependency:build-classpath", f"-Dmdep.outputFile={written}"]
    _run([maven, *quiet, "-f", str(pom), *goal], "fetching Kafka", log_path, DOWNLOAD_SECONDS_MAX)
    written.replace(kept)
    return kept.read_text()


def _run(command: list[str], what: str, log_path: Path, seconds_max: float) -> None:
    with open_log(log_path, append=True) as log:
        try:
            status = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=seconds_max,
                preexec_fn=die_with_parent(signal.SIGTERM),
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise StackError(f"{what} took longer than {seconds_max:.0f} s (log: {log_path})") from error
    if status != 0:
        raise StackError(f"{what} failed with exit status {status}: {last_line(log_path)} (log: {log_path})")


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StackError(f"Kafka ended with exit status {process.returncode}: {last_line(log_path)}")
        if not is_free(port):
            return
        time.sleep(POLL_SECONDS)
    process.kill()
    process.wait()
    raise StackError(f"Kafka did not listen within {START_SECONDS_MAX:.0f} s: {last_line(log_path)}")


def _properties(data: Path, port: int, controller_port: int) -> str:
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())
