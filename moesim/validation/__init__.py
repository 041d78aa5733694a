"""How far predictions are from measurements, and constants from measurements of one's own.

In: folders of measured tables (or those that ship with moesim). Out: `Report`
with the error of every kernel and regime, and constants that scenarios can
name. `tables` reads and checks, `scores` makes errors of predictions,
`moesim.hardware.tables` knows the layouts.
"""

from moesim.hardware.kernel_file import read_kernels
from moesim.validation.calibrate import Calibration, calibrate
from moesim.validation.validate import MEASURED, Report, validate

__all__ = ["MEASURED", "Calibration", "Report", "calibrate", "read_kernels", "validate"]
