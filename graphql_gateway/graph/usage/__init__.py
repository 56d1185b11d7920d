"""What `metering` owns."""
