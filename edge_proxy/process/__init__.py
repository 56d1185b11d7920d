"""The processes of an edge: a supervisor and its workers."""
