"""What several processes must agree on and protobuf cannot say.

The protos are the contract's shape; these modules are its rules, its arithmetic and the catalogue of who is there. They
import nothing but the generated code, so that mesh, edge, gateway and every service can stand on them.
"""
