"""nbgrader's formgrader, served on loopback as JupyterLab serves it."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys

from tests.notebooks.test_lab import answers
from tests.waiting import until


@contextlib.contextmanager
def served(root, place):
    """Serve a course directory; yield the address and the token, and end the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    own = {f"JUPYTER_{kind}_DIR": str(place / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyter_server", f"--port={port}", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={token}"]
    command += ["--ServerApp.open_browser=False"] + ["--allow-root"] * (os.geteuid() == 0)
    address = f"http://127.0.0.1:{port}"
    with open(place / "log", "wb") as out:
        env = os.environ | own | {"IPYTHONDIR": str(place / "ipython")}
        server = subprocess.Popen(command, cwd=root, env=env, stdout=out, stderr=out)
    try:
        until(lambda: server.poll() is not None or answers(f"{address}/api/status?token={token}"))
        assert server.poll() is None, (place / "log").read_text()
        yield address, token
    finally:
        server.terminate()
        server.wait()
