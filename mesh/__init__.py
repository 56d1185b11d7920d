"""What every process stands on: configuration, servers, clients, databases, time. No business words inside."""
