from __future__ import annotations

import json

from tollway.events.v1 import usage_event_pb2 as events

from edge_proxy.process.exposition import Exposition
from edge_proxy.process.metrics import WorkerMetrics


def report(requests: int, lag_seconds: float) -> dict:
    metrics = WorkerMetrics()
    for _ in range(requests):
        metrics.request("api", 200, events.OUTCOME_ANSWERED, 0.003)
    metrics.gauges["event_loop_lag_seconds"] = lag_seconds
    metrics.gauges["connections"] = 2
    return json.loads(json.dumps(metrics.snapshot()))


def test_workers_are_added_up_and_dead_ones_stay_in_counters():
    exposition = Exposition()
    exposition.retire(report(5, 0.5))
    lines = exposition.text([report(2, 0.1), report(1, 0.2)], 2).splitlines()
    assert 'tollway_edge_requests_total{outcome="answered",route="api",status="2xx"} 8.0' in lines
    assert 'tollway_edge_request_duration_seconds_bucket{route="api",le="0.005"} 8' in lines
    assert 'tollway_edge_request_duration_seconds_bucket{route="api",le="0.0025"} 0' in lines
    assert 'tollway_edge_request_duration_seconds_bucket{route="api",le="+Inf"} 8' in lines
    assert "tollway_edge_connections 4.0" in lines
    assert "tollway_edge_event_loop_lag_seconds 0.2" in lines
    assert lines.count("# TYPE tollway_edge_requests_total counter") == 1
