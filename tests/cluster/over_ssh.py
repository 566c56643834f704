"""What docs/cluster.md tells to type, typed: `ray up`, a sweep as a job, its log through a lost connection,
its results, `ray down`. test_over_ssh.py runs it in namespaces of its own: `python -m tests.cluster.over_ssh
PLAN`. PLAN is a JSON file; what came of each step is written beside it, into played.json.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.machine import ROOT, Machine, free_port

PLAYED = "played.json"
STEP_SECONDS = 900
CRASH = """
import os, ray
ray.init()
@ray.remote(max_retries=0)
def work():
    print("the last words of a worker", flush=True)
    os.kill(os.getpid(), 9)
ray.get(work.remote())
"""
WHO = (
    "import os, sys; print('python', sys.executable, 'in', os.getcwd(), 'with', len(os.environ['HF_TOKEN']))"
)


class Play:
    """The steps, one after the other; each adds what came of it to `played`."""

    def __init__(self, folder: Path, sweep: list[str]) -> None:
        self.folder, self.sweep = folder, sweep
        self.machine = Machine(folder, free_port())
        self.port = free_port()
        self.environment = self.machine.environment()
        self.environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{self.port}"
        self.tunnel: subprocess.Popen[bytes] | None = None
        self.played: dict[str, Any] = {}

    def run(self, step: str, *words: str, cwd: Path = ROOT, **environment: str) -> int:
        """A command on the laptop; its exit code."""
        done = subprocess.run(
            words, cwd=cwd, env=self.environment | environment, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=STEP_SECONDS,
        )  # fmt: skip
        self.played[step] = {"code": done.returncode, "out": done.stdout, "err": done.stderr}
        print(f"{time.strftime('%H:%M:%S')} {step}: {done.returncode}", flush=True)
        return done.returncode

    def wait(self, what: str, there: Callable[[], bool]) -> None:
        until = time.monotonic() + STEP_SECONDS
        while not there():
            if time.monotonic() > until:
                raise TimeoutError(what)
            time.sleep(0.5)

    def forward(self, *words: str) -> None:
        """Forward the dashboard's port by a command that stays."""
        log = (self.folder / "tunnel.log").open("ab")
        self.tunnel = subprocess.Popen(
            words, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        self.wait("a tunnel", lambda: self.listens() or self.tunnel.poll() is not None)
        assert self.tunnel.poll() is None, (self.folder / "tunnel.log").read_text(encoding="utf-8")

    def listens(self) -> bool:
        """Whether the forwarded port is there."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def cut(self) -> None:
        """End the tunnel, and the connections that Ray's ssh keeps for it."""
        assert self.tunnel is not None
        os.killpg(self.tunnel.pid, signal.SIGKILL)
        self.tunnel.wait()
        for process in psutil.process_iter(["name"]):  # in a namespace in which all are ours
            if process.info["name"] == "ssh":
                process.kill()
        self.wait("the end of the tunnel", lambda: not self.listens())

    def play(self) -> None:
        machine = self.machine
        machine.prepare()
        server = machine.serve()
        try:
            self.up()
            self.jobs()
            self.follow()
            self.results()
        finally:
            (self.folder / PLAYED).write_text(json.dumps(self.played), encoding="utf-8")
            self.run("down", "ray", "down", "-y", str(machine.cluster_file))
            processes = [p.info for p in psutil.process_iter(["name", "status"])]
            left = [info["name"] for info in processes if info["status"] != psutil.STATUS_ZOMBIE]
            self.played["left"] = [name for name in left if name in ("raylet", "gcs_server")]
            server.terminate()
            (self.folder / PLAYED).write_text(json.dumps(self.played), encoding="utf-8")

    def up(self) -> None:
        token = self.machine.laptop / ".ray" / "auth_token"
        token.parent.mkdir()
        token.write_text(os.urandom(32).hex(), encoding="utf-8")
        for _ in range(3):  # `ray start` gives its processes half a minute, which a busy machine may not keep
            if self.run("up", "ray", "up", "-y", str(self.machine.cluster_file)) == 0:
                break
        self.forward("ray", "dashboard", "--port", str(self.port), str(self.machine.cluster_file))

    def jobs(self) -> None:
        nobody = {"HOME": str(self.folder), "RAY_AUTH_MODE": "disabled"}
        self.run("without token", "bearray", "jobs", "status", **nobody)
        self.run("who", "ray", "job", "submit", "--", "python", "-c", WHO)
        crash = self.folder / "crash"
        crash.mkdir()
        (crash / "crash.py").write_text(CRASH, encoding="utf-8")
        job = ("--submission-id", "crash-1", "--", "python", "crash.py")
        self.run("submit crash", "ray", "job", "submit", "--working-dir", ".", "--no-wait", *job, cwd=crash)
        self.run("crash", "bearray", "jobs", "logs", "crash-1")
        job = ("--submission-id", "sweep-1", "--", "python", "sweeps/demo.py", "--smoke", *self.sweep)
        self.run("submit", "ray", "job", "submit", "--working-dir", ".", "--no-wait", *job)

    def follow(self) -> None:
        """The log, with the connection cut and forwarded again by the other way that the page names."""
        with (self.folder / "log.out").open("wb") as out, (self.folder / "log.err").open("wb") as err:
            follower = subprocess.Popen(
                ["bearray", "jobs", "logs", "sweep-1"], cwd=ROOT, env=self.environment, stdout=out, stderr=err
            )

            def said(name: str) -> str:
                return (self.folder / name).read_text(encoding="utf-8", errors="replace")

            self.wait("the log", lambda: "base model" in said("log.out") or follower.poll() is not None)
            self.cut()
            self.wait("the cut", lambda: "is gone" in said("log.err") or follower.poll() is not None)
            config = self.machine
            proxy = f"ProxyCommand={sys.executable} {config.folder}/proxy.py {config.port}"
            way = ["-o", proxy, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
            ports = f"{self.port}:127.0.0.1:8265"
            self.forward("ssh", "-i", str(config.folder / "key"), *way, "-N", "-L", ports, "127.0.0.1")
            self.run("early status", "bearray", "jobs", "status", "sweep-1", "--json")
            code = follower.wait(STEP_SECONDS)
        self.played["logs"] = {"code": code, "out": said("log.out"), "err": said("log.err")}
        self.run("log as Ray has it", "ray", "job", "logs", "sweep-1")

    def results(self) -> None:
        self.run("status", "bearray", "jobs", "status", "sweep-1")
        self.run("list", "bearray", "jobs", "status")
        self.run("metadata", "ray", "job", "list")
        to = ("--to", str(self.folder / "fetched"))
        cluster = ("--cluster", str(self.machine.cluster_file))
        self.run("fetch", "bearray", "jobs", "fetch", "sweep-1", *cluster, *to)
        self.run("listening", "bash", "-c", f"cat /proc/net/tcp; echo {shlex.quote(str(self.port))}")


if __name__ == "__main__":
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Play(Path(plan["folder"]), plan["sweep"]).play()
