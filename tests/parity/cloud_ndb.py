"""Runs code in transactions of google-cloud-ndb, against a datastore server in this process.

Speaks as ``beside.py`` does.
"""

import ast
import json
import logging
import os
import sys
from concurrent import futures

import grpc
from google.auth import credentials
from google.cloud import ndb
from google.cloud.datastore_v1.types import datastore as messages

import appengine_compat

appengine_compat.install()

from google.appengine.api import taskqueue  # noqa: E402, F401 - for the code

from appengine_compat.backends import choice  # noqa: E402
from appengine_compat.backends.stub import StubBackend  # noqa: E402


class Datastore(grpc.GenericRpcHandler):
    """Begins, commits and rolls back transactions; refuses as many commits as it is told."""

    def __init__(self):
        self.calls = []
        self.conflicts = 0

    def service(self, details):
        name = details.method.rpartition("/")[2]
        answer = getattr(self, name)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: answer(context),
            response_serializer=lambda message: type(message).serialize(message),
        )

    def BeginTransaction(self, _context):
        self.calls.append("begin")
        return messages.BeginTransactionResponse(transaction=b"%d" % len(self.calls))

    def Commit(self, context):
        if self.conflicts:
            self.conflicts -= 1
            self.calls.append("conflict")
            context.abort(grpc.StatusCode.ABORTED, "too much contention")
        self.calls.append("commit")
        return messages.CommitResponse()

    def Rollback(self, _context):
        self.calls.append("rollback")
        return messages.RollbackResponse()


def run(code, datastore, client):
    datastore.calls.clear()
    datastore.conflicts = 0
    stub = StubBackend()
    choice.activate(stub)
    tree = ast.parse(code)
    last = ast.Expression(tree.body.pop().value)
    names = dict(
        globals(),
        datastore=datastore,
        tasks=lambda: [task.request.relative_url for task in stub.tasks()],
    )
    try:
        with client.context():
            exec(compile(tree, "<case>", "exec"), names)
            return repr(eval(compile(last, "<case>", "eval"), names))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        choice.deactivate(stub)


def main():
    logging.disable(logging.CRITICAL)
    datastore = Datastore()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([datastore])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    os.environ["DATASTORE_EMULATOR_HOST"] = f"127.0.0.1:{port}"
    client = ndb.Client(project="parity-test", credentials=credentials.AnonymousCredentials())
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line), datastore, client)), flush=True)
    server.stop(None)


if __name__ == "__main__":
    main()
