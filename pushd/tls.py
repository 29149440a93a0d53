"""TLS contexts for both sides, and what a failed handshake means in words.

A server's context is never changed in place: a renewed certificate is loaded into a new one, and
that takes over only when it is whole. So connections that are there keep theirs, and a broken file
changes nothing.
"""

import ssl

# Of TLS 1.2 only what has forward secrecy and is authenticated; those of 1.3 all are.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


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
    for path in (certificate, key):
        _check_readable(path)
    try:
        # The password keeps OpenSSL from asking for one on a terminal.
        context.load_cert_chain(certificate, key or None, password="")
    except ssl.SSLError as problem:
        raise CertificateError(f"{_blamed(problem, certificate, key)}") from None
    except OSError as problem:
        raise CertificateError(f"{certificate}: {problem.strerror}") from None
    return context


def client_context(cafile: str | None = None) -> ssl.SSLContext:
    """Make the context of a client, which trusts the system's authorities or those of a file.

    Raises: CertificateError when the file holds none.
    """
    if cafile is not None:
        _check_readable(cafile)
    try:
        return ssl.create_default_context(cafile=cafile)
    except ssl.SSLError:
        raise CertificateError(f"{cafile}: there is no certificate in it") from None


def reason(problem: OSError) -> str:
    """Say why a server was not reached, in words for the person who tried."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        why = problem.verify_message or str(problem)
        return f"its certificate is not trusted: {why.rstrip('.')}"
    if isinstance(problem, ssl.SSLError):
        why = (problem.reason or "it failed").lower().replace("_", " ")
        return f"no TLS is possible there: {why}"
    return problem.strerror or str(problem) or type(problem).__name__


def _check_readable(path: str) -> None:
    try:
        if path:
            with open(path, "rb"):
                pass
    except OSError as problem:
        raise CertificateError(f"{path}: {problem.strerror}") from None


def _blamed(problem: ssl.SSLError, certificate: str, key: str) -> str:
    """Name the file that is at fault, as far as OpenSSL tells."""
    match problem.reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH":
            return f"{key or certificate}: the key is not that of {certificate}"
        case "EE_KEY_TOO_SMALL" | "CA_MD_TOO_WEAK":
            return f"{certificate}: it is too weak"
        case "BAD_DECRYPT" | "BAD_PASSWORD_READ" | "INTERRUPTED_OR_CANCELLED":
            return f"{key or certificate}: the key is encrypted; store it without a password"
    return f"{certificate}, {key or 'its key'}: not a PEM certificate with its key"
