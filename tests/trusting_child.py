"""A child of the sandbox that lets all programs share it, whatever their names: what is left when `tame` is
deceived. Tests put its path in place of sandbox.CHILD."""

import json
import socket
import sys

from games.sandbox import child

if __name__ == "__main__":
    child.tame = lambda code, tricky: True
    child.zygote(json.loads(sys.argv[1]), socket.socket(fileno=0))
