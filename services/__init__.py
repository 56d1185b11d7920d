"""The five services. Each imports mesh, contract, generated code and itself, never another service."""
