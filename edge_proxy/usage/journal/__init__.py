"""The edge's own record of what happened, written before the client knows that its answer is whole."""
