"""What a user would run instead, measured beside pushd in one run: `make peers`.

Six servers from Debian's packages, each with a configuration that favours it, data in a folder of
its own, loopback only, pinned to the core that pushd gets. A message here is what comes closest to
a message of pushd: stored for one receiver, confirmed to its sender, delivered, and acked.

    redis       a stream for each receiver, added, read by a group, acked; its log always synced
    rabbitmq    a quorum queue for each receiver, persistent messages, publisher confirms
    nats        JetStream on files, a durable consumer for each; confirms before it syncs
    mosquitto   MQTT with QoS 1, persistent sessions; confirms before it syncs
    prosody     XMPP with stream management and archive; confirms before it syncs
    ejabberd    the same on SQLite

`servers` starts and stops them, one module a protocol speaks to them, `workloads` are those of
`bench.workloads` that they can do: W1 (throughput), W2 (latency), W3 (idle connections), W4 (what
waited), W5 (a group), W6 (connections). In W5 the peers store nothing, and pushd does.
"""
