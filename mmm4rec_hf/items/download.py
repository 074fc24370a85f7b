"""Pictures behind http(s) addresses: bounded in time and size, retried, cached, and never from a private network."""

import hashlib
import http.client
import io
import ipaddress
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME

from .images import PictureError

USER_AGENT = "mmm4rec-hf"
RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
CHUNK_BYTES = 1 << 16
HEADER_BYTES = 1 << 20
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Of all others none was ever given to anyone for the Internet; they are local, or of translators long gone.
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


class NoAnswer(PictureError):
    """A host that is not reached, breaks off or is too slow: the picture may be there."""


class _Refused(OSError):
    """A connection that this module will not make."""


class PictureDownloader:
    """Fetches pictures; the same address is fetched once.

    Every connection, a redirect's too, is made to an address that was looked up and checked just before, so a name
    cannot lead into the network that this process runs in. Proxies are not used, for the same reason.

    Args:
        cache_dir (`str` or `os.PathLike`, *optional*):
            Where pictures are kept, by default `mmm4rec_hf/pictures` below the Hugging Face cache.
        timeout (`float`, *optional*, defaults to 10.0): Seconds for a wait; thrice for an attempt in all.
        max_bytes (`int`, *optional*, defaults to 20 MiB): A larger file is refused.
        retries (`int`, *optional*, defaults to 3): Further attempts after a failure that may pass.
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 10.0,
        max_bytes: int = 20 << 20,
        retries: int = 3,
    ) -> None:
        self.cache_dir = Path(cache_dir) if cache_dir is not None else Path(HF_HOME, "mmm4rec_hf", "pictures")
        self.timeout = timeout
        self.max_bytes = max_bytes
        self.retries = retries
        self._opener = _opener()

    def __call__(self, url: str) -> bytes:
        """Returns the file behind an address.

        Raises:
            PictureError: With the reason, the address left out: reasons are counted. [`NoAnswer`] where the host is to
                blame, not the picture.
        """
        name = hashlib.sha256(url.encode()).hexdigest()
        cached = self.cache_dir / name[:2] / name
        if cached.is_file():
            return cached.read_bytes()
        content = self._fetch(url)
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = cached.with_name(f"{name}.{os.getpid()}.{time.monotonic_ns()}.partial")
        partial.write_bytes(content)
        partial.replace(cached)
        return content

    def once(self, timeout: float) -> "PictureDownloader":
        """One with the same cache and limits that tries once and waits less long, for a person who waits for it.

        Args:
            timeout (`float`): Seconds for a wait at most; thrice for all.
        """
        return PictureDownloader(
            self.cache_dir, timeout=min(timeout, self.timeout), max_bytes=self.max_bytes, retries=0
        )

    def _fetch(self, url: str) -> bytes:
        failure = PictureError
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(0.5 * 2**attempt)
            try:
                return self._read(url)
            except urllib.error.HTTPError as error:
                failure = PictureError
                reason = f"download: status {error.code}"
                if error.code not in RETRIED_STATUSES:
                    break
            except (OSError, http.client.HTTPException, ValueError) as error:
                cause = error.reason if isinstance(error, urllib.error.URLError) else error
                if isinstance(cause, PictureError):
                    raise cause from error
                # urllib's own refusals are strings, those of this module speak for themselves.
                told = isinstance(cause, str | _Refused)
                reason = f"download: {cause if told else type(cause).__name__}"
                failure = PictureError
                if told or isinstance(cause, ValueError | http.client.InvalidURL | ssl.SSLCertVerificationError):
                    break
                failure = NoAnswer
        raise failure(reason)

    def _read(self, url: str) -> bytes:
        limits = _Limits(self.timeout, self.max_bytes)
        request = urllib.request.Request(_quoted(url), headers={"User-Agent": USER_AGENT, "Accept": "image/*"})
        content = bytearray()
        try:
            # What urllib calls a timeout is handed to the connections, those after a redirect too, as it is.
            with self._opener.open(request, timeout=limits) as response:  # type: ignore[arg-type]
                while block := response.read(CHUNK_BYTES):
                    content += block
                    if len(content) > self.max_bytes:
                        raise limits.too_large()
                # A read of a given size ends early without a word when the connection does.
                if response.length:
                    raise http.client.IncompleteRead(bytes(content), response.length)
        except OSError:
            limits.next_wait()  # the last wait was cut short by the limit, which says so itself
            raise
        return bytes(content)


def _quoted(url: str) -> str:
    """An address as browsers send it: spaces, and letters that are no ASCII, as their codes, a host's as its name."""
    parts = urllib.parse.urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if not place.isascii():
        host, colon, port = place.partition(":")
        parts = parts._replace(netloc=user + at + host.encode("idna").decode("ascii") + colon + port)
    path, query = (urllib.parse.quote(part, safe="%/:?@!$&'()*+,;=~[]|") for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query, fragment="").geturl()


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # Translators and tunnels carry these on to the IPv4 address within.
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped or ip.sixtofour
        if inner is None:
            return ip in GLOBAL_UNICAST and ip.is_global
        ip = inner
    return ip.is_global and not ip.is_multicast


