"""Addresses of storage and data, such as s3://bucket/folder, may hold no secrets.

They are written into settings of runs, printed and shown in reports. pyarrow would take keys and passwords in
them; here these come from the environment or from the machine's role alone.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from bearray.errors import ConfigError

_ENVIRONMENT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
    "abfss": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
}
_NAMED = {"abfs", "abfss", "hdfs", "viewfs"}
"""Before the @ these have the name of a container or a user, which is no secret."""
_PASSWORD = re.compile(r"[^@/?#]*:(?!\d+(?:[/?#]|$))[^@]*@")
"""At the beginning of what follows "://": also a password with a slash in it, and no port."""
_SECRET_NAME = re.compile(
    r"secret|passw|token|signature|private|credentials|(access|api|account|shared|storage).?key|^(sas|sig|key)$",
    re.IGNORECASE,
)


def refuse_secrets(address: str) -> None:
    """Refuse a URI with a user name, a password or a secret among its options; paths may hold anything.

    Raises:
        ConfigError: it holds one, which the message does not repeat.
    """
    scheme, there, rest = address.partition("://")
    if not there:
        return
    scheme = scheme.lower()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    known = scheme in _NAMED or (scheme in ("gs", "gcs") and user == "anonymous")
    options = parse_qsl(rest.partition("?")[2], keep_blank_values=True)
    if _PASSWORD.match(unquote(rest)) or (at and not known):
        what = "a user name or password before an @"
    elif name := next((n for n, _ in options if _SECRET_NAME.search(n)), None):
        what = f"the option {name}"
    elif name := next((n for n, value in options if "@" in value), None):
        what = f"a user name or password in the option {name}"
    else:
        return
    where = _ENVIRONMENT.get(scheme)
    instead = f"the environment ({where}) or the machine's role" if where else "the environment"
    raise ConfigError(
        f"an address that begins with {scheme}:// holds {what}, which would be written into the settings "
        f"of runs; leave it out: keys and passwords come from {instead}"
    )
