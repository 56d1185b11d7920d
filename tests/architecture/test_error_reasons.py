"""docs/errors.md lists every reason that a caller can meet, and nothing else."""

import importlib
import pkgutil
import re
from pathlib import Path

import graphql_gateway
import mesh
import services
from edge_proxy.pipeline import problems
from mesh.rpc.errors import RpcError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
# The bases stand for gRPC codes; what is raised is derived from them.
BASES = {
    cls for cls in RpcError.__subclasses__() if cls.__module__ == "mesh.rpc.errors" and cls.__name__ != "InternalError"
}


def everything(package):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def descendants(cls):
    for child in cls.__subclasses__():
        yield child
        yield from descendants(child)


def test_every_reason_is_documented_with_its_code_and_sentence():
    everything(mesh)
    everything(services)
    everything(graphql_gateway)
    raised = {cls for cls in descendants(RpcError) if cls not in BASES and cls.__module__.split(".")[0] != "tests"}
    rows = {
        f"| `{cls.reason()}` | {cls.grpc_code.name} | {cls.public_message()} |"
        for cls in raised
        if cls.__module__.startswith(("mesh.", "services.", "graphql_gateway."))
    }
    documented = set(re.findall(r"^\| `[A-Z_]+` \|.*\|$", PAGE.read_text(), re.MULTILINE))
    assert sorted(rows - documented) == []
    assert sorted(documented - rows) == []


def test_every_problem_of_the_edge_is_documented():
    known = [value for value in vars(problems).values() if isinstance(value, problems.Problem)]
    page = PAGE.read_text()
    assert [p.name for p in known if f"| {p.name} | {p.status} | {p.title} |" not in page] == []
