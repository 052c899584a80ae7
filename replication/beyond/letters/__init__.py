"""A model that has lost layers answers by letter as if it knew nothing. What has it lost?

The question of notebook 10, and of nearly all its figures: is the answer gone, or is it there and
no longer becomes a letter? The files follow each other as the notebook does.

- what is answered: `formats` asks the same questions by letter and by content; `biases` removes
  what a model adds to a letter whatever is asked, and reads the four letters out;
- what can be read at every depth, of questions whose lines `option_lines` finds: `states` reads
  their states, `probes` fits linear probes to them, `readings` makes rows of what these choose;
  `depth_probe` asks for the place of the right option at the last token, `option_ends` for the
  right option where its line ends, too;
- what decides: `transplant` moves states from one run into another (activation patching);
- without a label: `translator` maps the states of an exit to those of the last layer (a tuned
  lens), `jacobian_lens` reads them by their mean effect on the last ones;
- all in one drawing: `route`.

`letters.forms`, `letters.exits` and their figures are those of `formats`.
"""

from replication.beyond.letters import (
    biases,
    depth_probe,
    formats,
    jacobian_lens,
    option_ends,
    route,
    translator,
    transplant,
)
from replication.beyond.letters.formats import (
    FORMS,
    clearest,
    exits,
    figure_cuts,
    figure_letters,
    forms,
)

QUESTIONS = (  # in the order of the gallery
    formats.QUESTION,
    biases.QUESTION,
    depth_probe.QUESTION,
    option_ends.QUESTION,
    transplant.QUESTION,
    translator.QUESTION,
    jacobian_lens.QUESTION,
    route.QUESTION,
)
