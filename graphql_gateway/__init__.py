"""GraphQL and REST in front of Tollway's services; see README.md."""
