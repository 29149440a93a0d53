import sys

from tests.sim.world import run

o = run(int(sys.argv[1]))
import os

if os.environ.get("LOG"):
    for e in o.entries:
        print(e)
print(
    o.digest,
    o.events,
    o.seconds,
    o.client_hours,
    len(o.states),
    o.report.confirmed,
    o.report.delivered,
    o.report.redelivered,
    o.report.lost_acks,
    o.report.gaps,
)
print(o.faults)
for v in o.violations[:20]:
    print(v)
