"""The paper's 13 claims: a run's tables in, verdicts out."""

from lib.claims.bounds import HEALED_ENOUGH, markdown
from lib.claims.checks import verdicts
from lib.claims.tables import beside, deviations, gather
