"""A JupyterHub for one course on one machine, whose users are those of the system. JupyterHub reads this, as root."""

import grp
import sys
from pathlib import Path

PLACE = Path(sys.prefix)


def tools(spawner):
    """Leave out of a student's JupyterLab what is for instructors; what protects the course is who owns its files."""
    if spawner.user.name not in grp.getgrnam("instructors").gr_mem:
        spawner.environment = spawner.environment | {"JUPYTER_CONFIG_PATH": str(PLACE / "students")}


c = get_config()  # noqa: F821, JupyterHub puts it here
c.JupyterHub.bind_url = "http://127.0.0.1:8000"  # others get there by a server with encryption: see JupyterHub's manual
c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.allowed_groups = {"students", "instructors"}
c.ConfigurableHTTPProxy.command = [str(PLACE / "node_modules" / ".bin" / "configurable-http-proxy")]
c.Spawner.cmd = [str(PLACE / "bin" / "jupyterhub-singleuser")]
c.Spawner.environment = {"PATH": f"{PLACE / 'bin'}:/usr/local/bin:/usr/bin:/bin"}
c.Spawner.http_timeout = 120  # seconds: thirty are few where a whole class logs in at once
c.Spawner.default_url = "/lab"
c.Spawner.pre_spawn_hook = tools
