"""The paper's 13 claims: a run's tables in, verdicts out."""

from lib.claims.checks import verdicts
from lib.claims.shown import lights, markdown
from lib.claims.tables import beside, deviations, gather
