"""Joining a Ray cluster: what its workers get, and one sentence for every reason why it does not work.

Keys reach the workers through the cluster's store (`keep_keys`, `take_keys`): Ray passes environment variables to a
worker on the command line of the process that starts it.
"""

import contextlib
import json
import logging
import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from r1searcher.errors import InputError, R1Error

KEYS = "R1S_KEYS"
"""Environment variable of the workers: the name in the cluster's store of the keys that they get."""

_NAMESPACE = b"r1searcher"

_TRIES = 300

FREED = 30.0
"""Seconds in which the GPUs of a run that has just ended become free."""

_START = "start one with `ray start --head`, and run this command on one of its nodes"


@contextlib.contextmanager
def joined(
    address: str,
    variables: Mapping[str, str],
    keys: Mapping[str, str] | None = None,
    hook: str | None = None,
    *,
    shows_output: bool = True,
) -> Iterator[None]:
    """This process as a driver on the cluster at `address` ("auto" or HOST:PORT), until the block is left.

    Workers get `variables` and the `keys`, and call `hook`, the name of a function. What they print comes out of this
    process if `shows_output`. Raises `InputError` if there is no such cluster, or if it has another version.
    """
    import ray

    _require_listening(address)
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"  # a job's own variables may be among ours
    kept = f"keys-{uuid.uuid4().hex}"
    env: dict[str, Any] = {"env_vars": {**variables, **({KEYS: kept} if keys else {})}}
    if hook:
        env["worker_process_setup_hook"] = hook
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about Ray's own future versions
            ray.init(
                address=address,
                runtime_env=env,
                log_to_driver=shows_output,
                logging_level=logging.INFO if shows_output else logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"engine.ray_address = {address!r}: {_reason(error)}") from error
    try:
        if keys:
            _store().internal_kv_put(kept.encode(), json.dumps(dict(keys)).encode(), True, _NAMESPACE)
        yield
    finally:
        if keys and ray.is_initialized():
            with contextlib.suppress(Exception):  # the cluster may be gone
                _store().internal_kv_del(kept.encode(), False, _NAMESPACE)
        ray.shutdown()


def free_gpus(wanted: int) -> int:
    """The cluster's GPUs that are free, as soon as there are `wanted`, and after `FREED` seconds at the latest."""
    import ray

    until = time.monotonic() + FREED
    while True:
        free = int(ray.available_resources().get("GPU", 0))
        if free >= wanted or time.monotonic() > until:
            return free
        time.sleep(0.5)


def require_node(gpus: int) -> None:
    """Raises `InputError` if Ray would wait for a node with that many free GPUs."""
    import ray

    largest = max(int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"])
    if largest < gpus:
        raise InputError(
            f"the model needs {gpus} GPUs on one node, and the largest node of the Ray cluster has {largest}"
        )
    if (free := free_gpus(gpus)) < gpus:
        raise InputError(
            f"the model needs {gpus} GPUs, and {free} of the Ray cluster are free: `ray status` shows what holds the "
            "others; wait for it, or end it"
        )


def take_keys() -> None:
    """In a worker: the keys of its run become environment variables, which its own processes inherit."""
    kept = os.environ.pop(KEYS, None)
    if kept:
        os.environ.update(json.loads(_taken(kept.encode())))


def _taken(name: bytes) -> bytes:
    """What the driver keeps under `name`: Ray may start a worker a moment before it is there."""
    for _ in range(_TRIES):
        if found := _store().internal_kv_get(name, _NAMESPACE):
            return bytes(found)
        time.sleep(0.1)
    raise R1Error("the keys of the run are not in the cluster's store: its driver has ended")


def _store() -> Any:
    from ray.experimental.internal_kv import internal_kv_get_gcs_client

    return internal_kv_get_gcs_client()


def _require_listening(address: str) -> None:
    """Raises `InputError` at once where nothing listens; Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(
            f"engine.ray_address = {address!r}: no Ray cluster answers there ({error.strerror or error}); {_START}"
        ) from None


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())
    if "Version mismatch" in said:
        return f"the cluster has other versions: {said[:300]}"
    if isinstance(error, ConnectionError) or "node_ip_address" in said:
        return f"no Ray cluster could be joined ({said[:200]}); {_START}"
    return f"Ray could not join it: {said[:300]}"
