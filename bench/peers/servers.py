"""The peers as processes: configured, started on a core, measured with their children, stopped.

Everything of a peer lies in one folder and listens on the loopback. Limits are raised and shapers
are off, in the peer's favour. Nothing is ended but what was started here.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..process import PATIENCE, ServerFailed
from .amqp import Amqp
from .link import PASSWORD, USER
from .mqtt import Mqtt
from .nats import Nats
from .peer import Peer
from .redis import Redis
from .xmpp import Xmpp

START_PATIENCE = 60.0  # seconds; RabbitMQ and ejabberd take their time
_LOG_MAX = 2000


@dataclass(frozen=True)
class Kind:
    """A peer: its Debian packages, how it is set up and started, and the protocol it speaks."""

    packages: tuple[str, ...]
    program: str  # whose presence tells that it is installed
    set_up: Callable[[Path], Sequence[str]]  # writes its configuration; gives its command
    peer: Callable[[], Peer]
    environment: Callable[[Path], Mapping[str, str]] = field(default=lambda folder: {})
    helper: tuple[str, ...] = ()  # a command that it would start by itself and leave behind

    @property
    def installed(self) -> bool:
        """Whether it can be started here."""
        return shutil.which(self.program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is not None


class PeerServer:
    """One running peer; offers of `process.Server` what a `Meter` needs."""

    def __init__(self, kind: Kind, folder: Path, cores: Sequence[int], port: int) -> None:
        self._kind = kind
        self._folder = folder
        self._cores = cores
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._helper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "PeerServer":
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start, and return when it listens; raises ServerFailed."""
        command = self._kind.set_up(self._folder)
        if self._kind.helper:
            self._helper = subprocess.Popen(self._kind.helper, stdin=subprocess.DEVNULL)
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores)
        try:
            with (self._folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    env={**os.environ, **self._kind.environment(self._folder)},
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, mine)
        end = time.monotonic() + START_PATIENCE
        while not _listens(self._port):
            if self._process.poll() is not None or time.monotonic() > end:
                log_end = (self._folder / "log").read_text(errors="replace")[-_LOG_MAX:]
                self.stop()
                raise ServerFailed(f"it did not start: {log_end}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and its children."""
        if self._process is None:
            return
        ours = self._tree()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in reversed(ours):
                if (Path("/proc") / str(process)).exists():
                    _signal(process, number)
            end = time.monotonic() + PATIENCE / 2
            while any(_alive(process) for process in ours) and time.monotonic() < end:
                self._process.poll()
                time.sleep(0.05)
        self._process.wait()
        self._process = None
        if self._helper is not None:
            self._helper.kill()
            self._helper.wait()
            self._helper = None

    def cpu(self) -> float:
        """Return the seconds of CPU it and its children have used."""
        nanoseconds = 0
        for process in self._tree():
            for stat in Path(f"/proc/{process}/task").glob("*/schedstat"):
                try:
                    nanoseconds += int(stat.read_text().split()[0])
                except OSError:  # a thread that has just ended
                    continue
        return nanoseconds / 1e9

    def memory(self) -> int:
        """Return the KiB of memory that it and its children have resident."""
        total = 0
        for process in self._tree():
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        return total

    def _tree(self) -> list[int]:
        assert self._process is not None
        found, left = [], [self._process.pid]
        while left:
            process = left.pop()
            found.append(process)
            try:
                for task in Path(f"/proc/{process}/task").iterdir():
                    left += map(int, (task / "children").read_text().split())
            except OSError:  # it has ended
                continue
        return found


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _signal(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# How each is set up

_USER, _PASSWORD = USER.decode(), PASSWORD.decode()


def _redis(folder: Path) -> Sequence[str]:
    (folder / "redis.conf").write_text(
        f"""bind 127.0.0.1
port {Redis.port}
dir {folder}
appendonly yes
appendfsync always
save ""
maxclients 12000
tcp-backlog 1000
user default off
user {_USER} on >{_PASSWORD} ~* &* +@all
"""
    )
    return "redis-server", str(folder / "redis.conf")


def _nats(folder: Path) -> Sequence[str]:
    (folder / "nats.conf").write_text(
        f"""host: 127.0.0.1
port: {Nats.port}
max_connections: 12000
jetstream {{ store_dir: "{folder}/js", max_file: 8G }}
authorization {{ user: {_USER}, password: "{_PASSWORD}" }}
"""
    )
    return "nats-server", "-c", str(folder / "nats.conf")


def _mosquitto(folder: Path) -> Sequence[str]:
    passwords = folder / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), _USER, _PASSWORD],
        check=True,
        capture_output=True,
    )
    (folder / "mosquitto.conf").write_text(
        f"""user root
listener {Mqtt.port} 127.0.0.1
allow_anonymous false
password_file {passwords}
persistence true
persistence_location {folder}/
autosave_interval 1800
max_queued_messages 0
max_inflight_messages 1000
log_type error
"""
    )
    return "mosquitto", "-c", str(folder / "mosquitto.conf")


