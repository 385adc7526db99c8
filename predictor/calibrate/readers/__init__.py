"""One module per family of formats; each lists its ``FORMATS`` for ``predictor.calibrate.tables``."""
