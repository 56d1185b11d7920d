"""The data plane: checks the key, asks the limiter, forwards the request, journals the event.

`pipeline/handle.py` is the place to start reading: one request, top to bottom. `README.md` says what this package owns
and what happens when each of its dependencies is away.
"""
