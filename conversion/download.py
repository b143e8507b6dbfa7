"""Downloads with a progress bar; the only file that knows the network."""

import io

from adtr_jax.errors import InputError

TIMEOUT = 30.0  # seconds without an answer, or without the next piece of it
CHUNK = 1 << 18  # bytes


def download(url: str, *, limit: int, command: str) -> bytes:
    """Downloads `url` into memory, with a progress bar on a terminal.

    Args:
        url: where the file is.
        limit: the largest size to accept, in bytes.
        command: what to run after a download by hand, which the errors advise.

    Raises:
        InputError: no connection, no answer within 30 s, an HTTP error, a broken transfer, or
            more than `limit` bytes.
    """
    import requests
    from tqdm.auto import tqdm

    content = io.BytesIO()
    remedy = f"download it by hand and run `{command}`"
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            size = response.headers.get("Content-Length", "")
            total = int(size) if size.isdecimal() else None
            name = url.rpartition("/")[2]
            # disable=None draws the bar on a terminal only.
            with tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=None) as bar:
                for chunk in response.iter_content(CHUNK):
                    bar.update(content.write(chunk))
                    if content.tell() > limit:
                        raise InputError(f"{url}: more than {limit:,} bytes came; {remedy}")
    except requests.RequestException as error:
        raise InputError(f"{url}: download failed ({_reason(error)}); {remedy}") from None
    return content.getvalue()


def _reason(error: Exception) -> str:
    """A few words for what `requests` says in a paragraph."""
    import requests

    match error:
        case requests.HTTPError(response=requests.Response() as response):
            return f"HTTP status {response.status_code} {response.reason}"
        case requests.Timeout():
            return f"no answer within {TIMEOUT:g} s"
        case requests.exceptions.SSLError():
            return "the server's certificate cannot be verified"
        case requests.exceptions.ChunkedEncodingError():
            return "the transfer broke off"
        case requests.ConnectionError():
            return "no connection"
        case _:
            return type(error).__name__
