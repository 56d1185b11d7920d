"""Rules that several processes must apply in the same way and that protobuf cannot say.

The protos are the contract's shape; these modules are the part of it that is arithmetic. They import nothing but the
generated code, so that edge, gateway and every service can stand on them.
"""
