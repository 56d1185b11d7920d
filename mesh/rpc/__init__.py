"""gRPC as every process serves and calls it."""
