"""`pushctl`: what an operator asks of a server, by its control socket.

    options   the options of all verbs, and what they mean
    calls     requests over the socket, and their failures
    table     answers as people and programs read them
    progress  how far long work has come
    verb      how a function becomes a verb
    looking, tracing, acting, pushing, upkeep, local, watching    the verbs
    top, screen               what `top` shows

A verb is a function that makes calls and returns an answer; nothing else is printed on standard
output. Exit codes: 0, 1 refused or failed, 2 usage, 3 the server was not reached.
"""

from . import acting, local, looking, pushing, tracing, upkeep, watching
from .verb import pushctl

__all__ = ["acting", "local", "looking", "pushctl", "pushing", "tracing", "upkeep", "watching"]
