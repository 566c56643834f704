"""`bearray serve --run RUN|EXPORT`: recommendations over HTTP."""

from __future__ import annotations

import os


def serve(
    *,
    run: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    cpus: float = 1.0,
    batch_size: int = 16,
    batch_wait: float = 0.01,
    max_request_bytes: int = 262_144,
    max_histories: int = 32,
    max_titles: int = 200,
    max_title_characters: int = 1_000,
    max_k: int = 100,
    max_exact_nodes: int = 20_000,
    data_dir: str | None = None,
    base_model: str | None = None,
) -> None:
    """Answer over HTTP what a trained model recommends, with Ray Serve, until Ctrl-C.

    POST /recommend takes JSON, {"history": ["first title", "second title"]}, and answers with titles, item
    ids, scores, pruning margins and whether the list is proven exact; GET /health says whether the service is
    up; GET / describes model, limits and defaults. Only this machine can reach it unless --host says
    otherwise; it has no users and no passwords, so put a proxy that has before it. Needs the extra `serve`
    (pip install 'bearray[serve]').

    Args:
        run: Run folder or export (bearray export); on a cluster, one that its nodes can read.
        host: Address to listen on.
        port: Port to listen on.
        replicas: Copies of the model.
        cpus: CPUs of each copy; on a cluster with GPUs each takes one GPU, too.
        batch_size: Requests decoded together at most.
        batch_wait: Seconds that a request waits for others to join it.
        max_request_bytes: Longer requests are refused (413).
        max_histories: Histories in one request.
        max_titles: Titles in one history.
        max_title_characters: Characters in one title.
        max_k: Titles recommended at most.
        max_exact_nodes: Prefixes that exact search scores for one history; what it then has not proven, it
            says so.
        data_dir: Folder or URI of the run's data set, if it was moved or is not a folder here.
        base_model: Folder or hub id of the run's base model, if it was moved or never downloaded here.
    """
    from bearray.server import ServeOptions, check_can_serve, serving, watch
    from bearray.serving.service import Limits
    from bearray.tuning.cluster import connect
    from bearray.tuning.watch import say

    options = ServeOptions(
        place=run,
        data_dir=data_dir,
        base_model=base_model,
        host=host,
        port=port,
        replicas=replicas,
        cpus=cpus,
        batch_size=batch_size,
        batch_wait=batch_wait,
        limits=Limits(
            request_bytes=max_request_bytes,
            histories=max_histories,
            titles=max_titles,
            title_characters=max_title_characters,
            k=max_k,
            exact_nodes=max_exact_nodes,
        ),
    )
    check_can_serve(options, on_this_machine="RAY_ADDRESS" not in os.environ)
    if not options.loopback:
        say(f"{host} can be reached from other machines, and the service asks nobody who they are")
    say("starting Ray")
    connect()
    say(f"opening {run}")
    try:
        with serving(options) as trouble:
            say(f"serving on {options.address}; Ctrl-C stops it. Try:")
            print(f"curl -s {options.address}/", flush=True)
            watch(trouble, say)
    except KeyboardInterrupt:
        say("stopped")
