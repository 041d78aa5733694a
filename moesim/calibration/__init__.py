"""Measured tables: how far predictions are from them, and constants that fit them.

In: folders of measured tables (or those that ship with moesim). Out: `Report`
with the error of every kernel and regime, predictions of single rows, and
constants that scenarios can name. `layout` and `layouts` know what tables hold,
`reading` and `checks` read them, `fitting` finds constants, `scores` makes
errors of predictions, `curves` and `lookup` make rows that a run takes instead
of formulas.
"""

from moesim.calibration.calibrate import Calibration, calibrate
from moesim.calibration.constants_file import read_kernels
from moesim.calibration.predict import predict_table
from moesim.calibration.shipped import MEASURED
from moesim.calibration.validate import Report, validate

__all__ = ["MEASURED", "Calibration", "Report", "calibrate", "predict_table", "read_kernels", "validate"]
