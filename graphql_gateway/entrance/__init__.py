"""What stands between a socket and a view: connections, the guard of every request, and what all say in HTTP."""
