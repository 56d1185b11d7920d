"""REST, made from the descriptors: `google.api.http` says where an RPC is, proto3 JSON says what it looks like."""
