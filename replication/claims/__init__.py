"""The paper's 13 claims: a run's tables in, verdicts out."""

from replication.claims.checks import verdicts
from replication.claims.shown import lights, markdown
from replication.claims.tables import beside, deviations, gather
