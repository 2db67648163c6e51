"""The same without an event loop. Start an edge box first: ionn edge serve --unpaired

Run: python examples/blocking.py [a paired box's name, or ionn://127.0.0.1:7431]
"""

import sys

import ionn_client
from layergraph.load import load

EDGE = sys.argv[1] if len(sys.argv) > 1 else "ionn://127.0.0.1:7431"

lenet = load("lenet")
with ionn_client.connect_sync(lenet.model, lenet.args, edge=EDGE) as net:
    print("answered by", net.query(*lenet.args).served_by)
    net.uploaded(timeout_s=30)
    print("uploaded:", net.status.reason)