def _rabbitmq(folder: Path) -> Sequence[str]:
    (folder / "rabbitmq.conf").write_text(
        f"""listeners.tcp.1 = 127.0.0.1:{Amqp.port}
default_user = {_USER}
default_pass = {_PASSWORD}
loopback_users = none
log.console.level = warning
log.file.level = warning
channel_max = 16
num_acceptors.tcp = 10
tcp_listen_options.backlog = 1024
"""
    )
    (folder / "plugins").write_text("")
    return ("/usr/lib/rabbitmq/bin/rabbitmq-server",)


def _rabbitmq_environment(folder: Path) -> Mapping[str, str]:
    return {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": "rabbit@localhost",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_DIST_PORT": "25672",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_MAX_PORTS": "32000",
    }


PROSODY_PORT, EJABBERD_PORT = 5322, 5222


def _prosody(folder: Path) -> Sequence[str]:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "prosody.cfg.lua").write_text(
        f"""run_as_root = true
daemonize = false
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {PROSODY_PORT} }}
s2s_ports = {{ }}
http_ports = {{ }}
https_ports = {{ }}
modules_enabled = {{ "disco"; "roster"; "saslauth"; "smacks"; "mam"; "offline"; "ping"; \
"register_ibr"; "carbons" }}
modules_disabled = {{ "s2s"; "tls"; "s2s_auth_certs" }}
allow_registration = true
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_hashed"
storage = "internal"
default_archive_policy = true
archive_expires_after = "never"
smacks_max_queue_size = 100000
log = {{ warn = "*console" }}
VirtualHost "localhost"
Component "conference.localhost" "muc"
  muc_room_default_public = true
  muc_room_locking = false
"""
    )
    return "prosody", "--config", str(folder / "prosody.cfg.lua"), "-F"


def _ejabberd(folder: Path) -> Sequence[str]:
    database = folder / "ejabberd.sqlite"
    if not database.exists():
        (schema,) = Path("/usr").glob("share/ejabberd/sql/lite.sql")
        with sqlite3.connect(database) as db:
            db.executescript(schema.read_text())
        db.close()
    (folder / "ejabberd.yml").write_text(
        f"""loglevel: warning
hosts: [localhost]
default_db: sql
sql_type: sqlite
sql_database: "{database}"
auth_method: internal
auth_password_format: scram
disable_sasl_mechanisms: [digest-md5, X-OAUTH2]
max_fsm_queue: 100000
listen:
  - port: {EJABBERD_PORT}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    max_stanza_size: 262144
    shaper: none
    access: all
    starttls: false
    backlog: 1000
registration_timeout: infinity
acl:
  loopback: {{ip: [127.0.0.0/8]}}
shaper_rules:
  max_user_sessions: 100
  max_user_offline_messages: 100000
modules:
  mod_disco: {{}}
  mod_ping: {{}}
  mod_roster: {{}}
  mod_register: {{ip_access: all}}
  mod_offline: {{access_max_user_messages: max_user_offline_messages}}
  mod_mam: {{default: always, assume_mam_usage: true}}
  mod_stream_mgmt: {{max_ack_queue: 100000, queue_type: ram}}
  mod_muc:
    access: all
    access_create: all
    max_users: 2000
    history_size: 0
    default_room_options: {{mam: false, max_users: 1000}}
"""
    )
    return (
        *("erl", "+K", "true", "+P", "250000", "-mnesia", "dir", f'"{folder}/mnesia"'),
        *("-noinput", "-s", "ejabberd"),
    )


def _ejabberd_environment(folder: Path) -> Mapping[str, str]:
    (libraries,) = {path.parent for path in Path("/usr/lib").glob("*/ejabberd-*")}
    return {
        "ERL_LIBS": str(libraries),
        "EJABBERD_CONFIG_PATH": str(folder / "ejabberd.yml"),
        "EJABBERD_LOG_PATH": str(folder / "ejabberd.log"),
        "ERL_MAX_PORTS": "32000",
        "HOME": str(folder),
    }


KINDS = {
    "redis": Kind(("redis-server",), "redis-server", _redis, Redis),
    "rabbitmq": Kind(
        ("rabbitmq-server",),
        "rabbitmq-server",
        _rabbitmq,
        Amqp,
        _rabbitmq_environment,
        ("epmd", "-address", "127.0.0.1"),
    ),
    "nats": Kind(("nats-server",), "nats-server", _nats, Nats),
    "mosquitto": Kind(("mosquitto",), "mosquitto", _mosquitto, Mqtt),
    "prosody": Kind(("prosody",), "prosody", _prosody, lambda: Xmpp(PROSODY_PORT)),
    "ejabberd": Kind(
        ("ejabberd", "erlang-p1-sqlite3"),
        "ejabberdctl",
        _ejabberd,
        lambda: Xmpp(EJABBERD_PORT),
        _ejabberd_environment,
    ),
}
