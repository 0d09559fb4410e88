"""The version of openwork, for whoever has to write it down."""

VERSION = "0.1.0"
