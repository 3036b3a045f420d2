"""Measuring: how well a model answers, how large it is, how fast it is and how much memory it takes, on the runtime that would serve it."""

import sys

from recompress import CallableRoom

sys.modules[__name__].__class__ = CallableRoom
