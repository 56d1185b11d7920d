"""The upstream's side of a request: pooled connections on a C parser, streamed with backpressure."""
