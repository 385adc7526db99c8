"""Predictions against measurements: tables are read into cases, cases are priced, prices are scored.

``tables`` recognises a file, ``readers`` turn its rows into cases, ``validate`` prices them and ``score``
counts errors. No measured figure of a row reaches the prediction of that row.
"""
