"""The version of the distribution, in the one place that packaging and programs read."""

VERSION = "0.1.0"
