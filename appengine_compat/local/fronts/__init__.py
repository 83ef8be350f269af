"""The doors of the local Cloud Tasks: gRPC and REST/JSON, as Google's own clients knock.

Both speak protobuf inside: ``methods`` holds one table of RPCs, ``grpc_front`` serves it as it
is, and ``rest_front`` turns HTTP and JSON into the same messages and back.
"""
