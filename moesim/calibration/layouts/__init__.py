"""The layouts of measured tables, one module each; `moesim.calibration.layout` names them."""
