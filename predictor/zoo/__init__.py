"""Our own definitions of the models this field is judged on, each after its paper.

This package imports no torch before a model is built: the tables beside this file list what exists, by
kind; the networks are in the modules they name, one family per file. Parameter counts are spelled out in
tests/test_zoo.py, tests/test_zoo_more.py and docs/reference/zoo.md.
"""

from predictor.zoo.definition import Definition
from predictor.zoo.images import IMAGES
from predictor.zoo.scenes import SCENES
from predictor.zoo.sound import SOUND
from predictor.zoo.tables import TABLES
from predictor.zoo.text import TEXT

__all__ = ["ZOO", "Definition"]

ZOO: dict[str, Definition] = {**IMAGES, **SCENES, **TEXT, **SOUND, **TABLES}
