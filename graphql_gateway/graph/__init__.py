"""GraphQL: types and fields over the services' RPCs, and the guards around executing a stranger's query."""
