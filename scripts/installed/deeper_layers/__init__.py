"""In a checkout `deeper_layers` is the folder lib, as an installed package has it."""

import lib

__path__ = lib.__path__