class _Limits:
    """What a picture may take: time over all its connections and redirects, and bytes with all their headers.

    Args:
        timeout (`float`): Seconds for one wait; thrice for all.
        max_bytes (`int`): For the picture; headers, and the texts that redirects come with, may take `HEADER_BYTES`.
    """

    def __init__(self, timeout: float, max_bytes: int) -> None:
        self.timeout = timeout
        self.max_bytes = max_bytes
        self.end = time.monotonic() + 3 * timeout
        self.received = 0

    def next_wait(self) -> float:
        """The seconds that the next wait may take."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise NoAnswer("download: too slow")
        return min(self.timeout, left)

    def receive(self, count: int) -> None:
        self.received += count
        if self.received > self.max_bytes + HEADER_BYTES:
            raise self.too_large()

    def too_large(self) -> PictureError:
        return PictureError(f"download: more than {self.max_bytes:,} bytes")


class _LimitedReader(io.RawIOBase):
    """Looks at the limits before every wait: a timeout of the socket starts anew with every byte that comes."""

    def __init__(self, connection: socket.socket, limits: _Limits) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb", buffering=0)
        self._limits = limits

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(self._limits.next_wait())
        count = self._stream.readinto(buffer)
        self._limits.receive(count or 0)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _LimitedSocket:
    """The part of a socket that `http.client` uses."""

    def __init__(self, connection: socket.socket, limits: _Limits) -> None:
        self._connection = connection
        self._limits = limits

    def sendall(self, content: Any) -> None:
        self._connection.settimeout(self._limits.next_wait())
        self._connection.sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_LimitedReader(self._connection, self._limits))

    def close(self) -> None:
        self._connection.close()


def _connect(host: str, port: int, limits: _Limits) -> socket.socket:
    """Connects to a public address of a host."""
    addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not all(map(_is_public, addresses)):
        raise _Refused("an address in a private network")
    failure: OSError = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), limits.next_wait())
        except OSError as error:
            failure = error
    raise failure


class _PublicHTTPConnection(http.client.HTTPConnection):
    timeout: Any

    def connect(self) -> None:
        self.sock = _LimitedSocket(_connect(self.host, self.port, self.timeout), self.timeout)


class _PublicHTTPSConnection(http.client.HTTPSConnection):
    timeout: Any

    def connect(self) -> None:
        plain = _connect(self.host, self.port, self.timeout)
        plain.settimeout(self.timeout.next_wait())
        secure = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)
        self.sock = _LimitedSocket(secure, self.timeout)


class _PublicHTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_PublicHTTPConnection, req)


class _PublicHTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_PublicHTTPSConnection, req)


def _opener() -> urllib.request.OpenerDirector:
    """Only http and https: the default opener would also follow a redirect to ftp, and obey proxies."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        _PublicHTTPHandler(),
        _PublicHTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
