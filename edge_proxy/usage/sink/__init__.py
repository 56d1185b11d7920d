"""Where journalled events go: to `metering` over gRPC, or to Kafka."""
