"""Access tokens for Google: given, or earned with a refresh token and kept by each process until a minute before they end."""

import hashlib
import threading
import time

import httpx

from destinations.connectors import http
from destinations.connectors.base import Account, Misconfigured

OWN_URL = "https://datamanager.googleapis.com"
TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address

_tokens: dict[str, tuple[str, float]] = {}
_tokens_lock = threading.Lock()


def access_token(account: Account, client: httpx.Client) -> str:
    """The token to call with: the one given, or one that the refresh token earns."""
    refresh = account.credentials.get("refresh_token")
    if not refresh:
        return account.credentials.get("access_token", "")
    key = _token_key(account)
    with _tokens_lock:  # whoever waits here finds the other's token
        token, ends = _tokens.get(key, ("", 0.0))
        if ends < time.monotonic():
            token, seconds = _renew(account, client)
            _tokens[key] = (token, time.monotonic() + seconds - 60)
        return token


def forget(account: Account, token: str) -> bool:
    """Whether another token can be had in the place of one that was refused."""
    if not account.credentials.get("refresh_token"):
        return False
    with _tokens_lock:
        if _tokens.get(_token_key(account), ("",))[0] == token:
            del _tokens[_token_key(account)]
    return True


def _renew(account: Account, client: httpx.Client) -> tuple[str, float]:
    given = {name: account.credentials.get(name, "") for name in ("client_id", "client_secret", "refresh_token")}
    own = account.base_url.rstrip("/") == OWN_URL
    url = TOKEN_URL if own else f"{account.base_url.rstrip('/')}/token"
    response = client.post(url, data={"grant_type": "refresh_token", **given})
    if response.status_code in (400, 401):
        raise http.told(
            Misconfigured("Google no longer accepts the refresh token. Reconnect.", code="reconnect"), response
        )
    if not response.is_success:
        raise http.refusal(response)
    answer = http.json_object(response)
    token, seconds = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(token, str) or not token or not isinstance(seconds, int | float):
        raise http.not_understood(response)
    return token, float(seconds)


def _token_key(account: Account) -> str:
    secret = "\n".join(
        (account.base_url, *(account.credentials.get(name, "") for name in ("client_id", "refresh_token")))
    )
    return hashlib.sha256(secret.encode()).hexdigest()
