"""What `billing` owns."""
