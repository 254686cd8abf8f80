"""kfp.Client as a command needs it: it asks once, and what a service answers is worded for the user."""

import contextlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from typing import Any

import kfp
import kfp_server_api
import urllib3

from podium.errors import UserError
from podium_pipelines.api_errors import reason_of
from podium_pipelines.remote import ServiceUnreachable

_HOST = "platform.kubeflow.host"
# Where kfp.Client looks when the config names no host.
_HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
# What it falls back to where there is no kubeconfig either.
_NOWHERE = kfp_server_api.Configuration().host
# Seconds to connect, and to wait for an answer.
_TIMEOUT_S = (5, 30)


class Client(kfp.Client):  # type: ignore[misc]  # kfp has no types
    """A client that knows where it asks, and asks no dead server again: kfp's own tries for 20 s, with stack traces.

    Raises:
        UserError: Nothing says where the service is, or what is there is none.
    """

    service: kfp_server_api.Configuration
    version: str = ""
    _health: kfp_server_api.V2beta1GetHealthzResponse | None = None

    def __init__(self, host: str | None, namespace: str) -> None:
        super().__init__(host=host, namespace=namespace)
        if not self.multi_user:
            # A server for one user knows no namespaces; each request takes the one that the client was made with.
            self._context_setting["namespace"] = ""

    @property
    def multi_user(self) -> bool:
        """Tell whether the service is for several users, each in a namespace."""
        return bool(self.get_kfp_healthz().multi_user)

    def _load_config(self, host: str | None, *args: Any, **kwargs: Any) -> kfp_server_api.Configuration:
        self.service = super()._load_config(host, *args, **kwargs)
        # urllib3 would say each of its further tries on standard error.
        self.service.retries = False
        if not host and self.service.host == _NOWHERE:
            raise UserError(
                f"where is Kubeflow Pipelines? {_HOST} is not set and no kubeconfig was found; "
                f"write {_HOST}, in the file of --config, or set {_HOST_VARIABLE} or KUBECONFIG"
            )
        return self.service

    def get_kfp_healthz(self, sleep_duration: int = 0) -> kfp_server_api.V2beta1GetHealthzResponse:
        """Ask the service whether it is one, once."""
        if self._health is None:
            with calls(self.service.host, looking=True):
                self._health = self._healthz_api.healthz_service_get_healthz(_request_timeout=_TIMEOUT_S)
                # The client's own model of the answer leaves the version out.
                said = json.loads(self._healthz_api.api_client.last_response.data)
                self.version = str(said.get("tag_name", "")) if isinstance(said, dict) else ""
            if self._health.multi_user is None:
                raise _another_server(self.service.host)
        return self._health


def client_of(host: str | None, namespace: str) -> Client:
    """Return a client of Kubeflow Pipelines.

    Raises:
        UserError: No such service is there, or it does not let this user in.
    """
    address, where = (host, _HOST) if host else (os.environ.get(_HOST_VARIABLE), _HOST_VARIABLE)
    if address and not address.startswith(("http://", "https://")):
        raise UserError(f"{where}: {address!r} has no scheme; write http://{address} or https://{address}")
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        return Client(address, namespace)


@contextlib.contextmanager
def calls(place: str | None, *, looking: bool = False) -> Iterator[None]:
    """Keep the client's own prints back and word its failures; `looking`: whether the service is there is the question.

    Raises:
        UserError: The service cannot be reached, or refuses a request.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except kfp_server_api.ApiException as error:
        raise _refused(error, place, looking) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ServiceUnreachable(
            f"Kubeflow Pipelines cannot be reached at {place}: {_cause(error)}; write its address in {_HOST}, "
            "or open the way to it (kubectl port-forward)"
        ) from error
    except ValueError as error:
        # An answer that is not the client's JSON, or none of the words that it knows.
        if looking:
            raise _another_server(place) from error
        raise


def _refused(error: Any, place: str | None, looking: bool) -> UserError:
    """Return what a user reads of an answer that is an error."""
    reason = reason_of(error)
    if not error.status:
        return UserError(f"Kubeflow Pipelines at {place}: {reason}; check the certificate and whether it is https://")
    if error.status in (401, 403):
        return UserError(f"Kubeflow Pipelines at {place} does not let you: {reason}; log in, or ask for the right")
    if error.status >= 500:
        return ServiceUnreachable(f"Kubeflow Pipelines at {place} fails: {reason}; is it up?")
    return _another_server(place) if looking else UserError(f"Kubeflow Pipelines: {reason}")


def _another_server(place: str | None) -> UserError:
    return UserError(
        f"{place} is not Kubeflow Pipelines, or not the whole of its address, or wants you to log in: "
        f"{place}/apis/v2beta1/healthz does not answer as it does; mend {_HOST}"
    )


def _cause(error: Exception) -> str:
    """Return the last words of a chain such as <Connection object at 0x...>: Failed to connect: refused."""
    return str(error).rpartition(": ")[2] or type(error).__name__
