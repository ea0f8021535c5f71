"""What AWS's services want of a request: a region, and a signature by credentials that botocore finds (extra `aws`).

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import os
from functools import cache
from typing import IO, Protocol, cast

from llms.errors import AuthenticationError, ConnectionFailedError
from llms.extras import package
from llms.secrets import know


class _Frozen(Protocol):
    """What is used of `botocore.credentials.ReadOnlyCredentials`."""

    secret_key: str
    token: str | None


class _Credentials(Protocol):
    """What is used of `botocore.credentials.Credentials`."""

    def get_frozen_credentials(self) -> _Frozen: ...


class _Kinds(Protocol):
    """What is used of `botocore.exceptions`: the base of its own, those of a connection, and that of AWS's refusals."""

    BotoCoreError: type[Exception]
    ConnectionError: type[Exception]
    HTTPClientError: type[Exception]
    ClientError: type[Exception]


class _Session(Protocol):
    """What is used of `botocore.session.Session`."""

    def get_credentials(self) -> _Credentials | None: ...
    def get_config_variable(self, logical_name: str) -> object: ...


def region_of(profile: str, user: str) -> str:
    """The region that the configuration names; empty where it names none.

    Raises:
        AuthenticationError: it has no such profile.
        MissingPackageError: the extra isn't installed; `user` needs it.
    """
    session = _session(profile, user, os.environ.get("AWS_PROFILE", ""))
    try:
        named = session.get_config_variable("region")
    except (_kinds().BotoCoreError, OSError) as error:
        raise AuthenticationError(f"can't read AWS's configuration: {error}") from None
    return named if isinstance(named, str) else ""


def frozen_credentials(profile: str, user: str) -> _Frozen:
    """The credentials, renewed where they're about to end. It may wait for a server.

    Args:
        profile: of the configuration. Empty: AWS_PROFILE, or the default.
        user: who needs them, for the errors' messages.

    Raises:
        AuthenticationError: there are none, or they are refused.
        ConnectionFailedError: the server that gives them can't be reached.
        MissingPackageError: the extra isn't installed.
    """
    session = _session(profile, user, os.environ.get("AWS_PROFILE", ""))
    try:
        found = session.get_credentials()
        frozen = None if found is None else found.get_frozen_credentials()
    except (_kinds().ConnectionError, _kinds().HTTPClientError) as error:
        raise ConnectionFailedError(f"can't reach the server that signs in to AWS: {error}") from None
    except (_kinds().BotoCoreError, _kinds().ClientError, OSError) as error:
        raise AuthenticationError(f"can't sign in to AWS: {error} (try `aws sso login`, or `aws configure`)") from None
    if frozen is None:
        raise AuthenticationError(
            f"{user} has no AWS credentials: run `aws configure`, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
            " set AWS_BEARER_TOKEN_BEDROCK"
        )
    for secret in (frozen.secret_key, frozen.token):
        know(secret)
    return frozen


def signature(
    credentials: _Frozen, service: str, region: str, method: str, url: str, data: bytes | IO[bytes] | None
) -> dict[str, str]:
    """The headers that sign a request with its body."""
    auth, wire = package("botocore.auth", "aws", "AWS"), package("botocore.awsrequest", "aws", "AWS")
    # Of an object's name S3 takes the bytes as they are.
    signer = auth.S3SigV4Auth if service == "s3" else auth.SigV4Auth
    request = wire.AWSRequest(method=method, url=url, data=data)
    signer(credentials, service, region).add_auth(request)
    return {str(name): str(value) for name, value in request.headers.items()}


def _kinds() -> _Kinds:
    return cast("_Kinds", package("botocore.exceptions", "aws", "AWS"))


@cache
def _session(profile: str, user: str, from_environment: str) -> _Session:
    """`from_environment` is what AWS_PROFILE says, which botocore reads where no profile is given."""
    return cast("_Session", package("botocore.session", "aws", user).Session(profile=profile or None))
