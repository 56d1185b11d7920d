"""The client's side of a request: HTTP/1.1 parsed strictly, answered once."""
