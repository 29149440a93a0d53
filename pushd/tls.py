"""TLS contexts for both sides, and what a failed handshake means in words.

A server's context is never changed in place: a renewed certificate is loaded into a new one, and
that takes over only when it is whole. So connections that are there keep theirs, and a broken file
changes nothing.
"""

import os
import ssl
import stat

# Of TLS 1.2 only what has forward secrecy and is authenticated; those of 1.3 all are.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

MOST = 1 << 20  # bytes of a file that are looked at


class CertificateError(Exception):
    """A certificate or its key cannot be used; the text says which and why, in one line."""


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Make the context of a listener from PEM files; no `key`: it is in the certificate's file.

    Raises: CertificateError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    _read(certificate)
    secret = _read(key or certificate)
    try:
        # The password keeps OpenSSL from asking for one on a terminal.
        context.load_cert_chain(certificate, key or None, password="")
    except ssl.SSLError as problem:
        raise CertificateError(_blamed(problem, secret, certificate, key)) from None
    except OSError as problem:
        raise CertificateError(f"{certificate}: {problem.strerror}") from None
    return context


def client_context(cafile: str | None = None) -> ssl.SSLContext:
    """Make the context of a client, which trusts the system's authorities or those of a file.

    Raises: CertificateError when the file holds none.
    """
    if cafile is not None:
        _read(cafile)
    try:
        return ssl.create_default_context(cafile=cafile)
    except ssl.SSLError:
        raise CertificateError(f"{cafile}: there is no certificate in it") from None


def exposed(certificate: str, key: str) -> str:
    """Say that everybody on this machine can read the key; "" when they cannot."""
    path = key or certificate
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    return f"{path}: everybody on this machine can read the key" if mode & stat.S_IROTH else ""


def reason(problem: OSError) -> str:
    """Say why a server was not reached, in words for the person who tried."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        why = problem.verify_message or str(problem)
        return f"its certificate is not trusted: {why.rstrip('.')}"
    if isinstance(problem, ssl.SSLError):
        why = (problem.reason or "it failed").lower().replace("_", " ")
        return f"no TLS is possible there: {why}"
    return problem.strerror or str(problem) or type(problem).__name__


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MOST)
    except OSError as problem:
        raise CertificateError(f"{path}: {problem.strerror}") from None


def _blamed(problem: ssl.SSLError, secret: bytes, certificate: str, key: str) -> str:
    """Name the file that is at fault, as far as OpenSSL tells."""
    match problem.reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH":
            return f"{key or certificate}: the key is not that of {certificate}"
        case "EE_KEY_TOO_SMALL" | "CA_MD_TOO_WEAK":
            return f"{certificate}: it is too weak"
    if b"ENCRYPTED" in secret:
        return f"{key or certificate}: the key is encrypted; store it without a password"
    return f"{certificate}, {key or 'its key'}: not a PEM certificate with its key"
