"""A service that no Python of ours knows: compiled when a test asks for it, and registered at run time."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import google.api
import grpc_tools
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, field_mask_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor import ServiceDescriptor
from grpc_tools import protoc
from tollway.options.v1 import access_pb2

IMPORTED = (annotations_pb2, field_mask_pb2, timestamp_pb2, wrappers_pb2, access_pb2)
"""What the proto imports has to be in the pool before it."""

ROOT = Path(__file__).parents[2]
NAME = "tollway/widgets/v1/widget_service.proto"
PROTO = """
syntax = "proto3";
package tollway.widgets.v1;
import "google/api/annotations.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "tollway/options/v1/access.proto";

service WidgetService {
  rpc GetWidget(GetWidgetRequest) returns (Widget) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {
      get: "/api/v1/widgets/{widget_id}"
      additional_bindings {get: "/api/v1/shelves/{filter.shelf}/widgets/{widget_id}"}
    };
    option (tollway.options.v1.access) = {callers: [CALLER_ANYONE]};
  }
  rpc PutWidget(PutWidgetRequest) returns (Widget) {
    option (google.api.http) = {put: "/api/v1/widgets/{widget.widget_id}" body: "widget"};
    option (tollway.options.v1.access) = {callers: [CALLER_ANYONE]};
  }
  rpc UpdateWidget(PutWidgetRequest) returns (Widget) {
    option (google.api.http) = {patch: "/api/v1/widgets/{widget.widget_id}" body: "widget"};
    option (tollway.options.v1.access) = {callers: [CALLER_ANYONE]};
  }
  rpc PaintWidget(PaintWidgetRequest) returns (PaintWidgetResponse) {
    option (google.api.http) = {post: "/api/v1/widgets/{widget_id}:paint" body: "*" response_body: "widget"};
    option (tollway.options.v1.access) = {callers: [CALLER_ANYONE]};
  }
  rpc DeleteWidget(GetWidgetRequest) returns (Widget) {
    option (google.api.http) = {delete: "/api/v1/widgets/{widget_id}"};
    option (tollway.options.v1.access) = {callers: [CALLER_ANYONE]};
  }
  rpc WatchWidgets(GetWidgetRequest) returns (stream Widget) {
    option (google.api.http) = {get: "/api/v1/widgets:watch"};
    option (tollway.options.v1.access) = {callers: [CALLER_ANYONE]};
  }
  rpc GetLatestWidget(GetWidgetRequest) returns (Widget) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {get: "/api/v1/widgets/latest"};
    option (tollway.options.v1.access) = {callers: [CALLER_ANYONE]};
  }
  rpc HideWidget(GetWidgetRequest) returns (Widget) {
    option (tollway.options.v1.access) = {callers: [CALLER_ANYONE]};
  }
}

message Widget {
  string widget_id = 1;
  Color color = 2;
  int64 weight_grams = 3;
  repeated string labels = 4;
  map<string, string> notes = 5;
  google.protobuf.Timestamp make_time = 6;
  Size size = 7;
  bytes stamp = 8;
  repeated Widget parts = 9;
  oneof power {
    string battery = 10;
    int32 volts = 11;
  }
  double ratio = 12;
  google.protobuf.Int64Value limit = 13;
}
message Size {
  uint32 width_mm = 1;
  uint32 height_mm = 2;
}
message Filter {
  string shelf = 1;
  Color color = 2;
  repeated Color colors = 3;
  google.protobuf.Timestamp made_after_time = 4;
  bool broken = 5;
  google.protobuf.BoolValue glossy = 6;
  Size size = 7;
  repeated Size sizes = 8;
}
message GetWidgetRequest {
  string widget_id = 1;
  Filter filter = 2;
  int32 page_size = 3;
}
message PutWidgetRequest {
  Widget widget = 1;
  google.protobuf.FieldMask update_mask = 2;
  bool validate_only = 3;
}
message PaintWidgetRequest {
  string widget_id = 1;
  Color color = 2;
  string idempotency_key = 3;
}
message PaintWidgetResponse {
  Widget widget = 1;
}
enum Color {
  COLOR_UNSPECIFIED = 0;
  COLOR_RED = 1;
  COLOR_BLUE = 2;
}
"""


@functools.cache
def widget_service() -> ServiceDescriptor:
    """Compile and register the service."""
    with tempfile.TemporaryDirectory() as folder:
        source, compiled = Path(folder) / NAME, Path(folder) / "set"
        source.parent.mkdir(parents=True)
        source.write_text(PROTO)
        includes = [
            folder,
            ROOT / "proto",
            Path(next(iter(google.api.__path__))).parents[1],
            Path(next(iter(grpc_tools.__path__))) / "_proto",
        ]
        arguments = ["protoc", *(f"-I{path}" for path in includes), f"--descriptor_set_out={compiled}", NAME]
        if protoc.main(arguments) != 0:
            raise RuntimeError("the made-up service does not compile")
        files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())
    pool = descriptor_pool.Default()
    pool.Add(files.file[0])
    return pool.FindServiceByName("tollway.widgets.v1.WidgetService")
