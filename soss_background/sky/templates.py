"""Names that `soss_background.subtract` still imports from here."""

from soss_background.numerics.cells import bin_smooth
from soss_background.sky.edge import shift_columns

__all__ = ["bin_smooth", "shift_columns"]
