"""Coding: the lines of a log as bytes and back, each said as briefly as what both sides know already allows."""
