"""pushd: a self-hosted push and chat server that speaks newline-delimited JSON."""

__version__ = "0.1.0"
