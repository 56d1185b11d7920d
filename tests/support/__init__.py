"""What tests stand on: real servers, fresh databases."""
