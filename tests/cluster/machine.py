"""A "machine of your own" on this one: an ssh server on 127.0.0.1 with a home, a user's key and a Python
environment, and the laptop from which `ray up` reaches it."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.files import CLUSTER, ROOT

SECRETS = {"HF_TOKEN": "hf_NoOneMayReadThis123", "WANDB_API_KEY": "wandbKeyThatStaysAtHome"}

SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
SetEnv HOME={folder}/head OMP_NUM_THREADS=1 RAY_agent_register_timeout_ms=300000
"""
"""StrictModes: its files lie in a temporary folder. HOME: the user's own stays as it is."""

PROXY = """
import os, socket, sys, threading
server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def send():
    while data := os.read(0, 65536):
        server.sendall(data)
    server.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := server.recv(65536):
    os.write(1, data)
"""
"""What ssh_proxy_command runs: Ray always asks for port 22."""

SCRIPT = "#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Machine:
    """All of it lies in one folder."""

    folder: Path
    port: int

    @property
    def laptop(self) -> Path:
        """Home of the one who types."""
        return self.folder / "laptop"

    @property
    def head(self) -> Path:
        """Home of the same user on the machine."""
        return self.folder / "head"

    @property
    def venv(self) -> Path:
        """The machine's Python environment; the cluster's setup installs the project into it."""
        return self.folder / "venv"

    @property
    def cluster_file(self) -> Path:
        return self.folder / "local.yaml"

    def prepare(self) -> None:
        """Keys, homes, environment and the filled cluster file."""
        for home in (self.laptop, self.head, self.folder / "tmp"):
            home.mkdir(parents=True)
        for name in (".profile", ".bashrc"):  # as a new user has them
            shutil.copy(Path("/etc/skel") / name, self.head)
        for name in ("host_key", "key"):
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(make, check=True)
        secrets = self.laptop / ".config" / "bearray" / "secrets.env"
        secrets.parent.mkdir(parents=True)
        secrets.write_text("".join(f"{k}={v}\n" for k, v in SECRETS.items()), encoding="utf-8")
        (self.folder / "proxy.py").write_text(PROXY, encoding="utf-8")
        (self.folder / "sshd_config").write_text(
            SSHD.format(port=self.port, folder=self.folder), encoding="utf-8"
        )
        self.cluster_file.write_text(yaml.safe_dump(self._filled(), sort_keys=False), encoding="utf-8")
        self._make_venv()

    def _filled(self) -> dict[str, Any]:
        """cluster/local.yaml with what its comments tell to change, and nothing else."""
        config = yaml.safe_load((CLUSTER / "local.yaml").read_text(encoding="utf-8"))
        config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
        config["auth"] = {
            "ssh_user": getpass.getuser(),
            "ssh_private_key": str(self.folder / "key"),
            "ssh_proxy_command": f"{sys.executable} {self.folder}/proxy.py {self.port}",
        }
        secrets = "~/.config/bearray/secrets.env"
        config["file_mounts"][secrets] = secrets
        venv = f"export BEARRAY_VENV={self.venv};"
        offline = "export PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=0;"  # 0: no isolation, by pip's own logic
        config["setup_commands"] = [f"{venv} {offline} {line}" for line in config["setup_commands"]]
        for role in ("head", "worker"):
            name = f"{role}_start_ray_commands"
            config[name] = [f"{venv} {line}" for line in config[name]]
        return config

    def _make_venv(self) -> None:
        """Everything that is installed here, pip too, but the project itself (an editable installation, which
        a folder that is only on the path does not bring)."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.venv)], check=True)
        ours = sysconfig.get_path("purelib", vars={"base": str(self.venv)})
        theirs = sysconfig.get_path("purelib")
        Path(ours, "installed.pth").write_text(f"{theirs}\n", encoding="utf-8")
        ray = SCRIPT.format(
            python=self.venv / "bin" / "python", module="ray.scripts.scripts", function="main"
        )
        (self.venv / "bin" / "ray").write_text(ray, encoding="utf-8")
        (self.venv / "bin" / "ray").chmod(0o755)

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the ssh server and wait until it listens."""
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        log = (self.folder / "sshd.log").open("wb")
        server = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")], stdout=log, stderr=log
        )
        while server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return server
            time.sleep(0.1)
        raise RuntimeError(f"sshd ended: {(self.folder / 'sshd.log').read_text(encoding='utf-8')}")

    def environment(self) -> dict[str, str]:
        """Of a shell on the laptop, as docs/cluster.md has it."""
        return {
            "HOME": str(self.laptop),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "RAY_AUTH_MODE": "token",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.folder / "tmp"),
        }


def missing() -> list[str]:
    """Programs that are not here."""
    sshd = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    needed = {"sshd (openssh-server)": sshd, **{name: shutil.which(name) for name in ("ssh", "rsync")}}
    return [name for name, path in needed.items() if path is None]


__all__ = ["ROOT", "SECRETS", "Machine", "free_port", "missing"]
