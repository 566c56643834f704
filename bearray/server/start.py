"""Starting and stopping the service on a Ray cluster."""

from __future__ import annotations

import importlib
import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import ray
from ray.exceptions import ActorDiedError, RayError

from bearray.backbones.presets import is_folder
from bearray.errors import ConfigError, ModelError, ResourceError
from bearray.runs import absolute
from bearray.serving.opening import EXPORT, find
from bearray.serving.service import Limits
from bearray.trained import open_run

APPLICATION = "bearray"
REQUEST_SECONDS = 120.0
"""A request that is not answered by then is given up (HTTP 408)."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How a model is served.

    Relative paths are made absolute: a replica has a working directory of its own.
    """

    place: str
    """Run folder or export, visible to the node that serves."""
    data_dir: str | None = None
    base_model: str | None = None
    """A folder, or a name, which stays as it is."""
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    cpus: float = 1.0
    """CPUs of each replica; on a cluster with GPUs each takes one of them, too."""
    batch_size: int = 16
    batch_wait: float = 0.01
    """Seconds."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65_535:
            raise ConfigError(f"port is {self.port}; it must be between 1 and 65535")
        for name in ("replicas", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.cpus <= 0 or self.batch_wait < 0:
            raise ConfigError(
                f"cpus is {self.cpus} and batch_wait {self.batch_wait}; cpus must be above 0, batch_wait "
                "0 or more"
            )
        for name in ("place", "data_dir", "base_model"):
            value = getattr(self, name)
            if value is not None and (name != "base_model" or is_folder(value)):
                object.__setattr__(self, name, absolute(value))

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def check_can_serve(options: ServeOptions, *, on_this_machine: bool) -> None:
    """All that can be checked before a cluster is asked for anything.

    Args:
        on_this_machine: the service will listen here, so the port can be tried.

    Raises:
        ConfigError: the extra `serve` is not installed, or the address cannot be listened on.
        MissingFileError, ResumeError, DataError: `options.place` is no run or export that can be opened.
    """
    try:
        importlib.import_module("ray.serve")
    except ImportError as error:
        raise ConfigError(
            f"Ray Serve is not installed ({error}); install the extra: pip install 'bearray[serve]' (in a "
            "checkout: pip install -c constraints.txt -e '.[serve]')"
        ) from error
    folder = find(options.place)
    if not folder.exists(EXPORT):
        open_run(folder)
    if on_this_machine:
        _try_port(options.host, options.port)


def _try_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another --port or "
            "--host"
        ) from error


@contextmanager
def serving(options: ServeOptions) -> Iterator[Callable[[], str | None]]:
    """Serve a model for as long as the block lasts, on the cluster that this process is connected to.

    Yields:
        A function that says what is wrong with the service, or None; it raises ResourceError once the
        service is gone.

    Raises:
        ResourceError: Ray Serve already runs on the cluster, or the cluster has no room.
        ModelError: the model could not be opened where it is to be served; the message has the reason.
    """
    from ray import serve

    from bearray.server.replica import Replica

    running = serve.status()
    if running.proxies or running.applications:
        names = ", ".join(running.applications) or "none"
        raise ResourceError(
            f"Ray Serve already runs on this cluster (applications: {names}), and its address cannot be "
            "changed; stop it first (serve shutdown), or serve on another cluster"
        )
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    _check_room(options, gpus)
    deployment = serve.deployment(
        name="Recommender",
        num_replicas=options.replicas,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": gpus},
        max_ongoing_requests=4 * options.batch_size,
        max_queued_requests=16 * options.batch_size,
        max_constructor_retry_count=1,
        health_check_period_s=10,
        health_check_timeout_s=60,
    )
    app = deployment(Replica).bind(
        options.place,
        options.data_dir,
        options.base_model,
        options.limits,
        options.batch_size,
        options.batch_wait,
    )
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={
                "host": options.host,
                "port": options.port,
                "request_timeout_s": REQUEST_SECONDS,
            },
        )
        try:
            serve.run(app, name=APPLICATION, route_prefix="/")
        except (RuntimeError, RayError) as error:
            raise ModelError(f"the service did not start: {_why(error)}") from error
        yield _trouble
    finally:
        with suppress(RayError):  # what is gone already need not be stopped
            serve.shutdown()


def _check_room(options: ServeOptions, gpus: int) -> None:
    have = ray.cluster_resources()
    for name, each in (("CPU", options.cpus), ("GPU", gpus)):
        if options.replicas * each > have.get(name, 0):
            raise ResourceError(
                f"{options.replicas} replicas need {options.replicas * each:g} {name}s, the cluster has "
                f"{have.get(name, 0):g}; ask for fewer --replicas or --cpus"
            )


def _why(error: Exception) -> str:
    """Serve's own words, with the last line of a replica's traceback where there is one."""
    from ray import serve

    try:
        application = serve.status().applications.get(APPLICATION)
    except RayError:  # the controller has gone, too, and the first error says why
        application = None
    parts = list(application.deployments.values()) if application else []
    messages = [text for text in (*(p.message for p in parts), str(error)) if text.strip()]
    lines = [line.strip() for line in messages[0].splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error" in line), lines[-1])


def _trouble() -> str | None:
    from ray import serve

    gone = "the service is gone: Ray Serve was shut down on this cluster (serve shutdown), or has died"
    try:
        application = serve.status().applications.get(APPLICATION)
    except ActorDiedError as error:
        raise ResourceError(gone) from error
    except RayError as error:
        return f"its controller does not answer: {str(error).strip().splitlines()[0]}"
    if application is None:
        raise ResourceError(gone)
    if str(application.status.value) == "RUNNING":
        return None
    return f"{application.status.value}: {application.message or 'no reason was given'}"
